"""
The fixtures under the plugins that run async tests, each in a pytest of its own.
"""

from __future__ import annotations

import pytest

pytest_plugins = ("pytester",)

BARE = (
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-p",
    "no:cov",
    "-p",
    "no:hypothesispytest",
    "-W",
    "error",
)
SCOPE = ("-o", "asyncio_default_fixture_loop_scope=function")

HEAD = """
import asyncio
import sys
import pytest
from veo_async import VeoSession

async def program():
    async with VeoSession() as veo:
        return await veo.text_to_video("a whale")

@pytest.fixture
def anyio_backend():
    return "asyncio"
"""
TESTS = """
class Test{name}:
    {mark}
    async def test_in_real_time(self, veo_session, veo_simulator):
        await asyncio.gather(program(), veo_session.text_to_video("a storm"))
        veo_simulator.assert_bought_once()
        assert 2 == len(veo_simulator.bought)

    {mark}
    async def test_on_the_clock(self, veo_session, veo_clock, veo_simulator):
        await asyncio.gather(program(), veo_session.text_to_video("a storm"))
        veo_simulator.assert_bought_once()
        assert 30.0 < veo_clock.elapsed < 600.0

    {mark}
    async def test_one_that_fails(self, veo_session, veo_clock):
        veo_session.text_to_video("a storm")
        raise SystemError
"""


def _tests(name: str, mark: str) -> str:
    return TESTS.format(name=name, mark=mark)


def test_the_fixtures_work_under_pytest_asyncio_and_beside_it(pytester: pytest.Pytester) -> None:
    """A session is entered and left in the test's own loop, whose it may be, and if the test fails."""
    pytester.makepyfile(
        HEAD
        + _tests("Strict", "@pytest.mark.asyncio")
        + _tests("OneLoopForAll", "@pytest.mark.asyncio(loop_scope='class')")
        + _tests("Anyio", "@pytest.mark.anyio")
    )
    ended = pytester.runpytest_subprocess(*BARE, *SCOPE, "-o", "asyncio_mode=strict")
    ended.assert_outcomes(passed=6, failed=3)
    ended.stdout.fnmatch_lines(["E*SystemError"] * 3)


def test_the_fixtures_work_under_pytest_asyncio_in_auto_mode(pytester: pytest.Pytester) -> None:
    """No mark is needed, and anyio's plugin is not there."""
    pytester.makepyfile(HEAD + _tests("Auto", ""))
    ended = pytester.runpytest_subprocess(*BARE, *SCOPE, "-p", "no:anyio", "-o", "asyncio_mode=auto")
    ended.assert_outcomes(passed=2, failed=1)
    ended.stdout.fnmatch_lines(["E*SystemError"])


def test_the_fixtures_work_under_anyio_alone(pytester: pytest.Pytester) -> None:
    """
    Nothing is loaded until a test asks for a fixture; what the fixtures cannot do is told in a sentence.
    """
    pytester.makepyfile(
        test_first="""
            import sys

            NAMES = {"aiohttp", "cattrs", "veo_async.errors", "veo_async.simulator", "veo_async.testing.clock"}
            LOADED = NAMES & set(sys.modules)  # by the start of pytest; the other files load more

            def test_nothing_is_loaded_without_a_fixture():
                assert "veo_async.testing.plugin" in sys.modules
                assert set() == LOADED

            def test_a_fixture_loads_it(veo_simulator):
                assert "aiohttp" in sys.modules

            def test_that_is_not_async(veo_session): ...

            def test_that_asks_too_late(veo_simulator, request):
                request.getfixturevalue("veo_clock")
        """,
        test_second="""
            import pytest

            @pytest.mark.anyio
            @pytest.mark.parametrize("anyio_backend", ["trio"])
            async def test_on_trio(veo_session): ...
        """,
        test_third=HEAD + _tests("Anyio", "@pytest.mark.anyio"),
    )
    ended = pytester.runpytest_subprocess(*BARE, "-p", "no:asyncio")
    ended.assert_outcomes(passed=4, failed=3, errors=1)
    ended.stdout.fnmatch_lines(
        [
            "E*veo_session is for tests that are `async def`*",
            "E*veo_clock must be an argument of the test*",
            "E*veo_session needs asyncio*define a fixture anyio_backend that returns 'asyncio'*",
            "E*SystemError",
        ]
    )

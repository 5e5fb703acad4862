"""
The fixtures under the plugins that run async tests, each in a pytest of its own.
"""

from __future__ import annotations

import pytest

pytest_plugins = ("pytester",)

TESTS = """
    import asyncio, sys
    import pytest
    from veo_async import VeoSession

    async def program():
        async with VeoSession() as veo:
            return await veo.text_to_video("a whale")
"""
IN_REAL_TIME = """
    {mark}
    async def test_a_program_and_a_session(veo_session, veo_simulator):
        await asyncio.gather(program(), veo_session.text_to_video("a storm"))
        veo_simulator.assert_bought_once()
        assert 2 == len(veo_simulator.bought)
"""
ON_THE_CLOCK = """
    class Test:
        {mark}
        async def test_a_program_and_a_session(self, veo_session, veo_clock, veo_simulator):
            await asyncio.gather(program(), veo_session.text_to_video("a storm"))
            veo_simulator.assert_bought_once()
            assert 30.0 < veo_clock.elapsed < 600.0

        {mark}
        async def test_one_that_fails(self, veo_session, veo_clock):
            veo_session.text_to_video("a storm")
            raise SystemError
"""
ANYIO_ON_ASYNCIO = """
    @pytest.fixture
    def anyio_backend():
        return "asyncio"
"""
STRICT = ("-p", "no:anyio", "-o", "asyncio_mode=strict")
AUTO = ("-p", "no:anyio", "-o", "asyncio_mode=auto")
ANYIO = ("-p", "no:asyncio")
BOTH = ("-o", "asyncio_mode=strict")


def _run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess(
        "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:cov", "-W", "error", *options
    )


@pytest.mark.parametrize(
    ("options", "mark"),
    [
        pytest.param(STRICT, "@pytest.mark.asyncio", id="pytest-asyncio, strict"),
        pytest.param(
            STRICT, "@pytest.mark.asyncio(loop_scope='module')", id="pytest-asyncio, one loop for all"
        ),
        pytest.param(AUTO, "", id="pytest-asyncio, auto"),
        pytest.param(ANYIO, "@pytest.mark.anyio", id="anyio"),
        pytest.param(BOTH, "@pytest.mark.anyio", id="anyio beside pytest-asyncio"),
    ],
)
def test_the_fixtures_work_under(pytester: pytest.Pytester, options: tuple[str, ...], mark: str) -> None:
    """In the test's own loop a session is entered and left, also where the test fails; nothing is unclosed."""
    scope = "-o", "asyncio_default_fixture_loop_scope=function"
    pytester.makepyfile((TESTS + ANYIO_ON_ASYNCIO + IN_REAL_TIME + ON_THE_CLOCK).format(mark=mark))
    ended = _run(pytester, *options, *(() if options is ANYIO else scope))
    ended.assert_outcomes(passed=2, failed=1)
    ended.stdout.fnmatch_lines(["E*SystemError"])


def test_trio_is_refused(pytester: pytest.Pytester) -> None:
    """Without a backend of one's own, anyio runs each test on trio as well, and the message says what to do."""
    pytester.makepyfile((TESTS + IN_REAL_TIME).format(mark="@pytest.mark.anyio"))
    ended = _run(pytester, *ANYIO)
    ended.assert_outcomes(passed=1, failed=1)
    ended.stdout.fnmatch_lines(
        ["E*veo_session needs asyncio*define a fixture anyio_backend that returns 'asyncio'*"]
    )


def test_whoever_uses_none_of_it_waits_for_none_of_it(pytester: pytest.Pytester) -> None:
    """pytest has the plugin, and neither the rest of the package nor aiohttp; nor does a collection load them."""
    pytester.makepyfile("""
        import sys

        def test_it():
            assert "veo_async.testing.plugin" in sys.modules
            names = {"aiohttp", "cattrs", "veo_async.errors", "veo_async.simulator", "veo_async.testing.clock"}
            assert set() == names & set(sys.modules)

        def test_it_with_a_fixture(veo_simulator):
            assert "aiohttp" in sys.modules
    """)
    _run(pytester, "-p", "no:asyncio", "-p", "no:anyio").assert_outcomes(passed=2)


def test_a_test_that_is_not_async_is_told(pytester: pytest.Pytester) -> None:
    """There is no loop in which the session could be entered; and a clock that comes late is told, too."""
    pytester.makepyfile("""
        def test_it(veo_session): ...

        def test_late(veo_simulator, request):
            request.getfixturevalue("veo_clock")
    """)
    ended = _run(pytester, "-p", "no:asyncio", "-p", "no:anyio")
    ended.assert_outcomes(errors=1, failed=1)
    ended.stdout.fnmatch_lines(
        ["E*veo_session is for tests that are `async def`*", "E*veo_clock must be an argument of the test*"]
    )


def test_the_fixtures_are_told(pytester: pytest.Pytester) -> None:
    """`pytest --fixtures` says what each is."""
    ended = _run(pytester, "--fixtures", "-p", "no:asyncio", "-p", "no:anyio")
    for name in ("veo_clock", "veo_session", "veo_simulator", "veo_simulator_settings"):
        ended.stdout.fnmatch_lines([f"{name} -- *"])

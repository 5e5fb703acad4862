"""
What a test can tell the simulator, and ask it afterwards.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from tests.platform.pictures import JPEG
from veo_async import (
    ConfigurationError,
    InsufficientBalance,
    JobFailed,
    PollPolicy,
    RetryPolicy,
    TextToVideo,
    UsageError,
    VeoSession,
)
from veo_async.platform import AccountPlatform
from veo_async.simulator import Core, Settings
from veo_async.testing import VeoSimulator
from veo_async.testing.around import serve
from veo_async.testing.simulated import served


async def program(*prompts: str) -> list[str]:
    """
    A program as its author wrote it, which knows nothing of tests.
    """
    async with VeoSession() as veo:
        jobs = veo.submit_many([TextToVideo(prompt) for prompt in prompts])
        return [(await job).video.url async for job in veo.as_completed(jobs)]


def test_a_program_with_a_loop_of_its_own_finds_the_simulator(veo_simulator: VeoSimulator) -> None:
    """Neither its token, nor its address, nor its policies are changed, and yet it ends at once."""
    urls = asyncio.run(program("a whale", "a storm"))
    assert all(url.startswith(veo_simulator.url) for url in urls)
    assert {"a whale", "a storm"} == {purchase.prompt for purchase in veo_simulator.bought}
    assert 2 == veo_simulator.requests["submit"]


def test_afterwards_all_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables, the session's class and the thread are there while the fixture is, and not after it."""
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN", raising=False)
    enter = VeoSession.__aenter__
    with pytest.MonkeyPatch.context() as patches:
        for simulator in serve(Settings(), patches, None):
            assert simulator.url in repr(VeoSession())
            assert enter is not VeoSession.__aenter__
    with pytest.raises(ConfigurationError, match="no token"):
        VeoSession()
    assert enter is VeoSession.__aenter__
    assert "veo_async simulator" not in [thread.name for thread in threading.enumerate()]


async def test_scripts_decide(veo_simulator: VeoSimulator, veo_session: VeoSession) -> None:
    """A task fails, a submit is refused, and a script that nothing matched can be asked for."""
    veo_simulator.script(prompt="*storm*", fails="forbidden")
    veo_simulator.script(type="text2video", model="veo3*", times=1, refused="used_up", message="no money")
    unused = veo_simulator.script(prompt="*volcano*", takes=10.0)
    with pytest.raises(JobFailed, match="the script says so"):
        await veo_session.text_to_video("a storm")
    with pytest.raises(InsufficientBalance, match="no money"):
        await veo_session.text_to_video("a whale")
    await veo_session.text_to_video("a whale")
    assert [unused] == veo_simulator.unused_scripts
    assert ["a whale"] == [purchase.prompt for purchase in veo_simulator.bought]  # what failed costs nothing


async def test_a_lost_answer_is_bought_once(veo_simulator: VeoSimulator, veo_session: VeoSession) -> None:
    """A fault has the command's word; what is told with it is as for `Faults.add`."""
    veo_simulator.fault("status_before@submit", status=503)
    veo_simulator.fault("drop_after@submit")
    faults = veo_simulator.fault("status_before", on=["retrieve", "retrieve_batch"], times=1, status=500)
    await asyncio.gather(*veo_session.submit_many([TextToVideo("a whale"), TextToVideo("a storm")]))
    assert [2, 2] == [faults.struck["submit", kind] for kind in ("drop_after", "status_before")]
    assert 1 == faults.struck["retrieve", "status_before"] + faults.struck["retrieve_batch", "status_before"]
    veo_simulator.assert_bought_once()
    with pytest.raises(ValueError, match="did you mean 'drop_after'"):
        veo_simulator.fault("drop_aftr@submit")


async def test_a_call_that_is_repeated_buys_twice(
    veo_simulator: VeoSimulator, veo_session: VeoSession
) -> None:
    """The message names the prompt; by key, two videos of one prompt are what was wanted."""
    for key in ("first", "second"):
        await veo_session.submit(TextToVideo("a whale"), key=key)
    await veo_session.text_to_video("a storm")
    with pytest.raises(
        AssertionError, match=r"bought more than once:\n  2 times: text2video 'a whale' \(tasks "
    ):
        veo_simulator.assert_bought_once()
    veo_simulator.assert_bought_once(by="key")


async def test_a_key_that_is_bought_twice_is_seen(veo_simulator: VeoSimulator) -> None:
    """Two processes without a journal buy one key twice, even for other prompts."""
    for prompt in ("a whale", "another whale"):
        async with VeoSession() as veo:
            await veo.submit(TextToVideo(prompt), key="whale")
    veo_simulator.assert_bought_once()
    with pytest.raises(AssertionError, match="2 times: text2video 'a whale'"):
        veo_simulator.assert_bought_once(by="key")


async def test_without_marks_a_key_is_its_request(veo_simulator: VeoSimulator) -> None:
    """What carries no mark can be told by what it asked for alone; without a prompt, its fields are shown."""
    async with VeoSession(placeholder=None) as veo:
        for _ in range(2):
            await veo.ingredients_to_video(["https://example.com/a.jpg"])
    with pytest.raises(AssertionError, match=r"2 times: ingredients2video \{.*a\.jpg"):
        veo_simulator.assert_bought_once(by="key")


async def test_policies_that_a_program_scaled_stay(veo_simulator: VeoSimulator) -> None:
    """A program that knows of the simulator's speed is not made a thousand times faster again."""
    veo_simulator.script(takes=60.0)
    scaled = PollPolicy(deadline=100_000.0).scaled(1 / 1000)
    async with VeoSession(polling=scaled, retry=RetryPolicy(drain=0.1)) as veo:
        await veo.text_to_video("a whale")  # with a deadline of 0.1 s it would not succeed


async def test_another_address_is_let_alone(veo_simulator: VeoSimulator) -> None:
    """A session with an address of its own keeps its policies, and talks to that."""
    with served(Core(Settings(duration=lambda _: 0.0))) as other:
        async with VeoSession(base_url=other.url, polling=PollPolicy(first_look=0.01)) as veo:
            await veo.text_to_video("a whale")
    assert [] == veo_simulator.bought
    assert 1 == other.core.accepted


@pytest.mark.usefixtures("veo_simulator")
async def test_no_money_is_spent() -> None:
    """A session that names the real address is refused before it sends anything; entering twice is the usual error."""
    with pytest.raises(UsageError, match=r"may not spend money at https://api\.acedata\.cloud"):
        await VeoSession(base_url="https://api.acedata.cloud").__aenter__()
    async with VeoSession() as veo:
        with pytest.raises(UsageError, match="entered once"):
            await veo.__aenter__()


async def test_a_picture_is_uploaded_to_the_simulator(veo_simulator: VeoSimulator) -> None:
    """A program finds the platform and its account token as well; bytes stand for a file."""
    async with VeoSession(platform=AccountPlatform()) as veo:
        await veo.image_to_video("she turns", [JPEG])
    assert [JPEG] == [*veo_simulator.core.platform.uploads.values()]


async def test_nothing_is_uploaded_to_the_real_platform(request: pytest.FixtureRequest) -> None:
    """An account's platform that was made before the fixture is refused, too."""
    real = AccountPlatform("platform-0123456789", base_url="https://platform.acedata.cloud")
    request.getfixturevalue("veo_simulator")
    async with VeoSession(platform=real) as veo:
        with pytest.raises(UsageError, match=r"may not upload to https://platform\.acedata\.cloud"):
            await veo.image_to_video("she turns", [JPEG])
        with pytest.raises(UsageError, match="may not upload"):
            await veo.price(TextToVideo("a whale"))


def test_a_server_that_cannot_start_says_why() -> None:
    """What goes wrong in its thread is raised where the test waits for it."""
    core = Core()
    core.listeners = None  # type: ignore[assignment]
    with pytest.raises(AttributeError, match="append"):
        served(core).__enter__()


class TestAnotherSpeed:
    """
    Whoever defines the fixture `veo_simulator_settings` decides how the simulator behaves.
    """

    @pytest.fixture
    def veo_simulator_settings(self) -> Settings:
        """
        Settings of one's own.
        """
        return Settings(speed=5000.0, balance=0)

    async def test_the_settings_are_used(self, veo_session: VeoSession) -> None:
        """The account has no balance."""
        with pytest.raises(InsufficientBalance):
            await veo_session.text_to_video("a whale")

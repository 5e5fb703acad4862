"""
Pictures of this machine in requests: uploaded once, before anything is bought, and known again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from acedatacloud import AsyncAceDataCloud
from attrs import define, field

from tests._journal.lives import intended
from tests.postgres.server import Postgres
from tests.virtual import World, run
from veo_async import (
    ImageToVideo,
    IngredientsToVideo,
    JobAbandoned,
    JobState,
    Journal,
    KeyConflict,
    Limits,
    PlatformError,
    PollPolicy,
    PostgresJournal,
    RetryPolicy,
    SessionClosed,
    VeoSession,
)
from veo_async.platform import AccountPlatform
from veo_async.simulator import Faults, Settings, Simulator

from .pictures import JPEG, PNG, picture

SPEED = 500.0


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(Settings(speed=SPEED)) as running:
        yield running


def platform(sim: Simulator, token: str | None = None, **options: Any) -> AccountPlatform:
    retry = RetryPolicy().scaled(1 / SPEED)
    return AccountPlatform(token or sim.account_token, base_url=sim.url, retry=retry, **options)


def session(sim: Simulator, **options: Any) -> VeoSession:
    patient: dict[str, Any] = {
        "polling": PollPolicy().scaled(1 / SPEED),
        "retry": RetryPolicy().scaled(1 / SPEED),
    }
    return VeoSession(sim.token, base_url=sim.url, **patient | options)


def uploads(sim: Simulator) -> list[bytes]:
    return [*sim.core.platform.uploads.values()]


@define
class Bucket:
    """
    An uploader of one's own, which waits until it is let go.
    """

    address: str = "https://bucket.example/a.jpg"
    received: list[bytes] = field(factory=list)
    begun: asyncio.Event = field(factory=asyncio.Event)
    may_end: asyncio.Event = field(factory=asyncio.Event)

    async def upload(self, content: bytes) -> str:
        self.received.append(content)
        self.begun.set()
        await self.may_end.wait()
        return self.address


# --- what is sent ----------------------------------------------------------------------------------------


async def test_a_picture_is_uploaded_and_its_address_is_sent(sim: Simulator, tmp_path: Path) -> None:
    """A path, a string and bytes stand beside a URL; each becomes a public address that has the very contents."""
    path, url = picture(tmp_path), "https://images.example/b.jpg"
    async with session(sim, platform=platform(sim)) as veo:
        await veo.submit(ImageToVideo("she turns", [str(path), PNG]))
        await veo.submit(IngredientsToVideo([url, path]))
    first, second = [task.body["image_urls"] for task in sim.core.tasks.values()]
    assert [JPEG, PNG] == uploads(sim)
    assert [url, first[0]] == second
    answers = [sim.core.handle("GET", address.removeprefix(sim.url), {}, b"") for address in first]
    assert [JPEG, PNG] == [answer.body for answer in answers]
    assert all(str(tmp_path) not in address and "portrait" not in address for address in first)


def test_equal_contents_are_uploaded_once(tmp_path: Path) -> None:
    """A thousand requests with the same three pictures cost three uploads; another session makes none."""
    pictures = [JPEG + bytes([number]) for number in range(3)]
    bucket = Bucket()
    bucket.may_end.set()

    async def story() -> None:
        world = World()
        for session_number, count in enumerate((1000, 100)):
            kept = Journal(tmp_path / "batch.db", inline=True)
            async with world.session(platform=AccountPlatform(uploader=bucket), journal=kept) as veo:
                jobs = veo.submit_many(
                    (f"{session_number} {n}", ImageToVideo(f"turn {n}", [pictures[n % 3]]))
                    for n in range(count)
                )
                assert [None] * count == [job.exception() async for job in veo.as_completed(jobs)]
        assert 1100 == world.core.accepted

    run(story())
    assert pictures == sorted(bucket.received)


async def test_an_upload_tells_how_far_it_is(sim: Simulator) -> None:
    """In bytes, piece by piece, up to the whole."""
    told: list[tuple[int, int]] = []
    content = JPEG + bytes(500_000)
    async with platform(sim, progress=lambda done, total: told.append((done, total))) as account:
        await account.upload(content)
    assert (len(content), len(content)) == told[-1]
    assert 2 <= len(told)
    assert sorted(told) == told
    assert [content] == uploads(sim)


async def test_the_url_field_of_an_answer_counts_too(tmp_path: Path) -> None:
    """An answer may name the address `url`."""
    async with Simulator(Settings(speed=SPEED, upload_field="url")) as sim:
        async with session(sim, platform=platform(sim)) as veo:
            await veo.submit(ImageToVideo("she turns", [picture(tmp_path)]))
        assert 1 == len(uploads(sim))


async def test_the_vendors_client_uploads_unchanged(sim: Simulator) -> None:
    """The vendor's own package gets an address from the simulated platform, and can read what it has uploaded."""
    vendor = AsyncAceDataCloud(sim.account_token, base_url=sim.url, platform_base_url=sim.url, max_retries=0)
    try:
        answer = await vendor.files.upload(PNG, filename="a.png")
    finally:
        await vendor.close()
    assert [PNG] == uploads(sim)
    assert answer["file_url"].startswith(f"{sim.url}/uploads/")


# --- restarts --------------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "sqlite":
        return lambda: Journal(tmp_path / "batch.db")
    server: Postgres = request.getfixturevalue("postgres")
    schema = request.getfixturevalue("schema")
    return lambda: PostgresJournal(server.dsn, schema=schema)


async def test_a_request_stays_the_same_after_a_restart(journal: Any, token: str, tmp_path: Path) -> None:
    """The same key with the same contents, elsewhere, is the same purchase; other contents are a conflict."""
    path, moved = picture(tmp_path), picture(tmp_path, "moved.jpg")
    async with Simulator(Settings(speed=SPEED, tokens=[token])) as sim:
        async with session(sim, journal=journal(), platform=platform(sim)) as veo:
            result = await veo.submit(ImageToVideo("she turns", [path]), key="k")
        path.unlink()
        async with session(sim, journal=journal(), platform=platform(sim)) as veo:
            again = veo.submit(ImageToVideo("she turns", [moved]), key="k")
            assert result.task_id == (await again).task_id
            with pytest.raises(KeyConflict, match=r"image_urls=\('moved\.jpg',\)"):
                veo.submit(ImageToVideo("she turns", [PNG]), key="k")
        async with session(sim, journal=journal(), platform=platform(sim)) as veo:
            with pytest.raises(KeyConflict):
                await veo.submit(ImageToVideo("she turns", [PNG]), key="k")
        assert 1 == sim.core.accepted
        assert [JPEG] == uploads(sim)[:1]


async def test_what_was_only_intended_is_sent_without_the_file(
    journal: Any, token: str, tmp_path: Path
) -> None:
    """A later session needs neither the file nor a platform: the journal knows the address."""
    path, kept = picture(tmp_path), journal()
    async with Simulator(Settings(speed=SPEED, tokens=[token])) as sim:
        sim.core.next_durations.append(1000.0)
        options: dict[str, Any] = {"limits": Limits(max_in_flight=1), "platform": platform(sim)}
        async with session(sim, journal=kept, **options) as veo:
            await veo.submit(ImageToVideo("first", [path]), key="first").accepted()
            waiting = veo.submit(ImageToVideo("second", [path]), key="second")
            while await kept.find("second") is None:
                assert JobState.QUEUED is waiting.state
        path.unlink()
        async with session(sim, journal=journal()) as veo:
            [_, job] = await veo.resume()
            await job
            assert "second" == job.key
        one, other = [task.body["image_urls"] for task in sim.core.tasks.values()]
        assert (1, one) == (len(uploads(sim)), other)


async def test_what_is_sent_again_after_a_restart_has_its_address(
    journal: Any, token: str, tmp_path: Path
) -> None:
    """A submit that got no answer, and bought nothing, goes again from a session that has no file."""
    path, faults = picture(tmp_path), Faults().add("drop_before", on="submit", first=True)
    retry = RetryPolicy(grace=1.0, drain=0.001)
    async with Simulator(Settings(speed=SPEED, tokens=[token]), faults=faults) as sim:
        async with session(sim, journal=journal(), platform=platform(sim), retry=retry) as veo:
            job = veo.submit(ImageToVideo("she turns", [path]), key="k")
            async for update in job.updates():
                if update.state is JobState.UNKNOWN:
                    break
        path.unlink()
        async with session(sim, journal=journal()) as veo:
            [job] = await veo.resume()
            await job
        [task] = sim.core.tasks.values()
        assert task.body["image_urls"] == [f"{sim.url}/uploads/{name}" for name in sim.core.platform.uploads]


async def test_the_same_request_has_the_same_key_in_one_session(sim: Simulator, tmp_path: Path) -> None:
    """Without a journal, too: while the picture is under way, afterwards, and once the job has settled."""
    bucket, path = Bucket(f"{sim.url}/a.jpg"), picture(tmp_path)
    async with session(sim, platform=AccountPlatform(uploader=bucket)) as veo:
        job = veo.submit(ImageToVideo("she turns", [path]), key="k")
        await bucket.begun.wait()
        assert job is veo.submit(ImageToVideo("she turns", [str(path)]), key="k")
        bucket.may_end.set()
        result = await job
        again = veo.submit(ImageToVideo("she turns", [path]), key="k")
        assert result.task_id == (await again).task_id
    assert [JPEG] == bucket.received
    assert 1 == sim.core.accepted


# --- what goes wrong -------------------------------------------------------------------------------------


async def test_a_job_can_be_abandoned_during_its_upload(sim: Simulator, tmp_path: Path) -> None:
    """It is not bought, leaving the session waits for nothing, and what an earlier session intended stays."""
    kept = Journal(tmp_path / "batch.db")
    await kept.open(sim.token)
    await kept.write(intended("k"))
    await kept.close()
    bucket = Bucket()
    async with session(sim, journal=kept, platform=AccountPlatform(uploader=bucket)) as veo:
        job = veo.submit(ImageToVideo("she turns", [JPEG]), key="k")
        await bucket.begun.wait()
        job.abandon()
        with pytest.raises(JobAbandoned):
            await job
        await kept.write()
        assert await kept.find("k") is not None
    assert 0 == sim.core.accepted


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("absent", "status 404: it does not know that address"),
        ("failing", "status 500: it failed: try again later (Internal Server Error)"),
        ("html", "the platform's answer cannot be read: the reply is not JSON: a page titled 'Bad Gateway'"),
        ("other", "the platform's answer to an upload has no address of the file"),
    ],
)
async def test_a_platform_out_of_order_is_told_in_a_sentence(state: Any, words: str) -> None:
    """The job that needs it ends with a `PlatformError`, and any other goes on."""
    async with Simulator(Settings(speed=SPEED, platform=state)) as sim:
        async with session(sim, platform=platform(sim)) as veo:
            other = veo.text_to_video("a whale")
            with pytest.raises(PlatformError) as caught:
                await veo.submit(ImageToVideo("she turns", [JPEG]))
            assert words in str(caught.value)
            await other
        assert 1 == sim.core.accepted


async def test_a_failure_is_not_repeated_for_every_job() -> None:
    """What is wrong with the platform is told to all jobs at once; what is wrong with a picture, to its own job."""
    async with Simulator(Settings(speed=SPEED, max_upload=50)) as sim:
        async with session(sim, platform=platform(sim)) as veo:
            with pytest.raises(PlatformError, match="status 413: the file is too large for it"):
                await veo.submit(ImageToVideo("she turns", [JPEG + b"." * 50]))
            await veo.submit(ImageToVideo("she turns", [JPEG]))
            sim.core.platform.settings = Settings(platform="failing")
            jobs = veo.submit_many(ImageToVideo(f"turn {n}", [PNG + bytes([n])]) for n in range(40))
            assert {"PlatformError"} == {
                type(job.exception()).__name__ async for job in veo.as_completed(jobs)
            }
            assert 1 == sim.core.accepted
        assert sim.core.platform.requests["failing"] <= 12  # four at once, three times each


async def test_an_upload_that_never_ends_delays_nothing_else(sim: Simulator) -> None:
    """However many wait for it: what needs no upload is bought, and the session can be left."""
    bucket = Bucket()
    async with session(sim, platform=AccountPlatform(uploader=bucket)) as veo:
        requests = [ImageToVideo("she turns", [JPEG + bytes([number])]) for number in range(9)]
        jobs = veo.submit_many(requests)
        await bucket.begun.wait()
        await veo.text_to_video("a whale")
    assert 1 == sim.core.accepted
    assert {SessionClosed} == {type(job.exception()) for job in jobs}


async def test_a_name_without_contents_is_told(sim: Simulator) -> None:
    """A journal's text that is used as an image, where no journal knows the picture."""
    async with session(sim, platform=platform(sim)) as veo:
        with pytest.raises(PlatformError, match="is not known: pass the file, or its bytes"):
            await veo.submit(ImageToVideo("she turns", ["sha256:" + "0" * 64]))


async def test_a_wrong_account_token_is_tried_once(sim: Simulator) -> None:
    """All other pictures of the session meet the same answer, so they are not tried."""
    async with session(sim, platform=platform(sim, "platform-of-somebody-else")) as veo:
        for picture in (JPEG, PNG):
            with pytest.raises(PlatformError, match="refused the account token") as caught:
                await veo.submit(ImageToVideo("she turns", [picture]))
            assert 401 == caught.value.status
    assert 1 == sim.core.platform.requests["refused"]


async def test_without_a_token_or_a_platform_the_job_says_what_to_do(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sentences name the remedy; nothing is sent."""
    monkeypatch.delenv("ACEDATACLOUD_PLATFORM_TOKEN", raising=False)
    without: list[tuple[AccountPlatform | None, str]] = [
        (AccountPlatform(base_url=sim.url), "set ACEDATACLOUD_PLATFORM_TOKEN"),
        (None, r"VeoSession\(platform=AccountPlatform\(\)\) uploads it"),
    ]
    for one, words in without:
        async with session(sim, platform=one) as veo:
            with pytest.raises(PlatformError, match=words):
                await veo.submit(ImageToVideo("she turns", [JPEG]))
    assert 0 == sim.core.accepted


async def test_a_file_that_changes_is_not_uploaded(sim: Simulator, tmp_path: Path) -> None:
    """What was checked is what is uploaded, or nothing."""
    path = picture(tmp_path)
    request = ImageToVideo("she turns", [path])
    picture(tmp_path, note=b"!")
    async with session(sim, platform=platform(sim)) as veo:
        with pytest.raises(PlatformError, match="has changed since the request was made"):
            await veo.submit(request)
    assert [] == uploads(sim)


async def test_a_failing_uploader_of_ones_own_fails_the_job_alone(sim: Simulator) -> None:
    """Whatever it raises or returns becomes a `PlatformError`."""

    class Broken:
        async def upload(self, content: bytes) -> str:
            if content == PNG:
                raise KeyError("bucket")
            return "no address"

    async with session(sim, platform=AccountPlatform(uploader=Broken())) as veo:
        with pytest.raises(PlatformError, match="the uploader failed: KeyError"):
            await veo.submit(ImageToVideo("she turns", [PNG]))
        with pytest.raises(PlatformError, match="returned 'no address', which is not"):
            await veo.submit(ImageToVideo("she turns", [JPEG]))

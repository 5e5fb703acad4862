"""
The one coroutine that watches: deadlines, dead tokens, vanished tasks, and replies of every kind.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.virtual import EPOCH, InMemoryTransport, World, run
from tests.virtual.scripted import answer, ended, in_virtual_time, scripted, whale, whales
from veo_async import (
    Job,
    JobFailed,
    JobState,
    JobTimedOut,
    JobVanished,
    Journal,
    PollPolicy,
    TaskState,
    TextToVideo,
    TrackingLost,
    TransportTimedOut,
    UsageError,
    VeoError,
    VeoSession,
)
from veo_async._api.tasks import BatchStates, batch_states
from veo_async._http.transport import Outgoing, Reply
from veo_async.simulator import TOKEN, Faults, Settings
from veo_async.simulator._settings import FailedForm, PendingForm


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_job_past_its_deadline_times_out_and_its_task_goes_on() -> None:
    """
    The deadline counts from acceptance; the error names the task, and attaching goes on waiting.
    """

    async def main() -> None:
        world = World()
        world.core.next_durations.append(500.0)
        async with world.session() as veo:
            job = veo.submit(TextToVideo("a"), timeout=60.0)
            with pytest.raises(JobTimedOut) as caught:
                await job
            assert 60.0 == pytest.approx(now(), abs=1.0)
            assert isinstance(caught.value, TimeoutError)
            assert (job.key, job.task_id) == (caught.value.key, caught.value.task_id)
            assert job.task_id is not None
            again = veo.attach(job.task_id)
            assert job.task_id == (await again).task_id
        assert 1 == world.core.accepted

    run(main())


@in_virtual_time
async def test_a_task_that_is_due_sooner_wakes_the_tracker() -> None:
    """
    While the first look at one task is minutes away, another that must be looked at sooner is, and on time.
    """
    durations = {"slow": 3000.0, "quick": 40.0}
    world = World(Settings(duration=lambda body: durations[body["prompt"]]))
    policy = PollPolicy(deadline=None, first_look=2000.0)
    async with world.session(polling=policy) as veo:
        slow = veo.submit(TextToVideo("slow"))
        await slow.accepted()
        await asyncio.sleep(50.0)
        quick = veo.submit(TextToVideo("quick"), timeout=60.0)
        await asyncio.sleep(50.0)
        assert veo.notify({"task_id": quick.task_id})
        assert quick.task_id == (await quick).task_id
        assert 101.0 > now()


@in_virtual_time
async def test_a_deadline_that_is_sooner_wakes_the_tracker() -> None:
    """
    While the first look is far away, a job with a short deadline times out on time.
    """
    world = World(Settings(duration=lambda body: 3000.0))
    async with world.session(polling=PollPolicy(deadline=None, first_look=2000.0)) as veo:
        await veo.submit(TextToVideo("patient")).accepted()
        with pytest.raises(JobTimedOut):
            await veo.submit(TextToVideo("impatient"), timeout=60.0)
        assert 60.0 == pytest.approx(now(), abs=1.0)


def test_a_deadline_holds_while_the_polls_are_paused() -> None:
    """
    A server that answers every poll with 429 does not keep a job past its deadline.
    """

    async def main() -> None:
        faults = Faults().add("status_before", on=("retrieve", "retrieve_batch"), status=429, retry_after=250)
        world = World(faults=faults)
        async with world.session() as veo:
            with pytest.raises(JobTimedOut):
                await veo.submit(TextToVideo("a"), timeout=100.0)
            assert 100.0 == pytest.approx(now(), abs=1.0)

    run(main())


@in_virtual_time
async def test_a_deadline_that_comes_while_the_polls_are_paused_holds() -> None:
    """
    The tracker waits at the gate already when a job with a near deadline is submitted.
    """
    faults = Faults().add("status_before", on=("retrieve", "retrieve_batch"), status=429, retry_after=250)
    world = World(Settings(duration=lambda body: 5000.0), faults=faults)
    async with world.session() as veo:
        await veo.submit(whale(1)).accepted()
        await asyncio.sleep(60.0)
        for seconds in (50.0, 20.0):
            with pytest.raises(JobTimedOut):
                await veo.submit(whale(2), timeout=seconds)
        assert 130.0 == pytest.approx(now(), abs=1.0)


@in_virtual_time
async def test_a_deadline_that_comes_while_all_looks_hang_holds() -> None:
    """
    As many looks as there may be are under way when a job with a near deadline is submitted.
    """
    faults = Faults().add("stall_after", on=("retrieve", "retrieve_batch"))
    world = World(Settings(duration=lambda body: 5000.0), faults=faults)
    async with world.session(polling=PollPolicy(first_look=1.0, batch_size=1)) as veo:
        await asyncio.gather(*(job.accepted() for job in veo.submit_many(whales(40))))
        await asyncio.sleep(10.0)
        submitted_at = now()
        with pytest.raises(JobTimedOut):
            await veo.submit(whale(99), timeout=5.0)
        assert 5.0 == pytest.approx(now() - submitted_at, abs=1.0)


@in_virtual_time
async def test_a_look_that_somebody_else_cancels_is_made_again() -> None:
    """
    What a caller hooks up an aiohttp session with may raise anything; the task is asked about all the same.
    """
    world = World()
    session, transport = scripted(world)
    transport.asks.extend([asyncio.CancelledError()] * 3)
    async with session as veo:
        assert (await veo.submit(whale())).videos


@in_virtual_time
async def test_a_session_that_can_ask_no_more_says_so_while_it_waits_at_the_gate() -> None:
    """
    A look ends in a mistake of use while the budget holds the next one back: the jobs end now, not when it opens.
    """
    world = World(Settings(duration=lambda body: 5000.0))
    session, transport = scripted(world, polling=PollPolicy(first_look=1.0, batch_size=1, budget=0.001))

    async def closed(body: bytes) -> Reply:
        await asyncio.sleep(5.0)
        raise UsageError("the aiohttp session is closed")

    transport.asks.append(closed)
    async with session as veo:
        jobs = veo.submit_many(whales(2))
        assert [JobState.STOPPED] * 2 == [await ended(job) for job in jobs]
        assert 20.0 > now()


class Altered(InMemoryTransport):
    """
    Writes something into the records of one task.

    Attributes:
        culprit: the task's id.
        text: JSON.
        hidden: answers to questions about one task know none.
    """

    culprit = "nobody"
    text = "null"
    hidden = False

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        reply = await super().send(method, url, outgoing)
        if not url.endswith("/veo/tasks") or self.culprit.encode() not in outgoing.data:
            return reply
        if self.hidden and b'"retrieve"' in outgoing.data:
            return answer(200, {})
        data = json.loads(reply.body)
        for record in data.get("items", [data]):
            if record.get("id") == self.culprit:
                record["extra"] = "@"
        return answer(200, json.dumps(data).replace('"@"', self.text).encode())


@pytest.mark.parametrize("text", ["[" * 100_000 + "]" * 100_000, "[" * 70 + "]" * 70, "nonsense"])
@in_virtual_time
async def test_a_record_that_cannot_be_read_spoils_no_other(text: str) -> None:
    """
    The other tasks of its batch have their outcome soon; its own is waited for until the deadline.
    """
    world = World(Settings(duration=lambda body: 60.0))
    session = world.session()
    session._transport = transport = Altered(world.core, TOKEN)
    transport.text = text
    async with session as veo:
        culprit, *others = veo.submit_many(whales(30))
        transport.culprit = await culprit.accepted()
        assert [JobState.SUCCEEDED] * 29 == [await ended(job) for job in others]
        assert 120.0 > now()
        with pytest.raises(JobTimedOut):
            await culprit
        assert 600 > sum(veo.stats.requests.values())


@in_virtual_time
async def test_a_task_whose_end_cannot_be_read_does_not_vanish() -> None:
    """
    Each batch shows it, and so nothing that lone answers leave out says that the server has forgotten it.
    """
    world = World(Settings(duration=lambda body: 20.0))
    session = world.session()
    session._transport = transport = Altered(world.core, TOKEN)
    transport.hidden, transport.text = True, "[" * 70 + "]" * 70
    async with session as veo:
        jobs = veo.submit_many(whales(2))
        transport.culprit = await jobs[0].accepted()
        assert JobState.SUCCEEDED is await ended(jobs[1])
        with pytest.raises(JobTimedOut):
            await jobs[0]


@in_virtual_time
async def test_answers_larger_than_may_be_read_are_asked_for_in_smaller_batches() -> None:
    """
    Records repeat their requests, so fifty with images of 25 kB exceed the 1 MiB allowed; what fits is remembered.
    """
    world = World(Settings(duration=lambda body: 60.0))
    session = world.session()
    session._transport = InMemoryTransport(world.core, TOKEN, max_reply=1 << 20)
    async with session as veo:
        source = (await veo.text_to_video("source")).video
        jobs = [veo.remove_object(source, "A" * 25_000) for _ in range(50)]
        assert [JobState.SUCCEEDED] * 50 == [await ended(job) for job in jobs]
        assert 30 > sum(veo.stats.requests.values()) - 50
        assert veo._engine is not None
        assert 25 == veo._engine.tracker.schedule.batch_size


class Unlinked(InMemoryTransport):
    """
    Shows successes, for a while or for ever, with something else in the place of the link.

    Attributes:
        until: when the link appears, on the loop's clock.
        link: what stands there before; JSON.
    """

    until = math.inf
    link: Any = None

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        reply = await super().send(method, url, outgoing)
        data = json.loads(reply.body)
        if now() >= self.until or not isinstance(data, dict):
            return reply
        for record in data.get("items", [data]):
            for item in (record.get("response") or {}).get("data") or ():
                item["video_url"] = self.link
        return answer(200, data)


@pytest.mark.parametrize("link", [None, 7, "", "/v.mp4", "ftp://cdn.example/v.mp4"])
@in_virtual_time
async def test_a_success_whose_link_is_not_there_yet_is_looked_at_again(link: object) -> None:
    """
    A record may say that all is done before its link is there, or before that can be used: the next look has it.
    """
    world = World(Settings(duration=lambda body: 60.0))
    session = world.session()
    session._transport = transport = Unlinked(world.core, TOKEN)
    transport.link, transport.until = link, 200.0
    async with session as veo:
        job = veo.submit(whale())
        task_id = await job.accepted()
        await asyncio.sleep(150.0)
        record = await veo.retrieve(task_id)
        assert (TaskState.PENDING, JobState.PENDING) == (record.state, job.state)
        assert (await job).video.url.startswith("http")
        assert 230.0 > now() > 200.0
        assert TaskState.SUCCEEDED is (await veo.retrieve(task_id)).state


@in_virtual_time
async def test_a_success_that_never_gets_a_link_says_so_at_the_deadline(tmp_path: Path) -> None:
    """
    The error says that the task is billed; it settles the handle alone: the same key looks again, and buys nothing.
    """
    world = World(Settings(duration=lambda body: 60.0))
    journal = Journal(tmp_path / "batch.db", inline=True)
    session = world.session(journal=journal)
    session._transport = transport = Unlinked(world.core, TOKEN)
    async with session as veo:
        with pytest.raises(JobTimedOut, match="the task succeeded and is billed, but has no usable link"):
            await veo.submit(whale(), key="k", timeout=300.0)
        transport.until = now()
        assert (await veo.submit(whale(), key="k")).videos
        again = veo.submit(whale(1), key="other", timeout=30.0)
        with pytest.raises(JobTimedOut, match="the task goes on"):
            await again
    assert 2 == world.core.accepted


@in_virtual_time
async def test_what_is_said_at_the_deadline_is_what_the_last_record_showed() -> None:
    """
    A success without a link that is shown as running again is not called a success.
    """
    world = World(Settings(duration=lambda body: 60.0))
    faults = Faults().add("stale", on=("retrieve", "retrieve_batch"))
    session = world.session()
    session._transport = Unlinked(world.core, TOKEN)
    async with session as veo:
        job = veo.submit(whale(), timeout=300.0)
        await job.accepted()
        await asyncio.sleep(150.0)
        world.core.faults = faults
        with pytest.raises(JobTimedOut, match="the task goes on"):
            await job


def test_answers_that_no_gate_heeds_are_asked_for_ever_more_rarely() -> None:
    """
    A server that answers polls with 402 for ten minutes is not asked once a second, and nothing settles on it.
    """

    async def main() -> None:
        faults = Faults().add("status_before", on=("retrieve", "retrieve_batch"), status=402)
        world = World(Settings(duration=lambda body: 10.0), faults=faults)
        async with world.session() as veo:
            jobs = veo.submit_many(TextToVideo(str(number)) for number in range(50))
            await asyncio.sleep(600.0)
            assert [False] * 50 == [job.done() for job in jobs]
            assert sum(veo.stats.requests.values()) - 50 <= 600.0 / 10.0 + 10
            faults.on = False
            await asyncio.gather(*jobs)
            assert now() <= 615.0

    run(main())


def test_a_deadline_holds_while_looks_hang() -> None:
    """
    Deadlines pass on time though as many looks as there may be hang for a minute each.
    """

    async def main() -> None:
        world = World(Settings(duration=lambda body: 5000.0))
        session, transport = scripted(world, polling=PollPolicy(first_look=1.0, batch_size=1))
        timed_out: list[float] = []

        async def hang(body: bytes) -> Reply:
            await asyncio.sleep(60.0)
            raise TransportTimedOut("no answer in time")

        transport.asks.extend([hang] * 100)
        async with session as veo:
            jobs = [veo.submit(request, timeout=40.0) for request in whales(40)]
            for job in jobs:
                job.add_done_callback(lambda _: timed_out.append(now()))
            await asyncio.gather(*jobs, return_exceptions=True)
        assert {JobTimedOut} == {type(job.exception()) for job in jobs}
        assert 41.0 > max(timed_out)

    run(main())


def test_without_a_deadline_a_job_waits_for_ever() -> None:
    """
    A task that takes four times the usual deadline is waited for where the policy sets none.
    """

    async def main() -> None:
        world = World()
        world.core.next_durations.append(7200.0)
        async with world.session(polling=PollPolicy(deadline=None)) as veo:
            assert (await veo.text_to_video("a")).videos
            assert 7200 < now() < 7200 + 60

    run(main())


def test_a_failed_task_says_why() -> None:
    """
    The server's code, message and trace id reach the awaiter.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            job = veo.text_to_video("a")
            task_id = await job.accepted()
            world.core.fail(task_id, "forbidden", "not this")
            with pytest.raises(JobFailed) as caught:
                await job
            error = caught.value
            assert ("forbidden", "not this", task_id) == (error.code, error.message, error.task_id)
            assert JobState.FAILED is job.state
            record = await veo.retrieve(task_id)
            assert TaskState.FAILED is record.state
            assert error.trace_id == record.trace_id

    run(main())


def test_a_task_that_the_server_forgot_vanishes() -> None:
    """
    Not before four lone misses over two minutes, an id that nobody knows any more ends its job.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            job, other = veo.text_to_video("a"), veo.text_to_video("b")
            world.core.forget(await job.accepted())
            forgotten_at = now()
            with pytest.raises(JobVanished) as caught:
                await job
            assert now() - forgotten_at >= 120.0
            assert job.task_id == caught.value.task_id
            assert (await other).videos

    run(main())


@pytest.mark.parametrize("code", ["invalid_token", "token_expired", "disabled"])
def test_a_dead_token_ends_the_tracking(code: str) -> None:
    """
    Three probes over a minute must agree; then every tracked job says that the token died.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            jobs = veo.submit_many([TextToVideo("a"), TextToVideo("b")])
            for job in jobs:
                await job.accepted()
            world.core.revoke(TOKEN, code)
            revoked_at = now()
            before = world.core.requests.total()
            for job in jobs:
                with pytest.raises(TrackingLost) as caught:
                    await job
                assert job.task_id == caught.value.task_id
                assert isinstance(caught.value.__cause__, VeoError)
            assert now() - revoked_at >= 60.0
            assert 3 <= world.core.requests.total() - before + world.core.requests["refused"] <= 60

    run(main())


def test_a_hiccup_about_the_token_is_no_death() -> None:
    """
    A gateway that says 401 for half a minute costs nothing but that time.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            job = veo.text_to_video("a")
            await job.accepted()
            account = world.core.tokens[TOKEN]
            world.core.revoke(TOKEN, "invalid_token")
            await asyncio.sleep(70.0)
            world.core.dead_tokens.pop(TOKEN, None)
            world.core.tokens[TOKEN] = account
            assert (await job).videos

    run(main())


@in_virtual_time
async def test_a_token_that_came_to_life_again_has_as_many_chances_as_at_first() -> None:
    """
    After tracking was lost and the token works again, one 401 among good answers loses nothing.
    """
    world = World()
    session, transport = scripted(world)
    async with session as veo:
        job = veo.submit(whale())
        await job.accepted()
        world.core.revoke(TOKEN, "token_expired")
        assert JobState.STOPPED is await ended(job)
        world.core.dead_tokens.pop(TOKEN)
        transport.asks.append(answer(401, {"error": {"code": "token_expired"}}))
        assert JobState.SUCCEEDED is await ended(veo.submit(whale(1)))


def test_a_batch_that_is_too_large_is_halved_until_it_fits() -> None:
    """
    The size that works is found, and remembered.
    """

    async def main() -> None:
        world = World(Settings(max_batch=12))
        async with world.session() as veo:
            jobs = veo.submit_many([TextToVideo(str(number)) for number in range(100)])
            assert 100 == len([job.result() async for job in veo.as_completed(jobs)])
            assert veo._engine is not None
            assert 12 == veo._engine.tracker.schedule.batch_size
            assert world.core.requests["refused"] <= 16 + 3, "those under way, and one for each halving"

    run(main())


@pytest.mark.parametrize("faults", ["shuffled", "doubled", "strangers", "flipped", "stale", "missing"])
def test_a_reply_in_disorder_harms_nobody(faults: str) -> None:
    """
    Records in any order, twice, of others, or contradicting themselves end in the right result for each.
    """

    async def main() -> None:
        world = World(faults=Faults(seed=3).add(faults, on="retrieve_batch", share=0.5))
        async with world.session() as veo:
            jobs = veo.submit_many([TextToVideo(f"prompt {number}") for number in range(40)])
            async for job in veo.as_completed(jobs):
                assert isinstance(job.request, TextToVideo)
                assert job.request.prompt == world.core.tasks[job.result().task_id].body["prompt"]

    run(main())


def test_a_hint_brings_the_look_forward() -> None:
    """
    `notify` looks at once, believes nothing, and says whether anybody waits for the task.
    """

    async def main() -> None:
        world = World()
        world.core.next_durations.extend([500.0, 500.0])
        async with world.session() as veo:
            job = veo.text_to_video("a")
            task_id = await job.accepted()
            assert veo.notify({"task_id": task_id, "success": True, "data": [{"video_url": "https://evil"}]})
            await asyncio.sleep(1.0)
            assert not job.done(), "only the server's record settles a job"
            world.core.finish(task_id)
            finished_at = now()
            assert veo.notify({"task_id": task_id})
            await job
            assert now() - finished_at < 0.5
            payloads: list[object] = [
                None,
                [],
                "x",
                {},
                {"task_id": 7},
                {"task_id": "unknown"},
                {"task_id": task_id},
            ]
            assert not any(veo.notify(payload) for payload in payloads)
        assert not veo.notify({"task_id": task_id})

    run(main())


def test_looks_are_counted_and_told() -> None:
    """
    The statistics and the updates of a job say how often the server was asked.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            job = veo.text_to_video("a")
            looks = [update.looks async for update in job.updates()]
            assert sorted(looks) == looks
            assert veo.stats.looks == looks[-1] > 0
            assert world.core.requests["retrieve"] == veo.stats.requests["retrieve"]
            assert 1 == veo.stats.jobs[JobState.SUCCEEDED]
            assert veo.stats.notice_lag is not None
            assert 0 <= veo.stats.notice_lag < 30

    run(main())


@pytest.mark.parametrize("finished_at", [True, 1.0, -5, 9e12, "2026-11-21"])
@in_virtual_time
async def test_a_time_that_cannot_be_tells_no_lag(finished_at: Any) -> None:
    """
    Where a record's end is no time of this century, the job settles, and the mean lag is not touched.
    """
    world = World()
    session, transport = scripted(world)
    async with session as veo:
        job = veo.submit(whale())
        task_id = await job.accepted()
        video = {"id": "v", "video_url": "http://127.0.0.1/v.mp4", "state": "succeeded"}
        response = {"success": True, "task_id": task_id, "data": [video]}
        record = {"id": task_id, "created_at": 1.0, "finished_at": finished_at, "response": response}
        transport.asks.append(answer(200, record))
        assert "v" == (await job).video.id
        assert veo.stats.notice_lag is None


# --- every way in which a server may speak -------------------------------------------------------------------

VARIANTS: list[dict[str, Any]] = [
    *({"pending": form} for form in get_args(PendingForm)),
    *({"pending": form, "pending_finished_at": "null"} for form in ("absent", "hiccup", "mixed")),
    *({"failed": form} for form in get_args(FailedForm)),
    *(
        {"failed": "state", "failed_word": word}
        for word in ("failed", "failure", "error", "cancelled", "canceled", "rejected")
    ),
    *(
        {"success_word": word}
        for word in ("succeeded", "succeed", "success", "completed", "complete", "finished")
    ),
    *({"times": times, "video_ids": ids} for times in ("iso", "utc8") for ids in ("hex", "dashed")),
    {"newer_fields": False},
    {"newer_fields": False, "failed": "mixed", "pending": "mixed"},
    {"videos": 4},
    {"submit_extras": True, "error_success": True},
    {"repeats": False},
    {"limit_caps_ids": True},
    {"count": "total"},
    {"order": "oldest"},
    {"late": 20.0},
    {"echo_defaults": True},
    {"echo_omits": ("prompt", "model")},
    {"max_batch": 1},
    {"polls_per_second": 0.5, "retry_after": "seconds"},
    {"polls_per_second": 0.5, "retry_after": "date"},
]


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
@in_virtual_time
async def test_whatever_a_record_looks_like_its_end_is_seen(variant: dict[str, Any], *, oldest: bool) -> None:
    """
    Every documented or observed form of a record ends in the right outcome, and none before its time.
    """
    changes = {"failure_share": 0.4, "seed": 3, "duration": lambda body: 90.0, **variant}
    world = World(Settings.oldest(**changes) if oldest else Settings(**changes))
    async with world.session() as veo:
        jobs = veo.submit_many(whales(12))
        settled_at = {job: now() async for job in veo.as_completed(jobs)}
    for job in jobs:
        task = world.core.tasks[job.task_id or ""]
        assert settled_at[job] >= task.ends_at - EPOCH
        if task.error is None:
            videos = job.result().videos
            assert task.videos == len(videos)
            assert videos[0].completed_at is not None
            assert EPOCH + 90 == pytest.approx(videos[0].completed_at.timestamp(), abs=2)
        else:
            assert isinstance(job.exception(), JobFailed)
    assert {JobState.SUCCEEDED, JobState.FAILED} == {job.state for job in jobs}


@pytest.mark.parametrize("unknown", ["{}", "null", "404"])
@in_virtual_time
async def test_however_an_unknown_id_is_answered_it_vanishes(unknown: Any) -> None:
    """
    An empty object, null or a 404: after lasting silence about an id its job says so, and the others go on.
    """
    world = World(Settings(unknown=unknown, duration=lambda body: 600.0))
    async with world.session() as veo:
        gone, *others = jobs = veo.submit_many(whales(5))
        await asyncio.gather(*(job.accepted() for job in jobs))
        world.core.forget(gone.task_id or "")
        with pytest.raises(JobVanished) as caught:
            await gone
        assert gone.task_id == caught.value.task_id
        assert now() >= 120
        assert [JobState.SUCCEEDED] * 4 == [await ended(job) for job in others]


@in_virtual_time
async def test_a_task_that_shows_up_late_does_not_vanish() -> None:
    """
    Lookups that do not find a new task for a minute cost nothing but that minute.
    """
    world = World(Settings(late=60.0, duration=lambda body: 30.0))
    async with world.session(polling=PollPolicy(mode="fixed", interval=1.0)) as veo:
        assert [JobState.SUCCEEDED] * 5 == [await ended(job) for job in veo.submit_many(whales(5))]


@pytest.mark.parametrize("mode", ["learned", "fixed", "backoff"])
@in_virtual_time
async def test_every_schedule_sees_every_end(mode: Any) -> None:
    """
    Whichever schedule is chosen, all jobs settle, no request asks about more than a batch, and the budget holds.
    """
    world = World(Settings(max_batch=10))
    policy = PollPolicy(mode=mode, batch_size=10, budget=2.0)
    async with world.session(polling=policy) as veo:
        await asyncio.gather(*veo.submit_many(whales(60)))
        looks = veo.stats.requests["retrieve_batch"] + veo.stats.requests.get("retrieve", 0)
    assert looks <= 2.0 * now() + 10
    assert 60 == world.core.billed


@in_virtual_time
async def test_an_ended_task_stays_ended() -> None:
    """
    Replies that show the same task pending after its end do not take its outcome back.
    """
    faults = Faults(seed=5).add("flipped", on="retrieve_batch").add("stale", on="retrieve", share=0.5)
    world = World(Settings(failure_share=0.5), faults=faults)
    async with world.session() as veo:
        jobs = veo.submit_many(whales(30))
        settled = [job async for job in veo.as_completed(jobs)]
    assert 30 == len(settled)
    assert {JobState.SUCCEEDED, JobState.FAILED} == {job.state for job in jobs}


@in_virtual_time
async def test_a_used_up_balance_stops_no_tracking() -> None:
    """
    Looking is free: jobs that were bought before the balance ran out are delivered.
    """
    world = World(Settings(duration=lambda body: 100.0))
    async with world.session() as veo:
        job = veo.submit(TextToVideo("a"))
        await job.accepted()
        world.core.revoke(TOKEN, "used_up")
        assert JobState.SUCCEEDED is await ended(job)


@in_virtual_time
async def test_after_a_lost_token_the_session_goes_on() -> None:
    """
    A token that works again can be used again in the same session, by the same key, without buying twice.
    """
    world = World(Settings(duration=lambda body: 1000.0))
    async with world.session() as veo:
        job = veo.submit(TextToVideo("a"), key="k")
        await job.accepted()
        world.core.revoke(TOKEN)
        with pytest.raises(TrackingLost) as caught:
            await job
        assert caught.value.__cause__ is not None
        del world.core.dead_tokens[TOKEN]
        assert job.task_id == (await veo.submit(TextToVideo("a"), key="k")).task_id
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_slow_look_holds_up_nobody() -> None:
    """
    While some looks take half a minute to be answered, the other tasks are seen in time.
    """
    faults = Faults(seed=1).add("slow", on=("retrieve", "retrieve_batch"), share=0.3, seconds=30.0)
    world = World(Settings(duration=lambda body: 60.0), faults=faults)
    async with world.session(polling=PollPolicy(batch_size=1, budget=50.0)) as veo:
        jobs = veo.submit_many(whales(40))
        times = [now() async for _ in veo.as_completed(jobs)]
    assert times[19] < 90
    assert 40 == len(times)


class Dripping(InMemoryTransport):
    """
    Lets answers to questions drip in, as slowly as the time-out of the whole allows, or ever so slowly.

    Attributes:
        drips: tells from a question's number, from 1, and its body whether the answer to it does.
        seconds: how long that takes.
        fails: whether it is not there by then.
    """

    seconds = 130.0
    fails = True
    asked = 0

    def drips(self, number: int, body: bytes) -> bool:
        return number == 1

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        reply = await super().send(method, url, outgoing)
        if url.endswith("/veo/tasks"):
            self.asked += 1
            if self.drips(self.asked, outgoing.data):
                await asyncio.sleep(self.seconds)
                if self.fails:
                    raise TransportTimedOut("no answer in time")
        return reply


def dripping(world: World, **options: Any) -> tuple[VeoSession, Any]:
    session = world.session(**options)
    transport = Dripping(world.core, TOKEN)
    session._transport = transport
    return session, transport


@pytest.mark.parametrize("count", [1, 2, 30])
@in_virtual_time
async def test_an_answer_that_drips_holds_up_nobody_whom_it_is_about(count: int) -> None:
    """
    After a few seconds they are asked about again beside it, be it one task or many, and the jobs end in time.
    """
    world = World(Settings(duration=lambda body: 60.0))
    session, transport = dripping(world)
    async with session as veo:
        jobs = veo.submit_many(whales(count))
        assert {JobState.SUCCEEDED} == {await ended(job) for job in jobs}
        assert 75.0 > now()
    assert transport.asked <= 10


@in_virtual_time
async def test_a_task_whose_answers_always_drip_is_soon_asked_about_alone() -> None:
    """
    Halves of halves find it, so the others end in time; it is asked about alone from then on, and seldom.
    """
    lives = {"whale 1": 1500.0}
    world = World(Settings(duration=lambda body: lives.get(body["prompt"], 60.0)))
    session, transport = dripping(world)
    about: list[int] = []

    def drips(number: int, body: bytes) -> bool:
        if culprit.task_id is None or culprit.task_id.encode() not in body:
            return False
        about.append(len(json.loads(body).get("ids", "1")))
        return True

    transport.drips = drips
    async with session as veo:
        culprit, last, *others = veo.submit_many(whales(50))
        assert {JobState.SUCCEEDED} == {await ended(job) for job in others}
        assert 100.0 > now()
        assert JobState.SUCCEEDED is await ended(last)
        with pytest.raises(JobTimedOut):
            await culprit
    assert [50, 25, 13] == about[:3]
    assert {1} == set(about[7:])
    assert 40 > len(about)


@in_virtual_time
async def test_a_server_that_is_always_slow_is_asked_hardly_more_often() -> None:
    """
    That its answers take long is learned from the first few, and then they are waited for.
    """
    world = World(Settings(duration=lambda body: 300.0))
    session, transport = dripping(world)
    transport.drips, transport.seconds, transport.fails = lambda number, body: True, 20.0, False
    async with session as veo:
        jobs = veo.submit_many(whales(50))
        assert {JobState.SUCCEEDED} == {await ended(job) for job in jobs}
        assert 350.0 > now()
    assert 35 > transport.asked  # 12 without any impatience


@in_virtual_time
async def test_a_probe_that_drips_does_not_keep_the_lane_shut() -> None:
    """
    While one question is to find out whether an outage is over, and is not answered, another one finds it out.
    """
    faults = Faults().add("status_before", on=("retrieve", "retrieve_batch"), status=503)
    world = World(Settings(duration=lambda body: 60.0), faults=faults)
    session, transport = dripping(world)
    transport.drips = lambda number, body: False
    async with session as veo:
        jobs = veo.submit_many(whales(30))
        await asyncio.sleep(50.0)
        assert "paused" == veo._engine.tracker.limiter.gate.state  # type: ignore[union-attr]
        faults.on, first = False, transport.asked + 1
        transport.drips = lambda number, body: number == first
        assert {JobState.SUCCEEDED} == {await ended(job) for job in jobs}
        assert 75.0 > now()


def test_a_record_with_an_absurd_number_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    JSON knows no bound on whole numbers: times beyond reason are no times, and the video is handed over.
    """

    def absurd(items: Iterable[object], asked: Iterable[str]) -> BatchStates:
        found = batch_states(items, asked)
        ended = {known: {**record, "finished_at": 10**400} for known, record in found.ended.items()}
        return found._replace(ended=ended)

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            job = veo.text_to_video("a")
            task_id = await job.accepted()
            monkeypatch.setattr("veo_async._track.tracker.batch_states", absurd)
            world.core.finish(task_id)
            assert (await job).videos

    run(main())


def test_a_caller_who_cancels_and_cancels_gets_settled_jobs() -> None:
    """
    However often leaving is cancelled, it comes to its end: every job is settled and the transport is closed.
    """

    async def main() -> None:
        world = World()
        jobs: list[Job] = []
        session = world.session()

        async def caller() -> None:
            async with session as veo:
                jobs.extend(veo.submit_many([TextToVideo(str(number)) for number in range(20)]))
                await asyncio.sleep(20.0)

        task = asyncio.create_task(caller())
        await asyncio.sleep(10.0)
        while not task.done():
            task.cancel()
            await asyncio.sleep(0)
        assert task.cancelled()
        assert [True] * 20 == [job.done() for job in jobs]
        assert isinstance(session._transport, InMemoryTransport)
        assert session._transport.closed

    run(main())

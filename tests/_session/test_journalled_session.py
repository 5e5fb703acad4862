"""
Sessions with a journal: what the next session takes up, and what happens when the disk does not.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests._journal.write_ahead import end_of_log
from tests.virtual import World
from tests.virtual.chaos import MortalJournal, MortalTransport
from tests.virtual.scripted import answer, ended, in_virtual_time, scripted, whale, whales
from veo_async import (
    Job,
    JobAbandoned,
    JobFailed,
    JobState,
    JobTimedOut,
    Journal,
    JournalError,
    KeyConflict,
    Limits,
    PollPolicy,
    RetryPolicy,
    SessionClosed,
    SubmissionUnknown,
    SubmitTimedOut,
    TextToVideo,
    VeoSession,
)
from veo_async._http.transport import Reply
from veo_async._journal.batching import Batching, Work
from veo_async._journal.facts import Entry, Fact, Fenced, Sending, Settled
from veo_async._journal.sqlite_store import Store
from veo_async.simulator import TOKEN, Faults, Settings, Simulator


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batch.db"


def ten_seconds(faults: Faults | None = None, **changes: Any) -> World:
    return World(Settings(duration=lambda body: 10.0, **changes), faults=faults)


def journalled(world: World, path: Path, **options: Any) -> VeoSession:
    return world.session(journal=Journal(path, inline=True), **options)


def set_by(seconds: float, session: VeoSession) -> VeoSession:
    """
    Set the local clock of a session's machine.
    """
    right = session._clock.wall
    session._clock.wall = lambda: right() + seconds
    return session


async def reaches(job: Job, state: JobState) -> None:
    async for update in job.updates():
        if update.state is state:
            return


async def entries(path: Path, *keys: str) -> dict[str, Entry]:
    """
    What the file says, once no session has it.
    """
    journal = Journal(path, inline=True)
    await journal.open(TOKEN)
    try:
        return await journal.find_many(keys)
    finally:
        await journal.close()


@asynccontextmanager
async def mortal(
    world: World, path: Path, **options: Any
) -> AsyncIterator[tuple[VeoSession, Callable[[], None]]]:
    """
    A session in a process that can be killed: afterwards nothing it does reaches the file or the server.
    """
    journal = MortalJournal(path, inline=True)
    session = world.session(journal=journal, retry=RetryPolicy(drain=0), **options)
    transport = MortalTransport(world.core, TOKEN)
    session._transport = transport

    def kill() -> None:
        journal.dead = transport.dead = True

    async with session as veo:
        yield veo, kill


# --- what the next session takes up ----------------------------------------------------------------------


@in_virtual_time
async def test_an_outcome_stands_for_ever(path: Path) -> None:
    """
    A result of an earlier session is had from the journal: the same videos, the same request, no traffic.
    """
    world = ten_seconds()
    request = TextToVideo("ünïcode 🐋", model="veo31", aspect_ratio="9:16", translation=True)
    async with journalled(world, path) as veo:
        first = await veo.submit(request, key="k")
    before = sum(world.core.requests.values())
    async with journalled(world, path) as veo:
        again = veo.submit(request, key="k")
        result = await again
        assert [] == await veo.resume()
        assert (JobState.SUCCEEDED, first.task_id) == (again.state, again.task_id)
    assert (first.videos, first.request, first.task_id, first.trace_id) == (
        result.videos,
        result.request,
        result.task_id,
        result.trace_id,
    )
    assert before == sum(world.core.requests.values())


@in_virtual_time
async def test_a_failure_stands_too_and_can_be_bought_again(path: Path) -> None:
    """
    A failure of an earlier session is raised with its evidence; `retry_failed` buys once more, and that stands.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        job = veo.submit(whale(), key="k")
        world.core.fail(await job.accepted(), "forbidden", "no whales")
        assert JobState.FAILED is await ended(job)
    async with journalled(world, path) as veo:
        again = veo.submit(whale(), key="k")
        with pytest.raises(JobFailed, match="no whales") as caught:
            await again
        assert ("k", job.task_id, "forbidden") == (
            caught.value.key,
            caught.value.task_id,
            caught.value.code,
        )
        assert JobState.FAILED is again.state
    async with journalled(world, path) as veo:
        result = await veo.submit(whale(), key="k", retry_failed=True)
        assert job.task_id != result.task_id
    async with journalled(world, path) as veo:
        assert result.task_id == (await veo.submit(whale(), key="k", retry_failed=True)).task_id
    assert 2 == world.core.accepted


@in_virtual_time
async def test_a_retried_failure_that_crashes_is_not_bought_a_third_time(path: Path) -> None:
    """
    A failed key is bought again and the process dies: the next one takes the second purchase up.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        job = veo.submit(whale(), key="k")
        world.core.fail(await job.accepted())
        await ended(job)
    async with mortal(world, path) as (veo, kill):
        await veo.submit(whale(), key="k", retry_failed=True).accepted()
        kill()
    async with journalled(world, path) as veo:
        (resumed,) = await veo.resume()
        assert resumed is veo.submit(whale(), key="k", retry_failed=True)
        await resumed
    assert 2 == world.core.accepted


@in_virtual_time
async def test_a_key_of_an_earlier_session_stays_its_requests_own(path: Path) -> None:
    """
    A conflict that only the journal knows of comes with the job; the key's own purchase is not touched.
    """
    world = ten_seconds()
    world.core.next_durations.extend([10.0, 1000.0])
    async with journalled(world, path) as veo:
        await veo.submit(whale(1), key="done")
        await veo.submit(whale(2), key="running").accepted()
    async with journalled(world, path) as veo:
        for key in ("done", "running"):
            job = veo.submit(whale(3), key=key)
            with pytest.raises(KeyConflict) as caught:
                await job
            assert key == caught.value.key
        await veo.submit(whale(1), key="done")
        await veo.submit(whale(2), key="running")
    assert 2 == world.core.accepted


@in_virtual_time
async def test_resuming_takes_up_every_unsettled_job_once(path: Path) -> None:
    """
    Killed with jobs in every state: all are resumed in their order, again and again the same jobs, and bought once.
    """
    world = ten_seconds(
        Faults().add("drop_after", on="submit", match=lambda body: "unknown" in body["prompt"])
    )
    requests = {
        "done": whale(1),
        "accepted": whale(2),
        "unknown": TextToVideo("unknown"),
        "intended": whale(3),
    }
    async with mortal(world, path, limits=Limits(max_in_flight=2)) as (veo, kill):
        await veo.submit(requests["done"], key="done")
        world.core.next_durations.append(1000.0)
        await veo.submit(requests["accepted"], key="accepted").accepted()
        unknown = veo.submit(requests["unknown"], key="unknown")
        await reaches(unknown, JobState.UNKNOWN)
        kill()
        veo.submit(requests["intended"], key="never")
    world.faults = world.core.faults = None
    async with journalled(world, path) as veo:
        early = veo.submit(requests["accepted"], key="accepted")
        jobs = await veo.resume()
        assert ["accepted", "unknown"] == [job.key for job in jobs]
        assert early is jobs[0]
        assert jobs == await veo.resume()
        assert [requests[job.key] for job in jobs] == [job.request for job in jobs]
        assert jobs[1] is veo.submit(requests["unknown"], key="unknown")
        await asyncio.gather(*jobs)
        assert [] == await veo.resume()
    assert 3 == world.core.accepted


@in_virtual_time
async def test_what_was_only_intended_is_sent(path: Path) -> None:
    """
    Jobs that were queued when the process died are sent by the next one, each once.
    """
    world = ten_seconds()
    async with mortal(world, path, limits=Limits(max_in_flight=1)) as (veo, kill):
        jobs = veo.submit_many([*whales(3), ("k", whale(3))])
        await jobs[0].accepted()
        kill()
    assert 1 == world.core.accepted
    async with journalled(world, path) as veo:
        resumed = await veo.resume()
        assert [job.key for job in jobs] == [job.key for job in resumed]
        await asyncio.gather(*resumed)
    assert 4 == world.core.accepted


@pytest.mark.parametrize("arrived", [True, False])
@in_virtual_time
async def test_what_was_being_sent_is_reconciled(path: Path, *, arrived: bool) -> None:
    """
    Killed in the middle of a submit: adopted if the server has it, sent again if it has not.
    """
    world = ten_seconds()
    async with mortal(world, path) as (veo, kill):
        await veo.submit(whale(1))
        transport: Any = veo._transport
        transport.latency = 5.0
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        await asyncio.sleep(7 if arrived else 2)
        kill()
    assert (2 if arrived else 1) == world.core.accepted
    (entry,) = (await entries(path, "k")).values()
    assert (None, [None]) == (entry.task_id, [attempt.closed for attempt in entry.attempts])
    async with journalled(world, path) as veo:
        (resumed,) = await veo.resume()
        assert JobState.UNKNOWN is resumed.state
        result = await resumed
        assert "whale 0" == world.core.tasks[result.task_id].body["prompt"]
    assert 2 == world.core.accepted


@pytest.mark.parametrize("off", [-7200.0, 7200.0])
@in_virtual_time
async def test_a_clock_that_is_hours_off_does_not_lose_a_video(path: Path, off: float) -> None:
    """
    Both sessions' local clocks are wrong in the same way: what was bought is found all the same.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", nth=[2]))
    for last in (False, True):
        session = journalled(world, path)
        right = session._clock.wall
        session._clock.wall = lambda right=right: right() + off  # type: ignore[misc]
        async with session as veo:
            if last:
                await asyncio.gather(*await veo.resume())
            else:
                await veo.submit(whale(1))
                job = veo.submit(whale(), key="k")
                await reaches(job, JobState.UNKNOWN)
    assert 2 == world.core.accepted
    assert (await entries(path, "k"))["k"].outcome is not None


@pytest.mark.parametrize("off", [-90_000.0, 90_000.0])
@in_virtual_time
async def test_a_clock_that_is_set_between_two_sessions_does_not_lose_a_video(path: Path, off: float) -> None:
    """
    A day back or forth, as when a machine starts without a network: the server's time is in the journal.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", nth=[2]))
    async with journalled(world, path) as veo:
        await veo.submit(whale(1))
        await reaches(veo.submit(whale(), key="k"), JobState.UNKNOWN)
    async with set_by(off, journalled(world, path)) as veo:
        (job,) = await veo.resume()
        await job
    assert 2 == world.core.accepted


@in_virtual_time
async def test_a_clock_that_was_set_back_is_noticed(path: Path) -> None:
    """
    Where the first of all submits was lost, no answer had told the server's time: it is looked for in a wider span.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", nth=[1]))
    async with mortal(world, path) as (veo, kill):
        await reaches(veo.submit(whale(), key="k"), JobState.UNKNOWN)
        kill()
    await asyncio.sleep(7200)
    async with set_by(-10_000.0, journalled(world, path)) as veo:
        (job,) = await veo.resume()
        await job
    assert 1 == world.core.accepted


@pytest.mark.parametrize("again", ["resume", "submit"])
@in_virtual_time
async def test_a_task_that_was_attached_is_taken_up_as_well(path: Path, again: str) -> None:
    """
    Of two handles of one task, each gets the result, and the purchase's key has it for ever.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        task_id = await veo.submit(whale(), key="k").accepted()
    async with journalled(world, path) as veo:
        attached = veo.attach(task_id)
        (job,) = await veo.resume() if again == "resume" else [veo.submit(whale(), key="k")]
        assert task_id == (await attached).task_id == (await job).task_id
    assert (await entries(path, "k"))["k"].outcome is not None


@pytest.mark.parametrize("first", ["attached", "bought"])
@in_virtual_time
async def test_a_handle_that_is_abandoned_leaves_the_task_to_the_other(path: Path, first: str) -> None:
    """
    Whichever of two handles of one task is abandoned, the other one is settled, and one attached at once after too.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        task_id = await veo.submit(whale(), key="k").accepted()
    async with journalled(world, path) as veo:
        attached = veo.attach(task_id)
        (job,) = await veo.resume()
        left, kept = (attached, job) if first == "attached" else (job, attached)
        left.abandon()
        third = veo.attach(task_id)
        assert task_id == (await kept).task_id == (await third).task_id


@in_virtual_time
async def test_an_outcome_that_the_journal_refuses_costs_no_other(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Of two jobs seen to end in one look, one cannot be written down: the other one's outcome is, and the log tells.
    """
    world = ten_seconds()
    journal = Journal(path, inline=True)
    async with world.session(journal=journal) as veo:
        a, b = veo.submit(whale(1), key="a"), veo.submit(whale(2), key="b")
        await a.accepted()
        await b.accepted()
        await journal.write(Settled(key="a", failed=False, outcome="{}", at=0.0))
        await asyncio.gather(a, b)
        assert 1 == veo.stats.requests["retrieve_batch"]
    known = await entries(path, "a", "b")
    assert ("{}", True) == (known["a"].outcome, "whale 2" in str(known["b"].outcome))
    assert ["a"] == [record.args[0] for record in caplog.records if record.levelno == logging.ERROR]  # type: ignore[index]


@in_virtual_time
async def test_the_task_of_an_earlier_purchase_is_no_reason_to_give_up(path: Path) -> None:
    """
    What failed and is bought again leaves an older task with the same request: the journal knows whose it is.
    """
    world = ten_seconds(Faults().add("drop_before", on="submit", nth=[2]))
    async with journalled(world, path) as veo:
        failing = veo.submit(whale(), key="k")
        world.core.fail(await failing.accepted())
        assert JobState.FAILED is await ended(failing)
    await asyncio.sleep(100)
    async with journalled(world, path) as veo:
        await veo.submit(whale(), key="k", retry_failed=True)
    assert 2 == world.core.accepted


@in_virtual_time
async def test_an_end_that_nobody_saw_is_seen_later(path: Path) -> None:
    """
    A task that ended a month ago, while no session was there, is delivered at once.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        task_id = await veo.submit(whale(), key="k").accepted()
    await asyncio.sleep(30 * 86_400)
    began = asyncio.get_running_loop().time()
    async with journalled(world, path) as veo:
        (job,) = await veo.resume()
        assert task_id == (await job).task_id
    assert asyncio.get_running_loop().time() - began < 5
    assert 1 == world.core.accepted


class FencedOnce(Journal):
    """
    Another session has the key when the first attempt is to be written down, and has given it back at once.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, inline=True)
        self.is_fenced, self.asked, self.answer = True, asyncio.Event(), asyncio.Event()

    async def write(self, *facts: Fact) -> None:
        if self.is_fenced and isinstance(facts[0], Sending):
            self.is_fenced = False
            self.asked.set()
            await self.answer.wait()
            raise Fenced("another session holds the key")
        await super().write(*facts)


@in_virtual_time
async def test_a_key_that_was_lost_is_taken_in_again(path: Path) -> None:
    """
    Nothing is spent for a key that another session holds; once it is free, it is bought, once.
    """
    world, journal = ten_seconds(), FencedOnce(path)
    async with world.session(journal=journal) as veo:
        job = veo.submit(whale(), key="k")
        await journal.asked.wait()
        assert 0 == world.core.accepted
        journal.answer.set()
        assert JobState.SUCCEEDED is await ended(job)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_lost_key_whose_job_was_abandoned_harms_nobody(path: Path) -> None:
    """
    The job stays abandoned, and the session goes on.
    """
    world, journal = ten_seconds(), FencedOnce(path)
    async with world.session(journal=journal) as veo:
        job = veo.submit(whale(), key="k")
        await journal.asked.wait()
        job.abandon()
        journal.answer.set()
        assert JobState.SUCCEEDED is await ended(veo.submit(whale(), key="other"))
        assert isinstance(job.exception(), JobAbandoned)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_deadline_settles_the_handle_not_the_key(path: Path) -> None:
    """
    After `JobTimedOut` the purchase is still there to be resumed.
    """
    world = ten_seconds()
    world.core.next_durations.append(500.0)
    async with journalled(world, path) as veo:
        job = veo.submit(whale(), key="k", timeout=20)
        with pytest.raises(JobTimedOut):
            await job
        (resumed,) = await veo.resume()
        assert resumed is not job
        assert job.task_id == (await resumed).task_id
    assert 1 == world.core.accepted


@in_virtual_time
@pytest.mark.parametrize(("takes", "waits", "late"), [(5000.0, 1700.0, True), (1600.0, 3000.0, False)])
async def test_a_deadline_runs_from_acceptance_also_after_a_restart(
    path: Path, takes: float, waits: float, late: bool
) -> None:
    """
    What still runs ends with the deadline that it began with; what has ended meanwhile is a result, however late.
    """
    world = ten_seconds()
    world.core.next_durations.append(takes)
    async with journalled(world, path) as veo:
        await veo.submit(whale(), key="k").accepted()
    await asyncio.sleep(waits)
    async with journalled(world, path) as veo:
        began_at = asyncio.get_running_loop().time()
        (job,) = await veo.resume()
        assert (JobState.STOPPED if late else JobState.SUCCEEDED) is await ended(job)
        assert isinstance(job.exception(), JobTimedOut) is late
        assert (
            asyncio.get_running_loop().time() - began_at < 150.0
        )  # far less than the deadline of half an hour


@in_virtual_time
async def test_only_an_answer_that_shows_the_task_counts_towards_its_deadline(path: Path) -> None:
    """
    What has ended while nobody looked is a result, even if the first answer leaves it out and the next one is slow.
    """
    faults = Faults()
    world = World(Settings(seed=1, duration=lambda body: 100.0), faults=faults)
    async with journalled(world, path) as veo:
        for job in veo.submit_many(whales(5)):
            await job.accepted()
    await asyncio.sleep(10_000.0)
    faults.add("missing", on="retrieve_batch", times=1)
    faults.add("stall_after", on=("retrieve", "retrieve_batch"), nth=[2, 3, 4])
    async with journalled(world, path) as veo:
        assert [JobState.SUCCEEDED] * 5 == [await ended(job) for job in await veo.resume()]


@in_virtual_time
async def test_an_abandoned_job_can_be_resumed_if_it_was_sent(path: Path) -> None:
    """
    Abandoned when accepted: `resume` takes it up. Abandoned in the queue: it is gone.
    """
    world = ten_seconds()
    async with journalled(world, path, limits=Limits(max_in_flight=1)) as veo:
        sent, queued = veo.submit_many([("sent", whale(1)), ("queued", whale(2))])
        await sent.accepted()
        sent.abandon()
        queued.abandon()
        with pytest.raises(JobAbandoned):
            await queued
    async with journalled(world, path) as veo:
        assert ["sent"] == [job.key for job in await veo.resume()]
        assert 1 == world.core.accepted
        await veo.submit(whale(3), key="queued")


@in_virtual_time
async def test_a_job_abandoned_on_its_way_gets_its_id_into_the_journal(path: Path) -> None:
    """
    Abandoned while it is being sent, or while its outcome is unknown: what was bought is written down all the same.
    """
    world = ten_seconds(
        Faults().add("drop_after", on="submit", match=lambda body: "unknown" in body["prompt"])
    )
    session, transport = scripted(world, journal=Journal(path, inline=True))
    async with session as veo:
        await veo.submit(whale(9))
        transport.open.clear()
        on_its_way = veo.submit(whale(1), key="on its way")
        unknown = veo.submit(TextToVideo("unknown"), key="unknown")
        await reaches(on_its_way, JobState.SUBMITTING)
        on_its_way.abandon()
        transport.open.set()
        await reaches(unknown, JobState.UNKNOWN)
        unknown.abandon()
        await asyncio.sleep(300)
    known = await entries(path, "on its way", "unknown")
    assert set(world.core.tasks) > {entry.task_id for entry in known.values()}
    assert 3 == world.core.accepted


@in_virtual_time
async def test_resuming_what_was_abandoned_on_its_way_waits_for_the_same_answer(path: Path) -> None:
    """
    Abandoned while it is being sent and resumed in the same session: one attempt, and one watch over it.
    """
    world = ten_seconds()
    session, transport = scripted(world, journal=Journal(path, inline=True))
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        job.abandon()
        (resumed,) = await veo.resume()
        assert JobState.SUBMITTING is resumed.state
        await asyncio.sleep(1000)
        transport.open.set()
        await resumed
    assert (1, 1) == (transport.arrived, world.core.accepted)


@in_virtual_time
async def test_a_refusal_leaves_nothing_to_resume(path: Path) -> None:
    """
    What was refused is not in the journal, and its key is free in the next session too.
    """
    world = ten_seconds(balance=0)
    async with journalled(world, path) as veo:
        assert JobState.STOPPED is await ended(veo.submit(whale(), key="k"))
        assert [] == await veo.resume()
    assert {} == await entries(path, "k")


@in_virtual_time
async def test_lost_patience_at_the_gate_can_be_resumed(path: Path) -> None:
    """
    A job that waited too long was never sent; its intention stays until somebody has more patience.
    """
    world = ten_seconds()
    options = {"limits": Limits(max_in_flight=1, max_queue_wait=5.0)}
    async with journalled(world, path, **options) as veo:
        first, second = veo.submit_many([("a", whale(1)), ("b", whale(2))])
        with pytest.raises(SubmitTimedOut):
            await second
        await first
    async with journalled(world, path) as veo:
        await asyncio.gather(*await veo.resume())
    assert 2 == world.core.accepted


@in_virtual_time
async def test_an_unknown_outcome_stays_resumable(path: Path) -> None:
    """
    `SubmissionUnknown` because the listing was off: once it is back, `resume` finds the task.
    """
    faults = Faults().add("drop_after", on="submit").add("status_before", on="list", status=404)
    world = ten_seconds(faults)
    async with journalled(world, path) as veo:
        job = veo.submit(whale(), key="k")
        with pytest.raises(SubmissionUnknown):
            await job
    faults.on = False
    async with journalled(world, path) as veo:
        (resumed,) = await veo.resume()
        assert set(world.core.tasks) == {(await resumed).task_id}
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_request_that_cannot_be_read_spoils_nothing_else(path: Path) -> None:
    """
    A purchase whose request this version cannot read settles with a `JournalError`; the others are resumed.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        await asyncio.gather(*(job.accepted() for job in veo.submit_many([("a", whale(1)), ("b", whale(2))])))
        store: Any = veo._journal._store  # type: ignore[union-attr]
        store.connection.execute("UPDATE jobs SET request = '{\"kind\": \"hologram\"}' WHERE key = 'a'")
    async with journalled(world, path) as veo:
        strange, known = await veo.resume()
        assert isinstance(strange.exception(), JournalError)
        await known
        for request in (whale(1), whale(2)):
            assert JobState.STOPPED is await ended(veo.submit(request, key="a"))


def damage(veo: VeoSession, column: str, value: object) -> None:
    """
    Put something else into a column of the purchase `a`, as a text unless it is a value of another kind.
    """
    store: Any = veo._journal._store  # type: ignore[union-attr]
    store.connection.execute(f"UPDATE jobs SET {column} = CAST(? AS TEXT) WHERE key = 'a'", (value,))


MARKER = "a-text-that-nobody-is-to-read"
SPOILT = {
    "not json": b"{",
    "null": b"null",
    "a number": b"7",
    "an empty object": b"{}",
    "a list": b"[]",
    "foreign fields": b'{"videos": 7, "error": "unheard of"}',
    "no utf-8": b'{"kind":"TextToVideo","prompt":"\xff' + MARKER.encode() + b'"}',
    "no utf-8 behind a backslash": b'{"kind":"TextToVideo","prompt":"\\\xff' + MARKER.encode() + b'"}',
    "no such kind": b'{"kind":"' + MARKER.encode() + b'"}',
    "a field missing": b'{"kind":"TextToVideo","prxmpt":"' + MARKER.encode() + b'"}',
    "another type": b'{"kind":"TextToVideo","prompt":["' + MARKER.encode() + b'"]}',
    "no result": b'{"raw":{"response":"' + MARKER.encode() + b'"},"task_id":"t","trace_id":null}',
    "no id": b'{"code":null,"message":"' + MARKER.encode() + b'","task_id":7,"trace_id":null}',
    "deep": b"[" * 100_000 + b"]" * 100_000,
}


@pytest.mark.parametrize("value", SPOILT.values(), ids=SPOILT)
@in_virtual_time
async def test_an_outcome_that_cannot_be_read_spoils_nothing_else(path: Path, value: bytes) -> None:
    """
    A purchase whose outcome is spoilt settles with an error that does not repeat it; the session goes on.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        await asyncio.gather(*veo.submit_many([("a", whale(1)), ("b", whale(2))]))
        damage(veo, "outcome", value)
    async with journalled(world, path) as veo:
        strange, known = veo.submit_many([("a", whale(1)), ("b", whale(2))])
        async with asyncio.timeout(1000):
            assert JobState.STOPPED is await ended(strange)
        error = strange.exception()
        assert isinstance(error, JournalError)
        assert MARKER not in f"{error!r} {error.__cause__!r} {error.__context__!r}"
        await known
        await veo.submit(whale(3))
        assert strange.task_id == (await veo.attach(strange.task_id or "")).task_id
    assert 3 == world.core.accepted


@pytest.mark.parametrize("value", SPOILT.values(), ids=SPOILT)
@in_virtual_time
async def test_a_spoilt_request_is_neither_bought_nor_in_the_way_of_others(
    path: Path, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Whether it was only meant, or accepted: its key settles with an error that does not repeat it; the others go on.
    """
    world = ten_seconds()
    async with mortal(world, path) as (veo, kill):
        jobs = veo.submit_many([("a", whale(1)), ("b", whale(2))])
        await asyncio.gather(*(job.accepted() for job in jobs))
        damage(veo, "request", value)
        kill()
    async with journalled(world, path) as veo:
        strange, known = await veo.resume()
        await known
        with pytest.raises(JournalError, match="request cannot be read") as caught:
            await strange
        with pytest.raises(JournalError, match="request cannot be read"):
            await veo.submit(whale(1), key="a")
        assert jobs[0].task_id == caught.value.task_id
        damage(veo, "task_id", None)
    async with journalled(world, path) as veo:
        (meant,) = await veo.resume()
        assert JobState.STOPPED is await ended(meant)
        await veo.submit(whale(3))
    assert MARKER not in caplog.text
    assert 3 == world.core.accepted


@in_virtual_time
async def test_a_spoilt_id_costs_its_row_alone(path: Path) -> None:
    """
    What is no text in a trace id, or was stored as bytes and is none either, is read as far as it goes.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        jobs = veo.submit_many([("a", whale(1)), ("b", whale(2))])
        await asyncio.gather(*(job.accepted() for job in jobs))
        damage(veo, "trace_id", b"\xff-1")
        store: Any = veo._journal._store  # type: ignore[union-attr]
        store.connection.execute("UPDATE jobs SET trace_id = ? WHERE key = 'b'", (b"\xff-2",))
    async with journalled(world, path) as veo:
        resumed = await veo.resume()
        assert {job.task_id for job in jobs} == {(await job).task_id for job in resumed}
    known = await entries(path, "a", "b")
    assert ["\ufffd-1", "\ufffd-2"] == [known[key].trace_id for key in ("a", "b")]


@in_virtual_time
async def test_what_never_left_is_not_in_doubt(path: Path) -> None:
    """
    Torn down before the body left: the next session simply sends it, even where no listing could clear it up.
    """
    world = ten_seconds(listing="refused")
    started = asyncio.Event()

    async def never_leaves() -> None:
        session = journalled(world, path, retry=RetryPolicy(drain=0))
        transport: Any = session._transport
        transport.latency = 1000.0
        async with session as veo:
            job = veo.submit(whale(), key="k")
            await reaches(job, JobState.SUBMITTING)
            started.set()
            await job

    life = asyncio.create_task(never_leaves())
    await started.wait()
    await asyncio.sleep(1)
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)
    assert ["not_sent"] == [attempt.closed for attempt in (await entries(path, "k"))["k"].attempts]
    async with journalled(world, path) as veo:
        (job,) = await veo.resume()
        await job
    assert 1 == world.core.accepted


class StoppingJournal(Journal):
    """
    Holds a session up once a sending is durable, before its body leaves.
    """

    async def write(self, *facts: Any) -> None:
        await super().write(*facts)
        if any(isinstance(fact, Sending) for fact in facts):
            await asyncio.Event().wait()


@in_virtual_time
async def test_what_was_about_to_leave_is_not_in_doubt(path: Path) -> None:
    """
    Left between the journal's fact of a sending and the sending: that it did not happen is written down, too.
    """
    world = ten_seconds(listing="refused")
    async with world.session(journal=StoppingJournal(path, inline=True)) as veo:
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
    assert isinstance(job.exception(), SessionClosed)
    assert ["not_sent"] == [attempt.closed for attempt in (await entries(path, "k"))["k"].attempts]
    async with journalled(world, path) as veo:
        await asyncio.gather(*await veo.resume())
    assert 1 == world.core.accepted


@in_virtual_time
async def test_what_was_learned_is_kept(path: Path) -> None:
    """
    The second session knows from the journal how long tasks take, and asks less for the same.
    """
    world = World(Settings(duration=lambda body: 600.0))
    looks = []
    for _ in range(2):
        async with journalled(world, path, polling=PollPolicy(max_gap=10.0)) as veo:
            await asyncio.gather(*veo.submit_many(whales(150)))
            looks.append(veo.stats.looks)
    assert looks[1] < 0.8 * looks[0]
    journal = Journal(path, inline=True)
    await journal.open(TOKEN)
    learned = await journal.learned()
    await journal.close()
    assert whale().kind in learned


@in_virtual_time
async def test_learned_rubbish_is_no_reason_not_to_start(path: Path) -> None:
    """
    What an unknown version learned is left aside.
    """
    world = ten_seconds()
    for rubbish in ("{}", "null", "[1, 2]", '{"ages": "x"}', "not json"):
        async with journalled(world, path) as veo:
            store: Any = veo._journal._store  # type: ignore[union-attr]
            store.connection.execute("INSERT OR REPLACE INTO learned VALUES ('text2video', ?)", (rubbish,))
            veo._engine.learning.durations = type(veo._engine.learning.durations)()  # type: ignore[union-attr]
        async with journalled(world, path) as veo:
            await veo.submit(whale())


# --- whose it is -----------------------------------------------------------------------------------------


@in_virtual_time
async def test_another_tokens_journal_is_refused(path: Path) -> None:
    """
    A session of another token cannot open the journal; the one it belongs to still can.
    """
    world = World(Settings(tokens=[TOKEN, "another-token"], duration=lambda body: 10.0))
    async with journalled(world, path) as veo:
        await veo.submit(whale(), key="k")
    other = VeoSession("another-token", base_url="http://127.0.0.1:1", journal=Journal(path, inline=True))
    with pytest.raises(JournalError, match="another token"):
        await other.__aenter__()
    async with journalled(world, path) as veo:
        await veo.submit(whale(), key="k")
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_second_session_on_the_same_file_is_refused(path: Path) -> None:
    """
    One session has the file at a time; the second one is told which file, and the first goes on.
    """
    world = ten_seconds()
    async with journalled(world, path) as veo:
        with pytest.raises(JournalError, match=r"batch\.db"):
            await journalled(world, path).__aenter__()
        await veo.submit(whale())
    async with journalled(world, path) as veo:
        await veo.submit(whale())


async def test_a_journal_may_be_a_path_or_text_and_serve_again(tmp_path: Path) -> None:
    """
    Text, a path or a `Journal` that served before: each opens the same file, in a thread of its own.
    """
    path = tmp_path / "batch.db"
    journal = Journal(path)
    async with Simulator(Settings(speed=200)) as sim:
        for place in (str(path), path, journal, journal):
            async with VeoSession(
                sim.token,
                base_url=sim.url,
                journal=place,
                polling=PollPolicy().scaled(1 / 200),
            ) as veo:
                await veo.submit(whale(), key="k")
        assert 1 == sim.core.accepted


async def test_a_batch_over_sockets_survives_being_left(tmp_path: Path) -> None:
    """
    Left and entered again and again, a batch of hundreds comes out whole, each key bought once.
    """
    options: dict[str, Any] = {
        "journal": tmp_path / "batch.db",
        "polling": PollPolicy().scaled(1 / 200),
        "retry": RetryPolicy().scaled(1 / 100),
        "limits": Limits(submits_per_second=300),
    }
    items = [(f"key {n}", whale(n)) for n in range(300)]
    async with Simulator(Settings(speed=200)) as sim:
        for end in (0.1, 0.3, 0.4, None):
            try:
                async with asyncio.timeout(end), VeoSession(sim.token, base_url=sim.url, **options) as veo:
                    jobs = veo.submit_many(items)
                    await asyncio.gather(*jobs)
            except TimeoutError:
                pass
        assert 300 == sim.core.accepted
        assert 300 == len({job.result().task_id for job in jobs})
        async with VeoSession(sim.token, base_url=sim.url, **options) as veo:
            assert [] == await veo.resume()


async def test_downloads_are_written_down(tmp_path: Path) -> None:
    """
    Where a video lies is in the journal, under its key.
    """
    async with Simulator(Settings(speed=200)) as sim:
        options: dict[str, Any] = {"journal": tmp_path / "b.db", "polling": PollPolicy().scaled(1 / 200)}
        async with VeoSession(sim.token, base_url=sim.url, **options) as veo:
            video = (await veo.submit(whale(), key="k")).video
            lies_at = await veo.download(video, tmp_path / "whale.mp4")
            entry = await veo._journal.find("k")  # type: ignore[union-attr]
            assert entry is not None
            assert {video.id: str(lies_at)} == dict(entry.downloads)


# --- anything at any time --------------------------------------------------------------------------------


class LaggingBatching(Batching[Store]):
    """
    Takes a while for each batch, as a disk does, on a clock that jumps.
    """

    lag = 0.01
    _due = False

    def add(self, work: Work[Store]) -> None:
        self.waiting.append(work)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_later(self.lag, self._begin_late)

    def _begin_late(self) -> None:
        self._due = False
        self.flush()


class LaggingJournal(Journal):
    """
    Has a slow disk.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, inline=True)
        self._batching = LaggingBatching(self._begin)


@in_virtual_time
async def test_a_task_that_is_being_written_down_is_named(path: Path) -> None:
    """
    Leaving between the server's answer and its being durable: the error has the task's id all the same.
    """
    world = ten_seconds()
    journal = LaggingJournal(path)
    async with world.session(journal=journal, retry=RetryPolicy(drain=0)) as veo:
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        while not world.core.accepted:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.001)
        LaggingBatching.lag = 1.0
        await asyncio.sleep(0.5)
    error = job.exception()
    assert isinstance(error, SessionClosed)
    assert [error.task_id] == [*world.core.tasks]


async def restless(veo: VeoSession, rng: Random, requests: dict[str, TextToVideo]) -> None:
    """
    Submit, resubmit, abandon, resume and wait, in any order and at any moment.
    """
    jobs: list[Job] = []
    for _ in range(rng.randint(0, 60)):
        key = rng.choice([*requests])
        match rng.choice(
            ["submit", "submit", "again", "abandon", "abandon", "resume", "turn", "wait", "sleep"]
        ):
            case "submit":
                jobs.append(veo.submit(requests[key], key=key))
            case "again":
                jobs.append(veo.submit(requests[key], key=key, retry_failed=True))
            case "abandon" if jobs:
                rng.choice(jobs).abandon()
            case "resume":
                jobs += await veo.resume()
            case "turn":
                await asyncio.sleep(0)
            case "wait":
                await asyncio.sleep(rng.choice([0.005, 0.01, 0.02, 0.1]))
            case "sleep":
                await asyncio.sleep(rng.uniform(0, 40))


@pytest.mark.parametrize("seed", range(20))
@in_virtual_time
async def test_whatever_a_restless_caller_does_nothing_is_bought_twice(
    path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Keys submitted, abandoned, resumed and left in any order, through faults: each gets one video that did not fail.
    """
    rng = Random(seed)
    faults = Faults(seed=seed).add("drop_after", on="submit", share=0.2)
    faults.add("status_before", on="submit", share=0.2, status=429).add("drop_before", on="submit", share=0.1)
    world = World(Settings(seed=seed, mean=20.0, failure_share=0.2), faults=faults)
    requests = {f"key {n}": whale(n) for n in range(8)}
    for _ in range(rng.randint(1, 4)):
        limits = Limits(max_in_flight=rng.choice([None, 1, 3]))
        retry = RetryPolicy(drain=rng.choice([0.0, 0.02, 5.0]))
        async with world.session(journal=LaggingJournal(path), limits=limits, retry=retry) as veo:
            await restless(veo, rng, requests)
    async with world.session(journal=LaggingJournal(path)) as veo:
        jobs = veo.submit_many(requests.items())
        async with asyncio.timeout(100_000):
            states = [await ended(job) for job in jobs]
        assert {JobState.SUCCEEDED, JobState.FAILED} >= set(states)
    bought = Counter(task.body["prompt"] for task in world.core.tasks.values() if task.error is None)
    assert dict.fromkeys(bought, 1) == dict(bought)
    for job in jobs:
        assert job.request == TextToVideo(world.core.tasks[job.task_id or ""].body["prompt"])
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# --- the disk fails --------------------------------------------------------------------------------------


@contextmanager
def no_more_room(path: Path) -> Iterator[None]:
    """
    From now on no file of this process may be written beyond where the journal's log ends.
    """
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (end_of_log(path), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the limit of file sizes is POSIX's")


async def left_with_a_journal_error(session: VeoSession) -> None:
    with pytest.raises(JournalError):
        await session.__aexit__(None, None, None)


@in_virtual_time
async def test_without_a_journal_entry_nothing_is_sent(path: Path) -> None:
    """
    The disk fails before the POST: the job says so, nothing is sent, new submits are refused, leaving raises.
    """
    world = ten_seconds()
    session = journalled(world, path)
    veo = await session.__aenter__()
    await veo.submit(whale())
    with no_more_room(path):
        job = veo.submit(whale(1), key="k")
        with pytest.raises(JournalError, match="journal") as caught:
            await job
        assert "k" == caught.value.key
        assert JobState.STOPPED is job.state
        with pytest.raises(JournalError):
            veo.submit(whale(2))
        with pytest.raises(JournalError):
            veo.submit_many(whales(2))
        await left_with_a_journal_error(session)
    assert 1 == world.core.accepted
    async with journalled(world, path) as veo:
        await veo.submit(whale(1), key="k")
    assert 2 == world.core.accepted


@in_virtual_time
async def test_queued_jobs_are_not_sent_either(path: Path) -> None:
    """
    The disk fails while jobs wait at the gate, already written down: none of them is sent.
    """
    world = ten_seconds()
    session = journalled(world, path, limits=Limits(max_in_flight=1))
    veo = await session.__aenter__()
    jobs = veo.submit_many(whales(4))
    await jobs[0].accepted()
    with no_more_room(path):
        assert [JobState.STOPPED] * 3 == [await ended(job) for job in jobs[1:]]
        assert {JournalError} == {type(job.exception()) for job in jobs[1:]}
        assert JobState.SUCCEEDED is jobs[0].state
        await left_with_a_journal_error(session)
    assert 1 == world.core.accepted
    async with journalled(world, path) as veo:
        resumed = await veo.resume()
        assert [job.key for job in jobs] == [job.key for job in resumed]
        await asyncio.gather(*resumed)
    assert 4 == world.core.accepted


@in_virtual_time
async def test_a_video_is_delivered_though_the_disk_failed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    The disk fails between the POST and its answer: the job delivers, and the log tells the id at ERROR.
    """
    world = ten_seconds()
    session, transport = scripted(world, journal=Journal(path, inline=True))
    veo = await session.__aenter__()
    with ExitStack() as later:

        async def fills_the_disk(body: bytes) -> Reply:
            world.core.post("/veo/videos", json.loads(body))
            later.enter_context(no_more_room(path))
            return answer(200, {"task_id": next(iter(world.core.tasks))})

        transport.submits.append(fills_the_disk)
        job = veo.submit(whale(1), key="k")
        task_id = await job.accepted()
        assert task_id == (await job).task_id
        with pytest.raises(JournalError):
            veo.submit(whale(2))
        await left_with_a_journal_error(session)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert task_id in "".join(record.getMessage() for record in errors)
    assert (1, 1) == (transport.arrived, world.core.accepted)
    async with journalled(world, path) as veo:  # what was being sent is found again
        (resumed,) = await veo.resume()
        assert task_id == (await resumed).task_id
    assert 1 == world.core.accepted


@in_virtual_time
async def test_the_bodys_exception_comes_before_the_journals(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    With a failed journal the body's own exception comes out, and the journal's is in the log.
    """
    world = ten_seconds()
    session = journalled(world, path)
    veo = await session.__aenter__()
    with no_more_room(path):
        assert JobState.STOPPED is await ended(veo.submit(whale(), key="k" * 5000))
        error = LookupError("mine")
        assert not await session.__aexit__(LookupError, error, None)  # type: ignore[func-returns-value]
    assert ["ERROR"] == [record.levelname for record in caplog.records if record.levelno >= logging.ERROR]
    assert 0 == world.core.accepted

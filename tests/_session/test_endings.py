"""
Endings: leaving early, cancellations, time-outs, Ctrl-C, and a loop that is torn down.

Whatever ends a session, every job says what is known of it, nothing is left running, and nothing warns.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.virtual import World, run
from tests.virtual.scripted import Options, ended, in_virtual_time, result_of, scripted, whale, whales
from veo_async import (
    Job,
    JobState,
    Journal,
    JournalError,
    Limits,
    RetryPolicy,
    SessionClosed,
    SubmissionUnknown,
    VeoSession,
)
from veo_async.simulator import TOKEN, Faults, Settings, Simulator


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """
    No test leaves anything that warns when it is collected.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [] == [str(warning.message) for warning in caught]


def ten_seconds(faults: Faults | None = None, **changes: Any) -> World:
    return World(Settings(duration=lambda body: 10.0, **changes), faults=faults)


def now() -> float:
    return asyncio.get_running_loop().time()


async def reaches(job: Job, *states: JobState) -> None:
    async for update in job.updates():
        if update.state in states:
            return


def others() -> set[asyncio.Task[Any]]:
    current = asyncio.current_task()
    return {task for task in asyncio.all_tasks() if task is not current}


# --- what the jobs say -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_queued_job_was_not_sent(options: Options) -> None:
    """
    Jobs that still waited at the gate settle with `SessionClosed`, say so, and are never sent.
    """
    world = ten_seconds()
    async with world.session(limits=Limits(max_in_flight=1), **options()) as veo:
        first, *rest = veo.submit_many(whales(4))
        await first.accepted()
    for job in rest:
        error = job.exception()
        assert isinstance(error, SessionClosed)
        assert "not sent" in str(error)
        assert (JobState.STOPPED, job.key, None) == (job.state, error.key, error.task_id)
    assert 1 == world.core.accepted
    assert set() == others()


@in_virtual_time
async def test_what_goes_on_is_told(options: Options, caplog: pytest.LogCaptureFixture) -> None:
    """
    The ids of tasks that go on are in the log; as a warning where no journal holds them, since they cost money.
    """
    world = ten_seconds()
    caplog.set_level(logging.INFO, "veo_async")
    async with world.session(**options()) as veo:
        jobs = veo.submit_many(whales(2))
        ids = [await job.accepted() for job in jobs]
    (told,) = [record for record in caplog.records if "go on" in record.message]
    assert told.message.endswith(f"2 tasks go on: {' '.join(ids)}")
    assert (logging.INFO if options() else logging.WARNING) == told.levelno


@in_virtual_time
async def test_a_job_that_was_just_submitted_was_not_sent(options: Options) -> None:
    """
    Leaving in the very turn of the submission: not sent either.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale())
    assert isinstance(job.exception(), SessionClosed)
    assert "not sent" in str(job.exception())
    assert 0 == world.core.accepted
    assert set() == others()


async def test_a_job_that_was_being_written_down_was_not_sent(tmp_path: Path) -> None:
    """
    Leaving while the journal's thread writes the intention down: not sent, and it can be resumed.
    """
    async with Simulator(Settings(speed=200)) as sim:
        for turns in range(4):
            journal = tmp_path / f"{turns}.db"
            async with VeoSession(TOKEN, base_url=sim.url, journal=journal) as veo:
                job = veo.submit(whale(), key="k")
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert isinstance(job.exception(), SessionClosed)
            assert "not sent" in str(job.exception())
        assert 0 == sim.core.accepted


@in_virtual_time
async def test_an_accepted_job_goes_on_without_us(options: Options) -> None:
    """
    An accepted job settles with `SessionClosed` that carries its task id.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale())
        task_id = await job.accepted()
    error = job.exception()
    assert isinstance(error, SessionClosed)
    assert task_id == error.task_id
    assert task_id in str(error)
    assert JobState.STOPPED is job.state


@in_virtual_time
async def test_an_unanswered_job_is_unknown(options: Options) -> None:
    """
    A submit that is not answered within the drain settles with `SubmissionUnknown` that says when it was sent.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale())
        await asyncio.sleep(1)
        left_at = now()
    error = job.exception()
    assert isinstance(error, SubmissionUnknown)
    assert error.sent_at is not None
    assert RetryPolicy().drain == pytest.approx(now() - left_at, abs=0.1)
    assert (1, job.key) == (transport.arrived, error.key)
    assert set() == others()


@in_virtual_time
async def test_a_job_under_reconciling_is_unknown(options: Options) -> None:
    """
    A job whose outcome was being looked for settles with `SubmissionUnknown`, too.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit"))
    async with world.session(**options()) as veo:
        job = veo.submit(whale())
        await reaches(job, JobState.UNKNOWN)
    error = job.exception()
    assert isinstance(error, SubmissionUnknown)
    assert error.sent_at is not None
    assert set() == others()


@in_virtual_time
async def test_a_drained_submit_gets_its_id(options: Options) -> None:
    """
    A submit that is answered during the drain is an accepted job: `SessionClosed` with its id.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale())
        await reaches(job, JobState.SUBMITTING)
        asyncio.get_running_loop().call_later(2, transport.open.set)
    error = job.exception()
    assert isinstance(error, SessionClosed)
    assert set(world.core.tasks) == {error.task_id}


@in_virtual_time
async def test_nothing_new_is_sent_while_draining() -> None:
    """
    While submits in flight are drained, queued jobs do not follow them, nor do refused ones go again.
    """
    world = ten_seconds(Faults().add("status_before", on="submit", status=429, times=3))
    session, transport = scripted(world, limits=Limits(connections=4))
    async with session as veo:
        transport.open.clear()
        jobs = veo.submit_many(whales(10))
        await reaches(jobs[0], JobState.SUBMITTING)
        asyncio.get_running_loop().call_later(1, transport.open.set)
    assert 3 == transport.arrived
    assert 0 == world.core.accepted
    assert {SessionClosed} == {type(job.exception()) for job in jobs}


@in_virtual_time
async def test_a_drain_of_zero_waits_for_nobody() -> None:
    """
    With `drain=0` leaving takes no time, and the unanswered submit is unknown.
    """
    world = ten_seconds()
    session, transport = scripted(world, retry=RetryPolicy(drain=0))
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale())
        await reaches(job, JobState.SUBMITTING)
        left_at = now()
    assert left_at == pytest.approx(now(), abs=0.01)
    assert isinstance(job.exception(), SubmissionUnknown)


@in_virtual_time
async def test_everybody_who_waits_is_told(options: Options) -> None:
    """
    Awaiters, followers, `as_completed`, `accepted` and callbacks all hear of the end.
    """
    world = ten_seconds()
    async with world.session(limits=Limits(max_in_flight=1), **options()) as veo:
        first, second = veo.submit_many(whales(2))
        called: list[Job] = []
        second.add_done_callback(called.append)

        async def follow(job: Job) -> JobState:
            return [update.state async for update in job.updates()][-1]

        async def collect() -> set[Job]:
            return {job async for job in veo.as_completed([first, second])}

        waiting = asyncio.gather(
            result_of(first), follow(first), collect(), second.accepted(), return_exceptions=True
        )
        await first.accepted()
    got, followed, collected, accepted = await waiting
    assert isinstance(got, SessionClosed)
    assert JobState.STOPPED is followed
    assert {first, second} == collected
    assert isinstance(accepted, SessionClosed)
    assert [second] == called


@in_virtual_time
async def test_a_map_ends_with_its_session() -> None:
    """
    A consumer of `map` in another task does not hang when the session ends.
    """
    world = ten_seconds()
    async with world.session() as veo:

        async def consume() -> list[Job]:
            return [job async for job in veo.map(whales(5), window=2)]

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(1)
    async with asyncio.timeout(60):
        outcome = await asyncio.gather(consumer, return_exceptions=True)
    assert 1 == len(outcome)


# --- exceptions and cancellations --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LookupError("x"), SystemExit(3), GeneratorExit()], ids=repr)
@in_virtual_time
async def test_the_bodys_exception_is_never_swallowed(error: BaseException) -> None:
    """
    Whatever the body raises comes out as it is.
    """
    world = ten_seconds()
    veo = world.session()
    await veo.__aenter__()
    job = veo.submit(whale())
    await job.accepted()
    assert not await veo.__aexit__(type(error), error, None)  # type: ignore[func-returns-value]
    assert isinstance(job.exception(), SessionClosed)


@in_virtual_time
async def test_a_cancelled_body_still_drains(options: Options) -> None:
    """
    One cancellation of the whole is like leaving: submits in flight get their time, and it stays cancelled.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    jobs: list[Job] = []

    async def body() -> None:
        async with session as veo:
            transport.open.clear()
            jobs.extend(veo.submit_many(whales(3)))
            await asyncio.gather(*jobs)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    asyncio.get_running_loop().call_later(2, transport.open.set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert set(world.core.tasks) == {getattr(job.exception(), "task_id", None) for job in jobs}
    assert 3 == world.core.accepted
    assert transport.closed
    assert set() == others()


@in_virtual_time
async def test_a_second_cancellation_cuts_short(options: Options) -> None:
    """
    Cancelled again during the drain: it ends at once, every job is settled, and everything is closed.
    """
    world = ten_seconds()
    session, transport = scripted(world, retry=RetryPolicy(drain=1000), **options())
    jobs: list[Job] = []

    async def body() -> None:
        async with session as veo:
            transport.open.clear()
            jobs.extend(veo.submit_many(whales(3)))
            await asyncio.gather(*jobs)

    task = asyncio.create_task(body())
    await asyncio.sleep(1)
    task.cancel()
    await asyncio.sleep(10)
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert 11 == pytest.approx(now(), abs=0.1)
    assert {SubmissionUnknown} == {type(job.exception()) for job in jobs}
    assert transport.closed
    assert set() == others()


@in_virtual_time
async def test_cancellations_like_hail_leave_nothing_open(options: Options) -> None:
    """
    Cancelled in every single turn of the leaving: all jobs are settled, the transport is closed, no task is left.
    """
    for first in range(12):
        world = ten_seconds()
        session, transport = scripted(world, retry=RetryPolicy(drain=1000), **options())
        jobs: list[Job] = []

        async def body(session: VeoSession, jobs: list[Job]) -> None:
            async with session as veo:
                jobs.extend(veo.submit_many(whales(3)))
                await asyncio.gather(*jobs)

        transport.open.clear()
        task = asyncio.create_task(body(session, jobs))
        for _ in range(first):
            await asyncio.sleep(0)
        for _ in range(40):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert all(job.done() for job in jobs)
        assert transport.closed or not jobs
        assert set() == others()


@in_virtual_time
async def test_a_timeout_around_everything_is_a_timeout(options: Options) -> None:
    """
    `asyncio.timeout` around the session raises `TimeoutError`, after the drain, and the jobs are settled.
    """
    world = World(Settings(duration=lambda body: 1e6))
    jobs: list[Job] = []

    async def live() -> None:
        async with asyncio.timeout(60), world.session(**options()) as veo:
            jobs.extend(veo.submit_many(whales(5)))
            await asyncio.gather(*jobs)

    with pytest.raises(TimeoutError):
        await live()
    assert {SessionClosed} == {type(job.exception()) for job in jobs}
    assert set(world.core.tasks) == {job.task_id for job in jobs}
    assert set() == others()


@in_virtual_time
async def test_a_session_may_live_in_a_task_group() -> None:
    """
    A sibling in the same task group fails: the session ends in order, and the group raises the sibling's error.
    """
    world = ten_seconds()
    jobs: list[Job] = []

    async def live() -> None:
        async with world.session() as veo:
            jobs.append(veo.submit(whale()))
            await jobs[0]

    async def fail() -> None:
        await asyncio.sleep(2)
        raise LookupError("sibling")

    async def both() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(live())
            group.create_task(fail())

    with pytest.raises(ExceptionGroup) as caught:
        await both()
    assert [LookupError] == [type(error) for error in caught.value.exceptions]
    assert isinstance(jobs[0].exception(), SessionClosed)
    assert set() == others()


# --- the loop is torn down -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "submitting", "unknown", "pending"])
def test_a_loop_that_is_torn_down_takes_the_session_down_in_order(state: str, options: Options) -> None:
    """
    `asyncio.run` cancels all tasks at once, also our own: the jobs still say what is true of them.
    """
    jobs: list[Job] = []

    async def live(world: World) -> None:
        limits = Limits(max_in_flight=1) if state == "queued" else Limits()
        session, transport = scripted(world, limits=limits, **options())
        async with session as veo:
            if state == "queued":
                await veo.submit(whale(9)).accepted()
            if state == "submitting":
                transport.open.clear()
            jobs.append(veo.submit(whale(), key="k"))
            await asyncio.Event().wait()

    async def main() -> None:
        faults = Faults().add("status_before", on="list", status=503)  # nothing is found out so soon
        if state == "unknown":
            faults.add("drop_after", on="submit")
        task = asyncio.create_task(live(ten_seconds(faults)))
        await asyncio.sleep(2)
        assert not task.done()
        assert JobState(state) is jobs[0].state

    run(main())
    error = jobs[0].exception()
    kind = SubmissionUnknown if state in ("submitting", "unknown") else SessionClosed
    assert kind is type(error)
    assert ("not sent" in str(error)) is (state == "queued")
    assert (jobs[0].task_id is not None) is (state == "pending")


def test_a_session_nobody_leaves_is_no_disaster() -> None:
    """
    A coroutine that is left lying inside `async with` is torn down with its loop, without a complaint.
    """
    kept: list[Any] = []

    async def main() -> None:
        world = ten_seconds()

        async def generate() -> Any:
            async with world.session() as veo:
                yield veo.submit(whale())

        generator = generate()
        kept.append(await anext(generator))
        kept.append(generator)

    run(main())
    assert kept[0].done()


CHILD = """
    import asyncio, sys
    from veo_async import TextToVideo, VeoError, VeoSession
    from veo_async.simulator import Faults, Settings, Simulator

    async def main():
        jobs = []
        faults = Faults().add("stall_after", on="submit", match=lambda body: body["prompt"] == "stalled")
        try:
            async with Simulator(Settings(), faults=faults) as sim:
                async with VeoSession(sim.token, base_url=sim.url, journal=sys.argv[1]) as veo:
                    jobs += veo.submit_many([TextToVideo(f"whale {n}") for n in range(5)])
                    await asyncio.gather(*(job.accepted() for job in jobs))
                    if sys.argv[2:] == ["stalled"]:
                        jobs.append(veo.submit(TextToVideo("stalled")))
                        while sim.core.accepted < 6:
                            await asyncio.sleep(0.01)
                    print("running", flush=True)
                    await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                print(job.task_id, type(job.exception()).__name__, flush=True)

    asyncio.run(main())
"""


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(CHILD)]
    return subprocess.Popen(
        [*command, str(tmp_path / "batch.db"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said_and_complained(child: subprocess.Popen[str]) -> tuple[list[str], str]:
    try:
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    return out.splitlines(), err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
def test_ctrl_c_settles_everything_and_warns_of_nothing(tmp_path: Path) -> None:
    """
    Ctrl-C in a real process: all ids are said, the traceback is that of the interrupt, and nothing else is said.
    """
    child = start(tmp_path)
    assert child.stdout is not None
    assert "running\n" == child.stdout.readline()
    child.send_signal(signal.SIGINT)
    said, complained = said_and_complained(child)
    assert ["SessionClosed"] * 5 == [line.split()[1] for line in said]
    assert 5 == len({line.split()[0] for line in said})
    assert complained.rstrip().endswith("KeyboardInterrupt")
    for word in ("Warning", "never retrieved", "unclosed", "was destroyed", "veo_async failed"):
        assert word not in complained
    assert -signal.SIGINT == child.returncode


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT to send there")
def test_a_second_ctrl_c_is_obeyed(tmp_path: Path) -> None:
    """
    Ctrl-C again while a stalled submit is drained ends the process at once; the journal knows of the sending.
    """
    child = start(tmp_path, "stalled")
    assert child.stdout is not None
    assert "running\n" == child.stdout.readline()
    child.send_signal(signal.SIGINT)
    # The first one is taken by the loop; until then a second one would be the same one.
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=1)
    child.send_signal(signal.SIGINT)
    said_and_complained(child)
    assert -signal.SIGINT == child.returncode

    async def read() -> list[tuple[str | None, int]]:
        journal = Journal(tmp_path / "batch.db")
        await journal.open(TOKEN)
        entries = await journal.unsettled()
        await journal.close()
        return [(entry.task_id, len(entry.attempts)) for entry in entries]

    entries = asyncio.run(read())
    assert 6 == len(entries)
    assert [(None, 1)] == [entry for entry in entries if entry[0] is None]


# --- entering that fails -----------------------------------------------------------------------------------


async def test_a_failed_entering_leaves_nothing_open(tmp_path: Path) -> None:
    """
    A journal that cannot be opened: the error comes out, no socket or task is left, and nothing is locked.
    """
    (tmp_path / "foreign.db").write_bytes(b"not a database at all, but long enough to be read" * 100)
    before = asyncio.all_tasks()
    veo = VeoSession(TOKEN, base_url="http://127.0.0.1:1", journal=tmp_path / "foreign.db")
    with pytest.raises(JournalError):
        await veo.__aenter__()
    assert before == asyncio.all_tasks()
    del veo
    gc.collect()


async def test_an_entering_that_is_cancelled_leaves_nothing_open(tmp_path: Path) -> None:
    """
    Cancelled at any point of entering, the session lets go of the journal: the next one can have it.
    """
    path = tmp_path / "batch.db"
    for turns in range(6):
        veo = VeoSession(TOKEN, base_url="http://127.0.0.1:1", journal=path)
        entering = asyncio.create_task(veo.__aenter__())
        for _ in range(turns):
            await asyncio.sleep(0)
        entering.cancel()
        await asyncio.gather(entering, return_exceptions=True)
        if not entering.cancelled():
            await veo.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            while True:
                try:
                    async with VeoSession(TOKEN, base_url="http://127.0.0.1:1", journal=path):
                        break
                except JournalError:  # a thread that was opening it has yet to let go
                    await asyncio.sleep(0.01)


# --- a fault of our own ------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["veo_async tracker", "veo_async reconciler", "veo_async submitter"])
@in_virtual_time
async def test_the_death_of_a_coroutine_is_loud(
    victim: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Where one of our own coroutines dies, every job settles with the cause, and the log is CRITICAL.
    """
    world = ten_seconds()
    async with world.session() as veo:
        engine: Any = veo._engine
        job = veo.submit(whale())
        await job.accepted()

        def bug(*_: object, **__: object) -> Any:
            raise ZeroDivisionError("a bug")

        if victim.endswith("tracker"):
            monkeypatch.setattr(type(engine.tracker.schedule), "take_batch", bug)
        elif victim.endswith("reconciler"):
            monkeypatch.setattr(type(engine.reconciling.reconciler), "next_due_at", bug)
            engine.reconciling._woken.set()
        else:
            monkeypatch.setattr("veo_async._submit.submitters.encode", bug)
            veo.submit(whale(1))
        async with asyncio.timeout(100):
            assert JobState.STOPPED is await ended(job)
        error = job.exception()
        assert isinstance(error, SessionClosed)
        assert isinstance(error.__cause__, ZeroDivisionError)
        monkeypatch.undo()
    assert ["CRITICAL"] == [record.levelname for record in caplog.records if record.levelno > 30]
    assert set() == others()

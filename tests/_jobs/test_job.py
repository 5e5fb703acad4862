"""
`Job`: a handle that any number of coroutines may await, cancel and watch without harm to it or to each other.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import weakref
from contextvars import ContextVar
from datetime import UTC
from typing import Any

import pytest

from tests.virtual import World
from tests.virtual.scripted import ended, in_virtual_time, result_of, scripted, whale, whales
from veo_async import (
    Job,
    JobAbandoned,
    JobFailed,
    JobState,
    JobUpdate,
    PermissionDenied,
    SessionClosed,
    UsageError,
)
from veo_async._jobs.job import advance, settle
from veo_async.simulator import Settings


def ten_seconds(**changes: Any) -> World:
    return World(Settings(duration=lambda body: 10.0, **changes))


# --- awaiting --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_job_may_be_awaited_again_and_again() -> None:
    """
    Every await gives the same result object, before the job settles and after.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        first = await job
        assert first is await job
        assert first is job.result()
        assert first is await asyncio.create_task(result_of(job))


@in_virtual_time
async def test_many_awaiters_all_get_the_result() -> None:
    """
    A hundred coroutines wait for one job; all get its one result.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        results = await asyncio.gather(*(result_of(job) for _ in range(100)))
        assert {id(job.result())} == {id(result) for result in results}


@in_virtual_time
async def test_cancelling_one_awaiter_harms_nobody() -> None:
    """
    One awaiter is cancelled; the job goes on, and the other awaiters get its result.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        waiting = [asyncio.create_task(result_of(job)) for _ in range(5)]
        await job.accepted()
        for victim in waiting[::2]:
            victim.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [asyncio.CancelledError] * 3 == [type(outcome) for outcome in outcomes[::2]]
        assert [job.result()] * 2 == outcomes[1::2]


@in_virtual_time
async def test_all_awaiters_may_be_cancelled() -> None:
    """
    With every awaiter gone the job still settles.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        waiting = [asyncio.create_task(result_of(job)) for _ in range(3)]
        await job.accepted()
        for victim in waiting:
            victim.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not job.done()
        assert JobState.SUCCEEDED is await ended(job)


@in_virtual_time
async def test_a_timeout_around_an_await_leaves_the_job_alone() -> None:
    """
    `asyncio.timeout` and `wait_for` give up waiting, and the job settles all the same.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await job
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(job, 1)
        assert JobState.PENDING is job.state
        assert job.task_id == (await job).task_id


@in_virtual_time
async def test_jobs_can_be_gathered() -> None:
    """
    `gather` takes jobs as they are, and gives results and exceptions in order.
    """
    world = ten_seconds()
    async with world.session() as veo:
        jobs = veo.submit_many(whales(3))
        world.core.fail(await jobs[1].accepted())
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert [jobs[0].result(), jobs[1].exception(), jobs[2].result()] == outcomes


@in_virtual_time
async def test_jobs_can_be_waited_for_as_tasks() -> None:
    """
    `asyncio.wait` over tasks made of jobs tells which settled in time.
    """
    world = ten_seconds()
    world.core.next_durations.extend([5.0, 500.0])
    async with world.session() as veo:
        quick, slow = [asyncio.ensure_future(job) for job in veo.submit_many(whales(2))]
        done, pending = await asyncio.wait({quick, slow}, timeout=60)
        assert ({quick}, {slow}) == (done, pending)
        slow.cancel()


@in_virtual_time
async def test_a_task_group_may_hold_jobs() -> None:
    """
    Where one job of a task group fails, the others' awaiting is cancelled and their jobs go on.
    """
    world = ten_seconds()
    async with world.session() as veo:
        doomed, other = veo.submit_many(whales(2))
        world.core.fail(await doomed.accepted())

        async def both() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(result_of(doomed))
                group.create_task(result_of(other))

        with pytest.raises(ExceptionGroup) as caught:
            await both()
        assert (doomed.exception(),) == caught.value.exceptions
        assert JobState.SUCCEEDED is await ended(other)


@in_virtual_time
async def test_thousands_of_awaiters_are_no_trouble() -> None:
    """
    As many awaiters as one likes: each gets woken once.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        await asyncio.gather(*(result_of(job) for _ in range(4_000)))
        assert job.done()


# --- what a job says before and after it settles -----------------------------------------------------------


@in_virtual_time
async def test_an_unsettled_job_has_no_result_yet() -> None:
    """
    As on a future: `result` and `exception` of an unsettled job raise `InvalidStateError`.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        assert not job.done()
        with pytest.raises(asyncio.InvalidStateError):
            job.result()
        with pytest.raises(asyncio.InvalidStateError):
            job.exception()
        await job
        assert job.done()
        assert job.exception() is None


@in_virtual_time
async def test_a_failed_job_raises_and_says_so() -> None:
    """
    A failed job raises from `await` and `result()`, and hands the same exception over from `exception()`.
    """
    world = ten_seconds()
    async with world.session() as veo:
        job = veo.submit(whale(), key="k")
        task_id = await job.accepted()
        world.core.fail(task_id, "forbidden", "no whales")
        with pytest.raises(JobFailed, match="no whales") as awaited:
            await job
        with pytest.raises(JobFailed) as asked:
            job.result()
        assert job.exception() is awaited.value is asked.value
        assert ("k", task_id, "forbidden", "no whales", world.core.tasks[task_id].trace_id) == (
            awaited.value.key,
            awaited.value.task_id,
            awaited.value.code,
            awaited.value.message,
            awaited.value.trace_id,
        )


@in_virtual_time
async def test_tracebacks_do_not_pile_up() -> None:
    """
    The hundredth raising of one exception has as many frames as the first.
    """
    world = ten_seconds()
    async with world.session() as veo:
        job = veo.submit(whale())
        world.core.fail(await job.accepted())
        depths = set()
        for _ in range(100):
            with pytest.raises(JobFailed) as caught:
                await job
            depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
        assert 1 == len(depths)


@in_virtual_time
async def test_accepted_gives_the_task_id() -> None:
    """
    `accepted()` waits for the id, however many ask, and gives it again afterwards.
    """
    world = ten_seconds()
    async with world.session() as veo:
        job = veo.submit(whale())
        assert job.task_id is None
        ids = await asyncio.gather(*(job.accepted() for _ in range(10)))
        assert set(world.core.tasks) == set(ids)
        await job
        assert job.task_id == await job.accepted()


@in_virtual_time
async def test_accepted_raises_what_came_instead() -> None:
    """
    A refused job will never be accepted: whoever waits for that gets the refusal.
    """
    world = World()
    world.core.revoke(next(iter(world.core.tokens)), "disabled")
    async with world.session() as veo:
        job = veo.submit(whale())
        with pytest.raises(PermissionDenied):
            await job.accepted()
        with pytest.raises(PermissionDenied):
            await job.accepted()


@in_virtual_time
async def test_an_accepted_job_that_fails_was_accepted() -> None:
    """
    `accepted()` of a settled job still tells the id.
    """
    world = ten_seconds()
    async with world.session() as veo:
        job = veo.submit(whale())
        task_id = await job.accepted()
        world.core.fail(task_id)
        await ended(job)
        assert task_id == await job.accepted()


@in_virtual_time
async def test_a_job_that_is_taken_for_its_result_says_what_to_do() -> None:
    """
    The videos are the result's, which is had by awaiting; what nothing has stays a plain error.
    """
    async with ten_seconds().session() as veo:
        job: Any = veo.submit(whale())
        with pytest.raises(AttributeError, match=r"has no 'video': the result has it, \(await job\)\.video"):
            job.video  # noqa: B018
        with pytest.raises(AttributeError, match=r"has no attribute 'colour'$"):
            job.colour  # noqa: B018
        assert not hasattr(job, "videos")
        assert {"accepted", "key"} <= set(dir(job))
        assert {"video", "videos", "raw"}.isdisjoint(dir(job)), "Python would suggest them for each other"


@in_virtual_time
async def test_the_repr_says_where_the_job_stands() -> None:
    """
    A job's repr shows its key, state and task.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale(), key="k 1")
        assert "<Job k 1 queued task_id=None>" == repr(job)
        await job
        assert f"<Job k 1 succeeded task_id={job.task_id}>" == repr(job)


# --- callbacks -------------------------------------------------------------------------------------------


@in_virtual_time
async def test_done_callbacks_are_called_once_by_the_loop() -> None:
    """
    Callbacks added before and after settling are each called once, with the job, and never at once.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        called: list[tuple[str, Job]] = []
        job.add_done_callback(lambda settled: called.append(("before", settled)))
        job.add_done_callback(lambda settled: called.append(("before too", settled)))
        await job
        job.add_done_callback(lambda settled: called.append(("after", settled)))
        assert "after" not in dict(called)
        await asyncio.sleep(1)
        assert [("before", job), ("before too", job), ("after", job)] == called


@in_virtual_time
async def test_a_callback_that_raises_harms_nobody() -> None:
    """
    A callback's exception goes to the loop's handler; the other callbacks and the awaiters are served.
    """
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        called: list[Job] = []
        job.add_done_callback(lambda settled: 1 / 0)
        job.add_done_callback(called.append)
        await job
        await asyncio.sleep(1)
        assert [job] == called
        assert [ZeroDivisionError] == [type(complaint["exception"]) for complaint in complaints]


@in_virtual_time
async def test_callbacks_run_in_the_context_they_were_added_in() -> None:
    """
    As on a future, a callback sees the context variables of its adding, or those it was given.
    """
    who: ContextVar[str] = ContextVar("who", default="nobody")
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        seen: list[str] = []
        who.set("the adder")
        job.add_done_callback(lambda _: seen.append(who.get()))
        who.set("somebody later")
        await job
        await asyncio.sleep(1)
        assert ["the adder"] == seen


# --- updates ---------------------------------------------------------------------------------------------


@in_virtual_time
async def test_updates_tell_the_whole_way() -> None:
    """
    The current update comes first, then each step and each look, and the last one ends the iteration.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        updates = [update async for update in job.updates()]
        states = list(dict.fromkeys(update.state for update in updates))
        assert [JobState.QUEUED, JobState.SUBMITTING, JobState.PENDING, JobState.SUCCEEDED] == states
        assert [0] == [update.looks for update in updates[:1]]
        looks = [update.looks for update in updates]
        assert sorted(looks) == looks
        assert looks[-1] >= 1
        assert (None, job.task_id) == (updates[0].task_id, updates[-1].task_id)
        assert {UTC} == {update.at.tzinfo for update in updates}
        assert len(updates) == len({(update.state, update.looks) for update in updates})


@in_virtual_time
async def test_updates_of_a_settled_job_are_one() -> None:
    """
    A settled job has one update left: where it stands.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        await job
        updates = [update async for update in job.updates()]
        assert [(JobState.SUCCEEDED, job.task_id)] == [(update.state, update.task_id) for update in updates]


@in_virtual_time
async def test_every_consumer_of_updates_sees_the_end() -> None:
    """
    Several consumers follow one job independently, and one that leaves early disturbs nobody.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())

        async def leave() -> JobUpdate:
            async for update in job.updates():
                return update
            raise AssertionError

        async def follow() -> list[JobUpdate]:
            return [update async for update in job.updates()]

        left, *followed = await asyncio.gather(leave(), follow(), follow(), follow())
        assert left == followed[0][0]
        assert followed[0] == followed[1] == followed[2]
        assert JobState.SUCCEEDED is followed[0][-1].state


@in_virtual_time
async def test_a_slow_consumer_gets_the_latest() -> None:
    """
    Who sleeps through everything gets the first update and then the last: nothing is stored up.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        states = []
        async for update in job.updates():
            states.append(update.state)
            await asyncio.sleep(1000)
        assert [JobState.QUEUED, JobState.SUCCEEDED] == states


@in_virtual_time
async def test_following_a_failure_does_not_raise() -> None:
    """
    Updates of a job that fails end with it, and raise nothing.
    """
    world = ten_seconds()
    async with world.session() as veo:
        job = veo.submit(whale())
        world.core.fail(await job.accepted())
        assert JobState.FAILED is [update.state async for update in job.updates()][-1]


@in_virtual_time
async def test_cancelling_who_follows_harms_nobody() -> None:
    """
    A consumer of updates is cancelled in its waiting; another one sees the end.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())

        async def follow() -> JobState:
            return [update.state async for update in job.updates()][-1]

        victim, other = asyncio.create_task(follow()), asyncio.create_task(follow())
        await job.accepted()
        victim.cancel()
        await asyncio.gather(victim, return_exceptions=True)
        assert JobState.SUCCEEDED is await other


# --- as_completed ----------------------------------------------------------------------------------------


@in_virtual_time
async def test_as_completed_yields_in_the_order_of_settling() -> None:
    """
    Jobs come as they settle, each once even if it was given twice; a failed one is yielded, not raised.
    """
    world = ten_seconds()
    world.core.next_durations.extend([300.0, 10.0, 150.0])
    async with world.session() as veo:
        slow, quick, middle = jobs = veo.submit_many(whales(3))
        await asyncio.gather(*(job.accepted() for job in jobs))
        world.core.fail(middle.task_id or "")
        order = [job async for job in veo.as_completed([*jobs, *jobs])]
        assert {quick, middle} == set(order[:2])
        assert [slow] == order[2:]
        assert isinstance(middle.exception(), JobFailed)


@in_virtual_time
async def test_as_completed_takes_settled_jobs_and_none() -> None:
    """
    Settled jobs are yielded too, and no jobs at all end at once.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        await job
        assert [job] == [one async for one in veo.as_completed(iter([job]))]
        assert [] == [one async for one in veo.as_completed([])]


@in_virtual_time
async def test_as_completed_takes_more_jobs_than_it_registers_at_once() -> None:
    """
    Thousands of jobs are registered in portions, and not one is forgotten.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        await job
        jobs = [job, *veo.submit_many(whales(1200))]
        assert set(jobs) == {one async for one in veo.as_completed(jobs)}


@in_virtual_time
async def test_leaving_as_completed_harms_no_job() -> None:
    """
    A loop over settled jobs is left after the first; the others settle and can be awaited.
    """
    async with ten_seconds().session() as veo:
        jobs = veo.submit_many(whales(5))
        async for _ in veo.as_completed(jobs):
            break
        await asyncio.gather(*jobs)
        assert {JobState.SUCCEEDED} == {job.state for job in jobs}


# --- handles that nobody holds, exceptions that nobody fetches ----------------------------------------------


@in_virtual_time
async def test_exceptions_nobody_fetches_stay_silent() -> None:
    """
    A failed job that nobody awaited goes away without a complaint of the loop.
    """
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    world = World(Settings(duration=lambda body: 10.0, failure_share=1.0))
    async with world.session() as veo:
        jobs = veo.submit_many(whales(10))
        async for _ in veo.as_completed(jobs):
            pass
        del jobs
        gc.collect()
        await asyncio.sleep(0)
    assert [] == complaints


@in_virtual_time
async def test_a_dropped_handle_still_settles() -> None:
    """
    The session holds an unsettled job that its caller let go of, and lets go of it once it is settled.
    """
    async with ten_seconds().session() as veo:
        settled: list[str] = []
        job = veo.submit(whale())
        job.add_done_callback(lambda done: settled.append(done.result().task_id))
        task_id, gone = await job.accepted(), weakref.ref(job)
        del job
        gc.collect()
        assert gone() is not None
        await asyncio.sleep(600)
        gc.collect()
        assert [task_id] == settled
        assert gone() is None


# --- abandoning ------------------------------------------------------------------------------------------


@in_virtual_time
async def test_awaiters_of_an_abandoned_job_are_told() -> None:
    """
    Everybody who waits gets `JobAbandoned`, never `CancelledError`; abandoning twice, or too late, does nothing.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        waiting = [asyncio.create_task(result_of(job)) for _ in range(3)]
        task_id = await job.accepted()
        job.abandon()
        job.abandon()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [JobAbandoned] * 3 == [type(outcome) for outcome in outcomes]
        assert {task_id} == {getattr(outcome, "task_id", None) for outcome in outcomes}
        assert JobState.STOPPED is job.state
        other = veo.submit(whale())
        result = await other
        other.abandon()
        assert result is other.result()


# --- other loops and threads -------------------------------------------------------------------------------


@in_virtual_time
async def test_a_job_is_awaited_in_its_own_loop() -> None:
    """
    Awaiting, following or expecting acceptance in another event loop is a `UsageError`, and does no harm.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale(), key="k")
        caught: list[BaseException] = []

        async def follow() -> None:
            updates = job.updates()
            await anext(updates)
            await anext(updates)

        def elsewhere() -> None:
            for attempt in (result_of(job), job.accepted(), follow()):
                try:
                    asyncio.run(attempt)
                except BaseException as error:
                    caught.append(error)

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert [UsageError] * 3 == [type(error) for error in caught]
        assert {"k"} == {getattr(error, "key", None) for error in caught}
        assert JobState.SUCCEEDED is await ended(job)


@in_virtual_time
async def test_a_settled_job_may_be_read_anywhere() -> None:
    """
    A settled job needs no loop: its result can be had after the session and from another loop.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        result = await job
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(asyncio.run(result_of(job))))
    thread.start()
    thread.join()
    assert [result] == found
    assert result is await job


# --- the table of states -----------------------------------------------------------------------------------


@in_virtual_time
async def test_a_settled_job_cannot_move() -> None:
    """
    What the table of states does not allow is a programming error, and changes nothing.
    """
    async with ten_seconds().session() as veo:
        job = veo.submit(whale())
        result = await job
        for state in JobState:
            with pytest.raises(AssertionError):
                advance(job, state)
            with pytest.raises(AssertionError):
                settle(job, state, SessionClosed("no"))
        assert (JobState.SUCCEEDED, result) == (job.state, job.result())


@in_virtual_time
async def test_an_unsettled_job_only_settles_in_settled_states() -> None:
    """
    `advance` does not settle, and `settle` does nothing else.
    """
    world = ten_seconds()
    session, transport = scripted(world)
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale())
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED, JobState.QUEUED):
            with pytest.raises(AssertionError):
                advance(job, state)
        with pytest.raises(AssertionError):
            settle(job, JobState.PENDING, SessionClosed("no"))
        transport.open.set()
        assert JobState.SUCCEEDED is await ended(job)

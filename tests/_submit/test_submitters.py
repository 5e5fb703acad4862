"""
Submitting: keys, the queue, the gate, and what follows each of the four outcomes of an attempt.

The server's own count of accepted tasks says what was bought.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.virtual import EPOCH, World
from tests.virtual.scripted import (
    Options,
    ScriptedTransport,
    answer,
    ended,
    in_virtual_time,
    scripted,
    whale,
    whales,
)
from veo_async import (
    ApiError,
    AuthenticationError,
    BadRequest,
    InsufficientBalance,
    InvalidRequest,
    Job,
    JobAbandoned,
    JobFailed,
    JobState,
    JobTimedOut,
    Journal,
    JournalError,
    KeyConflict,
    Limits,
    PermissionDenied,
    PollPolicy,
    SubmissionUnknown,
    SubmitTimedOut,
    TaskNotFound,
    TextToVideo,
    VeoSession,
    VideoResult,
)
from veo_async._api.marks import label
from veo_async._http.transport import Reply
from veo_async._journal.facts import Standing, TakeIn
from veo_async._journal.sqlite_store import Store
from veo_async.errors import ConnectionFailed, ProtocolError, TransportTimedOut
from veo_async.simulator import TOKEN, Faults, Settings

EVEN = PollPolicy(mode="fixed", interval=1.0)


def ten_seconds(faults: Faults | None = None, **changes: Any) -> World:
    return World(Settings(duration=lambda body: 10.0, **changes), faults=faults)


class LateJournal(Journal):
    """
    A journal whose writers hear of it a second late.
    """

    async def write(self, *facts: Any) -> None:
        await super().write(*facts)
        await asyncio.sleep(1.0)

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        standings = await super().take_in(items)
        await asyncio.sleep(1.0)
        return standings


# --- keys ------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_the_same_key_is_the_same_job(options: Options) -> None:
    """
    A key submitted again, before or after its job settles, gives the very same job, bought once.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        assert job is veo.submit(whale(), key="k")
        await job
        assert job is veo.submit(whale(), key="k")
        assert 1 == world.core.accepted


@in_virtual_time
async def test_without_a_key_every_submit_buys() -> None:
    """
    Two equal requests without keys are two jobs and two tasks.
    """
    world = ten_seconds()
    async with world.session() as veo:
        one, other = veo.submit(whale()), veo.submit(whale())
        assert one.key != other.key
        assert (await one).task_id != (await other).task_id
        assert 2 == world.core.accepted


@in_virtual_time
async def test_a_key_stays_its_requests_own(options: Options) -> None:
    """
    A key that is used with a different request raises `KeyConflict`, before the job settles and after.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(1), key="k")
        with pytest.raises(
            KeyConflict, match=r"'k' belongs to a different request: TextToVideo.prompt='whale 1'"
        ):
            veo.submit(whale(2), key="k")
        await job
        with pytest.raises(KeyConflict) as caught:
            veo.submit(whale(2), key="k")
        assert ("k", job.task_id) == (caught.value.key, caught.value.task_id)
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_dropped_key_is_still_known(options: Options) -> None:
    """
    Nobody holds the settled job any more; its key still gives its result, and still conflicts.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        first = (await veo.submit(whale(), key="k")).task_id
        await veo.submit(whale(1))  # so that nothing inside lingers at the first one
        again = veo.submit(whale(), key="k")
        assert first == (await again).task_id
        with pytest.raises(KeyConflict):
            await result_of(veo, whale(2), "k")
        assert 2 == world.core.accepted


async def result_of(veo: VeoSession, request: TextToVideo, key: str) -> VideoResult:
    """
    Submit and await in one: a conflict that only the journal knows of comes with the job.
    """
    return await veo.submit(request, key=key)


@in_virtual_time
async def test_a_failure_is_for_ever_unless_told_otherwise(options: Options) -> None:
    """
    The key of a failed job gives the failure again; with `retry_failed` it buys a new task, and then keeps that.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        world.core.fail(await job.accepted())
        assert JobState.FAILED is await ended(job)
        assert JobState.FAILED is await ended(veo.submit(whale(), key="k"))
        assert 1 == world.core.accepted
        again = veo.submit(whale(), key="k", retry_failed=True)
        result = await again
        assert result.task_id != job.task_id
        assert again is veo.submit(whale(), key="k", retry_failed=True)
        assert result.task_id == (await veo.submit(whale(), key="k")).task_id
        assert 2 == world.core.accepted


@in_virtual_time
async def test_a_dropped_failure_can_be_bought_again(options: Options) -> None:
    """
    `retry_failed` works also where nobody held on to the failed job.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        world.core.fail(await job.accepted())
        await ended(job)
        del job
        await veo.submit(whale(1))
        with pytest.raises(JobFailed):
            await veo.submit(whale(), key="k")
        await veo.submit(whale(1))
        await veo.submit(whale(), key="k", retry_failed=True)
        assert 4 == world.core.accepted


@in_virtual_time
async def test_retry_failed_does_not_buy_what_has_not_failed(options: Options) -> None:
    """
    `retry_failed` on a key whose job runs, or went well, is that job.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k", retry_failed=True)
        assert job is veo.submit(whale(), key="k", retry_failed=True)
        await job
        assert job is veo.submit(whale(), key="k", retry_failed=True)
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_refusal_frees_the_key(options: Options) -> None:
    """
    After a refusal the key may be used again, also for another request.
    """
    world = ten_seconds()
    token = next(iter(world.core.tokens))
    async with world.session(**options()) as veo:
        world.core.revoke(token, "used_up")
        with pytest.raises(InsufficientBalance):
            await veo.submit(whale(1), key="k")
        del world.core.dead_tokens[token]
        await veo.submit(whale(2), key="k")
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_key_goes_on_after_its_deadline(options: Options) -> None:
    """
    After `JobTimedOut` the same key waits for the same task; nothing is bought again.
    """
    world = ten_seconds()
    world.core.next_durations.append(500.0)
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k", timeout=30)
        with pytest.raises(JobTimedOut):
            await job
        again = veo.submit(whale(), key="k")
        assert again is not job
        assert job.task_id == (await again).task_id
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_key_goes_on_after_it_was_abandoned(options: Options) -> None:
    """
    After `abandon` the same key takes up the same task.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        task_id = await job.accepted()
        job.abandon()
        assert task_id == (await veo.submit(whale(), key="k")).task_id
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_key_goes_on_after_an_unknown_outcome(options: Options) -> None:
    """
    After `SubmissionUnknown` the same key is reconciled again, and never simply sent.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", times=1), listing="refused")
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        with pytest.raises(SubmissionUnknown) as caught:
            await job
        assert caught.value.sent_at is not None
        again = veo.submit(whale(), key="k")
        assert JobState.STOPPED is await ended(again)
        assert isinstance(again.exception(), SubmissionUnknown)
        assert 1 == world.core.accepted


@in_virtual_time
async def test_a_key_is_found_once_the_listing_works_again(options: Options) -> None:
    """
    The listing was off and is back: the key of a `SubmissionUnknown` then finds the task it had bought.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", times=1))
    world.faults.add("status_before", on="list", status=404)  # type: ignore[union-attr]
    async with world.session(**options()) as veo:
        job = veo.submit(whale(), key="k")
        with pytest.raises(SubmissionUnknown):
            await job
        assert world.faults is not None
        world.faults.on = False
        assert set(world.core.tasks) == {(await veo.submit(whale(), key="k")).task_id}
        assert 1 == world.core.accepted


@pytest.mark.parametrize("key", ["", 5, b"k", ["k"]])
@in_virtual_time
async def test_a_key_is_a_string_with_something_in_it(key: Any) -> None:
    """
    Anything else is refused before any traffic.
    """
    world = ten_seconds()
    async with world.session() as veo:
        with pytest.raises(InvalidRequest, match="key"):
            veo.submit(whale(), key=key)
    assert 0 == world.core.requests["submit"]


@in_virtual_time
async def test_odd_keys_are_keys(options: Options) -> None:
    """
    Whatever a string may hold may be a key.
    """
    keys = ["é", "a b\n", "\ud800", "k" * 10_000, "'; DROP TABLE jobs; --", "task:x", "\0"]
    world = ten_seconds()
    async with world.session(**options()) as veo:
        jobs = veo.submit_many(zip(keys, whales(len(keys)), strict=True))
        await asyncio.gather(*jobs)
        assert keys == [job.key for job in jobs]
        assert jobs == veo.submit_many(zip(keys, whales(len(keys)), strict=True))


# --- what is checked first -------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "5"])
@in_virtual_time
async def test_a_timeout_is_seconds_above_zero(timeout: Any) -> None:
    """
    A deadline that makes no sense is refused, for a new job and for an attached one.
    """
    async with ten_seconds().session() as veo:
        with pytest.raises(InvalidRequest, match="timeout"):
            veo.submit(whale(), timeout=timeout)
        with pytest.raises(InvalidRequest, match="timeout"):
            veo.attach("task", timeout=timeout)


@pytest.mark.parametrize("request_", ["a whale", None, {"prompt": "a whale"}, 7, ("k", "a whale"), ("k",)])
@in_virtual_time
async def test_a_request_is_a_request(request_: Any) -> None:
    """
    What is no request raises `InvalidRequest`, singly, among many and in `map`.
    """
    world = ten_seconds()
    async with world.session() as veo:
        with pytest.raises(InvalidRequest):
            veo.submit(request_)
        with pytest.raises(InvalidRequest):
            veo.submit_many([whale(), request_])
        with pytest.raises(InvalidRequest):
            await anext(veo.map([request_]))
    assert 0 == world.core.accepted


@in_virtual_time
async def test_many_are_checked_before_any_is_submitted(options: Options) -> None:
    """
    One bad request, a conflict with a known key or within the batch: nothing of the batch is sent.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        known = veo.submit(whale(), key="known")
        await known
        with pytest.raises(KeyConflict):
            veo.submit_many([("a", whale(1)), ("known", whale(2))])
        with pytest.raises(KeyConflict):
            veo.submit_many([("a", whale(1)), ("a", whale(2))])
        with pytest.raises(InvalidRequest):
            veo.submit_many([("a", whale(1)), ("", whale(2))])

        def raising() -> Any:
            yield whale(1)
            raise LookupError("no more whales")

        with pytest.raises(LookupError, match="no more whales"):
            veo.submit_many(raising())
        await asyncio.sleep(100)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_many_take_keys_and_generators() -> None:
    """
    Requests and pairs may be mixed and lazy; a key that comes twice with the same request is one job.
    """
    world = ten_seconds()
    items: list[Any] = [whale(1), ("k", whale(2)), ("k", whale(2))]
    async with world.session() as veo:
        one, two, three = veo.submit_many(iter(items))
        assert two is three
        assert ("k", whale(1)) == (two.key, one.request)
        assert [] == veo.submit_many([])
        await asyncio.gather(one, two)
    assert 2 == world.core.accepted


# --- the gate --------------------------------------------------------------------------------------------


@in_virtual_time
async def test_no_more_in_flight_than_allowed() -> None:
    """
    With `max_in_flight=3` the server never has more than three unfinished tasks, and all get done.
    """
    world = World(Settings())
    async with world.session(limits=Limits(max_in_flight=3)) as veo:
        jobs = veo.submit_many(whales(20))
        await asyncio.gather(*jobs)
    tasks = list(world.core.tasks.values())
    most = max(sum(t.created_at <= at.created_at < t.ends_at for t in tasks) for at in tasks)
    assert (20, 3) == (len(tasks), most)


@in_virtual_time
async def test_submits_keep_their_rate() -> None:
    """
    With `submits_per_second=2` the server's own record shows never more than that, give or take the burst.
    """
    world = ten_seconds()
    async with world.session(limits=Limits(submits_per_second=2.0)) as veo:
        await asyncio.gather(*veo.submit_many(whales(40)))
    times = [task.created_at for task in world.core.tasks.values()]
    for later, earlier in zip(times[4:], times, strict=False):
        assert later - earlier >= 0.99
    assert times[-1] - times[0] <= 25.0


@in_virtual_time
async def test_the_first_submitted_goes_first() -> None:
    """
    Jobs are sent in the order of their submission.
    """
    world = ten_seconds()
    async with world.session(limits=Limits(submits_per_second=5.0)) as veo:
        await asyncio.gather(*veo.submit_many(whales(20)))
    assert [f"whale {n}" for n in range(20)] == [task.body["prompt"] for task in world.core.tasks.values()]


@in_virtual_time
async def test_patience_at_the_gate_ends(options: Options) -> None:
    """
    A job that waits longer than `max_queue_wait` settles with `SubmitTimedOut`, at that time, and is never sent.
    """
    world = ten_seconds()
    loop = asyncio.get_running_loop()
    async with world.session(
        limits=Limits(max_in_flight=1, max_queue_wait=25.0), polling=EVEN, **options()
    ) as veo:
        jobs = veo.submit_many(whales(6))
        settled_at = {}
        async for job in veo.as_completed(jobs):
            settled_at[job] = loop.time()
        late = [job for job in jobs if job.state is JobState.STOPPED]
        assert {SubmitTimedOut} == {type(job.exception()) for job in late}
        assert [25.0] * len(late) == [pytest.approx(settled_at[job], abs=0.1) for job in late]
        assert jobs[:2] == [job for job in jobs if job.state is JobState.SUCCEEDED][:2]
        assert isinstance(late[0].exception(), TimeoutError)
        assert str(late[0].exception()).endswith("it was never sent")
    assert 6 - len(late) == world.core.accepted
    assert len(late) >= 3


@in_virtual_time
async def test_patience_ends_also_while_the_server_is_away() -> None:
    """
    While no connection can be made, waiting at the gate ends all the same, and the error says why it took so long.
    """
    world = ten_seconds()
    world.core.down_until = EPOCH + 10_000
    async with world.session(limits=Limits(max_queue_wait=60.0)) as veo:
        jobs = veo.submit_many(whales(30))
        async for job in veo.as_completed(jobs):
            assert isinstance(job.exception(), SubmitTimedOut)
            assert "connection refused" in str(job.exception())
        assert asyncio.get_running_loop().time() < 200
    assert 0 == world.core.accepted


@in_virtual_time
async def test_an_outage_is_waited_out() -> None:
    """
    Jobs wait for a server that is away for an hour, and are each bought once when it is back.
    """
    world = ten_seconds()
    world.core.down_until = EPOCH + 3600
    async with world.session() as veo:
        await asyncio.gather(*veo.submit_many(whales(30)))
    assert 30 == world.core.accepted


@in_virtual_time
async def test_throttled_jobs_go_again() -> None:
    """
    A server with room for four at once and two submits a second gets all jobs, one task each.
    """
    world = World(Settings(max_in_flight=4, submits_per_second=2, retry_after="seconds"))
    async with world.session() as veo:
        await asyncio.gather(*veo.submit_many(whales(20)))
        assert veo.stats.retries >= 1
    assert 20 == world.core.accepted


# --- four outcomes ---------------------------------------------------------------------------------------


def error(code: str | None, message: str = "no") -> dict[str, Any]:
    return {"error": {"code": code, "message": message}, "trace_id": "t-1"}


REFUSALS = [
    *(
        (status, error(code), kind)
        for code, kind, *statuses in (
            ("token_mismatched", AuthenticationError, 400, 401),
            ("no_token", AuthenticationError, 400),
            ("invalid_token", AuthenticationError, 401, 400),
            ("token_expired", AuthenticationError, 401),
            ("disabled", PermissionDenied, 400, 403),
            ("forbidden", PermissionDenied, 403),
            ("used_up", InsufficientBalance, 403, 429, 500),
            ("bad_request", BadRequest, 400, 200, 500),
            ("no_api", BadRequest, 404),
            ("api_not_implemented", BadRequest, 400, 503),
        )
        for status in statuses
    ),
    (400, {"detail": "what?"}, BadRequest),
    (404, b"nothing here", BadRequest),
    (418, error("a_new_word"), BadRequest),
    (413, b"", BadRequest),
    (402, b"<html>pay</html>", InsufficientBalance),
    (401, None, AuthenticationError),
    (403, {"error": "go away"}, PermissionDenied),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
@in_virtual_time
async def test_a_refused_job_settles(status: int, body: Any, kind: type[ApiError]) -> None:
    """
    Refused: the job settles with the error, which carries the key; nothing is sent again.
    """
    world = ten_seconds()
    session, transport = scripted(world)
    async with session as veo:
        transport.submits.append(answer(status, body))
        job = veo.submit(whale(), key="k")
        with pytest.raises(ApiError) as caught:
            await job
        assert (kind, status, "k", None) == (
            type(caught.value),
            caught.value.status,
            caught.value.key,
            caught.value.task_id,
        )
        assert JobState.STOPPED is job.state
    assert (1, 0) == (transport.arrived, world.core.accepted)


@pytest.mark.parametrize(
    "outcome",
    [
        answer(429, error("too_many_requests")),
        answer(429, error(None)),
        answer(429, b"slow down"),
        answer(429, error("api_error")),
        answer(400, error("too_many_requests")),
        answer(200, error("too_many_requests")),
        answer(429, error("too_many_requests"), retry_after="40"),
    ],
)
@in_virtual_time
async def test_a_job_that_was_not_taken_up_goes_again(outcome: Reply) -> None:
    """
    Not sent: the job waits at the gate, goes again, and is bought once.
    """
    world = ten_seconds()
    session, transport = scripted(world)
    async with session as veo:
        transport.submits.append(outcome)
        await veo.submit(whale())
        assert 1 == veo.stats.retries
    assert (2, 1) == (transport.arrived, world.core.accepted)
    if "retry-after" in outcome.headers:
        (task,) = world.core.tasks.values()
        assert task.created_at >= EPOCH + 40


@in_virtual_time
async def test_a_body_that_never_left_goes_again() -> None:
    """
    A connection that cannot be made costs nothing: the job goes again.
    """
    world = ten_seconds()
    world.core.down_until = EPOCH + 20
    async with world.session() as veo:
        await veo.submit(whale())
    assert 1 == world.core.accepted


UNKNOWNS: list[Any] = [
    *(answer(status, error("api_error")) for status in (500, 200, 400)),
    *(answer(status, error("timeout")) for status in (504, 400)),
    *(answer(status, b"<html>") for status in (408, 425, 499, 300, 301, 307, 500, 502, 503, 504, 520)),
    answer(500, error("a_new_word")),
    *(
        answer(200, body)
        for body in (b"", b"<html>", b"{", b"null", b"[]", b"\x80", b"{}", b'{"task_id": 7}')
    ),
    answer(200, {"success": True}),
    answer(200, {"success": False}),
    answer(202, {"task_id": ""}),
    answer(204, b""),
    ConnectionFailed("reset"),
    TransportTimedOut("silence"),
    ProtocolError("cut off"),
]


@pytest.mark.parametrize("bought", [True, False], ids=["bought", "not bought"])
@pytest.mark.parametrize("outcome", UNKNOWNS)
@in_virtual_time
async def test_an_unknown_outcome_is_reconciled(outcome: Any, bought: bool) -> None:
    """
    Unknown: where the server has the task it is found, where it has not the job goes again; one task either way.
    """
    world = ten_seconds()
    session, transport = scripted(world)

    async def spoiled(body: bytes) -> Reply:
        if bought:
            world.core.post("/veo/videos", {"action": "text2video", "async": True, **_fields(body)})
        if isinstance(outcome, BaseException):
            raise type(outcome)(*outcome.args)
        return outcome  # type: ignore[no-any-return]

    async with session as veo:
        await veo.submit(whale(99))  # some record of this account proves that its listing works
        transport.submits.append(spoiled)
        job = veo.submit(whale())
        states = [update.state async for update in job.updates()]
        assert JobState.UNKNOWN in states
        assert JobState.SUCCEEDED is states[-1]
        assert "whale 0" == world.core.tasks[job.task_id or ""].body["prompt"]
    assert (2, 2 if bought else 3) == (world.core.accepted, transport.arrived)


def _fields(body: bytes) -> dict[str, Any]:
    import json

    fields: dict[str, Any] = json.loads(body)
    return fields


@pytest.mark.parametrize("status", [200, 201, 400, 404, 429, 500, 503])
@in_virtual_time
async def test_any_answer_with_a_task_id_is_an_acceptance(status: int) -> None:
    """
    Accepted: a readable answer that names a task is believed whatever its status, even beside an error.
    """
    world = ten_seconds()
    session, transport = scripted(world)

    async def odd(body: bytes) -> Reply:
        world.core.post("/veo/videos", _fields(body))
        (task_id,) = world.core.tasks
        return answer(status, {"task_id": task_id, "trace_id": "t-1", **({} if status < 300 else error("x"))})

    async with session as veo:
        transport.submits.append(odd)
        job = veo.submit(whale())
        await job
        assert "t-1" == job.trace_id
    assert (1, 1) == (transport.arrived, world.core.accepted)


@in_virtual_time
async def test_an_answer_with_data_is_finished() -> None:
    """
    A submit that is answered with the videos needs no look at all.
    """
    world = ten_seconds()
    session, transport = scripted(world)
    video = {"id": "v", "video_url": "https://cdn.example/v.mp4", "state": "succeeded"}
    async with session as veo:
        transport.submits.append(answer(200, {"success": True, "task_id": "t", "data": [video]}))
        result = await veo.submit(whale())
        assert ("t", "https://cdn.example/v.mp4") == (result.task_id, result.video.url)
        assert 0 == veo.stats.looks


@in_virtual_time
async def test_an_answer_with_a_failure_is_finished_too() -> None:
    """
    A submit that is answered with a task that has failed already settles as that failure.
    """
    session, transport = scripted(ten_seconds())
    async with session as veo:
        transport.submits.append(
            answer(200, {"success": False, "task_id": "t", "error": {"code": "forbidden", "message": "no"}})
        )
        job = veo.submit(whale(), key="k")
        with pytest.raises(JobFailed, match="forbidden"):
            await job
        assert ("t", 0) == (job.task_id, veo.stats.looks)


@in_virtual_time
async def test_a_task_is_one_jobs_alone(options: Options) -> None:
    """
    A server that answers a second submit with the task of the first: that job says so, and is not sent again.
    """
    world = World(Settings(duration=lambda body: 500.0))
    session, transport = scripted(world, **options())
    async with session as veo:
        first = veo.submit(whale())
        task_id = await first.accepted()
        transport.submits.append(answer(200, {"task_id": task_id}))
        with pytest.raises(SubmissionUnknown) as caught:
            await veo.submit(whale(), key="k")
        assert ((task_id,), 2) == (caught.value.candidates, transport.arrived)
        assert task_id == (await first).task_id


@in_virtual_time
async def test_a_task_that_shows_anothers_mark_is_given_back(options: Options) -> None:
    """
    Two answers that were swapped: at the first look each job lets go of the other's task, and finds its own.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        bodies: list[bytes] = []
        ids: list[str] = []
        both = asyncio.Event()

        async def swapped(body: bytes) -> Reply:
            place = len(bodies)
            bodies.append(body)
            ids.append(json.loads(world.core.post("/veo/videos", json.loads(body)).body)["task_id"])
            if len(ids) == 2:
                both.set()
            await both.wait()
            return answer(200, {"task_id": ids[1 - place]})

        transport.submits += [swapped, swapped]
        jobs = veo.submit_many([("a", whale(1)), ("b", whale(2))])
        prompts = [world.core.tasks[(await job).task_id].body["prompt"] for job in jobs]
    assert (["whale 1", "whale 2"], 2) == (prompts, world.core.accepted)


@in_virtual_time
async def test_a_swapped_answer_is_given_back_after_a_restart(tmp_path: Path) -> None:
    """
    Two answers that were swapped, and the session ended before the first look: the next one sees it, too.
    """
    world, path = ten_seconds(), tmp_path / "batch.db"
    session, transport = scripted(world, journal=Journal(path, inline=True))
    bought = [
        json.loads(world.core.post("/veo/videos", json.loads(marked(n))).body)["task_id"] for n in (1, 2)
    ]
    async with session as veo:
        transport.submits += [answer(200, {"task_id": task_id}) for task_id in reversed(bought)]
        for number in (1, 2):
            await veo.submit(whale(number), key=f"k {number}").accepted()
    async with world.session(journal=Journal(path, inline=True)) as veo:
        assert bought == [(await job).task_id for job in await veo.resume()]
    assert 2 == world.core.accepted


def marked(number: int) -> str:
    """
    The body that another session sends for a key.
    """
    url = f"https://example.com/?{label(f'k {number}', 1)}"
    return json.dumps({"action": "text2video", "prompt": f"whale {number}", "callback_url": url})


@in_virtual_time
async def test_an_answer_that_was_meant_for_another_is_not_believed(options: Options) -> None:
    """
    An answer that names the task of a different request proves nothing: the job looks for a task of its own.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        first = veo.submit(whale(1))
        task_id = await first.accepted()

        async def late(body: bytes) -> Reply:
            headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
            world.core.handle("POST", "/veo/videos", headers, body)
            return answer(200, {"task_id": task_id})

        transport.submits.append(late)
        second = veo.submit(whale(2))
        prompts = [world.core.tasks[(await job).task_id].body["prompt"] for job in (first, second)]
    assert (["whale 1", "whale 2"], 2) == (prompts, world.core.accepted)


@in_virtual_time
async def test_a_task_of_a_settled_purchase_is_not_given_away(tmp_path: Path) -> None:
    """
    The journal knows whose it is: a later session's job that is answered with it says so.
    """
    world = ten_seconds()
    for life in range(2):
        session, transport = scripted(world, journal=Journal(tmp_path / "batch.db", inline=True))
        async with session as veo:
            if not life:
                task_id = (await veo.submit(whale())).task_id
                continue
            transport.submits.append(answer(200, {"task_id": task_id}))
            with pytest.raises(SubmissionUnknown) as caught:
                await veo.submit(whale())
            assert ((task_id,), 1) == (caught.value.candidates, transport.arrived)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_clock_ahead_of_the_records_does_not_buy_twice(options: Options) -> None:
    """
    Where `Date` is minutes ahead of `created_at`, what was bought is found, once a task has told by how much.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit", nth=[1, 3]))
    session, transport = scripted(world, **options())
    transport.ahead = 600.0
    async with session as veo:
        jobs = veo.submit_many(whales(3))
        prompts = [world.core.tasks[(await job).task_id].body["prompt"] for job in jobs]
    assert (["whale 0", "whale 1", "whale 2"], 3) == (prompts, world.core.accepted)


@pytest.mark.parametrize("ahead", [600.0, 16 * 3600.0, -30 * 86_400.0])
@in_virtual_time
async def test_a_lone_job_is_found_whatever_the_clocks_say(ahead: float) -> None:
    """
    With nothing to compare the clocks by, all is listed: the mark tells.
    """
    world = ten_seconds(Faults().add("drop_after", on="submit"))
    session, transport = scripted(world)
    transport.ahead = ahead
    async with session as veo:
        await veo.submit(whale())
    assert 1 == world.core.accepted


# --- abandoning ------------------------------------------------------------------------------------------


async def abandoned(job: Job) -> None:
    job.abandon()
    with pytest.raises(JobAbandoned):
        await job
    assert JobState.STOPPED is job.state


@in_virtual_time
async def test_an_abandoned_queued_job_is_withdrawn(options: Options) -> None:
    """
    A job that waits at the gate is never sent once it is abandoned, and its key is free.
    """
    world = ten_seconds()
    async with world.session(limits=Limits(max_in_flight=1), **options()) as veo:
        first = veo.submit(whale())
        await first.accepted()
        job = veo.submit(whale(1), key="k")
        await asyncio.sleep(1)
        await abandoned(job)
        await first
        await veo.submit(whale(2), key="k")
        await asyncio.sleep(100)
    assert ["whale 0", "whale 2"] == [task.body["prompt"] for task in world.core.tasks.values()]


@in_virtual_time
async def test_a_job_may_be_abandoned_at_once(options: Options) -> None:
    """
    A job that is abandoned in the turn of its submission is never sent.
    """
    world = ten_seconds()
    async with world.session(**options()) as veo:
        job = veo.submit(whale(1), key="k")
        await abandoned(job)
        await asyncio.sleep(100)
        assert 0 == world.core.requests["submit"]
        await veo.submit(whale(2), key="k")


@in_virtual_time
async def test_an_abandoned_job_on_its_way_may_be_taken_up(options: Options) -> None:
    """
    Abandoned while it is being sent: the key, used again, waits for the same answer and buys nothing more.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        await abandoned(job)
        with pytest.raises(KeyConflict):
            veo.submit(whale(1), key="k")
        again = veo.submit(whale(), key="k")
        assert JobState.SUBMITTING is again.state
        transport.open.set()
        await again
    assert 1 == world.core.accepted


async def reaches(job: Job, state: JobState) -> None:
    async for update in job.updates():
        if update.state is state:
            return


@in_virtual_time
async def test_the_task_of_an_abandoned_job_is_known_to_its_key(options: Options) -> None:
    """
    Abandoned while it is being sent, then accepted: the key takes that task up later.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        transport.open.clear()
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        await abandoned(job)
        transport.open.set()
        await asyncio.sleep(100)
        assert set(world.core.tasks) == {(await veo.submit(whale(), key="k")).task_id}
    assert 1 == world.core.accepted


@in_virtual_time
async def test_an_abandoned_unknown_job_may_be_taken_up(options: Options) -> None:
    """
    Abandoned while its outcome is unknown: the key, at once or later, gets the task that is found.
    """
    for wait in (0, 1000):
        world = ten_seconds(Faults().add("drop_after", on="submit", nth=[2]), seed=wait)
        async with world.session(**options()) as veo:
            await veo.submit(whale(99))
            job = veo.submit(whale(wait), key=f"k {wait}")
            await reaches(job, JobState.UNKNOWN)
            await abandoned(job)
            await asyncio.sleep(wait)
            await veo.submit(whale(wait), key=f"k {wait}")
        assert 2 == world.core.accepted


@pytest.mark.parametrize("when", [JobState.SUBMITTING, JobState.UNKNOWN])
@pytest.mark.parametrize(("fault", "bought"), [("stall_after", True), ("stall_before", False)])
@in_virtual_time
async def test_attaching_takes_an_abandoned_submit_up(
    options: Options, when: JobState, fault: str, bought: bool
) -> None:
    """
    The key of a job abandoned before its answer was lost is attached: it gets what was bought, and buys nothing.
    """
    world = ten_seconds(Faults().add(fault, on="submit", nth=[2]))
    async with world.session(**options()) as veo:
        await veo.submit(whale(1))
        job = veo.submit(whale(), key="k")
        await reaches(job, when)
        await abandoned(job)
        handle = veo.attach(key="k")
        async with asyncio.timeout(1000.0):
            assert (JobState.SUCCEEDED if bought else JobState.STOPPED) is await ended(handle)
        assert bought or isinstance(handle.exception(), TaskNotFound)
        assert 1 + bought == world.core.accepted
        await veo.submit(whale(), key="k")
    assert 2 == world.core.accepted


@pytest.mark.parametrize("when", [JobState.SUBMITTING, JobState.UNKNOWN])
@in_virtual_time
async def test_an_abandoned_job_that_is_never_found_is_remembered(options: Options, when: JobState) -> None:
    """
    Abandoned before its answer was lost, and looked for in vain: the key, used again, does not buy at once.
    """
    world = ten_seconds(Faults().add("stall_after", on="submit", nth=[2]), listing="empty")
    async with world.session(**options()) as veo:
        await veo.submit(whale(1))
        job = veo.submit(whale(), key="k")
        await reaches(job, when)
        await abandoned(job)
        await asyncio.sleep(1000)
        with pytest.raises(SubmissionUnknown):
            await veo.submit(whale(), key="k")
    assert 2 == world.core.accepted


@in_virtual_time
async def test_an_attempt_that_was_taken_up_is_counted(tmp_path: Path) -> None:
    """
    Abandoned on its way, taken up and then not accepted: the next attempt has the next number, also in the journal.
    """
    world = ten_seconds()
    session, transport = scripted(world, journal=Journal(tmp_path / "batch.db", inline=True))
    async with session as veo:
        transport.open.clear()
        transport.submits.append(answer(429, error("too_many_requests")))
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        await asyncio.sleep(1.0)  # its number is written down
        await abandoned(job)
        again = veo.submit(whale(), key="k")
        transport.open.set()
        task_id = (await again).task_id
    assert str(world.core.tasks[task_id].body["callback_url"]).endswith(label("k", 2))


@in_virtual_time
async def test_a_finished_answer_may_be_abandoned_while_it_is_written_down(tmp_path: Path) -> None:
    """
    Nothing is on its way any more: the key, used again at once, gets the outcome from the journal.
    """
    session, transport = scripted(ten_seconds(), journal=LateJournal(tmp_path / "batch.db", inline=True))
    async with session as veo:
        video = {"id": "v", "video_url": "https://example.com/v.mp4", "state": "succeeded"}
        transport.submits.append(answer(200, {"success": True, "task_id": "t", "data": [video]}))
        job = veo.submit(whale(), key="k")
        await job.accepted()
        await abandoned(job)
        async with asyncio.timeout(1000.0):
            assert "t" == (await veo.submit(whale(), key="k")).task_id
    assert 1 == transport.arrived


@in_virtual_time
async def test_attaching_outlasts_an_abandoned_look_for_the_same_key(tmp_path: Path) -> None:
    """
    A look is abandoned while it is written down, and its key is attached: the handle ends, as there is no task.
    """
    world = ten_seconds()
    async with world.session(journal=LateJournal(tmp_path / "batch.db", inline=True)) as veo:
        await veo.submit(whale(1))
        job = veo.submit(whale(), key="k", look_first=True)
        await asyncio.sleep(0.5)
        await abandoned(job)
        async with asyncio.timeout(1000.0):
            with pytest.raises(TaskNotFound):
                await veo.attach(key="k")


@in_virtual_time
async def test_an_abandoned_job_that_was_not_taken_up_is_not_sent_again(options: Options) -> None:
    """
    Abandoned while it is being sent, then refused for the moment: it does not go again.
    """
    world = ten_seconds()
    session, transport = scripted(world, **options())
    async with session as veo:
        transport.open.clear()
        transport.submits.append(answer(429, error("too_many_requests")))
        job = veo.submit(whale(), key="k")
        await reaches(job, JobState.SUBMITTING)
        await abandoned(job)
        transport.open.set()
        await asyncio.sleep(1000)
        assert 1 == transport.arrived
        await veo.submit(whale(2), key="k")  # the key is free
    assert 1 == world.core.accepted


@in_virtual_time
async def test_an_abandoned_job_frees_its_place() -> None:
    """
    Under `max_in_flight=1` an abandoned job makes room for the next one.
    """
    world = ten_seconds()
    world.core.next_durations.append(1e6)
    async with world.session(limits=Limits(max_in_flight=1)) as veo:
        stuck, other = veo.submit_many(whales(2))
        await stuck.accepted()
        stuck.abandon()
        await other


@in_virtual_time
async def test_a_known_key_outlives_the_disk_of_its_neighbour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Two keys are asked for together, one accepted by an earlier session, and the disk fails: that one delivers.
    """

    def full(*args: object) -> None:
        raise sqlite3.OperationalError("the disk is full")

    world, path = ten_seconds(), tmp_path / "batch.db"
    async with world.session(journal=Journal(path, inline=True)) as veo:
        task_id = await veo.submit(whale(1), key="known").accepted()
    with pytest.raises(JournalError, match="full"):  # noqa: PT012 - leaving raises
        async with world.session(journal=Journal(path, inline=True)) as veo:
            known, new = veo.submit_many([("known", whale(1)), ("new", whale(2))])
            monkeypatch.setattr(Store, "_write_together", full)
            states = [await ended(known), await ended(new)]
    assert [JobState.SUCCEEDED, JobState.STOPPED] == states
    assert (task_id, 1) == (known.task_id, world.core.accepted)


@in_virtual_time
async def test_abandoning_what_was_attached_withdraws_nothing(tmp_path: Path) -> None:
    """
    A handle for the key of a purchase is abandoned at once: the purchase stays in the journal, which goes on.
    """
    world = ten_seconds()
    async with world.session(journal=Journal(tmp_path / "batch.db", inline=True)) as veo:
        task_id = await (job := veo.submit(whale(1), key="k")).accepted()
        await abandoned(job)
        await abandoned(veo.attach(key="k"))
        assert task_id == (await veo.submit(whale(1), key="k")).task_id
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_look_may_be_abandoned_while_it_is_written_down(tmp_path: Path) -> None:
    """
    What is only looked for is not withdrawn as if it were only intended: the journal goes on, and the key is free.
    """
    world = ten_seconds()
    async with world.session(journal=LateJournal(tmp_path / "batch.db", inline=True)) as veo:
        await veo.submit(whale(1))
        job = veo.submit(whale(2), key="k", look_first=True)
        await asyncio.sleep(0.5)
        await abandoned(job)
        await asyncio.sleep(500.0)
        assert 1 == world.core.accepted
        await veo.submit(whale(3), key="k")


@in_virtual_time
async def test_abandoning_what_the_journal_knows_harms_nothing(tmp_path: Path) -> None:
    """
    A key that the journal has as accepted or settled is submitted and abandoned at once: its purchase stays.
    """
    world = ten_seconds()
    world.core.next_durations.extend([10.0, 500.0])
    path = tmp_path / "batch.db"
    async with world.session(journal=Journal(path, inline=True)) as veo:
        done, running = veo.submit(whale(1), key="done"), veo.submit(whale(2), key="running")
        await asyncio.gather(done, running.accepted())
    async with world.session(journal=Journal(path, inline=True)) as veo:
        for key, request in (("done", whale(1)), ("running", whale(2))):
            await abandoned(veo.submit(request, key=key))
        await asyncio.sleep(1)
        assert done.task_id == (await veo.submit(whale(1), key="done")).task_id
        assert running.task_id == (await veo.submit(whale(2), key="running")).task_id
        await veo.submit(whale(3))
    assert 3 == world.core.accepted


# --- what goes out ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_every_submit_is_asynchronous_and_names_its_model() -> None:
    """
    What leaves says `async: true` and a model, so that no default of the server's can surprise anybody.
    """
    world = ten_seconds()
    async with world.session() as veo:
        await veo.submit(whale())
        result = await veo.ingredients_to_video(["https://example.com/a.png"])
        await veo.get_1080p(result.video)
    bodies = [task.body for task in world.core.tasks.values()]
    assert [True] * 3 == [body["async"] for body in bodies]
    assert ["veo31-fast", "veo31-fast-ingredients"] == [body["model"] for body in bodies[:2]]


SUGAR: list[tuple[str, Callable[[VeoSession, Any], Awaitable[Any]]]] = [
    ("/veo/videos", lambda veo, video: veo.text_to_video("p", aspect_ratio="9:16")),
    ("/veo/videos", lambda veo, video: veo.image_to_video("p", ["https://example.com/a.png"])),
    ("/veo/videos", lambda veo, video: veo.ingredients_to_video(["https://example.com/a.png"], "p")),
    ("/veo/videos", lambda veo, video: veo.get_1080p(video)),
    ("/veo/upsample", lambda veo, video: veo.upsample(video, "4k")),
    ("/veo/extend", lambda veo, video: veo.extend(video, "on")),
    ("/veo/reshoot", lambda veo, video: veo.reshoot(video.id, "UP")),
    ("/veo/objects", lambda veo, video: veo.insert_object(video, "a hat")),
    ("/veo/objects", lambda veo, video: veo.remove_object(video, "https://example.com/mask.jpg")),
]


@pytest.mark.parametrize("number", range(len(SUGAR)))
@in_virtual_time
async def test_every_kind_of_request_becomes_a_video(number: int) -> None:
    """
    Each method of the session submits its kind, to its endpoint, and the job becomes a video.
    """
    path, submit = SUGAR[number]
    world = ten_seconds()
    async with world.session() as veo:
        source = await veo.submit(whale())
        result = await submit(veo, source.video)
        assert path == world.core.tasks[result.task_id].path
        assert result.video.url


@in_virtual_time
async def test_no_task_per_job() -> None:
    """
    A thousand jobs in the queue and at the server do not mean a thousand coroutines.
    """
    world = World(Settings())
    async with world.session() as veo:
        jobs = veo.submit_many(whales(1000))
        most = 0
        for _ in range(200):
            await asyncio.sleep(1)
            most = max(most, len(asyncio.all_tasks()))
        await asyncio.gather(*(ended(job) for job in jobs))
        assert most < 110


@in_virtual_time
async def test_slow_submits_do_not_hold_up_polls() -> None:
    """
    While as many submits as there are connections hang, finished tasks are still noticed.
    """
    world = ten_seconds()
    session, transport = scripted(world, limits=Limits(connections=8))
    assert isinstance(transport, ScriptedTransport)
    async with session as veo:
        first = veo.submit(whale())
        await first.accepted()
        transport.open.clear()
        jobs = veo.submit_many(TextToVideo(f"slow {n}") for n in range(50))
        async with asyncio.timeout(60):
            await first
        assert 1 + 6 == transport.arrived
        transport.open.set()
        await asyncio.gather(*jobs)


@in_virtual_time
async def test_settled_keys_are_answered_one_after_the_other(tmp_path: Path) -> None:
    """
    Keys whose outcomes the journal holds are asked for one by one, each as soon as the last one answered.
    """
    world = ten_seconds()
    for _ in range(2):
        async with world.session(journal=Journal(tmp_path / "batch.db", inline=True)) as veo:
            for number in range(5):
                assert f"key {number}" == (await done(veo.submit(whale(number), key=f"key {number}"))).key
    assert 5 == world.core.accepted


async def done(job: Job) -> Job:
    await job
    return job


PROBES: list[tuple[Any, bool]] = [
    (answer(500, b"down"), False),
    (answer(503, b"down", retry_after="20"), False),
    (answer(429, b"slow down", retry_after="20"), False),
    (ConnectionFailed("reset"), False),
    (ProtocolError("cut off"), False),
    (answer(200, b"<html>"), False),
    (answer(200, {"items": []}), True),
    (answer(400, b"what?"), True),
    (answer(403, error("forbidden")), True),
]


@pytest.mark.parametrize(("said", "back"), PROBES)
@in_virtual_time
async def test_after_an_outage_a_free_question_goes_first(said: Any, *, back: bool) -> None:
    """
    While the lane is closed by an outage no submit leaves before a free question was answered, in whatever words.
    """
    world = ten_seconds()
    world.core.down_until = EPOCH + 0.5
    session, transport = scripted(world)
    asked_at: list[float] = []

    async def probed(body: bytes) -> Reply:
        asked_at.append(asyncio.get_running_loop().time())
        assert 1 == transport.arrived, "the submit that found the server away"
        if isinstance(said, Reply):
            return said
        raise said

    async with session as veo:
        transport.asks.append(probed)
        await veo.submit(whale())
    (task,) = world.core.tasks.values()
    waited = task.created_at - EPOCH - asked_at[0]
    assert (waited < 0.1) is back
    if isinstance(said, Reply) and "retry-after" in said.headers:
        assert waited >= 20


@in_virtual_time
async def test_a_silent_probe_does_not_outlast_patience() -> None:
    """
    While the free question is not answered, waiting at the gate still ends in time.
    """
    world = ten_seconds()
    world.core.down_until = EPOCH + 0.5
    session, transport = scripted(world, limits=Limits(max_queue_wait=30.0))

    async def silent(body: bytes) -> Reply:
        await asyncio.sleep(10_000)
        raise AssertionError

    async with session as veo:
        transport.asks.append(silent)
        assert isinstance((await settled(veo.submit(whale()))).exception(), SubmitTimedOut)
        assert 30 == pytest.approx(asyncio.get_running_loop().time(), abs=0.1)
    assert 0 == world.core.accepted


async def settled(job: Job) -> Job:
    await ended(job)
    return job

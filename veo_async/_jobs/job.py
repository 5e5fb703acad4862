"""
`Job`: the local, awaitable handle of one request, from `submit` to its outcome.

A future is made only when somebody waits, one per awaiter, and only wakes its awaiter up.
So cancelling one affects no other, and an exception that nobody retrieves causes no warning.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from contextvars import Context, copy_context
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from attrs import define, field, frozen

from .._api.records import VideoResult
from .._api.requests import Request
from .._api.to_json import plain
from ..errors import UsageError, VeoError

__all__ = ["Job", "JobOwner", "JobState", "JobUpdate", "advance", "as_completed", "looked", "settle", "stop"]


class JobState(StrEnum):
    """
    Where a job stands.

        if job.state is JobState.SUCCEEDED:
            print(job.result().video.url)
    """

    QUEUED = "queued"  # not sent yet, or to be sent again
    SUBMITTING = "submitting"  # being sent
    UNKNOWN = "unknown"  # sent, but it is not known yet whether it was accepted
    PENDING = "pending"  # accepted: the server has a task
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"  # settled without a terminal record: see `exception()`


REGISTERED_AT_ONCE: Final = 1000  # jobs; a hundred thousand at once would block the event loop
_SETTLED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})

# Which states may follow which; any other change is a programming error.
_NEXT: Final = {
    JobState.QUEUED: _SETTLED | {JobState.SUBMITTING, JobState.UNKNOWN, JobState.PENDING},
    JobState.SUBMITTING: _SETTLED | {JobState.QUEUED, JobState.UNKNOWN, JobState.PENDING},
    JobState.UNKNOWN: _SETTLED | {JobState.QUEUED, JobState.PENDING},
    JobState.PENDING: _SETTLED | {JobState.UNKNOWN},  # a record has shown that the task is another job's
    JobState.SUCCEEDED: frozenset[JobState](),
    JobState.FAILED: frozenset[JobState](),
    JobState.STOPPED: frozenset[JobState](),
}
_STEPS: Final = {state: following - _SETTLED for state, following in _NEXT.items()}


@frozen(kw_only=True)
class JobUpdate:
    """
    One step of a job.

        async for update in job.updates():
            print(update.at, update.state, update.looks)

    Attributes:
        state: where the job stands.
        at: when it got there, or was last looked at; an aware datetime in UTC.
        task_id: the server's id of the task, once it is known.
        looks: how many times the server was asked about it.
        expected_at: when four in five tasks of its kind have ended, as far as the session knows; an aware datetime
            in UTC, in the past for a task that is late. None while the task is not pending, or if this session did
            not see it begin.
    """

    state: JobState
    at: datetime
    task_id: str | None
    looks: int
    expected_at: datetime | None = field(default=None, eq=False)  # a better estimate is not a step

    def to_dict(self) -> dict[str, Any]:
        """
        Return the update as plain values, ready for JSON, with times in ISO 8601.

            async for update in job.updates():
                print(json.dumps(update.to_dict()))
        """
        told: dict[str, Any] = plain(self)
        return told


class _ResultOnly(property):
    """
    An attribute that only the result has; reading it on a job raises an error that says so.
    """

    def __init__(self, name: str) -> None:
        def missing(job: Job) -> NoReturn:
            words = f"a job has no {name!r}: the result has it, (await job).{name}"
            raise AttributeError(words, name=name, obj=job)

        super().__init__(missing, doc=f"Not on a job: the result has it, `(await job).{name}`.")


class JobOwner(Protocol):
    """
    What a job needs from the session that made it.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """
        The event loop of the session.
        """
        ...

    def moved(self, job: Job, before: JobState) -> None:
        """
        Take note that a job has changed its state.
        """
        ...

    def abandon(self, job: Job) -> None:
        """
        Stop waiting for a job.
        """
        ...

    def expected_at(self, task_id: str) -> datetime | None:
        """
        Return when a pending task will probably have ended; None if that is not known.
        """
        ...


@define(eq=False, repr=False)
class Job:
    """
    One request for a video; awaiting it returns a `VideoResult`.

    Made by `VeoSession`, never by hand.
    Any number of coroutines may await the same job; cancelling one of them does not affect it.

        job = veo.text_to_video("a whale")
        print(await job.accepted())  # the id of the task, which is paid for
        result = await job

    Attributes:
        key: the idempotency key: the caller's, or a generated one.
        request: what was asked for; None for a task that was attached by its id.
        task_id: the server's id of the task, or None until it is accepted.
        trace_id: the id that the vendor's support asks for, or None.
        state: where the job stands.
        timeout: its deadline in seconds after acceptance; None leaves it to `PollPolicy.deadline`.
        keyed: whether the caller chose the key.
        attempts: how often this key was sent, as far as is known.
        first_attempt: the number of this purchase's first attempt; above 1 if earlier purchases of the key failed.
    """

    key: str
    request: Request | None
    _owner: JobOwner
    timeout: float | None = field(default=None)
    keyed: bool = field(default=False)
    attempts: int = field(init=False, default=0)
    first_attempt: int = field(init=False, default=1)
    task_id: str | None = field(init=False, default=None)
    trace_id: str | None = field(init=False, default=None)
    state: JobState = field(init=False, default=JobState.QUEUED)
    _looks: int = field(init=False, default=0)
    _changed_at: float = field(init=False, factory=time.time)
    _outcome: VideoResult | VeoError | None = field(init=False, default=None)
    _awaiters: list[asyncio.Future[None]] | None = field(init=False, default=None)
    _watchers: list[asyncio.Future[None]] | None = field(init=False, default=None)
    _callbacks: list[tuple[Callable[[Job], object], Context]] | None = field(init=False, default=None)

    if not TYPE_CHECKING:  # a type checker would accept them
        # Not with `__getattr__`, which slows every attribute down.
        video, videos, raw = map(_ResultOnly, ("video", "videos", "raw"))

    def __dir__(self) -> Iterable[str]:
        here = type(self)
        return [name for name in super().__dir__() if not isinstance(getattr(here, name, None), _ResultOnly)]

    def __repr__(self) -> str:
        return f"<Job {self.key} {self.state.value} task_id={self.task_id}>"

    def __await__(self) -> Generator[Any, None, VideoResult]:
        if not self.done():
            self._awaiters = self._waiting(self._awaiters)
            yield from self._awaiters[-1]
        return self.result()

    def done(self) -> bool:
        """
        Tell whether the job is settled.

            if not job.done():
                print("still", job.state)
        """
        return self._outcome is not None

    def result(self) -> VideoResult:
        """
        Return the result, or raise the exception, of a settled job.

            if job.done() and not job.exception():
                print(job.result().video.url)

        Raises:
            asyncio.InvalidStateError: it is not settled yet.
            VeoError: it ended without a result.
        """
        outcome = self._settled_outcome()
        if isinstance(outcome, VeoError):
            # Drop the frames of earlier raises, which would pile up.
            raise outcome.with_traceback(None)
        return outcome

    def exception(self) -> VeoError | None:
        """
        Return the exception of a settled job; None if it has a result.

            async for job in veo.as_completed([veo.text_to_video("a whale")]):
                print(job.exception() or job.result().video.url)

        Raises:
            asyncio.InvalidStateError: it is not settled yet.
        """
        outcome = self._settled_outcome()
        return outcome if isinstance(outcome, VeoError) else None

    def add_done_callback(self, callback: Callable[[Job], object], *, context: Context | None = None) -> None:
        """
        Have the event loop call `callback(job)` soon after the job settles, or soon if it is settled already.

            job.add_done_callback(lambda job: print(job.key, "is", job.state))
        """
        context = context or copy_context()
        if self.done():
            self._owner.loop.call_soon(callback, self, context=context)
        elif self._callbacks is None:
            self._callbacks = [(callback, context)]
        else:
            self._callbacks.append((callback, context))

    async def accepted(self) -> str:
        """
        Wait until the server has accepted the task; returns its id.

            task_id = await veo.text_to_video("a whale").accepted()

        Raises:
            VeoError: the job settled before it was accepted.
        """
        while self.task_id is None:
            if isinstance(self._outcome, VeoError):
                raise self._outcome.with_traceback(None)
            await self._change()
        return self.task_id

    async def updates(self) -> AsyncGenerator[JobUpdate, None]:
        """
        Yield the current update, then one for each change of state and each poll.

        A slow reader misses updates, but always gets the latest. The last update is the one that settles the job.

            async for update in veo.text_to_video("a whale").updates():
                print(update.state, update.task_id)
        """
        update = self._update()
        yield update
        while update.state not in _SETTLED:
            while (latest := self._update()) == update:
                await self._change()
            update = latest
            yield update

    def abandon(self) -> None:
        """
        Stop waiting for the job; its awaiters get `JobAbandoned`.

        A queued job is withdrawn. One that is being sent, or accepted, goes on at the server, which may bill it:
        the API cannot cancel a task. Its id still gets into the journal.

            job = veo.text_to_video("a whale")
            job.abandon()
        """
        self._owner.abandon(self)

    def _settled_outcome(self) -> VideoResult | VeoError:
        if self._outcome is None:
            raise asyncio.InvalidStateError(f"{self!r} is not settled yet")
        return self._outcome

    def _update(self) -> JobUpdate:
        return JobUpdate(
            state=self.state,
            at=datetime.fromtimestamp(self._changed_at, UTC),
            task_id=self.task_id,
            looks=self._looks,
            # Computed only when somebody reads updates, so that a poll costs nothing more.
            expected_at=None
            if self.task_id is None or self.done()
            else self._owner.expected_at(self.task_id),
        )

    async def _change(self) -> None:
        self._watchers = self._waiting(self._watchers)
        await self._watchers[-1]

    def _waiting(self, futures: list[asyncio.Future[None]] | None) -> list[asyncio.Future[None]]:
        if asyncio.get_running_loop() is not self._owner.loop:
            raise UsageError(
                "a job can only be awaited in the event loop in which its session was entered",
                key=self.key,
            )
        waiting = [] if futures is None else futures
        # Only at powers of two: done each time, it would take seconds for ten thousand awaiters.
        if len(waiting) & (len(waiting) - 1) == 0:
            waiting = [future for future in waiting if not future.done()]
        waiting.append(self._owner.loop.create_future())
        return waiting


# --- what the session does to a job ------------------------------------------------------------------------


def advance(job: Job, state: JobState, *, task_id: str | None = None, trace_id: str | None = None) -> None:
    """
    Move an unsettled job to its next state, and wake the readers of its updates.
    """
    before = job.state
    if state not in _STEPS[before]:
        raise AssertionError(f"{job!r} cannot become {state.value}")
    job.state = state
    job.task_id = task_id or job.task_id
    job.trace_id = trace_id or job.trace_id
    job._owner.moved(job, before)
    _changed(job, time.time())


def looked(jobs: Iterable[Job], at: float) -> None:
    """
    Count one poll of each job's task, at this time in Unix seconds.
    """
    for job in jobs:  # a hot loop: it runs for every poll of every task
        job._looks += 1
        job._changed_at = at
        if job._watchers is not None:
            _wake_watchers(job)


def settle(job: Job, state: JobState, outcome: VideoResult | VeoError) -> None:
    """
    Give a job its final outcome, and wake everybody who waits for it.
    """
    before = job.state
    if state not in _NEXT[before] or state not in _SETTLED:
        raise AssertionError(f"{job!r} cannot settle as {state.value}")
    if isinstance(outcome, VeoError):
        outcome.key, outcome.task_id = job.key, outcome.task_id or job.task_id
    job.state, job._outcome = state, outcome
    job._owner.moved(job, before)
    _changed(job, time.time())
    awaiters, job._awaiters = job._awaiters, None
    _wake(awaiters)
    callbacks, job._callbacks = job._callbacks, None
    for callback, context in callbacks or ():
        job._owner.loop.call_soon(callback, job, context=context)


def stop(job: Job, error: VeoError) -> None:
    """
    Settle a job without a terminal record, unless it is settled already.
    """
    if not job.done():
        settle(job, JobState.STOPPED, error)


def _changed(job: Job, at: float) -> None:
    job._changed_at = at
    if job._watchers is not None:
        _wake_watchers(job)


def _wake_watchers(job: Job) -> None:
    watchers, job._watchers = job._watchers, None
    _wake(watchers)


def _wake(futures: list[asyncio.Future[None]] | None) -> None:
    for future in futures or ():
        if not future.done():
            future.set_result(None)


async def as_completed(jobs: Iterable[Job]) -> AsyncGenerator[Job, None]:
    """
    Yield each job as it settles; a failed one is yielded, not raised.
    """
    settled: deque[Job] = deque()
    arrival = asyncio.Event()

    def arrived(job: Job) -> None:
        settled.append(job)
        arrival.set()

    left = 0
    for job in dict.fromkeys(jobs):
        left += 1
        job.add_done_callback(arrived)
        if left % REGISTERED_AT_ONCE == 0:
            await asyncio.sleep(0)
    while left:
        while settled:
            left -= 1
            yield settled.popleft()
        arrival.clear()
        if left:
            await arrival.wait()

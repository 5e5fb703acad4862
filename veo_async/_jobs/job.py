"""
`Job`: the local, awaitable handle of one request, from `submit` to its outcome.

Futures are made only when somebody waits, one per awaiter, and carry nothing but a wake-up:
cancelling one harms nobody else, and an exception that nobody fetches stays silent.
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
    """

    QUEUED = "queued"  # not sent yet, or to be sent again
    SUBMITTING = "submitting"  # on its way
    UNKNOWN = "unknown"  # sent, and nobody knows yet whether it was accepted
    PENDING = "pending"  # accepted: a task at the server
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"  # settled without a terminal record: see `exception()`


REGISTERED_AT_ONCE: Final = 1000  # jobs; a hundred thousand in one go would hold the event loop
_SETTLED: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})

# What may follow what; a missing entry is a programming error.
_NEXT: Final = {
    JobState.QUEUED: _SETTLED | {JobState.SUBMITTING, JobState.UNKNOWN, JobState.PENDING},
    JobState.SUBMITTING: _SETTLED | {JobState.QUEUED, JobState.UNKNOWN, JobState.PENDING},
    JobState.UNKNOWN: _SETTLED | {JobState.QUEUED, JobState.PENDING},
    JobState.PENDING: _SETTLED | {JobState.UNKNOWN},  # its record has shown that the task is another's
    JobState.SUCCEEDED: frozenset[JobState](),
    JobState.FAILED: frozenset[JobState](),
    JobState.STOPPED: frozenset[JobState](),
}
_STEPS: Final = {state: following - _SETTLED for state, following in _NEXT.items()}


@frozen(kw_only=True)
class JobUpdate:
    """
    One step of a job.

    Attributes:
        state: where the job stands.
        at: when it got there, or was last looked at; an aware datetime in UTC.
        task_id: the server's id of the task, once it is known.
        looks: how many times the server was asked about it.
        expected_at: when four in five tasks of that kind have ended, as far as the session knows; an aware datetime
            in UTC, and in the past for a task that is late. None while the task is not pending, or where nobody here
            saw it begin.
    """

    state: JobState
    at: datetime
    task_id: str | None
    looks: int
    expected_at: datetime | None = field(default=None, eq=False)  # what is learned meanwhile is no step

    def to_dict(self) -> dict[str, Any]:
        """
        Give the update as plain values, ready for JSON, with times in ISO 8601.
        """
        told: dict[str, Any] = plain(self)
        return told


class _OfTheResult(property):
    """
    An attribute that a job lacks, and whose absence says where to look.
    """

    def __init__(self, name: str) -> None:
        def missing(job: Job) -> NoReturn:
            words = f"a job has no {name!r}: the result has it, (await job).{name}"
            raise AttributeError(words, name=name, obj=job)

        super().__init__(missing, doc=f"Not here: the result has it, `(await job).{name}`.")


class JobOwner(Protocol):
    """
    What a job needs of the session that made it.
    """

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """
        The event loop that everything happens in.
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
        Say when a pending task will probably have ended, where that is known.
        """
        ...


@define(eq=False, repr=False)
class Job:
    """
    One request on its way to a video; awaiting it gives a `VideoResult`.

    Made by `VeoSession`, never by hand.
    Any number of coroutines may await the same job, and any of them may be cancelled without harm to it.

    Attributes:
        key: the idempotency key: the caller's, or one made up.
        request: what was asked for; None for a task that was attached by its id.
        task_id: the server's id of the task, or None until it is accepted.
        trace_id: what the vendor's support asks for, or None.
        state: where the job stands.
        timeout: its deadline in seconds after acceptance; None leaves it to `PollPolicy.deadline`.
        keyed: whether the key is the caller's.
        attempts: how often this key was sent, as far as is known.
        first_attempt: the number of the first attempt of this purchase: a key whose task failed may be bought again.
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

    if not TYPE_CHECKING:  # a type checker would believe that they are there
        # Not by `__getattr__`, which slows every attribute down.
        video, videos, raw = map(_OfTheResult, ("video", "videos", "raw"))

    def __dir__(self) -> Iterable[str]:
        here = type(self)
        return [name for name in super().__dir__() if not isinstance(getattr(here, name, None), _OfTheResult)]

    def __repr__(self) -> str:
        return f"<Job {self.key} {self.state.value} task_id={self.task_id}>"

    def __await__(self) -> Generator[Any, None, VideoResult]:
        if not self.done():
            self._awaiters = self._waiting(self._awaiters)
            yield from self._awaiters[-1]
        return self.result()

    def done(self) -> bool:
        """
        Tell whether the job has its outcome.
        """
        return self._outcome is not None

    def result(self) -> VideoResult:
        """
        Give the result, or raise the exception, of a settled job.

        Raises:
            asyncio.InvalidStateError: it is not settled yet.
            VeoError: how it ended instead.
        """
        outcome = self._settled_outcome()
        if isinstance(outcome, VeoError):
            # Without the frames of those who raised it before, which would pile up.
            raise outcome.with_traceback(None)
        return outcome

    def exception(self) -> VeoError | None:
        """
        Give the exception of a settled job; None where it has a result.

        Raises:
            asyncio.InvalidStateError: it is not settled yet.
        """
        outcome = self._settled_outcome()
        return outcome if isinstance(outcome, VeoError) else None

    def add_done_callback(self, callback: Callable[[Job], object], *, context: Context | None = None) -> None:
        """
        Have `callback(job)` called by the event loop soon after the job settles, or soon if it has.
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
        Wait until the server has the task; gives its id.

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
        Follow the job: the current update first, then each change and each look.

        Who is slow misses what lies between: the latest wins. It ends after the update that settles the job.
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
        Stop waiting for the job here; its awaiters get `JobAbandoned`.

        A queued job is withdrawn. One that is on its way, or accepted, goes on at the server, which may bill it:
        the API has no way to call it back. Its id still gets into the journal.
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
            # Worked out here, where somebody watches: a look costs nothing more.
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
                "a job is awaited in the event loop in which its session was entered, and no other",
                key=self.key,
            )
        waiting = [] if futures is None else futures
        if (
            len(waiting) & (len(waiting) - 1) == 0
        ):  # at powers of two: each time, ten thousand would take seconds
            waiting = [future for future in waiting if not future.done()]
        waiting.append(self._owner.loop.create_future())
        return waiting


# --- what the session does to a job ------------------------------------------------------------------------


def advance(job: Job, state: JobState, *, task_id: str | None = None, trace_id: str | None = None) -> None:
    """
    Move an unsettled job on; who watches it is woken.
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
    Count a look of the tracker at each job's task, at this Unix time.
    """
    for job in jobs:  # every look at every task comes by here
        job._looks += 1
        job._changed_at = at
        if job._watchers is not None:
            _wake_watchers(job)


def settle(job: Job, state: JobState, outcome: VideoResult | VeoError) -> None:
    """
    Give a job its outcome, once and for all, and wake everybody who waits.
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
    Settle a job, unless it is settled, without a terminal record.
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
    Yield each job once it is settled, in the order in which they settle; a failed one is yielded, never raised.
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

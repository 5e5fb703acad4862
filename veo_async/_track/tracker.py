"""
One long-lived coroutine that watches all tasks.

It gets from the schedule which tasks are due, and when. It sleeps until then, enters the gate of the poll lane, polls
the API, and passes the outcomes to the session.
It holds no jobs: it knows tasks by their ids, and outcomes leave through `settle`.

Each poll runs in its own asyncio task, so that a slow answer delays no other task. The tasks of a slow answer are
polled again while it is awaited. The number of polls at once is bounded.
`_poll` shows how a poll may end, and what follows. A failed poll never ends a job. Only the server's record, the
deadline, an id that is unknown for long, or a dead token do.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final

from attrs import Factory, define, field

from .._api.replies import is_dead_token
from .._api.tasks import batch_states, read_items, task_id_of
from .._http.client import Http
from .._http.limiter import Limiter, sleep
from .._http.task_listing import batch_query, record_or_none
from ..errors import (
    ApiError,
    BadRequest,
    JobError,
    JobTimedOut,
    JobVanished,
    ProtocolError,
    RateLimited,
    ServerError,
    TrackingLost,
    UsageError,
    VeoError,
)
from ..events import Looked, LookFailed, Looking, LookRefused
from .schedule import Schedule

__all__ = ["Outcome", "Tracker"]

MAX_POLLS: Final = 16  # at once; enough for ten polls a second, even if each answer takes a second
LATE: Final = 3.0  # times the usual duration; a later answer is not waited for
NEWEST_WEIGHT: Final = 0.25  # of the newest answer in the usual duration
DEAD_PROBES: Final = 3  # in a row; a gateway with a short fault may answer 401 once or twice

Outcome = Mapping[str, Any] | JobError


@define(eq=False)
class Tracker:
    """
    Watches tasks until each has its outcome.

    Attributes:
        schedule: tells which tasks are due, and when.
        settle: called with terminal records and errors, by task id.
        looked: called after each answer with the polled ids and the records.
        dead_after: for how many seconds the server must refuse the token before tracking stops.
    """

    schedule: Schedule
    http: Http
    settle: Callable[[Sequence[tuple[str, Outcome]]], Awaitable[None]]
    looked: Callable[[Sequence[str], Sequence[object]], Awaitable[None]]
    dead_after: float
    limiter: Limiter = field(init=False, default=Factory(lambda self: self.http.polls, takes_self=True))
    _polls: set[asyncio.Task[None]] = field(init=False, factory=set)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _sleeps_until: float = field(init=False, default=-math.inf)  # -inf while it is awake
    _gate_timeout: asyncio.Timeout | None = field(init=False, default=None)
    _failure: BaseException | None = field(init=False, default=None)
    _has_told_of_refusal: bool = field(init=False, default=False)
    _usual_seconds: float = field(init=False, default=0.0)  # until an answer comes
    _polled_twice: set[str] = field(init=False, factory=set)  # alone, and again while that answer is late
    _linkless: set[str] = field(init=False, factory=set)  # succeeded, but without a usable link
    _dead_probes: int = field(init=False, default=0)
    _dead_since: float = field(init=False, default=0.0)

    def watch(
        self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None, found: bool = False
    ) -> None:
        """
        Watch a task from now on. A found task may have ended long ago, so it is polled at once.
        """
        due_at = self.schedule.add(
            task_id, kind=kind, started_at=started_at, deadline_at=deadline_at, found=found
        )
        if found:
            self.schedule.nudge(task_id, started_at)
        if found or due_at < self._sleeps_until:
            self._wake_in_time()

    def forget(self, task_id: str) -> None:
        """
        Stop watching a task.
        """
        self.schedule.discard(task_id)

    def nudge(self, task_id: str) -> None:
        """
        Poll a task at once: it has probably ended.
        """
        self.schedule.nudge(task_id, self.limiter.now())
        self._wake_in_time()

    def hint(self, task_id: str, window: float) -> None:
        """
        Poll a task within `window` seconds, together with others: a callback says that it has ended.
        """
        if self.schedule.hint(task_id, self.limiter.now(), window=window):
            self._wake_in_time()

    async def run(self) -> None:
        """
        Watch until cancelled, or until a poll raises an unexpected error.
        """
        try:
            while self._failure is None:
                await self._step()
            raise self._failure
        finally:
            polls = list(self._polls)
            for poll in polls:
                poll.cancel()
            await asyncio.gather(*polls, return_exceptions=True)

    async def _step(self) -> None:
        """
        Do one thing that is due now, or sleep until something is due.
        """
        now = self.limiter.now()
        await self._end_overdue(now)
        due_at = self.schedule.next_due_at()
        if len(self._polls) >= MAX_POLLS:
            await self._sleep(self.schedule.next_deadline_at())  # or until a poll ends
            return
        if due_at is None or due_at > now:
            await self._sleep(due_at)
            return
        entered_at = await self._enter()
        if entered_at is None:
            return
        batch = self.schedule.take_batch(entered_at)
        if batch:
            self._begin(batch, entered_at)
        else:
            self.limiter.gate.withdrawn(entered_at, sent_at=entered_at)
            self.limiter.changed()

    async def _sleep(self, until: float | None) -> None:
        self._sleeps_until = math.inf if until is None else until
        await sleep(self._woken, until=until)
        self._sleeps_until = -math.inf

    def _wake_in_time(self) -> None:
        """
        Wake up if something is due before the sleep ends. Most new tasks are due later, and need no wake-up.
        """
        due_at = self.schedule.next_due_at()
        if due_at is not None and due_at < self._sleeps_until:
            self._woken.set()
        if self._gate_timeout is not None and not self._gate_timeout.expired():
            self._gate_timeout.reschedule(
                self.limiter.now() if self._failure else self.schedule.next_deadline_at()
            )

    async def _enter(self) -> float | None:
        """
        Enter the gate; None if a deadline comes first, even one that is added during the wait.
        """
        if (entered_at := self.limiter.try_enter()) is not None:
            return entered_at
        self._sleeps_until = math.inf
        try:
            async with asyncio.timeout_at(self.schedule.next_deadline_at()) as self._gate_timeout:
                return await self.limiter.enter()
        except TimeoutError:
            return None
        finally:
            self._sleeps_until, self._gate_timeout = -math.inf, None

    async def _end_overdue(self, now: float) -> None:
        late = [(task_id, self._timed_out(task_id)) for task_id in self.schedule.overdue(now)]
        words = "the server no longer knows the task"
        gone = [(task_id, JobVanished(words, task_id=task_id)) for task_id in self.schedule.vanished(now)]
        if late or gone:
            self._linkless.difference_update(task_id for task_id, _ in (*late, *gone))
            await self._end([*late, *gone])

    def _timed_out(self, task_id: str) -> JobTimedOut:
        words = "past the deadline; the task goes on: attach() waits anew, and its key or resume() looks once more"
        if task_id in self._linkless:
            words = (
                "past the deadline: the task succeeded and is billed, but has no usable link yet;"
                " its key, resume() or attach() looks for one again"
            )
        return JobTimedOut(words, task_id=task_id)

    def _begin(self, batch: list[str], entered_at: float) -> None:
        poll = asyncio.create_task(self._poll(batch, entered_at), name="veo_async poll")
        self._polls.add(poll)
        poll.add_done_callback(self._finished)

    def _finished(self, poll: asyncio.Task[None]) -> None:
        if len(self._polls) >= MAX_POLLS:  # this one makes room
            self._woken.set()
        self._polls.discard(poll)
        if not poll.cancelled() and poll.exception() is not None:
            self._failure = poll.exception()
            self._woken.set()
        self._wake_in_time()

    async def _poll(self, batch: list[str], entered_at: float) -> None:
        waiting = list(batch)  # the tasks that wait for the answer; none once it is late
        task_ids, tell = tuple(batch), self.http.observers.tell
        tell(Looking, task_ids=task_ids)
        try:
            records = await self._ask(batch, entered_at, waiting)
        except UsageError:
            raise  # the caller closed the aiohttp session: no poll can work any more
        except asyncio.CancelledError:
            # This is not always the end of `run`: code in the caller's session may cancel as well.
            self.schedule.unanswered(waiting, self.limiter.now())
            raise
        except VeoError as error:
            tell(LookFailed, task_ids=task_ids, error=type(error).__name__, reason=str(error))
            if waiting:
                self._report(waiting, error)
            if is_dead_token(error):
                await self._count_dead_token(error, entered_at)
        else:
            self._dead_probes = 0
            seconds = self.limiter.now() - entered_at
            self._usual_seconds += NEWEST_WEIGHT * (seconds - self._usual_seconds)
            tell(Looked, task_ids=task_ids, seconds=seconds)
            self.schedule.answered(len(batch))
            await self._learn(batch, records, is_late=not waiting)

    async def _ask(self, batch: list[str], entered_at: float, waiting: list[str]) -> Sequence[object]:
        patience = max(self.schedule.slow_after, LATE * self._usual_seconds)
        timer = asyncio.get_running_loop().call_at(entered_at + patience, self._poll_again, waiting)
        try:
            return await _query(self.http, batch, entered_at=entered_at)
        finally:
            timer.cancel()
            if not waiting:
                self._polled_twice.difference_update(batch)

    def _poll_again(self, waiting: list[str]) -> None:
        """
        Poll again the tasks whose answer is late; a task that is polled alone, only once more.
        """
        now, gate = self.limiter.now(), self.limiter.gate
        if gate.opens_at(now) is None:  # nothing else may go, so halves would not help
            gate.overdue(now)
            self.limiter.changed()
            self.schedule.unanswered(waiting, now)
        elif len(waiting) > 1:
            self.schedule.answer_late(waiting, now)
        elif self._polled_twice.isdisjoint(waiting):
            self._polled_twice.update(waiting)
            self.schedule.unreadable(waiting, now)
        else:
            return
        waiting.clear()
        self._wake_in_time()

    def _report(self, batch: list[str], error: VeoError) -> None:
        """
        Tell the schedule what a failed poll means for its tasks.
        """
        now = self.limiter.now()
        if isinstance(error, BadRequest):
            self._refused(batch, error)
        elif isinstance(error, ProtocolError):
            self.schedule.answer_unreadable(batch, now, too_large=error.too_large)
        else:
            self.schedule.unanswered(batch, now, declined=_is_declined(error))

    def _refused(self, batch: list[str], error: BadRequest) -> None:
        if not self._has_told_of_refusal:
            self._has_told_of_refusal = True
            self.http.observers.tell(LookRefused, task_ids=tuple(batch), reason=str(error))
        self.schedule.refused(batch, self.limiter.now())

    async def _learn(self, batch: Sequence[str], records: Sequence[object], *, is_late: bool) -> None:
        """
        Apply what a well-formed reply says about the polled tasks.

        If the reply is late, it plans no look for tasks that are being polled again: that poll plans one, and each
        task must have only one next look.
        """
        now, (pending, ended, unreadable, linkless) = self.limiter.now(), batch_states(records, batch)
        if linkless or self._linkless:
            self._linkless.difference_update(batch)
            self._linkless.update(linkless)
        missing: Collection[str] = ()
        if len(pending) + len(ended) < len(batch):
            seen = {*pending, *ended, *unreadable}
            missing = [task_id for task_id in batch if task_id not in seen]
        if is_late:
            pending, unreadable, missing = map(self.schedule.waiting, (pending, unreadable, missing))
        self.schedule.looked(pending, now)
        if unreadable:
            self.schedule.unreadable(unreadable, now)
        if missing:
            self.schedule.missing(missing, now)
        await self.looked(batch, records)
        for task_id, record in ended.items():
            self.schedule.ended(task_id, now, duration=_duration(record))
        if ended:
            await self._end([*ended.items()])

    async def _count_dead_token(self, error: VeoError, at: float) -> None:
        now = self.limiter.now()
        if not self._dead_probes:
            self._dead_since = at
        self._dead_probes += 1
        if self._dead_probes < DEAD_PROBES or now - self._dead_since < self.dead_after:
            return
        words = f"the token no longer works, so the task cannot be watched: {error}"
        lost = [(task_id, TrackingLost(words, task_id=task_id)) for task_id in self.schedule]
        for _, outcome in lost:
            outcome.__cause__ = error
        self._dead_probes = 0
        await self._end(lost)

    async def _end(self, ends: Sequence[tuple[str, Outcome]]) -> None:
        for task_id, _ in ends:
            self.forget(task_id)
        await self.settle(ends)


async def _query(http: Http, task_ids: Sequence[str], *, entered_at: float) -> Sequence[object]:
    """
    Poll tasks, after the gate was entered; returns the records in the answer.

    Raises:
        ApiError: the server answered with an error.
        TransportError: no answer came, or it was not the API's.
    """
    if len(task_ids) == 1:
        question = {"action": "retrieve", "id": task_ids[0]}
        record = await record_or_none(http.exchange(question, entered_at=entered_at))
        if record is not None and task_id_of(record) != task_ids[0]:
            raise ProtocolError("the answer is about another task than the query")
        if record is not None:
            return [record]
        entered_at = await http.polls.enter()  # a task vanishes only if both kinds of query miss it
    # The depth is not checked: most records are of pending tasks, and are not kept.
    return read_items(await http.exchange(batch_query(task_ids), entered_at=entered_at, any_depth=True))


def _is_declined(error: VeoError) -> bool:
    """
    Tell whether a healthy server declined to answer, which does not pause the gate.
    """
    pauses_gate = isinstance(error, RateLimited | ServerError) or is_dead_token(error)
    return isinstance(error, ApiError) and not pauses_gate


def _duration(record: Mapping[str, Any]) -> float | None:
    """
    Return how long the task took by the times in its record, in seconds; None if unknown.
    """
    begun, ended = record.get("created_at"), record.get("finished_at")
    if not isinstance(begun, int | float) or not isinstance(ended, int | float):
        return None
    try:
        seconds = float(ended - begun)
    except OverflowError:  # JSON does not bound integers
        return None
    return seconds if 0 <= seconds < math.inf else None

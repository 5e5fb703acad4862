"""
The one long-lived coroutine that watches every task.

It asks the schedule when the next look is due and whom to ask about, sleeps until then, passes the gate of the
polls, asks the API, and hands what the answer says to the session.
It holds no job: tasks are known by their ids, and outcomes leave through `settle`.

One look is a short asyncio task of its own, so that a slow answer holds up nobody. The looks at other tasks go on,
and those that the slow answer is about are asked about again meanwhile. The number of looks is bounded.
What a look may end in, and what follows, stands in `_look`. A failed look never ends a task. Only the server's
record, the deadline, lasting silence about an id, or a dead token do.
"""

from __future__ import annotations

import asyncio
import logging
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
from .schedule import Schedule

__all__ = ["Outcome", "Tracker"]

AT_ONCE: Final = 16  # looks under way; a server that answers in a second is still asked ten times a second
SLOW: Final = 3.0  # times the usual: an answer that takes longer is not waited for
NEWEST: Final = 0.25  # weight of the newest answer in what is usual
DEAD_PROBES: Final = 3  # a gateway that hiccups says 401 once or twice

Outcome = Mapping[str, Any] | JobError

log = logging.getLogger("veo_async")


@define(eq=False)
class Tracker:
    """
    Watches tasks until each has its outcome.

    Attributes:
        schedule: who is due, and when.
        settle: takes terminal records and errors, by task id.
        looked: is told which ids were asked about and answered, and the records.
        dead_after: for how many seconds the token must be called dead before tracking stops.
    """

    schedule: Schedule
    http: Http
    settle: Callable[[Sequence[tuple[str, Outcome]]], Awaitable[None]]
    looked: Callable[[Sequence[str], Sequence[object]], Awaitable[None]]
    dead_after: float
    limiter: Limiter = field(init=False, default=Factory(lambda self: self.http.polls, takes_self=True))
    _looks: set[asyncio.Task[None]] = field(init=False, factory=set)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _sleeps_until: float = field(init=False, default=-math.inf)  # as now, while it is awake anyway
    _patience: asyncio.Timeout | None = field(init=False, default=None)  # of the wait at the gate
    _failure: BaseException | None = field(init=False, default=None)
    _was_refused: bool = field(init=False, default=False)
    _usual: float = field(init=False, default=0.0)  # seconds that an answer takes
    _twice: set[str] = field(init=False, factory=set)  # asked about alone, and again beside that
    _linkless: set[str] = field(init=False, factory=set)  # successes by their last record, without a link
    _dead_probes: int = field(init=False, default=0)
    _dead_since: float = field(init=False, default=0.0)

    def watch(
        self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None, found: bool = False
    ) -> None:
        """
        Watch a task from now on; one that was found may have ended long ago, and is looked at at once.
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
        Look at a task at once: it may well have ended.
        """
        self.schedule.nudge(task_id, self.limiter.now())
        self._wake_in_time()

    def hint(self, task_id: str, window: float) -> None:
        """
        Look at a task within `window` seconds, together with others: a callback says that it has ended.
        """
        if self.schedule.hint(task_id, self.limiter.now(), window=window):
            self._wake_in_time()

    async def run(self) -> None:
        """
        Watch until cancelled.
        """
        try:
            while self._failure is None:
                await self._step()
            raise self._failure
        finally:
            looks = list(self._looks)
            for look in looks:
                look.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    async def _step(self) -> None:
        """
        Do the one thing that is due now, or sleep until something is.
        """
        now = self.limiter.now()
        await self._expire(now)
        due_at = self.schedule.next_due_at()
        if len(self._looks) >= AT_ONCE:
            await self._sleep(self.schedule.next_deadline_at())  # or until one has ended
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
        Wake up if something is due before the sleep ends; a thousand new tasks are no reason to wake so often.
        """
        due_at = self.schedule.next_due_at()
        if due_at is not None and due_at < self._sleeps_until:
            self._woken.set()
        if self._patience is not None and not self._patience.expired():
            self._patience.reschedule(
                self.limiter.now() if self._failure else self.schedule.next_deadline_at()
            )

    async def _enter(self) -> float | None:
        """
        Pass the gate, but not at the cost of a deadline, even one that comes meanwhile.
        """
        if (entered_at := self.limiter.try_enter()) is not None:
            return entered_at
        self._sleeps_until = math.inf
        try:
            async with asyncio.timeout_at(self.schedule.next_deadline_at()) as self._patience:
                return await self.limiter.enter()
        except TimeoutError:
            return None
        finally:
            self._sleeps_until, self._patience = -math.inf, None

    async def _expire(self, now: float) -> None:
        late = [(task_id, self._timed_out(task_id)) for task_id in self.schedule.overdue(now)]
        words = "the server no longer knows the task"
        gone = [(task_id, JobVanished(words, task_id=task_id)) for task_id in self.schedule.vanished(now)]
        if late or gone:
            self._linkless.difference_update(task_id for task_id, _ in (*late, *gone))
            await self._end([*late, *gone])

    def _timed_out(self, task_id: str) -> JobTimedOut:
        words = "past the deadline; the task goes on: its key, resume() or attach() takes it up again"
        if task_id in self._linkless:
            words = (
                "past the deadline: succeeded, and billed, without a usable link;"
                " its key, resume() or attach() looks for one again"
            )
        return JobTimedOut(words, task_id=task_id)

    def _begin(self, batch: list[str], entered_at: float) -> None:
        look = asyncio.create_task(self._look(batch, entered_at), name="veo_async look")
        self._looks.add(look)
        look.add_done_callback(self._finished)

    def _finished(self, look: asyncio.Task[None]) -> None:
        if len(self._looks) >= AT_ONCE:  # there is a place again
            self._woken.set()
        self._looks.discard(look)
        if not look.cancelled() and look.exception() is not None:
            self._failure = look.exception()
            self._woken.set()
        self._wake_in_time()

    async def _look(self, batch: list[str], entered_at: float) -> None:
        held = list(batch)  # who waits for the answer; nobody, once it is too long in coming
        try:
            records = await self._ask(batch, entered_at, held)
        except UsageError:
            raise  # the caller closed the aiohttp session: nobody can ask any more, and that is no secret
        except asyncio.CancelledError:
            # Not at the end only: what a caller's session is hooked up with may do it.
            self.schedule.unanswered(held, self.limiter.now())
            raise
        except VeoError as error:
            log.debug("a look at %d tasks failed: %s", len(batch), error)
            if held:
                self._report(held, error)
            if is_dead_token(error):
                await self._suspect_the_token(error, entered_at)
        else:
            self._dead_probes = 0
            self._usual += NEWEST * (self.limiter.now() - entered_at - self._usual)
            self.schedule.answered(len(batch))
            await self._learn(batch, records, is_late=not held)

    async def _ask(self, batch: list[str], entered_at: float, held: list[str]) -> Sequence[object]:
        patience = max(self.schedule.slow_after, SLOW * self._usual)
        timer = asyncio.get_running_loop().call_at(entered_at + patience, self._let_go, held)
        try:
            return await _poll(self.http, batch, entered_at=entered_at)
        finally:
            timer.cancel()
            if not held:
                self._twice.difference_update(batch)

    def _let_go(self, held: list[str]) -> None:
        """
        Ask again about those whose answer is long in coming; about one that is asked about alone, once more only.
        """
        now, gate = self.limiter.now(), self.limiter.gate
        if gate.opens_at(now) is None:  # nothing may go before that answer, so it is no fault of their number
            gate.overdue(now)
            self.limiter.changed()
            self.schedule.unanswered(held, now)
        elif len(held) > 1:
            self.schedule.overlong(held, now)
        elif self._twice.isdisjoint(held):
            self._twice.update(held)
            self.schedule.unreadable(held, now)
        else:
            return
        held.clear()
        self._wake_in_time()

    def _report(self, batch: list[str], error: VeoError) -> None:
        """
        Tell the schedule what a failed look means for those that were asked about.
        """
        now = self.limiter.now()
        if isinstance(error, BadRequest):
            self._refused(batch, error)
        elif isinstance(error, ProtocolError):
            self.schedule.spoilt(batch, now, too_large=error.too_large)
        else:
            self.schedule.unanswered(batch, now, declined=_is_let_pass(error))

    def _refused(self, batch: list[str], error: BadRequest) -> None:
        level = logging.DEBUG if self._was_refused else logging.WARNING  # once is enough to be seen
        log.log(level, "the server refused to be asked about %d tasks: %s", len(batch), error)
        self._was_refused = True
        self.schedule.refused(batch, self.limiter.now())

    async def _learn(self, batch: Sequence[str], records: Sequence[object], *, is_late: bool) -> None:
        """
        Take in what a well-formed reply says of those asked about.

        If it is late, tasks that are being asked about again are left to that question: each answer plans the next
        look, so from then on there would be two looks at a time.
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

    async def _suspect_the_token(self, error: VeoError, at: float) -> None:
        now = self.limiter.now()
        if not self._dead_probes:
            self._dead_since = at
        self._dead_probes += 1
        if self._dead_probes < DEAD_PROBES or now - self._dead_since < self.dead_after:
            return
        words = f"the token no longer works, so nobody can ask about the task: {error}"
        lost = [(task_id, TrackingLost(words, task_id=task_id)) for task_id in self.schedule]
        for _, outcome in lost:
            outcome.__cause__ = error
        self._dead_probes = 0
        await self._end(lost)

    async def _end(self, ends: Sequence[tuple[str, Outcome]]) -> None:
        for task_id, _ in ends:
            self.forget(task_id)
        await self.settle(ends)


async def _poll(http: Http, task_ids: Sequence[str], *, entered_at: float) -> Sequence[object]:
    """
    Ask about tasks, once the lane of polls is entered; returns the records of the answer.
    """
    if len(task_ids) == 1:
        question = {"action": "retrieve", "id": task_ids[0]}
        record = await record_or_none(http.exchange(question, entered_at=entered_at))
        if record is not None and task_id_of(record) != task_ids[0]:
            raise ProtocolError("asked about one task, answered about another")
        if record is not None:
            return [record]
        entered_at = await http.polls.enter()  # nothing vanishes on the word of one kind of question
    # Most records are of pending tasks, of which nothing is kept.
    return read_items(await http.exchange(batch_query(task_ids), entered_at=entered_at, any_depth=True))


def _is_let_pass(error: VeoError) -> bool:
    """
    Tell whether an answer is no reason for the gate to pause: the server is well, and did not want to answer.
    """
    heeded = isinstance(error, RateLimited | ServerError) or is_dead_token(error)
    return isinstance(error, ApiError) and not heeded


def _duration(record: Mapping[str, Any]) -> float | None:
    """
    How long the task took by its record's own times, in seconds; None where they do not tell.
    """
    begun, ended = record.get("created_at"), record.get("finished_at")
    if not isinstance(begun, int | float) or not isinstance(ended, int | float):
        return None
    try:
        seconds = float(ended - begun)
    except OverflowError:  # JSON knows no bound on whole numbers
        return None
    return seconds if 0 <= seconds < math.inf else None

"""
The queue of jobs to be sent, and the gate that lets them go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import takewhile

from attrs import define, field

from .._http.client import Http
from .._http.limiter import TROUBLE, Limiter, sleep
from .._jobs.job import JobState, advance, stop
from ..errors import ApiError, SubmitTimedOut, TaskNotFound, TransportError, VeoError
from ..events import Retried
from .sending_again import Reconciler
from .submission import AttemptLog, Submission

__all__ = ["Queue"]


@define(eq=False)
class Queue:
    """
    Releases jobs one at a time, as fast as the gate allows.
    """

    http: Http
    lane: Limiter
    attempt_log: AttemptLog
    reconciler: Reconciler
    max_wait: float | None  # seconds that a job may wait for its turn; None for ever
    _waiting: deque[Submission] = field(init=False, factory=deque)
    _last: int = field(init=False, default=0)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _closed: bool = field(init=False, default=False)

    def put(self, submission: Submission) -> None:
        """
        Queue a job behind all others.
        """
        self._last += 1
        submission.place = self._last
        self._waiting.append(submission)
        self._woken.set()

    def put_again(self, submission: Submission, reason: BaseException | str) -> None:
        """
        Put a job back at the head of the queue, after an attempt that bought nothing.
        """
        if self._withdrawn(submission, reason):
            return
        job = submission.job
        self.http.retries += 1
        self._return(submission, 0)
        self.http.observers.tell(Retried, key=job.key, attempt=job.attempts, reason=str(reason))

    def put_back(self, submission: Submission, reason: BaseException | str) -> None:
        """
        Put a job back where it was in the queue, after the account's limits held an attempt back.
        """
        submission.job.attempts -= 1
        if not self._withdrawn(submission, reason):
            earlier = takewhile(lambda one: one.place < submission.place, self._waiting)
            self._return(submission, sum(1 for _ in earlier))

    def _withdrawn(self, submission: Submission, reason: BaseException | str) -> bool:
        """
        Forget the attempt, which bought nothing; returns whether the job is not to be sent any more.
        """
        submission.outgoing = submission.attempt = None
        if submission.attached:
            stop(submission.job, TaskNotFound(f"the key was abandoned, and bought nothing: {reason}"))
        if submission.job.done():  # abandoned meanwhile
            self.reconciler.closed(submission.job.key)
            self.attempt_log.withdraw(submission.job.key)
        return submission.job.done()

    def _return(self, submission: Submission, place: int) -> None:
        advance(submission.job, JobState.QUEUED)
        self._waiting.insert(place, submission)
        self._woken.set()

    def close(self) -> None:
        """
        Release no more jobs.
        """
        self._closed = True
        self._woken.set()
        self.lane.changed()

    def ask_again(self, *, any_key: bool) -> None:
        """
        Ask the account's limits again: a task of another session has settled, or anything may have changed.
        """
        if any_key:
            self.lane.gate.limits_changed()
        self.lane.gate.place_freed()
        self.lane.changed()

    async def next(self) -> tuple[Submission, float] | None:
        """
        Wait for the next job and for the gate to open; None once the queue is closed.

        Returns the submission, and when it passed the gate by the event loop's clock.
        """
        while not self._closed:
            self._drop_settled_and_late()
            entered_at = self.lane.open_now()
            if not self._waiting:
                await sleep(self._woken, until=None)
            elif entered_at is None:
                await self.lane.wait_for_change(until=self._next_late_at())
            elif self.lane.gate.probe == "read":
                await self._probe()
            else:
                self.lane.gate.take(entered_at)
                return self._waiting.popleft(), entered_at
        return None

    def _drop_settled_and_late(self) -> None:
        """
        Remove from the head of the queue, where the oldest jobs are, what was withdrawn or has waited too long.
        """
        while self._waiting:
            late_at = self._next_late_at()
            is_late = late_at is not None and late_at <= self.lane.now()
            if not is_late and not self._waiting[0].job.done():
                break
            words = f"waited for its turn for {self.max_wait} s; it was never sent"
            trouble = f": {self.lane.trouble}" if self.lane.trouble else ""
            job = self._waiting.popleft().job
            self.reconciler.closed(job.key)
            if not job.done():  # else its key was freed when it was abandoned, and may be in use again
                self.attempt_log.freed(job.key)
            stop(job, SubmitTimedOut(words + trouble))

    def _next_late_at(self) -> float | None:
        return None if self.max_wait is None else self._waiting[0].queued_at + self.max_wait

    async def _probe(self) -> None:
        """
        Find out with a free request whether the server is back, before a paid one is sent.
        """
        gate, sent_at = self.lane.gate, self.lane.now()
        gate.take(sent_at)
        error: VeoError | None = None
        try:
            async with asyncio.timeout_at(self._next_late_at()):
                await self.http.ask({"action": "retrieve_batch", "offset": 0, "limit": 1})
        except (ApiError, TransportError) as caught:
            error = caught
        except BaseException as caught:
            gate.withdrawn(self.lane.now(), sent_at=sent_at)
            if not isinstance(caught, TimeoutError):  # a timeout means that the next job has waited too long
                raise
            return
        finally:
            self.lane.changed()
        gate.probed(
            self.lane.now(),
            ok=not isinstance(error, TROUBLE),
            retry_after=getattr(error, "retry_after", None),
        )
        self.lane.changed()

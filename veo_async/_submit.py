"""
The submitters: a bounded set of coroutines, fed by one queue, that bring jobs past the gate to the server.

An attempt is one sending; its outcome is one of four, and `_follow` says what comes after each:
accepted is tracked, refused settles the job, not sent goes again, unknown is reconciled and never simply repeated.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import deque
from typing import Final, Protocol

from attrs import define, field

from ._answers import Accepted, NotSent, Refused, SubmitOutcome, Unknown, read_submit
from ._gate import Limits
from ._http import Http, Outgoing, tell
from ._job import Job, JobState, advance
from ._lane import Lane
from ._models import Request
from ._wire import encode
from .errors import (
    ApiError,
    RateLimited,
    ServerError,
    SessionClosed,
    SubmissionUnknown,
    SubmitTimedOut,
    TransportError,
    VeoError,
)

__all__ = ["Submission", "Submitters", "SubmitterHost"]

SHARE_OF_CONNECTIONS: Final = 0.75  # the rest stays free for polls, however slowly submits are answered

log = logging.getLogger("veo_async")


@define(eq=False)
class Submission:
    """
    One job on its way to the server.

    Attributes:
        job: whose it is.
        request: what is sent.
        queued_at: when it began to wait, on the event loop's clock.
        attempts: how often it was sent.
        outgoing: the body of the attempt under way, or None.
        sent_at: when that attempt began, in Unix seconds by the local clock.
    """

    job: Job
    request: Request
    queued_at: float
    attempts: int = 0
    outgoing: Outgoing | None = None
    sent_at: float | None = None


class SubmitterHost(Protocol):
    """
    What the submitters need of the session.
    """

    async def accepted(self, job: Job, outcome: Accepted) -> None:
        """
        Take over a job whose task the server has.
        """
        ...

    def stop(self, job: Job, error: VeoError) -> None:
        """
        Settle a job without a terminal record.
        """
        ...

    def failed(self, fault: BaseException) -> None:
        """
        Hear of a fault of this package's own that ended a coroutine.
        """
        ...


@define(eq=False)
class Submitters:
    """
    Sends queued jobs, as many at once as connections allow and as fast as the gate lets them.
    """

    http: Http
    lane: Lane
    limits: Limits
    host: SubmitterHost
    _queue: deque[Submission] = field(init=False, factory=deque)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _filled: asyncio.Event = field(init=False, factory=asyncio.Event)
    _workers: dict[asyncio.Task[None], Submission | None] = field(init=False, factory=dict)
    _idle: int = field(init=False, default=0)
    _closing: bool = field(init=False, default=False)

    def put(self, job: Job, request: Request) -> None:
        """
        Queue a job.
        """
        self._queue.append(Submission(job, request, self.lane.now()))
        self._filled.set()
        most = max(1, int(self.limits.connections * SHARE_OF_CONNECTIONS))
        if self._idle < len(self._queue) and len(self._workers) < most:
            worker = asyncio.create_task(self._work(), name="veo_async submitter")
            self._workers[worker] = None
            self._idle += 1
            worker.add_done_callback(self._ended)

    async def close(self, drain: float) -> None:
        """
        Send nothing more, give what is on its way `drain` seconds to be answered, then settle the rest.

        A cancellation cuts the waiting short; the settling is done all the same.
        """
        busy = {worker for worker, submission in self._workers.items() if submission}
        for worker in self._workers.keys() - busy:
            worker.cancel()
        try:
            if busy:
                self._closing = True
                await asyncio.wait(busy, timeout=drain)
        finally:
            cut_short = [submission for submission in self._workers.values() if submission]
            for worker in self._workers:
                worker.cancel()
            for submission in (*cut_short, *self._queue):
                self._settle_at_close(submission)

    def _settle_at_close(self, submission: Submission) -> None:
        if submission.job.done():
            return
        if submission.outgoing and submission.outgoing.left:
            words = "the session ended before the server had answered: the task may have been accepted"
            self.host.stop(submission.job, SubmissionUnknown(words, sent_at=submission.sent_at))
        else:
            words = "the session ended first: the request was not sent"
            self.host.stop(submission.job, SessionClosed(words))

    def _ended(self, worker: asyncio.Task[None]) -> None:
        del self._workers[worker]
        if not worker.cancelled() and (fault := worker.exception()):
            self.host.failed(fault)

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        while not self._closing:
            submission, entered_at = await self._next()
            self._idle -= 1
            self._workers[worker] = submission
            await self._send(submission, entered_at)
            self._workers[worker] = None
            self._idle += 1

    async def _next(self) -> tuple[Submission, float]:
        """
        Wait for the job whose turn it is, and for the gate to let it go.
        """
        async with self._turn:
            while True:
                self._drop_settled_and_late()
                if not self._queue:
                    self._filled.clear()
                    await self._filled.wait()
                elif not self.lane.is_open():
                    await self.lane.wait_for_change(until=self._next_late_at())
                elif self.lane.gate.probe == "read":
                    await self._probe()
                else:
                    now = self.lane.now()
                    self.lane.gate.take(now)
                    return self._queue.popleft(), now

    def _drop_settled_and_late(self) -> None:
        """
        Take from the head of the queue what was withdrawn, and what waited too long: the oldest come first.
        """
        now, late_at = self.lane.now(), self._next_late_at()
        while self._queue and (self._queue[0].job.done() or (late_at is not None and late_at <= now)):
            job = self._queue.popleft().job
            if not job.done():
                words = f"waited at the gate for {self.limits.max_queue_wait} s; it was never sent"
                self.host.stop(job, SubmitTimedOut(words))
            late_at = self._next_late_at()

    def _next_late_at(self) -> float | None:
        patience = self.limits.max_queue_wait
        return self._queue[0].queued_at + patience if self._queue and patience is not None else None

    async def _probe(self) -> None:
        """
        Find out with a free question whether the server is back, before money goes that way.
        """
        gate, sent_at = self.lane.gate, self.lane.now()
        gate.take(sent_at)
        try:
            await self.http.ask({"action": "retrieve_batch", "offset": 0, "limit": 1})
        except (RateLimited, ServerError) as error:
            gate.probed(self.lane.now(), ok=False, retry_after=error.retry_after)
        except TransportError:
            gate.probed(self.lane.now(), ok=False)
        except ApiError:
            gate.probed(self.lane.now(), ok=True)  # it is back, whatever it says of the question
        except BaseException:
            gate.withdrawn(self.lane.now(), sent_at=sent_at)
            raise
        else:
            gate.probed(self.lane.now(), ok=True)
        finally:
            self.lane.changed()

    async def _send(self, submission: Submission, entered_at: float) -> None:
        job = submission.job
        path = submission.request.endpoint
        submission.outgoing = Outgoing(json.dumps(encode(submission.request)).encode())
        submission.sent_at = time.time()
        submission.attempts += 1
        advance(job, JobState.SUBMITTING)
        outcome = await self._attempt(path, submission.outgoing, entered_at)
        await self._follow(submission, outcome)

    async def _attempt(self, path: str, outgoing: Outgoing, entered_at: float) -> SubmitOutcome:
        error: BaseException | None = None
        try:
            outcome = read_submit(*await self.http.post(path, outgoing, kind="submit"))
            error = None if isinstance(outcome, Accepted) else outcome.error
            return outcome
        except TransportError as caught:
            error = caught
            return Unknown(error=caught) if outgoing.left else NotSent(error=caught)
        except BaseException as caught:
            error = caught
            raise
        finally:
            tell(self.lane, error, left=outgoing.left, sent_at=entered_at)
            if error is None:
                self.lane.gate.entered()

    async def _follow(self, submission: Submission, outcome: SubmitOutcome) -> None:
        job = submission.job
        match outcome:
            case Accepted():
                await self.host.accepted(job, outcome)
            case _ if job.done():
                pass  # abandoned meanwhile, and there is no id to keep
            case Refused():
                self.host.stop(job, outcome.error)
            case NotSent():
                log.info("a submit will go again: %s", outcome.error)
                advance(job, JobState.QUEUED)
                submission.outgoing = None
                self.http.retries += 1
                self._queue.appendleft(submission)
                self._filled.set()
            case Unknown():
                advance(job, JobState.UNKNOWN)
                words = f"the task may have been accepted, or not: {outcome.error}"
                error = SubmissionUnknown(words, sent_at=submission.sent_at)
                error.__cause__ = outcome.error
                self.host.stop(job, error)

"""
The submitters: a bounded set of coroutines, fed by one queue, that bring jobs past the gate to the server.

With a journal, a job is written down before it is queued, an attempt before it is sent, and its outcome before
anybody sees it.
An attempt has one of four outcomes, and `_follow` says what comes after each: accepted is tracked, refused
settles the job, not sent goes again, unknown is reconciled and never simply repeated.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

from attrs import define, field

from .._api.marks import label, marked_url
from .._api.replies import Accepted, NotSent, Refused, SubmitOutcome, Unknown, read_submit
from .._api.wire import encode
from .._http.client import Http
from .._http.limiter import Limiter, tell
from .._http.transport import Outgoing
from .._jobs.job import Job, JobState, advance
from .._journal import facts
from .._journal.sqlite import Journal
from .._policies import Limits
from ..errors import (
    ApiError,
    JournalError,
    ProtocolError,
    RateLimited,
    ServerError,
    SubmitTimedOut,
    TaskNotFound,
    TransportError,
    VeoError,
)
from .intake import Intake
from .reconciler import Attempt, Reconciler
from .submission import Submission, SubmitterHost, ended_early

__all__ = ["CallbackUrl", "Submitters"]

SHARE_OF_CONNECTIONS: Final = 0.75  # the rest stays free for polls, however slowly submits are answered
ANOTHERS: Final = "the answer names the task of another purchase"

# Given the label of an attempt, makes a receiver's callback URL that carries it.
CallbackUrl: TypeAlias = Callable[[str], str]

log = logging.getLogger("veo_async")


@define(eq=False)
class Submitters:
    """
    Sends queued jobs, as many at once as connections allow and as fast as the gate lets them.
    """

    http: Http
    lane: Limiter
    limits: Limits
    host: SubmitterHost
    journal: Journal | None
    reconciler: Reconciler
    placeholder: str | None = None
    callback_url: CallbackUrl | None = None
    _intake: Intake | None = field(init=False, default=None)
    _queue: deque[Submission] = field(init=False, factory=deque)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _filled: asyncio.Event = field(init=False, factory=asyncio.Event)
    _workers: dict[asyncio.Task[None], Submission | None] = field(init=False, factory=dict)
    _idle: int = field(init=False, default=0)
    _most: int = field(init=False)  # workers
    closing: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        self._most = max(1, int(self.limits.connections * SHARE_OF_CONNECTIONS))
        if self.journal is not None:
            self._intake = Intake(self.journal, self.host, self.begin, self.http.clock.wall)

    # --- coming in --------------------------------------------------------------------------------------

    def put(self, submission: Submission) -> None:
        """
        Take a job in: write it down first where there is a journal, then queue it.
        """
        if self._intake is None:
            self.begin(submission)
        else:
            self._intake.put(submission)

    def begin(self, submission: Submission) -> None:
        """
        Bring a job on its way: to be sent, or to be looked for first.
        """
        if submission.look_first:
            self.look_for(submission)
        else:
            self.enqueue(submission)

    def look_for(self, submission: Submission) -> None:
        """
        Find out whether another process has bought the key.
        """
        job = submission.job
        submission.sent_at = self.http.clock.wall()
        submission.attempt = Attempt(
            key=job.key,
            number=job.attempts,
            mark=label(job.key, job.attempts),
            began_at=self.lane.now(),
            reach=self.reconciler.recall,
            first=job.first_attempt,
            skip_failed=submission.retry_failed,
            may_send=submission.request is not None,
            own_url=submission.own_url,
        )
        self.host.unknown(submission, Unknown(error=ProtocolError("another process may have sent it")))

    def withdraw(self, job: Job) -> None:
        """
        Take back the intention of a job that will not be sent.
        """
        if self._intake is not None:
            self._intake.withdraw(job)

    def enqueue(self, submission: Submission, *, first: bool = False) -> None:
        """
        Queue a job to be sent, behind all others or before them.
        """
        if first:
            self._queue.appendleft(submission)
        else:
            self._queue.append(submission)
        self._filled.set()
        if self._idle < len(self._queue) and len(self._workers) < self._most and not self.closing:
            worker = asyncio.create_task(self._work(), name="veo_async submitter")
            self._workers[worker] = None
            self._idle += 1
            worker.add_done_callback(self._ended)

    def in_flight(self, key: str) -> Submission | None:
        """
        Find the submission of a key whose attempt is not answered yet.
        """
        return next((s for s in self.all_in_flight() if s.job.key == key and s.job.task_id is None), None)

    def all_in_flight(self) -> list[Submission]:
        """
        Return the submissions whose attempts are not answered yet.
        """
        return [submission for submission in self._workers.values() if submission]

    # --- going out --------------------------------------------------------------------------------------

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
                await asyncio.wait(busy, timeout=drain)
        finally:
            cut_short = [submission for submission in self._workers.values() if submission]
            ending = [*self._workers, *(self._intake.tasks if self._intake else ())]
            for task in ending:
                task.cancel()
            for submission in (*cut_short, *self._queue, *(self._intake.arrivals if self._intake else ())):
                self._stop_unless_done(submission, ended_early(submission))
            await asyncio.gather(*ending, return_exceptions=True)

    def _stop_unless_done(self, submission: Submission, error: VeoError) -> None:
        if not submission.job.done():
            self.host.stop(submission.job, error)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        del self._workers[worker]
        if not worker.cancelled() and (fault := worker.exception()):
            self.host.failed(fault)

    # --- one job after the other ------------------------------------------------------------------------

    async def _work(self) -> None:
        worker = asyncio.current_task()
        assert worker is not None
        while not self.closing:
            submission, entered_at = await self._next()
            self._idle -= 1
            self._workers[worker] = submission
            try:
                await self._send(submission, entered_at)
            except asyncio.CancelledError:
                # Here, too: who tears a whole event loop down cancels this before the session gets to close.
                self._stop_unless_done(submission, ended_early(submission))
                raise
            self._workers[worker] = None
            del submission  # while it waits for the next one, the last one's job may go
            self._idle += 1

    async def _next(self) -> tuple[Submission, float]:
        """
        Wait for the job whose turn it is, and for the gate to let it go.
        """
        if not self._turn.locked() and (turn := self._at_once()):
            return turn
        async with self._turn:
            while (turn := self._at_once()) is None:
                if not self._queue:
                    self._filled.clear()
                    await self._filled.wait()
                elif self.lane.open_now() is None:
                    await self.lane.wait_for_change(until=self._next_late_at())
                elif self.lane.gate.probe == "read":  # else it has opened this very moment
                    await self._probe()
            return turn

    def _at_once(self) -> tuple[Submission, float] | None:
        """
        Take the job whose turn it is through the gate, if there is one and it may go now.
        """
        self._drop_settled_and_late()
        if not self._queue or (entered_at := self.lane.open_now()) is None or self.lane.gate.probe == "read":
            return None
        self.lane.gate.take(entered_at)
        return self._queue.popleft(), entered_at

    def _drop_settled_and_late(self) -> None:
        """
        Take from the head of the queue what was withdrawn, and what waited too long: the oldest come first.
        """
        while self._queue and (self._queue[0].job.done() or self._is_late()):
            submission = self._queue.popleft()
            self.reconciler.closed(submission.job.key)
            words = f"waited for its turn for {self.limits.max_queue_wait} s; it was never sent"
            trouble = f": {self.lane.trouble}" if self.lane.trouble else ""
            self._stop_unless_done(submission, SubmitTimedOut(words + trouble))

    def _is_late(self) -> bool:
        late_at = self._next_late_at()
        return late_at is not None and late_at <= self.lane.now()

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
            async with asyncio.timeout_at(self._next_late_at()):
                await self.http.ask({"action": "retrieve_batch", "offset": 0, "limit": 1})
        except (RateLimited, ServerError) as error:
            gate.probed(self.lane.now(), ok=False, retry_after=error.retry_after)
        except TransportError:
            gate.probed(self.lane.now(), ok=False)
        except ApiError:
            gate.probed(self.lane.now(), ok=True)  # it is back, whatever it says of the question
        except TimeoutError:  # somebody's patience at the gate has ended
            gate.withdrawn(self.lane.now(), sent_at=sent_at)
        except BaseException:
            gate.withdrawn(self.lane.now(), sent_at=sent_at)
            raise
        else:
            gate.probed(self.lane.now(), ok=True)
        finally:
            self.lane.changed()

    # --- one attempt ------------------------------------------------------------------------------------

    async def _send(self, submission: Submission, entered_at: float) -> None:
        advance(submission.job, JobState.SUBMITTING)
        attempt = self._prepare(submission)
        try:
            await self._note_sending(submission, attempt)
        except BaseException as error:
            self.lane.gate.withdrawn(self.lane.now(), sent_at=entered_at)
            self.lane.changed()
            if not isinstance(error, JournalError):
                self._close_soon(attempt)
                raise
            self._stop_unless_done(submission, JournalError(*error.args))
            return
        outcome = await self._post(submission, attempt, entered_at)
        await self._follow(submission, attempt, outcome)

    def _prepare(self, submission: Submission) -> Attempt:
        """
        Make the body and the record of an attempt.
        """
        job = submission.job
        assert submission.request is not None, "what is only looked for is never sent"
        body = encode(submission.request)
        job.attempts += 1
        text = label(job.key, job.attempts)
        url = self._marked_url(body.get("callback_url"), text)
        if url is not None:
            body["callback_url"] = url
        submission.sent_at = self.http.clock.wall()
        submission.outgoing = Outgoing(json.dumps(body).encode())
        submission.attempt = Attempt(
            key=job.key,
            number=job.attempts,
            began_at=self.lane.now(),
            first=job.first_attempt,
            mark=None if url is None else text,
            own_url=submission.own_url,
        )
        return submission.attempt

    def _marked_url(self, own: str | None, text: str) -> str | None:
        if own is None and self.callback_url is not None:
            return self.callback_url(text)
        return marked_url(text, own=own, placeholder=self.placeholder)

    async def _note_sending(self, submission: Submission, attempt: Attempt) -> None:
        if self.journal is not None:
            await self.journal.write(
                facts.Sending(
                    key=attempt.key, attempt=attempt.number, at=submission.sent_at, mark=attempt.mark
                )
            )

    async def _post(self, submission: Submission, attempt: Attempt, entered_at: float) -> SubmitOutcome:
        request, outgoing = submission.request, submission.outgoing
        assert request is not None
        assert outgoing is not None
        error: BaseException | None = None
        try:
            reply = await self.http.post(request.endpoint, outgoing, kind="submit")
            outcome = read_submit(*reply)
            error = None if isinstance(outcome, Accepted) else outcome.error
            return outcome
        except TransportError as caught:
            error = caught
            return Unknown(error=caught) if outgoing.left else NotSent(error=caught)
        except BaseException as caught:
            error = caught
            if not outgoing.left:
                self._close_soon(attempt)
            raise
        finally:
            tell(self.lane, error, left=outgoing.left, sent_at=entered_at)
            if error is None:
                self.lane.gate.entered()

    def _close_soon(self, attempt: Attempt) -> None:
        """
        Spare the next session the question what became of an attempt that was cancelled before it left.
        """
        self.reconciler.closed(attempt.key)
        if self.journal is not None:
            self.journal.write_soon(self._closed(attempt, "not_sent"))

    async def _follow(self, submission: Submission, attempt: Attempt, outcome: SubmitOutcome) -> None:
        match outcome:
            case Accepted():
                await self._accept(submission, attempt, outcome)
            case Refused():
                self.reconciler.closed(attempt.key)
                await self.close_attempt(attempt, "refused")
                self._stop_unless_done(submission, outcome.error)
            case NotSent():
                self.reconciler.closed(attempt.key)
                await self.close_attempt(attempt, "not_sent")
                self.send_again(submission, outcome.error)
            case Unknown():
                self.host.unknown(submission, outcome)

    async def _accept(self, submission: Submission, attempt: Attempt, outcome: Accepted) -> None:
        """
        Write down which task the job has, and hand it over.

        An answer that names the task of another purchase was meant for that one, or the server is confused:
        what this attempt has bought, if anything, is then found by its mark.
        """
        task_id = outcome.task_id
        owner = self.host.owner_of(task_id)
        known = self.reconciler.knows(task_id) if owner is None else owner is not submission.job
        if not known:
            submission.task_id = task_id
            known = await self._is_claimed(attempt, outcome)
        if known:
            submission.task_id = None
            self.lane.gate.left()
            self.host.unknown(submission, Unknown(error=ProtocolError(ANOTHERS)), named=task_id)
            return
        marked = attempt.mark is not None
        if marked:
            self.reconciler.accepted(task_id, now=self.lane.now())
        await self.host.accepted(submission.job, outcome, marked=marked)
        if submission.called == task_id:
            self.host.hinted(task_id)

    async def _is_claimed(self, attempt: Attempt, outcome: Accepted) -> bool:
        """
        Claim the task; tell whether the journal has it for another purchase.
        """
        try:
            await self.claim(attempt, outcome)
        except facts.AlreadyClaimed:
            return True
        return False

    async def claim(self, attempt: Attempt, outcome: Accepted) -> None:
        """
        Make it durable that a job has its task, before anybody sees the id.

        A disk that fails now must not cost the video: the job goes on, and the id is in the log.

        Raises:
            AlreadyClaimed: the task is another job's.
        """
        if self.journal is None:
            return
        now = self.http.clock.wall()
        fact = facts.Accepted(key=attempt.key, task_id=outcome.task_id, trace_id=outcome.trace_id, at=now)
        await self._note_or_log(self.journal, fact)

    async def close_attempt(self, attempt: Attempt, outcome: Literal["refused", "not_sent"]) -> None:
        """
        Make it durable, if the disk will, that an attempt bought nothing.
        """
        if self.journal is not None:
            await self._note_or_log(self.journal, self._closed(attempt, outcome))

    def _closed(self, attempt: Attempt, outcome: Literal["refused", "not_sent"]) -> facts.AttemptClosed:
        now = self.http.clock.wall()
        return facts.AttemptClosed(key=attempt.key, attempt=attempt.number, outcome=outcome, at=now)

    def send_again(self, submission: Submission, reason: BaseException | str) -> None:
        """
        Queue a job once more, before all others, after an attempt that bought nothing.
        """
        submission.outgoing = submission.attempt = None
        if submission.attached:
            self._stop_unless_done(
                submission, TaskNotFound(f"the key was abandoned, and bought nothing: {reason}")
            )
        if submission.job.done():  # abandoned meanwhile
            self.reconciler.closed(submission.job.key)
            self.withdraw(submission.job)
            return
        log.info("job %s is sent again: %s", submission.job.key, reason)
        advance(submission.job, JobState.QUEUED)
        self.http.retries += 1
        self.enqueue(submission, first=True)

    async def _note_or_log(self, journal: Journal, fact: facts.Accepted | facts.AttemptClosed) -> None:
        try:
            await journal.write(fact)
        except facts.AlreadyClaimed:
            raise
        except JournalError as error:
            task_id = getattr(fact, "task_id", None)
            log.error("the journal failed (%s): not held are job %s, task %s", error, fact.key, task_id)

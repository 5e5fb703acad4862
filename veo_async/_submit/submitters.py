"""
Where jobs go out to the server: one coroutine takes their turns, and a bounded number are under way at once.

An attempt is written down before it is sent, and its outcome before anybody sees it.
It has one of four outcomes, and `_follow` says what comes after each: accepted is tracked, refused settles the job
unless a listing shows its task, not sent goes again, unknown is reconciled and never simply repeated.
What the limits of the account hold back was no attempt: its job goes back to its place in the queue.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, TypeAlias

from attrs import define, field

from .._api.marks import Mark, label, mark_of, marked_url
from .._api.replies import Accepted, NotSent, Refused, SubmitOutcome, Unknown, read_submit
from .._api.requests import Request
from .._api.wire import encode
from .._http.client import Http
from .._http.limiter import report, sleep
from .._http.transport import Outgoing
from .._jobs.job import JobState, advance, stop
from .._journal.facts import Fenced, HeldBack
from ..errors import BudgetExceeded, JournalError, TransportError
from ..events import LimitsReached, Sending, Unanswered
from .acceptance import Acceptance
from .budget import Budget
from .queue import Queue
from .reconciling import Reconciling
from .sending_again import Attempt
from .submission import AttemptLog, Submission, ended_early
from .uploads import Uploads

__all__ = ["CallbackUrl", "Submitters"]

# Given the label of an attempt, makes a receiver's callback URL that carries it.
CallbackUrl: TypeAlias = Callable[[str], str]

WIDE: Final = 128  # asking at once; from one, it takes seven doublings, and then the wait is over


@define(eq=False)
class Submitters:
    """
    Sends queued jobs.
    """

    http: Http
    queue: Queue
    attempt_log: AttemptLog
    acceptance: Acceptance
    reconciling: Reconciling
    uploads: Uploads
    budget: Budget
    most: int  # attempts under way at once
    placeholder: str | None = None
    callback_url: CallbackUrl | None = None
    lost: Callable[[Submission], None] = field(init=False)  # takes a job whose key is another session's now
    tasks: set[asyncio.Task[None]] = field(init=False, factory=set)
    _under_way: dict[str, Submission] = field(init=False, factory=dict)  # by their keys
    _places: asyncio.Semaphore = field(init=False)
    _fault: BaseException | None = field(init=False, default=None)
    _asking: int = field(init=False, default=0)  # attempts that are being written down
    _most_asking: int = field(init=False)  # at once; fewer after the account's limits held one back
    _widest: int = field(init=False)  # of `_most_asking`, from when on it limits nothing
    _answered: asyncio.Event = field(init=False, factory=asyncio.Event)

    def __attrs_post_init__(self) -> None:
        self._most_asking = self._widest = max(self.most, WIDE)
        self._places = asyncio.Semaphore(self.most)

    def find(self, key: str) -> Submission | None:
        """
        Find the submission of a key whose attempt is not answered yet.
        """
        submission = self._under_way.get(key)
        return None if submission is None or submission.job.task_id is not None else submission

    def called_back(self, marks: Iterable[Mark], task_id: str) -> None:
        """
        Note which task a callback names before the answers are here.
        """
        names = {mark.name for mark in marks}
        for key, submission in self._under_way.items():
            if mark_of(key) in names:
                submission.called = task_id

    async def run(self) -> None:
        """
        Send until the queue is closed; a fault of our own in one sending closes it, and is raised here.
        """
        while True:
            await self._places.acquire()
            while self._asking >= self._most_asking and self._fault is None:
                await sleep(self._answered, until=None)
            turn = await self.queue.next()
            if turn is None:
                break
            self._begin(*turn)
            del turn  # while the next one is waited for, the last one's job may go
        if self._fault is not None:
            raise self._fault

    def _begin(self, submission: Submission, entered_at: float) -> None:
        advance(submission.job, JobState.SUBMITTING)
        self._asking += 1
        self._under_way[submission.job.key] = submission
        sending = asyncio.create_task(self._send(submission, entered_at), name="veo_async submitter")
        self.tasks.add(sending)
        sending.add_done_callback(self._ended)

    def _ended(self, sending: asyncio.Task[None]) -> None:
        self.tasks.discard(sending)
        self._places.release()
        if not sending.cancelled() and (fault := sending.exception()):
            self._fault = fault
            self.queue.close()
            self._answered.set()

    async def drain(self, seconds: float) -> None:
        """
        Send nothing more, and give what is on its way so long to be answered.
        """
        self.queue.close()
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=seconds)

    # --- one attempt ------------------------------------------------------------------------------------

    async def _send(self, submission: Submission, entered_at: float) -> None:
        try:
            attempt = self._prepare(submission)
            await self._follow(submission, attempt, await self._attempt(submission, attempt, entered_at))
        except asyncio.CancelledError:
            # Here, too: who tears a whole event loop down cancels this before the session gets to close.
            stop(submission.job, ended_early(submission.job, submission))
            raise
        finally:
            if self._under_way.get(submission.job.key) is submission:
                del self._under_way[submission.job.key]

    def _prepare(self, submission: Submission) -> Attempt:
        job = submission.job
        assert submission.request is not None, "what is only looked for is never sent"
        body = self.uploads.filled(encode(submission.request))
        job.attempts += 1
        text = label(job.key, job.attempts)
        url = self._marked_url(body.get("callback_url"), text)
        if url is not None:
            body["callback_url"] = url
        submission.outgoing = Outgoing(json.dumps(body).encode(), partial(self.attempt_log.may_send, job.key))
        mark = None if url is None else text
        return submission.attempted(mark=mark, began_at=self.queue.lane.now(), sent_at=self.http.clock.wall())

    def _marked_url(self, own: str | None, text: str) -> str | None:
        if own is None and self.callback_url is not None:
            return self.callback_url(text)
        return marked_url(text, own=own, placeholder=self.placeholder)

    async def _attempt(
        self, submission: Submission, attempt: Attempt, entered_at: float
    ) -> SubmitOutcome | JournalError | BudgetExceeded:
        """
        Send once; an attempt that exceeds the budget, or cannot be written down, is not sent.
        """
        request, outgoing = submission.request, submission.outgoing
        assert request is not None
        assert outgoing is not None
        error: BaseException | None = None
        try:
            await self._ask(attempt, request, submission.sent_at)
            self.http.observers.tell(Sending, key=attempt.key, attempt=attempt.number)
            outcome = read_submit(*await self.http.post(request.endpoint, outgoing, kind="submit"))
            error = None if isinstance(outcome, Accepted) else outcome.error
            return outcome
        except BudgetExceeded as caught:
            error = caught
            return caught
        except JournalError as caught:
            error = caught
            return caught if isinstance(caught, Fenced | HeldBack) else JournalError(*caught.args)
        except TransportError as caught:
            error = caught
            return Unknown(error=caught) if outgoing.left else NotSent(error=caught)
        except BaseException as caught:
            error = caught
            if not outgoing.left:  # spares the next session the question what became of it
                self.reconciling.reconciler.closed(attempt.key)
                self.attempt_log.close_soon(attempt)
            raise
        finally:
            self._report(error, left=outgoing.left, sent_at=entered_at)
            if error is None:
                self.queue.lane.gate.entered()

    async def _ask(self, attempt: Attempt, request: Request, sent_at: float) -> None:
        """
        Reserve and write an attempt down, which asks the account's limits, too, whether it may be sent.

        After they held one back, one attempt asks at a time; then two, four, and so on, as long as none is held back.
        """
        try:
            await self.budget.reserve(attempt.key, request)
            await self.attempt_log.sending(attempt, sent_at)
            self._most_asking = min(2 * self._most_asking, self._widest)
        except HeldBack as held:
            if self._most_asking == self._widest:
                self.http.observers.tell(LimitsReached, reason=str(held.args[0]))
            self._most_asking = 1
            raise
        finally:
            self._asking -= 1
            self._answered.set()

    def _report(self, error: BaseException | None, *, left: bool, sent_at: float) -> None:
        lane = self.queue.lane
        if isinstance(error, HeldBack):
            lane.gate.held_back(lane.now(), sent_at=sent_at, seconds=error.seconds)
            lane.trouble = str(error.args[0])
            lane.changed()
        else:
            report(lane, error, left=left, sent_at=sent_at)

    async def _follow(
        self, submission: Submission, attempt: Attempt, outcome: SubmitOutcome | JournalError | BudgetExceeded
    ) -> None:
        match outcome:
            case BudgetExceeded():
                self.reconciling.reconciler.closed(attempt.key)
                self.attempt_log.withdraw(attempt.key)
                stop(submission.job, outcome)
            case Fenced():
                self.reconciling.reconciler.closed(attempt.key)
                if not submission.job.done():  # else abandoned meanwhile
                    advance(submission.job, JobState.QUEUED)
                    self.lost(submission)
            case HeldBack():
                self.queue.put_back(submission, outcome)
            case JournalError():
                stop(submission.job, outcome)
            case Accepted():
                if not await self.acceptance.accept(submission, attempt, outcome):
                    self.queue.lane.gate.left()
                    self._tell_of_doubt(attempt, None)
                    self.reconciling.add(submission, named=outcome.task_id)
            case Refused():
                await self.reconciling.refused(submission, attempt, outcome.error)
            case NotSent():
                self.reconciling.reconciler.closed(attempt.key)
                await self.attempt_log.close(attempt)
                self.queue.put_again(submission, outcome.error)
            case Unknown():
                self._tell_of_doubt(attempt, outcome.error)
                self.reconciling.add(submission, trace_id=outcome.trace_id)

    def _tell_of_doubt(self, attempt: Attempt, error: Exception | None) -> None:
        self.http.observers.tell(
            Unanswered,
            key=attempt.key,
            attempt=attempt.number,
            error=type(error).__name__ if error else None,
            reason=str(error) if error else "the answer named the task of another purchase",
        )

"""
The driver of `sending_again`: asks for the listings it wants, and carries out what it decides.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import define, field

from .._api.marks import Mark, mark_of
from .._api.records import TaskRecord
from .._api.replies import is_dead_token
from .._api.tasks import task_record
from .._http.client import Http
from .._http.limiter import sleep
from .._http.task_listing import read_all, record_or_none
from .._jobs.job import JobState, advance, stop
from ..errors import ApiError, BadRequest, ProtocolError, SubmissionUnknown, TaskNotFound, TransportError
from ..events import BoughtTwice, ListingFailed, LookUpFailed, Reconciled, Refused
from .acceptance import Acceptance
from .budget import Budget
from .listed_tasks import HOUR, OVERLAP, ShownTasks
from .queue import Queue
from .sending_again import Adopt, Attempt, Decision, GiveUp, Reconciler, SendAgain
from .submission import AttemptLog, Submission

__all__ = ["Reconciling", "find_by_keys"]

DENIED: Final = "no task of the account shows the mark of this key"
UNFINISHED: Final = "the account's listing cannot be read to its end: that a key is not in it proves nothing"


@define(eq=False)
class Reconciling:
    """
    Finds out what became of attempts that nobody answered, and looks once whether a refusal is true.
    """

    http: Http
    reconciler: Reconciler
    queue: Queue
    acceptance: Acceptance
    attempt_log: AttemptLog
    budget: Budget
    _unknown: dict[str, Submission] = field(init=False, factory=dict)
    _decisions: deque[Decision] = field(init=False, factory=deque)
    _look_ups: deque[Mapping[str, str]] = field(init=False, factory=deque)  # which are quicker than listings
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _answered: int = field(init=False, default=0)  # questions, when the listing was last asked for
    _refused: dict[str, tuple[Submission, Attempt, ApiError]] = field(init=False, factory=dict)
    _wave_due_at: float | None = field(init=False, default=None)  # when they are looked for, together
    _closing: bool = field(init=False, default=False)

    def add(self, submission: Submission, *, trace_id: str | None = None, named: str | None = None) -> None:
        """
        Take up an attempt of unknown outcome.

        Args:
            named: the task that its answer named, where that is in doubt.
        """
        attempt = submission.attempt
        assert attempt is not None, "only what may have been sent can be unknown"
        waiting = self._unknown.get(attempt.key)
        if submission.job.done() and waiting is not None and not waiting.job.done():
            return  # an abandoned job must not displace one that waits for the same key
        if not submission.job.done() and submission.job.state is not JobState.UNKNOWN:
            advance(submission.job, JobState.UNKNOWN)
        self._unknown[attempt.key] = submission
        self._decisions += self.reconciler.unknown(attempt, now=self.queue.lane.now(), named=named)
        if trace_id is not None:
            self._look_ups.append({"trace_id": trace_id})
        if submission.called is not None:
            self._look_ups.append({"id": submission.called})
        self._woken.set()

    async def take_back(self, task_id: str) -> None:
        """
        Take a task from a job that has it on the word of an answer alone: a record shows another's mark.
        """
        submission = self.acceptance.release(task_id, reach=self.reconciler.recall)
        if submission is not None:
            self.add(submission, named=task_id)
            await self.attempt_log.disown(submission.job.key, task_id)

    def find(self, key: str) -> Submission | None:
        """
        Find the submission of a key whose attempt has an unknown outcome, or a refusal that is in doubt.
        """
        refused = self._refused.get(key)
        return self._unknown.get(key) if refused is None else refused[0]

    def called_back(self, marks: Iterable[Mark], task_id: str) -> None:
        """
        Take a callback that carries marks: where the outcome of such an attempt is unknown, its task is looked up.
        """
        names = {mark.name for mark in marks}
        if any(mark_of(key) in names for key in self._unknown):
            self._look_ups.append({"id": task_id})
            self._woken.set()

    async def run(self) -> None:
        """
        Reconcile until cancelled.
        """
        while True:
            while self._decisions:
                await self._carry_out(self._decisions.popleft())
            now, due_at, wave_due_at = self.queue.lane.now(), self.reconciler.next_due_at(), self._wave_due_at
            if self._look_ups:
                await self._look_up(self._look_ups.popleft())
            elif wave_due_at is not None and wave_due_at <= now:
                await self._look_for_refused()
            elif due_at is not None and due_at <= now:
                await self._ask()
            else:
                times = [at for at in (due_at, wave_due_at) if at is not None]
                await sleep(self._woken, until=min(times, default=None))

    # --- asking -----------------------------------------------------------------------------------------

    async def _ask(self) -> None:
        """
        List the account's tasks, and decide.
        """
        now = self.queue.lane.now()
        listing = self.reconciler.listing(now, unix=self.http.clock.earliest(now))
        try:
            records, complete = await read_all(self.http, listing.created_from)
        except (ApiError, TransportError) as error:
            self._tell_of_failure(error)
            # While nothing else is answered either, this is an outage, and says nothing of the listing.
            if isinstance(error, BadRequest) or self.http.answered > self._answered:
                self._decisions += self.reconciler.listed(listing, (), complete=False)
        else:
            self._decisions += self.reconciler.listed(listing, records, complete=complete)
        self._answered = self.http.answered

    def _tell_of_failure(self, error: ApiError | TransportError, *, believed: int = 0) -> None:
        name = type(error).__name__
        self.http.observers.tell(ListingFailed, error=name, reason=str(error), believed=believed)

    async def _look_up(self, by: Mapping[str, str]) -> None:
        """
        Ask for one task, once: the listing will tell, too.
        """
        try:
            record = await record_or_none(self.http.ask({"action": "retrieve", **by}))
        except (ApiError, TransportError) as error:
            self.http.observers.tell(LookUpFailed, error=type(error).__name__, reason=str(error))
        else:
            self._decisions += self.reconciler.looked_up(record)

    # --- refusals ---------------------------------------------------------------------------------------

    async def refused(self, submission: Submission, attempt: Attempt, error: ApiError) -> None:
        """
        Take a refusal: one listing for all that come at about the same time may show that it is not true.
        """
        name, number = type(error).__name__, attempt.number
        self.http.observers.tell(Refused, key=attempt.key, attempt=number, error=name, reason=str(error))
        is_futile = is_dead_token(error) and not self.http.admitted  # the listing would be refused, too
        if attempt.mark is None or self._closing or is_futile:
            await self._believe(submission, attempt, error)
            return
        self._refused[attempt.key] = submission, attempt, error
        if self._wave_due_at is None:
            self._wave_due_at = self.queue.lane.now() + self.http.retry.first
        self._woken.set()

    def believe_all(self) -> None:
        """
        Believe what waits to be looked for, and all that is yet to come: the session ends.
        """
        self._closing, self._wave_due_at = True, None
        for submission, attempt, error in self._refused.values():
            self.attempt_log.close_soon(attempt, error)
            stop(submission.job, error)
        self._refused.clear()

    async def _look_for_refused(self) -> None:
        """
        List once for all refused jobs. A miss proves nothing: the refusal stands, and nothing is sent again.
        """
        wave, self._wave_due_at = [*self._refused.values()], None
        now, shown = self.queue.lane.now(), ShownTasks(0.0)
        ago = now - min(attempt.began_at for _, attempt, _ in wave) + OVERLAP
        try:
            records, _ = await read_all(self.http, self.http.clock.earliest(now) - ago)
        except (ApiError, TransportError) as failure:
            self._tell_of_failure(failure, believed=len(wave))
            records, self.http.admitted = [], self.http.admitted and not is_dead_token(failure)
        for record in records:
            shown.add(record)
        for submission, attempt, error in wave:
            if attempt.key in self._refused:  # else the session ends
                if not await self._adopt_refused(submission, attempt, shown):
                    await self._believe(submission, attempt, error)
                self._refused.pop(attempt.key, None)

    async def _adopt_refused(self, submission: Submission, attempt: Attempt, shown: ShownTasks) -> bool:
        for task in shown.of_name(mark_of(attempt.key), first=attempt.first, skip_failed=False):
            await self.take_back(task.id)
            if await self.acceptance.adopt(submission, attempt, task.id, found=False):
                self.http.observers.tell(Reconciled, key=attempt.key, task_id=task.id, refused=True)
                return True
        return False

    async def _believe(self, submission: Submission, attempt: Attempt, error: ApiError) -> None:
        self.reconciler.closed(attempt.key)
        await self.attempt_log.close(attempt, error)
        stop(submission.job, error)

    # --- deciding ---------------------------------------------------------------------------------------

    async def _carry_out(self, decision: Decision) -> None:
        submission = self._unknown.get(decision.attempt.key)
        if submission is None or submission.attempt != decision.attempt:
            return
        job = submission.job
        # Should it be bought again, now or when the task has failed, that must have a number of its own.
        job.attempts = max(job.attempts, self.reconciler.last_number(job.key))
        match decision:
            case Adopt():
                await self._adopt(submission, decision)
            case SendAgain() if submission.request is None:
                self._end(submission, TaskNotFound(DENIED))
            case SendAgain():
                if decision.attempt.skip_failed:  # what has failed so far is not this purchase's
                    job.first_attempt = job.attempts + 1
                await self.attempt_log.close(decision.attempt)
                # Not before: who uses the key meanwhile must find this submission, and not begin another.
                del self._unknown[decision.attempt.key]
                submission.queued_at = self.queue.lane.now()  # so far it has waited to be looked for
                self.queue.put_again(submission, "the server has no such task")
            case GiveUp() if submission.request is None:
                self._end(submission, TaskNotFound(decision.reason))
            case GiveUp():
                reason, candidates = decision.reason, decision.candidates
                error = SubmissionUnknown(reason, sent_at=submission.sent_at, candidates=candidates)
                self._end(submission, error)

    def _end(self, submission: Submission, error: SubmissionUnknown | TaskNotFound) -> None:
        job, attempt = submission.job, submission.attempt
        stop(job, error)
        # Of an abandoned job, too, whose own error does not tell that something may have been bought.
        mark = attempt.mark if attempt else None
        self.acceptance.registry.remember(job, mark=mark, sent_at=submission.sent_at)
        del self._unknown[job.key]

    async def _adopt(self, submission: Submission, adopt: Adopt) -> None:
        key, task_id = adopt.attempt.key, adopt.task_id
        await self.take_back(task_id)
        found = adopt.attempt.reach > HOUR
        if not await self.acceptance.adopt(submission, adopt.attempt, task_id, found=found):
            self._decisions += self.reconciler.rejected(adopt)
            return
        self.reconciler.adopted(adopt, now=self.queue.lane.now())
        del self._unknown[key]
        if (
            submission.look_first and submission.request is not None
        ):  # else it was reserved before it was sent
            await self.budget.count(key, submission.request)
        self.http.observers.tell(Reconciled, key=key, task_id=task_id, refused=False)
        if adopt.others:
            self.http.observers.tell(BoughtTwice, key=key, task_ids=tuple(adopt.others))


async def find_by_keys(http: Http, keys: Sequence[str], *, recall: float) -> dict[str, TaskRecord]:
    """
    Find the tasks of these keys by their marks, among those of the last `recall` seconds.

    Raises:
        ProtocolError: some keys were not found, and the listing could not be read to its end.
    """
    records, complete = await read_all(http, http.clock.earliest(http.polls.now()) - recall)
    shown = ShownTasks(0.0)
    raw: dict[str, Any] = {task_id: one for one in records if (task_id := shown.add(one)) is not None}
    best = {key: shown.of_name(mark_of(key), first=1, skip_failed=False) for key in keys}
    if not complete and not all(best.values()):
        raise ProtocolError(UNFINISHED)
    return {key: task_record(raw[tasks[0].id]) for key, tasks in best.items() if tasks}

"""
What runs while a session is entered: the rooms below, joined, and what each asks of the others.

    submit ─▶ Submitters ─▶ accepted ─▶ Tracker ─▶ end ─▶ the job's outcome
                  │             ▲
                  └▶ Reconciling ┘   where nobody answered

A fact is written to the journal, where there is one, before its effect shows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import suppress
from copy import copy
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from attrs import define, evolve, field

from . import _journal as facts
from ._answers import Accepted, Unknown
from ._clock import ServerClock
from ._download import Downloader
from ._durations import Durations
from ._endings import Endings, read_outcome
from ._gate import Gate
from ._http import Http, Transport
from ._job import Job, JobState, advance, looked, settle
from ._journal import Journal
from ._lane import Lane
from ._listing import about_many, list_tasks, or_none, retrieve, retrieve_many
from ._models import Request, TaskRecord, TaskState
from ._policies import Limits, PollPolicy, RetryPolicy
from ._polling import Schedule
from ._reconcile import Attempt, Reconciler
from ._reconciling import Reconciling
from ._registry import Registry, key_conflict, mismatch, read_request, unreadable
from ._submission import GOES_ON, NOT_SENT, Submission
from ._submit import UNCERTAIN, Submitters
from ._tracker import Tracker
from ._wire import (
    Standings,
    classify,
    dump_request,
    encode,
    read_items,
    standings,
    task_id_of,
)
from .errors import (
    JobAbandoned,
    JournalError,
    ProtocolError,
    SessionClosed,
    SubmissionUnknown,
    UsageError,
    VeoError,
)

__all__ = ["Engine"]

NAMED_AT_ONCE: Final = 50  # tasks in one line of the log

log = logging.getLogger("veo_async")


@define(eq=False, repr=False)
class Engine:
    """
    Carries jobs from their request to their outcome.
    """

    loop: asyncio.AbstractEventLoop
    transport: Transport
    base_url: str
    polling: PollPolicy
    retry: RetryPolicy
    limits: Limits
    journal: Journal | None
    clock: ServerClock
    random: Random
    registry: Registry = field(init=False, factory=Registry)
    looks: int = field(init=False, default=0)
    closing: bool = field(init=False, default=False)
    http: Http = field(init=False)
    submits: Lane = field(init=False)
    submitters: Submitters = field(init=False)
    tracker: Tracker = field(init=False)
    reconciling: Reconciling = field(init=False)
    downloader: Downloader = field(init=False)
    endings: Endings = field(init=False)
    _tasks: list[asyncio.Task[None]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        polls = self._lane_of_polls()
        self.http = Http(
            transport=self.transport,
            base_url=self.base_url,
            polls=polls,
            retry=self.retry,
            clock=self.clock,
            random=self.random,
        )
        self.submits = self._lane_of_submits()
        reconciler = Reconciler(grace=self.retry.grace)
        self.submitters = Submitters(
            http=self.http,
            lane=self.submits,
            limits=self.limits,
            host=self,
            journal=self.journal,
            reconciler=reconciler,
        )
        self.reconciling = Reconciling(
            http=self.http,
            reconciler=reconciler,
            submitters=self.submitters,
            host=self,
        )
        durations = Durations()
        schedule = Schedule(self.polling, durations=durations)
        self.endings = Endings(
            registry=self.registry,
            journal=self.journal,
            clock=self.clock,
            reconciler=reconciler,
            durations=durations,
            forget=schedule.discard,
        )
        self.tracker = Tracker(
            schedule=schedule,
            lane=polls,
            poll=self._poll,
            settle=self.endings.end,
            looked=self._looked,
            dead_after=self.retry.grace,
        )
        self.downloader = Downloader(open=self.transport.open_file, look_up=self.retrieve, retry=self.retry)

    def _lane_of_polls(self) -> Lane:
        # A poll is free and its absence is felt: its lane looks for the end of a pause about once an interval.
        patience = evolve(self.retry, max_delay=max(self.retry.first, self.polling.interval))
        polling = self.polling
        return Lane(Gate(retry=patience, rate=polling.budget, burst=polling._at_once, random=self.random))

    def _lane_of_submits(self) -> Lane:
        limits = self.limits
        gate = Gate(
            retry=self.retry,
            rate=limits.submits_per_second,
            max_in_flight=limits.max_in_flight,
            paid=True,
            random=self.random,
        )
        return Lane(gate)

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Take in what the journal has learned, and begin to watch.
        """
        await self.endings.recall_what_was_learned()
        self._begin(self.tracker.run(), "veo_async tracker")
        self._begin(self.reconciling.run(), "veo_async reconciler")

    def _begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()):
            self.failed(fault)

    def begin_to_close(self) -> None:
        """
        Take and send nothing more.
        """
        self.closing = self.submitters.closing = True

    async def close(self) -> None:
        """
        End in order: submits in flight are drained, all else stops, every job settles.
        """
        self.begin_to_close()
        try:
            await self.submitters.close(self.retry.drain)
        finally:
            for task in self._tasks:
                task.cancel()
            self._tell_what_goes_on()
            # Before anything that could be cancelled: whoever awaits a job must not hang.
            for job in list(self.registry.unsettled.values()):
                self.stop(job, self._ended_early(job))
            self.endings.keep_what_was_learned()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _tell_what_goes_on(self) -> None:
        """
        Name the tasks that nobody waits for any more: they are paid for, and an error may go unread.
        """
        ids = [job.task_id for job in self.registry.unsettled.values() if job.task_id is not None]
        level = logging.WARNING if self.journal is None else logging.INFO
        for start in range(0, len(ids), NAMED_AT_ONCE):
            some = " ".join(ids[start : start + NAMED_AT_ONCE])
            log.log(level, "the session ended while %d tasks go on: %s", len(ids), some)
            level = logging.INFO  # a line to be seen, and the rest for who wants it

    def _ended_early(self, job: Job) -> VeoError:
        if job.state is JobState.QUEUED:
            return SessionClosed(NOT_SENT)
        if job.state is JobState.UNKNOWN:
            submission = self.reconciling.find(job.key)
            sent_at = submission.sent_at if submission else None
            words = "the session ended before it was known whether the task was accepted"
            return SubmissionUnknown(words, sent_at=sent_at)
        return SessionClosed(GOES_ON)

    def failed(self, fault: BaseException) -> None:
        """
        End everything, loudly: a coroutine died of this package's own fault, or the caller took its means away.
        """
        words = f"the session ended: {fault}"
        if isinstance(fault, UsageError):
            log.error("%s", words)
        else:
            log.critical("veo_async failed; this is a fault of its own", exc_info=fault)
            words = f"the session ended by a fault of its own: {fault!r}"
        self.closing = True
        for job in list(self.registry.unsettled.values()):
            error = SessionClosed(words)
            error.__cause__ = fault
            self.stop(job, error)

    # --- jobs coming in ---------------------------------------------------------------------------------

    def submit(
        self, request: Request, *, key: str, keyed: bool, timeout: float | None, retry_failed: bool
    ) -> Job:
        """
        Make a job for a request whose key no unsettled job has, and bring it on its way.

        Raises:
            JournalError: the journal has failed, so nothing new may be bought.
            KeyConflict: the key belongs to a different request.
        """
        if self.journal is not None and self.journal.failure is not None:
            raise JournalError(*self.journal.failure.args, key=key)
        job = Job(key, request, self, timeout, keyed)
        if keyed and (lingering := self._lingering(key)):
            return self._inherit(lingering, job)
        self.registry.add(job)
        submission = Submission(job, request, self.loop.time(), keyed, retry_failed)
        entry = self.registry.recall(key) if keyed else None
        if entry is None or not self.take_up(submission, entry):
            self.submitters.put(submission)
        return job

    def _lingering(self, key: str) -> Submission | None:
        """
        The submit, still unanswered, of a job that was abandoned.
        """
        return self.submitters.in_flight(key) or self.reconciling.find(key)

    def _inherit(self, submission: Submission, job: Job) -> Job:
        if submission.request != job.request:
            raise key_conflict(job.key, submission.request)
        self.registry.add(job)
        on_its_way = self.submitters.in_flight(job.key) is submission
        advance(job, JobState.SUBMITTING if on_its_way else JobState.UNKNOWN)
        submission.job = job
        return job

    def attach(self, task_id: str, *, timeout: float | None) -> Job:
        """
        Make a job for a task that exists already, or find the one that has it.
        """
        if known := self.registry.by_task.get(task_id):
            return known
        job = Job(self.registry.free_key(f"task:{task_id}"), None, self, timeout)
        self.registry.add(job)
        self.submits.gate.entered()
        self._track(job, task_id, None, found=True)
        return job

    async def resume(self) -> list[Job]:
        """
        Take up every purchase of the journal that has no outcome.
        """
        assert self.journal is not None
        entries = await self.journal.unsettled()
        if self.closing:
            raise SessionClosed("the session ended before it had taken anything up; the journal still has it")
        return [self._resumed(entry) for entry in entries]

    def _resumed(self, entry: facts.Entry) -> Job:
        if known := self.registry.unsettled.get(entry.key):
            return known
        request = read_request(entry)
        job = Job(entry.key, request, self, None, True)
        if lingering := self._lingering(entry.key):
            return self._inherit(lingering, job)
        self.registry.add(job)
        if request is None:
            self.stop(job, unreadable(entry))
            return job
        submission = Submission(job, request, self.loop.time(), keyed=True)
        if not self.take_up(submission, entry):
            self.submitters.enqueue(submission)
        return job

    def take_up(self, submission: Submission, entry: facts.Entry) -> bool:
        """
        Go on with what is known of the job's key; False where it is only intended.
        """
        job = submission.job
        submission.attempts = max((attempt.number for attempt in entry.attempts), default=0)
        still_open = [attempt for attempt in entry.attempts if attempt.closed is None]
        if entry.request != dump_request(submission.request):
            self.stop(job, mismatch(entry))
        elif entry.outcome is not None:
            if entry.failed and submission.retry_failed:
                submission.attempts = 0
                return False
            job.task_id = entry.task_id
            self.endings.settle(job, read_outcome(entry.outcome, submission.request))
        elif entry.task_id is not None:
            self.submits.gate.entered()
            bought_by = _remade(job.key, submission.request, still_open[-1]) if still_open else None
            self.reconciling.reconciler.owned(entry.task_id, now=self.loop.time(), attempt=bought_by)
            self._track(job, entry.task_id, entry.trace_id, found=True)
        elif still_open:
            self._reopen(submission, still_open[-1])
        else:
            return False
        return True

    def _reopen(self, submission: Submission, attempt: facts.Attempt) -> None:
        """
        Find out what became of an attempt that an earlier process made.
        """
        submission.sent_at = attempt.at
        submission.attempt = _remade(submission.job.key, submission.request, attempt)
        advance(submission.job, JobState.UNKNOWN)
        self.reconciling.add(submission)

    # --- jobs going on ----------------------------------------------------------------------------------

    def moved(self, job: Job, before: JobState) -> None:
        """
        Keep count of a change of state.
        """
        self.registry.moved(job, before)
        if job.done() and job.keyed and self.journal is None:
            submission = self.reconciling.find(job.key)
            attempt = submission.attempt if submission else None
            self.registry.remember(job, nonce=attempt.nonce if attempt else None)
        if before is JobState.PENDING:
            self._left()

    def _left(self) -> None:
        self.submits.gate.left()
        self.submits.changed()

    def abandon(self, job: Job) -> None:
        """
        Stop waiting for a job.
        """
        if job.done():
            return
        if job.state is JobState.QUEUED:
            self.submitters.withdraw(job)
        if job.task_id is not None and self.registry.by_task.get(job.task_id) is job:
            self.tracker.forget(job.task_id)
        self.stop(job, JobAbandoned("abandoned; what was accepted goes on at the server"))

    def expected_at(self, task_id: str) -> datetime | None:
        """
        Say when a pending task will probably have ended, where that is known.
        """
        at = self.tracker.schedule.expected_at(task_id)
        return None if at is None else datetime.fromtimestamp(self.clock.wall() + at - self.loop.time(), UTC)

    def shares(self, job: Job) -> None:
        """
        Note that a job gets the outcome of a task which another purchase has.
        """
        self.registry.sharing.add(job)

    async def accepted(self, job: Job, outcome: Accepted) -> None:
        """
        Take over a job whose task the server has.
        """
        if job.done():  # abandoned meanwhile
            log.info("task %s was accepted for the abandoned job %s", outcome.task_id, job.key)
            job.task_id = outcome.task_id
            if job.keyed and self.journal is None:
                self.registry.remember(job)
            self._left()
        else:
            self._track(job, outcome.task_id, outcome.trace_id)
            if classify(outcome.record) is not TaskState.PENDING:
                await self.endings.end([(outcome.task_id, outcome.record)])

    def called_back(self, task_id: str, *, window: float, nonce: str | None) -> bool:
        """
        Take a callback as a hint, from any thread; tells whether a job waits for the task.
        """
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:  # a thread without an event loop
            here = False
        if not here:
            with suppress(RuntimeError):  # the loop is closed, and so is the session
                self.loop.call_soon_threadsafe(self._take_hint, task_id, window, nonce)
        else:
            self._take_hint(task_id, window, nonce)
        return task_id in self.registry.by_task

    def _take_hint(self, task_id: str, window: float, nonce: str | None) -> None:
        if nonce is not None:
            self.reconciling.called_back(nonce, task_id)
        self.tracker.hint(task_id, window)

    def hinted(self, task_id: str) -> None:
        """
        Look at a task of which a callback spoke before its id was known.
        """
        self.tracker.hint(task_id, 0.0)

    def unknown(self, submission: Submission, outcome: Unknown) -> None:
        """
        Find out what became of an attempt that nobody answered.
        """
        self.reconciling.add(submission, outcome.trace_id)

    def stop(self, job: Job, error: VeoError) -> None:
        """
        Settle a job without a terminal record.
        """
        settle(job, JobState.STOPPED, error)

    def _share(self, settled: Job, job: Job) -> None:
        """
        Give a job the outcome of another that has the same task, or the watch over it if that one was abandoned.
        """
        if job.done():
            return
        outcome = settled.exception() or settled.result()
        if isinstance(outcome, JobAbandoned) and job.task_id is not None:
            self._watch_or_share(job, job.task_id, found=True)
        else:
            settle(job, settled.state, copy(outcome) if isinstance(outcome, VeoError) else outcome)

    def _track(self, job: Job, task_id: str, trace_id: str | None, *, found: bool = False) -> None:
        advance(job, JobState.PENDING, task_id=task_id, trace_id=trace_id)
        self._watch_or_share(job, task_id, found=found)

    def _watch_or_share(self, job: Job, task_id: str, *, found: bool) -> None:
        other = self.registry.by_task.get(task_id)
        if other is None:
            self._watch(job, task_id, found=found)
        elif other.request is None:  # a mere handle: the one that has bought it writes the outcome down
            self._watch(job, task_id, found=found)
            job.add_done_callback(lambda settled: self._share(settled, other))
        else:
            log.warning("task %s answers two jobs, %s and %s", task_id, other.key, job.key)
            other.add_done_callback(lambda settled: self._share(settled, job))

    def _watch(self, job: Job, task_id: str, *, found: bool) -> None:
        now = self.loop.time()
        patience = self.polling.deadline if job.timeout is None else job.timeout
        self.registry.by_task[task_id] = job
        self.tracker.watch(
            task_id,
            kind=job.request.kind if job.request else "",
            started_at=now,
            deadline_at=None if patience is None else now + patience,
            found=found,
        )

    # --- tasks ------------------------------------------------------------------------------------------

    async def _poll(self, task_ids: Sequence[str], entered_at: float) -> Standings:
        if len(task_ids) == 1:
            question = {"action": "retrieve", "id": task_ids[0]}
            record = await or_none(self.http.exchange(question, entered_at=entered_at))
            if record is not None and task_id_of(record) != task_ids[0]:
                raise ProtocolError("asked about one task, answered about another")
            if record is not None:
                return standings([record], task_ids)
            entered_at = await self.http.polls.enter()  # nothing vanishes on the word of one kind of question
        # Most records are of pending tasks, of which nothing is kept.
        answer = await self.http.exchange(about_many(task_ids), entered_at=entered_at, any_depth=True)
        return standings(read_items(answer), task_ids)

    def _looked(self, task_ids: Sequence[str]) -> None:
        self.looks += len(task_ids)
        looked(filter(None, map(self.registry.by_task.get, task_ids)), time.time())

    # --- questions --------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str | None, *, trace_id: str | None = None) -> TaskRecord:
        """
        Ask about one task, by exactly one of its ids.
        """
        return await retrieve(self.http, task_id=task_id, trace_id=trace_id)

    async def retrieve_many(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        """
        Ask about many tasks, as many at once as the policy allows.
        """
        return await retrieve_many(self.http, task_ids, at_once=self.polling.batch_size)

    def list_tasks(
        self,
        *,
        created_from: datetime | float | None,
        created_to: datetime | float | None,
        type: str | None,  # noqa: A002 - the API's own word
        limit: int | None,
    ) -> AsyncGenerator[TaskRecord, None]:
        """
        Go through the caller's own tasks.
        """
        return list_tasks(self.http, created_from=created_from, created_to=created_to, type=type, limit=limit)


def _remade(key: str, request: Request, attempt: facts.Attempt) -> Attempt:
    """
    Make an attempt of an earlier process as far as the journal knows it.
    """
    body = encode(request)
    if attempt.nonce is not None:  # all that is known of the URL, and all that counts
        body["callback_url"] = attempt.nonce
    known = attempt.server_at
    return Attempt(
        key=key,
        number=attempt.number,
        body=body,
        began_at=attempt.at if known is None else known,
        uncertainty=UNCERTAIN if known is None else 0.0,
        nonce=attempt.nonce,
        asked=hash(request),
    )

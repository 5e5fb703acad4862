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

from .._api.marks import label, mark_of, marks_in, marks_of
from .._api.records import TaskRecord, TaskState
from .._api.replies import Accepted, Unknown
from .._api.requests import Request
from .._api.states import classify
from .._api.stored import dump_request
from .._api.tasks import Standings, read_items, standings, task_id_of
from .._download.downloader import Downloader
from .._http.client import Http
from .._http.clock import ServerClock
from .._http.gate import Gate
from .._http.limiter import Limiter
from .._http.listing import about_many, list_tasks, or_none, retrieve, retrieve_many
from .._http.transport import Transport
from .._jobs.job import Job, JobState, advance, looked, settle
from .._jobs.registry import Registry, key_conflict, mismatch, read_request, unreadable
from .._journal import facts
from .._journal.sqlite import Journal
from .._policies import Limits, PollPolicy, RetryPolicy, at_once
from .._submit.find import find_by_keys
from .._submit.reconciler import Attempt, Reconciler
from .._submit.reconciling import Reconciling
from .._submit.submission import GOES_ON, NOT_SENT, Submission
from .._submit.submitters import Submitters
from .._track.durations import Durations
from .._track.schedule import Schedule
from .._track.tracker import Tracker
from ..errors import (
    JobAbandoned,
    JournalError,
    ProtocolError,
    SessionClosed,
    SubmissionUnknown,
    UsageError,
    VeoError,
)
from .endings import Endings, read_outcome

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
    placeholder: str | None
    clock: ServerClock
    random: Random
    registry: Registry = field(init=False, factory=Registry)
    looks: int = field(init=False, default=0)
    closing: bool = field(init=False, default=False)
    http: Http = field(init=False)
    submits: Limiter = field(init=False)
    submitters: Submitters = field(init=False)
    tracker: Tracker = field(init=False)
    reconciling: Reconciling = field(init=False)
    downloader: Downloader = field(init=False)
    _unchecked: set[str] = field(init=False, factory=set)  # accepted tasks, until a record shows a mark
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
        reconciler = Reconciler(grace=self.retry.grace, recall=self.retry.recall)
        self.submitters = Submitters(
            http=self.http,
            lane=self.submits,
            limits=self.limits,
            host=self,
            journal=self.journal,
            reconciler=reconciler,
            placeholder=self.placeholder,
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
            durations=durations,
            forget=schedule.discard,
        )
        self.tracker = Tracker(
            schedule=schedule,
            limiter=polls,
            poll=self._poll,
            settle=self.endings.end,
            looked=self._looked,
            dead_after=self.retry.grace,
        )
        self.downloader = Downloader(open=self.transport.open_file, look_up=self.retrieve, retry=self.retry)

    def _lane_of_polls(self) -> Limiter:
        # A poll is free and its absence is felt: its lane looks for the end of a pause about once an interval.
        patience = evolve(self.retry, max_delay=max(self.retry.first, self.polling.interval))
        polling = self.polling
        return Limiter(Gate(retry=patience, rate=polling.budget, burst=at_once(polling), random=self.random))

    def _lane_of_submits(self) -> Limiter:
        limits = self.limits
        gate = Gate(
            retry=self.retry,
            rate=limits.submits_per_second,
            max_in_flight=limits.max_in_flight,
            paid=True,
            random=self.random,
        )
        return Limiter(gate)

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
        self._tasks.remove(task)
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
        self,
        request: Request,
        *,
        key: str,
        keyed: bool,
        timeout: float | None,
        retry_failed: bool,
        look_first: bool,
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
        submission = Submission(job, request, self.loop.time(), keyed, retry_failed, look_first)
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
        job.attempts, job.first_attempt = submission.job.attempts, submission.job.first_attempt
        self.registry.add(job)
        on_its_way = self.submitters.in_flight(job.key) is submission
        advance(job, JobState.SUBMITTING if on_its_way else JobState.UNKNOWN)
        submission.job, submission.attached = job, False
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

    def attach_key(self, key: str, *, timeout: float | None) -> Job:
        """
        Make a job for the task that some process has bought with this key, or find the one that has it.
        """
        if known := self.registry.unsettled.get(key):
            return known
        if lingering := self._lingering(key):  # two submissions of one key would lose each other
            job = self._inherit(lingering, Job(key, lingering.request, self, timeout, True))
            lingering.attached = True
            return job
        job = Job(key, None, self, timeout, True)
        self.registry.add(job)
        submission = Submission(job, None, self.loop.time(), True)
        if self.journal is None:
            entry = self.registry.recall(key)
            if entry is None or not self.take_up(submission, entry):
                self.submitters.look_for(submission)
        else:
            self._begin(self._attach_known(submission, self.journal), "veo_async attach")
        return job

    async def _attach_known(self, submission: Submission, journal: Journal) -> None:
        try:
            entry = await journal.find(submission.job.key)
        except JournalError as error:
            if not submission.job.done():
                self.stop(submission.job, JournalError(*error.args))
            return
        if not submission.job.done() and (entry is None or not self.take_up(submission, entry)):
            self.submitters.look_for(submission)

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
        job, request = submission.job, submission.request
        job.attempts = max((entry.earlier, *(attempt.number for attempt in entry.attempts)))
        job.first_attempt = entry.earlier + 1
        still_open = [attempt for attempt in entry.attempts if attempt.closed is None]
        if request is not None and entry.request != dump_request(request):
            self.stop(job, mismatch(entry))
        elif entry.outcome is not None:
            if entry.failed and submission.retry_failed:
                job.first_attempt = job.attempts + 1
                return False
            job.task_id = entry.task_id
            self.endings.settle(job, read_outcome(entry.outcome, request))
        elif entry.task_id is not None:
            self.submits.gate.entered()
            if request is not None:
                self._unchecked.add(entry.task_id)  # the session before may have ended before a record showed
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
        job, wall = submission.job, self.clock.wall()
        submission.sent_at = attempt.at
        submission.attempt = Attempt(
            key=job.key,
            number=attempt.number,
            mark=attempt.mark,
            # Only the local clock tells when that was, and it may have been set since.
            began_at=self.loop.time() - max(0.0, wall - attempt.at),
            reach=self.retry.recall,
            first=job.first_attempt,
            may_send=submission.request is not None,
            own_url=submission.own_url,
        )
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
            self.registry.remember(job, mark=attempt.mark if attempt else None)
        if before is JobState.PENDING:
            self._unchecked.discard(job.task_id or "")
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
        if job.state is JobState.QUEUED and job.request is not None:  # else it is not ours to withdraw
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

    def owner_of(self, task_id: str) -> Job | None:
        """
        Find the job that has bought a task; a mere handle has not.
        """
        job = self.registry.by_task.get(task_id)
        return job if job is not None and job.request is not None else None

    async def release(self, task_id: str) -> None:
        """
        Take a task from a job that has it on the word of an answer alone: a record shows another's mark.
        """
        job = self.owner_of(task_id)
        if job is None or task_id not in self._unchecked:
            return
        log.warning("the answer to job %s named task %s, which shows another's mark", job.key, task_id)
        self._unwatch(task_id)
        job.task_id = job.trace_id = None
        advance(job, JobState.UNKNOWN)
        submission = Submission(job, job.request, self.loop.time(), keyed=True)
        submission.sent_at = self.clock.wall()
        submission.attempt = Attempt(
            key=job.key,
            number=job.attempts,
            mark=label(job.key, job.attempts),
            began_at=self.loop.time(),
            reach=self.retry.recall,
            first=job.first_attempt,
            own_url=submission.own_url,
        )
        self.reconciling.add(submission, named=task_id)
        if self.journal is not None and self.journal.failure is None:
            with suppress(JournalError):  # the claim then stands in the journal alone, until the task ends
                await self.journal.write(facts.Disowned(key=job.key, task_id=task_id))

    def _unwatch(self, task_id: str) -> None:
        self._unchecked.discard(task_id)
        self.registry.by_task.pop(task_id, None)
        self.tracker.forget(task_id)
        self.reconciling.reconciler.gone(task_id)

    async def accepted(
        self, job: Job, outcome: Accepted, *, marked: bool = False, found: bool = False
    ) -> None:
        """
        Take over a job whose task the server has.

        Args:
            marked: whether the task's first record is to show the job's mark.
            found: whether it may have been accepted long ago.
        """
        if job.done():  # abandoned meanwhile
            log.info("task %s was accepted for the abandoned job %s", outcome.task_id, job.key)
            job.task_id = outcome.task_id
            if job.keyed and self.journal is None:
                self.registry.remember(job)
            self._left()
        else:
            if marked:
                self._unchecked.add(outcome.task_id)
            self._track(job, outcome.task_id, outcome.trace_id, found=found)
            if classify(outcome.record) is not TaskState.PENDING:
                await self.endings.end([(outcome.task_id, outcome.record)])

    def called_back(self, task_id: str, *, window: float, path: str = "") -> bool:
        """
        Take a callback as a hint, from any thread; tells whether a job waits for the task.
        """
        try:
            here = asyncio.get_running_loop() is self.loop
        except RuntimeError:  # a thread without an event loop
            here = False
        if not here:
            with suppress(RuntimeError):  # the loop is closed, and so is the session
                self.loop.call_soon_threadsafe(self._take_hint, task_id, window, path)
        else:
            self._take_hint(task_id, window, path)
        return task_id in self.registry.by_task

    def _take_hint(self, task_id: str, window: float, path: str) -> None:
        if marks := marks_of(path):
            self.reconciling.called_back(marks, task_id)
        self.tracker.hint(task_id, window)

    def hinted(self, task_id: str) -> None:
        """
        Look at a task of which a callback spoke before its id was known.
        """
        self.tracker.hint(task_id, 0.0)

    def unknown(self, submission: Submission, outcome: Unknown, *, named: str | None = None) -> None:
        """
        Find out what became of an attempt that nobody answered, or whose answer is in doubt.
        """
        self.reconciling.add(submission, trace_id=outcome.trace_id, named=named)

    def never_known(self, submission: Submission) -> None:
        """
        Let the key of an abandoned job remember that its attempt may have bought something.
        """
        job, attempt = submission.job, submission.attempt
        if job.keyed and self.journal is None:
            self.registry.remember(job, mark=attempt.mark if attempt else None, sent_at=submission.sent_at)

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
        if other is not None and other.request is not None:
            other.add_done_callback(lambda settled: self._share(settled, job))
            return
        self._watch(job, task_id, found=found)
        if other is not None:  # a mere handle: the one that has bought it writes the outcome down
            job.add_done_callback(lambda settled: self._share(settled, other))

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
                await self._check_marks([record])
                return standings([record], task_ids)
            entered_at = await self.http.polls.enter()  # nothing vanishes on the word of one kind of question
        # Most records are of pending tasks, of which nothing is kept.
        answer = await self.http.exchange(about_many(task_ids), entered_at=entered_at, any_depth=True)
        items = read_items(answer)
        await self._check_marks(items)
        return standings(items, task_ids)

    async def _check_marks(self, records: Iterable[object]) -> None:
        """
        See that each accepted task is its job's: the first record that shows a mark must show the job's own.
        """
        for record in records if self._unchecked else ():
            task_id = record.get("id") if isinstance(record, dict) else None
            if task_id not in self._unchecked or not isinstance(record, dict):
                continue
            job = self.registry.by_task.get(task_id)
            marks = marks_in(record)
            if job is None or (marks and mark_of(job.key) in {mark.name for mark in marks}):
                self._unchecked.discard(task_id)
            elif marks:
                await self.release(task_id)

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

    async def find(self, keys: Sequence[str]) -> dict[str, TaskRecord]:
        """
        Find the tasks of these keys by their marks.
        """
        return await find_by_keys(self.http, keys, recall=self.retry.recall)

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

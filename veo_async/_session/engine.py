"""
What runs inside a session's `async with`: all parts, joined.

    submit ─▶ Intake ─▶ Queue ─▶ Submitters ─▶ Acceptance ─▶ Tracker ─▶ Outcomes: the job's
                                      │             ▲
                                      └▶ Reconciling ┘   where nobody answered

If there is a journal, each fact is written to it before its effect shows.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any, Final

from attrs import define, evolve, field

from .._api.local_images import names_in
from .._api.marks import marks_of
from .._api.records import TaskRecord
from .._api.requests import Request
from .._download.downloader import Downloader
from .._http.client import Http
from .._http.clock import ServerClock
from .._http.gate import Gate
from .._http.limiter import Limiter
from .._http.task_listing import list_tasks, retrieve, retrieve_many
from .._http.transport import Transport
from .._jobs.job import Job, JobState, looked, stop
from .._jobs.outcomes import Outcomes
from .._jobs.registry import Registry, read_request, unreadable
from .._journal import facts
from .._journal.journal import AnyJournal
from .._observing.observers import Observers
from .._policies import Limits, PollPolicy, RetryPolicy, at_once
from .._submit.acceptance import Acceptance
from .._submit.budget import Budget
from .._submit.intake import Intake
from .._submit.queue import Queue
from .._submit.reconciling import Reconciling, find_by_keys
from .._submit.recovery import Resumption
from .._submit.sending_again import Reconciler
from .._submit.submission import AttemptLog, Submission, ended_early
from .._submit.submitters import Submitters
from .._submit.uploads import AT_ONCE, Uploads
from .._track.schedule import Schedule
from .._track.tracker import Outcome, Tracker
from ..errors import JobAbandoned, JournalError, SessionClosed, UsageError
from ..events import Accepted, Settled
from .learned_durations import Learning
from .platform import AnyPlatform

__all__ = ["Engine"]

IDS_PER_LOG_LINE: Final = 50
SHARE_OF_CONNECTIONS: Final = 0.75  # for submits; slow submits leave the rest free for polls

log = logging.getLogger("veo_async")


@define(eq=False, repr=False)
class Engine:
    """
    Takes jobs from their request to their outcome.
    """

    loop: asyncio.AbstractEventLoop
    transport: Transport
    base_url: str
    polling: PollPolicy
    retry: RetryPolicy
    limits: Limits
    journal: AnyJournal | None
    placeholder: str | None
    clock: ServerClock
    random: Random
    observers: Observers
    platform: AnyPlatform | None = None
    registry: Registry = field(init=False)
    outcomes: Outcomes = field(init=False)
    learning: Learning = field(init=False)
    http: Http = field(init=False)
    tracker: Tracker = field(init=False)
    acceptance: Acceptance = field(init=False)
    reconciling: Reconciling = field(init=False)
    submitters: Submitters = field(init=False)
    resumption: Resumption = field(init=False)
    intake: Intake = field(init=False)
    uploads: Uploads = field(init=False)
    budget: Budget = field(init=False)
    downloader: Downloader = field(init=False)
    looks: int = field(init=False, default=0)
    closing: bool = field(init=False, default=False)
    _uploading: bool = field(init=False, default=False)
    _tasks: list[asyncio.Task[None]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.registry = Registry(self.journal is None, self.observers)
        self.outcomes = Outcomes(self.registry, self.journal, self.clock.wall)
        self.learning = Learning(self.journal, self.clock)
        self.http = Http(
            transport=self.transport,
            base_url=self.base_url,
            polls=self._lane_of_polls(),
            retry=self.retry,
            clock=self.clock,
            random=self.random,
            observers=self.observers,
        )
        self.tracker = Tracker(
            schedule=Schedule(self.polling, durations=self.learning.durations),
            http=self.http,
            settle=self._ended,
            looked=self._looked,
            dead_after=self.retry.grace,
        )
        self._build_submit_path()
        self.downloader = Downloader(
            open=self.transport.open_file,
            look_up=self.retrieve,
            retry=self.retry,
            observers=self.observers,
        )

    def _build_submit_path(self) -> None:
        self.budget = Budget(self.limits, self.platform, self.journal)
        attempt_log = AttemptLog(self.journal, self.clock.wall, self.budget.release)
        lane = self._lane_of_submits()
        reconciler = Reconciler(grace=self.retry.grace, recall=self.retry.recall)
        queue = Queue(self.http, lane, attempt_log, reconciler, self.limits.max_queue_wait)
        self.uploads = Uploads(self.platform, self.journal, self.clock.wall, self.observers)
        self.acceptance = Acceptance(
            registry=self.registry,
            outcomes=self.outcomes,
            tracker=self.tracker,
            lane=lane,
            attempt_log=attempt_log,
            reconciler=reconciler,
            polling=self.polling,
        )
        self.reconciling = Reconciling(
            self.http, reconciler, queue, self.acceptance, attempt_log, self.budget
        )
        self.submitters = Submitters(
            http=self.http,
            queue=queue,
            attempt_log=attempt_log,
            acceptance=self.acceptance,
            reconciling=self.reconciling,
            uploads=self.uploads,
            budget=self.budget,
            most=max(1, int(self.limits.connections * SHARE_OF_CONNECTIONS)),
            placeholder=self.placeholder,
        )
        self.resumption = Resumption(
            http=self.http,
            registry=self.registry,
            outcomes=self.outcomes,
            acceptance=self.acceptance,
            queue=queue,
            submitters=self.submitters,
            reconciling=self.reconciling,
        )
        self.intake = Intake(self.journal, attempt_log, self.resumption)
        self.submitters.lost = self.intake.put
        self.uploads.go_on = self._go_on

    def _lane_of_polls(self) -> Limiter:
        # Polls are free, and a long back-off would delay results: it is capped at about one polling interval.
        patience = evolve(self.retry, max_delay=max(self.retry.first, self.polling.interval))
        polling = self.polling
        gate = Gate(retry=patience, rate=polling.budget, burst=at_once(polling), random=self.random)
        return Limiter(gate, "polls", self.observers)

    def _lane_of_submits(self) -> Limiter:
        limits = self.limits
        gate = Gate(
            retry=self.retry,
            rate=limits.submits_per_second,
            max_in_flight=limits.max_in_flight,
            paid=True,
            random=self.random,
        )
        return Limiter(gate, "submits", self.observers)

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """
        Load learned durations from the journal, and start the background tasks.
        """
        await self.budget.start()
        await self.learning.recall()
        self._begin(self.intake.run(), "veo_async intake")
        self._begin(self.intake.follow(), "veo_async follower")
        self._begin(self.submitters.run(), "veo_async submitters")
        self._begin(self.tracker.run(), "veo_async tracker")
        self._begin(self.reconciling.run(), "veo_async reconciler")

    def _begin(self, coroutine: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(coroutine, name=name)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.remove(task)
        if not task.cancelled() and (fault := task.exception()):
            self._stop_all(fault)

    def begin_to_close(self) -> None:
        """
        Accept no more jobs, and send nothing more.
        """
        self.closing = True
        self.submitters.queue.close()
        self.reconciling.believe_all()

    async def close(self) -> None:
        """
        Close in order: wait for submits in flight, settle every job, stop the rest.
        """
        self.begin_to_close()
        try:
            await self.submitters.drain(self.retry.drain)
        finally:
            self._log_open_tasks()
            # Jobs settle before the next await, which could be cancelled: nobody who awaits a job may hang.
            for job in list(self.registry.unsettled.values()):
                stop(job, ended_early(job, self.resumption.find(job.key)))
            self.learning.keep()
            tasks = [*self._tasks, *self.submitters.tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _log_open_tasks(self) -> None:
        """
        Log the tasks that nobody waits for any more: they are paid for, and their jobs' errors may go unread.
        """
        ids = [job.task_id for job in self.registry.unsettled.values() if job.task_id is not None]
        level = logging.WARNING if self.journal is None else logging.INFO
        for start in range(0, len(ids), IDS_PER_LOG_LINE):
            some = " ".join(ids[start : start + IDS_PER_LOG_LINE])
            log.log(level, "the session ended while %d tasks go on: %s", len(ids), some)
            level = logging.INFO  # only the first line is a warning

    def _stop_all(self, fault: BaseException) -> None:
        """
        Stop every job, after a background task died: a bug of this package, or the caller closed what it needs.
        """
        words = f"the session ended: {fault}"
        if isinstance(fault, UsageError):
            log.error("%s", words)
        else:
            log.critical("veo_async failed; this is a fault of its own", exc_info=fault)
            words = f"the session ended because of a fault of its own: {fault!r}"
        self.closing = True
        for job in list(self.registry.unsettled.values()):
            error = SessionClosed(words)
            error.__cause__ = fault
            stop(job, error)

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
        Make and start a job for a request whose key no unsettled job has.

        Raises:
            JournalError: the journal has failed, so nothing new may be bought.
            KeyConflict: the key belongs to a different request.
        """
        if self.journal is not None and self.journal.failure is not None:
            raise JournalError(*self.journal.failure.args, key=key)
        job = Job(key, request, self, timeout, keyed)
        if not (keyed and self.resumption.inherit(job)):
            self.registry.add(job)
            self._start_submission(Submission(job, request, self.loop.time(), retry_failed, look_first))
        return job

    def _start_submission(self, submission: Submission) -> None:
        if self.uploads.needs(submission.request):
            self._upload_first(submission)
        else:
            self._go_on(submission)

    def _upload_first(self, submission: Submission) -> None:
        if not self._uploading:
            self._uploading = True
            for _ in range(AT_ONCE):
                self._begin(self.uploads.run(), "veo_async uploader")
        self.uploads.put(submission)

    def _go_on(self, submission: Submission) -> None:
        entry = self.registry.recall(submission.job.key)
        if entry is None or not self.resumption.take_up(submission, entry):
            self.intake.put(submission)

    def attach(self, task_id: str, *, timeout: float | None) -> Job:
        """
        Make a job for a task that exists already, or return the one that tracks it.
        """
        if known := self.registry.by_task.get(task_id):
            return known
        job = Job(self.registry.free_key(f"task:{task_id}"), None, self, timeout)
        self.registry.add(job)
        self.acceptance.take_up(job, task_id)
        return job

    def attach_key(self, key: str, *, timeout: float | None) -> Job:
        """
        Make a job for the task that any process has bought with this key, or return the one that has the key.
        """
        if known := self.registry.unsettled.get(key):
            return known
        lingering = self.resumption.find(key)
        job = Job(key, lingering.request if lingering else None, self, timeout, True)
        if self.resumption.inherit(job, attached=True):  # two submissions of one key would hide each other
            return job
        self.registry.add(job)
        self._start_submission(Submission(job, None, self.loop.time(), look_first=True))
        return job

    async def resume(self) -> list[Job]:
        """
        Resume every purchase in the journal that has no outcome.
        """
        assert self.journal is not None
        entries = await self.journal.unsettled()
        await self.uploads.recall(name for entry in entries for name in names_in(entry.request))
        if self.closing:
            raise SessionClosed("the session ended before it had resumed anything; the journal still has it")
        return [self._resumed(entry) for entry in entries]

    def _resumed(self, entry: facts.Entry) -> Job:
        if known := self.registry.unsettled.get(entry.key):
            return known
        job = Job(entry.key, read_request(entry), self, None, True)
        if self.resumption.inherit(job):
            return job
        self.registry.add(job)
        if job.request is None:
            stop(job, unreadable(entry))
            return job
        submission = Submission(job, job.request, self.loop.time())
        if self.resumption.take_up(submission, entry):
            return job
        if self.uploads.needs(job.request):
            self._upload_first(submission)
        else:
            self.intake.put(submission)  # written again, as another session may have had the key since
        return job

    # --- jobs going on ----------------------------------------------------------------------------------

    def moved(self, job: Job, before: JobState) -> None:
        """
        Count a change of state, release what the old state held, and tell observers.
        """
        self.registry.moved(job, before)
        if job.done():
            self.registry.remember(job)
            if job.state is JobState.FAILED:  # which is not billed
                self.budget.release(job.key)
        if before is JobState.PENDING:
            self.acceptance.left(job)
        if job.done():
            self._tell_of_end(job)
        elif job.state is JobState.PENDING and job.task_id is not None:
            found = before is not JobState.SUBMITTING
            self.observers.tell(
                Accepted, key=job.key, task_id=job.task_id, trace_id=job.trace_id, found=found
            )

    def _tell_of_end(self, job: Job) -> None:
        if self.observers.hears(Settled):
            error = job.exception()
            self.observers.tell(
                Settled,
                key=job.key,
                task_id=job.task_id,
                trace_id=job.trace_id,
                state=job.state.value,
                videos=0 if error else len(job.result().videos),
                error=type(error).__name__ if error else None,
                reason=str(error) if error else None,
            )

    def abandon(self, job: Job) -> None:
        """
        Stop waiting for a job.
        """
        # An attached job has no intention, and one that waits for its uploads has none yet.
        is_intended = job.request is not None and not self.uploads.holds(job)
        if job.state is JobState.QUEUED and is_intended:
            self.intake.withdraw(job)
        if job.task_id is not None and self.registry.by_task.get(job.task_id) is job:
            self.tracker.forget(job.task_id)
        stop(job, JobAbandoned("abandoned; what was accepted goes on at the server"))

    def expected_at(self, task_id: str) -> datetime | None:
        """
        Return when a pending task will probably have ended; None if that is not known.
        """
        at = self.tracker.schedule.expected_at(task_id)
        return None if at is None else datetime.fromtimestamp(self.clock.wall() + at - self.loop.time(), UTC)

    def called_back(self, task_id: str, *, window: float, path: str = "") -> bool:
        """
        Take a callback as a hint, from any thread; returns whether a job waits for the task.
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
            self.submitters.called_back(marks, task_id)
            self.reconciling.called_back(marks, task_id)
        self.tracker.hint(task_id, window)

    # --- tasks ------------------------------------------------------------------------------------------

    async def _looked(self, task_ids: Sequence[str], records: Sequence[object]) -> None:
        for task_id in self.acceptance.misnamed(records):
            await self.reconciling.take_back(task_id)
        self.looks += len(task_ids)
        self.acceptance.looked(records)
        looked(filter(None, map(self.registry.by_task.get, task_ids)), time.time())

    async def _ended(self, ends: Sequence[tuple[str, Outcome]]) -> None:
        self.learning.noticed(end for _, end in ends)
        await self.outcomes.end(ends)
        self.learning.keep_if_due()

    # --- questions --------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str | None, *, trace_id: str | None = None) -> TaskRecord:
        """
        Ask about one task, by its id or its trace id, but not both.
        """
        return await retrieve(self.http, task_id=task_id, trace_id=trace_id)

    async def retrieve_many(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        """
        Ask about many tasks, in batches as large as the policy allows.
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
        Yield the caller's own tasks.
        """
        return list_tasks(self.http, created_from=created_from, created_to=created_to, type=type, limit=limit)

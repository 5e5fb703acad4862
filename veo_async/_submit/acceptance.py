"""
What happens once the server has accepted a job's task: the journal records the claim, and the tracker polls it.

An answer alone does not prove whose task it is: the first record that shows a mark must show the job's own mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from copy import copy

from attrs import define, field

from .._api.marks import label, mark_of, marks_in
from .._api.records import TaskState
from .._api.replies import Accepted
from .._api.states import classify
from .._api.tasks import task_id_of
from .._http.limiter import Limiter
from .._jobs.job import Job, JobState, advance, settle
from .._jobs.outcomes import Outcomes
from .._jobs.registry import Registry
from .._policies import PollPolicy
from .._track.tracker import Tracker
from ..errors import JobAbandoned, VeoError
from ..events import Misnamed, Orphaned
from .sending_again import Attempt, Reconciler
from .submission import AttemptLog, Submission

__all__ = ["Acceptance"]


@define(eq=False)
class Acceptance:
    """
    Assigns tasks to jobs.

    Attributes:
        lane: the limiter for submits; its gate counts the unsettled tasks.
    """

    registry: Registry
    outcomes: Outcomes
    tracker: Tracker
    lane: Limiter
    attempt_log: AttemptLog
    reconciler: Reconciler
    polling: PollPolicy
    _ages: dict[str, float] = field(init=False, factory=dict)  # of tasks taken up, until an answer shows them
    _unchecked: set[str] = field(init=False, factory=set)  # accepted tasks not yet shown with a mark

    # --- an answer, or a record, names a task -----------------------------------------------------------

    async def accept(self, submission: Submission, attempt: Attempt, outcome: Accepted) -> bool:
        """
        Assign the task that an answer names to the job; False if the task belongs to another purchase.

        In that case the answer was meant for the other purchase, or the server is wrong. The mark then shows what
        this attempt has bought, if anything.
        """
        task_id, owner = outcome.task_id, self.owner_of(outcome.task_id)
        known = self.reconciler.knows(task_id) if owner is None else owner is not submission.job
        if not known:
            submission.task_id = task_id
            known = not await self.attempt_log.claim(attempt, outcome)
        if known:
            submission.task_id = None
            return False
        if attempt.mark is not None:
            self.reconciler.accepted(task_id, now=self.lane.now())
        await self._take_over(submission.job, outcome, marked=attempt.mark is not None)
        if submission.called == task_id:
            self.tracker.hint(task_id, 0.0)
        return True

    async def adopt(self, submission: Submission, attempt: Attempt, task_id: str, *, found: bool) -> bool:
        """
        Assign the task whose record shows the job's mark; False if it belongs to another purchase.

        Args:
            found: whether the task may have been accepted long ago.
        """
        outcome = Accepted(task_id=task_id)
        if submission.request is not None:  # a job without one only waits for anybody's task
            if self.owner_of(task_id) is not None or self.reconciler.knows(task_id):
                return False
            if not await self.attempt_log.claim(attempt, outcome):
                return False
        self.lane.gate.entered()
        await self._take_over(submission.job, outcome, found=found)
        return True

    def owner_of(self, task_id: str) -> Job | None:
        """
        Find the job that has bought a task; a job without a request has bought nothing.
        """
        job = self.registry.by_task.get(task_id)
        return job if job is not None and job.request is not None else None

    async def _take_over(
        self, job: Job, outcome: Accepted, *, marked: bool = False, found: bool = False
    ) -> None:
        task_id = outcome.task_id
        if job.done():  # abandoned meanwhile
            self.registry.observers.tell(Orphaned, key=job.key, task_id=task_id)
            job.task_id = task_id
            self.registry.remember(job)
            self._left()
            return
        if marked:
            self._unchecked.add(task_id)
        self.track(job, task_id, outcome.trace_id, found=found)
        if classify(outcome.record) is not TaskState.PENDING:
            self.tracker.forget(task_id)
            await self.outcomes.end([(task_id, outcome.record)])

    # --- a job has a task -------------------------------------------------------------------------------

    def take_up(self, job: Job, task_id: str, trace_id: str | None = None, *, age: float = 0.0) -> None:
        """
        Track a task that was accepted some time ago.

        Args:
            age: the seconds since it was accepted. They count towards its deadline once an answer has shown it: what
                has ended meanwhile is not late.
        """
        self.lane.gate.entered()
        if job.request is not None:
            self._unchecked.add(task_id)  # an earlier session may have ended before it saw a record
        self.track(job, task_id, trace_id, found=True)
        if age and self.registry.by_task.get(task_id) is job:
            self._ages[task_id] = age

    def looked(self, records: Iterable[object]) -> None:
        """
        Bring the deadlines of tasks forward that were taken up, and that an answer has now shown.
        """
        for task_id in self._ages.keys() & map(task_id_of, records) if self._ages else ():
            age, job = self._ages.pop(task_id), self.registry.by_task.get(task_id)
            if job is not None:
                self._watch(job, task_id, found=True, age=age)

    def track(self, job: Job, task_id: str, trace_id: str | None, *, found: bool) -> None:
        """
        Wait for a task's end.
        """
        advance(job, JobState.PENDING, task_id=task_id, trace_id=trace_id)
        self._track_or_share(job, task_id, found=found)

    def _track_or_share(self, job: Job, task_id: str, *, found: bool) -> None:
        other = self.registry.by_task.get(task_id)
        if other is not None and other.request is not None:
            other.add_done_callback(lambda settled: self._share(settled, job))
            return
        self._watch(job, task_id, found=found)
        if other is not None:  # it only waits: the job that bought the task writes the outcome down
            job.add_done_callback(lambda settled: self._share(settled, other))

    def _watch(self, job: Job, task_id: str, *, found: bool, age: float = 0.0) -> None:
        now = self.lane.now()
        patience = self.polling.deadline if job.timeout is None else job.timeout
        if patience is not None and age:  # the look that is being read may settle it
            patience = max(patience - age, self.polling.interval)
        self.registry.by_task[task_id] = job
        self.tracker.watch(
            task_id,
            kind=job.request.kind if job.request else "",
            started_at=now,
            deadline_at=None if patience is None else now + patience,
            found=found,
        )

    def _share(self, settled: Job, job: Job) -> None:
        """
        Settle a job like another one with the same task; if that one was abandoned, track the task for this job.
        """
        if job.done():
            return
        outcome = settled.exception() or settled.result()
        if isinstance(outcome, JobAbandoned) and job.task_id is not None:
            self._track_or_share(job, job.task_id, found=True)
        else:
            settle(job, settled.state, copy(outcome) if isinstance(outcome, VeoError) else outcome)

    def left(self, job: Job) -> None:
        """
        Note that a job no longer waits for its task.
        """
        self._unchecked.discard(job.task_id or "")
        self._left()

    def _left(self) -> None:
        self.lane.gate.left()
        self.lane.changed()

    # --- a record shows another job's mark --------------------------------------------------------------

    def misnamed(self, records: Iterable[object]) -> list[str]:
        """
        Find the tasks that an answer assigned to one job, but whose first marked record shows another job's mark.
        """
        found: list[str] = []
        for record in records if self._unchecked else ():
            task_id = record.get("id") if isinstance(record, dict) else None
            if task_id not in self._unchecked or not isinstance(record, dict):
                continue
            job = self.registry.by_task.get(task_id)
            marks = marks_in(record)
            if job is None or (marks and mark_of(job.key) in {mark.name for mark in marks}):
                self._unchecked.discard(task_id)
            elif marks:
                found.append(task_id)
        return found

    def release(self, task_id: str, *, reach: float) -> Submission | None:
        """
        Take a task from the job that an answer assigned it to, since a record shows another job's mark.

        Returns the job's attempt, whose outcome is unknown again; None if no answer assigned the task.
        """
        job = self.owner_of(task_id)
        if job is None or task_id not in self._unchecked:
            return None
        self.registry.observers.tell(Misnamed, key=job.key, task_id=task_id)
        self._unchecked.discard(task_id)
        self.registry.by_task.pop(task_id, None)
        self.tracker.forget(task_id)
        self.reconciler.gone(task_id)
        job.task_id = job.trace_id = None
        advance(job, JobState.UNKNOWN)
        now = asyncio.get_running_loop().time()
        submission = Submission(job, job.request, now)
        mark = label(job.key, job.attempts)
        submission.attempted(mark=mark, began_at=now, sent_at=self.attempt_log.wall(), reach=reach)
        return submission

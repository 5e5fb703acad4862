"""
Resumes jobs whose keys were used before, in this process or an earlier one.
"""

from __future__ import annotations

from attrs import define

from .._api.journal_text import dump_request
from .._api.marks import label
from .._http.client import Http
from .._jobs.job import Job, JobState, advance, stop
from .._jobs.outcomes import Outcomes, read_outcome
from .._jobs.registry import Registry, key_conflict, mismatch
from .._journal import facts
from .acceptance import Acceptance
from .queue import Queue
from .reconciling import Reconciling
from .submission import Submission
from .submitters import Submitters

__all__ = ["Resumption"]


@define(eq=False)
class Resumption:
    """
    Starts jobs: sends them, or resumes what is known of their keys.
    """

    http: Http
    registry: Registry
    outcomes: Outcomes
    acceptance: Acceptance
    queue: Queue
    submitters: Submitters
    reconciling: Reconciling

    def begin(self, submission: Submission) -> None:
        """
        Start a job whose key was never used, as far as is known here.
        """
        if submission.look_first:
            self._look_first(submission)
        else:
            self.queue.put(submission)

    def _look_first(self, submission: Submission) -> None:
        """
        Find out whether another process has bought the key.
        """
        job = submission.job
        submission.attempted(
            mark=label(job.key, job.attempts),
            began_at=self.queue.lane.now(),
            sent_at=self.http.clock.wall(),
            reach=self.http.retry.recall,
            skip_failed=submission.retry_failed,
        )
        self.reconciling.add(submission)

    def take_up(self, submission: Submission, entry: facts.Entry) -> bool:
        """
        Resume what is known of the job's key; False if the job still has to be sent.
        """
        job, request = submission.job, submission.request
        job.attempts = max((entry.earlier, *(attempt.number for attempt in entry.attempts)))
        job.first_attempt = entry.earlier + 1
        still_open = [attempt for attempt in entry.attempts if attempt.closed is None]
        if request is not None and entry.request != dump_request(request):
            stop(job, mismatch(entry))
        elif entry.outcome is not None:
            if entry.failed and submission.retry_failed:
                job.first_attempt = job.attempts + 1
                return False
            job.task_id = entry.task_id
            self.outcomes.settle(job, read_outcome(entry.outcome, request))
        elif entry.task_id is not None:
            age = 0.0 if entry.accepted_at is None else self.http.clock.wall() - entry.accepted_at
            self.acceptance.take_up(job, entry.task_id, entry.trace_id, age=max(0.0, age))
        elif still_open:
            self._reopen(submission, still_open[-1])
        else:
            return False
        return True

    def _reopen(self, submission: Submission, attempt: facts.Attempt) -> None:
        """
        Find out the outcome of an attempt that an earlier process made.
        """
        # The time was taken from the local clock, which may have been set since.
        ago = max(0.0, self.http.clock.wall() - attempt.at)
        submission.attempted(
            number=attempt.number,
            mark=attempt.mark,
            began_at=self.queue.lane.now() - ago,
            sent_at=attempt.at,
            reach=self.http.retry.recall,
        )
        self.reconciling.add(submission)

    # --- abandoned jobs whose submits are unanswered ----------------------------------------------------

    def find(self, key: str) -> Submission | None:
        """
        Find the unanswered submission of a key.
        """
        return self.submitters.find(key) or self.reconciling.find(key)

    def inherit(self, job: Job, *, attached: bool = False) -> bool:
        """
        Hand an unanswered submission, whose job was abandoned, to this job; False if the key has none.

        Args:
            attached: whether the job only waits for what was bought already, and is never sent.

        Raises:
            KeyConflict: the unanswered submission is of a different request.
        """
        submission = self.find(job.key)
        if submission is None:
            return False
        if submission.request != job.request:
            raise key_conflict(job.key, submission.request)
        job.attempts, job.first_attempt = submission.job.attempts, submission.job.first_attempt
        self.registry.add(job)
        on_its_way = self.submitters.find(job.key) is submission
        advance(job, JobState.SUBMITTING if on_its_way else JobState.UNKNOWN)
        submission.job, submission.attached = job, attached
        return True

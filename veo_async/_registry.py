"""
The jobs of a session, by key and by task, and how many are in which state.

Unsettled jobs are held strongly: a caller may drop the handle, and the video still arrives in the journal.
Settled ones are held only as long as somebody else holds them.
"""

from __future__ import annotations

from collections import Counter
from weakref import WeakValueDictionary

from attrs import define, field

from ._job import Job, JobState
from ._models import Request
from .errors import KeyConflict

__all__ = ["Registry"]


@define(eq=False)
class Registry:
    """
    Finds jobs; the same key is the same job.
    """

    unsettled: dict[str, Job] = field(init=False, factory=dict)
    by_task: dict[str, Job] = field(init=False, factory=dict)
    counts: Counter[JobState] = field(init=False, factory=Counter)
    _settled: WeakValueDictionary[str, Job] = field(init=False, factory=WeakValueDictionary)

    def find(self, key: str, request: Request) -> Job | None:
        """
        Find the job that has this key, unsettled or settled for ever.

        Raises:
            KeyConflict: the key belongs to a different request.
        """
        job = self.unsettled.get(key) or self._settled.get(key)
        if job is not None and job.request != request:
            raise KeyConflict(f"the key {key!r} belongs to a different request", key=key, task_id=job.task_id)
        return job

    def add(self, job: Job) -> None:
        """
        Hold a new job.
        """
        self.unsettled[job.key] = job
        self.counts[job.state] += 1

    def bind(self, job: Job, task_id: str) -> None:
        """
        Say whose task it is.
        """
        self.by_task[task_id] = job

    def moved(self, job: Job, before: JobState) -> None:
        """
        Keep count of a change of state, and let go of a settled job.
        """
        self.counts[before] -= 1
        self.counts[job.state] += 1
        if not job.done():
            return
        self.unsettled.pop(job.key, None)
        if job.task_id is not None:
            self.by_task.pop(job.task_id, None)
        # The others settle the handle, not the key: the same key takes the job up again.
        if job.state in (JobState.SUCCEEDED, JobState.FAILED):
            self._settled[job.key] = job

"""
The jobs of a session, by key and by task, and how many are in which state.

Unsettled jobs are held strongly: a caller may drop the handle, and the video still arrives in the journal.
Settled ones are held only as long as somebody else holds them.
"""

from __future__ import annotations

import logging
from collections import Counter
from weakref import WeakValueDictionary

from attrs import define, field

from .._api.journal_text import dump_outcome, dump_request, load_request
from .._api.requests import Request, in_short
from .._journal.facts import Attempt, Entry
from ..errors import JobFailed, JournalError, KeyConflict, SubmissionUnknown, VeoError
from .job import Job, JobState

__all__ = ["Registry", "key_conflict", "mismatch", "read_request", "unreadable"]

log = logging.getLogger("veo_async")


@define(eq=False)
class Registry:
    """
    Finds jobs; the same key is the same job.

    Attributes:
        remembers: whether it is to keep in memory what a journal would.
    """

    remembers: bool = False
    unsettled: dict[str, Job] = field(init=False, factory=dict)
    by_task: dict[str, Job] = field(init=False, factory=dict)
    counts: Counter[JobState] = field(init=False, factory=Counter)
    _settled: WeakValueDictionary[str, Job] = field(init=False, factory=WeakValueDictionary)
    _remembered: dict[str, Entry] = field(init=False, factory=dict)

    def find(self, key: str, request: Request) -> Job | None:
        """
        Find the job that has this key, unsettled or settled for ever.

        Raises:
            KeyConflict: the key belongs to a different request.
        """
        job = self.unsettled.get(key) or self._settled.get(key)
        if job is not None and job.request != request:
            raise key_conflict(key, job.request, task_id=job.task_id)
        return job

    def free_key(self, key: str) -> str:
        """
        Make a key that no job has out of one that a caller may have chosen, too.
        """
        while key in self.unsettled:
            key += "'"
        return key

    def add(self, job: Job) -> None:
        """
        Hold a new job.
        """
        self.unsettled[job.key] = job
        self.counts[job.state] += 1

    def moved(self, job: Job, before: JobState) -> None:
        """
        Keep count of a change of state, and let go of a settled job.
        """
        self.counts[before] -= 1
        self.counts[job.state] += 1
        if not job.done():
            return
        self.unsettled.pop(job.key, None)
        if job.task_id is not None and self.by_task.get(job.task_id) is job:  # else it is another's too
            del self.by_task[job.task_id]
        # The others settle the handle, not the key: the same key takes the job up again.
        if job.keyed and job.state in (JobState.SUCCEEDED, JobState.FAILED):
            self._settled[job.key] = job

    def remember(self, job: Job, *, mark: str | None = None, sent_at: float | None = None) -> None:
        """
        Keep in memory what a journal would: what the key of a settled job stands for.

        A success is kept as its task's id alone: asking again is free, and a record is large.

        Args:
            mark: of its attempt, where the outcome of that is unknown.
            sent_at: when that began, where the job's own error does not tell.
        """
        entry = _entry_of(job, mark, sent_at) if self.remembers and job.keyed else None
        if entry is not None:
            self._remembered[job.key] = entry

    def recall(self, key: str) -> Entry | None:
        """
        Say what is remembered of a key.
        """
        return self._remembered.get(key)


def key_conflict(key: str, earlier: Request | None, *, task_id: str | None = None) -> KeyConflict:
    """
    Make the error for a key that stands for another request already, and say for which.
    """
    if earlier is None:
        words = f"the key {key!r} belongs to a job that was attached, which waits for what was bought already"
    else:
        words = f"the key {key!r} belongs to a different request: {in_short(earlier)}"
    return KeyConflict(words, key=key, task_id=task_id)


def _entry_of(job: Job, mark: str | None, sent_at: float | None) -> Entry | None:
    error = job.exception()
    sent_at = error.sent_at if isinstance(error, SubmissionUnknown) else sent_at
    if job.request is None or (job.task_id is None and sent_at is None):
        return None
    return Entry(
        key=job.key,
        request=dump_request(job.request),
        intended_at=0.0,
        attempts=(_attempt_of(job, sent_at, mark),),
        earlier=job.first_attempt - 1,
        task_id=job.task_id,
        trace_id=job.trace_id,
        failed=isinstance(error, JobFailed),
        outcome=dump_outcome(error) if isinstance(error, JobFailed) else None,
    )


def _attempt_of(job: Job, sent_at: float | None, mark: str | None) -> Attempt:
    closed = "not_sent" if sent_at is None else None
    return Attempt(number=job.attempts, at=sent_at or 0.0, mark=mark, closed=closed)


def read_request(entry: Entry) -> Request | None:
    """
    Read the request of a journal's entry, or None where it cannot be read.
    """
    try:
        return load_request(entry.request)
    except Exception as error:  # whatever is wrong with a text concerns this purchase alone
        log.error("the journalled request of job %s cannot be read: %s", entry.key, type(error).__name__)
        return None


def unreadable(entry: Entry) -> JournalError:
    """
    Make the error of a key whose request cannot be read.
    """
    words = (
        "the journalled request cannot be read by this version, or is spoilt; attach() waits for a task of it"
    )
    return JournalError(words, key=entry.key, task_id=entry.task_id)


def mismatch(entry: Entry) -> VeoError:
    """
    Make the error of a key whose journalled request is not the one that is asked for now.
    """
    earlier = read_request(entry)
    return unreadable(entry) if earlier is None else key_conflict(entry.key, earlier, task_id=entry.task_id)

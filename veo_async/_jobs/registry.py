"""
The jobs of a session, by key and by task, and how many are in each state.

Unsettled jobs are kept alive: the caller may drop the handle, and the outcome still gets into the journal.
Settled jobs are referenced weakly.
"""

from __future__ import annotations

import logging
from collections import Counter
from weakref import WeakValueDictionary

from attrs import define, field

from .._api.journal_text import dump_outcome, dump_request, load_request
from .._api.requests import Request, in_short
from .._journal.facts import Attempt, Entry
from .._observing.observers import Observers
from ..errors import JobFailed, JournalError, KeyConflict, SubmissionUnknown, VeoError
from ..events import Attached, Submitted
from .job import Job, JobState

__all__ = ["Registry", "key_conflict", "mismatch", "read_request", "unreadable"]

log = logging.getLogger("veo_async")


@define(eq=False)
class Registry:
    """
    Finds jobs; the same key is the same job.

    Attributes:
        remembers: whether to keep in memory what a journal would keep.
    """

    remembers: bool = False
    observers: Observers = field(factory=Observers)
    unsettled: dict[str, Job] = field(init=False, factory=dict)
    by_task: dict[str, Job] = field(init=False, factory=dict)
    counts: Counter[JobState] = field(init=False, factory=Counter)
    _settled: WeakValueDictionary[str, Job] = field(init=False, factory=WeakValueDictionary)
    _remembered: dict[str, Entry] = field(init=False, factory=dict)

    def find(self, key: str, request: Request) -> Job | None:
        """
        Find the job that has this key, unsettled or with a final outcome.

        Raises:
            KeyConflict: the key belongs to a different request.
        """
        job = self.unsettled.get(key) or self._settled.get(key)
        if job is not None and job.request != request:
            raise key_conflict(key, job.request, task_id=job.task_id)
        return job

    def free_key(self, key: str) -> str:
        """
        Derive a key that no job has from one that a caller may also have chosen.
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
        if job.request is None:
            self.observers.tell(Attached, key=job.key)
        else:
            model = getattr(job.request, "model", None)
            self.observers.tell(Submitted, key=job.key, kind=type(job.request).__name__, model=model)

    def moved(self, job: Job, before: JobState) -> None:
        """
        Count a change of state, and release a settled job.
        """
        self.counts[before] -= 1
        self.counts[job.state] += 1
        if not job.done():
            return
        self.unsettled.pop(job.key, None)
        if job.task_id is not None and self.by_task.get(job.task_id) is job:  # another may have it now
            del self.by_task[job.task_id]
        # Other outcomes settle the handle, not the key: submitting the same key resumes the purchase.
        if job.keyed and job.state in (JobState.SUCCEEDED, JobState.FAILED):
            self._settled[job.key] = job

    def remember(self, job: Job, *, mark: str | None = None, sent_at: float | None = None) -> None:
        """
        Keep in memory what a journal would keep: what the key of a settled job stands for.

        Of a success only the task's id is kept: asking again is free, and a record is large.

        Args:
            mark: the mark of its attempt, if that has an unknown outcome.
            sent_at: when that attempt began, in Unix seconds, if the job's own error does not tell.
        """
        entry = _entry_of(job, mark, sent_at) if self.remembers and job.keyed else None
        if entry is not None:
            self._remembered[job.key] = entry

    def recall(self, key: str) -> Entry | None:
        """
        Return what is remembered of a key.
        """
        return self._remembered.get(key)


def key_conflict(key: str, earlier: Request | None, *, task_id: str | None = None) -> KeyConflict:
    """
    Make the error for a key that already stands for another request, and name that request.
    """
    if earlier is None:
        words = f"the key {key!r} belongs to an attached job, which waits for what was bought already"
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
    Read the request of a journal's entry; None if it cannot be read.
    """
    try:
        return load_request(entry.request)
    except Exception as error:  # any fault of the text affects this purchase only
        log.error("the journalled request of job %s cannot be read: %s", entry.key, type(error).__name__)
        return None


def unreadable(entry: Entry) -> JournalError:
    """
    Make the error for a key whose request cannot be read.
    """
    words = (
        "the journalled request cannot be read: it is damaged, or from another version;"
        " attach() waits for its task"
    )
    return JournalError(words, key=entry.key, task_id=entry.task_id)


def mismatch(entry: Entry) -> VeoError:
    """
    Make the error for a key whose journalled request differs from the one submitted now.
    """
    earlier = read_request(entry)
    return unreadable(entry) if earlier is None else key_conflict(entry.key, earlier, task_id=entry.task_id)

"""
Attempts and tasks as reconciling sees them, and what it decides about them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from ._echo import Verdict, compare, fingerprint, prompt_of
from ._results import is_id
from .errors import SubmissionUnknown

__all__ = [
    "Adopt",
    "Answer",
    "Attempt",
    "Decision",
    "GiveUp",
    "Listing",
    "OpenAttempt",
    "SendAgain",
    "Task",
    "read_tasks",
]

SLACK: Final = 10.0  # seconds by which the times in one record may differ
# Unix seconds: a `created_at` beyond it, or of 0, is none (milliseconds, an infinity, a default, a hoax).
FARTHEST: Final = 1e11


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit.

    Attributes:
        key: the job's idempotency key; a job has one attempt at a time that is not closed.
        number: the how-manieth of this job.
        body: what was sent, as a dict.
        began_at: when the sending began, by the server's clock, in Unix seconds.
        uncertainty: by how many seconds `began_at` may be wrong, where the server's clock was not yet known.
        doubt: by how many more it may be wrong if clocks were set: tasks of that span are not adopted, but they
            forbid sending again.
        nonce: the part of the body's callback URL that no other attempt has, or None.
        asked: the same number for the same request, or None where that is not known.
    """

    key: str
    number: int
    body: Mapping[str, Any] = field(eq=False, repr=False)
    began_at: float
    uncertainty: float = 0.0
    doubt: float = 0.0
    nonce: str | None = field(default=None, repr=False)
    asked: int | None = field(default=None, eq=False, repr=False)


@frozen(kw_only=True)
class Listing:
    """
    A question to ask: all of the account's tasks created since `created_from` (server's clock, Unix seconds).
    """

    created_from: float
    asked_at: float


# --- decisions -----------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Adopt:
    """
    The task is the attempt's: claim it in the journal, then tell `adopted` or `rejected`.

    `record` is None where a callback named the task.
    """

    attempt: Attempt
    task_id: str
    record: Mapping[str, Any] | None = field(default=None, eq=False, repr=False)


@frozen(kw_only=True)
class SendAgain:
    """
    The attempt bought nothing: the job may be sent again, as a new attempt.
    """

    attempt: Attempt


@frozen(kw_only=True)
class GiveUp:
    """
    Nobody can tell: the job settles with `error()`, and its key may be taken up again later.
    """

    attempt: Attempt
    candidates: tuple[str, ...]
    reason: str

    def error(self) -> SubmissionUnknown:
        return SubmissionUnknown(self.reason, sent_at=self.attempt.began_at, candidates=self.candidates)


Decision: TypeAlias = Adopt | SendAgain | GiveUp


# --- tasks ---------------------------------------------------------------------------------------------------


@frozen(eq=False)
class Task:
    """
    A record of the listing; `created_at` is None where it has no usable one.
    """

    id: str
    created_at: float | None
    raw: Mapping[str, Any]
    prompt: str | None = field(init=False)

    @prompt.default
    def _echoed(self) -> str | None:
        return prompt_of(self.raw.get("request"))

    @property
    def age(self) -> float:
        """
        Return how many seconds it has existed for certain, by its own times alone.
        """
        times = [_instant(self.raw.get(name)) for name in ("started_at", "finished_at")]
        latest = max((time for time in times if time is not None), default=-math.inf)
        return 0.0 if self.created_at is None else max(0.0, latest - self.created_at)

    def may_be_since(self, instant: float) -> bool:
        return self.created_at is None or self.created_at >= instant


def read_tasks(records: Sequence[object]) -> tuple[dict[str, Task], bool]:
    """
    Return the tasks by id, and whether each item was one and came once.
    """
    tasks: dict[str, Task] = {}
    for record in records:
        task_id = record.get("id") if isinstance(record, Mapping) else None
        if isinstance(record, Mapping) and is_id(task_id):
            tasks.setdefault(task_id, Task(task_id, _instant(record.get("created_at")), record))
    return tasks, len(tasks) == len(records)


def _instant(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < FARTHEST:
        return float(value)
    return None


# --- attempts that may have bought a task --------------------------------------------------------------------


@define(eq=False)
class OpenAttempt:
    """
    An attempt that may have bought a task: in flight while `ended_at` is None, then of unknown outcome.

    Attributes:
        since: tasks created before this cannot be its own (server's clock).
        told_at: of its sending (caller's clock, as all that follows but `reach`).
        reach: tasks created before this are not assigned to it; earlier than `since` after an identical
            attempt took a task that may have been its own, since it may then have to take the other's.
        claim: the task that it was told to adopt; decided, save for the journal's word.
        called: the task that a callback named while the submit was in flight.
        asked_at: of the last listing that counted.
        absences: how many of these lacked its task beyond doubt.
        late: how many of these were asked for after its grace.
        soon: whether another may tell more before long.
        possible: ids of the tasks that stood in its way when it was last judged.
    """

    attempt: Attempt
    since: float
    told_at: float
    reach: float = field(init=False)
    _mark: str | None = field(init=False, default=None)
    ended_at: float | None = None
    trace_id: str | None = None
    claim: str | None = None
    called: str | None = None
    asked_at: float = -math.inf
    absences: int = 0
    late: int = 0
    soon: bool = False
    possible: tuple[str, ...] = ()

    def __attrs_post_init__(self) -> None:
        self.reach = self.since

    @property
    def mark(self) -> str:
        """
        The fingerprint of its body, made when it is wanted: most attempts are answered, and need none.
        """
        if self._mark is None:
            self._mark = fingerprint(self.attempt.body)
        return self._mark

    @property
    def _echoed(self) -> str | None:
        """
        The prompt that a record must echo to come into question, or None where that is not all there is to it.
        """
        body = self.attempt.body
        return None if body.get("translation") or self.attempt.nonce else prompt_of(body)

    @property
    def in_flight(self) -> bool:
        return self.ended_at is None

    @property
    def undecided(self) -> bool:
        return self.ended_at is not None and self.claim is None

    def elapsed(self, now: float) -> float:
        """
        Return the seconds since it ended; negative while it had not.
        """
        return -math.inf if self.ended_at is None else now - self.ended_at

    def may_have(self, task: Task, *, received_at: float) -> bool:
        """
        Tell whether a task that is the same may be adopted: it was created since, and has not existed for longer.
        """
        return task.may_be_since(self.reach) and task.age <= received_at - self.told_at + SLACK

    def is_hindered_by(self, task: Task, *, margin: float) -> bool:
        """
        Tell whether the task may be its own, if the clock of the records is `margin` seconds behind.
        """
        return task.may_be_since(self.reach - margin - self.attempt.doubt)

    def judge(self, task: Task) -> Verdict:
        """
        Tell whether this attempt, or an identical one, bought the task.
        """
        verdict = compare(task.raw, self.attempt.body, nonce=self.attempt.nonce)
        certain = task.created_at is not None or self.attempt.nonce  # else it may be of an earlier sending
        return verdict if certain else max(verdict, Verdict.UNSURE)

    def candidates(self, tasks: Iterable[Task]) -> list[tuple[Task, Verdict]]:
        """
        Pick the tasks that this attempt, or an identical one, may have bought.
        """
        # Most records are of other prompts, which is soon seen: a thousand attempts may face a thousand records.
        prompt = self._echoed
        near = [task for task in tasks if prompt is None or task.prompt in (None, prompt)]
        judged = [(task, self.judge(task)) for task in near]
        return [(task, verdict) for task, verdict in judged if verdict is not Verdict.DIFFERENT]


@frozen
class Answer:
    """
    What a listing brought: for one group of identical attempts, the tasks in question that nobody took.

    Attributes:
        evidence: whether a task that is not there does not exist.
        held: ids of tasks that a submit in flight may have bought.
        margin: by how many seconds the clock of the records may be behind, as far as is known.
    """

    listing: Listing
    evidence: bool
    held: set[str]
    rest: Sequence[Task]
    margin: float

    def counts_for(self, unknown: OpenAttempt) -> bool:
        """
        Tell whether it was asked late enough, and for enough, to say something of this attempt.
        """
        asked_at = self.listing.asked_at
        ended = unknown.elapsed(asked_at) >= 0 and asked_at > unknown.asked_at
        return ended and self.listing.created_from <= unknown.reach - self.margin - unknown.attempt.doubt

    def possible(self, unknown: OpenAttempt) -> list[Task]:
        """
        Return the tasks that the attempt may have bought, if clocks differ as much as they may.
        """
        return [task for task in self.rest if unknown.is_hindered_by(task, margin=self.margin)]

"""
Whom to ask about, and when: the schedule of looks.

A *look* is one task asked about once; a *request* asks about up to `batch_size` tasks and is what costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Any, Final, Literal, Self

from attrs import Attribute, define, evolve, field, frozen

from ._durations import Durations, Outlook, bin_of
from .errors import ConfigurationError

__all__ = ["Durations", "PollPolicy", "Schedule"]

EVEN_GAP: Final = 10.0  # seconds; the longest gap until a task is well past the median
STRAGGLER: Final = 3.0  # times the median: from here on the gaps grow with the task's age
TYPICAL_HAZARD: Final = (
    0.02  # per second; the documented durations' at their median: `interval` is the gap there
)
PATIENCE: Final = 0.5  # intervals that a due look may wait for company
RETRY: Final = 1.0  # seconds until the tasks of a failed poll are asked again; the gate does the backing off
BACKOFF_FIRST: Final = 2.0  # seconds
BACKOFF_FACTOR: Final = 1.3
BACKOFF_MAX: Final = 10.0  # seconds
LONE_FIRST: Final = 10.0  # seconds until an id that a reply left out is asked alone: a replica may lag
LONE_GAP: Final = 40.0  # seconds between lone looks: four of them span two minutes
LONE_MISSES: Final = 4
LONE_SPAN: Final = 120.0  # seconds

_Validator = Callable[["PollPolicy", "Attribute[Any]", Any], None]


def _number(*, whole: bool = False, optional: bool = False) -> _Validator:
    """
    Accept positive finite numbers only.
    """

    def check(_: PollPolicy, attribute: Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        fits = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not fits or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
            wanted = "a whole number above 0" if whole else "a finite number above 0"
            raise ConfigurationError(f"{attribute.name} must be {wanted}, not {value!r}")

    return check


def _mode(_: PollPolicy, attribute: Attribute[Any], value: object) -> None:
    if value not in ("learned", "fixed", "backoff"):
        raise ConfigurationError(f"{attribute.name} must be learned, fixed or backoff, not {value!r}")


@frozen(kw_only=True)
class PollPolicy:
    """
    When to ask about tasks; the defaults need no thought.

    Attributes:
        mode: `learned` looks where tasks end, `fixed` every `interval`, `backoff` ever more rarely.
        interval: seconds between looks; in `learned` mode around the time when most tasks end.
        first_look: seconds from acceptance to the first look; None leaves it to the mode.
        max_gap: the longest gap between looks at a straggler, in seconds.
        batch_size: how many tasks one request asks about at most.
        budget: requests a second at most.
        deadline: seconds after acceptance until a job gives up waiting; None waits for ever.
    """

    mode: Literal["learned", "fixed", "backoff"] = field(default="learned", validator=_mode)
    interval: float = field(default=3.0, validator=_number())
    first_look: float | None = field(default=None, validator=_number(optional=True))
    max_gap: float = field(default=30.0, validator=_number())
    batch_size: int = field(default=50, validator=_number(whole=True))
    budget: float = field(default=10.0, validator=_number())
    deadline: float | None = field(default=1800.0, validator=_number(optional=True))
    _scale: float = field(default=1.0, alias="_scale", repr=False, validator=_number())

    def scaled(self, factor: float, /) -> Self:
        """
        Return the policy for a server that is slower by `factor`: durations times it, rates divided by it.
        """
        return evolve(
            self,
            interval=self.interval * factor,
            first_look=None if self.first_look is None else self.first_look * factor,
            max_gap=self.max_gap * factor,
            budget=self.budget / factor,
            deadline=None if self.deadline is None else self.deadline * factor,
            _scale=self._scale * factor,
        )


@define(eq=False, weakref_slot=False)
class _Task:
    """
    One waiting task: all that it costs.
    """

    id: str
    kind: str
    started_at: float
    deadline_at: float | None
    looks: int = 0
    bin: int = 0
    group: _Group | None = None

    def __lt__(self, other: _Task) -> bool:
        return self.deadline_at < other.deadline_at  # type: ignore[operator]


@define(eq=False, weakref_slot=False)
class _Group:
    """
    Tasks whose next look is due at the same time.
    """

    due_at: float
    urgent: bool = False
    tasks: list[_Task] = field(factory=list)

    def __lt__(self, other: _Group) -> bool:
        return self.due_at < other.due_at


@define(eq=False, weakref_slot=False)
class _Suspect:
    """
    A task that a reply left out.
    """

    due_at: float
    first_miss_at: float = math.inf
    misses: int = -1  # the miss in a batch, which raised the suspicion, does not count


@define(eq=False)
class Schedule:
    """
    Knows for every waiting task when the next look at it is due, and which tasks share a request.
    """

    _policy: PollPolicy
    _durations: Durations = field(kw_only=True)
    _batch_size: int = field(init=False)
    _tasks: dict[str, _Task] = field(init=False, factory=dict)
    _groups: list[_Group] = field(init=False, factory=list)
    _open: dict[str, _Group] = field(init=False, factory=dict)
    _deadlines: list[_Task] = field(init=False, factory=list)
    _suspects: dict[str, _Suspect] = field(init=False, factory=dict)
    _nudged: set[str] = field(init=False, factory=set)
    _gone: list[str] = field(init=False, factory=list)
    _outlooks: dict[str, Outlook] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._batch_size = self._policy.batch_size

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    @property
    def batch_size(self) -> int:
        """
        How many tasks one request may ask about: what the policy says, or what the server takes.
        """
        return self._batch_size

    def looks(self, task_id: str) -> int:
        """
        Return how often the task was seen pending; 0 for an unknown one.
        """
        task = self._tasks.get(task_id)
        return task.looks if task else 0

    def add(self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None) -> None:
        """
        Watch the task from now on; a known one keeps its schedule and the earlier of both deadlines.

        Args:
            kind: what its duration is learned under (action, model, resolution).
            started_at: when it was accepted, on the monotonic clock; may lie in the past.
            deadline_at: when to give up, or None.
        """
        task = self._tasks.get(task_id)
        if task is None:
            task = self._tasks[task_id] = _Task(task_id, kind, started_at, None)
            self._put(task, started_at + self._first(kind))
        if deadline_at is not None and (task.deadline_at is None or deadline_at < task.deadline_at):
            task = self._tasks[task_id]
            task.deadline_at = deadline_at
            heappush(self._deadlines, task)
            heapify(self._deadlines)

    def discard(self, task_id: str) -> None:
        """
        Forget the task, known or not.
        """
        task = self._tasks.pop(task_id, None)
        if task is not None:
            task.group = None
        self._suspects.pop(task_id, None)
        self._nudged.discard(task_id)

    def nudge(self, task_id: str, now: float) -> None:
        """
        Make the task due at once: a callback says that it ended.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        if task.group is None:
            self._nudged.add(task_id)
        elif not task.group.urgent:
            self._put(task, now, urgent=True)

    def next_due_at(self) -> float | None:
        """
        Return when the next request should go or the next deadline passes; None when nothing waits.
        """
        times = [suspect.due_at for suspect in self._suspects.values()]
        if self._groups:
            times.append(self._groups[0].due_at)
        if self._deadlines:
            times.append(self._deadlines[0].deadline_at or 0.0)
        return min(times, default=None)

    def take_batch(self, now: float) -> list[str]:
        """
        Return the ids to ask about in one request now, none if none is due; each is taken until reported on.
        """
        for task_id, suspect in self._suspects.items():
            if suspect.due_at <= now:
                suspect.due_at = math.inf
                return [task_id]
        if not self._groups or self._groups[0].due_at > now:
            return []
        taken: list[str] = []
        while self._groups and self._groups[0].due_at <= now + self._policy.interval:
            group = heappop(self._groups)
            live = [task for task in group.tasks if task.group is group]
            room = self._batch_size - len(taken)
            for task in live[:room]:
                task.group = None
                taken.append(task.id)
            group.tasks = live[room:]
            if group.tasks:
                heappush(self._groups, group)
                break
        return taken

    def looked(self, task_ids: Iterable[str], now: float) -> None:
        """
        Take note that these are still pending.
        """
        for task_id in task_ids:
            task = self._tasks.get(task_id)
            if task is None:
                continue
            task.looks += 1
            self._suspects.pop(task_id, None)
            if task_id in self._nudged:
                self._nudged.discard(task_id)
                self._put(task, now, urgent=True)
            else:
                self._put(task, now + self._gap(task, now))

    def unanswered(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these again soon: the poll itself failed, and no look is counted.
        """
        for task_id in task_ids:
            if (task := self._tasks.get(task_id)) is None:
                continue
            if (suspect := self._suspects.get(task_id)) is not None:
                suspect.due_at = now + RETRY * self._policy._scale
            else:
                self._put(task, now + RETRY * self._policy._scale)

    def missing(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these alone, later: a well-formed reply left them out.
        """
        scale = self._policy._scale
        for task_id in task_ids:
            if (task := self._tasks.get(task_id)) is None:
                continue
            task.group = None
            suspect = self._suspects.setdefault(task_id, _Suspect(math.inf))
            suspect.misses += 1
            suspect.due_at = now + (LONE_GAP if suspect.misses else LONE_FIRST) * scale
            if suspect.misses == 1:
                suspect.first_miss_at = now
            if suspect.misses >= LONE_MISSES and now - suspect.first_miss_at >= LONE_SPAN * scale:
                self._gone.append(task_id)

    def vanished(self, now: float) -> list[str]:
        """
        Forget and return the tasks that the server no longer knows.
        """
        gone, self._gone = self._gone, []
        gone = [task_id for task_id in gone if task_id in self._suspects]
        for task_id in gone:
            self.discard(task_id)
        return gone

    def ended(self, task_id: str, now: float, *, duration: float | None = None) -> None:
        """
        Forget the task, whose terminal record was seen, and learn how long it took.

        Args:
            duration: seconds by the record's own times; None leaves it to the looks.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        seconds = now - task.started_at if duration is None else duration
        self._durations.observe(task.kind, max(0.0, seconds) / self._policy._scale)
        self._outlooks.pop(task.kind, None)
        self.discard(task_id)

    def overdue(self, now: float) -> list[str]:
        """
        Forget and return the tasks that are past their deadline.
        """
        late: list[str] = []
        while self._deadlines and (self._deadlines[0].deadline_at or 0.0) <= now:
            task = heappop(self._deadlines)
            if self._tasks.get(task.id) is task:
                late.append(task.id)
                self.discard(task.id)
        return late

    def too_large(self, size: int) -> None:
        """
        Halve the batches: the server refused one of this size.
        """
        self._batch_size = max(1, min(self._batch_size, size // 2))

    def _put(self, task: _Task, due_at: float, *, urgent: bool = False) -> None:
        group = task.group = _Group(due_at, urgent, [task])
        heappush(self._groups, group)

    def _outlook(self, kind: str) -> Outlook:
        found = self._outlooks.get(kind)
        if found is None:
            price = (self._policy.interval / self._policy._scale) ** 2 * TYPICAL_HAZARD / 2
            found = self._outlooks[kind] = self._durations.outlook(kind, price)
        return found

    def _first(self, kind: str) -> float:
        policy = self._policy
        if policy.first_look is not None:
            return policy.first_look
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return BACKOFF_FIRST * policy._scale
        return self._outlook(kind).first * policy._scale

    def _gap(self, task: _Task, now: float) -> float:
        policy = self._policy
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return min(BACKOFF_FIRST * BACKOFF_FACTOR ** min(task.looks, 99), BACKOFF_MAX) * policy._scale
        age = (now - task.started_at) / policy._scale
        outlook = self._outlook(task.kind)
        gap = min(outlook.gaps[bin_of(age)], EVEN_GAP)
        stretch = max(1.0, age / (STRAGGLER * outlook.median))
        return min(gap * stretch * policy._scale, policy.max_gap)

"""
Whom to ask about, and when: the schedule of looks.

A *look* is one task asked about once; a *request* asks about up to `batch_size` tasks and is what costs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any, Final, Literal, Self

from attrs import Attribute, define, evolve, field, frozen

from ._durations import Durations, bin_of
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
ALIKE: Final = 0.25  # intervals; gaps that differ by less are one
FILL: Final = 10.0
FORGOTTEN: Final = 1000
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
    bin: int = 0  # of the life table: those before it are counted as outlived
    group: _Group | None = None  # None while it is being asked about, or suspected

    def __lt__(self, other: _Task) -> bool:
        """
        Order by deadline: the heap of deadlines holds nothing but tasks that have one.
        """
        return self.deadline_at < other.deadline_at  # type: ignore[operator]


@define(eq=False, weakref_slot=False)
class _Group:
    """
    Tasks whose next look is due at the same time; one that has moved on points to another group, or to none.
    """

    due_at: float
    tasks: list[_Task]
    urgent: bool = False

    def __lt__(self, other: _Group) -> bool:
        return self.due_at < other.due_at

    def waiting(self) -> list[_Task]:
        return [task for task in self.tasks if task.group is self]


@define(eq=False, weakref_slot=False)
class _Suspect:
    """
    A task that a reply left out.
    """

    due_at: float = math.inf
    misses: int = -1  # lone ones: the miss in a batch, which raised the suspicion, does not count
    first_miss_at: float = math.inf


@define(eq=False)
class Schedule:
    """
    Knows for every waiting task when the next look at it is due, and which tasks share a request.
    """

    _policy: PollPolicy
    _durations: Durations = field(kw_only=True)
    _batch_size: int = field(init=False)
    _price: float = field(init=False)
    _tasks: dict[str, _Task] = field(init=False, factory=dict)
    _groups: list[_Group] = field(init=False, factory=list)  # a heap
    _arrivals: dict[str, _Group] = field(init=False, factory=dict)  # the newest group of each kind
    _deadlines: list[_Task] = field(init=False, factory=list)  # a heap; holds forgotten tasks for a while
    _suspects: dict[str, _Suspect] = field(init=False, factory=dict)
    _lone: list[tuple[float, str]] = field(init=False, factory=list)  # a heap of (due_at, id)
    _gone: list[str] = field(init=False, factory=list)
    _nudged: set[str] = field(init=False, factory=set)  # while they were being asked about
    _request_at: float | None = field(init=False, default=None)  # None: to be worked out
    _horizon: float = field(init=False, default=-math.inf)  # a group due after this does not change it

    def __attrs_post_init__(self) -> None:
        self._batch_size = self._policy.batch_size
        self._price = (self._policy.interval / self._policy._scale) ** 2 * TYPICAL_HAZARD / 2

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

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

    # --- tasks come and go -----------------------------------------------------------------------------

    def add(self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None) -> None:
        """
        Watch the task from now on; of a known one, the earlier start and the earlier deadline hold.

        Args:
            kind: what its duration is learned under (action, model, resolution).
            started_at: when it was accepted, on the monotonic clock; may lie in the past.
            deadline_at: when to give up, or None.
        """
        known = self._tasks.get(task_id)
        if known is not None:
            self._merge(known, started_at, deadline_at)
            return
        task = self._tasks[task_id] = _Task(task_id, kind, started_at, deadline_at)
        self._arrive(task, started_at + self._first(kind))
        self._expect(task)

    def discard(self, task_id: str) -> None:
        """
        Forget the task, known or not.
        """
        task = self._tasks.pop(task_id, None)
        if task is not None:
            task.group = None
            self._suspects.pop(task_id, None)
            self._nudged.discard(task_id)

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
        stop = max(task.bin, bin_of(seconds / self._policy._scale))
        self._durations.died(task.kind, task.bin, stop)
        self.discard(task_id)

    def overdue(self, now: float) -> list[str]:
        """
        Forget and return the tasks that are past their deadline.
        """
        late: list[str] = []
        while (deadline_at := self.next_deadline_at()) is not None and deadline_at <= now:
            late.append(heappop(self._deadlines).id)
            self.discard(late[-1])
        return late

    def next_deadline_at(self) -> float | None:
        """
        Return when the next deadline passes; None when there is none.
        """
        heap = self._deadlines
        while heap and self._tasks.get(heap[0].id) is not heap[0]:
            heappop(heap)
        return heap[0].deadline_at if heap else None

    def _merge(self, task: _Task, started_at: float, deadline_at: float | None) -> None:
        task.started_at = min(task.started_at, started_at)
        if deadline_at is None or (task.deadline_at is not None and task.deadline_at <= deadline_at):
            return
        # A key inside a heap must not change: the task gets a new record, and the old one is forgotten.
        changed = self._tasks[task.id] = evolve(task, deadline_at=deadline_at, group=None)
        if task.group is not None:
            self._put([changed], task.group.due_at, urgent=task.group.urgent)
            task.group = None
        self._expect(changed)

    def _expect(self, task: _Task) -> None:
        if task.deadline_at is None:
            return
        heappush(self._deadlines, task)
        if len(self._deadlines) > 2 * len(self._tasks) + FORGOTTEN:
            self._deadlines = [kept for kept in self._deadlines if self._tasks.get(kept.id) is kept]
            heapify(self._deadlines)

    # --- whom to ask about, and when -------------------------------------------------------------------

    def next_due_at(self) -> float | None:
        """
        Return when the next request should go or the next deadline passes; None when nothing waits.
        """
        times = (self._next_request_at(), self._next_lone_at(), self.next_deadline_at())
        return min((at for at in times if at is not None), default=None)

    def take_batch(self, now: float) -> list[str]:
        """
        Return the ids to ask about in one request now, none if none is due; each is taken until reported on.
        """
        request_at, lone_at = self._next_request_at(), self._next_lone_at()
        if lone_at is not None and lone_at <= now and (request_at is None or lone_at <= request_at):
            return [heappop(self._lone)[1]]
        if request_at is None or request_at > now:
            return []
        return [task.id for task in self._fill(now + FILL * self._policy._scale)]

    def nudge(self, task_id: str, now: float) -> None:
        """
        Make the task due at once: a callback says that it has ended.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        if task_id in self._suspects:
            self._suspect(task_id, now)
        elif task.group is None:
            self._nudged.add(task_id)
        elif not task.group.urgent:
            self._put([task], now, urgent=True)

    def _next_request_at(self) -> float | None:
        """
        Return when the next full request should go: when its looks are due on average, but none long overdue.
        """
        if self._request_at is not None or not self._groups:
            return self._request_at
        popped: list[_Group] = []
        count, total, self._horizon, urgent_at = 0, 0.0, math.inf, math.inf
        while self._groups and count < self._batch_size and self._groups[0].due_at <= self._horizon:
            group = heappop(self._groups)
            group.tasks = group.waiting()
            if not group.tasks:
                continue
            if not popped:
                self._horizon = group.due_at + PATIENCE * self._policy.interval
            popped.append(group)
            share = min(len(group.tasks), self._batch_size - count)
            count += share
            total += share * group.due_at
            if group.urgent:
                urgent_at = min(urgent_at, group.due_at)
        for group in popped:
            heappush(self._groups, group)
        if count:
            self._request_at = min(total / count, urgent_at)
        return self._request_at

    def _fill(self, horizon: float) -> list[_Task]:
        self._request_at = None
        taken: list[_Task] = []
        while self._groups and len(taken) < self._batch_size and self._groups[0].due_at <= horizon:
            group = heappop(self._groups)
            waiting = group.waiting()
            room = self._batch_size - len(taken)
            taken += waiting[:room]
            group.tasks = waiting[room:]
            if group.tasks:
                heappush(self._groups, group)
        for task in taken:
            task.group = None
        return taken

    def _next_lone_at(self) -> float | None:
        while self._lone:
            due_at, task_id = self._lone[0]
            suspect = self._suspects.get(task_id)
            if suspect is not None and suspect.due_at == due_at:
                return due_at
            heappop(self._lone)
        return None

    def _arrive(self, task: _Task, due_at: float) -> None:
        """
        Let a new task wait together with those of its kind that came just before it.
        """
        group = self._arrivals.get(task.kind)
        near = PATIENCE * self._policy.interval
        if group and 0 < len(group.tasks) < self._batch_size and abs(group.due_at - due_at) <= near:
            group.tasks.append(task)
            task.group = group
        else:
            self._arrivals[task.kind] = self._put([task], due_at)

    def _put(self, tasks: list[_Task], due_at: float, *, urgent: bool = False) -> _Group:
        group = _Group(due_at, tasks, urgent)
        for task in tasks:
            task.group = group
        heappush(self._groups, group)
        if due_at <= self._horizon:
            self._request_at = None
        return group

    # --- what came of it -------------------------------------------------------------------------------

    def looked(self, task_ids: Iterable[str], now: float) -> None:
        """
        Take note that these are still pending, and plan the next look at them.
        """
        alike: dict[int, tuple[float, list[_Task]]] = {}
        for task in self._known(task_ids):
            task.looks += 1
            self._suspects.pop(task.id, None)
            gap = 0.0 if task.id in self._nudged else self._gap(task, now)
            alike.setdefault(int(gap / self._policy.interval / ALIKE), (gap, []))[1].append(task)
        for gap, tasks in alike.values():
            self._put(tasks, now + gap, urgent=not gap)
        self._nudged.difference_update(task_ids)

    def unanswered(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these again soon: the poll itself failed, and no look is counted.
        """
        due_at = now + RETRY * self._policy._scale
        again = []
        for task in self._known(task_ids):
            if task.id in self._suspects:
                self._suspect(task.id, due_at)
            else:
                again.append(task)
        if again:
            self._put(again, due_at)

    def missing(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these alone, later: a well-formed reply left them out.
        """
        scale = self._policy._scale
        for task in self._known(task_ids):
            suspect = self._suspects.setdefault(task.id, _Suspect())
            suspect.misses += 1
            if suspect.misses == 1:
                suspect.first_miss_at = now
            self._suspect(task.id, now + (LONE_GAP if suspect.misses else LONE_FIRST) * scale)
            if suspect.misses >= LONE_MISSES and now - suspect.first_miss_at >= LONE_SPAN * scale:
                self._gone.append(task.id)

    def vanished(self, now: float) -> list[str]:
        """
        Forget and return the tasks that the server no longer knows.
        """
        gone = [task_id for task_id in self._gone if task_id in self._suspects]
        self._gone = []
        for task_id in gone:
            self.discard(task_id)
        return gone

    def too_large(self, size: int) -> None:
        """
        Halve the batches for good: the server refused one of this size.
        """
        self._batch_size = max(1, min(self._batch_size, size // 2))
        self._request_at = None

    def _known(self, task_ids: Iterable[str]) -> list[_Task]:
        return [self._tasks[task_id] for task_id in task_ids if task_id in self._tasks]

    def _suspect(self, task_id: str, due_at: float) -> None:
        self._suspects[task_id].due_at = due_at
        heappush(self._lone, (due_at, task_id))

    # --- the gaps --------------------------------------------------------------------------------------

    def _first(self, kind: str) -> float:
        policy = self._policy
        if policy.first_look is not None:
            return policy.first_look
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return BACKOFF_FIRST * policy._scale
        return self._durations.outlook(kind, self._price).first * policy._scale

    def _gap(self, task: _Task, now: float) -> float:
        policy = self._policy
        age = (now - task.started_at) / policy._scale
        index = max(task.bin, bin_of(age))
        if index > task.bin:
            self._durations.survived(task.kind, task.bin, index)
            task.bin = index
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return min(BACKOFF_FIRST * BACKOFF_FACTOR ** min(task.looks, 99), BACKOFF_MAX) * policy._scale
        outlook = self._durations.outlook(task.kind, self._price)
        gap = min(outlook.gaps[index], EVEN_GAP)
        stretch = max(1.0, age / (STRAGGLER * outlook.median))
        return min(gap * stretch * policy._scale, policy.max_gap)

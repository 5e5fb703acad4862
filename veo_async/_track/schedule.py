"""
Whom to ask about, and when: the schedule of looks.

A *look* is one task asked about once; a *request* carries up to `batch_size` looks.
Requests are what the server counts and what the budget limits; lag, the time from a task's end until
somebody notices, is what the caller feels.
Everything here trades the one for the other.

**When is a look worth it?** A task that was pending at the last look may have ended since.
Its *expected lag* is the time it has been over by now, averaged over what may have happened: nothing at
first, then growing with the square of the time since the look, the faster the likelier its end.
The next look is due when the expected lag has grown to the *price* of a look.
That is the whole rule, and it is close to the best any sequence of looks can do: nothing is asked before it
can plausibly be ready, looks are densest where most tasks end, and the chance of an end comes from what the
session has seen (`_durations`), so the price is the only knob: `interval` sets it.
The first look is the same rule, from acceptance on.
What depends on age alone is tabulated, so a look costs a table access.

Two bounds guard against odd tables: gaps stay at most `EVEN_GAP` until a task is `STRAGGLER` times the learned
median old, and grow from there on with its age, up to `max_gap`.

**When does a request go?** Looks that fall due together become a *group*; the groups are a heap by due time.
The next request is made of the groups at the top, as many as fill it.
It goes when its looks are due on average: some a little late, some early, so that one request does the work of
two half-empty ones. None waits longer than the patience for that.
In a crowd the groups of one patience fill several requests. These go together as a *volley*, when all their looks
are due on average: who wakes up ten times as rarely for ten times as much spends half the CPU on a request.
A request that goes anyway is filled up with the looks that come next.
A request with few looks costs as much as a full one, so each look in it is priced up a little (`LONELY`).

**Under a tight budget** all groups are late, and the longest overdue go first. That starves nobody, and in
simulated backlogs it comes within a tenth of the lag that sorting every waiting task by its gain would give.
A task that a callback speaks of gets a head start of fixed length, which starves nobody either.

**When an answer cannot be read**, one of those asked about may be to blame, or their number. They are asked about
again by halves, each in a request of its own (*apart*), until it is found or all is well; who is to blame, or is
left out of a reply, is asked about alone from then on (`_suspects`).

**When an answer is long in coming**, those asked about must not wait for it. They are asked about again, by halves
as well, so that who makes answers long is soon alone; the answer still counts when it comes.

**When callbacks come** (`_hints`), each is a reason to look at its task at once, or when its window closes, or with
the next request that goes anyway. What room there is in that request is filled as always, so it does the work of
polling as well; and as long as callbacks announce nearly every end, gaps are longer, up to `EVEN_GAP`.
A record that is still pending then may lag behind its callback, so the next look comes soon.

**What a waiting task costs** is one small record, in one dict, in one group's list, in the heap of deadlines.
A task that moves on is not searched for in the group it leaves: its record points to its new group, and the old
one drops it when its turn comes.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from attrs import define, evolve, field

from .._policies import PollPolicy
from .callbacks import RARER, Hints
from .durations import EDGES, ENDS, LAST_BIN, Durations, bin_of
from .missing import Suspects

__all__ = ["Durations", "Schedule"]

# Seconds here are those of an unscaled policy.
# The chance per second that a documented task ends near the median, where gaps are then about `interval`;
# trimmed until 1,000 jobs have the lag of a loop over all of them (`benchmarks/schedule.py`).
TYPICAL_HAZARD: Final = 0.0135
LONELY: Final = 2.0  # looks; what a request costs beyond the looks in it
EVEN_GAP: Final = 10.0  # seconds; the longest gap until a task is well past the median
STRAGGLER: Final = 3.0  # medians; from this age on the gaps grow
LEAST_PRICE: Final = 1e-9  # seconds of lag; keeps the arithmetic of absurdly short intervals finite
ALIKE: Final = 0.25  # intervals; gaps that differ by less share a group
LEAST_ALIKE: Final = 1e-3  # seconds
RETRY: Final = 1.0  # seconds until the tasks of a failed poll are asked again; the gate does the backing off
DECLINED_STEPS: Final = 9  # doublings of that, past any maximum
SURELY_FITS: Final = 12  # [D] the default of `limit`: a question about no more is not refused for its size
SLOW: Final = 5.0  # seconds; an answer that takes longer is not waited for
LEAST_SLOW: Final = 1.0  # seconds, also of a scaled policy: the network does not scale
NUDGED: Final = "nudged"  # no kind of request is called so
HEAD_START: Final = 60.0  # seconds; a task known to have ended passes looks that are overdue by less
BACKOFF_FIRST: Final = 2.0  # seconds
BACKOFF_FACTOR: Final = 1.3
BACKOFF_MAX: Final = 10.0  # seconds
BACKOFF_STEPS: Final = 99  # past any maximum, and short of an overflow
FORGOTTEN: Final = 1000  # forgotten tasks that the heap of deadlines may hold besides as many as are known


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
    found: bool = False  # rather than accepted here: it is older than it was watched
    group: _Group | None = None  # None while it is being asked about, or suspected

    def __lt__(self, other: _Task) -> bool:
        """
        Order by deadline; the heap of deadlines holds nothing but tasks that have one.
        """
        return self.deadline_at < other.deadline_at  # type: ignore[operator]

    def leave(self) -> None:
        """
        Wait in no group any more; the one that is left drops the task when its turn comes.
        """
        if self.group is not None:
            self.group.was_left = True
            self.group = None


@define(eq=False, weakref_slot=False)
class _Group:
    """
    Tasks whose next look is due at the same time, among them some that have moved on.
    """

    due_at: float
    tasks: list[_Task]
    latest_at: float = math.inf  # they wait for company no longer than this
    apart: bool = False  # it shares a request with no other
    was_left: bool = False  # by tasks that have not been dropped yet

    def __lt__(self, other: _Group) -> bool:
        return self.due_at < other.due_at

    def drop_moved(self) -> bool:
        """
        Drop the tasks that have moved on, and tell whether any is left.
        """
        if self.was_left:
            self.tasks = [task for task in self.tasks if task.group is self]
            self.was_left = False
        return bool(self.tasks)


@define(eq=False)
class Schedule:
    """
    Knows for every waiting task when the next look at it is due, and which tasks share a request.
    """

    _policy: PollPolicy
    _durations: Durations = field(kw_only=True)
    _batch_size: int = field(init=False)
    _fits: int = field(init=False, default=SURELY_FITS)  # so many at once were answered
    _declined: int = field(init=False, default=0)  # questions in a row
    _price: float = field(init=False)  # of a look in a full request, in unscaled seconds of expected lag
    _alike: float = field(init=False)  # seconds
    _patience: float = field(init=False)  # seconds that a due look may wait for company
    _even_gap: float = field(init=False)  # seconds
    _ends: Sequence[float] = field(init=False)  # of the bins of age, in seconds
    _tasks: dict[str, _Task] = field(init=False, factory=dict)
    _groups: list[_Group] = field(init=False, factory=list)  # a heap
    _arrivals: dict[str, _Group] = field(init=False, factory=dict)  # the newest of each kind, and of nudges
    _request_at: float | None = field(init=False, default=None)  # None: to be worked out
    _volley: int = field(init=False, default=0)  # requests left that go at `_request_at`
    _horizon: float = field(init=False, default=-math.inf)  # what is due later leaves `_request_at` alone
    _nudged: set[str] = field(init=False, factory=set)  # while they were being asked about
    _hints: Hints = field(init=False)
    _suspects: Suspects = field(init=False)
    _deadlines: list[_Task] = field(init=False, factory=list)  # a heap; holds forgotten tasks for a while

    def __attrs_post_init__(self) -> None:
        policy = self._policy
        self._batch_size = policy.batch_size
        self._hints = Hints(policy.batch_size)
        self._suspects = Suspects(policy._scale)
        self._ends = [end * policy._scale for end in ENDS]
        interval = policy.interval / policy._scale
        self._price = max(TYPICAL_HAZARD * interval * interval / 2, LEAST_PRICE)
        self._alike = max(ALIKE * interval, LEAST_ALIKE) * policy._scale
        first_gap = BACKOFF_FIRST * policy._scale
        self._patience = min(policy.interval, first_gap) if policy.mode == "backoff" else policy.interval
        self._even_gap = max(EVEN_GAP * policy._scale, policy.interval)

    def __repr__(self) -> str:
        return f"<Schedule: {len(self._tasks)} tasks in {len(self._groups)} groups, {len(self._suspects)} suspects>"

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

    @property
    def slow_after(self) -> float:
        """
        After how many seconds an answer is long in coming, from a server that is quick as a rule.
        """
        return max(SLOW * self._policy._scale, LEAST_SLOW)

    def looks(self, task_id: str) -> int:
        """
        Return how often the task was seen pending; 0 for an unknown one.
        """
        task = self._tasks.get(task_id)
        return task.looks if task else 0

    def expected_at(self, task_id: str) -> float | None:
        """
        Return when tasks of its kind that began with it have mostly ended; None where its beginning is not known.
        """
        task = self._tasks.get(task_id)
        if task is None or task.found:
            return None
        outlook = self._durations.outlook(task.kind, self._price)
        return task.started_at + outlook.mostly * self._policy._scale

    # --- tasks come and go -----------------------------------------------------------------------------

    def add(
        self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None, found: bool = False
    ) -> float:
        """
        Watch the task from now on; of a known one, the earlier start and the earlier deadline hold.

        Returns when anything is due on its account at the earliest.

        Args:
            kind: what its duration is learned under (action, model, resolution).
            started_at: when it was accepted, on the monotonic clock; may lie in the past.
            deadline_at: when to give up, or None.
            found: it was accepted some time before `started_at`, nobody knows when.
        """
        known = self._tasks.get(task_id)
        if known is not None:
            self._merge(known, started_at, deadline_at)
            return -math.inf
        task = self._tasks[task_id] = _Task(task_id, kind, started_at, deadline_at, found=found)
        due_at = started_at + self._first_gap(kind)
        self._arrive(task, due_at, among=kind)
        self._expect(task)
        return due_at if deadline_at is None else min(due_at, deadline_at)

    def discard(self, task_id: str) -> None:
        """
        Forget the task, known or not.
        """
        task = self._tasks.pop(task_id, None)
        if task is not None:
            if task.group is not None and (self._horizon == -math.inf or task.group.due_at <= self._horizon):
                self._request_at = None  # what is left of a volley may not be worth it without the task
            task.leave()
            self._suspects.forget(task_id)
            self._nudged.discard(task_id)
            self._hints.forget(task_id)

    def ended(self, task_id: str, now: float, *, duration: float | None = None) -> None:
        """
        Forget the task, whose terminal record was seen, and learn how long it took.

        Args:
            duration: seconds by the record's own times; None where they do not tell.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        seconds = self._lasted(task, now, duration)
        if seconds is not None:
            self._durations.died(task.kind, task.bin, max(task.bin, bin_of(seconds)))
        self._hints.ended(task_id)
        self.discard(task_id)

    def _lasted(self, task: _Task, now: float, told: float | None) -> float | None:
        """
        Return how long a task that has ended took, in unscaled seconds, or None where nobody knows.
        """
        watched = (now - task.started_at) / self._policy._scale
        if told is None or not 0 <= told < math.inf:
            return None if task.found else watched
        told /= self._policy._scale
        if task.found:
            # Past all that is counted, the times in the record are in another unit, or none.
            return told if told < EDGES[-1] else None
        return min(told, watched)  # it was accepted here, and has ended

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
        group = task.group
        task.leave()
        changed = self._tasks[task.id] = evolve(task, deadline_at=deadline_at)
        if group is not None:
            self._put([changed], group.due_at, group.latest_at)
        self._expect(changed)

    def _expect(self, task: _Task) -> None:
        if task.deadline_at is None:
            return
        heappush(self._deadlines, task)
        if len(self._deadlines) > 2 * len(self._tasks) + FORGOTTEN:
            self._deadlines = [kept for kept in self._deadlines if self._tasks.get(kept.id) is kept]
            heapify(self._deadlines)

    def _arrive(self, task: _Task, due_at: float, *, among: str) -> None:
        """
        Let a task wait together with those of its kind that came just before it.
        """
        task.leave()
        group = self._arrivals.get(among)
        if group:
            group.drop_moved()  # the task itself, perhaps
        if group and 0 < len(group.tasks) < self._batch_size and 0 <= due_at - group.due_at <= self._patience:
            group.tasks.append(task)
            task.group = group
        else:
            self._arrivals[among] = self._put([task], due_at)

    # --- whom to ask about, and when -------------------------------------------------------------------

    def next_due_at(self) -> float | None:
        """
        Return when the next request should go, a deadline passes or a task has vanished; None when nothing waits.
        """
        times = [self._next_request_at(), self._hints.ask_at, self.next_deadline_at()]
        if self._suspects:
            times += self._suspects.next_at(), self._suspects.next_vanished_at()
        return min((at for at in times if at is not None), default=None)

    def take_batch(self, now: float) -> list[str]:
        """
        Return the ids to ask about in one request now, none if none is due; each is taken until reported on.
        """
        self._follow_hints(now)
        request_at, lone_at = self._next_request_at(), self._suspects.next_at()
        if lone_at is not None and lone_at <= now and (request_at is None or lone_at <= request_at):
            return [self._suspects.take()]
        if request_at is None or request_at > now:
            return []
        return self._take_until(now + self._even_gap)

    def nudge(self, task_id: str, now: float) -> None:
        """
        Make the task due at once: it may well have ended.
        """
        task, due_at = self._tasks.get(task_id), now - HEAD_START * self._policy._scale
        if task is None or self._suspects.hurry(task_id, due_at):
            return
        if task.group is None:
            self._nudged.add(task_id)  # the answer under way may have been written before the end
        elif task.group.due_at > due_at:
            self._arrive(task, due_at, among=NUDGED)

    def hint(self, task_id: str, now: float, *, window: float = 0.0) -> bool:
        """
        Make the task due within `window` seconds: a callback says that it has ended.

        Those of which callbacks speak by then share a request. Tells whether the hint changes anything.
        """
        return task_id in self._tasks and self._hints.add(task_id, now, window)

    def _follow_hints(self, now: float) -> None:
        """
        Make the tasks of which callbacks speak due, if their window is over or a request goes anyway.
        """
        ask_at, request_at = self._hints.ask_at, self._next_request_at()
        if ask_at is None:
            return
        if ask_at <= now or (request_at is not None and request_at <= now):
            for task_id in self._hints.take():
                self.nudge(task_id, now)

    def _next_request_at(self) -> float | None:
        """
        Return when the looks of the next full requests are due on average.
        """
        if self._request_at is None and self._groups:
            top = self._top()
            full = sum(len(group.tasks) for group in top) // self._batch_size
            self._volley = max(1, min(full, self._policy._at_once))
            total, count, latest_at = 0.0, 0, math.inf
            for group in top:
                share = min(len(group.tasks), self._volley * self._batch_size - count)
                total, count = total + share * group.due_at, count + share
                latest_at = min(latest_at, group.latest_at)
                heappush(self._groups, group)
            self._request_at = min(total / count, latest_at) if count else None
        return self._request_at

    def _top(self) -> list[_Group]:
        """
        Pop the groups that the next requests should wait for.
        """
        top: list[_Group] = []
        room, self._horizon = self._policy._at_once * self._batch_size, math.inf
        while self._groups and room > 0 and self._groups[0].due_at <= self._horizon:
            group = heappop(self._groups)
            if group.drop_moved():
                top.append(group)
                room -= len(group.tasks)
                self._horizon = top[0].due_at + self._patience
        return top

    def _take_until(self, horizon: float) -> list[str]:
        """
        Take a request's worth of the tasks that are due by the horizon, the earliest first, and return their ids.
        """
        taken: list[_Task] = []
        while self._groups and len(taken) < self._batch_size and self._groups[0].due_at <= horizon:
            if taken and self._groups[0].apart:
                break
            group, room = heappop(self._groups), self._batch_size - len(taken)
            group.drop_moved()
            taken += group.tasks[:room]
            group.tasks = group.tasks[room:]
            if group.tasks:
                heappush(self._groups, group)
            if group.apart:
                break
        for task in taken:
            task.group = None
        self._volley -= 1
        if self._volley > 0:
            self._horizon = -math.inf  # the rest follows at once, whatever becomes due meanwhile
        else:
            self._request_at = None
        return [task.id for task in taken]

    def _put(self, tasks: list[_Task], due_at: float, latest_at: float = math.inf) -> _Group:
        group = _Group(due_at, tasks, latest_at)
        for task in tasks:
            if task.group is not None:
                task.leave()
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
        tasks = self._known(task_ids)
        if self._suspects:
            for task in tasks:
                self._suspects.forget(task.id)
        dearer = math.sqrt(1 + LONELY / len(tasks)) if tasks else 1.0
        alike: dict[int, tuple[float, list[_Task]]] = {}
        cohorts, outlived = self._cohorts(tasks, now)
        for cohort in cohorts:
            for gap, some in self._as_hinted(cohort, self._gap(cohort[0], now, dearer)):
                same = int(gap / self._alike)
                if same in alike:
                    alike[same][1].extend(some)
                else:
                    alike[same] = (gap, some)
        for gap, group in alike.values():
            self._put(group, now + gap, now + max(gap, self._even_gap))
        # Not before the gaps are told: who has ended by the same reply is not counted yet.
        for (kind, start, stop), count in outlived.items():
            self._durations.survived(kind, start, stop, count=count)
        self._renew_nudges(tasks, now)

    def unanswered(self, task_ids: Iterable[str], now: float, *, declined: bool = False) -> None:
        """
        Ask about these again soon: the poll itself failed, and no look is counted.

        Args:
            declined: the server is well and did not want to answer, which the gate lets pass; so it is asked
                ever more rarely until it does.
        """
        tasks = self._known(task_ids)
        again = [task for task in tasks if task.id not in self._suspects]
        delay = min(RETRY * 2.0 ** min(self._declined, DECLINED_STEPS), EVEN_GAP) if declined else RETRY
        self._declined += declined
        if again:
            self._put(again, now + delay * self._policy._scale)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.unanswered(task.id, now)
        self._renew_nudges(tasks, now)

    def spoilt(self, task_ids: Sequence[str], now: float, *, too_large: bool = False) -> None:
        """
        Ask about these again soon, in two halves: what came as an answer could not be read.

        One of them may be to blame, or their number; halves of halves find that out, at the cost of few.

        Args:
            too_large: it was their number, so fewer are asked about at once from now on.
        """
        if len(task_ids) == 1:
            self.unreadable(task_ids, now)
            return
        if too_large:
            self._batch_size = min(self._batch_size, (len(task_ids) + 1) // 2)
        tasks = self._known(task_ids)
        self._halve(tasks, now + RETRY * self._policy._scale)
        self.unreadable([task_id for task_id in task_ids if task_id in self._suspects], now)
        self._renew_nudges(tasks, now)

    def overlong(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these again at once, in two halves, beside the question whose answer is long in coming.
        """
        tasks = self._known(task_ids)
        self._halve(tasks, now)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.ask_at(task.id, now)

    def waiting(self, task_ids: Iterable[str]) -> list[str]:
        """
        Return those of these that nobody is asking about right now.
        """
        return [task.id for task in self._known(task_ids) if task.group is not None]

    def _halve(self, tasks: list[_Task], due_at: float) -> None:
        half = (len(tasks) + 1) // 2
        tasks = [task for task in tasks if task.id not in self._suspects]
        for some in filter(None, (tasks[:half], tasks[half:])):
            self._put(some, due_at).apart = True

    def unreadable(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about each of these alone: they are known, and what is said of them could not be read.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.unreadable(task.id, now)
        self._renew_nudges(tasks, now)

    def missing(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these alone, later: a well-formed reply left them out.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.missed(task.id, now)
            self._is_checked(task)
        self._renew_nudges(tasks, now)

    def vanished(self, now: float) -> list[str]:
        """
        Forget and return the tasks that the server has not known for long enough.
        """
        gone = self._suspects.vanished(now)
        for task_id in gone:
            self.discard(task_id)
        return gone

    def answered(self, size: int) -> None:
        """
        Take note that the server answers so many at once.
        """
        self._fits, self._declined = max(self._fits, size), 0

    def refused(self, task_ids: Sequence[str], now: float) -> None:
        """
        Ask about these in another way: the server refused the question.

        More at once than it has ever answered are halved, for good; else one of them is to blame, and each is
        asked alone. Where that shows which, it was no matter of size.
        """
        size, self._request_at = len(task_ids), None
        if size > max(self._fits, 1):
            self._batch_size = max(1, min(self._batch_size, size // 2))
            self.unanswered(task_ids, now)
            return
        self._fits = size // 2  # should it be a matter of size after all
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            if self._suspects.refused(task.id, now) and size == 1:
                self._batch_size = self._policy.batch_size
        self._renew_nudges(tasks, now)

    def _known(self, task_ids: Iterable[str]) -> list[_Task]:
        return list(filter(None, map(self._tasks.get, dict.fromkeys(task_ids))))

    def _renew_nudges(self, tasks: list[_Task], now: float) -> None:
        for task in tasks if self._nudged else ():
            if task.id in self._nudged:
                self._nudged.discard(task.id)
                self.nudge(task.id, now)

    # --- the gaps --------------------------------------------------------------------------------------

    def _first_gap(self, kind: str) -> float:
        """
        Return how long after its acceptance the first look at a task is due, in seconds.
        """
        policy = self._policy
        if policy.first_look is not None:
            return policy.first_look
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return BACKOFF_FIRST * policy._scale
        return self._durations.outlook(kind, self._price).first * policy._scale

    def _as_hinted(self, cohort: list[_Task], gap: float) -> Iterable[tuple[float, list[_Task]]]:
        """
        Tell whom of a cohort to look at after which gap, in seconds, as callbacks change it.
        """
        hints, interval = self._hints, self._policy.interval
        if not hints and not hints.working:
            return [(gap, cohort)]
        rarer = max(gap, min(RARER * gap, self._even_gap)) if hints.working else gap
        return [(min(gap, interval) if self._is_checked(task) else rarer, [task]) for task in cohort]

    def _is_checked(self, task: _Task) -> bool:
        """
        Tell whether this look was the answer to a hint, and take it as one.
        """
        return bool(self._hints) and task.id not in self._nudged and self._hints.checked(task.id)

    def _cohorts(
        self, tasks: Iterable[_Task], now: float
    ) -> tuple[Iterable[list[_Task]], Mapping[tuple[str, int, int], int]]:
        """
        Count the look at tasks that are seen pending, and sort them into those with one and the same gap.

        Tells too how many of a kind have come from which bin to which.
        """
        scale, by_looks, ends = self._policy._scale, self._policy.mode == "backoff", self._ends
        cohorts = defaultdict[tuple[str, int], list[_Task]](list)
        outlived = defaultdict[tuple[str, int, int], int](int)
        for task in tasks:
            task.looks += 1
            age = now - task.started_at
            if age >= ends[task.bin]:
                reached = max(task.bin, bin_of(age / scale))
                outlived[task.kind, task.bin, reached] += 1
                task.bin = reached
            cohorts[task.kind, task.looks if by_looks else task.bin].append(task)
        # The last bin has no end, so those in it may differ in age, and with it in their gaps.
        even = [cohort for cohort in cohorts.values() if cohort[0].bin < LAST_BIN]
        even += [[task] for cohort in cohorts.values() if cohort[0].bin == LAST_BIN for task in cohort]
        return even, outlived

    def _gap(self, task: _Task, now: float, dearer: float) -> float:
        """
        Return how long after a look the next one at this task, and those of its cohort, is due, in seconds.
        """
        policy = self._policy
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            grown = BACKOFF_FIRST * BACKOFF_FACTOR ** min(task.looks, BACKOFF_STEPS)
            return min(grown, BACKOFF_MAX) * policy._scale
        outlook = self._durations.outlook(task.kind, self._price)
        gap = min(dearer * outlook.gap(task.bin) * policy._scale, self._even_gap)
        late = (now - task.started_at) / policy._scale / (STRAGGLER * outlook.median)
        return min(gap * max(1.0, late), policy.max_gap)

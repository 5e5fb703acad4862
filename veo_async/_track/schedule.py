"""
The schedule of looks: which tasks to poll, and when.

A *look* is one query about one task; a *request* carries a batch of looks.
The server counts requests, and the budget limits them. The caller notices the lag: the time from a task's end until
a look shows it. The schedule trades requests for lag.
`poll_intervals` tells how long to wait until the next look, and `batches` which tasks share a request. This module
decides what a reply, a failure or a callback means for them.

**If an answer cannot be read**, the cause may be one of its tasks, or their number. The tasks are polled again in
halves, each in its own request (*apart*), until the cause is found or every answer can be read. From then on that
task is polled alone, as is a task that a reply left out (`missing_tasks`).

**If an answer is late**, its tasks do not wait for it. They are polled again, in halves as well, so that a task that
makes answers late is soon alone. The late answer still counts when it comes.

**Callbacks** (`callback_hints`) are reasons to look at a task: at once, when the window closes, or with the next
request that goes anyway. The rest of that request is filled as usual, so it replaces a poll. As long as callbacks
announce nearly every end, gaps are longer, up to `Gaps.normal_max`.
A record that is still pending after a callback may lag behind it, so the next look comes soon.
A task with a callback gets a fixed head start, so no other task starves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from attrs import define, evolve, field

from .._policies import PollPolicy
from .batches import Batches
from .callback_hints import GAP_FACTOR, Hints
from .durations import Durations
from .missing_tasks import Suspects
from .poll_intervals import Gaps
from .waiting_tasks import Task

__all__ = ["Schedule"]

NUDGED: Final = "nudged"  # a queue's name; no kind of request has this name
# A nudged task goes before looks that are overdue by less; in seconds of an unscaled policy.
HEAD_START: Final = 60.0
MAX_FORGOTTEN: Final = 1000  # forgotten tasks in the heap of deadlines, in addition to as many as are known


@define(eq=False)
class Schedule:
    """
    Knows when the next look at each waiting task is due, and which tasks share a request.
    """

    _policy: PollPolicy
    _durations: Durations = field(kw_only=True)
    _gaps: Gaps = field(init=False)
    _batches: Batches = field(init=False)
    _hints: Hints = field(init=False)
    _suspects: Suspects = field(init=False)
    _tasks: dict[str, Task] = field(init=False, factory=dict)
    _declined: int = field(init=False, default=0)  # queries in a row
    _nudged: set[str] = field(init=False, factory=set)  # nudged while they were being polled
    _deadlines: list[Task] = field(init=False, factory=list)  # a heap; holds forgotten tasks for a while

    def __attrs_post_init__(self) -> None:
        self._gaps = Gaps(self._policy, self._durations)
        self._batches = Batches(self._policy, self._gaps.patience)
        self._hints = Hints(self._policy.batch_size)
        self._suspects = Suspects(self._gaps.scale)

    def __repr__(self) -> str:
        return f"<Schedule: {len(self._tasks)} tasks in {len(self._batches)} groups, {len(self._suspects)} suspects>"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    @property
    def batch_size(self) -> int:
        """
        The most tasks in one request, by the policy or by what the server accepts.
        """
        return self._batches.size

    @property
    def slow_after(self) -> float:
        """
        The number of seconds after which an answer is late, if the server is usually fast.
        """
        return self._gaps.slow_after

    def looks(self, task_id: str) -> int:
        """
        Return how many looks have shown the task pending; 0 for an unknown task.
        """
        task = self._tasks.get(task_id)
        return task.looks if task else 0

    def expected_at(self, task_id: str) -> float | None:
        """
        Return when most tasks of its kind that started with it have ended; None if its start is unknown.
        """
        task = self._tasks.get(task_id)
        return self._gaps.expected_at(task) if task else None

    # --- tasks come and go -----------------------------------------------------------------------------

    def add(
        self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None, found: bool = False
    ) -> float:
        """
        Watch a task from now on; a known task keeps the earlier start and the earlier deadline.

        Returns the earliest time at which something is due for it.

        Args:
            kind: the key under which its duration is learned (`Request.kind`).
            started_at: when it was accepted, on the monotonic clock; may lie in the past.
            deadline_at: when to give up, or None.
            found: it was accepted at an unknown time before `started_at`.
        """
        known = self._tasks.get(task_id)
        if known is not None:
            self._merge(known, started_at, deadline_at)
            return -math.inf
        task = self._tasks[task_id] = Task(task_id, kind, started_at, deadline_at, found=found)
        due_at = started_at + self._gaps.first(kind)
        self._batches.queue(task, due_at, among=kind)
        self._push_deadline(task)
        return due_at if deadline_at is None else min(due_at, deadline_at)

    def discard(self, task_id: str) -> None:
        """
        Forget a task, known or not.
        """
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._batches.remove(task)
            self._suspects.forget(task_id)
            self._nudged.discard(task_id)
            self._hints.forget(task_id)

    def ended(self, task_id: str, now: float, *, duration: float | None = None) -> None:
        """
        Forget a task that has ended, and learn how long it took.

        Args:
            duration: seconds by the times in the record; None if it has none.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        self._gaps.learn(task, now, duration)
        self._hints.ended(task_id)
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
        Return when the next deadline passes; None if there is none.
        """
        heap = self._deadlines
        while heap and self._tasks.get(heap[0].id) is not heap[0]:
            heappop(heap)
        return heap[0].deadline_at if heap else None

    def _merge(self, task: Task, started_at: float, deadline_at: float | None) -> None:
        task.started_at = min(task.started_at, started_at)
        if deadline_at is None or (task.deadline_at is not None and task.deadline_at <= deadline_at):
            return
        # The sort key of an entry in a heap must not change, so the task gets a new record.
        group = task.group
        task.leave()
        changed = self._tasks[task.id] = evolve(task, deadline_at=deadline_at)
        if group is not None:
            self._batches.put([changed], group.due_at, latest_at=group.latest_at)
        self._push_deadline(changed)

    def _push_deadline(self, task: Task) -> None:
        if task.deadline_at is None:
            return
        heappush(self._deadlines, task)
        if len(self._deadlines) > 2 * len(self._tasks) + MAX_FORGOTTEN:
            self._deadlines = [kept for kept in self._deadlines if self._tasks.get(kept.id) is kept]
            heapify(self._deadlines)

    # --- which tasks to poll, and when -----------------------------------------------------------------

    def next_due_at(self) -> float | None:
        """
        Return when the next request should go, a deadline passes or a task vanishes; None if nothing waits.
        """
        times = [self._batches.next_at(), self._hints.ask_at, self.next_deadline_at()]
        if self._suspects:
            times += self._suspects.next_at(), self._suspects.next_vanished_at()
        return min((at for at in times if at is not None), default=None)

    def take_batch(self, now: float) -> list[str]:
        """
        Take the ids for one request now, none if none is due. Report each of them before it can be taken again.
        """
        self._follow_hints(now)
        request_at, lone_at = self._batches.next_at(), self._suspects.next_at()
        if lone_at is not None and lone_at <= now and (request_at is None or lone_at <= request_at):
            return [self._suspects.take()]
        if request_at is None or request_at > now:
            return []
        return [task.id for task in self._batches.take(now + self._gaps.normal_max)]

    def nudge(self, task_id: str, now: float) -> None:
        """
        Make a task due at once: it has probably ended.
        """
        task, due_at = self._tasks.get(task_id), now - HEAD_START * self._gaps.scale
        if task is None or self._suspects.hurry(task_id, due_at):
            return
        if task.group is None:
            self._nudged.add(task_id)  # the answer in flight may be older than the end
        elif task.group.due_at > due_at:
            self._batches.queue(task, due_at, among=NUDGED)

    def hint(self, task_id: str, now: float, *, window: float = 0.0) -> bool:
        """
        Make a task due within `window` seconds: a callback says that it has ended.

        Tasks with callbacks in that window share a request. Returns whether the hint changes anything.
        """
        return task_id in self._tasks and self._hints.add(task_id, now, window)

    def _follow_hints(self, now: float) -> None:
        """
        Make the tasks with callbacks due, if their window is over or a request goes anyway.
        """
        ask_at, request_at = self._hints.ask_at, self._batches.next_at()
        if ask_at is None:
            return
        if ask_at <= now or (request_at is not None and request_at <= now):
            for task_id in self._hints.take():
                self.nudge(task_id, now)

    # --- outcomes --------------------------------------------------------------------------------------

    def looked(self, task_ids: Iterable[str], now: float) -> None:
        """
        Note that these tasks are still pending, and plan the next look at them.
        """
        tasks = self._known(task_ids)
        if self._suspects:
            for task in tasks:
                self._suspects.forget(task.id)
        gaps = self._adjusted_to_hints(self._gaps.after_look(tasks, now))
        self._batches.put_by_gap(gaps, now, latest=self._gaps.normal_max)
        self._renew_nudges(tasks, now)

    def _adjusted_to_hints(
        self, gaps: Iterable[tuple[float, list[Task]]]
    ) -> Iterator[tuple[float, list[Task]]]:
        """
        Adjust the gaps after a look, each given with its tasks, to hints and to how well callbacks work.
        """
        hints, interval = self._hints, self._policy.interval
        for gap, tasks in gaps:
            if not hints and not hints.working:
                yield gap, tasks
                continue
            longer = max(gap, min(GAP_FACTOR * gap, self._gaps.normal_max)) if hints.working else gap
            for task in tasks:
                yield (min(gap, interval) if self._answers_hint(task) else longer), [task]

    def _answers_hint(self, task: Task) -> bool:
        """
        Return whether a hint caused this look, and mark the hint as answered.
        """
        return bool(self._hints) and task.id not in self._nudged and self._hints.checked(task.id)

    def unanswered(self, task_ids: Iterable[str], now: float, *, declined: bool = False) -> None:
        """
        Poll these tasks again soon: the poll failed, and no look is counted.

        Args:
            declined: a healthy server declined to answer. The gate does not pause for that, so the delay grows here
                until the server answers.
        """
        tasks = self._known(task_ids)
        again = [task for task in tasks if task.id not in self._suspects]
        delay = self._gaps.after_refusals(self._declined) if declined else self._gaps.retry
        self._declined += declined
        if again:
            self._batches.put(again, now + delay)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.unanswered(task.id, now)
        self._renew_nudges(tasks, now)

    def answer_unreadable(self, task_ids: Sequence[str], now: float, *, too_large: bool = False) -> None:
        """
        Poll these tasks again soon, in two halves: their answer could not be read.

        The cause is one of them, or their number; halving finds it with few requests.

        Args:
            too_large: the cause was their number, so later requests are smaller.
        """
        if len(task_ids) == 1:
            self.unreadable(task_ids, now)
            return
        if too_large:
            self._batches.shrink(len(task_ids))
        tasks = self._known(task_ids)
        self._halve(tasks, now + self._gaps.retry)
        self.unreadable([task_id for task_id in task_ids if task_id in self._suspects], now)
        self._renew_nudges(tasks, now)

    def answer_late(self, task_ids: Iterable[str], now: float) -> None:
        """
        Poll these tasks again at once, in two halves: their answer is late, and may still come.
        """
        tasks = self._known(task_ids)
        self._halve(tasks, now)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.ask_at(task.id, now)

    def waiting(self, task_ids: Iterable[str]) -> list[str]:
        """
        Return those of these tasks that wait for a look and are not being polled now.
        """
        return [task.id for task in self._known(task_ids) if task.group is not None]

    def _halve(self, tasks: list[Task], due_at: float) -> None:
        half = (len(tasks) + 1) // 2
        tasks = [task for task in tasks if task.id not in self._suspects]
        for some in filter(None, (tasks[:half], tasks[half:])):
            self._batches.put(some, due_at, apart=True)

    def unreadable(self, task_ids: Iterable[str], now: float) -> None:
        """
        Poll each of these tasks alone: the server knows them, but its answer about them could not be read.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.unreadable(task.id, now)
        self._renew_nudges(tasks, now)

    def missing(self, task_ids: Iterable[str], now: float) -> None:
        """
        Poll each of these tasks alone, later: a well-formed reply left them out.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.missed(task.id, now)
            self._answers_hint(task)
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
        Note that the server answered a request about `size` tasks.
        """
        self._batches.answered(size)
        self._declined = 0

    def refused(self, task_ids: Sequence[str], now: float) -> None:
        """
        Poll these tasks in another way: the server refused the query.

        If no request of this size was ever answered, requests are half as large from now on. Else the cause is one of
        the tasks, and each is polled alone. If that finds it, the size was not the cause, and is restored.
        """
        size = len(task_ids)
        if self._batches.refused(size):
            self.unanswered(task_ids, now)
            return
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            if self._suspects.refused(task.id, now) and size == 1:
                self._batches.restore()
        self._renew_nudges(tasks, now)

    def _known(self, task_ids: Iterable[str]) -> list[Task]:
        return list(filter(None, map(self._tasks.get, dict.fromkeys(task_ids))))

    def _renew_nudges(self, tasks: list[Task], now: float) -> None:
        for task in tasks if self._nudged else ():
            if task.id in self._nudged:
                self._nudged.discard(task.id)
                self.nudge(task.id, now)

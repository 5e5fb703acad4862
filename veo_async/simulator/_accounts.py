"""
One account: its tasks in the order of their creation, the unfinished ones, and its rates.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf

from attrs import define, field

from ._records import Task

__all__ = ["Account", "Rate"]


@define(eq=False)
class Rate:
    """
    Allows `per_second` requests, with a burst of one second's worth.
    """

    per_second: float
    _free_at: float = field(default=-inf, init=False)

    def wait(self, now: float) -> float:
        """
        Count a request and return 0, or return the seconds until it is allowed.
        """
        step = 1 / self.per_second
        free_at = max(now, self._free_at)
        if free_at - now > max(1.0 - step, 0.0) + 1e-9:
            return free_at - now - max(1.0 - step, 0.0)
        self._free_at = free_at + step
        return 0.0


@define(eq=False)
class Account:
    """
    One customer.

    Attributes:
        name: its name.
        keeps_ended: whether `outdated` will be called.
        accepted: how many tasks were ever accepted.
        billed: how many tasks had ended in a video, and so were paid for, when `settle` was last called.
        ended: how many tasks had ended by then.
    """

    name: str
    keeps_ended: bool = False
    accepted: int = field(default=0, init=False)
    billed: int = field(default=0, init=False)
    ended: int = field(default=0, init=False)
    # Two parallel lists: bisecting plain floats is much faster than bisecting with a key function.
    _created: list[float] = field(factory=list, init=False, repr=False)
    _tasks: list[Task | None] = field(factory=list, init=False, repr=False)
    _running: list[tuple[float, int, Task]] = field(factory=list, init=False, repr=False)
    _ended: deque[Task] = field(factory=deque, init=False, repr=False)
    _all_visible_at: float = field(default=-inf, init=False)
    _holes: bool = field(default=False, init=False)

    def add(self, task: Task) -> None:
        """
        Add a new task.
        """
        self.accepted += 1
        if self._created and task.created_at < self._created[-1]:  # somebody set the clock back
            place = bisect_right(self._created, task.created_at)
            insort(self._created, task.created_at)
            self._tasks.insert(place, task)
        else:
            self._created.append(task.created_at)
            self._tasks.append(task)
        self.watch(task)

    def watch(self, task: Task) -> None:
        """
        Note when a task ends, and when it becomes visible.
        """
        heappush(self._running, (task.ends_at, task.number, task))
        self._all_visible_at = max(self._all_visible_at, task.visible_at)

    def settle(self, now: float) -> None:
        """
        Count the tasks that have ended by now.
        """
        while self._running and self._running[0][0] <= now:
            noted, _, task = heappop(self._running)
            if noted == task.ends_at and not task.counted:  # otherwise a test has changed its end since
                task.counted = True
                self.ended += 1
                if self.keeps_ended:
                    self._ended.append(task)
                self.billed += not task.error and task.videos > 0

    def in_flight(self, now: float) -> int:
        """
        Count the unfinished tasks.
        """
        self.settle(now)
        return self.accepted - self.ended

    def outdated(self, before: float) -> list[Task]:
        """
        Return the tasks that ended before this time, each task once.
        """
        found = []
        while self._ended and self._ended[0].ends_at < before:
            found.append(self._ended.popleft())
        return found

    def next_end(self, now: float) -> float | None:
        """
        Return the seconds until the next task ends; None if no end is known.
        """
        self.settle(now)
        return self._running[0][0] - now if self._running and self._running[0][0] < inf else None

    def forget(self, task: Task) -> None:
        """
        Remove a task, but keep it in the counts.
        """
        place = bisect_left(self._created, task.created_at)
        while self._tasks[place] is not task:
            place += 1
        self._tasks[place] = None
        self._holes = True

    def listing(self, now: float, *, since: float, until: float, closed: bool) -> Listing:
        """
        Return the visible tasks that were created in a range, oldest first.
        """
        low = (bisect_left if closed else bisect_right)(self._created, since)
        high = (bisect_right if closed else bisect_left)(self._created, until)
        plain = not self._holes and self._all_visible_at <= now
        return Listing(self._tasks, low, max(low, high), None if plain else now)


@define(eq=False)
class Listing:
    """
    A view of a range of tasks, which is iterated only if some of them may be hidden.
    """

    _tasks: list[Task | None]
    _low: int
    _high: int
    _now: float | None

    def __iter__(self) -> Iterator[Task]:
        for index in range(self._low, self._high):
            task = self._tasks[index]
            if task is not None and (self._now is None or task.visible_at <= self._now):
                yield task

    def page(
        self, offset: int, limit: int, *, newest_first: bool, kind: object = None
    ) -> tuple[list[Task], int]:
        """
        Return a page of the tasks of a type (None for all), and how many such tasks there are.
        """
        if self._now is not None or kind is not None:
            found = [task for task in self if kind is None or task.type == kind]
            return (found[::-1] if newest_first else found)[offset : offset + limit], len(found)
        size = self._high - self._low
        picked = range(offset, min(offset + limit, size))
        places = [self._high - 1 - index if newest_first else self._low + index for index in picked]
        return [task for place in places if (task := self._tasks[place]) is not None], size

"""
Who shares a request, and when it goes.

A *look* is one task asked about once; a *request* carries up to `size` looks.

Looks that fall due together become a *group*; the groups are a heap by due time.
The next request is made of the groups at the top, as many as fill it.
It goes when its looks are due on average: some a little late, some early, so that one request does the work of
two half-empty ones. None waits longer than the patience for that.
In a crowd the groups of one patience fill several requests. These go together as a *volley*, when all their looks
are due on average: to wake up ten times as rarely for ten times as much halves the CPU that a request costs.
A request that goes anyway is filled up with the looks that come next.

Under a tight budget all groups are late, and the longest overdue go first. That starves nobody, and in
simulated backlogs it comes within a tenth of the lag that sorting every waiting task by its gain would give.

How many tasks fit into a request is learned from what the server refuses, and from what it answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from heapq import heappop, heappush
from typing import Final

from attrs import define, field

from .._policies import PollPolicy, at_once, scale_of
from .waiting_tasks import Group, Task

__all__ = ["Batches"]

ALIKE: Final = 0.25  # intervals; gaps that differ by less share a group
LEAST_ALIKE: Final = 1e-3  # seconds of an unscaled policy
SURELY_FITS: Final = 12  # [D] the default of `limit`: a question about no more is not refused for its size


@define(eq=False)
class Batches:
    """
    Gathers tasks by when their next look is due, and makes requests of them.

    Attributes:
        patience: how long a due look may wait for company, in seconds.
        size: how many tasks one request may ask about: what the policy says, or what the server takes.
    """

    _policy: PollPolicy
    patience: float
    size: int = field(init=False)
    _volley_size: int = field(init=False)  # requests at most
    _fits: int = field(init=False, default=SURELY_FITS)  # so many at once were answered
    _alike: float = field(init=False)  # seconds
    _groups: list[Group] = field(init=False, factory=list)  # a heap
    _newest: dict[str, Group] = field(init=False, factory=dict)  # group of each queue
    _request_at: float | None = field(init=False, default=None)  # None: to be worked out
    _volley: int = field(init=False, default=0)  # requests left that go at `_request_at`
    _horizon: float = field(init=False, default=-math.inf)  # what is due later leaves `_request_at` alone

    def __attrs_post_init__(self) -> None:
        policy, scale = self._policy, scale_of(self._policy)
        self.size, self._volley_size = policy.batch_size, at_once(policy)
        self._alike = max(ALIKE * policy.interval / scale, LEAST_ALIKE) * scale

    def __len__(self) -> int:
        return len(self._groups)

    # --- waiting ---------------------------------------------------------------------------------------

    def put(
        self, tasks: list[Task], due_at: float, *, latest_at: float = math.inf, apart: bool = False
    ) -> Group:
        """
        Let tasks wait together for a look that is due at this time, wherever they have waited so far.

        Args:
            latest_at: they wait for company no longer than this.
            apart: they share a request with no others.
        """
        group = Group(due_at, tasks, latest_at, apart)
        for task in tasks:
            if task.group is not None:
                task.leave()
            task.group = group
        heappush(self._groups, group)
        if due_at <= self._horizon:
            self._request_at = None
        return group

    def queue(self, task: Task, due_at: float, *, among: str) -> None:
        """
        Let a task wait together with those that came just before it in the queue of this name.
        """
        task.leave()
        group = self._newest.get(among)
        if group:
            group.drop_moved()  # the task itself, perhaps
        if group and 0 < len(group.tasks) < self.size and 0 <= due_at - group.due_at <= self.patience:
            group.tasks.append(task)
            task.group = group
        else:
            self._newest[among] = self.put([task], due_at)

    def put_by_gap(self, gaps: Iterable[tuple[float, list[Task]]], now: float, *, latest: float) -> None:
        """
        Let tasks wait as long as their gaps, those together whose gaps are nearly the same.

        Args:
            latest: for so many seconds they may wait for company, or for their gap if that is longer.
        """
        alike: dict[int, tuple[float, list[Task]]] = {}
        for gap, tasks in gaps:
            same = int(gap / self._alike)
            if same in alike:
                alike[same][1].extend(tasks)
            else:
                alike[same] = (gap, tasks)
        for gap, group in alike.values():
            self.put(group, now + gap, latest_at=now + max(gap, latest))

    def remove(self, task: Task) -> None:
        """
        Let a task wait no more.
        """
        if task.group is not None and (self._horizon == -math.inf or task.group.due_at <= self._horizon):
            self._request_at = None  # what is left of a volley may not be worth it without the task
        task.leave()

    # --- going -----------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """
        Return when the looks of the next full requests are due on average; None when no task waits.
        """
        if self._request_at is None and self._groups:
            top = self._top()
            full = sum(len(group.tasks) for group in top) // self.size
            self._volley = max(1, min(full, self._volley_size))
            total, count, latest_at = 0.0, 0, math.inf
            for group in top:
                share = min(len(group.tasks), self._volley * self.size - count)
                total, count = total + share * group.due_at, count + share
                latest_at = min(latest_at, group.latest_at)
                heappush(self._groups, group)
            self._request_at = min(total / count, latest_at) if count else None
        return self._request_at

    def _top(self) -> list[Group]:
        """
        Pop the groups that the next requests should wait for.
        """
        top: list[Group] = []
        room, self._horizon = self._volley_size * self.size, math.inf
        while self._groups and room > 0 and self._groups[0].due_at <= self._horizon:
            group = heappop(self._groups)
            if group.drop_moved():
                top.append(group)
                room -= len(group.tasks)
                self._horizon = top[0].due_at + self.patience
        return top

    def take(self, horizon: float) -> list[Task]:
        """
        Take a request's worth of the tasks that are due by the horizon, the earliest first.
        """
        taken: list[Task] = []
        while self._groups and len(taken) < self.size and self._groups[0].due_at <= horizon:
            if taken and self._groups[0].apart:
                break
            group, room = heappop(self._groups), self.size - len(taken)
            group.drop_moved()
            taken += group.tasks[:room]
            group.tasks = group.tasks[room:]
            if group.tasks:
                heappush(self._groups, group)
            if group.apart:
                break
        for task in taken:
            task.group = None
        self._count_request()
        return taken

    def _count_request(self) -> None:
        self._volley -= 1
        if self._volley > 0:
            self._horizon = -math.inf  # the rest follows at once, whatever becomes due meanwhile
        else:
            self._request_at = None

    # --- how many fit ----------------------------------------------------------------------------------

    def answered(self, size: int) -> None:
        """
        Take note that the server answers so many at once.
        """
        self._fits = max(self._fits, size)

    def refused(self, size: int) -> bool:
        """
        Take note that the server refused a question about so many; tell whether their number may be why.

        More at once than it has ever answered are too many, and from now on half as many are asked about.
        """
        self._request_at = None
        if size > max(self._fits, 1):
            self.size = max(1, min(self.size, size // 2))
            return True
        self._fits = size // 2  # should it be a matter of size after all
        return False

    def shrink(self, size: int) -> None:
        """
        Ask about half of so many at once from now on: the answer about them was too large.
        """
        self.size = min(self.size, (size + 1) // 2)

    def restore(self) -> None:
        """
        Ask about as many at once as the policy says: their number was not why the server refused.
        """
        self.size = self._policy.batch_size

"""
Decides which tasks share a request, and when it goes.

A *look* is one query about one task; a *request* carries up to `size` looks.

Looks that are due together form a *group*; the groups are a heap by due time.
The next request takes as many groups from the top as fill it.
It goes at the average due time of its looks. Some are then a little late and some early, but one request replaces
two half-empty ones. No look waits for this longer than the patience.
With many tasks, the groups of one patience fill several requests. These go together as a *volley*, at the average
due time of all their looks: a tenth of the wake-ups halves the CPU time per request.
A request that goes anyway is filled with the looks that are due next.

Under a tight budget all groups are late, and the longest overdue go first. So no task starves, and in simulated
backlogs the lag is within a tenth of that of sorting every waiting task by its gain.

How many tasks fit into a request is learned from what the server refuses and answers.
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

GAP_STEP: Final = 0.25  # intervals; gaps within one step share a group
LEAST_GAP_STEP: Final = 1e-3  # seconds of an unscaled policy
SURELY_FITS: Final = 12  # [D] the default of `limit`: a query about so many is not refused for its size


@define(eq=False)
class Batches:
    """
    Groups tasks by the due time of their next look, and makes requests from the groups.

    Attributes:
        patience: how long a due look may wait for others, in seconds.
        size: the most tasks in one request, by the policy or by what the server accepts.
    """

    _policy: PollPolicy
    patience: float
    size: int = field(init=False)
    _volley_size: int = field(init=False)  # requests at most
    _fits: int = field(init=False, default=SURELY_FITS)  # the largest request that was answered
    _gap_step: float = field(init=False)  # seconds
    _groups: list[Group] = field(init=False, factory=list)  # a heap
    _newest: dict[str, Group] = field(init=False, factory=dict)  # the newest group of each queue
    _request_at: float | None = field(init=False, default=None)  # None: not computed
    _volley: int = field(init=False, default=0)  # how many requests still go at `_request_at`
    _horizon: float = field(init=False, default=-math.inf)  # groups due later do not affect `_request_at`

    def __attrs_post_init__(self) -> None:
        policy, scale = self._policy, scale_of(self._policy)
        self.size, self._volley_size = policy.batch_size, at_once(policy)
        self._gap_step = max(GAP_STEP * policy.interval / scale, LEAST_GAP_STEP) * scale

    def __len__(self) -> int:
        return len(self._groups)

    # --- waiting ---------------------------------------------------------------------------------------

    def put(
        self, tasks: list[Task], due_at: float, *, latest_at: float = math.inf, apart: bool = False
    ) -> Group:
        """
        Put tasks into a new group with this due time; they leave their earlier groups.

        Args:
            latest_at: the latest time until which they wait for others.
            apart: they share a request with no other group.
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
        Add a task to the newest group of the named queue, or to a new one if that does not fit.
        """
        task.leave()
        group = self._newest.get(among)
        if group:
            group.drop_moved()  # it may hold the task itself
        if group and 0 < len(group.tasks) < self.size and 0 <= due_at - group.due_at <= self.patience:
            group.tasks.append(task)
            task.group = group
        else:
            self._newest[among] = self.put([task], due_at)

    def put_by_gap(self, gaps: Iterable[tuple[float, list[Task]]], now: float, *, latest: float) -> None:
        """
        Put tasks into groups by their gaps; tasks with nearly the same gap share a group.

        Args:
            latest: for how many seconds they may wait for others, if that is longer than their gap.
        """
        by_step: dict[int, tuple[float, list[Task]]] = {}
        for gap, tasks in gaps:
            step = int(gap / self._gap_step)
            if step in by_step:
                by_step[step][1].extend(tasks)
            else:
                by_step[step] = (gap, tasks)
        for gap, group in by_step.values():
            self.put(group, now + gap, latest_at=now + max(gap, latest))

    def remove(self, task: Task) -> None:
        """
        Remove a task from its group.
        """
        if task.group is not None and (self._horizon == -math.inf or task.group.due_at <= self._horizon):
            self._request_at = None  # the rest of the volley may be too small without the task
        task.leave()

    # --- going -----------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """
        Return the average due time of the looks in the next requests; None if no task waits.
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
        Pop the groups that belong to the next requests.
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
        Take the tasks for one request from those due by the horizon, the earliest first.
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
            self._horizon = -math.inf  # the rest follows at once, whatever becomes due in between
        else:
            self._request_at = None

    # --- how many fit ----------------------------------------------------------------------------------

    def answered(self, size: int) -> None:
        """
        Note that the server answered a request about `size` tasks.
        """
        self._fits = max(self._fits, size)

    def refused(self, size: int) -> bool:
        """
        Note that the server refused a request about `size` tasks; returns whether their number may be the reason.

        It may be if no request of this size was ever answered; from now on requests have half that size.
        """
        self._request_at = None
        if size > max(self._fits, 1):
            self.size = max(1, min(self.size, size // 2))
            return True
        self._fits = size // 2  # in case the size was the reason after all
        return False

    def shrink(self, size: int) -> None:
        """
        Limit requests to half of `size`: the answer about `size` tasks was too large.
        """
        self.size = min(self.size, (size + 1) // 2)

    def restore(self) -> None:
        """
        Return to the policy's size: the server did not refuse because of the number.
        """
        self.size = self._policy.batch_size

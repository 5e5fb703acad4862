"""
Tasks that wait for their next look, and the groups in which they wait.

A waiting task costs one small record, which is in a dict, in the list of a group, and in the heap of deadlines.
A task that leaves a group stays in its list: its record points to the new group, and the old group drops it later
(`drop_moved`).
"""

from __future__ import annotations

import math

from attrs import define

__all__ = ["Group", "Task"]


@define(eq=False, weakref_slot=False)
class Task:
    """
    A waiting task.

    Attributes:
        id: the task's id.
        kind: the key under which its duration is learned.
        started_at: when it was accepted, or found.
        deadline_at: when to give up, or None.
        looks: how many looks have shown it pending.
        bin: its bin of the life table; the bins before it are counted as outlived.
        found: it was found, not accepted here, so it is older than `started_at` says.
        group: where it waits; None while it is being polled, or is a suspect.
    """

    id: str
    kind: str
    started_at: float
    deadline_at: float | None
    looks: int = 0
    bin: int = 0
    found: bool = False
    group: Group | None = None

    def __lt__(self, other: Task) -> bool:
        """
        Order by deadline; only the heap of deadlines compares tasks, and all tasks in it have one.
        """
        return self.deadline_at < other.deadline_at  # type: ignore[operator]

    def leave(self) -> None:
        """
        Leave the group, which drops the task later.
        """
        if self.group is not None:
            self.group.was_left = True
            self.group = None


@define(eq=False, weakref_slot=False)
class Group:
    """
    Tasks whose next look is due at the same time; some of them may have left.

    Attributes:
        due_at: when the look is due.
        tasks: those that wait, and those that have left since the last `drop_moved`.
        latest_at: the latest time until which they wait for others.
        apart: it shares a request with no other group.
        was_left: it holds tasks that have left and are not dropped yet.
    """

    due_at: float
    tasks: list[Task]
    latest_at: float = math.inf
    apart: bool = False
    was_left: bool = False

    def __lt__(self, other: Group) -> bool:
        return self.due_at < other.due_at

    def drop_moved(self) -> bool:
        """
        Drop the tasks that have left; returns whether any remains.
        """
        if self.was_left:
            self.tasks = [task for task in self.tasks if task.group is self]
            self.was_left = False
        return bool(self.tasks)

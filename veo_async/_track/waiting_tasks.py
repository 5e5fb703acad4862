"""
Tasks that wait for their next look, and the groups they wait in.

What a waiting task costs is one small record, in one dict, in one group's list, in the heap of deadlines.
A task that moves on is not searched for in the group it leaves: its record points to its new group, and the old
one drops it when its turn comes.
"""

from __future__ import annotations

import math

from attrs import define

__all__ = ["Group", "Task"]


@define(eq=False, weakref_slot=False)
class Task:
    """
    One waiting task: all that it costs.

    Attributes:
        id: the task's id.
        kind: what its duration is learned under.
        started_at: when it was accepted, or found.
        deadline_at: when to give up, or None.
        looks: how often it was seen pending.
        bin: of the life table; those before it are counted as outlived.
        found: rather than accepted here: it is older than it was watched.
        group: where it waits; None while it is being asked about, or suspected.
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
class Group:
    """
    Tasks whose next look is due at the same time, among them some that have moved on.

    Attributes:
        due_at: when the look is due.
        tasks: those that wait, and those that have left since the last `drop_moved`.
        latest_at: they wait for company no longer than this.
        apart: it shares a request with no other group.
        was_left: by tasks that have not been dropped yet.
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
        Drop the tasks that have moved on, and tell whether any is left.
        """
        if self.was_left:
            self.tasks = [task for task in self.tasks if task.group is self]
            self.was_left = False
        return bool(self.tasks)

"""
Tasks that jobs have: they explain themselves, prove that a listing works, and tell how the server's clocks differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from attrs import define, field

from ._attempts import Attempt, Listing, Task

__all__ = ["LEAST_MARGIN", "MARGIN", "OwnedTasks"]

# Seconds by which the clock of `created_at` may be behind that of `Date`, as long as nothing tells: a server that
# takes local time for universal time is up to fourteen hours off.
MARGIN: Final = 15 * 3600.0
LEAST_MARGIN: Final = 600.0  # seconds that it may still be behind by once records have told how far it is


@define(eq=False)
class _Owned:
    """
    A task that some job has.

    Attributes:
        told_at: when that was known, by the caller's clock.
        since: if a reply named it, every listing from then on must show it (server's clock).
        began_at: when its submit began, by the server's clock, or None where that is not known to the second.
        asked: the number of the request that bought it, or None where that is not known.
    """

    told_at: float
    since: float | None = None
    began_at: float | None = None
    asked: int | None = None


@define(eq=False)
class OwnedTasks:
    """
    Keeps the ids of tasks that jobs have, for as long as an attempt could be taken for theirs.

    Attributes:
        skew: by how many seconds the server's clock may differ from what an attempt's `began_at` was read off.
        behind: by how many seconds records are dated earlier than replies, or None while nothing has told.
    """

    skew: float
    behind: float | None = field(init=False, default=None)
    _tasks: dict[str, _Owned] = field(init=False, factory=dict)
    _prune_at: int = field(init=False, default=1000)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._tasks

    def add(self, task_id: str, attempt: Attempt | None = None, *, now: float) -> None:
        """
        Note that a job has this task, whichever way it came by it; `attempt` is the one that bought it, if known.
        """
        self._tasks[task_id] = _Owned(now) if attempt is None else self._bought_by(attempt, now, since=None)

    def has_bought(self, task_id: str, asked: int | None) -> bool | None:
        """
        Tell whether a job that has this task asked for the same; None where no job has it, as far as is known.
        """
        owned = self._tasks.get(task_id)
        return None if owned is None or owned.asked is None else owned.asked == asked

    def accepted(self, task_id: str, attempt: Attempt, *, now: float) -> None:
        """
        Note a task that the attempt's own answer has named.
        """
        self._tasks[task_id] = self._bought_by(attempt, now, since=self.since(attempt))

    @staticmethod
    def _bought_by(attempt: Attempt, now: float, *, since: float | None) -> _Owned:
        began_at = None if attempt.uncertainty else attempt.began_at
        return _Owned(now, since, began_at, attempt.asked)

    def since(self, attempt: Attempt) -> float:
        """
        Return when, by the clock of the records, a task of the attempt may have been created at the earliest.
        """
        return attempt.began_at - attempt.uncertainty - self.skew - (self.behind or 0.0)

    def named_since(self) -> Iterator[float]:
        """
        Go through the times from which on a listing must show a task that a reply has named.
        """
        return (owned.since for owned in self._tasks.values() if owned.since is not None)

    def are_shown(self, listing: Listing, tasks: Mapping[str, Task], *, grace: float) -> bool:
        """
        Tell whether a listing shows every task that one which works would show.
        """
        return all(
            task_id in tasks
            or owned.since is None
            or owned.since < listing.created_from
            or listing.asked_at < owned.told_at + grace
            for task_id, owned in self._tasks.items()
        )

    # --- clocks ---

    @property
    def margin(self) -> float:
        """
        Return by how many seconds more than is known the clock of a record may be behind.
        """
        return MARGIN if self.behind is None else max(LEAST_MARGIN, 2 * self.behind)

    def compare_clocks(self, tasks: Mapping[str, Task]) -> float:
        """
        Learn from the records of tasks that replies have named; returns by how much more they are behind.
        """
        seen = [behind for task in tasks.values() if (behind := self._behind_of(task)) is not None]
        if not seen:
            return 0.0
        more = max(seen) - (self.behind or 0.0)
        if self.behind is not None and more <= self.skew:
            return 0.0
        self.behind = (self.behind or 0.0) + more
        for owned in self._tasks.values():
            if owned.since is not None:
                owned.since -= more
        return more

    def _behind_of(self, task: Task) -> float | None:
        owned = self._tasks.get(task.id)
        if owned is None or owned.began_at is None or task.created_at is None:
            return None
        behind = max(0.0, owned.began_at - task.created_at)
        return behind if behind <= MARGIN else None  # that is no clock

    # --- forgetting ---

    @property
    def is_full(self) -> bool:
        """
        Tell whether it is time to forget some.
        """
        return len(self._tasks) >= self._prune_at

    def forget_before(self, instant: float) -> None:
        """
        Forget those that were known before this instant of the caller's clock.
        """
        self._tasks = {task_id: owned for task_id, owned in self._tasks.items() if owned.told_at >= instant}
        self._prune_at = 2 * len(self._tasks) + 1000

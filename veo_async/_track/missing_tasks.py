"""
Tasks that a reply left out. Each is polled alone, until an answer has it or it has been missing for long.

A batch that leaves out a task proves nothing, since a replica may lag, or the reply may be cut.
One answer to a query about the task alone proves nothing either, so several over a span of time are needed.
A task whose record cannot be read is polled alone as well, so that it does not spoil the answers about others.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final

from attrs import define, field

__all__ = ["Suspects"]

# Seconds here are those of an unscaled policy.
LONE_FIRST: Final = (
    10.0  # seconds until a task that a reply left out is polled alone, since a replica may lag
)
LONE_SOON: Final = 1.0  # seconds until a task with an unreadable answer is polled again
LONE_GAP: Final = 41.0  # seconds between lone looks; four of them span just over two minutes
LONE_MISSES: Final = 4
LONE_SPAN: Final = 120.0  # seconds


@define(eq=False, weakref_slot=False)
class _Suspect:
    """
    A task that is polled alone.
    """

    due_at: float = math.inf  # infinite while it is being polled
    misses: int = -1  # in lone looks: the first miss, in a batch, does not count
    first_miss_at: float = math.inf
    was_refused: bool = False  # a query about it alone was refused


@define(eq=False)
class Suspects:
    """
    Knows when each suspect is polled next, and which of them the server no longer knows.

    Attributes:
        scale: the policy's scale.
    """

    scale: float
    _suspects: dict[str, _Suspect] = field(init=False, factory=dict)
    _heap: list[tuple[float, str]] = field(init=False, factory=list)  # of (due_at, id), some of them outdated
    _missed: list[str] = field(init=False, factory=list)  # ids with enough misses

    def __len__(self) -> int:
        return len(self._suspects)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._suspects

    def forget(self, task_id: str) -> None:
        """
        Stop polling a task alone, if it was a suspect.
        """
        self._suspects.pop(task_id, None)

    def missed(self, task_id: str, now: float) -> None:
        """
        Poll a task alone later: a well-formed reply left it out.
        """
        suspect = self._suspects.setdefault(task_id, _Suspect())
        suspect.misses += 1
        if suspect.misses == 1:
            suspect.first_miss_at = now
        if suspect.misses == LONE_MISSES:
            self._missed.append(task_id)
        self.ask_at(task_id, now + (LONE_GAP if suspect.misses else LONE_FIRST) * self.scale)

    def refused(self, task_id: str, now: float) -> bool:
        """
        Poll a task alone: a query about it was refused. Returns whether this was the first refused lone query.

        This is no miss: the server did not say that the task is unknown.
        """
        suspect = self._suspects.get(task_id)
        if suspect is None:
            self.missed(task_id, now)
            return False
        self.ask_at(task_id, now + LONE_GAP * self.scale)
        first, suspect.was_refused = not suspect.was_refused, True
        return first

    def unreadable(self, task_id: str, now: float) -> None:
        """
        Poll a task alone: an answer about it cannot be read, and may spoil the answers about others.

        This is no miss. The first repeat comes soon, since the fault may be gone by then.
        """
        known = task_id in self._suspects
        self._suspects.setdefault(task_id, _Suspect())
        self.ask_at(task_id, now + (LONE_FIRST if known else LONE_SOON) * self.scale)

    def unanswered(self, task_id: str, now: float) -> None:
        """
        Poll a suspect again: the query failed.
        """
        self.ask_at(task_id, now + LONE_FIRST * self.scale)

    # --- asking ---

    def ask_at(self, task_id: str, due_at: float) -> None:
        """
        Poll a suspect at this time.
        """
        self._suspects[task_id].due_at = due_at
        heappush(self._heap, (due_at, task_id))

    def hurry(self, task_id: str, due_at: float) -> bool:
        """
        Poll a task by this time if it is a suspect that waits; returns whether it is.
        """
        suspect = self._suspects.get(task_id)
        waits = suspect is not None and suspect.due_at < math.inf
        if suspect is not None and waits:
            self.ask_at(task_id, min(suspect.due_at, due_at))
        return waits

    def next_at(self) -> float | None:
        """
        Return when the next suspect is due; None if none waits.
        """
        while self._heap:
            due_at, task_id = self._heap[0]
            suspect = self._suspects.get(task_id)
            if suspect is not None and suspect.due_at == due_at:
                return due_at
            heappop(self._heap)
        return None

    def take(self) -> str:
        """
        Return the suspect to poll now; call it only after `next_at` has returned a time.
        """
        _, task_id = heappop(self._heap)
        self._suspects[task_id].due_at = math.inf
        return task_id

    # --- giving up ---

    def next_vanished_at(self) -> float | None:
        """
        Return when the next suspect with enough misses has been missing for long enough; None if there is none.
        """
        self._missed = [task_id for task_id in self._missed if task_id in self._suspects]
        return min(map(self._vanished_at, self._missed), default=None)

    def vanished(self, now: float) -> list[str]:
        """
        Return the tasks that the server has not known for long enough.
        """
        vanished_at = self.next_vanished_at()
        if vanished_at is None or vanished_at > now:
            return []
        return [task_id for task_id in self._missed if self._vanished_at(task_id) <= now]

    def _vanished_at(self, task_id: str) -> float:
        return self._suspects[task_id].first_miss_at + LONE_SPAN * self.scale

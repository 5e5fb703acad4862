"""
Tasks that a reply left out. Each is asked about alone, until an answer names it or it has been missing for long.

That a batch leaves out a task proves nothing, since a replica may lag, or a reply may be cut.
One answer to a question about it alone proves nothing either, so there must be several, over a span of time.
A task whose record cannot be read is asked about alone as well, so that it does not spoil the answers about others.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Final

from attrs import define, field

__all__ = ["Suspects"]

# Seconds here are those of an unscaled policy.
LONE_FIRST: Final = 10.0  # seconds until an id that a reply left out is asked alone: a replica may lag
LONE_SOON: Final = 1.0  # seconds until an answer that cannot be read is asked for again
LONE_GAP: Final = 41.0  # seconds between lone looks: four of them span just over two minutes
LONE_MISSES: Final = 4
LONE_SPAN: Final = 120.0  # seconds


@define(eq=False, weakref_slot=False)
class _Suspect:
    """
    A task that a reply left out.
    """

    due_at: float = math.inf  # infinite while it is being asked about
    misses: int = -1  # lone ones: the miss in a batch, which raised the suspicion, does not count
    first_miss_at: float = math.inf
    blamed: bool = False  # a question about it alone was refused


@define(eq=False)
class Suspects:
    """
    Knows when to ask about each of them next, and which the server no longer knows.

    Attributes:
        scale: of the policy.
    """

    scale: float
    _suspects: dict[str, _Suspect] = field(init=False, factory=dict)
    _heap: list[tuple[float, str]] = field(init=False, factory=list)  # of (due_at, id), some of them outdated
    _missed: list[str] = field(init=False, factory=list)  # those with enough misses

    def __len__(self) -> int:
        return len(self._suspects)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._suspects

    def forget(self, task_id: str) -> None:
        """
        Suspect a task no longer, if it was.
        """
        self._suspects.pop(task_id, None)

    def missed(self, task_id: str, now: float) -> None:
        """
        Ask about a task again, later: a well-formed reply left it out.
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
        Ask about a task alone, since a question about it was refused; tell whether that was the first about it alone.

        That is no miss: the server has not said that it knows no such task.
        """
        suspect = self._suspects.get(task_id)
        if suspect is None:
            self.missed(task_id, now)
            return False
        self.ask_at(task_id, now + LONE_GAP * self.scale)
        first, suspect.blamed = not suspect.blamed, True
        return first

    def unreadable(self, task_id: str, now: float) -> None:
        """
        Ask about a task alone: an answer about it cannot be read, and may spoil that about others.

        That is no miss. At first it is asked for again soon, as the trouble may be over.
        """
        known = task_id in self._suspects
        self._suspects.setdefault(task_id, _Suspect())
        self.ask_at(task_id, now + (LONE_FIRST if known else LONE_SOON) * self.scale)

    def unanswered(self, task_id: str, now: float) -> None:
        """
        Ask about a suspect again: the question failed.
        """
        self.ask_at(task_id, now + LONE_FIRST * self.scale)

    # --- asking ---

    def ask_at(self, task_id: str, due_at: float) -> None:
        """
        Ask about a suspect at this time.
        """
        self._suspects[task_id].due_at = due_at
        heappush(self._heap, (due_at, task_id))

    def hurry(self, task_id: str, due_at: float) -> bool:
        """
        Ask about a task by this time if it waits here to be asked about; tell whether it does.
        """
        suspect = self._suspects.get(task_id)
        waits = suspect is not None and suspect.due_at < math.inf
        if suspect is not None and waits:
            self.ask_at(task_id, min(suspect.due_at, due_at))
        return waits

    def next_at(self) -> float | None:
        """
        Return when the next of them is due; None when none waits.
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
        Return the one to ask about now; to be called where `next_at` has told of one.
        """
        _, task_id = heappop(self._heap)
        self._suspects[task_id].due_at = math.inf
        return task_id

    # --- giving up ---

    def next_vanished_at(self) -> float | None:
        """
        Return when the silence about one with enough misses has lasted for long enough.
        """
        self._missed = [task_id for task_id in self._missed if task_id in self._suspects]
        return min(map(self._vanished_at, self._missed), default=None)

    def vanished(self, now: float) -> list[str]:
        """
        Return those that the server has not known for long enough.
        """
        vanished_at = self.next_vanished_at()
        if vanished_at is None or vanished_at > now:
            return []
        return [task_id for task_id in self._missed if self._vanished_at(task_id) <= now]

    def _vanished_at(self, task_id: str) -> float:
        return self._suspects[task_id].first_miss_at + LONE_SPAN * self.scale

"""
Collects what callbacks say about tasks.

A callback has no signature, so it is only a hint: a reason to look at the task now.
Hints within a window share a request.
After a hint about a task, further ones are ignored until the next look at it, and at most `MOST_HINTS` hints about
a task count. So repeated or false callbacks cost only a few looks.

Callbacks work if they announce nearly all tasks before a look shows their end. Then looks without a hint are less
frequent. If callbacks get lost they are not, since an unannounced task must be noticed as early as by polling alone.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

__all__ = ["Hints"]

MOST_HINTS: Final = 5  # of one task; allows for a server that sends a callback twice, or too early
GAP_FACTOR: Final = 3.0  # how much longer the gaps between looks are while callbacks work
WORKING_SHARE: Final = 0.9  # callbacks work if they announce more than this share of the ends
NEWEST_WEIGHT: Final = (
    0.05  # of the newest end in that share: about the last 20 count; the first few weigh more
)


@define(eq=False)
class Hints:
    """
    Collects hints until it is time to poll their tasks.

    Attributes:
        enough: how many hints fill a request; then they need not wait for more.
        ask_at: when to poll the tasks with waiting hints; None if none waits.
    """

    enough: int
    ask_at: float | None = field(init=False, default=None)
    _waiting: dict[str, None] = field(init=False, factory=dict)
    _unchecked: set[str] = field(init=False, factory=set)  # tasks without a look since their hint
    _counts: dict[str, int] = field(init=False, factory=dict)  # hints per task
    _ends: int = field(init=False, default=1)  # starts with one unannounced end
    _announced: float = field(init=False, default=0.0)  # share of the ends; newer ones weigh more

    def __bool__(self) -> bool:
        return bool(self._unchecked)

    @property
    def working(self) -> bool:
        """
        True if callbacks announce nearly every end.
        """
        return self._announced > WORKING_SHARE

    def add(self, task_id: str, now: float, window: float) -> bool:
        """
        Add a hint about a task, to be polled within `window` seconds; returns whether it changes anything.
        """
        count = self._counts.get(task_id, 0)
        if task_id in self._unchecked or count == MOST_HINTS:
            return False
        self._counts[task_id] = count + 1
        self._unchecked.add(task_id)
        self._waiting[task_id] = None
        ask_at = now if len(self._waiting) >= self.enough else now + window
        self.ask_at = ask_at if self.ask_at is None else min(self.ask_at, ask_at)
        return True

    def take(self) -> list[str]:
        """
        Return the tasks with waiting hints, in the order of the hints; they wait no longer.
        """
        taken = list(self._waiting)
        self._waiting.clear()
        self.ask_at = None
        return taken

    def checked(self, task_id: str) -> bool:
        """
        Note that a look has shown the task pending; returns whether a hint caused the look.
        """
        if task_id not in self._unchecked or task_id in self._waiting:  # none, or newer than the look
            return False
        self._unchecked.discard(task_id)
        return True

    def ended(self, task_id: str) -> None:
        """
        Learn from the end of a task whether callbacks work.
        """
        self._ends += 1
        self._announced += max(NEWEST_WEIGHT, 1 / self._ends) * (
            (task_id in self._unchecked) - self._announced
        )

    def forget(self, task_id: str) -> None:
        """
        Forget the hints about a task.
        """
        if self._counts.pop(task_id, None) is None:
            return
        self._unchecked.discard(task_id)
        if task_id in self._waiting:
            del self._waiting[task_id]
            self.ask_at = self.ask_at if self._waiting else None

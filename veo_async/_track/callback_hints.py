"""
What callbacks say of tasks, and how much of that is believed.

A callback carries no signature, so it is a hint: a reason to look now, and never more.
Hints that come within a window share a request.
After a hint about a task, further ones change nothing until somebody has looked, and no more than `MOST_HINTS`
about one task count. So a sender that repeats itself, or makes things up, costs a few looks.

Whether callbacks work is told by the share of the tasks that were announced before they were seen to end.
As long as that is nearly all of them, looks without a hint may come more rarely. Once callbacks get lost they may
not, since a task that is not announced must be noticed no later than by polling alone.
"""

from __future__ import annotations

from typing import Final

from attrs import define, field

__all__ = ["Hints"]

MOST_HINTS: Final = 5  # of one task: a server that delivers twice, or early, is right in the end
RARER: Final = 3.0  # times longer gaps between looks while callbacks are seen to work
WORKING: Final = 0.9  # of the tasks that end are announced then
WEIGHT: Final = 0.05  # of the newest end in that share, so the last twenty or so count; the first weigh more


@define(eq=False)
class Hints:
    """
    Gathers what callbacks say until it is time to ask.

    Attributes:
        enough: hints that fill a request, and so need not wait for others.
        ask_at: when to ask about those that wait; None where none do.
    """

    enough: int
    ask_at: float | None = field(init=False, default=None)
    _waiting: dict[str, None] = field(init=False, factory=dict)
    _unchecked: set[str] = field(init=False, factory=set)  # hinted at, and not looked at since
    _counts: dict[str, int] = field(init=False, factory=dict)  # of tasks that were ever hinted at
    _ends: int = field(init=False, default=1)  # as if one had come unannounced
    _announced: float = field(init=False, default=0.0)  # share of the ends, the newest weighing most

    def __bool__(self) -> bool:
        return bool(self._unchecked)

    @property
    def working(self) -> bool:
        """
        Whether callbacks announce nearly every end.
        """
        return self._announced > WORKING

    def add(self, task_id: str, now: float, window: float) -> bool:
        """
        Take a hint about a task, to be asked about within `window` seconds; tell whether it changes anything.
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
        Hand over the tasks that wait to be asked about, in the order of the hints.
        """
        taken = list(self._waiting)
        self._waiting.clear()
        self.ask_at = None
        return taken

    def checked(self, task_id: str) -> bool:
        """
        Take note that a look has shown the task pending; tell whether a hint had led to it.
        """
        if task_id not in self._unchecked or task_id in self._waiting:  # that hint is newer than the look
            return False
        self._unchecked.discard(task_id)
        return True

    def ended(self, task_id: str) -> None:
        """
        Learn from a task that was seen to have ended whether callbacks work.
        """
        self._ends += 1
        self._announced += max(WEIGHT, 1 / self._ends) * ((task_id in self._unchecked) - self._announced)

    def forget(self, task_id: str) -> None:
        """
        Forget what was said of a task.
        """
        if self._counts.pop(task_id, None) is None:
            return
        self._unchecked.discard(task_id)
        if task_id in self._waiting:
            del self._waiting[task_id]
            self.ask_at = self.ask_at if self._waiting else None

"""
Plans callbacks: which is due when, and which faults it has.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any, Final

from attrs import define, evolve, field

from ._faults import Hit
from ._records import Link, Task, failure, number_of, result
from ._replies import Callback, encode
from ._settings import Settings

__all__ = ["HEALTH", "Callbacks"]

HEALTH: Final = "/health"  # at any host: the placeholder `callback_url` of clients without a receiver

# The callbacks that are sent after the task's end: the delay of each, in units of the fault's seconds.
_LAGS: Final = {"lost": (), "delayed": (1.0,), "duplicated": (0.0, 0.0, 1.0)}
_Entry = tuple[float, int, Task, dict[str, Any] | None, float]  # due, serial, task, body, the end it assumes


@define(eq=False)
class Callbacks:
    """
    Keeps the callbacks until they are due.
    """

    settings: Settings
    link: Link
    new_id: Callable[[], str]
    _entries: list[_Entry] = field(factory=list, init=False, repr=False)
    _serial: count[int] = field(factory=count, init=False, repr=False)

    def owes(self, task: Task) -> bool:
        """
        Tell whether this task has a callback; a placeholder gets none.
        """
        url = task.body.get("callback_url")
        return url is not None and self.settings.callbacks != "off" and not _is_placeholder(url)

    def plan(self, task: Task, now: float, hit: Hit | None = None) -> None:
        """
        Plan the callbacks of a task that was accepted, or ended by a test, just now.
        """
        kind, seconds = (hit.fault.kind, hit.fault.seconds) if hit else ("", 0.0)
        if kind == "early":
            self._add(task, now, self._claim(task))
        elif kind == "forged":
            self._forge(task, now)
        for lag in _LAGS.get(kind, (0.0,)):
            self._add(task, task.ends_at + lag * seconds, None)

    def _add(self, task: Task, due_at: float, body: dict[str, Any] | None) -> None:
        heappush(self._entries, (due_at, next(self._serial), task, body, task.ends_at))

    def _claim(self, task: Task) -> dict[str, Any]:
        return result(evolve(task, error=None), self.settings, self.link)

    def _forge(self, task: Task, now: float) -> None:
        """
        Plan three false claims: that the task failed, that an unknown task succeeded, and that the file is elsewhere.
        """
        stranger = self.new_id()
        bogus = evolve(task, id=stranger, number=number_of(stranger) or 0, error=None)
        elsewhere = result(
            evolve(task, error=None), self.settings, lambda *_: "http://127.0.0.1:9/forged.mp4"
        )
        for body in (failure(task), self._claim(bogus), elsewhere):
            self._add(task, now, body)

    def next_at(self) -> float | None:
        """
        Return when the next callback is due, in Unix seconds; None if there is none.
        """
        return self._entries[0][0] if self._entries else None

    def due(self, now: float) -> list[Callback]:
        """
        Return the callbacks that are due, each once.
        """
        found = []
        while self._entries and self._entries[0][0] <= now:
            due_at, _, task, body, ends_at = heappop(self._entries)
            if body is None and ends_at != task.ends_at:
                continue  # a test has changed the task's end since
            found.append(self._callback(task, due_at, body or self._body(task)))
        return found

    def _body(self, task: Task) -> dict[str, Any]:
        return failure(task) if task.error else result(task, self.settings, self.link)

    def _callback(self, task: Task, due_at: float, body: dict[str, Any]) -> Callback:
        url = task.body["callback_url"].partition("#")[0]  # no HTTP client sends a fragment
        return Callback(task_id=task.id, url=url, body=encode(body), due_at=due_at)


def _is_placeholder(url: str) -> bool:
    return url.partition("#")[0].partition("?")[0].endswith(HEALTH)

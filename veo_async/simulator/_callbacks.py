"""
What the server owes its callers: which callback is due when, and what goes wrong with it.
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

HEALTH: Final = "/health"  # who has no receiver lets `callback_url` point there, at whatever host

# How many are sent when the task has ended, and how late, in units of the fault's seconds.
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
        Tell whether somebody wants to hear of this task: nobody does at a placeholder.
        """
        url = task.body.get("callback_url")
        return url is not None and self.settings.callbacks != "off" and not _is_placeholder(url)

    def plan(self, task: Task, now: float, hit: Hit | None = None) -> None:
        """
        Note what is to be sent about a task that was accepted, or steered, just now.
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
        Claim that this task failed, that a task nobody has succeeded, and that ours lies at another host.
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
        Tell when the next one is due.
        """
        return self._entries[0][0] if self._entries else None

    def due(self, now: float) -> list[Callback]:
        """
        Hand over what is due.
        """
        found = []
        while self._entries and self._entries[0][0] <= now:
            due_at, _, task, body, ends_at = heappop(self._entries)
            if body is None and ends_at != task.ends_at:
                continue  # somebody steered the task since
            found.append(self._callback(task, due_at, body or self._body(task)))
        return found

    def _body(self, task: Task) -> dict[str, Any]:
        return failure(task) if task.error else result(task, self.settings, self.link)

    def _callback(self, task: Task, due_at: float, body: dict[str, Any]) -> Callback:
        url = task.body["callback_url"].partition("#")[0]  # no HTTP client sends a fragment
        return Callback(task_id=task.id, url=url, body=encode(body), due_at=due_at)


def _is_placeholder(url: str) -> bool:
    return url.partition("#")[0].partition("?")[0].endswith(HEALTH)

"""
What the ends of tasks teach: how long tasks take, kept for sessions to come, and how late an end is noticed.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

from attrs import define, field

from .._http.clock import ServerClock
from .._journal import facts
from .._journal.journal import AnyJournal
from .._track.durations import Durations
from ..errors import JobError

__all__ = ["Learning"]

NEAREST: Final = 1e9  # Unix seconds; a time before 2001 is none
FARTHEST: Final = 1e11  # nor one beyond the year 5000
KEEP_EVERY: Final = 100  # tasks that end between two writings: losing some costs a few looks


@define(eq=False)
class Learning:
    """
    Keeps what the ends of tasks teach.
    """

    journal: AnyJournal | None
    clock: ServerClock
    durations: Durations = field(factory=Durations)
    _noticed: int = field(init=False, default=0)
    _lag: float = field(init=False, default=0.0)
    _ended: int = field(init=False, default=0)

    async def recall(self) -> None:
        """
        Take in what earlier sessions have learned of how long tasks take.
        """
        if self.journal is not None:
            self.durations.load(_read_learned(await self.journal.learned()))

    def noticed(self, ends: Iterable[Mapping[str, Any] | JobError]) -> None:
        """
        Learn from ends that were seen just now.
        """
        for end in ends:
            self._ended += 1
            if not isinstance(end, JobError):
                self._note_lag(end)

    def _note_lag(self, record: Mapping[str, Any]) -> None:
        finished_at, server_now = record.get("finished_at"), self.clock.at(asyncio.get_running_loop().time())
        if server_now is None or not isinstance(finished_at, int | float):
            return
        if NEAREST < finished_at < FARTHEST:
            self._noticed += 1
            self._lag += max(0.0, server_now - finished_at)

    @property
    def notice_lag(self) -> float | None:
        """
        Mean seconds from a task's end, where its record tells, to its being seen.
        """
        return self._lag / self._noticed if self._noticed else None

    def keep_if_much(self) -> None:
        """
        Write down how long tasks take, once enough have ended since the last time.
        """
        if self._ended >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """
        Write down how long tasks take, for sessions to come.
        """
        self._ended = 0
        if self.journal is not None and self.journal.failure is None:
            learned = self.durations.dump().items()
            self.journal.write_soon(
                *(facts.Learned(kind=kind, data=json.dumps(data)) for kind, data in learned)
            )


def _read_learned(learned: Mapping[str, str]) -> dict[str, Any]:
    """
    Read what was learned, and leave aside what cannot be read: it only saves a few looks.
    """
    read = {}
    for kind, data in learned.items():
        with suppress(ValueError, RecursionError):
            read[kind] = json.loads(data)
    return read

"""
Learns from the ends of tasks: how long tasks take, kept for later sessions, and how late an end is noticed.
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

MIN_TIME: Final = 1e9  # Unix seconds; a value before 2001 is not a time
MAX_TIME: Final = 1e11  # nor is one after the year 5000
KEEP_EVERY: Final = 100  # ended tasks between two writes; losing some costs only a few polls


@define(eq=False)
class Learning:
    """
    Collects what the ends of tasks show.
    """

    journal: AnyJournal | None
    clock: ServerClock
    durations: Durations = field(factory=Durations)
    _noticed: int = field(init=False, default=0)
    _lag: float = field(init=False, default=0.0)
    _ended: int = field(init=False, default=0)

    async def recall(self) -> None:
        """
        Load what earlier sessions have learned about how long tasks take.
        """
        if self.journal is not None:
            self.durations.load(_read_learned(await self.journal.learned()))

    def noticed(self, ends: Iterable[Mapping[str, Any] | JobError]) -> None:
        """
        Learn from tasks whose end was seen just now.
        """
        for end in ends:
            self._ended += 1
            if not isinstance(end, JobError):
                self._note_lag(end)

    def _note_lag(self, record: Mapping[str, Any]) -> None:
        finished_at, server_now = record.get("finished_at"), self.clock.at(asyncio.get_running_loop().time())
        if server_now is None or not isinstance(finished_at, int | float):
            return
        if MIN_TIME < finished_at < MAX_TIME:
            self._noticed += 1
            self._lag += max(0.0, server_now - finished_at)

    @property
    def notice_lag(self) -> float | None:
        """
        Mean seconds from a task's end, if its record tells it, until this session saw it.
        """
        return self._lag / self._noticed if self._noticed else None

    def keep_if_due(self) -> None:
        """
        Write down how long tasks take, once enough have ended since the last time.
        """
        if self._ended >= KEEP_EVERY:
            self.keep()

    def keep(self) -> None:
        """
        Write down how long tasks take, for later sessions.
        """
        self._ended = 0
        if self.journal is not None and self.journal.failure is None:
            learned = self.durations.dump().items()
            self.journal.write_soon(
                *(facts.Learned(kind=kind, data=json.dumps(data)) for kind, data in learned)
            )


def _read_learned(learned: Mapping[str, str]) -> dict[str, Any]:
    """
    Read what was learned; ignore what cannot be read, as it only saves a few polls.
    """
    read = {}
    for kind, data in learned.items():
        with suppress(ValueError, RecursionError):
            read[kind] = json.loads(data)
    return read

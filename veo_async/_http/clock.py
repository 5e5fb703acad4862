"""
What time it is at the server.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from attrs import define, field

__all__ = ["ServerClock"]


@define(eq=False)
class ServerClock:
    """
    Narrows down, by the `Date` header of each reply, what time it is at the server.

    Nothing but the first filter of a listing and a figure of the statistics depends on it.

    Attributes:
        wall: the local clock, in Unix seconds; it may be wrong, and may be set.
    """

    wall: Callable[[], float] = time.time
    _least: float = field(init=False, default=-math.inf)
    _most: float = field(init=False, default=math.inf)

    def note(self, date: float, *, sent_at: float, received_at: float) -> None:
        """
        Learn from a reply; `date` in Unix seconds, the others on the event loop's clock.
        """
        least, most = date - received_at, date + 1.0 - sent_at  # a `Date` is cut to whole seconds
        if least <= self._most and most >= self._least:
            least, most = max(self._least, least), min(self._most, most)
        self._least, self._most = least, most  # of the newest reply alone, where a clock was set

    def at(self, moment: float) -> float | None:
        """
        The server's Unix time at a moment of the event loop's clock; None before the first reply.
        """
        return None if math.isinf(self._least) else moment + (self._least + self._most) / 2

    def earliest(self, now: float) -> float:
        """
        The Unix time by whichever clock says the least, the local one or the server's.
        """
        return self.wall() if math.isinf(self._least) else min(self.wall(), now + self._least)

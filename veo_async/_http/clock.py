"""
An estimate of the server's time.
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
    Estimates the server's time from the `Date` headers of replies.

    Only the first filter of a listing and one figure in the statistics depend on it.

    Attributes:
        wall: the local clock, in Unix seconds; it may be wrong, and may be changed at any time.
    """

    wall: Callable[[], float] = time.time
    _least: float = field(init=False, default=-math.inf)
    _most: float = field(init=False, default=math.inf)

    def note(self, date: float, *, sent_at: float, received_at: float) -> None:
        """
        Learn from a reply: `date` is in Unix seconds, the other times are on the event loop's clock.
        """
        least, most = date - received_at, date + 1.0 - sent_at  # `Date` has whole seconds, rounded down
        if least <= self._most and most >= self._least:
            least, most = max(self._least, least), min(self._most, most)
        self._least, self._most = least, most  # the newest reply alone, if a clock was changed

    def at(self, moment: float) -> float | None:
        """
        Return the server's Unix time at a moment of the event loop's clock; None before the first reply.
        """
        return None if math.isinf(self._least) else moment + (self._least + self._most) / 2

    def earliest(self, now: float) -> float:
        """
        Return the Unix time now by the local clock or the server's, whichever is earlier.
        """
        return self.wall() if math.isinf(self._least) else min(self.wall(), now + self._least)

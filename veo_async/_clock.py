"""
What time it is at the server.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from attrs import define, field

__all__ = ["ServerClock"]

LASTING: Final = 300.0  # seconds: a clock that no reply has shown for so long was set


@define(eq=False)
class ServerClock:
    """
    What time it is at the server, from the `Date` headers of its replies, narrowed down by each.

    A `Date` is cut to whole seconds, and the reply was on its way for a while: each gives bounds, and bounds meet.
    Where they do not, the servers behind one address differ, and the earliest of them is believed: a task is then
    looked for in too long a span rather than in too short a one.

    Attributes:
        wall: the local clock, in Unix seconds; it may be wrong, and may be set.
        spread: by how many seconds replies have differed.
    """

    wall: Callable[[], float] = time.time
    spread: float = field(init=False, default=0.0)
    _least: float = field(init=False, default=-math.inf)
    _most: float = field(init=False, default=math.inf)
    _confirmed_at: float = field(init=False, default=-math.inf)

    def note(self, date: float, *, sent_at: float, received_at: float) -> None:
        """
        Learn from a reply; `date` in Unix seconds, the others on the event loop's clock.
        """
        least, most = date - received_at, date + 1.0 - sent_at
        if least <= self._most and most >= self._least:
            self._least, self._most = max(self._least, least), min(self._most, most)
            self._confirmed_at = received_at
            return
        self.spread = max(self.spread, abs(least + most - self._least - self._most) / 2)
        if most < self._least or received_at - self._confirmed_at > LASTING:
            self._least, self._most, self._confirmed_at = least, most, received_at

    def at(self, moment: float) -> float | None:
        """
        The server's Unix time at a moment of the event loop's clock; None before the first reply.
        """
        return None if math.isinf(self._least) else moment + (self._least + self._most) / 2

    def at_the_earliest(self, moment: float) -> float | None:
        """
        The least that the server's Unix time may have been at that moment, as far as replies tell.
        """
        return None if math.isinf(self._least) else moment + self._least

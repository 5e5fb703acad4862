"""
Tells of an outage once: while the API cannot be reached, jobs wait, and somebody should say why.
"""

from __future__ import annotations

import math
from typing import Final

from attrs import define, field

from .._observing.observers import Observers
from ..events import OutageBegan, OutageEnded

__all__ = ["Outage"]

PATIENCE: Final = 3.0  # seconds without an answer; shorter outages are not told of


@define(eq=False)
class Outage:
    """
    Tells of the beginning of an outage, with its reason, and its end.

    All times are seconds on the event loop's clock.
    """

    observers: Observers
    _heard_at: float = field(init=False, default=-math.inf)  # time of the last answer
    _out_since: float | None = field(init=False, default=None)
    _is_told: bool = field(init=False, default=False)

    def failed(self, reason: str, *, sent_at: float, now: float) -> None:
        """
        Note a request without an answer, or with a 5xx answer.
        """
        # A request that hangs while others are answered is no outage.
        began_at = max(sent_at, self._heard_at)
        self._out_since = began_at if self._out_since is None else self._out_since
        out_for = now - self._out_since
        if out_for >= PATIENCE and not self._is_told:
            self._is_told = True
            self.observers.tell(OutageBegan, seconds=out_for, reason=reason)

    def answered(self, now: float) -> None:
        """
        Note an answer.
        """
        if self._is_told and self._out_since is not None:
            self.observers.tell(OutageEnded, seconds=now - self._out_since)
        self._heard_at, self._out_since, self._is_told = now, None, False

"""
An outage, told once: while the API cannot be reached, jobs wait without end, and somebody should know why.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from attrs import define, field

__all__ = ["Outage"]

PATIENCE: Final = 3.0  # seconds without an answer; what is shorter than that, nobody needs to hear of

log = logging.getLogger("veo_async")


@define(eq=False)
class Outage:
    """
    Says in the log when nothing has come through for a while, and why, and when that is over.

    All times are seconds on the event loop's clock.
    """

    _heard_at: float = field(init=False, default=-math.inf)  # the last answer
    _out_since: float | None = field(init=False, default=None)
    _told: bool = field(init=False, default=False)

    def failed(self, reason: str, *, sent_at: float, now: float) -> None:
        """
        Take note of a request that nobody answered, or a gateway without a server behind it.
        """
        # A request that hung while others were answered is no outage.
        began_at = max(sent_at, self._heard_at)
        self._out_since = began_at if self._out_since is None else self._out_since
        out_for = now - self._out_since
        if out_for >= PATIENCE and not self._told:
            self._told = True
            log.warning(
                "no answer of the API for %.0f s, trying on; check the network and the base URL: %s",
                out_for,
                reason,
            )

    def answered(self, now: float) -> None:
        """
        Take note of an answer.
        """
        if self._told and self._out_since is not None:
            log.info("the API answers again, after %.0f s", now - self._out_since)
        self._heard_at, self._out_since, self._told = now, None, False

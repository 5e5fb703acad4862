"""
Logs an outage once: while the API cannot be reached, jobs wait, and the log should say why.
"""

from __future__ import annotations

import logging
import math
from typing import Final

from attrs import define, field

__all__ = ["Outage"]

PATIENCE: Final = 3.0  # seconds without an answer; shorter outages are not logged

log = logging.getLogger("veo_async")


@define(eq=False)
class Outage:
    """
    Logs the beginning of an outage, with its reason, and its end.

    All times are seconds on the event loop's clock.
    """

    _heard_at: float = field(init=False, default=-math.inf)  # time of the last answer
    _out_since: float | None = field(init=False, default=None)
    _is_logged: bool = field(init=False, default=False)

    def failed(self, reason: str, *, sent_at: float, now: float) -> None:
        """
        Note a request without an answer, or with a 5xx answer.
        """
        # A request that hangs while others are answered is no outage.
        began_at = max(sent_at, self._heard_at)
        self._out_since = began_at if self._out_since is None else self._out_since
        out_for = now - self._out_since
        if out_for >= PATIENCE and not self._is_logged:
            self._is_logged = True
            log.warning(
                "no answer from the API for %.0f s, still trying; check the network and the base URL: %s",
                out_for,
                reason,
            )

    def answered(self, now: float) -> None:
        """
        Note an answer.
        """
        if self._is_logged and self._out_since is not None:
            log.info("the API answers again, after %.0f s", now - self._out_since)
        self._heard_at, self._out_since, self._is_logged = now, None, False

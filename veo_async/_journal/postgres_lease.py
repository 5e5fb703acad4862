"""
The lease of a session: for how long it may spend, and for which keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from attrs import define, field

__all__ = ["Lease", "read_clocks"]

# The rest is for what the holder cannot see: how long an answer is on its way, and how clocks drift.
_SHARE: Final = 0.8
# Runs on while the machine sleeps; where there is none, the wall clock does.
_THROUGH_SLEEP: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clocks() -> tuple[float, float]:
    """
    Read the clock that nobody sets, and the wall clock.
    """
    return time.clock_gettime(_THROUGH_SLEEP), time.time()


@define(eq=False)
class Lease:
    """
    What one session may spend for, by its own clocks: a check needs no question.

    Attributes:
        seconds: how long the server waits for a renewal.
        clocks: each must say that the lease is valid.
        session: the id of the session's row, which is its fencing token.
        nonce: tells the row from one that a server without memory made in its place.
        acknowledged: how many batches and renewals the server has said to have kept.
        is_lost: the session was given up for dead, or has handed back what it held; another one is to begin.
        was_lost: so was an earlier one.
        sending: the keys that it has written *sending* of, and no end of the attempt.
    """

    seconds: float
    clocks: Callable[[], tuple[float, ...]] = read_clocks
    session: int = field(init=False, default=0)
    nonce: UUID | None = field(init=False, default=None)
    acknowledged: int = field(init=False, default=0)
    is_lost: bool = field(init=False, default=False)
    was_lost: bool = field(init=False, default=False)
    sending: set[str] = field(init=False, factory=set)
    _renewed_at: tuple[float, ...] | None = field(init=False, default=None)

    def begin(self, session: int, nonce: UUID, at: tuple[float, ...]) -> None:
        """
        Go on as this session; whatever an earlier one wrote, this one may not spend for.
        """
        self.is_lost, self.nonce, self.acknowledged = False, nonce, 0
        self.sending.clear()
        self.session, self._renewed_at = session, at

    def acknowledge(self, session: int, written: int) -> None:
        """
        Remember what the server must know of from now on; its answers may come in any order.
        """
        if session == self.session:
            self.acknowledged = max(self.acknowledged, written)

    def renew(self, session: int, at: tuple[float, ...]) -> None:
        """
        Count from the time when the renewal was sent, which is before the server counts.
        """
        if session == self.session and not self.is_lost:
            self._renewed_at = at

    def lose(self) -> None:
        """
        Spend no more.
        """
        self.is_lost = self.was_lost = True
        self._renewed_at = None
        self.sending.clear()

    def is_valid(self) -> bool:
        """
        Tell whether no other session can have been given this one's keys.
        """
        if self._renewed_at is None:
            return False
        most = _SHARE * self.seconds
        return all(abs(now - then) < most for now, then in zip(self.clocks(), self._renewed_at, strict=True))

    def may_send(self, key: str) -> bool:
        """
        Tell whether a submit of this key may leave now.
        """
        return key in self.sending and self.is_valid()

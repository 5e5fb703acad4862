"""
A session's lease: how long it may spend, and for which keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from attrs import define, field

__all__ = ["Lease", "read_clocks"]

# The holder uses this share of the lease; the rest allows for the time of a request and for clock drift.
_USABLE_SHARE: Final = 0.8
# Counts the time that the machine sleeps; if the system has no such clock, the wall clock does.
_BOOT_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def read_clocks() -> tuple[float, float]:
    """
    Read two clocks, in seconds: one that nobody can set, and the wall clock.
    """
    return time.clock_gettime(_BOOT_CLOCK), time.time()


@define(eq=False)
class Lease:
    """
    What one session may spend for, checked by its own clocks without asking the server.

    Attributes:
        seconds: how long the server waits for a renewal.
        clocks: reads the clocks; the lease must be valid by each of them.
        session: the id of the session's row, which is its fencing token.
        nonce: tells the row from another one with the same id, made by a server that has lost rows.
        acknowledged: how many batches and renewals the server has confirmed.
        is_lost: the session was declared dead, or has released its keys; another one must begin.
        was_lost: this happened to an earlier session of the process.
        sending: the keys with an attempt that began and has not ended, by the facts it wrote.
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
        Begin a session; it may not spend for the keys of an earlier one.
        """
        self.is_lost, self.nonce, self.acknowledged = False, nonce, 0
        self.sending.clear()
        self.session, self._renewed_at = session, at

    def acknowledge(self, session: int, written: int) -> None:
        """
        Note what the server has confirmed, and must still know later; answers may come in any order.
        """
        if session == self.session:
            self.acknowledged = max(self.acknowledged, written)

    def renew(self, session: int, at: tuple[float, ...]) -> None:
        """
        Restart the lease at `at`, when the renewal was sent: the server's count starts later.
        """
        if session == self.session and not self.is_lost:
            self._renewed_at = at

    def lose(self) -> None:
        """
        Give the lease up: nothing may be spent any more.
        """
        self.is_lost = self.was_lost = True
        self._renewed_at = None
        self.sending.clear()

    def is_valid(self) -> bool:
        """
        Tell whether this session surely still holds its keys.
        """
        if self._renewed_at is None:
            return False
        most = _USABLE_SHARE * self.seconds
        return all(abs(now - then) < most for now, then in zip(self.clocks(), self._renewed_at, strict=True))

    def may_send(self, key: str) -> bool:
        """
        Tell whether a submit of this key may be sent now.
        """
        return key in self.sending and self.is_valid()

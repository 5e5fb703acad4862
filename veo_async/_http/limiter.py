"""
The event loop's side of a gate: waiting for it to open, in order of arrival.
"""

from __future__ import annotations

import asyncio
from typing import Final

from attrs import define, field

from .._api.replies import is_dead_token
from ..errors import ApiError, RateLimited, ServerError, TransportError, VeoError
from .gate import Gate

__all__ = ["TROUBLE", "Limiter", "sleep", "tell"]

TROUBLE: Final = (RateLimited, ServerError, TransportError)  # what may be why nothing goes


@define(eq=False)
class Limiter:
    """
    Lets coroutines through a gate one after the other.

    Whoever was let through tells the gate what came of it, by `tell`; or tells it directly, and calls `changed`.

    Attributes:
        trouble: what the last request ended with, in words, where that may be why nothing goes; else None.
    """

    gate: Gate
    trouble: str | None = field(init=False, default=None)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _change: asyncio.Event = field(init=False, factory=asyncio.Event)

    def now(self) -> float:
        """
        The clock that all gates and schedules run on, in seconds.
        """
        return asyncio.get_running_loop().time()

    async def enter(self) -> float:
        """
        Wait until a request may go, and count it as gone; returns when that was.
        """
        async with self._turn:  # a lock is fair: who came first goes first
            while (now := self.open_now()) is None:
                await self.wait_for_change()
            self.gate.take(now)
            return now

    def enter_at_once(self) -> float | None:
        """
        Count a request as gone if it may go now and nobody waits before it; returns when that was, else None.
        """
        now = None if self._turn.locked() else self.open_now()
        if now is not None:
            self.gate.take(now)
        return now

    def open_now(self) -> float | None:
        """
        Return what time it is if a request may go at once, else None.
        """
        now = self.now()
        opens_at = self.gate.opens_at(now)
        return now if opens_at is not None and opens_at <= now else None

    async def wait_for_change(self, until: float | None = None) -> None:
        """
        Wait until the gate may have opened, or `until` has come.
        """
        times = [at for at in (self.gate.opens_at(self.now()), until) if at is not None]
        await sleep(self._change, until=min(times, default=None))

    def changed(self) -> None:
        """
        Have those who wait look at the gate again.
        """
        self._change.set()


def tell(limiter: Limiter, error: BaseException | None, *, left: bool, sent_at: float) -> None:
    """
    Tell the gate what came of a request: the one table of what each outcome means for those that follow.

    Args:
        error: what the request ended with, or None.
        left: whether it had begun to leave this machine.
        sent_at: when it was let through.
    """
    now, gate = limiter.now(), limiter.gate
    if not isinstance(error, asyncio.CancelledError):
        limiter.trouble = str(error) if isinstance(error, TROUBLE) else None
    match error:
        case None:
            gate.succeeded(now, sent_at=sent_at)
        case RateLimited():
            gate.throttled(now, sent_at=sent_at, retry_after=error.retry_after)
        case TransportError() if not left:
            gate.unreachable(now, sent_at=sent_at)
        case ServerError():
            gate.failed(now, sent_at=sent_at, retry_after=error.retry_after)
        case TransportError():
            gate.failed(now, sent_at=sent_at)
        case VeoError() if not gate.paid and is_dead_token(error):
            gate.unreachable(now, sent_at=sent_at)  # one probe at a time, ever more rarely
        case ApiError():
            gate.succeeded(now, sent_at=sent_at)  # the lane works, whatever it said of this one
        case _:
            gate.withdrawn(now, sent_at=sent_at)  # cancelled, or a fault of ours: nothing was learned
    limiter.changed()


async def sleep(woken: asyncio.Event, *, until: float | None) -> None:
    """
    Sleep until the event is set, or the time has come and sets it; None: for as long as that takes.

    No cancellation is at work here, as in `asyncio.timeout`: up to Python 3.11.3 that ends in a `CancelledError`
    in a task which was cancelled before, and goes on to clean up.
    """
    woken.clear()
    timer = None if until is None else asyncio.get_running_loop().call_at(until, woken.set)
    try:
        await woken.wait()
    finally:
        if timer is not None:
            timer.cancel()

"""
Lets coroutines wait until a gate opens, in order of arrival.
"""

from __future__ import annotations

import asyncio
from typing import Final

from attrs import define, field

from .._api.replies import is_dead_token
from .._observing.observers import Observers
from ..errors import ApiError, RateLimited, ServerError, TransportError, VeoError
from ..events import Paused, Resumed
from .gate import Gate

__all__ = ["TROUBLE", "Limiter", "report", "sleep"]

TROUBLE: Final = (RateLimited, ServerError, TransportError)  # errors that may explain why nothing is sent


@define(eq=False)
class Limiter:
    """
    Lets coroutines through a gate one after the other.

    Each of them must report its outcome: by `report`, or to the gate itself, followed by `changed`.

    Attributes:
        lane: the lane's name for observers.
        trouble: the message of the last request's error if it is one of `TROUBLE`, else None.
    """

    gate: Gate
    lane: str = ""
    observers: Observers = field(factory=Observers)
    trouble: str | None = field(init=False, default=None)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _change: asyncio.Event = field(init=False, factory=asyncio.Event)
    _pauses: int = field(init=False, default=0)  # of the gate, that observers were told of
    _paused_at: float | None = field(init=False, default=None)

    def now(self) -> float:
        """
        Return the time in seconds on the event loop's clock, which all gates and schedules use.
        """
        return asyncio.get_running_loop().time()

    async def enter(self) -> float:
        """
        Wait until a request may go and count it as sent; returns the time, in seconds on the loop's clock.
        """
        async with self._turn:  # an asyncio lock is fair: first come, first served
            while (now := self.open_now()) is None:
                await self.wait_for_change()
            self.gate.take(now)
            return now

    def try_enter(self) -> float | None:
        """
        Count a request as sent if it may go now and none waits before it; returns the time, else None.
        """
        now = None if self._turn.locked() else self.open_now()
        if now is not None:
            self.gate.take(now)
        return now

    def open_now(self) -> float | None:
        """
        Return the time if a request may go now, else None.
        """
        now = self.now()
        opens_at = self.gate.opens_at(now)
        return now if opens_at is not None and opens_at <= now else None

    async def wait_for_change(self, until: float | None = None) -> None:
        """
        Wait until the gate may have opened, but not past `until`.
        """
        times = [at for at in (self.gate.opens_at(self.now()), until) if at is not None]
        await sleep(self._change, until=min(times, default=None))

    def changed(self) -> None:
        """
        Wake the waiting coroutines, so that they check the gate again, and tell observers of a pause or its end.
        """
        self._change.set()
        if self.gate.pauses != self._pauses:
            self._tell_of_pause()
        elif self._paused_at is not None and self.gate.probe is None:
            seconds, self._paused_at = self.now() - self._paused_at, None
            self.observers.tell(Resumed, lane=self.lane, seconds=seconds)

    def _tell_of_pause(self) -> None:
        now, self._pauses = self.now(), self.gate.pauses
        self._paused_at = now if self._paused_at is None else self._paused_at
        seconds = max(0.0, self.gate.pause_ends_at - now)
        self.observers.tell(Paused, lane=self.lane, seconds=seconds, reason=self.trouble)


def report(limiter: Limiter, error: BaseException | None, *, left: bool, sent_at: float) -> None:
    """
    Report the outcome of a request to the gate. Only this table tells what an outcome means for later requests.

    Args:
        error: the error that ended the request, or None.
        left: whether the request had begun to leave this machine.
        sent_at: when the request entered the gate.
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
            gate.unreachable(now, sent_at=sent_at)  # probe one at a time, with growing delays
        case ApiError():
            gate.succeeded(now, sent_at=sent_at)  # the lane works; the error concerns this request alone
        case _:
            gate.withdrawn(
                now, sent_at=sent_at
            )  # cancelled, or our own bug: it says nothing about the server
    limiter.changed()


async def sleep(woken: asyncio.Event, *, until: float | None) -> None:
    """
    Sleep until the event is set, or until a time on the event loop's clock; None means no time limit.

    `asyncio.timeout` is not used: it works by cancellation, and up to Python 3.11.3 it raises `CancelledError` in a
    task that was cancelled before and is cleaning up.
    """
    woken.clear()
    timer = None if until is None else asyncio.get_running_loop().call_at(until, woken.set)
    try:
        await woken.wait()
    finally:
        if timer is not None:
            timer.cancel()

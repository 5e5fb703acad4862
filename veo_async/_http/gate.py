"""
Decides when a lane may send: pauses, probes, the cap of tasks in flight, and rates.

Each lane (submits and polls) has one gate, instead of a back-off per job: a thousand jobs that back off one by one
still send a thousand requests to an overloaded server. A gate reads no clock and never waits. Its caller asks
`opens_at(now)`, calls `take(now)` when a request goes, and reports the outcome of each request once.

*Pauses.* A 429, a `Retry-After`, a failed connection, or five failures in a row pause the lane for the next back-off
delay. Then one request goes alone, as a probe. If it fails, a longer pause begins. If it succeeds, two requests may
be out, then four, until the limit is lifted. After a 429 the next request is the probe, since a refused request costs
nothing. After an outage the outcome of a request may stay unknown, so a lane whose requests are billed (`paid`)
probes with a free read.

*Late answers.* Fifty polls in flight can return fifty 429s for one overload. An answer to a request that was sent
before the pause neither ends the pause nor begins another. Only its `Retry-After` counts, as it may be longer.

*The cap in flight.* A 429 while k accepted tasks are unsettled suggests that the server allows k at once. The gate
then holds at k until a task settles. This may be wrong: the 429 may come from another limit, or a task may have ended
unnoticed. So, some time after the last 429, a trial request goes beyond the cap while no other is out. That time
grows, up to `max_pause`, if the cap is confirmed (the trial is refused). It shrinks, down to `first`, if the cap is
contradicted (the trial is accepted, or a request below the cap is refused). Trials accepted in a row raise the cap by
1, 2, 4, and so on.

*Rates.* A pause alone does not mean that the rate is too high: the server may have failed. A 429 within `max_delay`
seconds after the last pause, which no cap explains, halves the rate. It rises again linearly, at a speed of the full
rate per `max_pause` seconds.

*Limits of the account.* Sessions in other processes may share limits with this one, which hold a request back before
it is sent. That is no trouble: the lane stays shut until a request may ask again, and all else stays as it is.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from random import Random
from typing import Final, Literal

from attrs import define, field

from .._policies import RetryPolicy

__all__ = ["Gate", "Probe"]


# --- the gate ------------------------------------------------------------------------------------------


Probe = Literal["read", "request"]

FAILURES: Final = 5  # in a row; fewer may concern only the jobs that failed
WIDE: Final = 128  # requests out; a window above the 100 connections of `Limits` limits nothing
ASK_AGAIN: Final = 1.0  # seconds, if nobody tells when a task of the account settles
SLOWEST: Final = 1 / 32  # of the full rate; slow enough for any server, fast enough to see its recovery


@define(eq=False)
class _Rate:
    """
    Allows a burst of requests and then spaces them evenly, more widely after the rate was halved.

    Any period of `burst / full` seconds has at most `burst` requests: those that the rate allows right after a burst
    must wait.

    Attributes:
        full: the configured rate, in requests a second; None for no limit.
        burst: how many requests may go at once after a quiet time.
        climb: seconds in which a lowered rate rises by the full rate.
    """

    full: float | None
    burst: int
    climb: float
    _due_at: float = field(default=-math.inf, init=False)  # when the next would go without a burst
    _last: deque[float] = field(init=False)  # times of the last `burst` requests
    _lowered: float | None = field(default=None, init=False)
    _lowered_at: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._last = deque(maxlen=self.burst)

    def opens_at(self) -> float:
        if self.full is None:
            return self._due_at
        # The slack is computed with the full rate, so a lowered rate also allows smaller bursts only.
        spaced_at = self._due_at - (self.burst - 1) / self.full
        if len(self._last) < self.burst:
            return spaced_at
        return max(spaced_at, self._last[0] + self.burst / self.full)

    def spend(self, now: float) -> None:
        rate = self.at(now)
        if rate is not None:
            self._due_at = max(self._due_at, now) + 1 / rate
            self._last.append(now)

    def at(self, now: float) -> float | None:
        if self.full is None or self._lowered is None:
            return self.full
        return min(self.full, self._lowered + self.full * (now - self._lowered_at) / self.climb)

    def halve(self, now: float) -> None:
        rate = self.at(now)
        if self.full is not None and rate is not None:
            self._lowered = max(rate / 2, self.full * SLOWEST)
            self._lowered_at = now


@define(eq=False)
class _Cap:
    """
    Estimates from the server's answers how many tasks it allows at once.

    Attributes:
        places: how many tasks; None without evidence of a cap.
        trial_at: when a request may go beyond the cap.
    """

    retry: RetryPolicy
    places: int | None = field(default=None, init=False)
    trial_at: float = field(default=-math.inf, init=False)
    _patience: float = field(default=0.0, init=False)  # seconds from a 429 to a trial
    _step: int = field(default=1, init=False)  # by how much the next accepted trial raises the cap

    def accepted(self, unsettled: int) -> None:
        if self.places is not None and unsettled >= self.places:
            self.places = unsettled + self._step
            self._step *= 2
            self._doubt()

    def refused(self, now: float, unsettled: int) -> bool:
        """
        Learn from a 429 while `unsettled` tasks were unsettled; returns whether the cap explains it.
        """
        explained = self.places is not None and unsettled >= self.places
        if explained:
            self._patience = min(self._patience * self.retry.factor, self.retry.max_pause)
        elif unsettled:  # with none, the reason is other processes' tasks, or not the number of tasks
            self.places = unsettled
            self._doubt()
        self._step = 1
        self.trial_at = now + self._patience
        return explained

    def held(self, unsettled: int) -> None:
        """
        Learn that the server holds `unsettled` tasks at once.
        """
        if self.places is not None:
            self.places = max(self.places, unsettled)

    def _doubt(self) -> None:
        self._patience = max(self._patience / self.retry.factor, self.retry.first)


@define(eq=False, kw_only=True, repr=False)
class Gate:
    """
    Decides when one lane may send.

    All times are float seconds on one monotonic clock, given by the caller.
    Once `opens_at(now)` is not later than `now`, call `take(now)`, and send a request, or a free read if `probe` is
    `read`. Report a request by exactly one of `succeeded`, `throttled`, `unreachable`, `failed`, `held_back` and
    `withdrawn`; `sent_at` is the time of its `take`. Report a read by `probed` or `withdrawn`.

    Args:
        retry: how long the pauses are.
        rate: requests a second; None for no limit.
        burst: how many requests may go at once after a quiet time, before the rate spaces them.
        max_in_flight: the limit of unsettled tasks plus requests out; None for no limit of our own.
        paid: requests may be billed, so a free read probes after an outage.
        random: the source of the jitter.

    Attributes:
        probe: what is sent first after the pause; None if the lane is not paused.
        unsettled: accepted tasks that have not settled.
        pauses: how often the lane was paused, failed probes included.
        probes: how many probes were sent.
    """

    retry: RetryPolicy
    rate: float | None = None
    burst: int = 1
    max_in_flight: int | None = None
    paid: bool = False
    random: Random = field(factory=Random)

    probe: Probe | None = field(default=None, init=False)
    unsettled: int = field(default=0, init=False)
    pauses: int = field(default=0, init=False)
    probes: int = field(default=0, init=False)

    _rate: _Rate = field(init=False)
    _cap: _Cap = field(init=False)
    _out: int = field(default=0, init=False)  # sent after the last pause began, and not answered
    _late: int = field(default=0, init=False)  # sent before that, and not answered
    _window: int | None = field(default=None, init=False)  # how many may be out; None: any number
    _failures: int = field(default=0, init=False)  # in a row
    _delays: Iterator[float] | None = field(default=None, init=False)  # None: begin the back-off again
    _paused_at: float = field(default=-math.inf, init=False)
    _pause_ends_at: float = field(default=-math.inf, init=False)
    _opened_at: float = field(default=-math.inf, init=False)
    _held_until: float = field(default=-math.inf, init=False)
    _needs_place: bool = field(default=False, init=False)  # it is held until a task of the account settles

    def __attrs_post_init__(self) -> None:
        self._rate = _Rate(self.rate, self.burst, self.retry.max_pause)
        self._cap = _Cap(self.retry)

    def __repr__(self) -> str:
        cap = "" if self.cap is None else f", cap {self.cap}"
        return (
            f"<Gate {self.state}: {self.requests_out} out, {self.unsettled} unsettled{cap}, "
            f"{self.pauses} pauses, {self.probes} probes>"
        )

    @property
    def state(self) -> Literal["open", "widening", "paused", "probing"]:
        """
        The state of the lane, in a word.
        """
        if self.probe is not None:
            return "probing" if self._out else "paused"
        return "open" if self._window is None else "widening"

    @property
    def requests_out(self) -> int:
        """
        How many requests were taken and have not ended.
        """
        return self._out + self._late

    @property
    def cap(self) -> int | None:
        """
        How many tasks in flight the server seems to allow; None without evidence of a cap.
        """
        return self._cap.places

    @property
    def pause_ends_at(self) -> float:
        """
        When the last pause ends, or ended.
        """
        return self._pause_ends_at

    def rate_at(self, now: float) -> float | None:
        """
        Return the lane's rate now, in requests a second; None for no limit.
        """
        return self._rate.at(now)

    # --- queries ---

    def opens_at(self, now: float) -> float | None:
        """
        Return when a request may go: `now`, a later time, or None if that depends on an event.

        The event is an answer, or a task that settles. If `probe` is `read`, the time is that of the read, and the
        request must ask again after it.
        """
        if self._window is not None and self._out >= self._window:
            return None
        if self.probe == "read":
            return max(now, self._pause_ends_at)
        place_at = self._place_at()
        if place_at is None:
            return None
        return max(now, self._pause_ends_at, place_at, self._rate.opens_at(), self._held_until)

    def _place_at(self) -> float | None:
        out = self._out + self._late
        if self.max_in_flight is not None and self.unsettled + out >= self.max_in_flight:
            return None
        if self._cap.places is None or self.unsettled + out < self._cap.places:
            return -math.inf
        # A request beyond the cap goes alone, so that its answer is certainly about the cap.
        return None if out else self._cap.trial_at

    # --- requests go and end ---

    def take(self, now: float) -> None:
        """
        Note that a request goes now, or the read if `probe` is `read`.
        """
        self._out += 1
        if self.probe is not None:
            self.probes += 1
        if self.probe != "read":
            self._rate.spend(now)

    def succeeded(self, now: float, *, sent_at: float) -> None:
        """
        The server answered; an error that concerns this request alone, such as a 400, counts as well.
        """
        if not self._ended(sent_at):
            return
        self._failures = 0
        self._delays = None
        if self.probe is not None:
            self._open(now)
        if self._window is not None:
            self._window = 2 * self._window if 2 * self._window < WIDE else None
        self._cap.accepted(self.unsettled)

    def throttled(
        self, now: float, *, sent_at: float, retry_after: float | None = None, in_flight: int | None = None
    ) -> None:
        """
        The server answered with 429, and perhaps asked to wait for `retry_after` seconds.

        Args:
            in_flight: how many accepted tasks were unsettled then; None uses the gate's own count.
        """
        if not self._ended(sent_at):
            self._wait_longer(now, retry_after)
        elif self._cap.refused(now, self.unsettled if in_flight is None else in_flight):
            # Only the cap was reached: the delay stays short, so that the lane is ready when a task settles.
            delay = next(self.retry.delays(self.random))
            self._pause(now, delay, probe="request", retry_after=retry_after)
        else:
            if self.probe is None and now - self._opened_at <= self.retry.max_delay:
                self._rate.halve(now)
            self._pause(now, self._next_delay(), probe="request", retry_after=retry_after)

    def unreachable(self, now: float, *, sent_at: float) -> None:
        """
        The connection could not be made.
        """
        if self._ended(sent_at):
            self._pause(now, self._next_delay(), probe="read")

    def failed(self, now: float, *, sent_at: float, retry_after: float | None = None) -> None:
        """
        The request failed in another way, and the server perhaps asked to wait for `retry_after` seconds.

        A single failure pauses the lane only if it was the probe or came with a `Retry-After`.
        """
        if not self._ended(sent_at):
            self._wait_longer(now, retry_after)
            return
        self._failures += 1
        if self.probe is not None or self._failures >= FAILURES or retry_after is not None:
            self._pause(now, self._next_delay(), probe="read", retry_after=retry_after)

    def overdue(self, now: float) -> None:
        """
        An answer is late. If the window lets nothing else go before it, pause the lane, and probe again.

        The request is still out, and ends like any other. Do not call this for a probing read.
        """
        if self._window is not None and self._out >= self._window:
            self._pause(now, self._next_delay(), probe="read")

    def withdrawn(self, now: float, *, sent_at: float) -> None:
        """
        A request that was taken, or the probing read, was not sent: its place is free again.

        It still counts against the rate, so that the rate is never exceeded.
        """
        self._ended(sent_at)

    def held_back(self, now: float, *, sent_at: float, seconds: float | None) -> None:
        """
        A request that was taken was not sent: the limits that all sessions of the account share do not allow it.

        Like one that was withdrawn, it counts against the rate.

        Args:
            seconds: when the next request may ask; None if that depends on when a task of the account settles.
        """
        self._ended(sent_at)
        self._needs_place = seconds is None
        self._held_until = now + (ASK_AGAIN if seconds is None else seconds)

    def place_freed(self) -> None:
        """
        A task of the account has settled, here or in another session.
        """
        if self._needs_place:
            self._held_until = -math.inf

    def limits_changed(self) -> None:
        """
        The limits of the account may have been changed.
        """
        self._held_until = -math.inf

    def probed(self, now: float, *, ok: bool, retry_after: float | None = None) -> None:
        """
        The probing read has ended: if `ok`, the lane opens for one request, else it pauses again.
        """
        self._out -= 1
        if ok:
            # The delays keep growing until a request succeeds: a working read does not prove that requests work.
            self._open(now)
        else:
            self._pause(now, self._next_delay(), probe="read", retry_after=retry_after)

    # --- tasks come and go ---

    def entered(self, count: int = 1) -> None:
        """
        `count` tasks were accepted, or are watched again, and are unsettled.
        """
        self.unsettled += count
        self._cap.held(self.unsettled)

    def left(self, count: int = 1) -> None:
        """
        `count` tasks have settled, or are no longer watched.
        """
        self.unsettled -= count
        self.place_freed()

    # --- state changes ---

    def _ended(self, sent_at: float) -> bool:
        """
        Free the place of a request; returns whether it was sent after the last pause began.
        """
        late = sent_at <= self._paused_at
        assert (self._late if late else self._out) > 0, "a request ends once"
        if late:
            self._late -= 1
        else:
            self._out -= 1
        return not late

    def _open(self, now: float) -> None:
        self.probe = None
        self._opened_at = now

    def _pause(self, now: float, delay: float, *, probe: Probe, retry_after: float | None = None) -> None:
        self._late += self._out
        self._out = 0
        self._window = 1
        self._paused_at = now
        self._pause_ends_at = now + self.retry.pause(delay, retry_after=retry_after)
        self.probe = probe if self.paid else "request"
        self.pauses += 1

    def _wait_longer(self, now: float, retry_after: float | None) -> None:
        if self.probe is not None and not self._out:
            self._pause_ends_at = max(self._pause_ends_at, now + self.retry.pause(0, retry_after=retry_after))

    def _next_delay(self) -> float:
        if self._delays is None:
            self._delays = self.retry.delays(self.random)
        return next(self._delays)

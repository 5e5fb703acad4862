"""
When a lane may send: pauses, probes, the cap in flight, and rates.

One gate stands before each lane, submits and polls, in place of one back-off per job: a thousand jobs that
each back off alone still are a thousand requests at a server that asked for quiet. A gate reads no clock and
waits for nothing. It is asked `opens_at(now)`, told `take(now)` when a request goes, and told once how that
request ended.

*Pauses.* A 429, a `Retry-After`, a connection that cannot be made, or five failures in a row close the lane
for the next back-off delay. Then one request, the probe, goes alone. Where it fails, a longer pause begins;
where it succeeds, two may be out, then four, until the lane is as wide as ever. After a 429 the probe is the
next request itself: if it is refused, it has cost nothing. After an outage a request may end in doubt, so a
lane whose requests buy something (`paid`) sends a free read first.

*Late answers.* Fifty polls in flight bring fifty 429s and mean one. An answer to a request that was sent
before the pause began belongs to its cause: it neither ends the pause nor begins another. Only its
`Retry-After` counts, as it may ask for more.

*The cap in flight.* A 429 while k accepted tasks are unsettled suggests that the server allows k at once.
The gate then holds at k, and goes on as soon as one settles. That is a suspicion: another limit may have
spoken, and a task may have ended unnoticed. So, some time after the last 429, one request goes beyond the
cap, with no other out. What confirms the cap (that one is refused too) makes the time longer, up to
`max_pause`; what contradicts it (that one is accepted, or one below the cap is refused) makes it shorter,
down to `first`. One accepted after the other raises the cap by 1, 2, 4, and so on.

*Rates.* A pause alone says nothing against the rate: the server may have been ill. A 429 within `max_delay`
seconds of the end of the last pause, which no cap explains, does: the rate is halved, and climbs back
evenly, by its full height in `max_pause` seconds.
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

FAILURES: Final = (
    5  # in a row: fewer may be one bad batch of jobs, and an isolated one is its own job's matter
)
WIDE: Final = 128  # requests out: past the 100 connections of `Limits` a window would limit nothing
SLOWEST: Final = 1 / 32  # of the full rate: slow enough for any server, and still quick to notice a change


@define(eq=False)
class _Rate:
    """
    Spaces requests evenly, after a burst, and more widely once the server has objected.

    Within the time in which the full rate allows a burst, no more than a burst goes: one after a quiet time must not
    come on top of what the rate allows right after it.

    Attributes:
        full: requests a second that were asked for; None for no limit.
        burst: how many may go at once after a quiet time.
        climb: seconds in which a lowered rate would rise by the full one.
    """

    full: float | None
    burst: int
    climb: float
    _due_at: float = field(default=-math.inf, init=False)  # when the next would go, were there no burst
    _last: deque[float] = field(init=False)  # when those went that would make a burst with the next one
    _lowered: float | None = field(default=None, init=False)
    _lowered_at: float = field(default=-math.inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._last = deque(maxlen=self.burst)

    def opens_at(self) -> float:
        if self.full is None:
            return self._due_at
        # The slack is one of the full rate, so that a lowered rate allows smaller bursts as well.
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
    What the server's answers suggest about how many tasks it allows at once.

    Attributes:
        places: how many; None without a suspicion.
        trial_at: when one more may be tried.
    """

    retry: RetryPolicy
    places: int | None = field(default=None, init=False)
    trial_at: float = field(default=-math.inf, init=False)
    _patience: float = field(default=0.0, init=False)  # seconds from a 429 to a trial
    _step: int = field(default=1, init=False)  # how far the next trial that succeeds raises the cap

    def accepted(self, unsettled: int) -> None:
        if self.places is not None and unsettled >= self.places:
            self.places = unsettled + self._step
            self._step *= 2
            self._doubt()

    def refused(self, now: float, unsettled: int) -> bool:
        """
        Learn from a 429 while so many tasks were unsettled; tell whether the cap explains it.
        """
        explained = self.places is not None and unsettled >= self.places
        if explained:
            self._patience = min(self._patience * self.retry.factor, self.retry.max_pause)
        elif unsettled:  # with none, other processes' tasks are in the way, or it is no matter of tasks
            self.places = unsettled
            self._doubt()
        self._step = 1
        self.trial_at = now + self._patience
        return explained

    def held(self, unsettled: int) -> None:
        """
        Learn that the server holds so many tasks, however they came to be there.
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
    Once `opens_at(now)` is not later than `now`, call `take(now)`, and send a request, or a free read where
    `probe` is `read`. The request ends in exactly one of `succeeded`, `throttled`, `unreachable`, `failed`
    and `withdrawn`, with `sent_at` the time it was taken at; the read ends in `probed` or `withdrawn`.

    Args:
        retry: how long the pauses are.
        rate: requests a second; None for no limit.
        burst: how many requests may go at once after a quiet time, before the rate spaces them.
        max_in_flight: accepted tasks unsettled and requests out, together; None for no limit of our own.
        paid: a request may buy something, so a free read probes after an outage.
        random: the source of the jitter.

    Attributes:
        probe: what opens the lane once its pause is over; None where it is not paused.
        unsettled: accepted tasks that have not settled.
        pauses: how often the lane has been paused, failed probes included.
        probes: how many probes went.
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
    _out: int = field(default=0, init=False)  # sent since the last pause began, and not answered
    _late: int = field(default=0, init=False)  # sent before, and not answered
    _window: int | None = field(default=None, init=False)  # how many may be out; None: any number
    _failures: int = field(default=0, init=False)  # in a row
    _delays: Iterator[float] | None = field(default=None, init=False)  # None: the next pause is a first one
    _paused_at: float = field(default=-math.inf, init=False)
    _pause_ends_at: float = field(default=-math.inf, init=False)
    _opened_at: float = field(default=-math.inf, init=False)

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
        How the lane stands, in a word.
        """
        if self.probe is not None:
            return "probing" if self._out else "paused"
        return "open" if self._window is None else "widening"

    @property
    def requests_out(self) -> int:
        """
        Requests that were taken and have not ended.
        """
        return self._out + self._late

    @property
    def cap(self) -> int | None:
        """
        How many tasks in flight the server seems to allow; None without a suspicion.
        """
        return self._cap.places

    def rate_at(self, now: float) -> float | None:
        """
        Requests a second that the lane allows itself now; None for no limit.
        """
        return self._rate.at(now)

    # Asked

    def opens_at(self, now: float) -> float | None:
        """
        When a request may go: `now` for at once, a later time, or None where only an event can tell.

        Such an event is an answer, or a task that settles. Where `probe` is `read`, the answer is about
        that read, and the request asks again after it.
        """
        if self._window is not None and self._out >= self._window:
            return None
        if self.probe == "read":
            return max(now, self._pause_ends_at)
        place_at = self._place_at()
        if place_at is None:
            return None
        return max(now, self._pause_ends_at, place_at, self._rate.opens_at())

    def _place_at(self) -> float | None:
        out = self._out + self._late
        if self.max_in_flight is not None and self.unsettled + out >= self.max_in_flight:
            return None
        if self._cap.places is None or self.unsettled + out < self._cap.places:
            return -math.inf
        # Beyond the cap one goes alone, so that there is no doubt which request the answer is about.
        return None if out else self._cap.trial_at

    # Told: a request goes, and ends

    def take(self, now: float) -> None:
        """
        Let one request go now, or the read that `probe` asks for.
        """
        self._out += 1
        if self.probe is not None:
            self.probes += 1
        if self.probe != "read":
            self._rate.spend(now)

    def succeeded(self, now: float, *, sent_at: float) -> None:
        """
        The server answered, be it with a refusal that concerns this one request, such as a 400.
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
            in_flight: accepted tasks unsettled at that moment; None for the gate's own count.
        """
        if not self._ended(sent_at):
            self._wait_longer(now, retry_after)
        elif self._cap.refused(now, self.unsettled if in_flight is None else in_flight):
            # A place was not free yet, that is all: the lane must be ready when the next one is.
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
        The request failed in any other way, and the server perhaps asked to wait for `retry_after` seconds.

        One failure concerns its own job alone, unless it was the probe or came with a `Retry-After`.
        """
        if not self._ended(sent_at):
            self._wait_longer(now, retry_after)
            return
        self._failures += 1
        if self.probe is not None or self._failures >= FAILURES or retry_after is not None:
            self._pause(now, self._next_delay(), probe="read", retry_after=retry_after)

    def overdue(self, now: float) -> None:
        """
        The answer to a request is long in coming: where nothing may go before it, the lane is paused, and probed anew.

        The request is still out, and ends as any other. To be told of no read that probes.
        """
        if self._window is not None and self._out >= self._window:
            self._pause(now, self._next_delay(), probe="read")

    def withdrawn(self, now: float, *, sent_at: float) -> None:
        """
        A request that was taken, or the read that probes, was never made: its place is free again.

        Its share of the rate stays spent, so that the rate holds whatever happens.
        """
        self._ended(sent_at)

    def probed(self, now: float, *, ok: bool, retry_after: float | None = None) -> None:
        """
        The read that probes was answered: `ok` opens the lane for one request, anything else pauses again.
        """
        self._out -= 1
        if ok:
            # The delays go on growing until a request succeeds: that reads work does not prove that these do.
            self._open(now)
        else:
            self._pause(now, self._next_delay(), probe="read", retry_after=retry_after)

    # Told: tasks come and go

    def entered(self, count: int = 1) -> None:
        """
        So many tasks were accepted, or taken up again, and are unsettled.
        """
        self.unsettled += count
        self._cap.held(self.unsettled)

    def left(self, count: int = 1) -> None:
        """
        So many tasks settled, or are no longer watched.
        """
        self.unsettled -= count

    # How the state changes

    def _ended(self, sent_at: float) -> bool:
        """
        Give the place back; tell whether the request went after the last pause began.
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

"""
The settings for callers: polling, retries, and the limits of a process.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from random import Random
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import backoff
from attrs import evolve, field, frozen

from .errors import ConfigurationError

if TYPE_CHECKING:
    from attrs import Attribute

__all__ = ["Limits", "PollPolicy", "RetryPolicy", "at_once", "scale_of"]

MOST_AT_ONCE: Final = 10  # polls after a quiet time


def _number(*, low: float, above: bool = False, whole: bool = False, optional: bool = False) -> Any:
    """
    Make a validator for a number that is finite, and at least (or above) `low`.
    """
    kind = "a whole number" if whole else "a finite number"
    bound = f"{'above' if above else 'of at least'} {low:g}"

    def check(_: object, attribute: Attribute[Any], value: object) -> None:
        if optional and value is None:
            return
        if not _fits(value, low, above=above, whole=whole):
            or_none = " or None" if optional else ""
            raise ConfigurationError(f"{attribute.name} must be {kind} {bound}{or_none}, not {value!r}")

    return check


def _fits(value: object, low: float, *, above: bool, whole: bool) -> bool:
    wanted = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted) or not value < math.inf:
        return False
    return value > low if above else value >= low


_positive: Callable[..., Any] = _number(low=0, above=True)
_positive_or_none: Callable[..., Any] = _number(low=0, above=True, optional=True)
_count: Callable[..., Any] = _number(low=1, whole=True)


def _mode(_: object, attribute: Attribute[Any], value: object) -> None:
    if value not in ("learned", "fixed", "backoff"):
        raise ConfigurationError(f"{attribute.name} must be learned, fixed or backoff, not {value!r}")


@frozen(kw_only=True)
class RetryPolicy:
    """
    How long to wait after a failure, and before an absent task counts as not accepted.

        veo = VeoSession(retry=RetryPolicy(max_delay=10.0, drain=30.0))

    Attributes:
        first: the first back-off delay, in seconds.
        factor: by which each further delay is longer.
        max_delay: the longest back-off delay, in seconds.
        max_pause: the longest `Retry-After` that is obeyed, in seconds.
        grace: a submit may end with an unknown outcome. If its task is not listed this long after, in seconds, that
            begins to count as proof that it was not accepted.
        drain: how long submits in flight may go on when a session closes, in seconds.
        recall: how far back, in seconds, to search for tasks that another process, or this one before a crash, may
            have bought.
    """

    first: float = field(default=1.0, validator=_positive)
    factor: float = field(default=2.0, validator=_number(low=1))
    max_delay: float = field(default=30.0, validator=_positive)
    max_pause: float = field(default=300.0, validator=_positive)
    grace: float = field(default=60.0, validator=_number(low=0))
    drain: float = field(default=5.0, validator=_number(low=0))
    recall: float = field(default=86_400.0, validator=_positive)

    def __attrs_post_init__(self) -> None:
        if self.first > self.max_delay:
            raise ConfigurationError(f"first must not exceed max_delay: {self.first} > {self.max_delay}")

    def scaled(self, factor: float, /) -> RetryPolicy:
        """
        Return the policy with every duration multiplied, for a simulator that runs faster than real time.

        `Limits` does not scale, because the network does not. An answer may still take `Limits.read` seconds, which
        may be longer than every scaled duration. If that matters, set shorter times in `Limits`.

            retry = RetryPolicy().scaled(1 / 100)  # for a simulator with speed=100

        Raises:
            ConfigurationError: the factor is not a finite number above 0.
        """
        if not _fits(factor, 0, above=True, whole=False):
            raise ConfigurationError(f"a policy is scaled by a finite number above 0, not {factor!r}")
        return evolve(
            self,
            first=self.first * factor,
            max_delay=self.max_delay * factor,
            max_pause=self.max_pause * factor,
            grace=self.grace * factor,
            drain=self.drain * factor,
            recall=self.recall * factor,
        )

    def delays(self, random: Random) -> Iterator[float]:
        """
        Yield back-off delays in seconds, without end: they grow to at most `max_delay`, and are then jittered.

        The jitter shortens a delay by up to half, so that clients that failed together do not retry together, and
        none retries at once.

            delays = RetryPolicy().delays(Random())
            print(next(delays), next(delays))  # 0.5 to 1 s, then 1 to 2 s
        """
        waits = backoff.expo(base=self.factor, factor=self.first, max_value=self.max_delay)
        next(waits)  # backoff's generators first yield nothing
        while True:
            yield next(waits) * random.uniform(0.5, 1.0)

    def pause(self, delay: float, *, retry_after: float | None = None) -> float:
        """
        Return how long to wait, in seconds: `delay`, or `retry_after` if that is longer.

        `retry_after` is a minimum, so it is applied after the jitter; `max_pause` caps it.

            assert 20.0 == RetryPolicy().pause(1.0, retry_after=20.0)
        """
        # In this order a `nan` counts as 0.
        asked = max(0.0, retry_after or 0.0)
        return max(delay, min(asked, self.max_pause))


@frozen(kw_only=True)
class Limits:
    """
    The limits of this process, however fast the server is.

        veo = VeoSession(limits=Limits(max_in_flight=5, submits_per_second=0.5))

    Attributes:
        max_in_flight: how many tasks may be unsettled at once, submits in flight included; None sets no limit, and
            the server's is learned.
        submits_per_second: the highest rate of submits; None for no limit.
        connections: open connections to the API.
        connect: how long making a connection may take, in seconds.
        read: how long an answer may pause between two reads, in seconds.
        max_reply: the largest reply that is read, in bytes.
        max_queue_wait: how long a job may wait at the gate, in seconds, before it ends with `SubmitTimedOut`; None
            waits for ever.
        max_videos: how many videos may be bought, by the session or, with a journal, by all that use it; None for no
            budget. What may have been bought counts; what failed or was refused does not.
        max_credits: how many credits may be spent, likewise; it needs `VeoSession(platform=...)`. A request whose
            price is not known does not fit.
    """

    max_in_flight: int | None = field(default=None, validator=_number(low=1, whole=True, optional=True))
    submits_per_second: float | None = field(default=None, validator=_positive_or_none)
    connections: int = field(default=100, validator=_count)
    connect: float = field(default=10.0, validator=_positive)
    read: float = field(default=60.0, validator=_positive)
    max_reply: int = field(default=16 * 1024 * 1024, validator=_count)
    max_queue_wait: float | None = field(default=None, validator=_number(low=0, optional=True))
    max_videos: int | None = field(default=None, validator=_number(low=1, whole=True, optional=True))
    max_credits: float | None = field(default=None, validator=_positive_or_none)


@frozen(kw_only=True)
class PollPolicy:
    """
    When to poll tasks; the defaults suit most callers.

        veo = VeoSession(polling=PollPolicy(mode="fixed", interval=10.0, deadline=3600.0))

    Attributes:
        mode: `learned` polls a task when it is likely to end, `fixed` every `interval`, `backoff` with growing gaps.
        interval: seconds between looks at a task; in `learned` mode approximately, while most tasks end, and if many
            are in flight.
        first_look: seconds from acceptance to the first look; None leaves it to the mode.
        max_gap: the longest gap between looks at a task that takes unusually long, in seconds.
        batch_size: the most tasks in one request.
        budget: the most requests a second.
        deadline: seconds from acceptance until a job stops waiting; None waits for ever.
    """

    mode: Literal["learned", "fixed", "backoff"] = field(default="learned", validator=_mode)
    interval: float = field(default=3.0, validator=_positive)
    first_look: float | None = field(default=None, validator=_positive_or_none)
    max_gap: float = field(default=30.0, validator=_positive)
    batch_size: int = field(default=50, validator=_count)
    budget: float = field(default=10.0, validator=_positive)
    deadline: float | None = field(default=1800.0, validator=_positive_or_none)
    _scale: float = field(default=1.0, alias="_scale", repr=False, validator=_positive)

    def scaled(self, factor: float, /) -> Self:
        """
        Return the policy for a server that is slower by `factor`: durations are multiplied, rates are divided.

        Counts do not change, and neither does `Limits`, as for `RetryPolicy.scaled`. While an answer is late, its
        tasks are polled again: after 5 seconds times the scale, but never before 1 second.

            polling = PollPolicy().scaled(1 / 100)  # for a simulator with speed=100

        Raises:
            ConfigurationError: the factor is not a finite number above 0.
        """
        if not 0 < factor < math.inf:
            raise ConfigurationError(f"factor must be a finite number above 0, not {factor!r}")
        return evolve(
            self,
            interval=self.interval * factor,
            first_look=None if self.first_look is None else self.first_look * factor,
            max_gap=self.max_gap * factor,
            budget=self.budget / factor,
            deadline=None if self.deadline is None else self.deadline * factor,
            _scale=self._scale * factor,
        )


# For other modules of this package, not for callers.


def scale_of(policy: PollPolicy) -> float:
    """
    Return the factor by which the policy's durations were multiplied.
    """
    return policy._scale


def at_once(policy: PollPolicy) -> int:
    """
    Return how many requests may go at once after a quiet time: one second of the unscaled budget, at most 10.
    """
    return max(1, min(MOST_AT_ONCE, round(policy.budget * policy._scale)))

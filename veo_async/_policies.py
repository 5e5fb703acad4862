"""
What callers may set: how to poll, how to try again, and what a process allows itself.
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

MOST_AT_ONCE: Final = 10  # polls that go together


def _number(*, low: float, above: bool = False, whole: bool = False, optional: bool = False) -> Any:
    """
    A validator for one number: finite, and at least (or above) `low`.
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
    How long to wait after a failure, and before a verdict.

    Attributes:
        first: the first back-off delay, in seconds.
        factor: how much longer each further delay is.
        max_delay: the longest back-off delay, in seconds.
        max_pause: the most that a server's `Retry-After` may ask for, in seconds.
        grace: how long after the end of a submit whose outcome is unknown its absence from the listing
            begins to count as proof, in seconds.
        drain: how long submits in flight may go on when a session closes, in seconds.
        recall: how far back tasks are looked for that another process may have bought, or this one before a
            crash, in seconds.
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
            raise ConfigurationError(f"first must not exceed max_delay, {self.first} > {self.max_delay}")

    def scaled(self, factor: float, /) -> RetryPolicy:
        """
        The same policy with every duration multiplied, to match a simulator that runs faster than life.

        `Limits` does not scale: the network runs as fast as ever, so an answer may keep silent for `Limits.read`
        seconds, which may be longer than all that is scaled. Where that matters, give `Limits` shorter times.
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
        Back-off delays in seconds, without end: each grows to at most `max_delay`, and is then jittered.

        The jitter takes away up to half, so that clients that failed together do not come back together
        and still none comes back at once.
        """
        waits = backoff.expo(base=self.factor, factor=self.first, max_value=self.max_delay)
        next(waits)  # backoff's generators start with an empty yield
        while True:
            yield next(waits) * random.uniform(0.5, 1.0)

    def pause(self, delay: float, *, retry_after: float | None = None) -> float:
        """
        How long to wait, in seconds: `delay`, or what the server asked for where that is longer.

        `Retry-After` is a floor, so it is applied after the jitter; `max_pause` caps it.
        """
        # In this order a `nan` counts as 0.
        asked = max(0.0, retry_after or 0.0)
        return max(delay, min(asked, self.max_pause))


@frozen(kw_only=True)
class Limits:
    """
    What this process allows itself, however fast the server is.

    Attributes:
        max_in_flight: tasks that may be unsettled at once, submits under way included; None: no limit of
            our own, the server's is learned.
        submits_per_second: None for no limit.
        connections: open connections to the API.
        connect: how long a connection may take to be made, in seconds.
        read: how long an answer may keep silent, in seconds.
        max_reply: the largest reply that is read, in bytes.
        max_queue_wait: how long a job may wait at the gate, in seconds, before it settles with
            `SubmitTimedOut`; None: for ever.
    """

    max_in_flight: int | None = field(default=None, validator=_number(low=1, whole=True, optional=True))
    submits_per_second: float | None = field(default=None, validator=_positive_or_none)
    connections: int = field(default=100, validator=_count)
    connect: float = field(default=10.0, validator=_positive)
    read: float = field(default=60.0, validator=_positive)
    max_reply: int = field(default=16 * 1024 * 1024, validator=_count)
    max_queue_wait: float | None = field(default=None, validator=_number(low=0, optional=True))


@frozen(kw_only=True)
class PollPolicy:
    """
    When to ask about tasks; the defaults need no thought.

    Attributes:
        mode: `learned` looks where tasks end, `fixed` every `interval`, `backoff` ever more rarely.
        interval: seconds between looks; in `learned` mode about that while most tasks end, many being in flight.
        first_look: seconds from acceptance to the first look; None leaves it to the mode.
        max_gap: the longest gap between looks at a straggler, in seconds.
        batch_size: how many tasks one request asks about at most.
        budget: requests a second at most.
        deadline: seconds after acceptance until a job gives up waiting; None waits for ever.
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
        Return the policy for a server that is slower by `factor`: durations times it, rates divided by it.

        Counts stay, and so does `Limits`, as for `RetryPolicy.scaled`. An answer counts as slow, so that those it is
        about are asked about again beside it, after 5 seconds times the scale, and never before 1 second.
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


# What callers have no use for, and other rooms have.


def scale_of(policy: PollPolicy) -> float:
    """
    Return by how much the policy's durations were multiplied.
    """
    return policy._scale


def at_once(policy: PollPolicy) -> int:
    """
    Return how many requests may go together after a quiet time: a second's worth of the unscaled budget, and not many.
    """
    return max(1, min(MOST_AT_ONCE, round(policy.budget * policy._scale)))

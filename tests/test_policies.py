"""
What callers may set: what is refused, what scales, and which delays follow from it.
"""

from __future__ import annotations

import math
import pickle
from itertools import islice
from random import Random
from typing import Any

import pytest
from attrs.exceptions import FrozenInstanceError

from tests.unjittered import Unjittered
from veo_async._policies import Limits, PollPolicy, RetryPolicy
from veo_async.errors import ConfigurationError


class TestRetryPolicy:
    def test_delays_grow_to_the_longest(self) -> None:
        """Delays grow by the factor, and stop growing at max_delay."""
        assert [1, 2, 4, 8, 16, 30, 30] == list(islice(RetryPolicy().delays(Unjittered()), 7))

    def test_delays_are_jittered_by_half(self) -> None:
        """A jittered delay keeps at least half of its length, and none is as good as certain to equal another."""
        policy = RetryPolicy(first=1, factor=1)

        delays = list(islice(policy.delays(Random(1)), 1000))

        assert 0.5 <= min(delays) < 0.51
        assert 0.99 < max(delays) <= 1

    def test_two_sources_of_jitter_give_two_sequences(self) -> None:
        """Each sequence of delays draws on the source it was given."""
        policy = RetryPolicy()

        first, again, other = (list(islice(policy.delays(Random(seed)), 5)) for seed in (1, 1, 2))

        assert first == again != other

    @pytest.mark.parametrize(
        ("expected", "retry_after"),
        [(2, None), (2, 0), (2, 1.5), (7, 7), (300, 1e9), (300, math.inf), (2, -5), (2, math.nan)],
    )
    def test_retry_after_is_a_floor_with_a_ceiling(self, expected: float, retry_after: float | None) -> None:
        """A pause is never shorter than Retry-After asks, nor longer for it than max_pause."""
        assert expected == RetryPolicy().pause(2, retry_after=retry_after)

    def test_max_pause_caps_only_what_the_server_asks(self) -> None:
        """A delay of our own that is longer than max_pause stands."""
        assert 20 == RetryPolicy(max_pause=10).pause(20, retry_after=15)

    def test_scaling_multiplies_durations_alone(self) -> None:
        """A scaled policy has every duration multiplied, and the factor left alone."""
        scaled = RetryPolicy(
            first=1, factor=3, max_delay=10, max_pause=100, grace=20, drain=4, recall=8
        ).scaled(0.5)

        assert (
            RetryPolicy(first=0.5, factor=3, max_delay=5, max_pause=50, grace=10, drain=2, recall=4) == scaled
        )

    @pytest.mark.parametrize("by", [0, -1, math.inf, math.nan, "2", None, True])
    def test_scaling_takes_a_positive_number(self, by: Any) -> None:
        """A policy is scaled by a finite number above 0 and by nothing else."""
        with pytest.raises(ConfigurationError, match="scaled by a finite number above 0"):
            RetryPolicy().scaled(by)

    @pytest.mark.parametrize(
        "name", ["first", "factor", "max_delay", "max_pause", "grace", "drain", "recall"]
    )
    @pytest.mark.parametrize("value", [-1, math.inf, -math.inf, math.nan, "1", None, True, 1j])
    def test_a_bad_value_is_named(self, name: str, value: Any) -> None:
        """A duration that is no finite number, or negative, is refused by its name."""
        with pytest.raises(ConfigurationError, match=f"^{name} must be a finite number"):
            RetryPolicy(**{name: value})

    @pytest.mark.parametrize(
        ("name", "value"), [("first", 0), ("factor", 0.9), ("max_delay", 0), ("max_pause", 0)]
    )
    def test_zero_is_no_delay(self, name: str, value: float) -> None:
        """Back-off that would not back off is refused."""
        with pytest.raises(ConfigurationError, match=f"^{name} must be"):
            RetryPolicy(**{name: value})

    def test_the_first_delay_does_not_exceed_the_longest(self) -> None:
        """A first delay above max_delay is refused."""
        with pytest.raises(ConfigurationError, match="first must not exceed max_delay"):
            RetryPolicy(first=31)

    def test_grace_and_drain_may_be_nothing(self) -> None:
        """No grace and no drain are a choice."""
        assert 0 == RetryPolicy(grace=0, drain=0).grace

    def test_it_is_an_immutable_value(self) -> None:
        """Policies compare by value, hash, pickle, take keywords only, and never change."""
        policy = RetryPolicy(first=2)

        assert {policy} == {RetryPolicy(first=2), pickle.loads(pickle.dumps(policy))}
        with pytest.raises(FrozenInstanceError):
            policy.first = 3  # type: ignore[misc]
        with pytest.raises(TypeError):
            RetryPolicy(2)  # type: ignore[call-arg]


class TestLimits:
    def test_the_defaults_stand(self) -> None:
        """The default limits are valid, and bound no tasks and no waiting."""
        limits = Limits()

        assert (None, None, None) == (limits.max_in_flight, limits.submits_per_second, limits.max_queue_wait)
        assert 16 * 1024 * 1024 == limits.max_reply

    @pytest.mark.parametrize("name", ["max_in_flight", "connections", "max_reply", "max_videos"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, math.inf])
    def test_counts_are_whole_and_positive(self, name: str, value: Any) -> None:
        """A count below one, or none at all, is refused by its name."""
        with pytest.raises(ConfigurationError, match=f"^{name} must be a whole number of at least 1"):
            Limits(**{name: value})

    @pytest.mark.parametrize("name", ["submits_per_second", "connect", "read", "max_credits"])
    @pytest.mark.parametrize("value", [0, -1, "3", True, math.inf, math.nan])
    def test_rates_and_times_are_positive(self, name: str, value: Any) -> None:
        """A rate or a time-out that is not a finite number above zero is refused by its name."""
        with pytest.raises(ConfigurationError, match=f"^{name} must be a finite number above 0"):
            Limits(**{name: value})

    def test_waiting_not_at_all_is_a_choice(self) -> None:
        """A job may be told not to wait at the gate, but not for less than no time."""
        assert 0 == Limits(max_queue_wait=0).max_queue_wait
        with pytest.raises(ConfigurationError, match="at least 0 or None, not -1"):
            Limits(max_queue_wait=-1)

    def test_only_the_optional_ones_may_be_none(self) -> None:
        """None means no limit only where a limit is optional."""
        with pytest.raises(
            ConfigurationError, match="connections must be a whole number of at least 1, not None"
        ):
            Limits(connections=None)  # type: ignore[arg-type]

    def test_limits_do_not_scale(self) -> None:
        """Limits are about this process, so there is nothing to scale."""
        assert not hasattr(Limits(), "scaled")


class TestPollPolicy:
    @pytest.mark.parametrize("name", ["interval", "max_gap", "budget", "deadline", "first_look"])
    @pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "3", True])
    def test_refuses_what_is_no_duration_or_rate(self, name: str, value: object) -> None:
        """
        A value that is not a finite number above 0 is refused, by name.
        """
        with pytest.raises(ConfigurationError, match=name):
            PollPolicy(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [0, -1, 2.5, None, True, "50"])
    def test_refuses_what_is_no_batch_size(self, value: object) -> None:
        """
        A batch size that is not a whole number above 0 is refused, by name.
        """
        with pytest.raises(ConfigurationError, match="batch_size must be a whole number"):
            PollPolicy(batch_size=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", ["eager", None, []])
    def test_refuses_an_unknown_mode(self, value: object) -> None:
        """
        A mode that does not exist is refused, by name.
        """
        with pytest.raises(ConfigurationError, match="mode must be learned, fixed or backoff"):
            PollPolicy(mode=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["interval", "max_gap", "budget", "batch_size"])
    def test_refuses_none_where_a_number_is_needed(self, name: str) -> None:
        """
        None is refused where it has no meaning.
        """
        with pytest.raises(ConfigurationError, match=name):
            PollPolicy(**{name: None})  # type: ignore[arg-type]

    def test_scales_durations_and_rates_and_leaves_counts(self) -> None:
        """
        A scaled policy has its durations multiplied, its rates divided and its counts left alone.
        """
        policy = PollPolicy(interval=4.0, first_look=8.0, max_gap=20.0, budget=10.0, deadline=600.0)
        wanted = (1.0, 2.0, 5.0, 40.0, 150.0, 50)
        scaled = policy.scaled(0.25)
        found = (scaled.interval, scaled.first_look, scaled.max_gap, scaled.budget, scaled.deadline)
        assert wanted == (*found, scaled.batch_size)

    def test_scales_none_to_none(self) -> None:
        """
        Without a deadline or a first look there is none after scaling either.
        """
        scaled = PollPolicy(deadline=None).scaled(2.0)
        assert (None, None) == (scaled.deadline, scaled.first_look)

    def test_scaling_back_gives_an_equal_policy(self) -> None:
        """
        Scaling there and back gives the policy one started from.
        """
        assert PollPolicy() == PollPolicy().scaled(0.25).scaled(4.0)
        assert PollPolicy() != PollPolicy().scaled(0.25)

    @pytest.mark.parametrize("factor", [0, -1.0, math.inf, math.nan])
    def test_refuses_a_senseless_scale(self, factor: float) -> None:
        """
        A factor that is no finite number above 0 is refused.
        """
        with pytest.raises(ConfigurationError, match="factor"):
            PollPolicy().scaled(factor)

    def test_pickles_and_shows_no_private_field(self) -> None:
        """
        A policy survives pickling with its scale, and its repr shows the public fields only.
        """
        policy = PollPolicy().scaled(0.5)
        assert policy == pickle.loads(pickle.dumps(policy))
        assert "scale" not in repr(policy)

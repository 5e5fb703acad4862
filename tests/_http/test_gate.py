"""
The gate by hand: what opens a lane, what closes it, and how fast it recovers.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from itertools import count
from random import Random
from typing import Any

import pytest
from attrs import define, field

from tests.unjittered import Unjittered
from veo_async._http.gate import Gate
from veo_async._policies import RetryPolicy


def gate_of(**fields: Any) -> Gate:
    settings: dict[str, Any] = {"retry": RetryPolicy(), "random": Unjittered()}
    return Gate(**(settings | fields))


def send(gate: Gate, now: float) -> float:
    assert now == gate.opens_at(now)
    gate.take(now)
    return now


def throttle(gate: Gate, now: float, **evidence: Any) -> None:
    """
    Have one request sent and answered with 429.
    """
    gate.throttled(now, sent_at=send(gate, now), **evidence)


def pass_through(gate: Gate, now: float) -> None:
    """
    Have one request sent and answered.
    """
    gate.succeeded(now, sent_at=send(gate, now))


def reopened(gate: Gate, now: float) -> Gate:
    """
    Have requests succeed until the lane is as wide as ever.
    """
    while gate.state != "open":
        pass_through(gate, now)
    return gate


class TestOpenLane:
    def test_a_new_lane_is_open(self) -> None:
        """Without limits any number of requests may go at once."""
        gate = gate_of()

        for _ in range(1000):
            send(gate, 5.0)

        assert (1000, "open", None) == (gate.requests_out, gate.state, gate.rate_at(5.0))

    def test_answers_leave_it_open(self) -> None:
        """Success changes nothing in an open lane."""
        gate = gate_of()

        pass_through(gate, 1.0)

        assert ("open", 0, 0, 0) == (gate.state, gate.requests_out, gate.pauses, gate.probes)

    def test_four_failures_in_a_row_are_their_jobs_matter(self) -> None:
        """Fewer than five failures in a row pause nothing."""
        gate = gate_of()

        for _ in range(4):
            gate.failed(0.0, sent_at=send(gate, 0.0))

        assert 0.0 == gate.opens_at(0.0)

    def test_the_fifth_failure_in_a_row_pauses(self) -> None:
        """Five failures in a row pause the lane."""
        gate = gate_of()

        for _ in range(5):
            gate.failed(0.0, sent_at=send(gate, 0.0))

        assert 1.0 == gate.opens_at(0.0)

    def test_a_success_breaks_the_row(self) -> None:
        """Failures with successes between never add up."""
        gate = gate_of()

        for _ in range(10):
            for _ in range(4):
                gate.failed(0.0, sent_at=send(gate, 0.0))
            pass_through(gate, 0.0)

        assert 0 == gate.pauses

    def test_repr_shows_counts(self) -> None:
        """The repr tells the state and the counts, and of a cap only where there is one."""
        gate = gate_of()
        assert "<Gate open: 0 out, 0 unsettled, 0 pauses, 0 probes>" == repr(gate)
        gate.entered(2)
        throttle(gate, 0.0)

        assert "<Gate paused: 0 out, 2 unsettled, cap 2, 1 pauses, 0 probes>" == repr(gate)

    def test_a_request_ends_once(self) -> None:
        """Ending a request twice is a fault of the caller's, and loud."""
        gate = gate_of()
        pass_through(gate, 0.0)

        with pytest.raises(AssertionError, match="a request ends once"):
            gate.failed(0.0, sent_at=0.0)


class TestPauses:
    def test_a_429_pauses_the_lane(self) -> None:
        """After a 429 nothing goes before the first delay is over."""
        gate = gate_of()

        throttle(gate, 10.0)

        assert ("paused", 11.0) == (gate.state, gate.opens_at(10.0))
        assert 11.0 == gate.opens_at(10.9)
        assert 11.0 == gate.opens_at(11.0)

    def test_a_connection_that_cannot_be_made_pauses_the_lane(self) -> None:
        """One connection that cannot be made is enough for a pause."""
        gate = gate_of()

        gate.unreachable(10.0, sent_at=send(gate, 10.0))

        assert 11.0 == gate.opens_at(10.0)

    def test_one_probe_goes_and_the_others_wait_for_its_answer(self) -> None:
        """When the pause is over one request goes, and no time opens the lane for a second."""
        gate = gate_of()
        throttle(gate, 0.0)

        send(gate, 1.0)

        assert ("probing", 1) == (gate.state, gate.probes)
        assert None is gate.opens_at(1.0) is gate.opens_at(1e6)

    def test_pauses_grow_while_probes_fail(self) -> None:
        """Each failed probe pauses the lane for the next, longer delay, whatever it failed of."""
        gate, now, lengths = gate_of(), 0.0, []

        for fail in [
            gate.throttled,
            gate.unreachable,
            gate.failed,
            gate.throttled,
            gate.failed,
            gate.throttled,
        ]:
            fail(now, sent_at=send(gate, now))
            opens_at = gate.opens_at(now)
            assert opens_at is not None
            lengths.append(opens_at - now)
            now = opens_at

        assert [1, 2, 4, 8, 16, 30] == lengths
        assert (6, 5) == (gate.pauses, gate.probes)

    def test_a_success_resets_the_growth(self) -> None:
        """After a probe that succeeds the next pause is a first one."""
        gate = gate_of()
        for now in (0.0, 1.0, 3.0):
            throttle(gate, now)
        pass_through(gate, 7.0)

        throttle(gate, 8.0)

        assert 9.0 == gate.opens_at(8.0)

    def test_the_lane_widens_after_the_probe(self) -> None:
        """After the probe two may be out, then four: each success doubles the window until there is none."""
        gate = gate_of()
        throttle(gate, 0.0)
        send(gate, 1.0)
        widths = []

        while gate.state != "open":
            gate.succeeded(1.0, sent_at=1.0)
            while gate.requests_out < 200 and gate.opens_at(1.0) == 1.0:
                gate.take(1.0)
            widths.append(gate.requests_out)

        assert [2, 4, 8, 16, 32, 64, 200] == widths

    def test_a_full_window_waits_for_an_answer(self) -> None:
        """While the lane widens, a full window is opened by an answer only."""
        gate = gate_of()
        throttle(gate, 0.0)
        pass_through(gate, 1.0)
        send(gate, 1.0)
        send(gate, 1.0)
        assert ("widening", None) == (gate.state, gate.opens_at(1e6))

        gate.failed(2.0, sent_at=1.0)

        assert 2.0 == gate.opens_at(2.0)

    def test_a_429_while_widening_pauses_again(self) -> None:
        """A 429 before the lane is wide again is a new pause."""
        gate = gate_of()
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        throttle(gate, 1.0)

        assert (2, 2.0) == (gate.pauses, gate.opens_at(1.0))

    def test_retry_after_is_a_floor(self) -> None:
        """A pause lasts as long as the server asks."""
        gate = gate_of()

        throttle(gate, 0.0, retry_after=12.5)

        assert 12.5 == gate.opens_at(0.0)

    def test_retry_after_does_not_shorten(self) -> None:
        """A Retry-After below the delay changes nothing."""
        gate = gate_of()

        throttle(gate, 0.0, retry_after=0.25)

        assert 1.0 == gate.opens_at(0.0)

    def test_retry_after_is_capped(self) -> None:
        """The server cannot stop the lane for longer than max_pause."""
        gate = gate_of(retry=RetryPolicy(max_pause=40))

        throttle(gate, 0.0, retry_after=86_400)

        assert 40.0 == gate.opens_at(0.0)

    def test_a_failure_with_retry_after_pauses_at_once(self) -> None:
        """A 503 that carries Retry-After needs no four others."""
        gate = gate_of()

        gate.failed(0.0, sent_at=send(gate, 0.0), retry_after=7)

        assert 7.0 == gate.opens_at(0.0)

    def test_retry_after_of_zero_is_still_an_objection(self) -> None:
        """A Retry-After of 0 pauses for the back-off delay."""
        gate = gate_of()

        gate.failed(0.0, sent_at=send(gate, 0.0), retry_after=0)

        assert 1.0 == gate.opens_at(0.0)

    def test_a_withdrawn_probe_lets_the_next_one_go(self) -> None:
        """A probe that was never made leaves its place to another, at once."""
        gate = gate_of()
        throttle(gate, 0.0)

        gate.withdrawn(2.0, sent_at=send(gate, 1.0))

        assert ("paused", 2.0) == (gate.state, gate.opens_at(2.0))

    def test_a_probe_that_is_not_answered_soon_is_followed_by_another(self) -> None:
        """The lane is paused as by a failure, and the answer that comes in the end is a late one."""
        gate = gate_of()
        throttle(gate, 0.0)
        slow = send(gate, 1.0)

        gate.overdue(6.0)

        assert 8.0 == gate.opens_at(6.0)
        quick = send(gate, 8.0)
        assert (2, 2) == (gate.probes, gate.requests_out)
        states = []
        for sent_at in (slow, quick):
            gate.succeeded(9.0, sent_at=sent_at)
            states.append(gate.state)
        assert ["probing", "widening"] == states

    def test_a_lane_with_room_does_not_mind_a_slow_answer(self) -> None:
        """Others may go beside it, so nothing changes."""
        gate = gate_of()
        send(gate, 0.0)

        gate.overdue(5.0)

        assert ("open", 5.0, 0) == (gate.state, gate.opens_at(5.0), gate.pauses)

    def test_two_gates_do_not_probe_in_step(self) -> None:
        """Gates of processes that failed together come back at different times."""
        one, other = Gate(retry=RetryPolicy()), Gate(retry=RetryPolicy())

        throttle(one, 0.0)
        throttle(other, 0.0)

        assert one.opens_at(0.0) != other.opens_at(0.0)


class TestLateAnswers:
    def test_fifty_429s_of_one_burst_are_one_pause(self) -> None:
        """Fifty requests in flight, all answered with 429, pause the lane once, for the first delay."""
        gate = gate_of()
        for _ in range(50):
            send(gate, 0.0)

        for step in range(50):
            gate.throttled(0.1 + step / 1000, sent_at=0.0)

        assert (1, 0, 1.1) == (gate.pauses, gate.requests_out, gate.opens_at(0.2))

    def test_a_late_success_ends_no_pause(self) -> None:
        """An answer to a request from before the pause opens nothing."""
        gate = gate_of()
        send(gate, 0.0)
        throttle(gate, 0.5)

        gate.succeeded(0.6, sent_at=0.0)

        assert 1.5 == gate.opens_at(0.6)

    def test_a_late_success_is_not_taken_for_the_probes(self) -> None:
        """While the probe is out only its own answer counts."""
        gate = gate_of()
        send(gate, 0.0)
        throttle(gate, 0.0)
        probe = send(gate, 1.0)

        gate.succeeded(1.1, sent_at=0.0)
        assert None is gate.opens_at(1.1)
        gate.succeeded(1.2, sent_at=probe)

        assert 1.2 == gate.opens_at(1.2)

    @pytest.mark.parametrize("end", ["throttled", "failed", "unreachable", "withdrawn", "succeeded"])
    def test_a_late_answer_does_not_disturb_a_lane_that_reopened(self, end: str) -> None:
        """What was sent before the pause has no say after it either."""
        gate = gate_of()
        send(gate, 0.0)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        getattr(gate, end)(2.0, sent_at=0.0)

        assert ("widening", 1, 2.0) == (gate.state, gate.pauses, gate.opens_at(2.0))

    @pytest.mark.parametrize("end", ["throttled", "failed"])
    def test_a_late_retry_after_does_not_close_a_lane_that_reopened(self, end: str) -> None:
        """A Retry-After that comes when the lane is open again, from before the pause, is stale."""
        gate = gate_of()
        send(gate, 0.0)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        getattr(gate, end)(2.0, sent_at=0.0, retry_after=60)

        assert 2.0 == gate.opens_at(2.0)

    def test_late_failures_do_not_count_towards_five(self) -> None:
        """Failures of requests from before the pause do not pause the lane after it."""
        gate = gate_of()
        for _ in range(8):
            send(gate, 0.0)
        throttle(gate, 0.0)
        reopened(gate, 1.0)

        for _ in range(8):
            gate.failed(2.0, sent_at=0.0)

        assert 1 == gate.pauses

    @pytest.mark.parametrize("end", ["throttled", "failed"])
    def test_a_late_retry_after_may_ask_for_more(self, end: str) -> None:
        """Before the probe goes, a late Retry-After moves the end of the pause, and only backwards."""
        gate = gate_of()
        for _ in range(2):
            send(gate, 0.0)
        throttle(gate, 0.0, retry_after=5)

        getattr(gate, end)(1.0, sent_at=0.0, retry_after=9)
        assert 10.0 == gate.opens_at(1.0)
        getattr(gate, end)(2.0, sent_at=0.0, retry_after=3)

        assert (10.0, 1) == (gate.opens_at(2.0), gate.pauses)

    def test_a_late_retry_after_is_stale_once_the_probe_is_out(self) -> None:
        """The probe knows better than an older answer how long to wait."""
        gate = gate_of()
        send(gate, 0.0)
        throttle(gate, 0.0)
        probe = send(gate, 1.0)

        gate.throttled(1.1, sent_at=0.0, retry_after=60)
        gate.succeeded(1.2, sent_at=probe)

        assert 1.2 == gate.opens_at(1.2)

    def test_a_second_pause_makes_the_widening_requests_late(self) -> None:
        """A burst of 429s while the lane widens is one more pause, not one per answer."""
        gate = gate_of()
        throttle(gate, 0.0)
        for _ in range(2):
            pass_through(gate, 1.0)
        for _ in range(4):
            send(gate, 1.0)

        for _ in range(4):
            gate.throttled(2.0, sent_at=1.0)

        assert (2, 3.0) == (gate.pauses, gate.opens_at(2.0))


class TestPaidLane:
    @pytest.fixture
    def gate(self) -> Gate:
        return gate_of(paid=True)

    def test_a_read_goes_first_after_an_outage(self, gate: Gate) -> None:
        """After a connection that could not be made, a free read is wanted once the pause is over."""
        gate.unreachable(0.0, sent_at=send(gate, 0.0))
        assert ("read", 1.0) == (gate.probe, gate.opens_at(0.0))

        send(gate, 1.0)

        assert ("probing", None) == (gate.state, gate.opens_at(2.0))

    def test_a_read_goes_first_after_five_failures(self, gate: Gate) -> None:
        """Five failures in a row are an outage."""
        for _ in range(5):
            gate.failed(0.0, sent_at=send(gate, 0.0))

        assert "read" == gate.probe

    def test_the_next_request_goes_first_after_a_429(self, gate: Gate) -> None:
        """After a 429 the probe is the next request: what is refused costs nothing."""
        throttle(gate, 0.0)

        assert "request" == gate.probe

    def test_a_free_lane_probes_with_its_own_requests(self) -> None:
        """Where every request is free none needs another to go first."""
        gate = gate_of()

        gate.unreachable(0.0, sent_at=send(gate, 0.0))

        assert "request" == gate.probe

    def test_a_read_that_works_opens_the_lane_for_one_request(self, gate: Gate) -> None:
        """After the read one request goes alone, and its success widens the lane."""
        gate.unreachable(0.0, sent_at=send(gate, 0.0))
        send(gate, 1.0)

        gate.probed(1.5, ok=True)
        request = send(gate, 1.5)

        assert (None, None) == (gate.probe, gate.opens_at(1.5))
        gate.succeeded(1.6, sent_at=request)
        assert 1.6 == gate.opens_at(1.6)

    def test_a_read_that_fails_pauses_for_longer(self, gate: Gate) -> None:
        """A failed read makes the next pause longer, and its Retry-After counts."""
        gate.unreachable(0.0, sent_at=send(gate, 0.0))

        send(gate, 1.0)
        gate.probed(1.0, ok=False)
        assert ("read", 3.0) == (gate.probe, gate.opens_at(1.0))
        send(gate, 3.0)
        gate.probed(3.0, ok=False, retry_after=100)

        assert (103.0, 3) == (gate.opens_at(3.0), gate.pauses)

    def test_growth_goes_on_until_a_request_succeeds(self, gate: Gate) -> None:
        """Reads that work between requests that cannot connect do not keep the pauses short."""
        now = 0.0
        for length in (1.0, 2.0, 4.0):
            gate.unreachable(now, sent_at=send(gate, now))
            assert now + length == gate.opens_at(now)
            now += length
            send(gate, now)
            gate.probed(now, ok=True)

        pass_through(gate, now)
        gate.unreachable(now, sent_at=send(gate, now))

        assert now + 1.0 == gate.opens_at(now)

    def test_a_request_that_fails_right_after_the_read_pauses_again(self, gate: Gate) -> None:
        """Where reads work and submits still fail, each pause costs one submit, not five."""
        for _ in range(5):
            gate.failed(0.0, sent_at=send(gate, 0.0))
        send(gate, 1.0)
        gate.probed(1.0, ok=True)

        gate.failed(1.0, sent_at=send(gate, 1.0))

        assert ("read", 3.0) == (gate.probe, gate.opens_at(1.0))

    def test_a_probing_request_that_fails_asks_for_a_read(self, gate: Gate) -> None:
        """A probe after a 429 that ends in doubt is followed by a read."""
        throttle(gate, 0.0)

        gate.failed(1.0, sent_at=send(gate, 1.0))

        assert ("read", 3.0) == (gate.probe, gate.opens_at(1.0))

    def test_a_withdrawn_read_is_wanted_again(self, gate: Gate) -> None:
        """A read that was never made is asked for again."""
        gate.unreachable(0.0, sent_at=send(gate, 0.0))

        gate.withdrawn(1.0, sent_at=send(gate, 1.0))

        assert ("read", "paused", 1.0) == (gate.probe, gate.state, gate.opens_at(1.0))

    def test_a_read_spends_no_rate_and_needs_no_place(self) -> None:
        """A read goes although the rate is spent and the cap is reached."""
        gate = gate_of(paid=True, rate=0.01, max_in_flight=1)
        gate.unreachable(0.0, sent_at=send(gate, 0.0))
        gate.entered()
        send(gate, 1.0)
        gate.probed(1.0, ok=True)
        assert None is gate.opens_at(1.0)

        gate.left()

        assert 100.0 == gate.opens_at(1.0)


class TestLimitsOfTheAccount:
    """Other sessions share them, and hold a request back before it is sent."""

    def test_a_request_that_is_held_back_shuts_the_lane_for_so_long(self) -> None:
        """Not a second more, and it is neither a pause nor a failure."""
        gate = gate_of(paid=True)

        for _ in range(10):
            gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=0.0)
        gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=0.3)

        assert 1.3 == gate.opens_at(1.0)
        assert (0, 0, 0, None, None, "open") == (
            gate.requests_out, gate.pauses, gate.probes, gate.probe, gate.cap, gate.state
        )  # fmt: skip

    def test_tasks_that_settle_open_no_lane_that_waits_for_its_turn(self) -> None:
        """Only the rate's own time helps, or a change of the limits."""
        gate = gate_of()
        gate.entered()
        gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=60.0)

        gate.left()
        gate.place_freed()

        assert 61.0 == gate.opens_at(1.0)
        gate.limits_changed()
        assert 1.0 == gate.opens_at(1.0)

    def test_a_request_without_a_place_asks_again_after_a_second(self) -> None:
        """A task of another session may have settled, and nobody has told."""
        gate = gate_of()

        gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=None)

        assert 2.0 == gate.opens_at(1.0)

    @pytest.mark.parametrize("end", [Gate.left, Gate.place_freed], ids=["its own", "another's"])
    def test_a_request_without_a_place_asks_again_once_a_task_settles(
        self, end: Callable[[Gate], None]
    ) -> None:
        """Whichever session it was of."""
        gate = gate_of()
        gate.entered()
        gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=None)

        end(gate)

        assert 1.1 == gate.opens_at(1.1)

    def test_a_probe_that_is_held_back_stays_to_be_sent(self) -> None:
        """The next request is still the one that tells whether a 429 is over."""
        gate = gate_of()
        throttle(gate, 0.0)

        gate.held_back(1.0, sent_at=send(gate, 1.0), seconds=0.5)

        assert ("request", 1.5) == (gate.probe, gate.opens_at(1.0))


class TestRates:
    def test_requests_are_spaced_evenly(self) -> None:
        """A lane with a rate lets one request go per interval."""
        gate, now, times = gate_of(rate=0.5), 7.0, []

        for _ in range(4):
            now = gate.opens_at(now) or 0.0
            gate.succeeded(now, sent_at=send(gate, now))
            times.append(now)

        assert [7.0, 9.0, 11.0, 13.0] == times

    def test_a_burst_goes_at_once_after_a_quiet_time(self) -> None:
        """A burst allowance lets several go at once, and never more than that, however long it was quiet."""
        gate = gate_of(rate=2, burst=5)
        send(gate, 0.0)

        for _ in range(5):
            send(gate, 1000.0)

        assert 1002.5 == gate.opens_at(1000.0)

    def test_a_burst_does_not_come_on_top_of_the_rate(self) -> None:
        """In no span that the rate fills with a burst are there more than that, whenever the requests come."""
        gate, random, now = gate_of(rate=10, burst=10), Random(1), 0.0
        went: list[float] = []
        while len(went) < 500:
            now += random.choice([0.0, 0.0, 0.01, 0.3, 2.0])
            for _ in range(random.choice([1, 5, 20])):
                opens_at = gate.opens_at(now)
                assert opens_at is not None
                if opens_at <= now:
                    went.append(send(gate, now))

        assert all(later - earlier > 0.999 for earlier, later in zip(went, went[10:], strict=False))

    def test_bursts_under_pressure_make_up_the_rate(self) -> None:
        """Where there is always another request, bursts follow each other as fast as the rate allows."""
        gate, went = gate_of(rate=10, burst=10), [0.0]
        for _ in range(100):
            opens_at = gate.opens_at(went[-1])
            assert opens_at is not None
            went.append(send(gate, opens_at))

        assert [float(number // 10) for number in range(100)] == pytest.approx(went[1:])

    def test_a_withdrawn_request_leaves_its_share_spent(self) -> None:
        """A request that was never made does not let two others go closer together."""
        gate = gate_of(rate=1)

        gate.withdrawn(0.0, sent_at=send(gate, 0.0))

        assert 1.0 == gate.opens_at(0.0)

    def test_a_first_429_leaves_the_rate_alone(self) -> None:
        """One pause, with however many failed probes, says nothing against the rate."""
        gate = gate_of(rate=10)

        for now in (0.0, 1.0, 3.0, 7.0):
            throttle(gate, now)

        assert 10 == gate.rate_at(7.0)

    def test_a_relapse_halves_the_rate(self) -> None:
        """A 429 soon after the lane reopened halves the rate, each time."""
        gate = gate_of(rate=10)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        throttle(gate, 2.0)
        assert 5 == gate.rate_at(2.0)
        pass_through(gate, 3.0)
        throttle(gate, 4.0)

        assert 2.5 == pytest.approx(gate.rate_at(4.0), abs=0.1)

    def test_a_probe_that_fails_after_a_relapse_leaves_the_rate_alone(self) -> None:
        """One relapse halves the rate once, however many probes fail after it."""
        gate = gate_of(rate=16, retry=RetryPolicy(max_pause=1e9))
        throttle(gate, 0.0)
        pass_through(gate, 1.0)
        throttle(gate, 2.0)

        throttle(gate, 3.0)
        throttle(gate, 5.0)

        assert 8 == pytest.approx(gate.rate_at(5.0))

    def test_a_429_after_an_outage_is_a_relapse(self) -> None:
        """A 429 soon after a read opened the lane halves the rate."""
        gate = gate_of(rate=16, paid=True)
        gate.unreachable(0.0, sent_at=send(gate, 0.0))
        send(gate, 1.0)
        gate.probed(1.0, ok=True)

        throttle(gate, 2.0)

        assert 8 == gate.rate_at(2.0)

    def test_a_429_long_after_the_last_is_no_relapse(self) -> None:
        """A 429 more than max_delay after the lane reopened is a first one again."""
        gate = gate_of(rate=10)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        throttle(gate, 31.5)

        assert 10 == gate.rate_at(31.5)

    def test_a_lowered_rate_spaces_requests_more_widely(self) -> None:
        """At half the rate the gap between two requests is twice as long."""
        gate = gate_of(rate=1, retry=RetryPolicy(max_pause=1e9))
        throttle(gate, 0.0)
        pass_through(gate, 1.0)
        throttle(gate, 2.0)

        pass_through(gate, 3.0)

        assert 5.0 == pytest.approx(gate.opens_at(3.0))

    def test_the_rate_climbs_back(self) -> None:
        """A lowered rate rises evenly, by its full height in max_pause seconds, and no further than it was."""
        gate = gate_of(rate=10)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)
        throttle(gate, 2.0)

        assert [5, 7.5, 10, 10] == [gate.rate_at(now) for now in (2.0, 77.0, 152.0, 1e6)]

    def test_the_rate_has_a_floor(self) -> None:
        """However often the server objects, the rate stays above nothing."""
        gate, now = gate_of(rate=32), 0.0
        for _ in range(20):
            throttle(gate, now)
            pass_through(gate, now + 1)
            now = gate.opens_at(now + 1) or 0.0

        throttle(gate, now)

        assert 1 == gate.rate_at(now)

    def test_a_lane_without_a_rate_relapses_into_pauses_only(self) -> None:
        """Where there is no rate there is none to halve."""
        gate = gate_of()
        throttle(gate, 0.0)
        pass_through(gate, 1.0)

        throttle(gate, 1.0)

        assert None is gate.rate_at(1.0)


class TestCapInFlight:
    def test_our_own_cap_counts_tasks_and_requests(self) -> None:
        """Unsettled tasks and requests out share the places of max_in_flight."""
        gate = gate_of(max_in_flight=3)
        gate.entered(2)
        sent_at = send(gate, 0.0)
        assert None is gate.opens_at(1e6)

        gate.withdrawn(1.0, sent_at=sent_at)

        assert 1.0 == gate.opens_at(1.0)

    def test_a_task_that_settles_frees_a_place(self) -> None:
        """At the cap only a task that settles lets another request go."""
        gate = gate_of(max_in_flight=2)
        gate.entered(3)
        gate.left()
        assert None is gate.opens_at(1e6)

        gate.left()

        assert 0.0 == gate.opens_at(0.0)

    def test_late_requests_hold_their_places(self) -> None:
        """A request from before the pause may still become a task, so it counts until it is answered."""
        gate = gate_of(max_in_flight=2)
        send(gate, 0.0)
        throttle(gate, 0.0)
        pass_through(gate, 1.0)
        send(gate, 1.0)
        assert None is gate.opens_at(1.0)

        gate.withdrawn(2.0, sent_at=0.0)

        assert 2.0 == gate.opens_at(2.0)

    def test_a_429_suggests_the_number_of_unsettled_tasks(self) -> None:
        """A 429 while k tasks are unsettled holds the lane at k."""
        gate = gate_of()
        gate.entered(5)

        throttle(gate, 0.0)

        assert 5 == gate.cap

    def test_the_caller_may_count(self) -> None:
        """What the caller counts in flight outranks the gate's own count."""
        gate = gate_of()
        gate.entered(5)

        throttle(gate, 0.0, in_flight=4)

        assert 4 == gate.cap

    def test_a_429_with_nothing_in_flight_suggests_no_cap(self) -> None:
        """With no task of ours unsettled, a 429 is a pause and no cap."""
        gate = gate_of()

        throttle(gate, 0.0)

        assert None is gate.cap

    def test_a_place_that_comes_free_is_taken_at_once(self) -> None:
        """Below the cap requests go as if there were none."""
        gate = gate_of()
        gate.entered(5)
        throttle(gate, 0.0)
        throttle(gate, 1.0)  # the trial: the cap is right
        gate.left()

        assert 2.0 == gate.opens_at(2.0)
        pass_through(gate, 2.0)
        gate.entered()
        assert 3.0 == gate.opens_at(2.0)  # full again: the next trial is due

    def test_trials_grow_rarer_while_the_cap_proves_right(self) -> None:
        """Each trial that is refused makes the time until the next longer, up to max_pause."""
        gate, now, gaps = gate_of(), 0.0, []
        gate.entered(5)

        for _ in range(11):
            throttle(gate, now)
            opens_at = gate.opens_at(now)
            assert opens_at is not None
            gaps.append(opens_at - now)
            now = opens_at

        assert [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] == gaps
        assert 5 == gate.cap

    def test_a_refused_trial_does_not_lengthen_the_pause(self) -> None:
        """A place that comes free after many refused trials is not kept waiting by the pauses they began."""
        gate, now = gate_of(), 0.0
        gate.entered(5)
        for _ in range(8):
            throttle(gate, now)
            now = gate.opens_at(now) or 0.0
        throttle(gate, now)

        gate.left()

        assert now + 1.0 == gate.opens_at(now)

    def test_a_refused_trial_leaves_the_rate_alone(self) -> None:
        """A 429 that the cap explains says nothing against the rate."""
        gate = gate_of(rate=10)
        gate.entered(5)
        throttle(gate, 0.0)
        gate.left()
        pass_through(gate, 1.0)
        gate.entered()

        throttle(gate, 2.0)

        assert 10 == gate.rate_at(2.0)

    def test_a_trial_goes_alone(self) -> None:
        """Beyond the cap nothing goes while another request is out, so that no answer is taken for the trial's."""
        gate = gate_of()
        gate.entered(4)
        throttle(gate, 0.0)
        gate.left()
        pass_through(gate, 1.0)
        below_the_cap = send(gate, 9.0)
        assert None is gate.opens_at(9.0)

        gate.succeeded(9.5, sent_at=below_the_cap)
        gate.entered()

        assert (4, 9.5) == (gate.cap, gate.opens_at(9.5))

    def test_a_mistaken_cap_recovers_in_doubling_steps(self) -> None:
        """Trials that are accepted one after the other raise the cap ever faster."""
        gate, caps = gate_of(), []
        gate.entered()
        throttle(gate, 0.0)

        while gate.unsettled < 64:
            pass_through(gate, 1.0)
            gate.entered()
            caps.append(gate.cap)

        assert [1, 2, 4, 8, 16, 32, 64] == sorted({1, *filter(None, caps)})

    def test_acceptance_raises_the_cap_to_what_the_server_holds(self) -> None:
        """Tasks of the same burst that were accepted after all raise the cap to their number."""
        gate = gate_of()
        for _ in range(5):
            send(gate, 0.0)
        gate.entered()
        gate.throttled(0.1, sent_at=0.0)
        assert 1 == gate.cap

        for _ in range(4):
            gate.succeeded(0.2, sent_at=0.0)
            gate.entered()

        assert 5 == gate.cap

    def test_the_cap_never_falls_below_one(self) -> None:
        """However few tasks are unsettled, one may always be in flight."""
        gate = gate_of()
        gate.entered(2)
        throttle(gate, 0.0)
        gate.left()
        throttle(gate, 1.0)
        gate.left()

        throttle(gate, 3.0)

        assert 1 == gate.cap
        assert 7.0 == gate.opens_at(3.0)


# --- whole lanes, event by event ------------------------------------------------------------------------


@define
class Run:
    """
    A lane before a server that accepts or throttles: what was sent, and how it went.
    """

    gate: Gate
    accepts: Callable[[float, int], bool]
    jobs: int
    task: float = 90.0  # seconds a task takes, give or take a half
    trip: float = 0.05  # seconds an answer takes, give or take a half
    notice: float = 0.0  # seconds until an end is noticed, at most
    workers: int = 60
    now: float = 0.0
    sent: list[float] = field(factory=list)
    accepted: list[float] = field(factory=list)
    refused: list[float] = field(factory=list)
    _on_server: int = 0
    _out: int = 0
    _chance: Random = field(factory=lambda: Random(1))
    _heap: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _numbers: count[int] = field(factory=count)

    def to_the_end(self) -> Run:
        while self.jobs or self._heap:
            opens_at = self.gate.opens_at(self.now) if self.jobs and self._out < self.workers else None
            if opens_at is not None and not (self._heap and self._heap[0][0] < opens_at):
                self.now = opens_at
                self._send()
            else:
                self.now, _, event = heapq.heappop(self._heap)
                event()
        return self

    def _after(self, delay: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._numbers), event))

    def _send(self) -> None:
        sent_at, ok = self.now, self.accepts(self.now, self._on_server)
        self.gate.take(sent_at)
        self.sent.append(sent_at)
        self.jobs -= 1
        self._out += 1
        self._on_server += ok
        self._after(self.trip * self._chance.uniform(0.5, 1.5), lambda: self._answer(sent_at, ok=ok))

    def _answer(self, sent_at: float, *, ok: bool) -> None:
        self._out -= 1
        if ok:
            self.accepted.append(self.now)
            self.gate.succeeded(self.now, sent_at=sent_at)
            self.gate.entered()
            self._after(self.task * self._chance.uniform(0.5, 1.5), self._end)
        else:
            self.refused.append(self.now)
            self.jobs += 1
            self.gate.throttled(self.now, sent_at=sent_at)

    def _end(self) -> None:
        self._on_server -= 1
        self._after(self.notice * self._chance.random(), self.gate.left)


def bucket(rate: float) -> Callable[[float, int], bool]:
    """
    A server that accepts one submit per interval.
    """
    free_at = -math.inf

    def accepts(now: float, _: int) -> bool:
        nonlocal free_at
        if now < free_at:
            return False
        free_at = now + 1 / rate
        return True

    return accepts


class TestWholeLanes:
    def test_polls_through_thirty_seconds_of_429s(self) -> None:
        """Through 30 s of 429s one probe goes per pause, and afterwards all polls are through in moments."""
        gate = gate_of(rate=10, burst=5)
        run = Run(gate, lambda now, _: not 10 < now < 40, jobs=600, task=0, workers=200).to_the_end()

        probes = [at for at in run.sent if run.refused[0] < at <= 42]
        assert 600 == len(run.accepted)
        assert [1, 2, 4, 8, 16] == [
            round(b - a) for a, b in zip([run.refused[0], *probes], probes, strict=False)
        ][:5]
        assert gate.pauses == gate.probes == 5
        assert 10 == gate.rate_at(run.now)

    def test_a_wave_of_polls_is_through_within_one_interval_of_reopening(self) -> None:
        """Twenty batches that piled up during a pause are asked within 3 s of the probe's answer."""
        gate = gate_of(rate=10)
        throttle(gate, 0.0)
        run = Run(gate, lambda *_: True, jobs=20, task=0).to_the_end()

        assert run.accepted[-1] - run.accepted[0] < 3

    def test_submits_to_a_server_with_a_cap(self) -> None:
        """A server that allows five at once is kept full with hardly a refusal beyond the first burst."""
        run = Run(gate_of(), lambda _, held: held < 5, jobs=100).to_the_end()

        assert 100 == len(run.accepted)
        assert run.accepted[-1] < 1.05 * 100 * 90 / 5
        assert sum(at > 1 for at in run.refused) < 25

    def test_submits_to_a_server_with_a_cap_that_ends_are_noticed_late(self) -> None:
        """With ends noticed up to 2 s late the cap stays within reach, and refusals rare."""
        run = Run(gate_of(), lambda _, held: held < 50, jobs=1000, notice=2.0).to_the_end()

        assert run.accepted[-1] < 1.1 * 1000 * 90 / 50
        assert len(run.refused) < 250

    def test_submits_to_a_server_that_raises_its_cap(self) -> None:
        """A cap that was right for long is found wrong within max_pause."""
        run = Run(gate_of(), lambda now, held: held < (5 if now < 1000 else 100), jobs=500).to_the_end()

        held = sum(at > 1000 for at in run.accepted)
        assert run.accepted[-1] < 1000 + 300 + 1.2 * held * 90 / 100 + 100

    def test_submits_after_a_hiccup(self) -> None:
        """A cap that a moment's trouble suggested costs a thousand jobs seconds, not minutes."""
        run = Run(gate_of(), lambda now, _: not 0.2 < now < 0.25, jobs=1000, workers=20).to_the_end()

        assert run.refused
        assert run.accepted[-1] < 10

    @pytest.mark.parametrize(("rate", "share"), [(None, 0.7), (2.0, 0.65), (0.5, 0.99)])
    def test_submits_to_a_server_with_a_rate(self, rate: float | None, share: float) -> None:
        """A server that accepts one submit in 2 s is not mistaken for one with a cap for long."""
        run = Run(gate_of(rate=rate), bucket(0.5), jobs=200).to_the_end()

        assert 200 == len(run.accepted)
        assert run.accepted[-1] < 400 / share

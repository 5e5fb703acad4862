"""
The gate against a model: whatever is sent and however it ends, in whatever order the answers come.
"""

from __future__ import annotations

import math
from random import Random

from attrs import frozen
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from veo_async._http.gate import Gate
from veo_async._policies import RetryPolicy

RETRY = RetryPolicy(first=1, factor=2, max_delay=8, max_pause=20)
ENDS = ["succeeded", "throttled", "unreachable", "failed", "held_back", "withdrawn"]
ASKED = st.sampled_from([None, None, 0.0, 3.0, 1e9, math.nan])  # by Retry-After, in seconds
CLOSE = 1e-6  # seconds: sums of floats


@frozen
class Sent:
    """
    A request or a read that is out: when it went, and how many pauses there had been.
    """

    at: float
    pauses: int


class GateMachine(RuleBasedStateMachine):
    """
    Sends whenever the gate lets it, and answers in any order and in any way.
    """

    @initialize(
        rate=st.sampled_from([None, 0.5, 10.0]),
        burst=st.integers(1, 3),
        max_in_flight=st.sampled_from([None, 1, 4]),
        paid=st.booleans(),
        seed=st.integers(0, 3),
    )
    def build(self, rate: float | None, burst: int, max_in_flight: int | None, paid: bool, seed: int) -> None:
        self.gate = Gate(
            retry=RETRY, rate=rate, burst=burst, max_in_flight=max_in_flight, paid=paid, random=Random(seed)
        )
        self.now = 0.0
        self.out: list[Sent] = []
        self.read: Sent | None = None
        self.unsettled = 0
        self.times: list[float] = []  # of the requests, reads left out
        self.failures = 0  # in a row
        self.outage = False  # the last pause had a reason that only a read may explore

    # What the driver does

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.0, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        """Some time passes."""
        self.now += seconds

    def wait_until_it_opens(self) -> None:
        """The driver sleeps until the time the gate names, and finds the lane open then, and not before."""
        opens_at = self.gate.opens_at(self.now)
        if opens_at is None or opens_at <= self.now:
            return
        for part in (0.5, 0.999):
            assert opens_at == self.gate.opens_at(self.now + part * (opens_at - self.now))
        self.now = opens_at
        assert opens_at == self.gate.opens_at(self.now)

    @precondition(lambda self: self.gate.opens_at(self.now) is not None)
    @rule(many=st.integers(1, 8))
    def send(self, many: int) -> None:
        """Requests go as soon as the gate lets them, or one read where it asks for that."""
        self.wait_until_it_opens()
        for _ in range(many):
            if self.gate.opens_at(self.now) != self.now:
                return
            sent = Sent(self.now, self.gate.pauses)
            wants_read = self.gate.probe == "read"
            self.gate.take(self.now)
            if wants_read:
                assert self.gate.paid
                assert self.read is None
                self.read = sent
            else:
                self.check_request()
                self.out.append(sent)

    def check_request(self) -> None:
        gate = self.gate
        assert self.read is None
        assert not (gate.paid and self.outage)
        if gate.max_in_flight is not None:
            assert self.unsettled + len(self.out) < gate.max_in_flight
        self.times.append(self.now)
        if gate.rate is not None and len(self.times) > gate.burst:
            assert self.now - self.times[-1 - gate.burst] >= 1 / gate.rate - CLOSE

    @precondition(lambda self: self.out)
    @rule(which=st.integers(0, 100), end=st.sampled_from(ENDS), many=st.integers(1, 6), asked=ASKED)
    def answer(self, which: int, end: str, many: int, asked: float | None) -> None:
        """Some requests that are out end in the same way, in any order."""
        for _ in range(min(many, len(self.out))):
            self.end(self.out.pop(which % len(self.out)), end, asked)

    def end(self, sent: Sent, end: str, asked: float | None) -> None:
        before = (self.gate.pauses, self.gate.probe)
        carries = {"retry_after": asked} if end in {"throttled", "failed"} else {}
        carries |= {"seconds": 2.0} if end == "held_back" else {}
        opened_at = self.gate.opens_at(self.now)
        getattr(self.gate, end)(self.now, sent_at=sent.at, **carries)
        if sent.pauses < self.gate.pauses == before[0]:
            assert before[1] == self.gate.probe  # late: it ends no pause either
            self.check_no_earlier(opened_at)
        else:
            assert sent.pauses == before[0]  # late: it begins no pause
            self.check_verdict(end, *before, asked)
        if end == "succeeded":
            self.gate.entered()
            self.unsettled += 1

    def check_no_earlier(self, opened_at: float | None) -> None:
        """A late answer may give back a place, and never shortens a pause."""
        opens_at = self.gate.opens_at(self.now)
        if self.gate.state == "paused" and opened_at is not None:
            assert opens_at is not None
            assert opens_at >= opened_at

    def check_verdict(self, end: str, pauses: int, probe: str | None, asked: float | None) -> None:
        """What an answer in time must do to the lane."""
        began = self.gate.pauses - pauses
        if end in {"throttled", "unreachable"} or (end == "failed" and (probe or asked is not None)):
            assert 1 == began
        elif end in {"succeeded", "held_back", "withdrawn"}:
            assert 0 == began
        if end == "succeeded":
            assert self.gate.probe is None
        self.failures = 0 if end == "succeeded" else self.failures + (end == "failed")
        assert began or end != "failed" or self.failures < 5
        if began:
            self.outage = end != "throttled"
            assert ("read" if self.gate.paid and self.outage else "request") == self.gate.probe
            opens_at = self.gate.opens_at(self.now)
            floor = (
                min(asked, RETRY.max_pause) if asked and asked > 0 and end in {"throttled", "failed"} else 0
            )
            assert opens_at is None or opens_at >= self.now + max(RETRY.first / 2, floor)

    @precondition(lambda self: self.out and self.read is None)
    @rule()
    def an_answer_is_long_in_coming(self) -> None:
        """Where nothing may go before it, the lane is paused and probed anew; else nothing changes."""
        before, full = self.gate.pauses, self.gate._window is not None and self.gate._out >= self.gate._window
        self.gate.overdue(self.now)
        assert full == self.gate.pauses - before
        self.outage = self.outage or full

    @precondition(lambda self: self.read is not None)
    @rule(end=st.sampled_from(["ok", "failed", "withdrawn"]))
    def answer_the_read(self, end: str) -> None:
        """The read that probes ends."""
        assert self.read is not None
        sent, self.read = self.read, None
        if end == "withdrawn":
            self.gate.withdrawn(self.now, sent_at=sent.at)
            assert "read" == self.gate.probe
            return
        self.gate.probed(self.now, ok=end == "ok")
        self.outage = end == "failed"
        assert (None if end == "ok" else "read") == self.gate.probe

    @precondition(lambda self: self.unsettled)
    @rule(many=st.integers(1, 8))
    def settle(self, many: int) -> None:
        """Some tasks settle."""
        many = min(many, self.unsettled)
        self.gate.left(many)
        self.unsettled -= many

    @precondition(lambda self: not self.unsettled)
    @rule(many=st.integers(1, 5))
    def attach(self, many: int) -> None:
        """Tasks come from elsewhere."""
        self.gate.entered(many)
        self.unsettled += many

    # What always holds

    @invariant()
    def counts_agree(self) -> None:
        """The gate counts as the driver does."""
        assert self.unsettled == self.gate.unsettled
        assert len(self.out) + (self.read is not None) == self.gate.requests_out
        repr(self.gate)

    @invariant()
    def one_probe_at_a_time(self) -> None:
        """Since the last pause began at most one request went, until one was answered."""
        probing = sum(sent.pauses == self.gate.pauses for sent in self.out) + (self.read is not None)
        if self.gate.probe is not None and self.gate.pauses:
            assert probing <= 1
            assert ("probing" if probing else "paused") == self.gate.state

    @invariant()
    def only_what_can_happen_is_waited_for(self) -> None:
        """A lane that no time opens has a request out, or a task to settle."""
        opens_at = self.gate.opens_at(self.now)
        if opens_at is None:
            assert self.out or self.read or self.unsettled
        else:
            assert self.now <= opens_at < math.inf

    @invariant()
    def pauses_end(self) -> None:
        """Nothing keeps the lane shut for longer than max_pause, but for its own rate."""
        opens_at = self.gate.opens_at(self.now)
        slowest = 32 / self.gate.rate if self.gate.rate else 0.0
        if opens_at is not None:
            assert opens_at - self.now <= RETRY.max_pause + slowest + CLOSE

    @invariant()
    def the_cap_leaves_room(self) -> None:
        """A learned cap is at least one, and the rate at least a little."""
        assert self.gate.cap is None or self.gate.cap >= 1
        rate = self.gate.rate_at(self.now)
        assert rate is None or 0 < rate <= (self.gate.rate or 0)

    def teardown(self) -> None:
        """From wherever it got to, the lane is as wide as ever after a few successes."""
        if not hasattr(self, "gate"):
            return
        if self.read is not None:
            self.answer_the_read("ok")
        while self.out:
            self.answer(0, "succeeded", 1, None)
        self.gate.left(self.unsettled)
        self.unsettled = 0
        for _ in range(9):
            self.send(1)
            if self.read is not None:
                self.answer_the_read("ok")
            else:
                self.answer(0, "succeeded", 1, None)
                self.settle(1)
        assert "open" == self.gate.state


TestGateMachine = GateMachine.TestCase
TestGateMachine.settings = settings(max_examples=75, stateful_step_count=50, deadline=None)

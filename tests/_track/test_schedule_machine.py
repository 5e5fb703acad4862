"""
The schedule under any sequence of events, beside a model that knows no heaps.
"""

from __future__ import annotations

import math
from typing import Any

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from veo_async._policies import PollPolicy
from veo_async._track.batches import SURELY_FITS
from veo_async._track.durations import Durations
from veo_async._track.schedule import Schedule

IDS = st.sampled_from([f"task-{number}" for number in range(12)])
KINDS = st.sampled_from(["one", "two"])
SECONDS = st.floats(0.0, 100.0)
PATIENT = 200.0  # seconds; longer than any gap, first look or wait for company under the policies drawn


@define(eq=False)
class Known:
    """
    What the outside knows of one task.
    """

    deadline_at: float
    looks: int = 0
    suspected: bool = False
    lone_misses: int = 0
    first_lone_miss_at: float = math.inf
    blamed: bool = False


class ScheduleMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.model: dict[str, Known] = {}
        self.flights: list[list[str]] = []

    @initialize(
        mode=st.sampled_from(["learned", "fixed", "backoff"]),
        interval=st.floats(0.5, 30.0),
        max_gap=st.floats(1.0, 60.0),
        batch_size=st.integers(1, 5),
    )
    def begin(self, **policy: Any) -> None:
        self.size = self.asked_for = policy["batch_size"]
        self.fits = SURELY_FITS
        self.durations = Durations()
        self.schedule = Schedule(PollPolicy(**policy), durations=self.durations)

    # --- what the session does -------------------------------------------------------------------------

    @rule(task_id=IDS, kind=KINDS, age=SECONDS, timeout=st.none() | st.floats(0.0, 500.0))
    def add(self, task_id: str, kind: str, age: float, timeout: float | None) -> None:
        deadline_at = None if timeout is None else self.now + timeout
        self.schedule.add(task_id, kind=kind, started_at=self.now - age, deadline_at=deadline_at)
        known = self.model.setdefault(task_id, Known(math.inf))
        known.deadline_at = min(known.deadline_at, math.inf if deadline_at is None else deadline_at)

    @rule(task_id=IDS)
    def discard(self, task_id: str) -> None:
        self.schedule.discard(task_id)
        self.forget(task_id)

    @rule(task_id=IDS)
    def nudge(self, task_id: str) -> None:
        self.schedule.nudge(task_id, self.now)
        if task_id in self.model:
            due_at = self.schedule.next_due_at()
            assert self.in_flight(task_id) or (due_at is not None and due_at <= self.now)

    # --- what the tracker does -------------------------------------------------------------------------

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def wait_until_due(self) -> None:
        due_at = self.schedule.next_due_at()
        if due_at is not None:
            self.now = max(self.now, due_at)

    @rule()
    def take(self) -> None:
        due_at = self.schedule.next_due_at()
        batch = self.schedule.take_batch(self.now)
        assert len(batch) == len(set(batch)) <= self.size
        assert not any(self.in_flight(task_id) for task_id in batch)
        assert set(batch) <= self.model.keys()
        if any(self.model[task_id].suspected for task_id in batch):
            assert 1 == len(batch)
        if batch:
            assert due_at is not None
            assert due_at <= self.now
            self.flights.append(batch)

    @precondition(lambda self: self.flights)
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        """
        A well-formed reply: each task asked about is pending, has ended, or is left out.
        """
        batch = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        fates = data.draw(st.lists(st.sampled_from("pem"), min_size=len(batch), max_size=len(batch)))
        told = {
            fate: [task_id for task_id, its in zip(batch, fates, strict=True) if its == fate]
            for fate in "pem"
        }
        self.schedule.answered(len(batch))
        self.fits = max(self.fits, len(batch))
        self.schedule.looked(told["p"], self.now)
        self.schedule.missing(told["m"], self.now)
        for task_id in told["e"]:
            self.schedule.ended(task_id, self.now, duration=data.draw(st.none() | st.floats()))
            self.forget(task_id)
        for task_id in set(told["p"]) & self.model.keys():
            known = self.model[task_id]
            self.model[task_id] = Known(known.deadline_at, looks=known.looks + 1)
        for task_id in set(told["m"]) & self.model.keys():
            self.miss(self.model[task_id])

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), refused=st.booleans())
    def fail(self, data: st.DataObject, refused: bool) -> None:
        batch = self.flights.pop(data.draw(st.integers(0, len(self.flights) - 1)))
        if refused:
            self.schedule.refused(batch, self.now)
            self.refuse(batch)
        else:
            self.schedule.unanswered(batch, self.now)

    @rule()
    def expire(self) -> None:
        late = {task_id for task_id, known in self.model.items() if known.deadline_at <= self.now}
        found = self.schedule.overdue(self.now)
        assert len(found) == len(set(found))
        assert late == set(found)
        for task_id in late:
            self.forget(task_id)

    @rule()
    def give_up(self) -> None:
        gone = {
            task_id
            for task_id, known in self.model.items()
            if known.lone_misses >= 4 and known.first_lone_miss_at <= self.now - 120.0
        }
        found = self.schedule.vanished(self.now)
        assert len(found) == len(set(found))
        assert gone == set(found)
        for task_id in gone:
            self.forget(task_id)

    @rule()
    def none_starves(self) -> None:
        """
        After a long time everything not under way is handed out, each task once.
        """
        self.now += PATIENT
        idle = {task_id for task_id in self.model if not self.in_flight(task_id)}
        while batch := self.schedule.take_batch(self.now):
            assert not any(self.in_flight(task_id) for task_id in batch)
            self.flights.append(batch)
        assert idle <= {task_id for batch in self.flights for task_id in batch}

    @rule()
    def remember(self) -> None:
        """
        What was learned goes through the journal unharmed.
        """
        again = Durations()
        again.load(self.durations.dump())
        assert self.durations.dump() == again.dump()

    # --- what always holds -----------------------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert self.model.keys() == set(self.schedule)
        assert len(self.model) == len(self.schedule)
        assert self.size == self.schedule.batch_size
        for task_id, known in self.model.items():
            assert known.looks == self.schedule.looks(task_id)

    @invariant()
    def is_due_for_all_that_waits(self) -> None:
        due_at = self.schedule.next_due_at()
        deadline_at = min((known.deadline_at for known in self.model.values()), default=math.inf)
        assert (None if deadline_at == math.inf else deadline_at) == self.schedule.next_deadline_at()
        if all(self.in_flight(task_id) for task_id in self.model):
            assert (None if deadline_at == math.inf else deadline_at) == due_at
        else:
            assert due_at is not None
            assert due_at <= min(deadline_at, self.now + PATIENT)

    # --- the model's side ------------------------------------------------------------------------------

    def in_flight(self, task_id: str) -> bool:
        return any(task_id in batch for batch in self.flights)

    def forget(self, task_id: str) -> None:
        """
        The answer to a look under way may still name the task; nobody waits for it.
        """
        self.model.pop(task_id, None)
        self.flights = [
            kept for batch in self.flights if (kept := [other for other in batch if other != task_id])
        ]

    def miss(self, known: Known) -> None:
        known.lone_misses += known.suspected
        if known.lone_misses == 1:
            known.first_lone_miss_at = min(known.first_lone_miss_at, self.now)
        known.suspected = True

    def refuse(self, batch: list[str]) -> None:
        if len(batch) > max(self.fits, 1):
            self.size = max(1, min(self.size, len(batch) // 2))
            return
        self.fits = len(batch) // 2
        for known in (self.model[task_id] for task_id in batch if task_id in self.model):
            if known.suspected and not known.blamed:
                self.size, known.blamed = self.asked_for, True
            known.suspected = True


TestScheduleMachine = ScheduleMachine.TestCase
TestScheduleMachine.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)

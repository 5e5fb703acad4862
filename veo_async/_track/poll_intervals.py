"""
How long to wait until the next look at a task.

A task that was pending at the last look may have ended since.
Its *expected lag* is the mean time that has passed since its end, over all possible ends.
It starts at zero and grows with the square of the time since the look, faster where an end is likelier.
The next look is due when the expected lag has grown to the *price* of a look.
This rule is close to optimal: no look comes before an end is plausible, and most looks come where most tasks end.
The chance of an end is learned (`durations`), so the price is the only parameter; `interval` sets it.
The first look follows the same rule, from acceptance on.
Gaps depend on the bin of age and are cached, so a look costs a table access.

Two bounds guard against odd tables: gaps are at most `NORMAL_MAX_GAP` until the age of a task is `STRAGGLER` times
the learned median. From then on they grow with its age, up to `max_gap`.

A request with few looks costs as much as a full one, so its looks have a higher price (`REQUEST_COST`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import define, field

from .._policies import PollPolicy, scale_of
from .durations import EDGES, ENDS, LAST_BIN, Durations, bin_of
from .waiting_tasks import Task

__all__ = ["Gaps"]

# Seconds here are those of an unscaled policy.
# The chance per second that a documented task ends near the median, where gaps are then about `interval`.
# Tuned until 1,000 jobs have the lag of a loop that polls all of them (`benchmarks/schedule.py`).
TYPICAL_HAZARD: Final = 0.0135
REQUEST_COST: Final = 2.0  # looks; the cost of a request in addition to its looks
NORMAL_MAX_GAP: Final = 10.0  # seconds; the longest gap until a task is a straggler
STRAGGLER: Final = 3.0  # medians; from this age on a task is a straggler, and its gaps grow
LEAST_PRICE: Final = 1e-9  # seconds of lag; keeps the arithmetic of absurdly short intervals finite
RETRY: Final = 1.0  # seconds until the tasks of a failed poll are polled again; the gate does the back-off
MAX_DECLINED_STEPS: Final = 9  # doublings of `RETRY`; enough to reach any maximum
SLOW_ANSWER: Final = 5.0  # seconds; a later answer is not waited for
LEAST_SLOW_ANSWER: Final = 1.0  # seconds under any scale, since the network does not scale
BACKOFF_FIRST: Final = 2.0  # seconds
BACKOFF_FACTOR: Final = 1.3
BACKOFF_MAX: Final = 10.0  # seconds
MAX_BACKOFF_STEPS: Final = 99  # enough to reach the maximum, too few to overflow


@define(eq=False)
class Gaps:
    """
    Computes how long to wait, and learns from the ends of tasks.

    Attributes:
        scale: the policy's scale.
        normal_max: the longest gap until a task is a straggler, in seconds.
        retry: seconds until the tasks of a failed poll are polled again.
        patience: how long a due look may wait for others, in seconds.
    """

    _policy: PollPolicy
    _durations: Durations
    scale: float = field(init=False)
    normal_max: float = field(init=False)
    retry: float = field(init=False)
    patience: float = field(init=False)
    _price: float = field(init=False)  # of a look in a full request, in seconds of expected lag, unscaled
    _ends: Sequence[float] = field(init=False)  # of the bins of age, in seconds

    def __attrs_post_init__(self) -> None:
        policy = self._policy
        self.scale = scale_of(policy)
        self.normal_max = max(NORMAL_MAX_GAP * self.scale, policy.interval)
        self.retry = RETRY * self.scale
        first_gap = BACKOFF_FIRST * self.scale
        self.patience = min(policy.interval, first_gap) if policy.mode == "backoff" else policy.interval
        interval = policy.interval / self.scale
        self._price = max(TYPICAL_HAZARD * interval * interval / 2, LEAST_PRICE)
        self._ends = [end * self.scale for end in ENDS]

    # --- until the next look ---------------------------------------------------------------------------

    def first(self, kind: str) -> float:
        """
        Return how long after its acceptance the first look at a task is due, in seconds.
        """
        policy = self._policy
        if policy.first_look is not None:
            return policy.first_look
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            return BACKOFF_FIRST * self.scale
        return self._durations.outlook(kind, self._price).first * self.scale

    def after_look(self, tasks: Sequence[Task], now: float) -> list[tuple[float, list[Task]]]:
        """
        Count a look that has shown these tasks pending; returns the gaps in seconds, each with its tasks.
        """
        price_factor = math.sqrt(1 + REQUEST_COST / len(tasks)) if tasks else 1.0
        cohorts, outlived = self._cohorts(tasks, now)
        gaps = [(self._gap(cohort[0], now, price_factor), cohort) for cohort in cohorts]
        # Counted after the gaps are computed, because the tasks that ended in the same reply are not counted yet.
        for (kind, start, stop), count in outlived.items():
            self._durations.survived(kind, start, stop, count=count)
        return gaps

    def _cohorts(
        self, tasks: Iterable[Task], now: float
    ) -> tuple[Iterable[list[Task]], Mapping[tuple[str, int, int], int]]:
        """
        Count a look at pending tasks, and group them into cohorts with the same gap.

        Returns the cohorts, and how many tasks of each kind went from which bin to which.
        """
        scale, by_looks, ends = self.scale, self._policy.mode == "backoff", self._ends
        cohorts = defaultdict[tuple[str, int], list[Task]](list)
        outlived = defaultdict[tuple[str, int, int], int](int)
        for task in tasks:
            task.looks += 1
            age = now - task.started_at
            if age >= ends[task.bin]:
                reached = max(task.bin, bin_of(age / scale))
                outlived[task.kind, task.bin, reached] += 1
                task.bin = reached
            cohorts[task.kind, task.looks if by_looks else task.bin].append(task)
        # The last bin has no end, so the tasks in it may differ in age, and so in their gaps.
        even = [cohort for cohort in cohorts.values() if cohort[0].bin < LAST_BIN]
        even += [[task] for cohort in cohorts.values() if cohort[0].bin == LAST_BIN for task in cohort]
        return even, outlived

    def _gap(self, task: Task, now: float, price_factor: float) -> float:
        """
        Return the gap until the next look at this task and its cohort, in seconds.
        """
        policy = self._policy
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            grown = BACKOFF_FIRST * BACKOFF_FACTOR ** min(task.looks, MAX_BACKOFF_STEPS)
            return min(grown, BACKOFF_MAX) * self.scale
        outlook = self._durations.outlook(task.kind, self._price)
        gap = min(price_factor * outlook.gap(task.bin) * self.scale, self.normal_max)
        late = (now - task.started_at) / self.scale / (STRAGGLER * outlook.median)
        return min(gap * max(1.0, late), policy.max_gap)

    # --- without an answer -----------------------------------------------------------------------------

    def after_refusals(self, count: int) -> float:
        """
        Return how many seconds to wait after a healthy server has declined to answer `count` times before.
        """
        return min(RETRY * 2.0 ** min(count, MAX_DECLINED_STEPS), NORMAL_MAX_GAP) * self.scale

    @property
    def slow_after(self) -> float:
        """
        The number of seconds after which an answer is late, if the server is usually fast.
        """
        return max(SLOW_ANSWER * self.scale, LEAST_SLOW_ANSWER)

    # --- when tasks end --------------------------------------------------------------------------------

    def expected_at(self, task: Task) -> float | None:
        """
        Return when most tasks of its kind that started with it have ended; None if its start is unknown.
        """
        if task.found:
            return None
        return task.started_at + self._durations.outlook(task.kind, self._price).mostly * self.scale

    def learn(self, task: Task, now: float, recorded: float | None) -> None:
        """
        Learn from an ended task how long its kind takes.

        Args:
            recorded: seconds by the times in the record; None if it has none.
        """
        seconds = self._duration(task, now, recorded)
        if seconds is not None:
            self._durations.died(task.kind, task.bin, max(task.bin, bin_of(seconds)))

    def _duration(self, task: Task, now: float, recorded: float | None) -> float | None:
        """
        Return how long an ended task took, in unscaled seconds; None if unknown.
        """
        watched = (now - task.started_at) / self.scale
        if recorded is None or not 0 <= recorded < math.inf:
            return None if task.found else watched
        recorded /= self.scale
        if task.found:
            # A duration beyond the table means that the record's times have another unit.
            return recorded if recorded < EDGES[-1] else None
        return min(recorded, watched)  # it was watched from acceptance, so it took no longer

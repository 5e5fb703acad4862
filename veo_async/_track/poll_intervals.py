"""
How long to wait until the next look at a task.

A task that was pending at the last look may have ended since.
Its *expected lag* is the time it has been over by now, averaged over what may have happened.
It is nothing at first, and then grows with the square of the time since the look: the likelier the end, the faster.
The next look is due when the expected lag has grown to the *price* of a look.
That is the whole rule, and it is close to the best any sequence of looks can do: nothing is asked before it
can plausibly be ready, and looks are densest where most tasks end.
The chance of an end comes from what the session has seen (`durations`), so the price is the only knob: `interval`
sets it.
The first look is the same rule, from acceptance on.
What depends on age alone is tabulated, so a look costs a table access.

Two bounds guard against odd tables: gaps stay at most `EVEN_GAP` until a task is `STRAGGLER` times the learned
median old, and grow from there on with its age, up to `max_gap`.

A request with few looks costs as much as a full one, so each look in it is priced up a little (`LONELY`).
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
# The chance per second that a documented task ends near the median, where gaps are then about `interval`;
# trimmed until 1,000 jobs have the lag of a loop over all of them (`benchmarks/schedule.py`).
TYPICAL_HAZARD: Final = 0.0135
LONELY: Final = 2.0  # looks; what a request costs beyond the looks in it
EVEN_GAP: Final = 10.0  # seconds; the longest gap until a task is well past the median
STRAGGLER: Final = 3.0  # medians; from this age on the gaps grow
LEAST_PRICE: Final = 1e-9  # seconds of lag; keeps the arithmetic of absurdly short intervals finite
RETRY: Final = 1.0  # seconds until the tasks of a failed poll are asked again; the gate does the backing off
DECLINED_STEPS: Final = 9  # doublings of that, past any maximum
SLOW: Final = 5.0  # seconds; an answer that takes longer is not waited for
LEAST_SLOW: Final = 1.0  # seconds, also of a scaled policy: the network does not scale
BACKOFF_FIRST: Final = 2.0  # seconds
BACKOFF_FACTOR: Final = 1.3
BACKOFF_MAX: Final = 10.0  # seconds
BACKOFF_STEPS: Final = 99  # past any maximum, and short of an overflow


@define(eq=False)
class Gaps:
    """
    Knows how long to wait in each case, and learns from what becomes of the tasks.

    Attributes:
        scale: of the policy.
        even: the longest gap until a task is a straggler, in seconds.
        retry: seconds until the tasks of a failed poll are asked about again.
        patience: how long a due look may wait for company, in seconds.
    """

    _policy: PollPolicy
    _durations: Durations
    scale: float = field(init=False)
    even: float = field(init=False)
    retry: float = field(init=False)
    patience: float = field(init=False)
    _price: float = field(init=False)  # of a look in a full request, in unscaled seconds of expected lag
    _ends: Sequence[float] = field(init=False)  # of the bins of age, in seconds

    def __attrs_post_init__(self) -> None:
        policy = self._policy
        self.scale = scale_of(policy)
        self.even = max(EVEN_GAP * self.scale, policy.interval)
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
        Count a look that has shown these tasks pending; return the gaps in seconds, each with whom it concerns.
        """
        dearer = math.sqrt(1 + LONELY / len(tasks)) if tasks else 1.0
        cohorts, outlived = self._cohorts(tasks, now)
        gaps = [(self._gap(cohort[0], now, dearer), cohort) for cohort in cohorts]
        # Only after the gaps are worked out: the tasks that ended by the same reply are not counted yet.
        for (kind, start, stop), count in outlived.items():
            self._durations.survived(kind, start, stop, count=count)
        return gaps

    def _cohorts(
        self, tasks: Iterable[Task], now: float
    ) -> tuple[Iterable[list[Task]], Mapping[tuple[str, int, int], int]]:
        """
        Count the look at tasks that are seen pending, and sort them into those with one and the same gap.

        Returns these, and how many of each kind have come from which bin to which.
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
        # The last bin has no end, so those in it may differ in age, and with it in their gaps.
        even = [cohort for cohort in cohorts.values() if cohort[0].bin < LAST_BIN]
        even += [[task] for cohort in cohorts.values() if cohort[0].bin == LAST_BIN for task in cohort]
        return even, outlived

    def _gap(self, task: Task, now: float, dearer: float) -> float:
        """
        Return how long after a look the next one at this task, and those of its cohort, is due, in seconds.
        """
        policy = self._policy
        if policy.mode == "fixed":
            return policy.interval
        if policy.mode == "backoff":
            grown = BACKOFF_FIRST * BACKOFF_FACTOR ** min(task.looks, BACKOFF_STEPS)
            return min(grown, BACKOFF_MAX) * self.scale
        outlook = self._durations.outlook(task.kind, self._price)
        gap = min(dearer * outlook.gap(task.bin) * self.scale, self.even)
        late = (now - task.started_at) / self.scale / (STRAGGLER * outlook.median)
        return min(gap * max(1.0, late), policy.max_gap)

    # --- where no answer came --------------------------------------------------------------------------

    def after_refusals(self, count: int) -> float:
        """
        Return how long to wait where the server, being well, has declined to answer so many times before.
        """
        return min(RETRY * 2.0 ** min(count, DECLINED_STEPS), EVEN_GAP) * self.scale

    @property
    def slow_after(self) -> float:
        """
        After how many seconds an answer is long in coming, from a server that is quick as a rule.
        """
        return max(SLOW * self.scale, LEAST_SLOW)

    # --- when tasks end --------------------------------------------------------------------------------

    def expected_at(self, task: Task) -> float | None:
        """
        Return when tasks of its kind that began with it have mostly ended; None where its beginning is not known.
        """
        if task.found:
            return None
        return task.started_at + self._durations.outlook(task.kind, self._price).mostly * self.scale

    def learn(self, task: Task, now: float, told: float | None) -> None:
        """
        Learn from a task that has ended how long its kind takes.

        Args:
            told: seconds by the record's own times; None where they do not tell.
        """
        seconds = self._lasted(task, now, told)
        if seconds is not None:
            self._durations.died(task.kind, task.bin, max(task.bin, bin_of(seconds)))

    def _lasted(self, task: Task, now: float, told: float | None) -> float | None:
        """
        Return how long a task that has ended took, in unscaled seconds, or None where nobody knows.
        """
        watched = (now - task.started_at) / self.scale
        if told is None or not 0 <= told < math.inf:
            return None if task.found else watched
        told /= self.scale
        if task.found:
            # Past all that is counted, the times in the record are in another unit, or none.
            return told if told < EDGES[-1] else None
        return min(told, watched)  # it was accepted here, and has ended

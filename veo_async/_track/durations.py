"""
Learns how long tasks take, per kind of request, and so when a look at a task is worth its price.

It keeps a *life table*, as actuaries do: for each bin of age, how many tasks entered it and how many ended in it.
The ratio of the two is the chance that a task that reaches the bin ends in it, for any shape of the distribution.
Pending tasks count for the bins that they have outlived. Without them a new session would learn only from its
quickest tasks, and take the others for late.

The table starts as if `PRIOR_WEIGHT` tasks had ended as the documents say. A new kind uses what was learned about
the other kinds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from attrs import define, field

__all__ = ["EDGES", "ENDS", "LAST_BIN", "Durations", "Outlook", "bin_of"]

FIRST_EDGE: Final = 4.0  # seconds; shorter durations share one bin
RATIO: Final = 1.15  # of the lengths of neighbouring bins; narrower bins would learn more slowly
BINS: Final = 48  # the last begins at 41 minutes, after the default deadline
LAST_BIN: Final = BINS - 1
MAX_COUNT: Final = 2.0**53  # lives; above that a float cannot count one more
EDGES: Final = (0.0, *(FIRST_EDGE * RATIO**power for power in range(BINS - 1)))
WIDTHS: Final = (*(after - before for before, after in pairwise(EDGES)), EDGES[-1] * (RATIO - 1))
ENDS: Final = (*EDGES[1:], math.inf)  # of the bins
_PER_LOG: Final = 1 / math.log(RATIO)

PRIOR_MEDIAN: Final = 108.0  # seconds; the documents' examples took 66, 68, 90, 99, 145, 165 and 185
PRIOR_SPREAD: Final = 0.45  # standard deviation of the logarithm; the few examples have 0.40
PRIOR_WEIGHT: Final = 5.0  # lives; as many completed tasks weigh as much as the documents
PRIOR_HALVED_BY: Final = 20.0  # lives; as many completed tasks halve the weight of the prior
LEAST_REACHED: Final = 0.01  # least share of the prior's lives in a bin, however few tasks reach it
SMOOTHINGS: Final = 2  # passes; each spreads a count by less than a bin
MEMORY: Final = 500.0  # lives; older ones fade, so that the table adapts to a server that changes
REFRESH: Final = 0.1  # share of the table's counts that must be new before the outlook is computed again
MOSTLY: Final = 0.8  # of the tasks
MAX_CHANCE: Final = 0.95  # of an end within a bin


def bin_of(age: float) -> int:
    """
    Return the index of the bin that an age in seconds falls into.
    """
    if age < FIRST_EDGE:
        return 0
    return 1 + int(min(math.log(age / FIRST_EDGE) * _PER_LOG, BINS - 2))


@define
class Outlook:
    """
    The expected durations of tasks of one kind, in seconds.

    Attributes:
        price: the expected lag from which on a look is worth it.
        median: the age by which half of them have ended.
        mostly: the age by which the share `MOSTLY` of them has ended.
    """

    price: float
    median: float
    mostly: float
    _hazards: Sequence[float]  # ends per second, for each bin
    _gaps: dict[int, float] = field(init=False, factory=dict, eq=False, repr=False)

    @property
    def first(self) -> float:
        """
        The age at which a first look is worth its price.
        """
        return self.gap(0)

    def gap(self, index: int) -> float:
        """
        Return how long after a look in this bin of age the next look is worth its price.
        """
        if index not in self._gaps:
            self._gaps[index] = _wait(index, self._hazards, self.price)
        return self._gaps[index]


@define(eq=False)
class _LifeTable:
    entered: list[float] = field(factory=lambda: [0.0] * BINS)
    ended: list[float] = field(factory=lambda: [0.0] * BINS)
    outlook: Outlook | None = field(default=None, init=False)
    news: float = field(default=0.0, init=False)  # counts since the outlook was computed
    stale_from: float = field(default=0.0, init=False)  # how much news makes the outlook stale

    def fade(self) -> None:
        if self.entered[0] > MEMORY:
            self.entered = [count / 2 for count in self.entered]
            self.ended = [count / 2 for count in self.ended]


@define(eq=False)
class Durations:
    """
    The learned durations of tasks per kind of request, in seconds of an unscaled policy.
    """

    _tables: dict[str, _LifeTable] = field(init=False, factory=dict)

    def observe(self, kind: str, seconds: float) -> None:
        """
        Learn that a task of this kind took `seconds` from acceptance to its end.
        """
        self.died(kind, 0, bin_of(seconds))

    def survived(self, kind: str, start: int, stop: int, *, count: int = 1) -> None:
        """
        Learn that `count` tasks of this kind, pending at the beginning of bin `start`, reached bin `stop`.
        """
        table = self._table(kind)
        for index in range(start, stop):
            table.entered[index] += count
        table.news += count * (stop - start)

    def died(self, kind: str, start: int, stop: int) -> None:
        """
        Learn that a task of this kind, pending at the beginning of bin `start`, ended in bin `stop`.
        """
        self.survived(kind, start, stop + 1)
        table = self._table(kind)
        table.ended[stop] += 1
        table.fade()

    def dump(self) -> dict[str, list[list[float]]]:
        """
        Return what was learned as plain lists for JSON.
        """
        return {kind: [list(table.entered), list(table.ended)] for kind, table in self._tables.items()}

    def load(self, dumped: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """
        Load what an earlier session learned, as returned by `dump`; entries of another shape are ignored.
        """
        for kind, counts in dumped.items():
            if _well_formed(counts):
                self._tables[kind] = _LifeTable(list(counts[0]), list(counts[1]))

    def outlook(self, kind: str, price: float) -> Outlook:
        """
        Return when looks at tasks of this kind are worth their price, in seconds of expected lag.
        """
        table = self._table(kind)
        if table.outlook is None or table.outlook.price != price or table.news > table.stale_from:
            table.outlook = _outlook(self._chances(kind), price)
            table.news, table.stale_from = 0.0, REFRESH * sum(table.entered)
        return table.outlook

    def _table(self, kind: str) -> _LifeTable:
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _LifeTable()
        return table

    def _chances(self, kind: str) -> list[float]:
        others = [table for other, table in self._tables.items() if other != kind]
        own, borrowed = self._tables[kind], _PRIOR
        if others:
            entered, ended = _total([it.entered for it in others]), _total([it.ended for it in others])
            borrowed = _updated(_PRIOR, entered, ended)
        return _updated(borrowed, own.entered, own.ended)


def _well_formed(counts: object) -> bool:
    if not isinstance(counts, list | tuple) or len(counts) != 2:
        return False
    entered, ended = counts
    return all(
        isinstance(row, list | tuple) and len(row) == BINS and all(map(_is_count, row))
        for row in (entered, ended)
    ) and all(died <= lives for lives, died in zip(entered, ended, strict=True))


def _is_count(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < MAX_COUNT


def _prior() -> list[float]:
    """
    Return the chance of an end in each bin, by the documents' examples.
    """
    scores = [math.log(edge / PRIOR_MEDIAN) / PRIOR_SPREAD for edge in EDGES[1:]]
    alive = [1.0, *(math.erfc(score / math.sqrt(2)) / 2 for score in scores)]
    chances = [1 - after / before if after > 1e-9 else MAX_CHANCE for before, after in pairwise(alive)]
    return [*chances, MAX_CHANCE]


def _survival(chances: Sequence[float]) -> list[float]:
    """
    Return the share of tasks that outlive each bin.
    """
    alive, shares = 1.0, []
    for chance in chances:
        alive *= 1 - chance
        shares.append(alive)
    return shares


def _total(rows: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _updated(prior: Sequence[float], entered: Sequence[float], ended: Sequence[float]) -> list[float]:
    """
    Return the chances of the prior, updated with the counts.
    """
    lives_before = PRIOR_WEIGHT / (1 + sum(ended) / PRIOR_HALVED_BY)
    reached = [1.0, *_survival(prior)[:-1]]
    weights = [lives_before * max(share, LEAST_REACHED) for share in reached]
    rows = zip(weights, prior, _smooth(entered), _smooth(ended), strict=True)
    return [(weight * chance + died) / (weight + lives) for weight, chance, lives, died in rows]


def _smooth(counts: Sequence[float]) -> Sequence[float]:
    """
    Share each count with its neighbours, since few completed tasks leave random gaps between bins.
    """
    for _ in range(SMOOTHINGS):
        padded = [counts[0], *counts, counts[-1]]
        neighbours = zip(padded, counts, padded[2:], strict=False)
        counts = [(before + 2 * here + after) / 4 for before, here, after in neighbours]
    return counts


def _outlook(chances: Sequence[float], price: float) -> Outlook:
    hazards = [
        -math.log(1 - min(chance, MAX_CHANCE)) / width for chance, width in zip(chances, WIDTHS, strict=True)
    ]
    alive = _survival(chances)
    half = sum(share > 0.5 for share in alive)
    # The median lies in bin `half`. Ages are divided by it, so it must not be 0: the first bin gives its end.
    median = max(EDGES[min(half, BINS - 1)], FIRST_EDGE)
    mostly = EDGES[min(sum(share > 1 - MOSTLY for share in alive) + 1, BINS - 1)]  # the end of the bin
    return Outlook(price, median, mostly, hazards)


def _wait(start: int, hazards: Sequence[float], price: float) -> float:
    """
    Return how long after a look at the beginning of a bin the expected lag has grown to the price.
    """
    waited = hazard_so_far = lag = chance = 0.0
    for hazard, width in zip(hazards[start:], WIDTHS[start:], strict=True):
        hazard_so_far += hazard * width
        after = 1 - math.exp(-hazard_so_far)  # the chance of an end by the end of the bin
        grown = width * (chance + after) / 2
        if lag + grown >= price:
            # The chance grows about linearly within the bin, so the rest is a quadratic equation.
            rest, slope = price - lag, (after - chance) / width
            return waited + 2 * rest / (chance + math.sqrt(chance * chance + 2 * slope * rest))
        waited, lag, chance = waited + width, lag + grown, after
    return waited


_PRIOR: Final = _prior()

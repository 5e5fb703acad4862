"""
How long tasks take, learned per kind of request, and from that when a look at one is worth its price.

What is learned is a *life table*, as actuaries keep it: for each bin of age, how many tasks were seen to enter
it and how many ended within it. The ratio of the two is the chance that a task which is this old ends before
it is a bin older, whatever the shape of the distribution. Tasks that are still pending count for the bins they
have outlived; without them a session that has just begun would learn from its quickest tasks alone, and
believe all others to be late.

The table starts as if `PRIOR_WEIGHT` tasks had been seen to end as the documents say. A kind that is new
borrows the experience of the others in their place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

from attrs import define, field, frozen

__all__ = ["Durations", "Outlook", "bin_of"]

FIRST_EDGE: Final = 4.0  # seconds; shorter lives need no telling apart
RATIO: Final = 1.15  # each bin is longer than the one before by this: narrower ones learn more slowly
BINS: Final = 48  # the last begins at 42 minutes, past the default deadline
EDGES: Final = (0.0, *(FIRST_EDGE * RATIO**power for power in range(BINS - 1)))
WIDTHS: Final = (*(after - before for before, after in pairwise(EDGES)), EDGES[-1] * (RATIO - 1))
_LOG_RATIO: Final = math.log(RATIO)

PRIOR_MEDIAN: Final = 105.0  # seconds; the documents' examples took 66, 68, 90, 99, 145, 165 and 185
PRIOR_SPREAD: Final = 0.45  # of the logarithm; the examples' own is 0.41, and they are few
PRIOR_WEIGHT: Final = 8.0  # lives; so many completions count as much as the documents
MEMORY: Final = 500.0  # lives; older ones fade, so that the table follows a server that changes
REFRESH: Final = 0.05  # of what the table holds: so much must be new before the outlook is worked out again
CERTAIN: Final = 0.95  # the largest chance to end within a bin that is believed


def bin_of(age: float) -> int:
    """
    Return the index of the bin that an age in seconds falls into.
    """
    if age < FIRST_EDGE:
        return 0
    return min(BINS - 1, 1 + int(math.log(age / FIRST_EDGE) / _LOG_RATIO))


@frozen
class Outlook:
    """
    What is expected of tasks of one kind, in seconds.

    Attributes:
        first: the age at which the first look is worth its price.
        median: the age by which half of them have ended.
        gaps: for each bin of age, how long after a look in it the next one is worth its price.
    """

    first: float
    median: float
    gaps: Sequence[float]


@define(eq=False)
class _LifeTable:
    entered: list[float] = field(factory=lambda: [0.0] * BINS)
    ended: list[float] = field(factory=lambda: [0.0] * BINS)
    news: float = field(default=math.inf, init=False)  # counted since the outlook was worked out
    outlook: Outlook | None = field(default=None, init=False)

    def fade(self) -> None:
        if self.entered[0] > MEMORY:
            self.entered = [count / 2 for count in self.entered]
            self.ended = [count / 2 for count in self.ended]


@define(eq=False)
class Durations:
    """
    What is known of how long tasks take, per kind of request; in seconds of an unscaled policy.
    """

    _tables: dict[str, _LifeTable] = field(init=False, factory=dict)

    def observe(self, kind: str, seconds: float) -> None:
        """
        Learn that a task of this kind took so many seconds from acceptance to its end.
        """
        self.died(kind, 0, bin_of(seconds))

    def survived(self, kind: str, start: int, stop: int) -> None:
        """
        Learn that a task of this kind, alive at the start of bin `start`, reached bin `stop`.
        """
        table = self._table(kind)
        for index in range(start, stop):
            table.entered[index] += 1
        table.news += stop - start

    def died(self, kind: str, start: int, stop: int) -> None:
        """
        Learn that a task of this kind, alive at the start of bin `start`, ended within bin `stop`.
        """
        self.survived(kind, start, stop + 1)
        table = self._table(kind)
        table.ended[stop] += 1
        table.fade()

    def dump(self) -> dict[str, list[list[float]]]:
        """
        Return what was learned as plain lists, ready for JSON.
        """
        return {kind: [list(table.entered), list(table.ended)] for kind, table in self._tables.items()}

    def load(self, dumped: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """
        Take up what an earlier session learned, as `dump` gave it.
        """
        for kind, (entered, ended) in dumped.items():
            self._tables[kind] = _LifeTable(list(entered), list(ended))

    def outlook(self, kind: str, price: float) -> Outlook:
        """
        Return when looks at this kind are worth their price: the seconds of lag that a look must be expected to end.
        """
        table = self._table(kind)
        if table.outlook is None or table.news > 1 + REFRESH * sum(table.entered):
            table.outlook = _outlook(self._chances(kind), price)
            table.news = 0.0
        return table.outlook

    def _table(self, kind: str) -> _LifeTable:
        table = self._tables.get(kind)
        if table is None:
            table = self._tables[kind] = _LifeTable()
        return table

    def _chances(self, kind: str) -> list[float]:
        chances = _PRIOR
        others = [table for other, table in self._tables.items() if other != kind]
        if others:
            entered = [sum(counts) for counts in zip(*(table.entered for table in others), strict=True)]
            ended = [sum(counts) for counts in zip(*(table.ended for table in others), strict=True)]
            chances = _updated(chances, entered, ended)
        own = self._tables[kind]
        return _updated(chances, own.entered, own.ended)


def _prior() -> list[float]:
    """
    Return for each bin the chance to end within it that the documents suggest.
    """
    scores = [math.log(edge / PRIOR_MEDIAN) / PRIOR_SPREAD for edge in EDGES[1:]]
    alive = [1.0, *(math.erfc(score / math.sqrt(2)) / 2 for score in scores)]
    chances = [1 - after / before if before > 1e-9 else CERTAIN for before, after in pairwise(alive)]
    return [*chances, CERTAIN]


def _survival(chances: Sequence[float]) -> list[float]:
    alive = [1.0]
    for chance in chances:
        alive.append(alive[-1] * (1 - chance))
    return alive


def _updated(prior: Sequence[float], entered: Sequence[float], ended: Sequence[float]) -> list[float]:
    weights = [PRIOR_WEIGHT * max(alive, 0.01) for alive in _survival(prior)[:-1]]
    rows = zip(weights, prior, entered, ended, strict=True)
    return [(weight * chance + died) / (weight + lives) for weight, chance, lives, died in rows]


def _outlook(chances: Sequence[float], price: float) -> Outlook:
    hazards = [
        -math.log(1 - min(chance, CERTAIN)) / width for chance, width in zip(chances, WIDTHS, strict=True)
    ]
    alive = _survival(chances)
    median = next((edge for edge, share in zip(EDGES, alive[1:], strict=True) if share <= 0.5), EDGES[-1])
    return Outlook(_wait(0, hazards, price), median, [_wait(index, hazards, price) for index in range(BINS)])


def _wait(start: int, hazards: Sequence[float], price: float) -> float:
    """
    Return how long after a look at the start of a bin the expected lag since then has grown to the price.
    """
    waited = cumulative = lag = chance = 0.0
    for hazard, width in zip(hazards[start:], WIDTHS[start:], strict=True):
        cumulative += hazard * width
        after = 1 - math.exp(-cumulative)
        grown = width * (chance + after) / 2
        if lag + grown >= price:
            break
        waited, lag, chance = waited + width, lag + grown, after
    else:
        return waited
    slope = (
        after - chance
    ) / width  # the chance grows about evenly within the bin: solve the square equation
    short = price - lag
    return waited + 2 * short / (chance + math.sqrt(chance * chance + 2 * slope * short))


_PRIOR: Final = _prior()

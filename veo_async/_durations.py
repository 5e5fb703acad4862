"""
How long tasks take, learned per kind of request; and from that, when a look at one is worth its price.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, field

__all__ = ["Durations", "LifeTable", "Outlook"]

FIRST_EDGE: Final = 4.0  # seconds; nothing shorter than this needs telling apart
RATIO: Final = 1.15  # each bin is this much longer than the one before: fine enough for one look's gap
BINS: Final = 50  # the last one begins at about an hour
EDGES: Final = (0.0, *(FIRST_EDGE * RATIO**power for power in range(BINS - 1)))
_LOG_RATIO: Final = math.log(RATIO)

PRIOR_MEDIAN: Final = 105.0  # seconds; the documents' examples took 66, 68, 90, 99, 145, 165 and 185
PRIOR_SPREAD: Final = 0.5  # of the logarithm; the examples' own is 0.4, widened since they are few
PRIOR_WEIGHT: Final = 8.0  # so many completions outweigh the documents
MEMORY: Final = 500.0  # lives; older ones fade, so that the table follows a server that changes


def bin_of(age: float) -> int:
    """
    Return the index of the bin that `age` (seconds) falls into.
    """
    if age < FIRST_EDGE:
        return 0
    return min(BINS - 1, 1 + int(math.log(age / FIRST_EDGE) / _LOG_RATIO))


def _prior() -> list[float]:
    """
    Return the share of those alive at each bin's start that end within it, before anything was seen.
    """
    alive = [
        0.5 * math.erfc(math.log(edge / PRIOR_MEDIAN) / PRIOR_SPREAD / math.sqrt(2)) for edge in EDGES[1:]
    ]
    bounds = [1.0, *alive, 0.0]
    return [1 - after / before if before > 1e-12 else 1.0 for before, after in itertools.pairwise(bounds)]


@define(eq=False)
class LifeTable:
    """
    Counts, for each bin of age, how many tasks were seen to enter it and how many ended within it.
    """

    entered: list[float] = field(factory=lambda: [0.0] * BINS)
    ended: list[float] = field(factory=lambda: [0.0] * BINS)


@define(eq=False)
class Outlook:
    """
    When to look at tasks of one kind: the first look, and the gap to the next at each age (seconds).
    """

    first: float
    median: float
    gaps: list[float]


@define(eq=False)
class Durations:
    """
    What is known of how long tasks take, per kind of request, in seconds of an unscaled policy.
    """

    _tables: dict[str, LifeTable] = field(init=False, factory=dict)

    def observe(self, kind: str, seconds: float) -> None:
        """
        Learn that a task of this kind took so many seconds.
        """
        self.survived(kind, 0, bin_of(seconds))
        self.died(kind, bin_of(seconds))

    def survived(self, kind: str, first: int, last: int) -> None:
        """
        Learn that a task of this kind outlived the bins from `first` up to, not including, `last`.
        """
        entered = self._tables.setdefault(kind, LifeTable()).entered
        for index in range(first, last):
            entered[index] += 1

    def died(self, kind: str, index: int) -> None:
        """
        Learn that a task of this kind ended within the bin.
        """
        table = self._tables.setdefault(kind, LifeTable())
        table.entered[index] += 1
        table.ended[index] += 1

    def dump(self) -> dict[str, list[list[float]]]:
        """
        Return what was learned as plain lists, ready for JSON.
        """
        return {kind: [table.entered, table.ended] for kind, table in self._tables.items()}

    def load(self, dumped: Mapping[str, Iterable[Iterable[float]]]) -> None:
        """
        Take up what an earlier session learned, as `dump` gave it.
        """
        for kind, (entered, ended) in dumped.items():
            self._tables[kind] = LifeTable(list(entered), list(ended))

    def shares(self, kind: str) -> list[float]:
        """
        Return the share of those alive at each bin's start that end within it.
        """
        table = self._tables.get(kind, LifeTable())
        return [
            (PRIOR_WEIGHT * alive * share + ended) / (PRIOR_WEIGHT * alive + entered)
            for alive, share, entered, ended in zip(_ALIVE, _PRIOR, table.entered, table.ended, strict=False)
        ]

    def outlook(self, kind: str, price: float) -> Outlook:
        """
        Return when looks at this kind are worth their price (seconds of lag a look must be expected to end).
        """
        shares = self.shares(kind)
        alive = _survival(shares)
        median = EDGES[bisect_right([-share for share in alive], -0.5) - 1]
        widths = [after - before for before, after in itertools.pairwise(EDGES)] + [EDGES[-1] * (RATIO - 1)]
        hazards = [
            -math.log(max(1 - share, 1e-3)) / width for share, width in zip(shares, widths, strict=False)
        ]
        gaps = [math.sqrt(2 * price / hazard) if hazard > 0 else math.inf for hazard in hazards]
        first = next((edge for edge, share in zip(EDGES, alive, strict=False) if share < 0.97), EDGES[-1])
        return Outlook(first, median, gaps)


def _survival(shares: list[float]) -> list[float]:
    alive, found = 1.0, []
    for share in shares:
        found.append(alive)
        alive *= 1 - share
    return found


_PRIOR: Final = _prior()
_ALIVE: Final = [max(share, 1e-3) for share in _survival(_PRIOR)]

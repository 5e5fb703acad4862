"""
What every client meets: how many tasks there are, how long they take, and how often one may ask.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final

__all__ = ["AT_ONCE", "BATCH", "FASTER", "MEAN", "SIGMA", "TICK", "lives", "prompts"]

FASTER: Final = 15  # times than life: durations and all policies are divided by it
MEAN: Final = 90.0  # seconds, of the log-normal durations
SIGMA: Final = 0.4
TICK: Final = 0.2  # seconds; the floor asks about everything this often
BATCH: Final = 50  # ids a request, the most that the vendor recommends
AT_ONCE: Final = 16  # requests under way


def lives(jobs: int, rng: Random, *, faster: float = FASTER) -> list[float]:
    """
    Draw durations, made faster, in seconds.
    """
    middle = math.log(MEAN) - SIGMA**2 / 2
    return [math.exp(rng.gauss(middle, SIGMA)) / faster for _ in range(jobs)]


def prompts(jobs: int) -> list[str]:
    """
    As long as a prompt is, and all different; each ends in its number, by which the server tells its duration.
    """
    words = "a humpback whale breaching at golden hour, seen from a small boat, slow motion, take"
    return [f"{words} {number}" for number in range(jobs)]

"""
Whole lives of batches under seeded faults and kills; see `tests/virtual/chaos.py` for the story and the verdict.
"""

from __future__ import annotations

import pytest

from tests.virtual.chaos import play

SEEDS = 1000
AT_ONCE = 25


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_nothing_is_lost_or_bought_twice_whatever_happens(first: int) -> None:
    """
    Faults, identical prompts and kills at random instants: each key gets one video, and the journal knows it.
    """
    outcomes = [play(seed) for seed in range(first, first + AT_ONCE)]
    failed = {outcome.seed: outcome.problems for outcome in outcomes if outcome.problems}
    assert {} == failed, "replay one by: python -m tests.virtual.chaos SEED"

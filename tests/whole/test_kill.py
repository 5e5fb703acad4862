"""
`kill -9` at each named step and at random instants: nothing is lost, nothing is bought twice.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.killed.series import Kill, Series

NAMED = [
    Kill("Intended", "before"),
    Kill("Intended", "after"),
    Kill("Sending", "before", 2),
    Kill("Sending", "after", 2),
    Kill("Accepted", "before", 2),
    Kill("Accepted", "after", 2),
    Kill("Settled", "before"),
    Kill("Settled", "after"),
]
NOTHING: dict[str, object] = {"lost": [], "made up": [], "twice": {}, "never": {}, "unsettled": []}


async def test_a_kill_at_each_named_step_loses_nothing_and_buys_nothing_twice(tmp_path: Path) -> None:
    """
    One journal, killed before and after each fact is durable: the last process settles every key, once bought.
    """
    async with Series(tmp_path) as series:
        for kill in NAMED:
            await series.die(kill)
        settled = await series.live()
        assert {f"key {n}" for n in range(series.jobs)} == set(settled)
        assert NOTHING == await series.verdict()
        assert len(NAMED) == series.kills


async def test_kills_at_random_instants_lose_nothing_and_buy_nothing_twice(tmp_path: Path) -> None:
    """
    Killed while submits are under way and while videos arrive: the last process settles every key, once bought.
    """
    rng = random.Random(1)
    async with Series(tmp_path, seed=1, jobs=16) as series:
        for _ in range(6):
            if series.simulator.core.accepted < series.jobs:
                await series.die(Kill(accepted=rng.randint(1, 2)))
            else:
                await series.die(Kill(lines=rng.randint(2, 4)))
        await series.live()
        assert NOTHING == await series.verdict()
        assert series.kills >= 4, "most processes were to be killed before they were done"


@pytest.mark.parametrize("seed", [1, 2])
async def test_kills_that_leave_no_journal_buy_nothing_twice(tmp_path: Path, seed: int) -> None:
    """
    Killed ten times right after a POST, with nothing written down: who looks first finds what was bought, and
    buys the rest.
    """
    async with Series(tmp_path, seed=seed, jobs=24, forgetful=True) as series:
        for _ in range(10):
            await series.die(Kill(accepted=1))
        assert 10 == series.kills
        settled = await series.live()
        assert {f"key {n}" for n in range(series.jobs)} == settled.keys()
        assert {} == series.swapped(settled)
        assert (series.jobs, series.jobs) == (series.simulator.core.accepted, len(set(settled.values())))

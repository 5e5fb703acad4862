"""
Many more `kill -9` than the suite does; see `tests/killed`.

    python benchmarks/kills.py 200 [1]          # so many kills, in series of one batch and one journal each
    python benchmarks/kills.py --series 17      # the same plan of kills again

Each second series has no journal: its processes look first for what the ones before have bought.

A seed decides the plan of a series; when exactly a process dies is up to the machine. After the kills one process
runs to its end, and then the journal is compared with what the server accepted. Exit status 1 where they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from attrs import define, field

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.killed.series import Kill, Series  # noqa: E402

JOBS: Final = 16
DEATHS: Final = 8  # planned in a series; a process that is done before ends well
FACTS: Final = ("Intended", "Sending", "Accepted", "Settled")
SERIES_LIMIT: Final = 180.0  # seconds, after which a series counts as hung
REPLAY: Final = "python benchmarks/kills.py --series {seed}"


@define
class Found:
    """
    What a series came to.
    """

    seed: int
    kills: int = 0
    accepted: int = 0
    problems: dict[str, object] = field(factory=dict)


def plan(rng: random.Random, series: Series) -> Kill:
    """
    Choose the next death: at a named step, or at a random instant of what is going on.
    """
    if not series.forgetful and rng.random() < 0.4:
        # Each process writes few facts of a kind, and the later it is the fewer.
        return Kill(rng.choice(FACTS), rng.choice(["before", "after"]), rng.randint(1, 3))
    if series.simulator.core.accepted < series.jobs:
        return Kill(accepted=rng.randint(1, 3))
    return Kill(lines=rng.randint(1, 4))


async def play(seed: int, *, deaths: int = DEATHS) -> Found:
    """
    Play one series, with so many deaths planned.
    """
    rng, found = random.Random(seed), Found(seed)
    with tempfile.TemporaryDirectory() as folder:
        async with Series(Path(folder), jobs=JOBS, seed=seed, forgetful=seed % 2 == 0) as series:
            try:
                async with asyncio.timeout(SERIES_LIMIT):
                    for _ in range(deaths):
                        await series.die(plan(rng, series))
                    settled = await series.live()
                    verdict = {} if series.forgetful else await series.verdict()
                    verdict["swapped"] = series.swapped(settled)
                    verdict["bought beside"] = series.simulator.core.accepted - JOBS
                    found.problems = {what: which for what, which in verdict.items() if which}
            except (AssertionError, TimeoutError) as error:
                found.problems = {"ended with": repr(error)}
            found.kills, found.accepted = series.kills, series.simulator.core.accepted
    return found


async def play_all(kills: int, first: int) -> list[Found]:
    """
    Play series until there were so many kills.
    """
    series: list[Found] = []
    while sum(found.kills for found in series) < kills and len(series) < kills:
        series.append(await play(first + len(series)))
        complain(series[-1])
    return series


def complain(found: Found) -> None:
    if found.problems:
        problems = [f"{what}: {which}" for what, which in found.problems.items()]
        replay = f"replay: {REPLAY.format(seed=found.seed)}"
        print(f"series {found.seed}", *problems, replay, sep="\n    ", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kills", type=int, nargs="?", default=200, help="how many (200)")
    parser.add_argument("first", type=int, nargs="?", default=1, help="the first series' seed (1)")
    parser.add_argument("--series", type=int, metavar="SEED", help="play only this one")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a report")
    chosen = parser.parse_args()
    began = time.perf_counter()
    if chosen.series is None:
        series = asyncio.run(play_all(chosen.kills, chosen.first))
    else:
        series = [asyncio.run(play(chosen.series))]
        complain(series[0])
    failed = [found.seed for found in series if found.problems]
    totals = {
        "series": len(series),
        "kills": sum(found.kills for found in series),
        "jobs": JOBS * len(series),
        "bought": sum(found.accepted for found in series),
        "seconds": round(time.perf_counter() - began),
        "failed": failed,
    }
    print(json.dumps(totals, indent=2) if chosen.json else ", ".join(f"{k}: {v}" for k, v in totals.items()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

"""
Many more whole lives under seeded faults and kills than the suite plays; see `tests/virtual/chaos.py`.

    python benchmarks/chaos.py 10000 [1000] [--processes 1] [--json]

Plays so many seeds from the first one on. Names each seed that fails, and the one command that replays it.
Exit status 1 where one failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.virtual.chaos import Outcome, play  # noqa: E402

AT_ONCE: Final = 50  # seeds that a process is handed
REPLAY: Final = "python -m tests.virtual.chaos {seed}"


def played(seeds: range) -> list[Outcome]:
    """
    Play some seeds; one that ends in an exception has failed too.
    """
    outcomes = []
    for seed in seeds:
        try:
            outcomes.append(play(seed))
        except Exception as error:  # a report on the others is wanted all the same
            outcomes.append(Outcome(seed, problems=[f"ended with {error!r}"]))
    return outcomes


def play_all(first: int, count: int, processes: int) -> Iterator[Outcome]:
    """
    Play all seeds, in their order.
    """
    end = first + count
    parts = [range(start, min(start + AT_ONCE, end)) for start in range(first, end, AT_ONCE)]
    if processes == 1:
        return chain.from_iterable(map(played, parts))
    with ProcessPoolExecutor(processes, initializer=logging.disable) as pool:
        return chain.from_iterable(list(pool.map(played, parts)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("count", type=int, help="how many seeds")
    parser.add_argument("first", type=int, nargs="?", default=1000, help="the suite plays those below 1000")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a report")
    chosen = parser.parse_args()
    logging.disable()
    began = time.perf_counter()
    totals, struck = Counter[str](), Counter[str]()
    failed: dict[int, list[str]] = {}
    for outcome in play_all(chosen.first, chosen.count, chosen.processes):
        totals.update(
            seeds=1,
            lives=outcome.lives,
            jobs=outcome.jobs,
            bought=outcome.bought,
            faults=outcome.struck.total(),
        )
        struck.update({" ".join(what): count for what, count in outcome.struck.items()})
        if outcome.problems:
            failed[outcome.seed] = outcome.problems
            complaint = [*outcome.problems, f"replay: {REPLAY.format(seed=outcome.seed)}"]
            print(f"seed {outcome.seed}", *complaint, sep="\n    ", file=sys.stderr, flush=True)
    report(totals, struck, failed, time.perf_counter() - began, as_json=chosen.json)
    return 1 if failed else 0


def report(
    totals: Counter[str],
    struck: Counter[str],
    failed: dict[int, list[str]],
    took: float,
    *,
    as_json: bool,
) -> None:
    """
    Print what was played, and what failed.
    """
    if as_json:
        found: dict[str, Any] = {**totals, "seconds": took, "struck": struck, "failed": failed}
        print(json.dumps(found, indent=2))
        return
    print(", ".join(f"{count:,} {what}" for what, count in totals.items()), f"in {took:.0f} s")
    print(f"{len(failed)} seeds failed" + "".join(f"\n    {REPLAY.format(seed=seed)}" for seed in failed))


if __name__ == "__main__":
    sys.exit(main())

"""
How fast the journal makes facts durable: facts a second and CPU a fact, beside what the disk itself takes to sync.

    python benchmarks/journal.py [--jobs 1 10 100] [--runs 5] [--seconds 1.0] [--directory .] [--json]

Each job writes the four facts of its life one after the other, and waits until each is durable.
Every figure is the median of the runs.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# A session makes the facts, so they are no part of the public package; here they are measured without one.
from veo_async._journal.facts import Accepted, Fact, Intended, Sending, Settled
from veo_async._journal.journal import AnyJournal
from veo_async._journal.sqlite import Journal

REQUEST = json.dumps({"prompt": "a whale breaching at golden hour", "model": "veo31-fast", "async": True})
OUTCOME = json.dumps(
    {"videos": [{"id": "0" * 36, "url": "https://cdn.example/" + "x" * 80, "state": "succeeded"}]}
)


def life(key: str) -> Iterator[Fact]:
    """
    The facts of one job, in order.
    """
    at = time.time()
    yield Intended(key=key, request=REQUEST, at=at)
    yield Sending(key=key, attempt=1, at=at)
    yield Accepted(key=key, task_id=f"task-{key}", trace_id=f"trace-{key}", at=at)
    yield Settled(key=key, failed=False, outcome=OUTCOME, at=at)


async def run(journal: AnyJournal, jobs: int, seconds: float) -> dict[str, float]:
    """
    Keep so many jobs going for so long; return facts a second, CPU microseconds a fact, and waits in milliseconds.
    """
    waits, keys = list[float](), itertools.count()
    await journal.open("a token for measuring")
    end = time.perf_counter() + seconds

    async def worker() -> None:
        while not waits or time.perf_counter() < end:  # once at least, however slow the machine is
            for fact in life(str(next(keys))):
                start = time.perf_counter()
                await journal.write(fact)
                waits.append(time.perf_counter() - start)

    start, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(jobs)))
    took, used = time.perf_counter() - start, time.process_time() - cpu
    await journal.close()
    waits.sort()
    return {
        "facts_per_second": len(waits) / took,
        "cpu_us_per_fact": used / len(waits) * 1e6,
        "wait_ms_median": waits[len(waits) // 2] * 1e3,
        "wait_ms_p99": waits[len(waits) * 99 // 100] * 1e3,
    }


def sync_ms(directory: Path, count: int = 50) -> float:
    """
    The median time that the disk takes to append a page and sync it, by the call SQLite uses, in milliseconds.
    """
    sync = getattr(os, "fdatasync", os.fsync)  # not every system has the former
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(count):
            start = time.perf_counter()
            file.write(b"x" * 4096)
            sync(file.fileno())
            times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


def measure(directory: Path, jobs: int, runs: int, seconds: float) -> dict[str, float]:
    """
    The medians of several runs, each with a new file, and the disk's own time around them.
    """
    results = []
    # Before and after each run, not once for all: on a shared machine a sync takes 0.2 ms now and 4 ms later.
    syncs = [sync_ms(directory)]
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=directory) as place:
            results.append(asyncio.run(run(Journal(Path(place) / "journal.db"), jobs, seconds)))
        syncs.append(sync_ms(directory))
    medians = {name: statistics.median(one[name] for one in results) for name in results[0]}
    spread = {
        "facts_per_second_least": min(one["facts_per_second"] for one in results),
        "facts_per_second_most": max(one["facts_per_second"] for one in results),
    }
    return medians | spread | {"sync_ms": statistics.median(syncs), "sync_ms_most": max(syncs)}


def doubtful(row: dict[str, float]) -> bool:
    """
    Whether facts became durable faster than the disk syncs, which only a disturbed measurement can show.
    """
    return row["wait_ms_median"] < row["sync_ms"]


def show(report: dict[str, Any]) -> None:
    """
    Print the table.
    """
    print(f"medians of {report['runs']} runs, the disk's sync measured around each")
    print(
        f"{'jobs':>5} {'facts/s':>9} {'(least - most)':>19} {'CPU us/fact':>12} {'wait ms':>8} {'p99 ms':>7} {'sync ms':>8}"
    )
    for jobs, row in report["jobs"].items():
        spread = f"({row['facts_per_second_least']:,.0f} - {row['facts_per_second_most']:,.0f})"
        print(
            f"{jobs:>5} {row['facts_per_second']:>9,.0f} {spread:>19} {row['cpu_us_per_fact']:>12.1f}"
            f" {row['wait_ms_median']:>8.2f} {row['wait_ms_p99']:>7.2f} {row['sync_ms']:>8.2f}"
            + ("  doubtful: faster than the disk; measure again" if doubtful(row) else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 10, 100], help="jobs at once")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run")
    parser.add_argument("--directory", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    report: dict[str, Any] = {"runs": options.runs, "jobs": {}}
    for jobs in options.jobs:
        report["jobs"][jobs] = measure(options.directory, jobs, options.runs, options.seconds)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()

"""
How fast the journal in PostgreSQL makes facts durable, beside the one in SQLite in the same run.

    python benchmarks/postgres.py --database DSN [--jobs 10 100] [--runs 5] [--seconds 1.0] [--directory .] [--json]

Each job writes the four facts of its life one after the other, and waits until each is durable.
Every figure is the median of the runs, which take turns. The server should keep its data on the same disk as
`--directory`, with `fsync` on. What is written goes into a schema of its own, which is dropped in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import psycopg
from journal import run, sync_ms

# The names of a benchmark's own tables; nobody else's are touched.
from veo_async._journal.postgres import PostgresJournal
from veo_async._journal.sqlite import Journal

SCHEMA = "veo_benchmark"


async def shared(dsn: str, jobs: int, seconds: float) -> dict[str, float]:
    """
    Measure the journal in PostgreSQL.
    """
    journal = PostgresJournal(dsn, schema=SCHEMA)
    await journal.install()
    try:
        return await run(journal, jobs, seconds)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA {SCHEMA} CASCADE")


async def alone(directory: Path, jobs: int, seconds: float) -> dict[str, float]:
    """
    Measure the journal in SQLite.
    """
    with tempfile.TemporaryDirectory(dir=directory) as place:
        return await run(Journal(Path(place) / "journal.db"), jobs, seconds)


def measure(dsn: str, directory: Path, jobs: int, runs: int, seconds: float) -> dict[str, Any]:
    """
    The medians of both, and how the one does beside the other.
    """
    postgres, sqlite = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(runs):
        postgres.append(asyncio.run(shared(dsn, jobs, seconds)))
        sqlite.append(asyncio.run(alone(directory, jobs, seconds)))
    found: dict[str, Any] = {"postgres": _medians(postgres), "sqlite": _medians(sqlite)}
    share = found["postgres"]["facts_per_second"] / found["sqlite"]["facts_per_second"]
    return found | {"share": share, "sync_ms": sync_ms(directory)}


def _medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in results) for name in results[0]}


def show(report: dict[str, Any]) -> None:
    """
    Print the table.
    """
    print(f"medians of {report['runs']} runs")
    print(f"{'jobs':>5} {'store':>9} {'facts/s':>9} {'CPU us/fact':>12} {'wait ms':>8} {'p99 ms':>7}")
    for jobs, row in report["jobs"].items():
        for store in ("postgres", "sqlite"):
            it = row[store]
            print(
                f"{jobs:>5} {store:>9} {it['facts_per_second']:>9,.0f} {it['cpu_us_per_fact']:>12.1f}"
                f" {it['wait_ms_median']:>8.2f} {it['wait_ms_p99']:>7.2f}"
            )
        print(f"{jobs:>5} {'share':>9} {row['share']:>9.2f}, the disk syncs in {row['sync_ms']:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", default=os.environ.get("VEO_ASYNC_TEST_DATABASE"), help="its address")
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 100], help="jobs at once")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one run")
    parser.add_argument("--directory", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    if not options.database:
        parser.error("name a PostgreSQL with --database or VEO_ASYNC_TEST_DATABASE")
    report: dict[str, Any] = {"runs": options.runs, "jobs": {}}
    for jobs in options.jobs:
        report["jobs"][jobs] = measure(
            options.database, options.directory, jobs, options.runs, options.seconds
        )
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)


if __name__ == "__main__":
    main()

"""
This package, the vendor's client and a bare aiohttp loop, side by side against one and the same simulator.

    python benchmarks/side_by_side.py [--runs 5] [--quick] [--json] [--out DIRECTORY]

The simulator and each client have a process of their own, and each run has its own server.
Durations are log-normal with a mean of 90 s and a sigma of 0.4, divided by 15, and every polling interval is too.
Every run of a round meets tasks of the very same durations; the order of the clients changes from round to round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

from _draw import bars
from schedule import FASTER, Row, lives, show

HERE: Final = Path(__file__).parent
Found = dict[str, Any]

MOST_REQUESTS: Final = {1000: 1.45, 100: 1.75}  # a job
MOST_CPU: Final = 1.2  # of the floor's
MOST_OF_VENDOR: Final = 1 / 20
MOST_LATE: Final = 1.5  # of the floor's 95th percentile
MOST_BEYOND: Final = 2.0  # of the floor's
LEAST_SUBMITS: Final = 0.8  # of bare POSTs


@contextmanager
def server(**options: Any) -> Iterator[tuple[dict[str, str], Callable[[], Found]]]:
    """
    Start a server; gives its address, and a function that ends it and tells what it saw.
    """
    command = [sys.executable, str(HERE / "_server.py"), json.dumps(options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None

    def end() -> Found:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        found: Found = json.loads(process.stdout.readline())
        return found

    try:
        yield json.loads(process.stdout.readline()), end
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait()


def run(who: str, jobs: int, seed: int, *, endless: bool = False, profile: str | None = None) -> Found:
    """
    Run one client against a server of its own.
    """
    with server(seed=seed, jobs=jobs, endless=endless) as (at, end):
        command = [sys.executable, str(HERE / "_clients.py"), who, "--jobs", str(jobs)]
        command += ["--url", at["url"], "--token", at["token"]]
        command += ["--profile", profile] if profile else []
        found: Found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seen = end()
    requests = seen["requests"]
    assert endless or jobs == len(found["lags"]), f"{who} settled {len(found['lags'])} of {jobs} jobs"
    assert jobs == requests["submit"], f"{who} bought {requests['submit']} videos for {jobs} jobs"
    longest = max(lives(jobs, Random(seed)))
    return found | {
        "requests": sum(requests.values()),
        "beyond": found["wall"] - longest,
        "server": seen["CPU"],
    }


def rounds(
    clients: Sequence[str], jobs: int, runs: int, seed: int, *, endless: bool = False
) -> dict[str, list[Found]]:
    """
    Run each client so many times, first one first, then the other.
    """
    found: dict[str, list[Found]] = {who: [] for who in clients}
    for number in range(runs):
        for who in clients if number % 2 == 0 else clients[::-1]:
            print(f"{jobs} jobs, run {number + 1} of {runs}: {who}", file=sys.stderr, flush=True)
            found[who].append(run(who, jobs, seed + number, endless=endless))
    return found


def middle(found: Sequence[Found], value: Callable[[Found], float]) -> float:
    return statistics.median(map(value, found))


def late(found: Found) -> float:
    return float(statistics.quantiles(found["lags"], n=20, method="inclusive")[18])


def row(who: str, jobs: int, found: Sequence[Found]) -> Row:
    return {
        "jobs": jobs,
        "who": who,
        "requests per job": middle(found, lambda one: one["requests"] / jobs),
        "median lag": middle(found, lambda one: statistics.median(one["lags"])),
        "95 % lag": middle(found, late),
        "client CPU ms per job": middle(found, lambda one: 1e3 * one["CPU"] / jobs),
        "server CPU ms per job": middle(found, lambda one: 1e3 * one["server"] / jobs),
        "beyond longest": middle(found, lambda one: one["beyond"]),
    }


def judged(figure: str, jobs: int, value: float, most: float, *, least: bool = False) -> Row:
    met = value >= most if least else value <= most
    return {"figure": figure, "jobs": jobs, "found": value, "bound": most, "meets": met}


def judge(rows: Sequence[Row]) -> list[Row]:
    """
    Hold our rows against the floor's and the vendor's.
    """
    by = {(line["jobs"], line["who"]): line for line in rows}
    verdicts = []
    for (jobs, who), our in by.items():
        if who != "ours":
            continue
        base = by[jobs, "floor"]

        def ratio(name: str, base: Row = base, our: Row = our) -> float:
            return float(our[name]) / float(base[name])

        if jobs in MOST_REQUESTS:
            verdicts.append(judged("requests per job", jobs, our["requests per job"], MOST_REQUESTS[jobs]))
        if jobs == 1000:
            verdicts.append(judged("median lag / floor's", jobs, ratio("median lag"), 1.0))
            verdicts.append(judged("95 % lag / floor's", jobs, ratio("95 % lag"), MOST_LATE))
        if jobs >= 1000:
            verdicts.append(judged("client CPU / floor's", jobs, ratio("client CPU ms per job"), MOST_CPU))
        if warm := by.get((jobs, "vendor, warm")):
            share = our["client CPU ms per job"] / warm["client CPU ms per job"]
            verdicts.append(judged("client CPU / warm vendor's", jobs, share, MOST_OF_VENDOR))
        if jobs == 3000:
            verdicts.append(
                judged("wall beyond longest / floor's", jobs, ratio("beyond longest"), MOST_BEYOND)
            )
    return verdicts


def submits(jobs: int, runs: int, seed: int) -> tuple[list[Row], list[Row]]:
    """
    How many submits a second get their answer, while no task ends.
    """
    found = rounds(["our submits", "bare submits"], jobs, runs, seed, endless=True)
    rows: list[Row] = [
        {
            "who": who,
            "submits per second": middle(runs_of, lambda one: jobs / one["wall"]),
            "client CPU ms per submit": middle(runs_of, lambda one: 1e3 * one["CPU"] / jobs),
        }
        for who, runs_of in found.items()
    ]
    share = rows[0]["submits per second"] / rows[1]["submits per second"]
    return rows, [judged("submits per second / bare POSTs", jobs, share, LEAST_SUBMITS, least=True)]


PLAN: Final = {
    100: ("ours", "floor"),
    1000: ("ours", "floor", "vendor, warm", "vendor, cold"),
    3000: ("ours", "floor"),
}
SUBMITS: Final = 3000


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, nargs="*", choices=PLAN, help="only these numbers of jobs")
    parser.add_argument("--without-vendor", action="store_true", help="leave the slowest out")
    parser.add_argument(
        "--quick", action="store_true", help="one run of a hundred jobs, to see that it works"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, help="draw the figures into this directory")
    chosen = parser.parse_args(arguments)
    runs, numbers, most = chosen.runs, chosen.jobs or [*PLAN], SUBMITS
    if chosen.quick:
        runs, numbers, most = 1, [100], 100
    rows = []
    for jobs in numbers:
        clients = [who for who in PLAN[jobs] if not (chosen.without_vendor and who.startswith("vendor"))]
        found = rounds(clients, jobs, runs, chosen.seed)
        rows += [row(who, jobs, found[who]) for who in clients]
    sent, verdicts = submits(most, runs, chosen.seed)
    tables = {
        f"Side by side, {FASTER} times faster than life (seconds, medians of {runs})": rows,
        f"Submits alone, {most} of them": sent,
        "The figures": judge(rows) + verdicts,
    }
    if chosen.out:
        draw(rows, chosen.out)
    if chosen.json:
        print(json.dumps(tables, indent=2))
        return
    for title, lines in tables.items():
        show(title, lines)


def draw(rows: Sequence[Row], directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name, unit in (
        ("requests per job", "requests"),
        ("median lag", "seconds"),
        ("95 % lag", "seconds"),
        ("client CPU ms per job", "milliseconds"),
    ):
        values = {f"{line['jobs']} jobs, {line['who']}": float(line[name]) for line in rows}
        file = directory / f"{name.replace(' %', '').replace(' ', '-')}.svg"
        file.write_text(bars(name, unit, values), encoding="utf-8")


if __name__ == "__main__":
    main()

"""
This package, the vendor's client and a bare aiohttp loop, side by side against one and the same simulator.

    python benchmarks/side_by_side.py [--runs 5] [--quick] [--json] [--out DIRECTORY]

The simulator and each client have a process of their own, and each run has its own server.
Durations are log-normal with a mean of 90 s and a sigma of 0.4, divided by 15, and every polling interval is too.
Every run of a round meets tasks of the very same durations; the order of the clients changes from round to round.
Exit status 1 where a figure is missed.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from _report import Row, judged, options, report
from _server import Found, server
from _workload import FASTER, lives

CLIENTS: Final = Path(__file__).parent / "_clients.py"

MOST_REQUESTS: Final = {100: 1.75, 1000: 1.45}  # a job
MOST_CPU: Final = 1.2  # of the floor's
MOST_OF_VENDOR: Final = 1 / 20
MOST_LATE: Final = 1.5  # of the floor's 95th percentile
MOST_BEYOND: Final = 2.0  # of the floor's
LEAST_SUBMITS: Final = 0.8  # of bare POSTs

PLAN: Final[Mapping[int, Sequence[str]]] = {
    100: ("ours", "floor"),
    1000: ("ours", "floor", "vendor, warm", "vendor, cold"),
    3000: ("ours", "floor"),
}
SUBMITS: Final = 3000


def run(
    who: str, jobs: int, seed: int, *, endless: bool = False, profile: str | None = None, **options: Any
) -> Found:
    """
    Run one client against a server of its own.

    Args:
        profile: a file that the client writes a profile to.
        options: of the server.
    """
    with server(seed=seed, jobs=jobs, endless=endless, **options) as (at, end):
        command = [sys.executable, str(CLIENTS), who, "--jobs", str(jobs)]
        command += ["--url", at["url"], "--token", at["token"]]
        command += ["--profile", profile] if profile else []
        found: Found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seen = end()
    requests = seen["requests"]
    assert endless or jobs == len(found["lags"]), f"{who} settled {len(found['lags'])} of {jobs} jobs"
    assert jobs == requests["submit"], f"{who} bought {requests['submit']} videos for {jobs} jobs"
    return found | {
        "requests": sum(requests.values()),
        "beyond": found["wall"] - max(lives(jobs, Random(seed))),
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
        "who": who,
        "jobs": jobs,
        "requests per job": middle(found, lambda one: one["requests"] / jobs),
        "median lag": middle(found, lambda one: statistics.median(one["lags"])),
        "95 % lag": middle(found, late),
        "client CPU ms per job": middle(found, lambda one: 1e3 * one["CPU"] / jobs),
        "server CPU ms per job": middle(found, lambda one: 1e3 * one["server"] / jobs),
        "beyond longest": middle(found, lambda one: one["beyond"]),
    }


def judge(rows: Sequence[Row]) -> list[Row]:
    """
    Hold our rows against the floor's and the vendor's.
    """
    by = {(line["jobs"], line["who"]): line for line in rows}
    return [
        verdict
        for (jobs, who), our in by.items()
        if who == "ours"
        for verdict in judge_one(jobs, our, by[jobs, "floor"], by.get((jobs, "vendor, warm")))
    ]


def judge_one(jobs: int, our: Row, base: Row, warm: Row | None) -> list[Row]:
    verdicts = []

    def judge(name: str, most: float, *, of: Row | None = None, whose: str = "") -> None:
        value = our[name] / (of[name] if of else 1.0)
        verdicts.append(judged(f"{name}{whose}, {jobs:,} jobs", value, most=most))

    if jobs in MOST_REQUESTS:
        judge("requests per job", MOST_REQUESTS[jobs])
    if jobs == 1000:
        judge("median lag", 1.0, of=base, whose=" / floor's")
        judge("95 % lag", MOST_LATE, of=base, whose=" / floor's")
    if jobs >= 1000:
        judge("client CPU ms per job", MOST_CPU, of=base, whose=" / floor's")
    if warm is not None:
        judge("client CPU ms per job", MOST_OF_VENDOR, of=warm, whose=" / warm vendor's")
    if jobs == 3000:
        judge("beyond longest", MOST_BEYOND, of=base, whose=" / floor's")
    return verdicts


def submits(jobs: int, runs: int, seed: int) -> tuple[list[Row], Row]:
    """
    How many submits a second get their answer, while no task ends.
    """
    found = rounds(["our submits", "bare submits"], jobs, runs, seed, endless=True)
    rows: list[Row] = [
        {
            "who": who,
            "jobs": jobs,
            "submits per second": middle(runs_of, lambda one: jobs / one["wall"]),
            "client CPU ms per submit": middle(runs_of, lambda one: 1e3 * one["CPU"] / jobs),
        }
        for who, runs_of in found.items()
    ]
    share = rows[0]["submits per second"] / rows[1]["submits per second"]
    return rows, judged("submits per second / bare POSTs", share, least=LEAST_SUBMITS)


def drawn(rows: Sequence[Row]) -> dict[str, tuple[str, dict[str, float]]]:
    units = {
        "requests per job": "requests",
        "median lag": "seconds",
        "95 % lag": "seconds",
        "client CPU ms per job": "milliseconds",
    }
    return {
        name: (unit, {f"{line['jobs']} jobs, {line['who']}": float(line[name]) for line in rows})
        for name, unit in units.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, quick="one run of a hundred jobs, to see that it works")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--jobs", type=int, nargs="*", choices=PLAN, help="only these numbers of jobs")
    parser.add_argument("--without-vendor", action="store_true", help="leave the slowest out")
    chosen = parser.parse_args(arguments)
    runs, numbers, most = chosen.runs, chosen.jobs or [*PLAN], SUBMITS
    if chosen.quick:
        runs, numbers, most = 1, [100], 100
    rows = []
    for jobs in numbers:
        clients = [who for who in PLAN[jobs] if not (chosen.without_vendor and who.startswith("vendor"))]
        found = rounds(clients, jobs, runs, chosen.seed)
        rows += [row(who, jobs, found[who]) for who in clients]
    sent, verdict = submits(most, runs, chosen.seed)
    tables = {
        f"Side by side, {FASTER} times faster than life (seconds, medians of {runs})": rows,
        "Submits alone": sent,
    }
    return report(chosen, tables, [*judge(rows), verdict], drawn(rows))


if __name__ == "__main__":
    sys.exit(main())

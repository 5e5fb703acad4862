"""
How soon a result is there with callbacks, and at how many requests, beside polling.

    python benchmarks/callbacks.py [--jobs 1000] [--runs 3] [--json]

The simulator runs in a process of its own, 15 times faster than life, and delivers callbacks over loopback.
A request is a submit, or a question about tasks.
The lag of a job goes from the end of its task, by the server's record, to the moment at which `await job` returns;
both processes read the same clock.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, TypeAlias

from attrs import frozen

from veo_async import Job, Limits, PollPolicy, TextToVideo, VeoSession
from veo_async.receiver import CallbackReceiver
from veo_async.simulator import Faults, Settings, Simulator

Row: TypeAlias = dict[str, object]

FASTER: Final = 15.0  # times than life
SUBMITS: Final = 200.0  # a second, so that tasks end over a while, as they would
MEAN, SIGMA = 90.0, 0.4  # of the log-normal durations, in seconds of life


@frozen(kw_only=True)
class Case:
    """
    One way to learn that a task has ended.

    Attributes:
        name: of the row.
        window: of the receiver, in seconds; None for no receiver.
        lost: the share of callbacks that never arrive.
        most_lag: the largest median that will do, in seconds.
        most_requests: likewise of requests per job.
    """

    name: str
    window: float | None = None
    lost: float = 0.0
    most_lag: float | None = None
    most_requests: float | None = None


POLLING: Final = "polling"
HALF_LOST: Final = "half of the callbacks lost"
CASES: Final = (
    Case(name=POLLING),
    Case(name="callbacks, 50 ms", window=0.05, most_lag=0.060, most_requests=1.35),
    Case(name="callbacks, no window", window=0.0, most_lag=0.015),
    Case(name=HALF_LOST, window=0.05, lost=0.5),
)


# --- the server, in a process of its own -----------------------------------------------------------------


async def serve(seed: int, lost: float) -> None:
    """
    Tell the address on stdout, and serve until stdin ends.
    """
    faults = Faults(seed=seed)
    if lost:
        faults.add("lost", on="callback", share=lost)
    async with Simulator(
        Settings(seed=seed, speed=FASTER, mean=MEAN, sigma=SIGMA), faults=faults
    ) as simulator:
        print(json.dumps([simulator.url, simulator.token]), flush=True)
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def server(seed: int, lost: float) -> AsyncIterator[tuple[str, str]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "--serve",
        "--seed",
        str(seed),
        "--lost",
        str(lost),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url, token = json.loads(await process.stdout.readline())
        yield url, token
    finally:
        process.stdin.close()
        await process.wait()


# --- the client ------------------------------------------------------------------------------------------


async def lag_of(job: Job) -> float:
    result = await job
    now = time.time()
    return now - float(result.raw["finished_at"])


async def run(case: Case, jobs: int, seed: int) -> tuple[float, list[float]]:
    """
    Return the requests per job, and the lags in seconds.
    """
    polling, limits = PollPolicy().scaled(1 / FASTER), Limits(submits_per_second=SUBMITS)
    async with AsyncExitStack() as stack:
        url, token = await stack.enter_async_context(server(seed, case.lost))
        veo = VeoSession(token, base_url=url, polling=polling, limits=limits)
        await stack.enter_async_context(veo)
        if case.window is not None:
            receiver = CallbackReceiver(veo, public_url=None, window=case.window)
            await receiver.start(port=0)
            stack.push_async_callback(receiver.stop)
        wishes = [TextToVideo(f"whale {number}") for number in range(jobs)]
        lags = await asyncio.gather(*map(lag_of, veo.submit_many(wishes)))
        return sum(veo.stats.requests.values()) / jobs, lags


async def measure(case: Case, jobs: int, seed: int, runs: int) -> Row:
    found = [await run(case, jobs, seed + number) for number in range(runs)]
    cuts = [statistics.quantiles(lags, n=100, method="inclusive") for _, lags in found]
    middle, late, last = (statistics.fmean(cut[at] for cut in cuts) for at in (49, 94, 98))
    requests = statistics.fmean(spent for spent, _ in found)
    row: Row = {"who": case.name, "jobs": jobs, "requests per job": requests}
    row |= {
        "median lag": middle,
        "95 % lag": late,
        "99 % lag": last,
        "mean lag": statistics.fmean(lag for _, lags in found for lag in lags),
    }
    meets = [middle <= case.most_lag] if case.most_lag is not None else []
    meets += [requests <= case.most_requests] if case.most_requests is not None else []
    return row | {"meets": all(meets) if meets else ""}


def compared(rows: Sequence[Row]) -> list[Row]:
    """
    Hold the row of lost callbacks against polling alone.
    """
    [polling] = [row for row in rows if row["who"] == POLLING]
    columns = ("median lag", "95 % lag", "99 % lag", "mean lag")
    for row in rows:
        if row["who"] == HALF_LOST:
            row["meets"] = all(row[column] <= polling[column] for column in columns)  # type: ignore[operator]
    return list(rows)


# --- printing --------------------------------------------------------------------------------------------


def cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "MISSED"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def show(title: str, rows: Sequence[Row]) -> None:
    table = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    print(f"\n{title}\n")
    for line in table:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))


async def main(arguments: argparse.Namespace) -> None:
    rows = [await measure(case, arguments.jobs, arguments.seed, arguments.runs) for case in CASES]
    rows = compared(rows)
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        show(f"Callbacks beside polling, {FASTER:g} times faster than life: requests and lag (seconds)", rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--lost", type=float, default=0.0, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    asyncio.run(serve(chosen.seed, chosen.lost) if chosen.serve else main(chosen))

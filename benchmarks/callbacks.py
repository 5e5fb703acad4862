"""
How soon a result is there with callbacks, and at how many requests, beside polling.

    python benchmarks/callbacks.py [--jobs 1000] [--runs 5] [--quick] [--json] [--out DIRECTORY]

The simulator runs in a process of its own, 15 times faster than life, and delivers callbacks over loopback.
A request is a submit, or a question about tasks.
The lag of a job goes from the end of its task, by the server's record, to the moment at which `await job` returns;
both processes read the same clock. The ways take turns, and every way meets tasks of the very same durations.
Exit status 1 where a figure is missed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from _clients import lag_of
from _report import Row, judged, options_of_runs, report
from _server import Found, server
from _workload import BATCH, FASTER, prompts
from attrs import frozen

from veo_async import Job, Limits, PollPolicy, TextToVideo, VeoSession
from veo_async.receiver import CallbackReceiver

SUBMITS: Final = 200.0  # a second, so that tasks end over a while, as they would
MOST_LAG: Final = 0.060  # seconds, the median
MOST_REQUESTS: Final = 1.35  # a job
MOST_LAG_AT_ONCE: Final = 0.015  # seconds, the median without a window
LAGS: Final = ("median lag", "95 % lag", "99 % lag", "mean lag")


@frozen
class Way:
    """
    One way to learn that a task has ended.

    Attributes:
        window: of the receiver, in seconds; None for no receiver.
        lost: the share of callbacks that never arrive.
    """

    window: float | None = None
    lost: float = 0.0


POLLING, CALLBACKS, AT_ONCE, HALF = "polling", "callbacks, 50 ms", "callbacks, no window", "half of them lost"
WAYS: Final[Mapping[str, Way]] = {
    POLLING: Way(),
    CALLBACKS: Way(window=0.05),
    AT_ONCE: Way(window=0.0),
    HALF: Way(window=0.05, lost=0.5),
}


# --- one run ---------------------------------------------------------------------------------------------


async def awaited(job: Job) -> float:
    result = await job
    return lag_of(result.raw)


async def buy(way: Way, jobs: int, url: str, token: str) -> list[float]:
    """
    Buy a batch, and return the lags in seconds.
    """
    polling, limits = PollPolicy(batch_size=BATCH).scaled(1 / FASTER), Limits(submits_per_second=SUBMITS)
    async with AsyncExitStack() as stack:
        veo = VeoSession(token, base_url=url, polling=polling, limits=limits)
        await stack.enter_async_context(veo)
        if way.window is not None:
            receiver = CallbackReceiver(veo, public_url=None, window=way.window)
            await receiver.start(port=0)
            stack.push_async_callback(receiver.stop)
        return await asyncio.gather(*map(awaited, veo.submit_many(map(TextToVideo, prompts(jobs)))))


def run(name: str, jobs: int, seed: int, **options: Any) -> Found:
    """
    Run one way against a server of its own, with these options besides.
    """
    with server(seed=seed, jobs=jobs, lost=WAYS[name].lost, **options) as (at, end):
        lags = asyncio.run(buy(WAYS[name], jobs, at["url"], at["token"]))
        requests = end()["requests"]
    assert jobs == len(lags) == requests["submit"], f"{name}: {requests['submit']} submits for {jobs} jobs"
    return {"lags": lags, "requests": sum(requests.values()) / jobs}


# --- what came of it -------------------------------------------------------------------------------------


def lags_of(found: Found) -> dict[str, float]:
    cuts = statistics.quantiles(found["lags"], n=100, method="inclusive")
    return dict(zip(LAGS, (cuts[49], cuts[94], cuts[98], statistics.fmean(found["lags"])), strict=True))


def row(name: str, jobs: int, found: Sequence[Found]) -> Row:
    """
    The medians of the runs.
    """
    lags = [lags_of(one) for one in found]
    requests = statistics.median(one["requests"] for one in found)
    medians = {column: statistics.median(one[column] for one in lags) for column in LAGS}
    return {"way": name, "jobs": jobs, "requests per job": requests} | medians


def wanted(rows: Mapping[str, Row]) -> list[Row]:
    """
    Hold what was found against what was wanted.
    """
    verdicts = [
        judged(f"requests per job, {CALLBACKS}", rows[CALLBACKS]["requests per job"], most=MOST_REQUESTS),
        judged(f"median lag, {CALLBACKS}", rows[CALLBACKS]["median lag"], most=MOST_LAG),
        judged(f"median lag, {AT_ONCE}", rows[AT_ONCE]["median lag"], most=MOST_LAG_AT_ONCE),
    ]
    for column in LAGS:
        share = rows[HALF][column] / rows[POLLING][column]
        verdicts.append(judged(f"{column}, {HALF} / polling's", share, most=1.0))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options_of_runs(__doc__, arguments)
    jobs, runs = chosen.jobs, chosen.runs
    found: dict[str, list[Found]] = {name: [] for name in WAYS}
    for number in range(runs):
        for name in WAYS:
            print(f"run {number + 1} of {runs}: {name}", file=sys.stderr, flush=True)
            found[name].append(run(name, jobs, chosen.seed + number))
    rows = {name: row(name, jobs, runs_of) for name, runs_of in found.items()}
    title = f"Callbacks beside polling, {FASTER} times faster than life (lags in seconds, medians of {runs})"
    drawn = {
        f"callbacks {column}": ("seconds", {name: float(line[column]) for name, line in rows.items()})
        for column in ("median lag", "95 % lag")
    }
    return report(chosen, {title: list(rows.values())}, wanted(rows), drawn)


if __name__ == "__main__":
    sys.exit(main())

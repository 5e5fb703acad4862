"""
What a server does to a thousand jobs that answers 429 to every poll for half a minute.

    python benchmarks/throttled.py [--jobs 1000] [--runs 3] [--quick] [--json] [--out DIRECTORY]

In virtual time first, where everything repeats exactly, then over sockets with the simulator in a process of its
own; both 15 times faster than life, so that the half minute takes two seconds. Each is held against the same jobs
on a server that never objects.
*Crowded*: refused polls that came sooner after another than the shortest pause lasts, save for those that were out
when the first refusal came. One probe per pause makes none.
*Caught up*: how many polling intervals after the end of the refusals everything has been noticed that had ended
by then.
*Afterwards*: the lags of tasks that end more than one interval after that end.
Exit status 1 where a figure is missed.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from _report import Row, judged, options_of_runs, report
from _server import Throttle, refusing, server, settings
from _workload import BATCH, FASTER, prompts
from attrs import frozen

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.virtual import World, run  # noqa: E402
from veo_async import Limits, PollPolicy, RetryPolicy, TextToVideo, VeoSession  # noqa: E402

AFTER: Final = 30.0 / FASTER  # seconds from the first poll to the refusals: many tasks are under way
LENGTH: Final = 30.0 / FASTER  # seconds
POLLING: Final = PollPolicy(batch_size=BATCH).scaled(1 / FASTER)
RETRY: Final = RetryPolicy().scaled(1 / FASTER)
SHORTEST: Final = RETRY.first / 2  # seconds, a pause with all its jitter
PRECISION: Final = 0.001  # seconds, of the times in records
LIMITS: Final = Limits(submits_per_second=200.0)  # so that tasks end over a while, as they would
MOST_BEHIND: Final = 1.0  # intervals until all has been noticed
MOST_LAG: Final = 1.1  # of the lag on a server that never objects


@frozen
class Ended:
    """
    One job: when its task ended, and when that was noticed, in Unix seconds.
    """

    at: float
    noticed_at: float


@frozen
class Found:
    """
    One run: what ended, which polls were refused, and from when to when; all in Unix seconds.
    """

    ends: Sequence[Ended]
    refused: Sequence[float]
    since: float
    polls: int

    @property
    def until(self) -> float:
        return self.since + LENGTH

    @property
    def crowded(self) -> int:
        later = [at for at in self.refused if at >= self.refused[0] + SHORTEST]
        return sum(after - before < SHORTEST for before, after in pairwise(later))

    @property
    def caught_up(self) -> float:
        """
        Intervals after the refusals until all has been noticed that had ended.
        """
        noticed_at = max(end.noticed_at for end in self.ends if end.at <= self.until)
        return max(0.0, noticed_at - self.until) / POLLING.interval

    def afterwards(self) -> list[float]:
        since = self.until + POLLING.interval
        return [end.noticed_at - end.at for end in self.ends if end.at > since]


# --- one run ---------------------------------------------------------------------------------------------


async def buy(veo: VeoSession, jobs: int, clock: Callable[[], float]) -> list[Ended]:
    """
    Buy a batch; every job must come to the video of its own prompt, after that video's end.
    """
    ends = []
    async with veo:
        submitted = veo.submit_many(map(TextToVideo, prompts(jobs)))
        async for job in veo.as_completed(submitted):
            raw = job.result().raw
            ends.append(Ended(raw["finished_at"], clock()))
            assert isinstance(job.request, TextToVideo)
            assert job.request.prompt == raw["request"]["prompt"]
            assert ends[-1].noticed_at > ends[-1].at - PRECISION
    assert jobs == len(ends)
    return ends


async def virtually(jobs: int, seed: int, length: float) -> Found:
    world = World(settings(seed, jobs))
    throttle = Throttle(AFTER, length, world.core.clock)
    world.core.faults = refusing(throttle, seed)
    veo = world.session(polling=POLLING, retry=RETRY, limits=LIMITS)
    ends = await buy(veo, jobs, world.core.clock)
    assert throttle.starts_at is not None
    return Found(ends, throttle.refused, throttle.starts_at, world.core.requests["retrieve_batch"])


def over_sockets(jobs: int, seed: int, length: float, **options: Any) -> Found:
    with server(seed=seed, jobs=jobs, throttled=(AFTER, length), **options) as (at, end):
        veo = VeoSession(at["token"], base_url=at["url"], polling=POLLING, retry=RETRY, limits=LIMITS)
        ends = asyncio.run(buy(veo, jobs, time.time))
        seen = end()
    assert jobs == seen["requests"]["submit"]
    return Found(ends, seen["refused"], seen["throttled from"], seen["requests"]["retrieve_batch"])


WAYS: Final[Mapping[str, Callable[[int, int, float], Found]]] = {
    "virtual time": lambda jobs, seed, length: run(virtually(jobs, seed, length)),
    "sockets": over_sockets,
}


# --- what came of it -------------------------------------------------------------------------------------


def row(way: str, server: str, found: Sequence[Found]) -> Row:
    """
    The medians of the runs, and the most of what is counted.
    """
    lags = [found.afterwards() for found in found]
    cuts = [statistics.quantiles(one, n=20, method="inclusive") for one in lags]
    return {
        "way": way,
        "server": server,
        "jobs": len(found[0].ends),
        "polls": statistics.median(one.polls for one in found),
        "refused": max(len(one.refused) for one in found),
        "crowded": max(one.crowded for one in found) if found[0].refused else 0,
        "caught up": statistics.median(one.caught_up for one in found),
        "ended afterwards": statistics.median(map(len, lags)),
        "median lag": statistics.median(cut[9] for cut in cuts),
        "95 % lag": statistics.median(cut[18] for cut in cuts),
    }


def judge(way: str, calm: Row, throttled: Row) -> list[Row]:
    """
    Hold a throttled batch against one that was not.
    """
    verdicts = [
        judged(f"refused polls that no pause came before, {way}", throttled["crowded"], most=0),
        judged(f"intervals until all is noticed, {way}", throttled["caught up"], most=MOST_BEHIND),
    ]
    for column in ("median lag", "95 % lag"):
        share = throttled[column] / calm[column]
        verdicts.append(judged(f"{column} afterwards / unthrottled, {way}", share, most=MOST_LAG))
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options_of_runs(__doc__, arguments)
    jobs, runs = chosen.jobs, chosen.runs
    rows, verdicts = [], []
    for way, play in WAYS.items():
        found = {
            server: [play(jobs, chosen.seed + number, length) for number in range(runs)]
            for server, length in {"calm": 0.0, "throttled": LENGTH}.items()
        }
        pair = [row(way, server, runs_of) for server, runs_of in found.items()]
        rows += pair
        verdicts += judge(way, *pair)
    title = f"429 on every poll for {LENGTH:g} s, {FASTER} times faster than life (lags in seconds)"
    return report(chosen, {title: rows}, verdicts, {})


if __name__ == "__main__":
    sys.exit(main())

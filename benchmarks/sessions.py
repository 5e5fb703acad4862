"""
Requests per job where several sessions share an account and each polls its own tasks, in virtual time.

    python benchmarks/sessions.py

So many tasks are in flight in all, dealt among the sessions; when a session's have ended, it submits as many again.
Counts repeat exactly for a seed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from _report import Row, options, report
from _workload import MEAN, SIGMA

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.virtual.loop import run  # noqa: E402
from tests.virtual.world import World  # noqa: E402
from veo_async import TextToVideo  # noqa: E402
from veo_async.simulator import Settings  # noqa: E402

IN_FLIGHT: Final = (16, 256, 1216)
SESSIONS: Final = (1, 4, 16)
ROUNDS: Final = 4


async def requests_per_job(tasks: int, sessions: int, rounds: int, seed: int) -> float:
    """
    Make so many tasks at once, so many times, and count all requests.
    """
    world = World(Settings(seed=seed, mean=MEAN, sigma=SIGMA))

    async def work() -> None:
        async with world.session() as veo:
            for _ in range(rounds):
                jobs = veo.submit_many(TextToVideo("a whale") for _ in range(tasks // sessions))
                async for job in veo.as_completed(jobs):
                    job.result()

    await asyncio.gather(*(work() for _ in range(sessions)))
    return sum(world.core.requests.values()) / world.core.accepted


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(__doc__, quick="the smallest number of tasks, once").parse_args(arguments)
    rounds = 1 if chosen.quick else ROUNDS
    table: list[Row] = [
        {"tasks in flight": tasks}
        | {
            f"{sessions} sessions": run(requests_per_job(tasks, sessions, rounds, chosen.seed))
            for sessions in SESSIONS
        }
        for tasks in (IN_FLIGHT[:1] if chosen.quick else IN_FLIGHT)
    ]
    return report(chosen, {"requests per job": table}, [], {})


if __name__ == "__main__":
    sys.exit(main())

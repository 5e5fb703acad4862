"""
The simulator in a process of its own: it tells its address, serves until its input ends, and tells what it saw.

    python benchmarks/_server.py '{"seed": 1, "jobs": 1000}'

Each prompt ends in a number, and the number decides how long its task takes: every client meets the same tasks.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
from collections.abc import Mapping
from random import Random
from typing import Any, Final

from schedule import lives

from veo_async.simulator import Settings, Simulator

ENDLESS: Final = 1e6  # seconds


def settings(seed: int, *, jobs: int, endless: bool = False) -> Settings:
    """
    Make the settings: log-normal durations, faster than life, or tasks that outlast the run.
    """
    durations = [ENDLESS] * jobs if endless else lives(jobs, Random(seed))

    def duration(body: Mapping[str, Any]) -> float:
        return durations[int(body["prompt"].rsplit(" ", 1)[-1])]

    return Settings(seed=seed, duration=duration)


async def serve(options: dict[str, Any]) -> dict[str, Any]:
    """
    Serve until standard input ends.
    """
    async with Simulator(settings(**options)) as simulator:
        print(json.dumps({"url": simulator.url, "token": simulator.token}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {"requests": dict(simulator.core.requests), "CPU": usage.ru_utime + usage.ru_stime}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(serve(json.loads(sys.argv[1])))))

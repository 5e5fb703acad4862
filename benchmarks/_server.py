"""
The simulator in a process of its own: it tells its address, serves until its input ends, and tells what it saw.

    python benchmarks/_server.py '{"seed": 1, "jobs": 1000}'

Each prompt ends in a number, and the number decides how long its task takes: every client meets the same tasks.
"""

from __future__ import annotations

import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from random import Random
from typing import Any, Final

from _workload import FASTER, lives

from veo_async.simulator import Faults, Settings, Simulator

__all__ = ["Found", "Throttle", "refusing", "server", "settings"]

ENDLESS: Final = 1e6  # seconds
Found = dict[str, Any]


# --- for those who want a server -------------------------------------------------------------------------


@contextmanager
def server(**options: Any) -> Iterator[tuple[dict[str, str], Callable[[], Found]]]:
    """
    Start a server; gives its address, and a function that ends it and tells what it saw.
    """
    command = [sys.executable, __file__, json.dumps(options)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    asked, told = process.stdin, process.stdout

    def end() -> Found:
        asked.close()
        found: Found = json.loads(told.readline())
        return found

    try:
        yield json.loads(told.readline()), end
    finally:
        asked.close()
        told.close()
        process.terminate()
        process.wait()


# --- the process -----------------------------------------------------------------------------------------


def settings(seed: int, jobs: int, *, endless: bool = False, faster: float = FASTER) -> Settings:
    """
    Make the settings: log-normal durations, faster than life, or tasks that outlast the run.
    """
    durations = [ENDLESS] * jobs if endless else lives(jobs, Random(seed), faster=faster)

    def duration(body: Mapping[str, Any]) -> float:
        return durations[int(body["prompt"].rsplit(" ", 1)[-1])]

    return Settings(seed=seed, duration=duration)


class Throttle:
    """
    Refuses every poll for a while, and remembers when it did.
    """

    def __init__(self, after: float, length: float, clock: Callable[[], float] = time.time) -> None:
        self.after, self.length, self.clock = after, length, clock  # seconds, counted from the first poll
        self.starts_at: float | None = None
        self.refused: list[float] = []

    def __call__(self, _: Mapping[str, Any]) -> bool:
        now = self.clock()
        self.starts_at = self.starts_at or now + self.after
        if not self.starts_at <= now < self.starts_at + self.length:
            return False
        self.refused.append(now)
        return True


def refusing(throttle: Throttle, seed: int) -> Faults:
    return Faults(seed=seed).add(
        "status_before", status=429, on=("retrieve", "retrieve_batch"), match=throttle
    )


async def serve(
    seed: int,
    jobs: int,
    *,
    endless: bool = False,
    faster: float = FASTER,
    lost: float = 0.0,
    throttled: tuple[float, float] = (0.0, 0.0),
) -> Found:
    """
    Serve until standard input ends.

    Args:
        endless: whether the tasks outlast the run.
        faster: how many times faster than life they are.
        lost: the share of callbacks that are lost.
        throttled: how long after the first poll all of them are refused, and for how long, in seconds.
    """
    throttle = Throttle(*throttled)
    faults = refusing(throttle, seed).add("lost", on="callback", share=lost)
    async with Simulator(settings(seed, jobs, endless=endless, faster=faster), faults=faults) as simulator:
        print(json.dumps({"url": simulator.url, "token": simulator.token}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "requests": dict(simulator.core.requests),
            "CPU": usage.ru_utime + usage.ru_stime,
            "throttled from": throttle.starts_at,
            "refused": throttle.refused,
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(serve(**json.loads(sys.argv[1])))))

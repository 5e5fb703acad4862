"""
Workers that are killed with -9 again and again, while what they are to make is enqueued.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from math import inf
from random import Random

from attrs import define, field, frozen

from tests.postgres.server import Server
from tests.worker.stage import Stage, requests
from veo_async.worker import enqueue_many, wait_for

__all__ = ["Found", "Plan", "deaths"]


@frozen(kw_only=True)
class Plan:
    """
    What befalls the workers.

    Attributes:
        every: seconds between two deaths; None for none.
        deaths: how many there are at most, since on a busy machine they come faster than workers start.
        restart: the database that is killed and is down for 2 s, each time after so many deaths.
    """

    jobs: int
    workers: int = 4
    lease: float = 1.0
    every: float | None = 2.0
    deaths: float = inf
    seed: int = 0
    restart: Server | None = None
    restarts: int = 2


@define
class Found:
    """
    What came of it.
    """

    seconds: float = 0.0
    kills: int = 0
    restarts: int = 0
    bought: int = 0
    delivered: dict[str, str] = field(factory=dict)

    @property
    def lost(self) -> int:
        """
        How many keys have no video of their own.
        """
        return self.bought - len(set(self.delivered.values()))


async def deaths(stage: Stage, plan: Plan) -> Found:
    """
    Enqueue, kill and start again until all keys have ended.
    """
    found, began_at = Found(), time.monotonic()
    workers = [await stage.child(plan.lease) for _ in range(plan.workers)]
    await enqueue_many(requests(plan.jobs), database=stage.dsn)
    waiting = [asyncio.create_task(wait_for(key, database=stage.dsn)) for key, _ in requests(plan.jobs)]
    killing = asyncio.create_task(_kill(stage, plan, workers, found))
    results = await asyncio.gather(*waiting)
    killing.cancel()
    with suppress(asyncio.CancelledError):
        await killing
    found.seconds = time.monotonic() - began_at
    await stage.delivered()
    found.bought = stage.simulator.core.accepted
    found.delivered = {
        key: result.task_id for (key, _), result in zip(requests(plan.jobs), results, strict=True)
    }
    return found


async def _kill(stage: Stage, plan: Plan, workers: list[asyncio.subprocess.Process], found: Found) -> None:
    rng = Random(plan.seed)
    while plan.every is not None and found.kills < plan.deaths:
        await asyncio.sleep(plan.every)
        victim = rng.choice(workers)
        if victim.returncode is None:
            victim.kill()
            found.kills += 1
        await victim.wait()
        if plan.restart is not None and found.restarts < plan.restarts:
            await asyncio.to_thread(plan.restart.stop)
            await asyncio.sleep(2.0)
            await asyncio.to_thread(plan.restart.start)
            found.restarts += 1
        for place, worker in enumerate(workers):
            if worker.returncode is not None:  # one that was just starting ends, too, if its database is away
                workers[place] = await stage.child(plan.lease)

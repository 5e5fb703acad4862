"""
Workers that die, freeze and are cut off: each key is bought once, and each gets its video.

The server's own count of accepted tasks is the judge; processes are killed with -9.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.killed.workers import Plan, deaths
from tests.postgres.server import Postgres, Server
from tests.worker.stage import HANGING, staged
from veo_async.simulator import Faults


def faults() -> Faults:
    """
    Every fifth answer to a submit is lost, and some polls fail.
    """
    return (
        Faults(seed=1)
        .add("drop_after", on="submit", share=0.2)
        .add("status_before", on="retrieve_batch", share=0.1)
    )


@pytest.mark.parametrize("restarted", [False, True], ids=["", "and the database"])
async def test_workers_that_are_killed_lose_nothing(
    database: str, postgres: Postgres, restarted: bool
) -> None:
    """
    Four workers make 300 videos, with identical prompts in pairs; one after the other is killed and started again.
    """
    if restarted and not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    restart = postgres if restarted and isinstance(postgres, Server) else None
    async with staged(database, faults()) as stage, asyncio.timeout(4 * HANGING):
        found = await deaths(stage, Plan(jobs=300, restart=restart, restarts=1))
        stage.check(found.delivered)
    assert found.kills > 0
    assert found.restarts == restarted

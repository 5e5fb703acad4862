"""
Workers that die, freeze and are cut off: each key is bought once, and each gets its video.

The server's own count of accepted tasks is the judge; processes are killed with -9.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from tests.killed.workers import Plan, deaths
from tests.postgres.server import Postgres, Server
from tests.worker.stage import HANGING, requests, staged
from veo_async.simulator import Faults
from veo_async.worker import enqueue_many, wait_for


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
    Four workers make 300 videos, with identical prompts in pairs; six times one is killed, and started again.
    """
    if restarted and not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    restart = postgres if restarted and isinstance(postgres, Server) else None
    async with staged(database, faults()) as stage, asyncio.timeout(4 * HANGING):
        found = await deaths(stage, Plan(jobs=300, deaths=6, restart=restart, restarts=1))
        stage.check(found.delivered)
    assert found.kills > 0
    assert found.restarts == restarted


# A worker that stops itself as soon as a submit is durable and before it is sent; `checked` is the lease's check.
FREEZING = """
import asyncio, os, signal, sys
from tests.worker.stage import worker
from veo_async._journal.facts import Sending
from veo_async._journal.postgres import PostgresJournal

url, dsn, checked = sys.argv[1:]

class Freezing(PostgresJournal):
    __slots__ = ()
    frozen = False

    async def write(self, *facts):
        await super().write(*facts)
        if not Freezing.frozen and any(isinstance(fact, Sending) for fact in facts):
            Freezing.frozen = True
            os.kill(os.getpid(), signal.SIGSTOP)

    def may_send(self, key):
        return super().may_send(key) if checked == "True" else True

made = worker(url, dsn)
session = made.session

def freezing(journal):
    journal.__class__ = Freezing
    return session(journal)

made.session = freezing
asyncio.run(made.run())
"""


@pytest.mark.parametrize("checked", [True, False])
async def test_a_worker_frozen_before_a_submit_buys_nothing(database: str, checked: bool) -> None:
    """
    It is frozen between *sending* and the POST for longer than lease and grace, while another one buys its keys.
    Without the lease's check it would buy them again, which shows that this test can fail.
    """
    async with staged(database) as stage:
        frozen = await stage.start(FREEZING, stage.simulator.url, stage.dsn, str(checked))
        await enqueue_many(requests(8))
        await asyncio.to_thread(os.waitid, os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
        async with stage.working():
            results = await asyncio.gather(*(wait_for(key, timeout=HANGING) for key, _ in requests(8)))
            frozen.send_signal(signal.SIGCONT)
            frozen.terminate()
            await asyncio.wait_for(frozen.wait(), HANGING)
        if not checked:
            assert stage.simulator.core.accepted > 8
            return
        stage.check({key: result.task_id for (key, _), result in zip(requests(8), results, strict=True)})

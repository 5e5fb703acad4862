"""
What a network, an operating system, a database and its other users may do to workers.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.worker.stage import HANGING, Stage, requests, staged, until
from veo_async import TextToVideo
from veo_async.worker import enqueue, enqueue_many, wait_for

WHALE = TextToVideo("a whale")


async def test_a_notice_of_somebody_else_is_ignored(stage: Stage) -> None:
    """Whoever may connect may send one on our channel; it ends neither a journal nor the waiting."""
    async with stage.working():
        first = asyncio.create_task(wait_for("second", timeout=HANGING))
        await enqueue(WHALE, key="first")
        await wait_for("first", timeout=HANGING)
        for payload in ("", "garbage", "1 2", "one two three"):
            stage.sql(f"SELECT pg_notify('veo', '{payload}')")
        await enqueue(WHALE, key="second")
        await first


async def test_a_worker_that_was_forgotten_registers_again(stage: Stage) -> None:
    """One that starts deletes the row of one that was frozen; the other goes on when it thaws."""
    async with stage.working():
        await until(lambda: stage.sql("SELECT 1 FROM procrastinate_workers"))
        stage.sql("DELETE FROM procrastinate_workers RETURNING 1")
        await enqueue(WHALE, key="whale")
        await wait_for("whale", timeout=HANGING)


async def test_keys_that_were_enqueued_again_hold_up_no_end(database: str, tmp_path: Path) -> None:
    """A delivery cannot go back to the queue while another of its key waits there; it does so later."""
    async with staged(database, mean=1000.0) as stage:
        await enqueue_many(requests(3), to={"key 0": "whale.mp4"})
        async with stage.working(concurrency=3, lease=2 * HANGING):
            await until(lambda: stage.simulator.core.accepted == 3)
            assert 3 == await enqueue_many(requests(3))
        for task_id in [*stage.simulator.core.tasks]:
            stage.simulator.core.finish(task_id)
        async with stage.working(out=tmp_path, concurrency=1, lease=0.5):
            assert ["succeeded"] * 6 == await stage.delivered()
        assert 3 == stage.simulator.core.accepted
    assert (tmp_path / "whale.mp4").exists()

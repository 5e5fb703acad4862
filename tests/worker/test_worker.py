"""
Workers make the videos that other programs have enqueued, each once, whoever dies.
"""

from __future__ import annotations

import asyncio

from tests.worker.stage import HANGING, Stage, requests
from veo_async import TextToVideo
from veo_async.worker import enqueue, enqueue_many, outcome, wait_for


async def test_a_request_that_is_enqueued_is_made_and_saved(stage: Stage, tmp_path) -> None:
    """Whoever waits for its key gets the result, and the file lies where it was to go."""
    assert await enqueue(TextToVideo("a whale"), key="whale", to="clips/whale.mp4")
    assert not await enqueue(TextToVideo("a whale"), key="whale")
    assert await outcome("whale") is None
    async with stage.working(out=tmp_path):
        result = await wait_for("whale", timeout=HANGING)
        assert ["succeeded"] == await stage.delivered()
    assert (await outcome("whale")).task_id == result.task_id
    assert (tmp_path / "clips" / "whale.mp4").stat().st_size > 0
    stage.check({"whale": result.task_id})


async def test_many_are_made_by_two_workers(stage: Stage) -> None:
    """Each key is bought once, whichever worker gets it."""
    assert 30 == await enqueue_many(requests(30))
    async with stage.working(concurrency=10), stage.working(concurrency=10):
        results = await asyncio.gather(*(wait_for(key, timeout=HANGING) for key, _ in requests(30)))
    stage.check({key: result.task_id for (key, _), result in zip(requests(30), results, strict=True)})

"""
Workers make the videos that other programs have enqueued, each once, and hand them over when they end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import aiohttp
import pytest
from procrastinate import App, PsycopgConnector

from tests.worker.stage import HANGING, Stage, requests, staged, until
from veo_async import ConfigurationError, JournalError, TextToVideo, VideoResult
from veo_async.simulator import TOKEN, Faults
from veo_async.worker import Worker, blueprint, enqueue, enqueue_many, outcome, wait_for
from veo_async.worker.deliveries import new_blueprint
from veo_async.worker.health import health_of

WHALE = TextToVideo("a whale")


async def test_a_request_that_is_enqueued_is_made_and_saved(stage: Stage, tmp_path: Path) -> None:
    """Whoever waits for its key gets the result, and the file lies where it was to go."""
    assert await enqueue(WHALE, key="whale", to="clips/whale.mp4")
    assert not await enqueue(WHALE, key="whale")
    assert await outcome("whale") is None
    async with stage.working(out=tmp_path):
        result = await wait_for("whale", timeout=HANGING)
        assert ["succeeded"] == await stage.delivered()
    assert result.task_id == getattr(await outcome("whale"), "task_id", None)
    assert (tmp_path / "clips" / "whale.mp4").stat().st_size > 0
    stage.check({"whale": result.task_id})


async def test_each_file_of_a_task_is_saved(database: str, tmp_path: Path) -> None:
    """A task with two videos gives two files."""
    async with staged(database, videos=2) as stage, stage.working(out=tmp_path):
        await enqueue(WHALE, key="whale", to="whale.mp4")
        await stage.delivered()
    assert {"whale.mp4", "whale-2.mp4"} == set(os.listdir(tmp_path))


async def test_many_are_made_by_two_workers(stage: Stage) -> None:
    """Each key is bought once, whichever worker gets it."""
    assert 30 == await enqueue_many(requests(30))
    async with stage.working(concurrency=10) as one, stage.working(concurrency=10) as other:
        results = await asyncio.gather(*(wait_for(key, timeout=HANGING) for key, _ in requests(30)))
        assert one.is_ready
        assert other.is_ready
        assert one.stats is not None
    stage.check({key: result.task_id for (key, _), result in zip(requests(30), results, strict=True)})


async def test_a_worker_that_is_terminated_hands_over_at_once(database: str) -> None:
    """What it waited for is another's before its lease would have ended, and nothing is bought again."""
    async with staged(database, mean=1000.0) as stage:
        leaving = await stage.child(lease=HANGING)
        await enqueue_many(requests(24))
        waiting = [asyncio.create_task(wait_for(key)) for key, _ in requests(24)]
        await until(lambda: stage.simulator.core.accepted == 24)
        async with stage.working(lease=HANGING) as worker:
            await until(lambda: worker.is_ready)
            leaving.send_signal(signal.SIGTERM)
            assert 0 == await asyncio.wait_for(leaving.wait(), HANGING)
            for task_id in [*stage.simulator.core.tasks]:
                stage.simulator.core.finish(task_id)
            results = await asyncio.wait_for(asyncio.gather(*waiting), HANGING)
        stage.check({key: result.task_id for (key, _), result in zip(requests(24), results, strict=True)})


async def test_what_a_dead_worker_had_is_delivered_again(database: str) -> None:
    """Killed with -9 while its tasks run: another worker goes on with them after the lease."""
    async with staged(database, mean=1000.0) as stage:
        dying = await stage.child(lease=0.5)
        await enqueue_many(requests(10))
        waiting = [asyncio.create_task(wait_for(key)) for key, _ in requests(10)]
        await until(lambda: stage.simulator.core.accepted == 10)
        dying.kill()
        await dying.wait()
        async with stage.working(lease=0.5):
            for task_id in [*stage.simulator.core.tasks]:
                stage.simulator.core.finish(task_id)
            results = await asyncio.wait_for(asyncio.gather(*waiting), HANGING)
            await stage.delivered()
        stage.check({key: result.task_id for (key, _), result in zip(requests(10), results, strict=True)})


async def test_a_late_end_of_anothers_delivery_is_quiet(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that was thought dead ends a delivery that is done: nothing is raised where nobody awaits it."""
    await enqueue(WHALE, key="whale")
    async with stage.working():
        await until(lambda: stage.simulator.core.accepted == 1)
        stage.sql("UPDATE procrastinate_jobs SET status = 'succeeded' RETURNING 1")
        await wait_for("whale", timeout=HANGING)
    assert [] == [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_what_a_person_can_cure_is_delivered_again(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A token that was refused may be valid later, so the request is not given up."""
    faults = Faults().add("status_before", on="submit", status=401, times=1)
    async with staged(database, faults) as stage, stage.working():
        await enqueue(WHALE, key="whale")
        await stage.delivered()
        assert isinstance(await outcome("whale"), VideoResult)
    assert "delivered again later" in caplog.text


async def test_a_worker_whose_token_is_refused_is_not_ready(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so once, and not for each key; with the next video it is ready again."""
    other = "another-token"
    async with stage.working(token=other) as worker, health_of(worker) as (host, port):
        await until(lambda: worker.is_ready)
        assert 200 == await asked(f"http://{host}:{port}/ready")
        await enqueue_many(requests(3))
        await until(lambda: worker.tally.later >= 3)
        assert [503, 200] == [await asked(f"http://{host}:{port}/{name}") for name in ("ready", "health")]
        stage.simulator.core.tokens[other] = other
        assert ["succeeded"] * 3 == await stage.delivered()
        assert worker.is_ready
    [told] = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert "refuses this worker's token" in told


async def asked(url: str) -> int:
    """
    Ask a worker how it is; returns the status of its answer.
    """
    async with aiohttp.ClientSession() as client, client.get(url) as answer:
        return answer.status


@pytest.mark.parametrize("queue", ["veo", "default"])
async def test_an_app_of_ones_own_has_the_task_and_its_followers(stage: Stage, queue: str) -> None:
    """Its worker also runs what comes after a video, once the outcome is there, of each queue that it is given."""
    app = App(connector=PsycopgConnector(conninfo=stage.dsn))
    app.add_tasks_from(new_blueprint(), namespace="veo")
    seen: asyncio.Queue[tuple[str, object]] = asyncio.Queue()

    @app.task(name="publish", queue=queue)
    async def publish(key: str) -> None:
        await seen.put((key, await outcome(key)))

    await enqueue(WHALE, key="whale", then="publish")
    async with stage.working(app=app, queues=("veo", queue)):
        key, found = await asyncio.wait_for(seen.get(), HANGING)
        assert ["succeeded", "succeeded"] == await stage.delivered()
    assert "whale" == key
    assert isinstance(found, VideoResult)


async def test_an_app_without_our_task_is_refused(database: str) -> None:
    """The error says how to take it in."""
    app = App(connector=PsycopgConnector(conninfo=database))
    with pytest.raises(ConfigurationError, match="add_tasks_from"):
        await Worker(database, app=app).run()
    assert "make" in blueprint.tasks


async def test_a_worker_needs_its_tables(postgres: object, database: str) -> None:
    """The error names the command that makes them."""
    from tests.postgres.server import do

    do(database, "DROP TABLE procrastinate_jobs CASCADE")
    with pytest.raises(JournalError, match="veo-async queue init"):
        await Worker(database).run()


async def test_the_database_holds_no_token(stage: Stage) -> None:
    """Neither do its jobs' arguments, nor its events."""
    await enqueue_many(requests(3))
    async with stage.working():
        await stage.delivered()
    tables = stage.sql(
        "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) FROM pg_tables"
        " WHERE schemaname IN ('veo', 'public')"
    )
    dump = "\n".join(str(row) for (table,) in tables for row in stage.sql(f"SELECT it::text FROM {table} it"))
    assert "prompt 1" in dump
    assert TOKEN not in dump

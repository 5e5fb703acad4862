"""
What a network, an operating system, a database and its other users may do to workers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from procrastinate import App, PsycopgConnector

from tests.postgres.server import Postgres, Server
from tests.worker.stage import HANGING, Stage, requests, staged, until
from veo_async import (
    JobFailed,
    JobVanished,
    PermissionDenied,
    PollPolicy,
    PostgresJournal,
    TextToVideo,
    VeoError,
    VeoSession,
    VideoResult,
)
from veo_async._api.journal_text import dump_request
from veo_async.simulator import TOKEN, Faults
from veo_async.worker import ended, enqueue, enqueue_many, outcome, wait_for, waiting
from veo_async.worker.database import address_of
from veo_async.worker.deliveries import Desk, new_blueprint
from veo_async.worker.outcomes import ROUNDS, is_curable
from veo_async.worker.retrying import Retried, retry_all

WHALE = TextToVideo("a whale")
OTHER = "another-token"


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
        async with stage.working(out=tmp_path, concurrency=3, lease=2 * HANGING):
            await until(lambda: stage.simulator.core.accepted == 3)
            assert 3 == await enqueue_many(requests(3))
        for task_id in [*stage.simulator.core.tasks]:
            stage.simulator.core.finish(task_id)
        async with stage.working(out=tmp_path, concurrency=1, lease=0.5):
            assert ["succeeded"] * 6 == await stage.delivered()
        assert 3 == stage.simulator.core.accepted
    assert (tmp_path / "whale.mp4").exists()


async def test_a_key_is_bought_once_whatever_the_token(database: str, tmp_path: Path) -> None:
    """After a change of the token, neither what has ended nor what is on its way is bought again."""
    async with staged(database, tokens={TOKEN: TOKEN, OTHER: OTHER}, mean=1000.0) as stage:
        await enqueue_many([("ended", WHALE), ("on its way", WHALE)])
        async with stage.working():
            await until(lambda: len(stage.sql("SELECT 1 FROM veo.job WHERE task_id IS NOT NULL")) == 2)
            tasks = dict(stage.sql("SELECT key, task_id FROM veo.job"))
            stage.simulator.core.finish(tasks["ended"])
            await wait_for("ended", timeout=HANGING)
        await enqueue(WHALE, key="ended", to="whale.mp4")
        async with stage.working(token=OTHER, out=tmp_path) as worker:
            await until(lambda: (tmp_path / "whale.mp4").exists() and worker.tally.later)
        stage.simulator.core.finish(tasks["on its way"])
        stage.sql("UPDATE procrastinate_jobs SET scheduled_at = NULL RETURNING 1")
        async with stage.working(out=tmp_path):
            assert tasks["on its way"] == (await wait_for("on its way", timeout=HANGING)).task_id
        assert 2 == stage.simulator.core.accepted


async def test_a_key_that_was_refused_when_it_was_retried_can_be_retried(database: str) -> None:
    """Its last task is still the failed one, which is bought again; until then, the key has not ended."""
    faults = Faults().add("status_before", on="submit", nth=[2], status=403)
    async with staged(database, faults, failure_share=1.0) as stage:
        await enqueue(WHALE, key="whale")
        async with stage.working():
            assert isinstance(await ending("whale"), JobFailed)
        assert {"whale": Retried.ENQUEUED} == await retry_all(["whale"])
        assert await outcome("whale") is None
        async with stage.working():
            assert isinstance(await ending("whale"), PermissionDenied)
            await stage.delivered()
        assert {"whale": Retried.ENQUEUED} == await retry_all(["whale"])
        assert await outcome("whale") is None
        async with stage.working():
            assert isinstance(await ending("whale"), JobFailed)
            await stage.delivered()
        assert 2 == stage.simulator.core.accepted


async def ending(key: str) -> VeoError:
    """
    Wait for an error.
    """
    with pytest.raises(VeoError) as caught:
        await wait_for(key, timeout=HANGING)
    return caught.value


async def test_a_worker_ends_though_its_database_is_away(
    database: str,
    postgres: Postgres,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it cannot hand over is taken back when its lease is over; and who waits for a key is told why."""
    if not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    async with staged(database, mean=1000.0) as stage:
        leaving = await stage.child()
        await enqueue_many(requests(3))
        await until(lambda: stage.simulator.core.accepted == 3)
        monkeypatch.setattr(waiting, "_CHECK_EVERY", 0.1)
        told = asyncio.create_task(wait_for("key 0"))
        await until(lambda: len(stage.sql("SELECT 1 FROM pg_stat_activity WHERE query = 'LISTEN veo'")) == 2)
        await asyncio.to_thread(postgres.stop)
        try:
            leaving.terminate()
            await asyncio.wait_for(leaving.wait(), HANGING)
            await until(lambda: "whoever waits for outcomes waits on" in caplog.text)
        finally:
            await asyncio.to_thread(postgres.start)
            told.cancel()


async def test_an_outage_is_told_once_and_so_is_its_end(
    stage: Stage, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """However often the queue tries meanwhile; the worker is not ready before it has the database again."""
    if not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    caplog.set_level(logging.DEBUG, "veo_async")
    app = App(connector=PsycopgConnector(conninfo=stage.dsn, timeout=0.2))
    app.add_tasks_from(new_blueprint(), namespace="veo")
    async with stage.working(app=app) as worker:
        await until(lambda: worker.is_ready)
        await asyncio.to_thread(postgres.stop)
        try:
            await until(lambda: caplog.text.count("the queue waits for its database") >= 3)
            assert not worker.is_ready
        finally:
            await asyncio.to_thread(postgres.start)
        await until(lambda: "is reached again" in caplog.text and worker.is_ready)
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    for words in (
        "the queue waits",
        "the lease could not be renewed",
        "the database is reached again, after",
    ):
        assert 1 == sum(line.startswith(words) for line in told)


async def test_what_ends_during_a_long_outage_is_followed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody was told of it, and it has ended long before the database is back."""
    await enqueue(WHALE, key="whale")
    async with stage.working():
        await wait_for("whale", timeout=HANGING)
    stage.sql("UPDATE veo.job SET settled_at = 0 RETURNING 1")
    looks, now = count(), [1e9]
    clock = SimpleNamespace(time=lambda: now[next(looks) * 0], monotonic=time.monotonic)
    monkeypatch.setattr(waiting, "time", clock)
    monkeypatch.setattr(waiting, "_CHECK_EVERY", 0.05)
    following = ended()
    first = asyncio.create_task(anext(following))
    await until(lambda: next(looks) > 5)
    stage.sql("UPDATE veo.job SET settled_at = 1e9 + 60 RETURNING 1")
    now[0] += 3600
    key, _ = await asyncio.wait_for(first, HANGING)
    assert "whale" == key
    await following.aclose()


async def test_who_waits_hears_nothing_of_a_token_that_has_expired(database: str) -> None:
    """The key has not ended: it is made with the next token, or when its application is enabled again."""
    faults = Faults().add("status_before", on="submit", status=401, nth=[1])
    async with staged(database, faults) as stage:
        await enqueue(WHALE, key="whale")
        told = asyncio.create_task(wait_for("whale"))
        async with stage.working():
            assert isinstance(await asyncio.wait_for(told, HANGING), VideoResult)
    disabled, forbidden = (PermissionDenied("no", code=code) for code in ("disabled", "forbidden"))
    assert is_curable(disabled)
    assert not is_curable(forbidden)


async def test_many_deliveries_at_once_leave_the_others_connections(stage: Stage) -> None:
    """A server has a hundred, say, and a worker a thousand deliveries."""
    journal = PostgresJournal(stage.dsn)
    async with VeoSession(TOKEN, base_url=stage.simulator.url, journal=journal) as veo:
        desk = Desk(veo, journal, Path(), address_of(stage.dsn, "veo"))
        unreadable = (desk.make(f"key {number}", "{}", to=None, retry_of=None) for number in range(200))
        await asyncio.gather(*unreadable, return_exceptions=True)
    assert (200, 0) == (desk.tally.parked, desk.tally.later)


async def test_a_task_that_vanished_waits_for_a_person_in_the_end(database: str) -> None:
    """It is looked for again in the next deliveries, and not for ever."""
    polling, request = PollPolicy().scaled(1 / 1000), dump_request(WHALE)
    async with staged(database, mean=1e6) as stage:
        journal = PostgresJournal(stage.dsn)
        async with VeoSession(TOKEN, base_url=stage.simulator.url, journal=journal, polling=polling) as veo:
            desk = Desk(veo, journal, Path(), address_of(stage.dsn, "veo"))
            deliveries = [desk.make("whale", request, to=None, retry_of=None) for _ in range(ROUNDS)]
            first = asyncio.create_task(deliveries[0])
            await until(lambda: stage.simulator.core.accepted)
            [task_id] = stage.simulator.core.tasks
            stage.simulator.core.forget(task_id)
            await asyncio.gather(first, return_exceptions=True)
            for delivered in deliveries[1:]:
                await asyncio.gather(delivered, return_exceptions=True)
        found = await outcome("whale")
    assert (1, True, 1) == (desk.tally.parked, isinstance(found, JobVanished), stage.simulator.core.accepted)

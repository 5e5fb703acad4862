"""
Whoever waits for a key learns how it has ended, in any process, without a session or a token.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.postgres.server import Postgres, Server
from tests.worker.stage import HANGING, Stage, requests, staged, until
from veo_async import BadRequest, JobFailed, JournalError, SubmissionUnknown, TextToVideo, VideoResult
from veo_async.simulator import Faults
from veo_async.worker import ended, enqueue, enqueue_many, outcome, wait_for
from veo_async.worker.outcomes import ROUNDS

WHALE = TextToVideo("a whale")


async def test_a_task_that_fails_is_final(database: str) -> None:
    """Its delivery is done, and who waits gets the task's error, also later."""
    async with staged(database, failure_share=1.0) as stage, stage.working():
        await enqueue(WHALE, key="whale")
        with pytest.raises(JobFailed) as failed:
            await wait_for("whale", timeout=HANGING)
        assert ["succeeded"] == await stage.delivered()
        assert failed.value.task_id == getattr(await outcome("whale"), "task_id", None)
        assert 1 == stage.simulator.core.accepted


async def test_a_refusal_is_final(database: str) -> None:
    """Who waits gets the server's answer, with its particulars; the key may be enqueued again."""
    request = TextToVideo("a whale", model="veo31")
    async with staged(database, retired_models=("veo31",)) as stage, stage.working():
        await enqueue(request, key="whale")
        with pytest.raises(BadRequest, match="model is not supported") as refused:
            await wait_for("whale", timeout=HANGING)
        assert (400, "whale") == (refused.value.status, refused.value.key)
        assert ["succeeded"] == await stage.delivered()
        assert await enqueue(TextToVideo("another"), key="whale")
        assert isinstance(await wait_for("whale", timeout=HANGING), VideoResult)


async def test_a_purchase_that_stays_unknown_waits_for_a_person(database: str) -> None:
    """After three rounds it is given up, who waits is told, and enqueueing it again begins anew."""
    faults = Faults().add("drop_after", on="submit", nth=[1])
    async with staged(database, faults, listing="refused") as stage, stage.working():
        await enqueue(WHALE, key="whale")
        stage.sql(
            "INSERT INTO veo.parked SELECT substr(queueing_lock, 5)::uuid, 'whale', '{}',"
            f" {ROUNDS - 1} FROM procrastinate_jobs RETURNING 1"
        )
        with pytest.raises(SubmissionUnknown) as unknown:
            await wait_for("whale", timeout=HANGING)
        assert "whale" == unknown.value.key
        assert ["failed"] == await stage.delivered()
        assert await enqueue(WHALE, key="whale")
        assert await outcome("whale") is None


async def test_a_request_of_another_version_waits_for_a_person(stage: Stage) -> None:
    """It is neither guessed nor delivered for ever."""
    await enqueue(WHALE, key="whale")
    stage.sql("""UPDATE procrastinate_jobs SET args = args || '{"request": "{}"}' RETURNING 1""")
    async with stage.working():
        assert ["failed"] == await stage.delivered()
    assert "cannot read the request" in str(await outcome("whale"))
    assert 0 == stage.simulator.core.accepted


async def test_many_wait_on_two_connections(stage: Stage) -> None:
    """However many wait in a process, for whatever keys; and nothing stays open when all are done."""
    await enqueue_many(requests(20))
    waiting = [asyncio.create_task(wait_for(key)) for key, _ in requests(20) * 3]
    async with stage.working():
        results = await asyncio.wait_for(asyncio.gather(*waiting), HANGING)
    assert 20 == len({result.task_id for result in results})
    mine = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await until(lambda: [(0,)] == stage.sql(mine))  # a server notices a moment later that one is closed


async def test_who_gives_up_waiting_stops_nothing(stage: Stage) -> None:
    """A time-out ends the waiting alone, and the key can be waited for again."""
    await enqueue(WHALE, key="whale")
    with pytest.raises(TimeoutError):
        await wait_for("whale", timeout=0.01)
    other = asyncio.create_task(wait_for("whale"))
    async with stage.working():
        with pytest.raises(TimeoutError):
            await wait_for("nobody enqueues this", timeout=0.01)
        assert isinstance(await asyncio.wait_for(other, HANGING), VideoResult)


async def test_all_that_ends_can_be_followed(stage: Stage) -> None:
    """Each key once, with its outcome, from now on."""
    await enqueue(WHALE, key="before")
    async with stage.working():
        await wait_for("before", timeout=HANGING)
        following = ended()
        first = asyncio.create_task(anext(following))
        await asyncio.sleep(0)
        await enqueue_many(requests(10))
        async with asyncio.timeout(HANGING):
            found = dict([await first] + [await anext(following) for _ in range(9)])
        await following.aclose()
    assert found.keys() == dict(requests(10)).keys()
    assert all(isinstance(outcome, VideoResult) for outcome in found.values())


async def test_an_outage_of_the_database_is_waited_through(stage: Stage, postgres: Postgres) -> None:
    """Workers and those who wait go on when it is back."""
    if not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    await enqueue_many(requests(20))
    waiting = [asyncio.create_task(wait_for(key)) for key, _ in requests(20)]
    async with stage.working():
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(postgres.start)
        results = await asyncio.wait_for(asyncio.gather(*waiting), HANGING)
        await stage.delivered()
    stage.check({key: result.task_id for (key, _), result in zip(requests(20), results, strict=True)})


async def test_waiting_needs_a_database_that_answers(database: str, postgres: Postgres) -> None:
    """At first its errors are raised at once; only later outages are waited for."""
    with pytest.raises(JournalError, match="veo-async queue init"):
        await wait_for("whale", schema="nowhere")
    with pytest.raises(JournalError, match="cannot be reached"):
        await wait_for("whale", database="postgresql://127.0.0.1:1/none")

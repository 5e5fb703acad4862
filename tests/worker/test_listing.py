"""
The keys without a video are listed by how they have ended.
"""

from __future__ import annotations

from tests.postgres.server import do
from tests.worker.stage import Stage, requests
from veo_async import TextToVideo
from veo_async.simulator import Script
from veo_async.worker import enqueue_many
from veo_async.worker.administration import status
from veo_async.worker.listing import keys_in, unknown
from veo_async.worker.outcomes import LATEST
from veo_async.worker.retrying import Retried, retry_all

STATES = ("failed", "refused", "parked", "waiting")
# Of another account: a refusal of each key, that of "waiting" for lack of money.
REFUSED = """
    WITH another AS (INSERT INTO veo.account (digest) VALUES ('another') RETURNING id)
    INSERT INTO veo.refusal SELECT another.id, substr(queueing_lock, 5)::uuid, args ->> 'key',
        CASE args ->> 'key' WHEN 'waiting' THEN '{"kind": "InsufficientBalance"}' END, 1e9
    FROM another, procrastinate_jobs WHERE args ->> 'key' IN ('made', 'waiting') RETURNING 1
"""


async def listed() -> dict[str, list[str]]:
    return {state: [key async for key in keys_in(state)] for state in STATES}


async def test_each_key_is_listed_by_its_outcome(stage: Stage) -> None:
    """One with a video is not listed, whoever was refused before; one that is to be bought again waits."""
    stage.simulator.core.scripts += [
        Script(prompt="failed", fails="api_error"),
        Script(prompt="refused", refused="bad_request"),
    ]
    await enqueue_many((key, TextToVideo(key)) for key in ("made", "failed", "refused", "parked"))
    stage.sql("""UPDATE procrastinate_jobs SET args = args || '{"request": "{}"}'
        WHERE args ->> 'key' = 'parked' RETURNING 1""")
    async with stage.working():
        await stage.delivered()
    await enqueue_many([("waiting", TextToVideo("waiting"))])
    stage.sql(REFUSED)
    assert {state: [state] for state in STATES} == await listed()
    assert 2 == (await status()).refused  # but not the one that was bought
    assert {"failed": Retried.ENQUEUED} == await retry_all(["failed"])
    found = await listed()
    assert ([], ["failed", "waiting"]) == (found["failed"], found["waiting"])
    async with stage.working():
        await stage.delivered()
    assert {state: [state] for state in STATES} | {"waiting": []} == await listed()


async def test_more_keys_than_are_read_at_once(stage: Stage) -> None:
    """All are listed, each once, in their order; of what is not there, nothing is known."""
    await enqueue_many(requests(2_500))
    expected = sorted(key for key, _ in requests(2_500))
    assert expected == sorted(found := [key async for key in keys_in("waiting")])
    assert len(found) == len(set(found))
    assert ["nobody"] == await unknown(["key 7", "nobody", "key 8"])


async def test_a_key_is_found_by_an_index(stage: Stage) -> None:
    """However many purchases there are: the open one and the failed ones each have an index."""
    query = f"SELECT it.id FROM (SELECT gen_random_uuid() AS digest) AS wanted, {LATEST} AS it"
    plan = do(stage.dsn, "SET enable_seqscan = off", f"EXPLAIN {query.replace('SCHEMA', 'veo')}")
    assert [True, True] == [name in str(plan) for name in ("job_open", "job_failed")]

"""
Deletes what has ended long ago.

A key whose purchase is deleted is unknown from then on: if it is enqueued again, it is bought again. So a purchase stays while
one of its key's deliveries may still be repeated. What a person may have to look at also stays: tasks that were paid
for twice, and keys that are parked.
"""

from __future__ import annotations

from typing import Final

from attrs import frozen

from .. import ConfigurationError
from .._journal.postgres_connection import Address, Connection
from .administration import rows_of
from .database import address_of, connected
from .enqueueing import QUEUE, TASK

__all__ = ["SOONEST", "Pruned", "prune"]

SOONEST: Final = (
    2 * 86400.0
)  # seconds: longer than tasks are looked for, so that no old mark is taken for a new one
_AT_ONCE: Final = 2000  # rows a statement

_PURCHASES: Final = """
    WITH old AS (DELETE FROM SCHEMA.job WHERE id IN (
            SELECT id FROM SCHEMA.job WHERE settled_at < extract(epoch FROM now()) - %(seconds)s
                AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'todo'
                    AND queueing_lock = 'veo:' || replace(digest::text, '-', ''))
                AND NOT EXISTS (SELECT FROM procrastinate_jobs WHERE status = 'doing'
                    AND queueing_lock = 'veo:' || replace(digest::text, '-', ''))
            ORDER BY settled_at LIMIT %(most)s FOR UPDATE SKIP LOCKED) RETURNING id),
        files AS (DELETE FROM SCHEMA.download USING old WHERE download.job = old.id)
    SELECT count(*) FROM old
"""
_REFUSALS: Final = """
    WITH old AS (DELETE FROM SCHEMA.refusal WHERE (account, digest) IN (
            SELECT account, digest FROM SCHEMA.refusal WHERE at < extract(epoch FROM now()) - %(seconds)s
            LIMIT %(most)s FOR UPDATE SKIP LOCKED) RETURNING at)
    SELECT count(*) FROM old
"""
_DELIVERIES: Final = """
    WITH old AS (DELETE FROM procrastinate_jobs WHERE id IN (
            SELECT id FROM procrastinate_jobs AS delivery WHERE queue_name = %(queue)s AND task_name = %(task)s
                AND status NOT IN ('todo', 'doing')
                AND NOT EXISTS (SELECT FROM procrastinate_events AS event WHERE event.job_id = delivery.id
                    AND event.at >= now() - make_interval(secs => %(seconds)s))
                AND NOT EXISTS (SELECT FROM SCHEMA.parked
                    WHERE delivery.queueing_lock = 'veo:' || replace(parked.digest::text, '-', ''))
            ORDER BY id LIMIT %(most)s FOR UPDATE SKIP LOCKED) RETURNING id)
    SELECT count(*) FROM old
"""


@frozen
class Pruned:
    """
    How many rows were deleted.
    """

    purchases: int
    refusals: int
    deliveries: int


async def prune(older: float, database: str | None = None, *, schema: str = "veo") -> Pruned:
    """
    Delete purchases, refusals and deliveries that ended long ago, at most 2,000 in a transaction.

    Args:
        older: how long ago, in seconds; at least two days.

    Raises:
        ConfigurationError: there is no database, or `older` is too short.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    if older < SOONEST:
        raise ConfigurationError("what ended less than two days ago cannot be pruned: 2d at least")
    address = address_of(database, schema)
    async with connected(address) as connection:
        return Pruned(
            await _delete(connection, address, _PURCHASES, older),
            await _delete(connection, address, _REFUSALS, older),
            await _delete(connection, address, _DELIVERIES, older),
        )


async def _delete(connection: Connection, address: Address, statement: str, older: float) -> int:
    values = {"seconds": older, "most": _AT_ONCE, "queue": QUEUE, "task": TASK}
    deleted = 0
    while True:
        [(count,)] = await rows_of(connection, address.sql(statement), **values)
        deleted += int(count)
        if count < _AT_ONCE:
            return deleted

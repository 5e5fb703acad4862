"""
Enqueues keys again that have ended without a video.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

from attrs import frozen

from .. import VideoResult
from .._journal.postgres_connection import Address, Connection
from .._journal.postgres_rows import digest
from .administration import rows_of
from .database import address_of, connected
from .enqueueing import Delivery, delivery, lock_of, put
from .outcomes import LATEST, Outcome, read_outcomes

__all__ = ["Retried", "retry_all"]

# The latest delivery and the latest purchase of each key; either may be missing.
_FOUND: Final = f"""
    SELECT wanted.digest, coalesce(delivery.args ->> 'request', purchase.request), delivery.args ->> 'to',
        delivery.args ->> 'then', coalesce(delivery.status IN ('todo', 'doing'), false), CASE WHEN purchase.failed THEN purchase.task_id END
    FROM unnest(%(digests)s::uuid[], %(locks)s::text[]) AS wanted (digest, lock)
    LEFT JOIN {LATEST} AS purchase ON true
    LEFT JOIN (SELECT DISTINCT ON (queueing_lock) queueing_lock, args, status FROM procrastinate_jobs
        WHERE queueing_lock = ANY(%(locks)s::text[])
        ORDER BY queueing_lock, status IN ('todo', 'doing') DESC, id DESC) AS delivery ON queueing_lock = lock
"""


class Retried(StrEnum):
    """
    What `retry` did with a key.
    """

    ENQUEUED = "enqueued again"
    ON_THE_WAY = "on its way already"
    MADE = "has its video"
    UNKNOWN = "not known here"


@frozen
class _Found:
    request: str | None
    to: str | None
    then: str | None
    is_on_its_way: bool
    failed_task: str | None


async def retry_all(
    keys: Sequence[str], database: str | None = None, *, schema: str = "veo"
) -> dict[str, Retried]:
    """
    Enqueue keys again whose task has failed, which were refused, or which wait for a person.

    A failed task is bought again once, however often its new delivery is repeated.

    Returns:
        What was done, by key.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
        KeyConflict: meanwhile a key was enqueued with another request; nothing was done.
    """
    address = address_of(database, schema)
    async with connected(address) as connection, connection.transaction():
        outcomes = await read_outcomes(connection, keys, schema=schema)
        found = await _find(connection, address, keys)
        done = {key: _decide(found[key], outcomes.get(key)) for key in keys}
        again = [key for key, what in done.items() if what is Retried.ENQUEUED]
        await put([_again(key, found[key]) for key in again], connection, schema=schema)
    return done


async def _find(connection: Connection, address: Address, keys: Sequence[str]) -> Mapping[str, _Found]:
    by_digest = {digest(key): key for key in keys}
    locks = [lock_of(key) for key in by_digest.values()]
    rows = await rows_of(connection, address.sql(_FOUND), digests=[*by_digest], locks=locks)
    return {by_digest[row[0].hex]: _Found(*row[1:]) for row in rows}


def _decide(found: _Found, outcome: Outcome | None) -> Retried:
    if isinstance(outcome, VideoResult):
        return Retried.MADE
    if found.is_on_its_way:
        return Retried.ON_THE_WAY
    return Retried.UNKNOWN if found.request is None else Retried.ENQUEUED


def _again(key: str, found: _Found) -> Delivery:
    assert found.request is not None, "a key without a request is unknown"
    return delivery(key, found.request, to=found.to, then=found.then, retry_of=found.failed_task)

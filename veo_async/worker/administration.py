"""
Tells how a queue stands: what waits, what was bought, and what waits for a person.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from .._journal.postgres_connection import Connection
from .._journal.postgres_rows import digest, readable
from .database import address_of, connected
from .enqueueing import QUEUE, TASK
from .outcomes import ROUNDS

__all__ = [
    "Event",
    "QueueStatus",
    "bought",
    "has_lost_facts",
    "parked_event",
    "rows_of",
    "status",
    "surplus_event",
    "waiting",
]

_WAITING: Final = "SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = %(queue)s"
_DELIVERIES: Final = """
    SELECT CASE WHEN status = 'todo' AND scheduled_at > now() THEN 'later'
        WHEN status = 'todo' THEN 'waiting' WHEN status = 'doing' THEN 'running'
        WHEN status = 'succeeded' THEN 'done' WHEN status = 'failed' THEN 'given up' ELSE status::text END AS state,
        count(*) FROM procrastinate_jobs WHERE queue_name = %(queue)s AND task_name = %(task)s GROUP BY state
"""
_PURCHASES: Final = """
    SELECT CASE WHEN failed THEN 'failed' WHEN settled_at IS NOT NULL THEN 'succeeded'
        WHEN task_id IS NOT NULL THEN 'pending' WHEN SCHEMA.has_open_attempt(job) THEN 'submitting' ELSE 'queued'
        END AS state, count(*) FROM SCHEMA.job GROUP BY state
"""
_LOST: Final = "SELECT incomplete FROM SCHEMA.meta"
_BOUGHT: Final = """
    SELECT count(*) FROM unnest(%(digests)s::uuid[]) AS wanted (digest) WHERE EXISTS (SELECT FROM SCHEMA.account, SCHEMA.job
        WHERE job.account = account.id AND job.digest = wanted.digest AND NOT job.failed)
"""
_REFUSED: Final = """
    SELECT count(DISTINCT digest) FROM SCHEMA.refusal WHERE NOT EXISTS (SELECT FROM SCHEMA.account, SCHEMA.job
        WHERE job.account = account.id AND job.digest = refusal.digest AND NOT job.failed)
"""
_SESSIONS: Final = """
    SELECT name FROM SCHEMA.session WHERE NOT dead AND expires_at > clock_timestamp() ORDER BY id
"""
_PARKED: Final = """
    SELECT key, reason, extract(epoch FROM at)::double precision FROM SCHEMA.parked WHERE rounds >= %(rounds)s
    AND NOT EXISTS (SELECT FROM SCHEMA.account, SCHEMA.job WHERE job.account = account.id
        AND job.digest = parked.digest AND job.settled_at IS NOT NULL AND NOT job.failed) ORDER BY at
"""
_SURPLUS: Final = "SELECT key, task_id, trace_id, at FROM SCHEMA.surplus ORDER BY at"


@frozen
class Event:
    """
    Something that has happened to a key.

    Attributes:
        at: when, in Unix seconds.
        what: in a word or two.
        details: ids, texts and numbers by name.
    """

    at: float
    what: str
    details: Mapping[str, Any]


@frozen(kw_only=True)
class QueueStatus:
    """
    How a queue stands.

    Attributes:
        deliveries: how many there are, by state: `waiting`, `later`, `running`, `done`, `given up`, ...
        purchases: how many there are, not of how many keys, by state: `queued`, `submitting`, `pending`, `succeeded`, `failed`.
        refused: how many keys were refused, and neither enqueued nor bought since.
        sessions: the names of the processes that may buy.
        parked: the keys that wait for a person.
        surplus: the tasks that were paid for, but belong to no purchase.
    """

    deliveries: Mapping[str, int]
    purchases: Mapping[str, int]
    refused: int
    sessions: tuple[str, ...]
    parked: tuple[Event, ...]
    surplus: tuple[Event, ...]


async def waiting(database: str | None = None) -> int:
    """
    Return how many deliveries wait for a worker.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    async with connected(address_of(database, "veo")) as connection:
        [(count,)] = await rows_of(connection, _WAITING, queue=QUEUE)
        return int(count)


async def has_lost_facts(database: str | None = None, *, schema: str = "veo") -> bool:
    """
    Tell whether a session has found that the journal lacks facts, so that nobody may rely on it.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    async with connected(address) as connection:
        return await rows_of(connection, address.sql(_LOST)) == [(True,)]


async def bought(keys: Iterable[str], database: str | None = None, *, schema: str = "veo") -> int:
    """
    Return how many of the keys have been bought, or are about to be.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    async with connected(address) as connection:
        [(count,)] = await rows_of(connection, address.sql(_BOUGHT), digests=[*map(digest, keys)])
        return int(count)


async def status(database: str | None = None, *, schema: str = "veo") -> QueueStatus:
    """
    Return how the queue stands.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    async with connected(address) as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        [(refused,)] = await rows_of(connection, address.sql(_REFUSED))
        return QueueStatus(
            deliveries=dict(await rows_of(connection, _DELIVERIES, queue=QUEUE, task=TASK)),
            purchases=dict(await rows_of(connection, address.sql(_PURCHASES))),
            refused=refused,
            sessions=tuple(name for (name,) in await rows_of(connection, address.sql(_SESSIONS))),
            parked=tuple(
                parked_event(*row) for row in await rows_of(connection, address.sql(_PARKED), rounds=ROUNDS)
            ),
            surplus=tuple(surplus_event(*row) for row in await rows_of(connection, address.sql(_SURPLUS))),
        )


def parked_event(key: str, reason: str, at: float) -> Event:
    """
    Read a row of the table `parked`.
    """
    kept = json.loads(reason)
    return Event(
        at, "parked", {"key": readable(key), "error": kept.get("kind"), "message": kept.get("message")}
    )


def surplus_event(key: str, task_id: str, trace_id: str | None, at: float) -> Event:
    """
    Read a row of the table `surplus`.
    """
    details = {
        "key": readable(key),
        "task_id": readable(task_id),
        "trace_id": trace_id and readable(trace_id),
    }
    return Event(at, "paid twice", details)


async def rows_of(connection: Connection, statement: str, **values: object) -> list[tuple[Any, ...]]:
    """
    Return the rows of a query.
    """
    return await (await connection.execute(statement, values)).fetchall()

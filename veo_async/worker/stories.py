"""
Tells all that is known of one key: its deliveries, its purchases, and how they have ended.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

from .. import VeoError, VideoResult
from .._api.journal_text import load_refusal
from .._jobs.outcomes import read_outcome
from .._journal.facts import Entry
from .._journal.postgres_connection import Address, Connection
from .._journal.postgres_rows import digest, read_entry, stored
from .administration import Event, parked_event, rows_of, surplus_event
from .database import address_of, connected
from .enqueueing import lock_of
from .outcomes import ROUNDS

__all__ = ["story"]

# What procrastinate's events are called here.
_WORDS: Final = {
    "deferred": "enqueued",
    "started": "fetched by a worker",
    "deferred_for_retry": "back in the queue",
    "succeeded": "delivery done",
    "failed": "delivery given up",
    "cancelled": "delivery cancelled",
    "aborted": "delivery aborted",
}
_DELIVERIES: Final = """
    SELECT extract(epoch FROM event.at)::double precision, event.type::text, delivery.id, delivery.args
    FROM procrastinate_jobs AS delivery JOIN procrastinate_events AS event ON event.job_id = delivery.id
    WHERE delivery.queueing_lock = %(lock)s ORDER BY event.id
"""
_PURCHASES: Final = """
    SELECT to_jsonb(it) FROM SCHEMA.account JOIN SCHEMA.entry AS it ON it.account = account.id
    WHERE it.digest = %(digest)s::uuid ORDER BY it.id
"""
_REFUSALS: Final = """
    SELECT at, reason FROM SCHEMA.account JOIN SCHEMA.refusal ON refusal.account = account.id
    WHERE refusal.digest = %(digest)s::uuid
"""
_PARKED: Final = """
    SELECT key, reason, extract(epoch FROM at)::double precision FROM SCHEMA.parked
    WHERE digest = %(digest)s::uuid AND rounds >= %(rounds)s
"""
_SURPLUS: Final = "SELECT key, task_id, trace_id, at FROM SCHEMA.surplus WHERE key = %(key)s"


async def story(key: str, database: str | None = None, *, schema: str = "veo") -> list[Event]:
    """
    Return what has happened to a key, in the order of time; the list is empty if nobody knows it.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    async with connected(address) as connection, connection.transaction():
        events = [event async for event in _events(connection, address, key)]
    return sorted(events, key=lambda event: event.at)


async def _events(connection: Connection, address: Address, key: str) -> AsyncIterator[Event]:
    by = {"digest": digest(key)}
    for row in await rows_of(connection, _DELIVERIES, lock=lock_of(key)):
        yield _delivered(*row)
    for (row,) in await rows_of(connection, address.sql(_PURCHASES), **by):
        for event in _purchase(read_entry(row)):
            yield event
    for at, reason in await rows_of(connection, address.sql(_REFUSALS), **by):
        yield Event(at, "refused", _error(load_refusal(reason)))
    for row in await rows_of(connection, address.sql(_PARKED), **by, rounds=ROUNDS):
        yield parked_event(*row)
    for row in await rows_of(connection, address.sql(_SURPLUS), key=stored(key)):
        yield surplus_event(*row)


def _delivered(at: float, kind: str, number: int, args: Mapping[str, str]) -> Event:
    given = {name: args.get(name) for name in ("to", "then", "retry_of")} if kind == "deferred" else {}
    return Event(at, _WORDS.get(kind, kind), _known({"delivery": number, **given}))


def _purchase(entry: Entry) -> Iterator[Event]:
    yield Event(entry.intended_at, "to be bought", {"request": json.loads(entry.request)})
    for attempt in entry.attempts:
        its = {"attempt": attempt.number, "mark": attempt.mark, "ended": attempt.closed}
        yield Event(attempt.at, "sent", _known(its))
    if entry.accepted_at is not None:
        ids = {"task_id": entry.task_id, "trace_id": entry.trace_id}
        yield Event(entry.accepted_at, "accepted", _known(ids))
    if entry.settled_at is not None and entry.outcome is not None:
        yield _settled(entry.settled_at, read_outcome(entry.outcome, None))
        for video, path in entry.downloads.items():
            yield Event(entry.settled_at, "saved", {"video": video, "path": path})


def _settled(at: float, found: VideoResult | VeoError) -> Event:
    if isinstance(found, VideoResult):
        return Event(
            at, "succeeded", {"videos": [{"id": video.id, "url": video.url} for video in found.videos]}
        )
    return Event(at, "failed", _error(found))


def _error(error: VeoError) -> dict[str, Any]:
    return _known(
        {"error": type(error).__name__, "code": getattr(error, "code", None), "message": str(error)}
    )


def _known(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in details.items() if value is not None}

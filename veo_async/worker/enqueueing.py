"""
Puts requests into the queue, also within a transaction of the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final, TypeAlias

import psycopg
from psycopg.rows import tuple_row

from .. import InvalidRequest, Request, UsageError
from .._api.journal_text import dump_request
from .._api.local_images import is_name
from .._journal.postgres_rows import digest, stored
from .._journal.postgres_schema import named
from .database import address_of, connected, explaining, key_conflict

__all__ = ["QUEUE", "TASK", "delivery", "enqueue", "enqueue_blocking", "enqueue_many", "lock_of", "put"]

QUEUE: Final = "veo"
TASK: Final = "veo:make"
_ENQUEUED: Final = "SELECT SCHEMA.enqueued(%(queue)s, %(task)s, %(priority)s, %(items)s)"
_AT_ONCE: Final = 1000

Delivery: TypeAlias = Mapping[str, Any]


async def enqueue(
    request: Request,
    *,
    key: str,
    to: str | None = None,
    then: str | None = None,
    priority: int = 0,
    connection: psycopg.AsyncConnection[Any] | None = None,
    database: str | None = None,
    schema: str = "veo",
) -> bool:
    """
    Have a worker make this video; returns whether a delivery was added.

    None is added while the key waits for a worker already. A key that is being made or was bought before is delivered
    once more, which costs nothing: the worker finds what was bought.

    Args:
        key: the idempotency key: the same key is the same video, however often it is enqueued.
        to: where the worker saves the video: a path inside its directory, such as `clips/whale.mp4`. The file is there
            a moment after the outcome, and before `then`.
        then: the name of a procrastinate task that is deferred with `key=...` once the outcome is there; it may
            run more than once.
        priority: higher ones go first.
        connection: the caller's own, of psycopg: the request is enqueued when its transaction is committed.
        database: where to enqueue without a connection; falls back to `VEO_ASYNC_DATABASE`.
        schema: the schema with the journal's tables.

    Raises:
        ConfigurationError: there is no database.
        InvalidRequest: `to` leads out of the worker's directory, or an image is a picture of this machine.
        JournalError: the database cannot be reached, or lacks the tables.
        KeyConflict: the key belongs to a different request.
        UsageError: `connection` is another library's, or a blocking one.
    """
    items = [_delivery(key, request, to, then)]
    return await _enqueue(items, priority, connection, database, schema) == 1


async def enqueue_many(
    requests: Iterable[tuple[str, Request]],
    *,
    to: Mapping[str, str] | None = None,
    then: str | None = None,
    priority: int = 0,
    connection: psycopg.AsyncConnection[Any] | None = None,
    database: str | None = None,
    schema: str = "veo",
) -> int:
    """
    Have workers make many videos: all of them or, on an error, none; returns how many deliveries were added.

    Only keys that wait for a worker already are not counted; see `enqueue`.

    Args:
        requests: pairs of an idempotency key and a request.
        to: where to save the videos, by key. All other arguments are those of `enqueue`.

    Raises:
        ConfigurationError, InvalidRequest, JournalError, KeyConflict, UsageError: as `enqueue` does.
    """
    places = to or {}
    items = [_delivery(key, request, places.get(key), then) for key, request in requests]
    return await _enqueue(items, priority, connection, database, schema)


def enqueue_blocking(
    request: Request,
    *,
    key: str,
    connection: Any,
    to: str | None = None,
    then: str | None = None,
    priority: int = 0,
    schema: str = "veo",
) -> bool:
    """
    Have a worker make this video, from code without an event loop; returns what `enqueue` does.

    Args:
        connection: one of psycopg, or Django's: the request is enqueued when its transaction is committed.

    Raises:
        InvalidRequest, JournalError, KeyConflict, UsageError: as `enqueue` does.
    """
    _check_blocking(connection)
    with connection.cursor() as cursor, explaining():
        cursor.execute(named(_ENQUEUED, schema), _values([_delivery(key, request, to, then)], priority))
        return _added(cursor.fetchone()) == 1


async def _enqueue(
    items: Sequence[Delivery],
    priority: int,
    connection: psycopg.AsyncConnection[Any] | None,
    database: str | None,
    schema: str,
) -> int:
    if connection is not None:
        _check_async(connection)
        return await put(items, connection, schema=schema, priority=priority)
    async with connected(address_of(database, schema)) as own, own.transaction():
        return await put(items, own, schema=schema, priority=priority)


async def put(
    items: Sequence[Delivery], connection: psycopg.AsyncConnection[Any], *, schema: str, priority: int = 0
) -> int:
    """
    Enqueue deliveries, a thousand in one statement; returns how many were added.
    """
    added = 0
    async with connection.cursor(row_factory=tuple_row) as cursor:
        for start in range(0, len(items), _AT_ONCE):
            with explaining():
                values = _values(items[start : start + _AT_ONCE], priority)
                await cursor.execute(named(_ENQUEUED, schema), values)
            added += _added(await cursor.fetchone())
    return added


def delivery(key: str, request: str, **arguments: str | None) -> Delivery:
    """
    Describe a delivery, with a request as JSON text; arguments that are None are left out.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    args = {"key": stored(key), "request": request, **given}
    return {"digest": digest(key), "lock": lock_of(key), "args": args}


def lock_of(key: str) -> str:
    """
    Return the lock that the deliveries of a key have in common.
    """
    return f"veo:{digest(key)}"


def _delivery(key: str, request: Request, to: str | None, then: str | None) -> Delivery:
    if not key:
        raise InvalidRequest("key must be a string that is not empty")
    if to is not None:
        _check_inside(to)
    if any(map(is_name, getattr(request, "image_urls", ()))):
        raise InvalidRequest(
            "a worker has no picture of this machine: put it on the web and pass its https address"
        )
    return delivery(key, dump_request(request), to=to, then=then)


def _check_inside(to: str) -> None:
    path = PurePosixPath(to)
    if path.is_absolute() or ".." in path.parts or not path.name or "\\" in to or "\0" in to:
        raise InvalidRequest(f"`to` must be a file's path inside the worker's directory, not {to!r}")


def _check_async(connection: object) -> None:
    if isinstance(connection, psycopg.AsyncConnection):
        return
    advice = "of SQLAlchemy's with postgresql+psycopg pass (await connection.get_raw_connection()).driver_connection"
    if isinstance(connection, psycopg.Connection):
        advice = "that is for enqueue_blocking"
    raise UsageError(f"connection must be a psycopg.AsyncConnection, not {_class_of(connection)}: {advice}")


def _check_blocking(connection: object) -> None:
    # Django's has the vendor, also behind the proxy `django.db.connection`.
    if isinstance(connection, psycopg.Connection) or getattr(connection, "vendor", None) == "postgresql":
        return
    advice = "of SQLAlchemy's with postgresql+psycopg pass connection.connection.driver_connection"
    if isinstance(connection, psycopg.AsyncConnection):
        advice = "that is for enqueue"
    raise UsageError(
        f"connection must be a psycopg.Connection, or Django's, not {_class_of(connection)}: {advice}"
    )


def _class_of(it: object) -> str:
    return f"{type(it).__module__}.{type(it).__qualname__}"


def _values(items: Sequence[Delivery], priority: int) -> dict[str, object]:
    return {"queue": QUEUE, "task": TASK, "priority": priority, "items": json.dumps(items)}


def _added(row: Any) -> int:
    answer = next(iter(row.values())) if isinstance(row, Mapping) else row[0]
    answer = json.loads(answer) if isinstance(answer, str) else answer  # Django leaves JSON as text
    if "conflict" in answer:
        raise key_conflict(answer["conflict"])
    return int(answer["added"])

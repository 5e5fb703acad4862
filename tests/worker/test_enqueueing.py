"""
A request is enqueued with the caller's transaction, once per key.
"""

from __future__ import annotations

import asyncio

import psycopg
import psycopg.types.string
import pytest

from tests.platform.pictures import JPEG
from tests.postgres.server import Postgres, do
from tests.worker.stage import requests, until
from veo_async import (
    ConfigurationError,
    ImageToVideo,
    InvalidRequest,
    JournalError,
    KeyConflict,
    TextToVideo,
    UsageError,
)
from veo_async.worker import enqueue, enqueue_blocking, enqueue_many
from veo_async.worker.database import DATABASE

BLOCKED = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
WHALE, OWL = TextToVideo("a whale"), TextToVideo("an owl")


def keys(dsn: str) -> list[str]:
    """
    What waits in the queue, in the order of delivery.
    """
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT args ->> 'key' FROM procrastinate_jobs WHERE status = 'todo' ORDER BY priority DESC, id"
        )
        return [key for (key,) in rows]


async def test_what_is_rolled_back_was_never_enqueued(database: str) -> None:
    """The caller's transaction decides, also when one of its statements enqueues what waits already."""
    connection = await psycopg.AsyncConnection.connect(database)
    async with connection:
        assert await enqueue(WHALE, key="whale", connection=connection)
        await connection.rollback()
        assert [] == keys(database)
        assert await enqueue(WHALE, key="whale", connection=connection)
        assert not await enqueue(WHALE, key="whale", connection=connection)
        assert [] == keys(database)
    assert ["whale"] == keys(database)


def test_code_without_a_loop_enqueues_on_its_connection(database: str) -> None:
    """The same holds for a blocking connection, also for one that returns rows as mappings."""
    with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
        assert enqueue_blocking(WHALE, key="whale", connection=connection)
        connection.rollback()
        assert enqueue_blocking(WHALE, key="whale", connection=connection)
        with pytest.raises(KeyConflict):
            enqueue_blocking(OWL, key="whale", connection=connection)
    assert ["whale"] == keys(database)


class Foreign:
    """
    Another library's connection.
    """


async def test_only_a_connection_of_psycopg_will_do(database: str) -> None:
    """The error says what to pass of SQLAlchemy's, or names the function for the other kind of connection."""
    with pytest.raises(UsageError, match=r"not tests.worker.test_enqueueing.Foreign: .*get_raw_connection"):
        await enqueue(WHALE, key="whale", connection=Foreign())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"not tests.worker.test_enqueueing.Foreign: .*driver_connection"):
        enqueue_blocking(WHALE, key="whale", connection=Foreign())
    with psycopg.connect(database) as blocking, pytest.raises(UsageError, match="enqueue_blocking"):
        await enqueue_many([("whale", WHALE)], connection=blocking)  # type: ignore[arg-type]
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(UsageError, match=r"not psycopg\.AsyncConnection: that is for enqueue$"):
            enqueue_blocking(WHALE, key="whale", connection=connection)
    assert [] == keys(database)


class Django:
    """
    As much of Django's connection as is used; its rows have JSON as text.
    """

    vendor = "postgresql"

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def cursor(self) -> psycopg.Cursor:
        made = self._connection.cursor()
        made.adapters.register_loader("jsonb", psycopg.types.string.TextLoader)
        return made


def test_a_connection_of_django_will_do(database: str) -> None:
    """It is known by its vendor, since it is no psycopg connection itself."""
    with psycopg.connect(database) as connection:
        assert enqueue_blocking(WHALE, key="whale", connection=Django(connection))
        assert not enqueue_blocking(WHALE, key="whale", connection=Django(connection))
    assert ["whale"] == keys(database)


async def test_a_thousand_keys_and_more_are_enqueued_at_once(database: str) -> None:
    """All of them, in their order, but those that wait already."""
    assert 1 == await enqueue_many([("key 7", TextToVideo("prompt 3"))], priority=1)
    assert 2_499 == await enqueue_many(requests(2_500))
    found = keys(database)
    assert "key 7" == found[0]
    assert {key for key, _ in requests(2_500)} == set(found)


async def test_a_key_for_two_requests_is_a_conflict(database: str) -> None:
    """Nothing of the second call is enqueued, and the transaction of the caller goes on."""
    await enqueue(WHALE, key="whale")
    async with await psycopg.AsyncConnection.connect(database) as connection:
        with pytest.raises(KeyConflict) as conflict:
            await enqueue_many([("owl", OWL), ("whale", OWL)], connection=connection)
        assert "whale" == conflict.value.key
        await enqueue(OWL, key="another", connection=connection)
    assert ["whale", "another"] == keys(database)


async def test_of_two_transactions_with_one_key_the_second_is_in_conflict(database: str) -> None:
    """It waits for the first one, and then knows."""
    async with await psycopg.AsyncConnection.connect(database) as first:
        await enqueue(WHALE, key="whale", connection=first)
        second = asyncio.create_task(enqueue(OWL, key="whale"))
        await until(lambda: do(database, BLOCKED))
        await first.commit()
        with pytest.raises(KeyConflict):
            await second
    assert ["whale"] == keys(database)


@pytest.mark.parametrize("to", ["/etc/passwd", "../whale.mp4", "clips/../../whale.mp4", "", ".", "a\\b.mp4"])
async def test_a_file_stays_in_the_workers_directory(database: str, to: str) -> None:
    """Whoever may enqueue may not write elsewhere."""
    with pytest.raises(InvalidRequest, match="inside the worker's directory"):
        await enqueue(WHALE, key="whale", to=to)
    assert [] == keys(database)


@pytest.mark.parametrize("key", ["", "a" * 20_000, "line\nbreak", "\0", "\ud800", "鯨"])
async def test_any_text_is_a_key_but_none(database: str, key: str) -> None:
    """Long ones, and those that PostgreSQL could not store as they are, too."""
    if not key:
        with pytest.raises(InvalidRequest):
            await enqueue(WHALE, key=key)
        return
    assert await enqueue(WHALE, key=key)
    assert not await enqueue(WHALE, key=key)


async def test_a_database_without_a_queue_names_the_command(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that is not named at all name its variable."""
    with pytest.raises(JournalError, match="veo-async queue init"):
        await enqueue(WHALE, key="whale", database=postgres.dsn, schema="nowhere")
    monkeypatch.delenv(DATABASE, raising=False)
    with pytest.raises(ConfigurationError, match=DATABASE):
        await enqueue(WHALE, key="whale")


async def test_a_picture_of_this_machine_is_not_enqueued(database: str) -> None:
    """The worker that gets the request may be on another machine."""
    with pytest.raises(InvalidRequest, match="put it on the web and pass its https address"):
        await enqueue(ImageToVideo("she turns", [JPEG]), key="k", database=database)
    assert [] == keys(database)

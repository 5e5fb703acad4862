"""
Where the queue is: the database with the journal's tables and procrastinate's.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import psycopg
from procrastinate.schema import SchemaManager

from .. import ConfigurationError, JournalError, KeyConflict, PostgresJournal
from .._journal.postgres_connection import Address, Connection, explain
from .._journal.postgres_rows import readable

__all__ = ["DATABASE", "address_of", "connected", "explaining", "install", "key_conflict"]

DATABASE: Final = "VEO_ASYNC_DATABASE"
_CONFLICT: Final = "VEO04"
_NO_TABLES: Final = ("3F000", "42P01", "42883")  # no such schema, relation or function


def address_of(database: str | None, schema: str) -> Address:
    """
    Return the address of the queue; falls back to `VEO_ASYNC_DATABASE`.

    Raises:
        ConfigurationError: there is no address, or it cannot be used.
    """
    dsn = database or os.environ.get(DATABASE)
    if not dsn:
        raise ConfigurationError(f"no database: pass its postgresql:// address, or set {DATABASE}")
    return Address(dsn, schema)


def key_conflict(stored_key: str) -> KeyConflict:
    """
    Make the error for a key, as it is stored, that stands for a different request.
    """
    key = readable(stored_key)
    return KeyConflict(f"the key {key!r} stands for a different request already", key=key)


@contextmanager
def explaining(address: Address | None = None) -> Iterator[None]:
    """
    In the block, explain the errors of the database; without an address only the lack of tables.

    Raises:
        JournalError: the database cannot be reached, or lacks the tables.
        KeyConflict: a key stands for a different request.
    """
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate in _NO_TABLES:
            raise JournalError("the database has no queue: make it with `veo-async queue init`") from error
        if error.sqlstate == _CONFLICT:
            raise key_conflict(str(error.diag.message_primary)) from error
        if address is None:
            raise
        raise explain(address, error) from error


@asynccontextmanager
async def connected(address: Address) -> AsyncIterator[Connection]:
    """
    Open a connection for the block, and explain the errors in it.
    """
    with explaining(address):
        connection = await address.connect()
        try:
            yield connection
        finally:
            await connection.close()


async def install(database: str | None = None, *, schema: str = "veo") -> None:
    """
    Make the journal's tables and procrastinate's, or bring the journal's up to date; see `veo-async queue init`.

    procrastinate's tables are only made if there are none: other programs may use them, too.

    Raises:
        ConfigurationError: there is no address, or it cannot be used.
        JournalError: the server cannot be reached, or does not allow it.
    """
    address = address_of(database, schema)
    await PostgresJournal(address.dsn, schema=schema).install()
    async with connected(address) as connection, connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtext('procrastinate'))")
        found = await connection.execute("SELECT to_regclass('procrastinate_jobs') IS NULL")
        if (await found.fetchall())[0][0]:
            await connection.execute(SchemaManager.get_schema())

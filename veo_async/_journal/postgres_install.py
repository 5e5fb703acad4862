"""
Makes the schema, brings it up to date, and finds the account in it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, Final

import psycopg

from ..errors import ConfigurationError, JournalError
from .postgres_connection import Address, Connection, explain
from .postgres_schema import MIGRATIONS

__all__ = ["account_of", "install"]

_META: Final = "SELECT version, salt, system, incomplete FROM SCHEMA.meta"
# A server shares it with its replicas; a restored dump is on a server with another one. Not every server tells it.
_SYSTEM: Final = "SELECT system_identifier::text FROM pg_control_system()"


async def install(address: Address) -> None:
    """
    Make the schema, or bring it up to date; repeating it is harmless.

    Raises:
        ConfigurationError: the database's encoding cannot hold every text.
        JournalError: the server cannot be reached or does not allow it, or the schema is a later version's.
    """
    try:
        connection = await address.connect()
        try:
            async with connection.transaction():
                await _install(address, connection)
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise explain(address, error) from error


async def _install(address: Address, connection: Connection) -> None:
    [encoding] = await _row(connection, "SHOW server_encoding")
    if encoding != "UTF8":
        raise ConfigurationError(
            f"the database of journal {address} is encoded in {encoding}: make one in UTF8"
        )
    await connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"veo_async {address.schema}"])
    [has_meta] = await _row(connection, f"SELECT to_regclass('{address.schema}.meta') IS NOT NULL")
    version = (await _row(connection, address.sql(_META)))[0] if has_meta else 0
    _check_not_newer(address, version)
    if not has_meta:
        await connection.execute(address.sql("CREATE schema IF NOT EXISTS SCHEMA"))
    for migration in MIGRATIONS[version:]:
        await connection.execute(address.sql(migration))
    if not has_meta:
        await connection.execute(address.sql("INSERT INTO SCHEMA.meta VALUES (0, %s)"), [os.urandom(32)])
    # Running the installation confirms that this server, and no other, has all facts.
    values = [len(MIGRATIONS), await _system(connection)]
    await connection.execute(
        address.sql("UPDATE SCHEMA.meta SET version = %s, system = %s, incomplete = false"), values
    )


async def account_of(address: Address, token: str) -> int:
    """
    Return the id of this token's account; only a salted hash of the token is kept.

    Raises:
        JournalError: the server cannot be reached, or has no usable schema.
    """
    try:
        connection = await address.connect()
        try:
            return await _account_of(address, connection, token)
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise explain(address, error) from error


async def _account_of(address: Address, connection: Connection, token: str) -> int:
    version, salt, system, incomplete = await _row(connection, address.sql(_META))
    _check_not_newer(address, version)
    if version < len(MIGRATIONS):
        raise JournalError(f"journal {address} is an earlier version's: run `veo-async queue init`")
    if (here := await _system(connection)) and system and here != system:
        raise JournalError(
            f"journal {address} is a copy: whatever it does not know of would be bought again; if only this copy is"
            " in use, run `veo-async queue init`"
        )
    if incomplete:
        raise JournalError(
            f"journal {address} has lost facts, and could buy again what it has forgotten: check what the account"
            " was charged for, then run `veo-async queue init`"
        )
    values = [hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=salt, digest_size=32).digest()]
    await connection.execute(
        address.sql("INSERT INTO SCHEMA.account (digest) VALUES (%s) ON CONFLICT DO NOTHING"), values
    )
    found = await connection.execute(address.sql("SELECT id FROM SCHEMA.account WHERE digest = %s"), values)
    return int((await found.fetchall())[0][0])


def _check_not_newer(address: Address, version: int) -> None:
    if version > len(MIGRATIONS):
        raise JournalError(f"journal {address} was made by a newer veo_async: upgrade")


async def _system(connection: Connection) -> str | None:
    try:
        async with connection.transaction():
            [system] = await _row(connection, _SYSTEM)
    except psycopg.errors.InsufficientPrivilege:
        return None
    return str(system)


async def _row(connection: Connection, statement: str) -> tuple[Any, ...]:
    return (await (await connection.execute(statement)).fetchall())[0]

"""
`veo-async queue`, against a real PostgreSQL.
"""

from __future__ import annotations

import asyncio
import re
from uuid import uuid4

import pytest

from tests.postgres.server import Postgres, do
from veo_async import JournalError, PostgresJournal

from ..terminal import invoke


def test_a_journal_is_set_up_once_and_again(postgres: Postgres, token: str) -> None:
    """The error of a journal without tables names the command, which makes them, and does no harm later."""
    schema = f"veo_{uuid4().hex[:12]}"

    async def use() -> None:
        journal = PostgresJournal(postgres.dsn, schema=schema)
        await journal.open(token)
        await journal.close()

    with pytest.raises(JournalError, match="veo-async queue init"):
        asyncio.run(use())
    try:
        for _ in range(2):
            made = invoke(
                "queue", "init", "--schema", schema, environment={"VEO_ASYNC_DATABASE": postgres.dsn}
            )
            assert 0 == made.status
            assert re.fullmatch(r"<PostgresJournal .*> is ready\n", made.err)
            assert "a-secret-password" not in made.err
            asyncio.run(use())
    finally:
        do(postgres.dsn, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


def test_a_database_that_is_not_there() -> None:
    """It is said in a sentence, without the password, and with the status of what failed."""
    failed = invoke("queue", "init", "--database", "postgresql://me:hidden@127.0.0.1:1/none")
    assert 1 == failed.status
    assert "127.0.0.1" in failed.err
    assert "hidden" not in failed.err

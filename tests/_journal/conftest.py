"""
Journals for the tests of this folder.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.postgres.server import Postgres
from tests.postgres.sessions import Shared, sharing
from veo_async import Journal
from veo_async._journal.journal import AnyJournal
from veo_async._journal.postgres import PostgresJournal


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """
    Where a journal's file may be.
    """
    return tmp_path / "batch.db"


@pytest.fixture(params=["thread", "inline", "postgres"])
def closed(path: Path, request: pytest.FixtureRequest) -> AnyJournal:
    """
    A journal of each kind, not open yet.
    """
    if request.param != "postgres":
        return Journal(path, inline=request.param == "inline")
    server, schema = map(request.getfixturevalue, ("postgres", "schema"))
    return PostgresJournal(server.dsn, schema=schema)


@pytest.fixture
async def journal(closed: AnyJournal, token: str) -> AsyncIterator[AnyJournal]:
    """
    An open journal of each kind.
    """
    await closed.open(token)
    yield closed
    await closed.close()


@pytest.fixture
async def shared(postgres: Postgres, schema: str, token: str) -> AsyncIterator[Shared]:
    """
    A journal in PostgreSQL, for sessions of one account.
    """
    async with sharing(postgres, schema, token) as shared:
        yield shared

"""
A queue of each test's own, and what works on it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from tests.postgres.server import Postgres, do
from tests.worker.stage import Stage, staged
from veo_async.worker.database import DATABASE, install


@pytest.fixture
async def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """
    The address of a database with a queue, which VEO_ASYNC_DATABASE names, too.
    """
    name = f"veo_{uuid4().hex[:12]}"
    do(postgres.dsn, f"CREATE DATABASE {name}")
    dsn = postgres.dsn.replace("/postgres?", f"/{name}?")
    monkeypatch.setenv(DATABASE, dsn)
    await install()
    yield dsn
    do(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    """
    A queue, and a simulated server.
    """
    async with staged(database) as stage:
        yield stage

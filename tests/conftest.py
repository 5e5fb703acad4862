"""
What many test files use.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.virtual.scripted import Options
from veo_async import Journal

if TYPE_CHECKING:  # most tests need none
    from tests.postgres.server import Postgres

pytest_plugins = ("veo_async.testing.plugin",)

# A shell has its background jobs ignore Ctrl-C; the tests of it work there, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(params=["without a journal", "with a journal"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    """
    A session's options, made anew for each: what is promised holds with a journal and without one.
    """
    journalled = request.param == "with a journal"
    return lambda: {"journal": Journal(tmp_path / "batch.db", inline=True)} if journalled else {}


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """
    A PostgreSQL of the tests' own, or the one that VEO_ASYNC_TEST_DATABASE names.
    """
    from tests.postgres.server import a_server

    with a_server() as server:
        yield server


@pytest.fixture(scope="session")
def schema(postgres: Postgres) -> Iterator[str]:
    """
    The name of an installed schema; each test has an account of its own in it.
    """
    from tests.postgres.server import do
    from veo_async._journal.postgres import PostgresJournal

    name = f"veo_{uuid4().hex[:12]}"
    asyncio.run(PostgresJournal(postgres.dsn, schema=name).install())
    yield name
    do(postgres.dsn, f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
async def database(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """
    The address of a database of the test's own with a queue in it; VEO_ASYNC_DATABASE names it, too.
    """
    from tests.postgres.server import do
    from veo_async.worker.database import DATABASE, install

    name = f"veo_{uuid4().hex[:12]}"
    do(postgres.dsn, f"CREATE DATABASE {name}")
    dsn = postgres.dsn.replace("/postgres?", f"/{name}?")
    monkeypatch.setenv(DATABASE, dsn)
    await install()
    yield dsn
    do(postgres.dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def token() -> str:
    """
    The token of an account that no other test has.
    """
    return uuid4().hex

"""
A journal whose server is replaced by its replica, which knows all, or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests._journal.lives import accepted, intended, sending, settled
from tests.postgres.server import Postgres, Server, do
from veo_async._journal.postgres import PostgresJournal
from veo_async.errors import JournalError


@frozen
class Pair:
    """
    A server and its replica; the address names both.
    """

    primary: Server
    replica: Server

    @property
    def dsn(self) -> str:
        return f"postgresql://veo@/postgres?host={self.primary.directory},{self.replica.directory}"

    def is_abreast(self) -> bool:
        """
        Tell whether the replica has everything that the server has.
        """
        [(place,)] = do(self.primary.dsn, "SELECT pg_current_wal_lsn()")
        [(has,)] = do(self.replica.dsn, f"SELECT pg_last_wal_replay_lsn() >= '{place}'")
        return bool(has)

    def fail_over(self) -> None:
        """
        Lose the server, and go on with the replica.
        """
        self.primary.stop()
        self.replica.promote()


@pytest.fixture
def pair(postgres: Postgres) -> Iterator[Pair]:
    if not isinstance(postgres, Server):
        pytest.skip("the server is not the tests' own")
    pair = Pair(Server(postgres.programs), Server(postgres.programs))
    pair.primary.create()
    try:
        pair.replica.follow(pair.primary)
        yield pair
    finally:
        for server in (pair.primary, pair.replica):
            server.remove()


async def test_a_replica_that_knows_all_takes_over(pair: Pair, token: str) -> None:
    """A fail-over that loses nothing is an outage like any other: the journal goes on, its keys still its own."""
    journal = PostgresJournal(pair.dsn)
    await journal.install()
    await journal.open(token)
    await journal.write(intended(), sending())
    while not pair.is_abreast():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    await asyncio.to_thread(pair.fail_over)
    await journal.write(accepted(), settled())
    assert journal.failure is None
    assert [("t",)] == do(pair.replica.dsn, "SELECT task_id FROM veo.job")
    await journal.close()


async def test_a_replica_that_lags_behind_is_not_trusted(pair: Pair, token: str) -> None:
    """A fail-over that loses what was acknowledged ends the journal: what is not known would be bought again."""
    journal = PostgresJournal(pair.dsn)
    await journal.install()
    await journal.open(token)
    await asyncio.to_thread(pair.replica.stop)
    await journal.write(intended(), sending())
    await asyncio.to_thread(pair.primary.stop)
    await asyncio.to_thread(pair.replica.start)
    await asyncio.to_thread(pair.replica.promote)
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.write(accepted())
    assert not journal.may_send("k")
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.close()

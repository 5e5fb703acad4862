"""
A journal whose server goes away, comes back, or comes back with less than it had.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator

import pytest

from tests._journal.lives import accepted, intended, sending, settled
from tests.postgres.server import Postgres, Server
from tests.postgres.sessions import Shared, item, session_of, sharing
from veo_async._journal.facts import Elsewhere, Fresh, Known
from veo_async._journal.postgres import PostgresJournal
from veo_async.errors import JournalError


@pytest.fixture
def server(postgres: Postgres) -> Server:
    """
    A server that may be stopped.
    """
    if not isinstance(postgres, Server):
        pytest.skip("the server is not the tests' own")
    return postgres


@pytest.fixture
async def shared(server: Server, schema: str, token: str) -> AsyncIterator[Shared]:
    async with sharing(server, schema, token) as shared:
        yield shared


async def live(journal: PostgresJournal, name: str, done: list[str], until: asyncio.Event) -> None:
    """
    Write one life after another, and say of each that it is durable.
    """
    number = 0
    while not until.is_set():
        key = f"{name} {number}"
        for fact in (intended(key), sending(key), accepted(key, f"t {key}"), settled(key)):
            await journal.write(fact)
        done.append(key)
        number += 1


async def at_least(count: int, done: list[str]) -> None:
    while len(done) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("mode", ["immediate", "fast"])
async def test_a_restart_of_the_server_is_waited_for(shared: Shared, server: Server, mode: str) -> None:
    """Ten writers go on after it as if nothing had been: no error, no failure, no fact twice, none lost."""
    journal, done, until = await shared.session(), list[str](), asyncio.Event()
    writers = [asyncio.create_task(live(journal, str(number), done, until)) for number in range(10)]
    for _ in range(2):
        await at_least(len(done) + 50, done)
        await asyncio.to_thread(server.stop, mode)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(server.start)
    await at_least(len(done) + 50, done)
    until.set()
    await asyncio.gather(*writers)
    found = await journal.find_many(done)
    assert [True] * len(done) == [found[key].settled_at is not None for key in done]
    assert [(len(done),)] == shared.sql(
        f"SELECT count(*) FROM SCHEMA.job WHERE account = (SELECT account FROM SCHEMA.session WHERE id = {session_of(journal)})"
    )
    assert journal.failure is None


async def test_connections_that_break_are_made_again(shared: Shared) -> None:
    """Every connection of every session is cut, many times, while writers write, renew and listen."""
    journal, other = await shared.session(lease=2.0), await shared.session()
    done, until = list[str](), asyncio.Event()
    writers = [asyncio.create_task(live(journal, str(number), done, until)) for number in range(5)]
    for _ in range(5):
        await at_least(len(done) + 5, done)
        shared.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'veo_async'"
        )
    until.set()
    await asyncio.gather(*writers)
    assert set(done) == set(await other.find_many(done))
    assert {True} == {isinstance(one, Known) for one in await other.take_in([item(key) for key in done])}


async def test_listening_goes_on_after_an_outage(shared: Shared, server: Server) -> None:
    """Who waits looks at all keys once the server is back, and hears of what settles then."""
    first, second = await shared.session(), await shared.session()
    await first.take_in([item()])
    assert set() == await second.changed()
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    assert set() == await second.changed()
    await first.write(sending(), accepted(), settled())
    assert {"k"} == await second.changed()


async def test_nobody_is_declared_dead_right_after_the_servers_start(shared: Shared, server: Server) -> None:
    """Sessions whose leases ran out while the server was away have one lease from its start to come back."""
    first, second = await shared.session(), await shared.session()
    assert [Fresh()] == await first.take_in([item()])
    await asyncio.to_thread(server.stop)
    await asyncio.to_thread(server.start)
    mine = f"WHERE id = {session_of(first)}"
    shared.sql(f"UPDATE SCHEMA.session SET expires_at = clock_timestamp() - interval '1 h' {mine}")
    assert isinstance((await second.take_in([item()]))[0], Elsewhere)
    assert [] == await second.unsettled()
    shared.sql(f"UPDATE SCHEMA.session SET expires_at = '-infinity', lease = '0 s' {mine}")
    assert isinstance((await second.take_in([item()]))[0], Fresh)


async def test_a_server_that_has_forgotten_is_not_trusted(
    shared: Shared, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """One that comes back without what it had acknowledged ends the journal, for ever and at CRITICAL."""
    journal = shared.journal()
    await journal.open(shared.token)
    await journal.take_in([item("before")])
    await asyncio.to_thread(server.stop, "fast")
    shutil.copytree(server.data, server.directory / "earlier")
    await asyncio.to_thread(server.start)
    await journal.write(sending("before"))
    assert journal.may_send("before")
    await asyncio.to_thread(put_back, server)
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.write(accepted("before"))
    assert not journal.may_send("before")
    assert "has lost facts" in str(journal.failure)
    assert logging.CRITICAL in {record.levelno for record in caplog.records}
    for act in (journal.write(intended("after")), journal.take_in([item("after")]), journal.close()):
        with pytest.raises(JournalError, match="has lost facts"):
            await act
    assert [] == shared.sql("SELECT id FROM SCHEMA.job WHERE key = 'after'")
    with pytest.raises(JournalError, match=r"has lost facts.*queue init"):
        await journal.open(shared.token)
    await journal.install()  # somebody has seen to it
    await journal.open(shared.token)
    await journal.close()


async def test_what_one_session_misses_stops_all(shared: Shared, server: Server) -> None:
    """Another session, which misses nothing of its own, does not buy what the server no longer knows of."""
    journal, other = shared.journal(), shared.journal()
    for one in (journal, other):
        await one.open(shared.token)
    await asyncio.to_thread(server.stop, "fast")
    shutil.copytree(server.data, server.directory / "earlier")
    await asyncio.to_thread(server.start)
    await journal.take_in([item()])
    await asyncio.to_thread(put_back, server)
    for one in (journal, other):
        with pytest.raises(JournalError, match="has lost facts"):
            await one.take_in([item()])
        with pytest.raises(JournalError, match="has lost facts"):
            await one.close()
    await journal.install()


def put_back(server: Server) -> None:
    """
    Let the server come back as it was earlier.
    """
    server.stop()
    shutil.rmtree(server.data)
    # Moved, not copied, so that all of it is still the server's own.
    (server.directory / "earlier").rename(server.data)
    server.own()
    server.start()


async def test_an_idle_session_finds_out_that_the_server_has_forgotten(
    shared: Shared, server: Server
) -> None:
    """Also without a fact to write, its renewal tells it, and nothing more is sent."""
    journal = shared.journal(lease=2.0)
    await journal.open(shared.token)
    await asyncio.to_thread(server.stop, "fast")
    shutil.copytree(server.data, server.directory / "earlier")
    await asyncio.to_thread(server.start)
    await journal.take_in([item()])
    await asyncio.to_thread(put_back, server)
    while journal.failure is None:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.close()
    await journal.install()


@pytest.mark.parametrize("loss", ["SET written = 0", None], ids=["batch", "row"])
async def test_a_loss_shows_without_a_new_connection(shared: Shared, loss: str | None) -> None:
    """Behind a pooler another server may answer over the old connection: its answers tell."""
    journal = shared.journal()
    await journal.open(shared.token)
    await journal.take_in([item()])
    await journal.write(sending())
    row = f"WHERE id = {session_of(journal)}"
    shared.sql(f"UPDATE SCHEMA.session {loss} {row}" if loss else f"DELETE FROM SCHEMA.session {row}")
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.write(accepted())
    assert not journal.may_send("k")
    with pytest.raises(JournalError, match="has lost facts"):
        await journal.close()


async def test_closing_waits_for_the_server_for_one_lease(shared: Shared, server: Server) -> None:
    """What could not be written by then is an error of its writer's and of `close`, not a wait for ever."""
    journal = shared.journal(lease=0.5)
    await journal.open(shared.token)
    await asyncio.to_thread(server.stop)
    try:
        writing = asyncio.create_task(journal.write(intended()))
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="could not be reached"):
            await journal.close()
        with pytest.raises(JournalError, match="could not be reached"):
            await writing
    finally:
        await asyncio.to_thread(server.start)


async def test_closing_within_an_outage_writes_what_is_left(shared: Shared, server: Server) -> None:
    """A server that is back in time gets everything, and the keys are handed back."""
    journal, other = shared.journal(), await shared.session()
    await journal.open(shared.token)
    await asyncio.to_thread(server.stop)
    writing = asyncio.create_task(journal.write(intended()))
    await asyncio.sleep(0)
    closing = asyncio.create_task(journal.close())
    await asyncio.to_thread(server.start)
    await asyncio.gather(writing, closing)
    assert ["k"] == [entry.key for entry in await other.unsettled()]


async def test_a_cancelled_closing_ends(shared: Shared, server: Server) -> None:
    """Whoever has no patience with a server that is away cancels, and leaves no task behind."""
    journal = shared.journal()
    await journal.open(shared.token)
    await asyncio.to_thread(server.stop)
    try:
        writing = asyncio.create_task(journal.write(intended()))
        await asyncio.sleep(0)
        closing = asyncio.create_task(journal.close())
        await asyncio.sleep(0.1)
        closing.cancel()
        results = await asyncio.gather(closing, writing, return_exceptions=True)
        assert [asyncio.CancelledError, JournalError] == [type(one) for one in results]
        assert 1 == len(asyncio.all_tasks())
    finally:
        await asyncio.to_thread(server.start)

"""
Making the schema, opening it, and what is shown and kept of secrets.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests._journal.lives import accepted, intended, sending, settled
from tests.postgres.server import Postgres, Server, do
from tests.postgres.sessions import Shared, item
from veo_async._journal import postgres_install
from veo_async._journal.account_limits import AccountLimits
from veo_async._journal.facts import HeldBack, Known
from veo_async._journal.postgres import PostgresJournal
from veo_async._journal.postgres_rows import fact_row, item_row
from veo_async._journal.postgres_schema import MIGRATIONS
from veo_async.errors import ConfigurationError, JournalError, UsageError

PASSWORD = "a-secret-password"


@pytest.fixture
def new(postgres: Postgres) -> Iterator[PostgresJournal]:
    """
    A journal whose schema is not there yet.
    """
    schema = f"veo_{uuid4().hex[:12]}"
    yield PostgresJournal(postgres.dsn, schema=schema)
    do(postgres.dsn, f"DROP SCHEMA IF EXISTS {schema} CASCADE")


async def refusal(journal: PostgresJournal, token: str) -> str:
    with pytest.raises(JournalError) as caught:
        await journal.open(token)
    return str(caught.value)


async def test_opening_creates_nothing(new: PostgresJournal, token: str) -> None:
    """Where there is no schema the error names the command that makes one, and there still is none."""
    assert "veo-async queue init" in await refusal(new, token)
    assert "veo-async queue init" in await refusal(new, token)


async def test_installing_again_changes_nothing(new: PostgresJournal, token: str) -> None:
    """Several processes may install at once, and again while the journal is in use."""
    await asyncio.gather(*(PostgresJournal(new.dsn, schema=new.schema).install() for _ in range(3)))
    await new.open(token)
    await new.write(intended())
    await new.install()
    await new.write(sending())
    assert ["k"] == [entry.key for entry in await new.unsettled()]
    await new.close()


async def test_a_schema_may_be_there_already(new: PostgresJournal, token: str) -> None:
    """An empty schema that an administrator has made is used."""
    do(new.dsn, f"CREATE SCHEMA {new.schema}")
    await new.install()
    await new.open(token)
    await new.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("version = 1000", "newer veo_async"),
        ("version = 0", "veo-async queue init"),
        ("system = '7'", "is a copy"),
        ("incomplete = true", "has lost facts"),
    ],
)
async def test_a_schema_that_cannot_be_used_is_refused(
    new: PostgresJournal, token: str, change: str, words: str
) -> None:
    """A later or an earlier version's, one restored on another server, and one that has lost facts."""
    await new.install()
    do(new.dsn, f"UPDATE {new.schema}.meta SET {change}")
    assert words in await refusal(new, token)


async def test_a_newer_schema_is_not_installed_over(new: PostgresJournal) -> None:
    """An earlier version leaves a later one's schema as it is."""
    await new.install()
    do(new.dsn, f"UPDATE {new.schema}.meta SET version = 1000")
    with pytest.raises(JournalError, match="newer veo_async"):
        await new.install()


async def test_an_installation_that_fails_leaves_nothing(
    new: PostgresJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The schema is there as a whole, or not at all."""
    with monkeypatch.context() as broken:
        broken.setattr(postgres_install, "MIGRATIONS", [*MIGRATIONS, "SELECT * FROM nowhere"])
        with pytest.raises(JournalError, match="nowhere"):
            await new.install()
    assert [(None,)] == do(new.dsn, f"SELECT to_regclass('{new.schema}.job')")
    await new.install()


async def test_an_earlier_schema_is_brought_up_to_date(
    new: PostgresJournal, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that is open meanwhile goes on, and its facts are kept; what it has sent counts for the limits."""
    with monkeypatch.context() as earlier:
        earlier.setattr(postgres_install, "MIGRATIONS", MIGRATIONS[:1])
        await new.install()
        await new.open(token)
    keys = [f"k{number}" for number in range(8)]
    await new.take_in([item(key) for key in keys])
    for key in keys[:6]:  # often enough for the server to keep its plans
        await new.write(sending(key))
        await new.write(sending(key), sending(key))
    await new.install()
    await new.set_limits(AccountLimits(max_in_flight=7))
    await new.write(sending(keys[6]))
    with pytest.raises(HeldBack):
        await new.write(sending(keys[7]))
    assert set(keys) == {entry.key for entry in await new.unsettled()}
    await new.close()
    await new.open(token)
    assert AccountLimits(max_in_flight=7) == await new.limits()
    await new.close()


@pytest.mark.parametrize("schema", ["", "Veo", "veo; DROP TABLE job", 'a"b', "1st", "x" * 50])
async def test_a_schema_has_a_plain_name(schema: str, token: str) -> None:
    """A name that would have to be quoted is a mistake in the configuration."""
    with pytest.raises(ConfigurationError, match="schema"):
        await PostgresJournal("postgresql://", schema=schema).open(token)


@pytest.mark.parametrize(
    "dsn",
    [f"postgresql://u:{PASSWORD}@h:notaport/d", f"postgresql://u@h/d?passwrd={PASSWORD}", f"x{PASSWORD}"],
)
async def test_an_address_that_is_none_is_not_repeated(dsn: str, token: str) -> None:
    """A mistake in the address is told without the address, which may hold the password anywhere."""
    journal = PostgresJournal(dsn)
    with pytest.raises((ConfigurationError, JournalError)) as caught:
        await journal.open(token)
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in f"{error} {error!r}"
        error = error.__cause__
    assert PASSWORD not in repr(journal)


async def test_a_server_that_is_away_is_named_without_the_password(token: str) -> None:
    """Opening says at once which server it is, and who wanted in."""
    journal = PostgresJournal(f"postgresql://me:{PASSWORD}@/videos?host=/nowhere")
    text = await refusal(journal, token)
    assert "postgresql://me@/nowhere/videos cannot be reached" in text
    assert PASSWORD not in text
    assert "<PostgresJournal 'veo' closed, 0 waiting>" == repr(journal)


async def test_a_dump_holds_no_secret(
    shared: Shared, caplog: pytest.LogCaptureFixture, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Neither the token nor the password is in the database or in the log; the prompts are."""
    if not isinstance(shared.server, Server):
        pytest.skip("the server is not the tests' own")
    journal = await shared.session()
    await journal.take_in([item()])
    await journal.write(sending(), accepted(), settled())
    command = [str(shared.server.programs / "pg_dump"), "-d", make_conninfo(shared.server.dsn)]
    dump = await asyncio.to_thread(subprocess.check_output, command, text=True)
    assert "a whale" in dump
    for secret in (shared.token, PASSWORD):
        assert secret not in dump
        assert secret not in caplog.text
        assert secret not in repr(journal)


async def test_a_journal_is_used_while_it_is_open(shared: Shared) -> None:
    """Before opening and after closing everything is a UsageError, and so is opening twice."""
    journal = shared.journal()
    for _ in range(2):
        for act in (journal.write(intended()), journal.find("k"), journal.unsettled(), journal.changed()):
            with pytest.raises(UsageError, match="not open"):
                await act
        with pytest.raises(UsageError, match="not open"):
            journal.write_soon(intended())
        assert not journal.may_send("k")
        await journal.open(shared.token)
        with pytest.raises(UsageError, match="open already"):
            await journal.open(shared.token)
        await journal.close()
        await journal.close()


def test_a_journal_can_be_opened_in_one_loop_after_another(
    postgres: Postgres, schema: str, token: str
) -> None:
    """The same object serves two runs, and what the first wrote is the second's to go on with."""
    journal = PostgresJournal(postgres.dsn, schema=schema)

    async def run(key: str) -> bool:
        await journal.open(token)
        [first, _] = await journal.take_in([item("a"), item(key)])
        await journal.write(sending(key))
        await journal.close()
        return isinstance(first, Known)

    assert [False, True] == [asyncio.run(run("a")), asyncio.run(run("b"))]


WITHOUT_DRIVER = """
import asyncio, sys
sys.modules["psycopg"] = None
from veo_async._journal.postgres import PostgresJournal
from veo_async.errors import ConfigurationError
journal = PostgresJournal("postgresql://")
for act in (journal.open("token"), journal.install()):
    try:
        asyncio.run(act)
    except ConfigurationError as error:
        print(error)
"""


def test_without_the_driver_the_extra_is_named() -> None:
    """Whoever has not installed it is told what to install."""
    told = subprocess.check_output([sys.executable, "-c", WITHOUT_DRIVER], text=True)
    assert ["a journal in PostgreSQL needs `pip install 'veo-async[postgres]'`"] * 2 == told.splitlines()


@pytest.mark.parametrize(
    "limits", [AccountLimits(), AccountLimits(submits_per_second=1e6, max_in_flight=100)]
)
async def test_plans_made_while_the_tables_are_empty_use_the_indexes(
    new: PostgresJournal, token: str, limits: AccountLimits
) -> None:
    """A server keeps the plans of the functions: none of them reads the whole table, in a batch or one by one."""
    await new.install()
    await new.open(token)
    await new.set_limits(limits)
    row = do(new.dsn, f"SELECT max(id) FROM {new.schema}.session")[0][0]
    with psycopg.connect(new.dsn) as connection:  # all in one transaction, which counts what it reads
        for number in range(10):
            key = f"k{number}"
            entry = json.dumps([item_row(0, item(key))])
            connection.execute(f"SELECT {new.schema}.take_in(%s, %s)", [row, entry])
            for fact in (sending(key), accepted(key, f"t{number}"), settled(key)):
                for works in ([[fact_row(fact)]], [[fact_row(fact)] * 2]):
                    connection.execute(f"SELECT {new.schema}.write(%s, %s)", [row, json.dumps(works)])
        question = "SELECT seq_scan FROM pg_stat_xact_user_tables WHERE schemaname = %s AND relname = 'job'"
        assert [(0,)] == connection.execute(question, [new.schema]).fetchall()
    await new.close()

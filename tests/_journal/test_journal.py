"""
The journal: what it accepts and gives back, which files it opens, and what is left after a crash or a full disk.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests._journal.lives import (
    ACCEPTED,
    SENDING,
    SETTLED,
    TOKEN,
    accepted,
    attempt,
    intended,
    sending,
    settled,
)
from tests._journal.write_ahead import end_of_log
from veo_async._journal import sqlite_file, sqlite_store
from veo_async._journal.batching import Work
from veo_async._journal.facts import (
    Entry,
    Learned,
    TakeIn,
)
from veo_async._journal.sqlite import Journal
from veo_async._journal.sqlite_store import Store
from veo_async.errors import ConfigurationError, JournalError, UsageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batch.db"


@asynccontextmanager
async def opened(path: Path, *, token: str = TOKEN, inline: bool = False) -> AsyncIterator[Journal]:
    journal = Journal(path, inline=inline)
    await journal.open(token)
    try:
        yield journal
    finally:
        await journal.close()


@pytest.fixture(params=["thread", "inline"])
async def journal(path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Journal]:
    async with opened(path, inline=request.param == "inline") as journal:
        yield journal


async def statements(journal: Journal, doing: Callable[[], Any]) -> list[tuple[str, int]]:
    """
    The SQL statements that run while `doing` does, each with the thread it ran on.
    """
    seen: list[tuple[str, int]] = []

    def trace(sql: str) -> None:
        seen.append((sql, threading.get_ident()))

    await journal._ask(lambda store: store.connection.set_trace_callback(trace))
    await doing()
    await journal._ask(lambda store: store.connection.set_trace_callback(None))
    return list(dict.fromkeys(seen))  # those in triggers are traced as the statement that set them off


# --- what SQLite makes of it ---


async def test_entries_outlive_the_session(path: Path) -> None:
    """What was written is there when the file is opened again, and no lock or log file is left between."""
    async with opened(path) as journal:
        await journal.write(intended(), sending(), accepted(), Learned(kind="fast", data="[90]"))
    assert [path.name] == sorted(os.listdir(path.parent))
    async with opened(path) as journal:
        [entry] = await journal.unsettled()
        assert ("k", "t", (attempt(),)) == (entry.key, entry.task_id, entry.attempts)
        assert await journal.learned() == {"fast": "[90]"}


async def test_taking_in_is_all_or_nothing(path: Path) -> None:
    """Where the disk fails, no key was taken in, and the journal says so from then on."""
    journal = Journal(path)
    await journal.open(TOKEN)
    await journal._ask(partial(ask, "PRAGMA max_page_count = 1"))
    with pytest.raises(JournalError, match="full"):
        await journal.take_in([TakeIn(key="k" * 100_000, request="{}", at=1.0)])
    with pytest.raises(JournalError, match="full"):
        await journal.take_in([])
    with pytest.raises(JournalError, match="full"):
        await journal.close()
    async with opened(path) as journal:
        assert await journal.find("k" * 100_000) is None


async def test_writers_of_one_turn_share_a_commit(path: Path) -> None:
    """A hundred facts written at once are one statement, on one thread that is not the loop's."""
    async with opened(path) as journal:

        async def crowd() -> None:
            await asyncio.gather(*(journal.write(intended(str(number))) for number in range(100)))

        seen = await statements(journal, crowd)
        assert 1 == len(seen)
        assert 1 == len({thread for _, thread in seen} - {threading.get_ident()})
        assert 100 == len(await journal.unsettled())


async def test_a_crowd_beyond_one_statement_is_one_transaction(path: Path) -> None:
    """A thousand facts written at once have one BEGIN and one COMMIT."""
    async with opened(path) as journal:

        async def crowd() -> None:
            await asyncio.gather(*(journal.write(intended(str(number))) for number in range(1000)))

        seen = [sql for sql, _ in await statements(journal, crowd)]
        assert ["BEGIN", "COMMIT"] == [seen[0], seen[-1]]
        assert 8 == len(seen[1:-1])
        assert 1000 == len(await journal.unsettled())


async def test_closing_makes_background_facts_durable(path: Path) -> None:
    """What was written soon, right before the end, is in the file."""
    async with opened(path) as journal:
        journal.write_soon(*SENDING)
    async with opened(path) as journal:
        assert 1 == len(await journal.unsettled())


async def test_a_cancelled_writer_loses_no_fact_and_harms_no_other(path: Path) -> None:
    """Cancelling a caller while the commit is under way leaves its fact, and its neighbours', as they are."""
    async with opened(path) as journal:
        tasks = [asyncio.ensure_future(journal.write(intended(key))) for key in "abc"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(None), asyncio.CancelledError, type(None)] == [type(one) for one in results]
        assert ["a", "b", "c"] == [entry.key for entry in await journal.unsettled()]


async def test_a_cancelled_writer_of_a_wrong_fact_is_forgotten(path: Path) -> None:
    """An error for a caller who is gone concerns nobody."""
    async with opened(path) as journal:
        task = asyncio.ensure_future(journal.write(settled()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await journal.write(intended())
        assert journal.failure is None


async def test_a_wrong_fact_in_the_background_shows(path: Path) -> None:
    """A background fact that cannot follow sets `failure`, stops later writes, and is raised by `close`."""
    journal = Journal(path)
    await journal.open(TOKEN)
    journal.write_soon(settled())
    assert None is await journal.find("k")
    assert "cannot follow" in str(journal.failure)
    with pytest.raises(JournalError, match="cannot follow"):
        await journal.write(intended())
    journal.write_soon(intended())
    assert [] == await journal.unsettled()
    with pytest.raises(JournalError, match="cannot follow"):
        await journal.close()
    await journal.close()
    await journal.open(TOKEN)
    assert journal.failure is None
    await journal.close()


async def test_a_loop_that_is_never_idle_gives_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a commit takes long, the loop sleeps for an instant now and then, so that the thread gets a turn."""
    gave_way = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda seconds: gave_way.set())
    async with opened(path) as journal:
        assert await journal._ask(lambda store: gave_way.wait(60))
        assert journal._next_yield is not None
        assert journal._next_yield.cancelled()


async def test_a_loop_that_is_never_idle_gets_its_facts_down(path: Path) -> None:
    """A hundred facts one after the other become durable beside a coroutine that never lets the loop wait."""
    async with opened(path) as journal:
        done = asyncio.Event()

        def hog() -> None:
            if not done.is_set():
                asyncio.get_running_loop().call_soon(hog)

        hog()
        for number in range(100):
            await journal.write(intended(str(number)))
        done.set()
        assert 100 == len(await journal.unsettled())


# --- opening and closing ---------------------------------------------------------------------------------


async def test_only_the_owner_may_read_the_file(path: Path) -> None:
    """The file and its log are created for their owner alone."""
    async with opened(path) as journal:
        await journal.write(intended())
        modes = {one.name: one.stat().st_mode & 0o777 for one in path.parent.iterdir()}
    assert modes == {"batch.db": 0o600, "batch.db-wal": 0o600}


def ask(query: str, store: Store) -> Any:
    """
    Ask SQLite itself for one row.
    """
    return store.connection.execute(query).fetchone()


async def test_commits_are_synchronised(path: Path) -> None:
    """The file uses a write-ahead log, syncs every commit, and is locked against all others."""
    async with opened(path) as journal:
        for pragma, expected in (("journal_mode", "wal"), ("synchronous", 2), ("locking_mode", "exclusive")):
            query = f"PRAGMA {pragma}"
            [value] = await journal._ask(partial(ask, query))
            assert expected == value


def test_a_journal_can_be_opened_in_one_loop_after_another(path: Path) -> None:
    """The same object serves two runs, and each leaves no thread behind."""
    journal = Journal(path)

    async def run(key: str) -> list[str]:
        await journal.open(TOKEN)
        await journal.write(intended(key))
        keys = [entry.key for entry in await journal.unsettled()]
        await journal.close()
        return keys

    before = threading.active_count()
    assert ["a"] == asyncio.run(run("a"))
    assert ["a", "b"] == asyncio.run(run("b"))
    assert before == threading.active_count()


async def test_a_path_is_fixed_when_the_journal_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means the directory of that moment."""
    monkeypatch.chdir(tmp_path)
    journal = Journal("batch.db")
    monkeypatch.chdir("/")
    assert tmp_path / "batch.db" == journal.path


async def test_the_repr_tells_the_state(path: Path) -> None:
    """It names the file, whether it is open or failed, and how much waits."""
    journal = Journal(path)
    assert f"<Journal '{path}' closed, 0 waiting>" == repr(journal)
    await journal.open(TOKEN)
    journal.write_soon(intended())
    assert f"<Journal '{path}' open, 1 waiting>" == repr(journal)
    journal._batching.failure = JournalError("the disk")
    assert f"<Journal '{path}' failed, 1 waiting>" == repr(journal)
    with pytest.raises(JournalError, match="the disk"):
        await journal.close()


@pytest.mark.parametrize("inline", [False, True])
async def test_a_journal_is_used_while_it_is_open(path: Path, *, inline: bool) -> None:
    """Before opening and after closing everything is a UsageError, and so is opening twice."""
    journal = Journal(path, inline=inline)
    for _ in range(2):
        for act in (journal.write(intended()), journal.find("k"), journal.unsettled()):
            with pytest.raises(UsageError, match="not open"):
                await act
        with pytest.raises(UsageError, match="not open"):
            journal.write_soon(intended())
        await journal.open(TOKEN)
        with pytest.raises(UsageError, match="open already"):
            await journal.open(TOKEN)
        await journal.close()


async def test_a_cancelled_opening_lets_go_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is cancelled while the thread opens the file can open it again."""
    reached, go_on = threading.Event(), threading.Event()
    prepare = sqlite_file._prepare

    def slow(*args: Any, **options: Any) -> None:
        reached.set()
        go_on.wait(60)
        prepare(*args, **options)

    monkeypatch.setattr(sqlite_file, "_prepare", slow)
    journal = Journal(path)
    opening = asyncio.ensure_future(journal.open(TOKEN))
    await asyncio.to_thread(reached.wait, 60)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go_on.set()
    await journal.open(TOKEN)
    await journal.close()


async def test_a_cancelled_closing_goes_on(path: Path) -> None:
    """Cancelling `close` does not keep the facts from the disk, nor the file locked."""
    journal = Journal(path)
    await journal.open(TOKEN)
    free = threading.Event()
    holding = asyncio.ensure_future(journal._ask(lambda store: free.wait(60)))
    await asyncio.sleep(0)
    journal.write_soon(intended())
    closing = asyncio.ensure_future(journal.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    free.set()
    await holding
    async with opened(path) as again:
        assert 1 == len(await again.unsettled())


def test_a_loop_that_ends_first_leaves_no_noise(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A commit and a closing that end after their loop are durable, and nothing is logged or raised."""
    journal, free = Journal(path), threading.Event()

    async def leave() -> None:
        await journal.open(TOKEN)
        journal._add(Work(ask=lambda store: free.wait(60)))
        await asyncio.sleep(0)
        journal.write_soon(intended())
        closing = asyncio.ensure_future(journal.close())
        await asyncio.sleep(0)
        closing.cancel()

    asyncio.run(leave())
    free.set()
    for thread in threading.enumerate():
        if thread.name.startswith("veo-journal"):
            thread.join()

    async def read() -> int:
        async with opened(path) as again:
            return len(await again.unsettled())

    assert 1 == asyncio.run(read())
    assert [] == caplog.records


# --- files that are no journals, or not to be had --------------------------------------------------------


async def refusal(path: Path | str, kind: type[Exception] = JournalError, *, token: str = TOKEN) -> str:
    """
    The words with which the file is refused, with and without a thread.
    """
    texts = set()
    for inline in (True, False):
        journal = Journal(path, inline=inline)
        with pytest.raises(kind) as caught:
            await journal.open(token)
        texts.add(str(caught.value))
        await journal.close()
    [text] = texts
    return text


async def test_a_second_session_in_this_process_is_told_who_is_in_the_way(path: Path) -> None:
    """The error names the file and says that it is in use; the first session goes on undisturbed."""
    async with opened(path) as journal:
        await journal.write(intended())
        text = await refusal(path)
        assert str(path) in text
        assert "is in use" in text
        await journal.write(sending())
        assert (attempt(),) == (await journal.unsettled())[0].attempts


OPENER = """
import asyncio, sys
from veo_async._journal.sqlite import Journal
from veo_async._journal.sqlite_store import Store
from veo_async.errors import JournalError
async def main():
    try:
        await Journal(sys.argv[1]).open(sys.argv[2])
    except JournalError as error:
        print(error)
asyncio.run(main())
"""


async def test_a_second_session_in_another_process_is_told_too(path: Path) -> None:
    """The lock holds between processes."""
    async with opened(path):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", OPENER, path, TOKEN, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
    assert f"journal {path} is in use" in output.decode()


async def test_the_file_belongs_to_the_account_of_its_token(path: Path) -> None:
    """Another token is refused with words that say so, and the right one still opens it."""
    async with opened(path) as journal:
        await journal.write(intended())
    assert "another token" in await refusal(path, token="f" * 32)
    async with opened(path) as journal:
        assert 1 == len(await journal.unsettled())


async def test_the_token_is_not_in_the_file(path: Path) -> None:
    """Neither the file nor its log holds the token, and two files of one token do not look alike."""
    async with opened(path) as journal:
        await journal.write(intended())
        held = contents(path.parent)
    assert {path.name, f"{path.name}-wal"} == set(held)
    assert TOKEN.encode() not in b"".join([*held.values(), *contents(path.parent).values()])
    other = path.with_name("other.db")
    async with opened(other):
        pass
    assert owner_of(path) != owner_of(other)


def contents(directory: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in directory.iterdir()}


def owner_of(path: Path) -> Any:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT digest FROM owner").fetchone()
    finally:
        connection.close()


def a_text(path: Path) -> None:
    path.write_text("not a database at all\n" * 100)


def a_short_text(path: Path) -> None:
    path.write_text("hello")


def one_byte(path: Path) -> None:
    path.write_bytes(b"\0")


def emptied(path: Path) -> None:
    path.touch()
    path.with_name(f"{path.name}-wal").write_bytes(b"what a crash left in the log")


def emptied_with_an_empty_log(path: Path) -> None:
    path.touch()
    path.with_name(f"{path.name}-wal").touch()


def anothers(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.executescript("CREATE TABLE jobs (id INTEGER); INSERT INTO jobs VALUES (1)")
    connection.close()


def anothers_by_id(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA application_id = 7")
    connection.close()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (a_text, "is not a journal"),
        (a_short_text, "is not a journal"),
        (one_byte, "is not a journal"),
        (emptied, "is empty, but batch.db-wal beside it shows that it was not"),
        (emptied_with_an_empty_log, "is empty, but batch.db-wal beside it shows that it was not"),
        (anothers, "belongs to another application"),
        (anothers_by_id, "belongs to another application"),
    ],
)
async def test_a_foreign_file_is_refused_and_left_alone(
    path: Path, make: Callable[[Path], None], words: str
) -> None:
    """Something else at this path is named, and not one byte of it changes."""
    make(path)
    before = contents(path.parent)
    text = await refusal(path)
    assert words in text
    assert str(path) in text
    assert before == contents(path.parent)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "missing/batch.db",
        "file/batch.db",
        ":memory:",
        "n\0l.db",
        "\ud800.db",
        "x" * 300,
        "dangling",
        "pipe",
    ],
)
async def test_a_path_where_no_file_can_be_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    """A directory, a missing or impossible directory, a pipe or a name no file can have is the caller's mistake."""
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "file")
    os.mkfifo(tmp_path / "pipe")
    assert "journal" in await refusal(os.path.join(tmp_path, name), ConfigurationError)


def an_empty_file(path: Path) -> None:
    path.touch()


def an_empty_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()


def torn_at_creation(path: Path) -> None:
    path.touch()
    path.with_name(f"{path.name}-journal").write_bytes(bytes(512))


@pytest.mark.parametrize("make", [an_empty_file, an_empty_database, torn_at_creation])
async def test_an_empty_file_becomes_a_journal(path: Path, make: Callable[[Path], None]) -> None:
    """A crash between the creation of the file and its first transaction does no harm."""
    make(path)
    async with opened(path) as journal:
        await journal.write(intended())
        assert 1 == len(await journal.unsettled())


async def test_a_crashed_journal_that_was_emptied_is_refused_through_a_link_too(path: Path) -> None:
    """The log lies beside the file that a link leads to; with its file put back, all is there again."""
    left = await crashed(path, "a")
    held = left.read_bytes()
    left.write_bytes(b"")
    link = path.with_name("link.db")
    link.symlink_to(left)
    assert "is empty" in await refusal(link)
    left.write_bytes(held)
    assert ["a"] == await keys_in(link)


async def test_a_newer_file_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that a later version of the package made is not touched by an earlier one."""
    with monkeypatch.context() as later:
        later.setattr(sqlite_file, "MIGRATIONS", [*sqlite_file.MIGRATIONS, lambda connection: None])
        async with opened(path):
            pass
    assert "newer veo_async" in await refusal(path)


async def test_an_older_file_is_brought_up_to_date(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later version runs only the migrations that the file has not had, once, and keeps the facts."""
    async with opened(path) as journal:
        await journal.write(*ACCEPTED)
    ran = []

    def migrate(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE jobs ADD COLUMN priority INTEGER")
        ran.append(1)

    monkeypatch.setattr(sqlite_file, "MIGRATIONS", [*sqlite_file.MIGRATIONS, migrate])
    for _ in range(2):
        async with opened(path) as journal:
            assert ["t"] == [entry.task_id for entry in await journal.unsettled()]
    assert [1] == ran


async def test_a_migration_that_fails_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is of the old version or of the new, never between."""
    async with opened(path) as journal:
        await journal.write(*ACCEPTED)

    def migrate(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE jobs ADD COLUMN priority INTEGER")
        connection.execute("SELECT * FROM nowhere")

    with monkeypatch.context() as later:
        later.setattr(sqlite_file, "MIGRATIONS", [*sqlite_file.MIGRATIONS, migrate])
        assert "nowhere" in await refusal(path)
    async with opened(path) as journal:
        assert 1 == len(await journal.unsettled())


# --- copies, and logs that are lost ------------------------------------------------------------------------


async def crashed(path: Path, *keys: str) -> Path:
    """
    What a crash leaves after these were intended: a file and its log, beside `path`.
    """
    left = path.with_name("crashed.db")
    async with opened(path) as journal:
        for key in keys:
            await journal.write(intended(key))
        shutil.copy(path, left)
        shutil.copy(f"{path}-wal", f"{left}-wal")
    return left


async def keys_in(path: Path) -> list[str]:
    async with opened(path) as journal:
        return [entry.key for entry in await journal.unsettled()]


def with_sqlite(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement).fetchall()
    connection.close()


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_a_copy_of_an_open_journal_without_its_log_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch, count: int, *, inline: bool
) -> None:
    """Whenever the file alone is copied, it is known for a part, again and again, and is not touched."""
    monkeypatch.setattr(sqlite_store, "MAX_LOG_SIZE", 1 << 18)  # so that it is tidied up on the way
    place = path.with_name("elsewhere")
    place.mkdir()
    async with opened(path, inline=inline) as journal:
        for key in map(str, range(count)):
            await journal.write(intended(key))
        await journal.write()
        shutil.copy(path, place / "copy.db")
    before = contents(place)
    for _ in range(2):
        text = await refusal(place / "copy.db")
        assert "is incomplete" in text
        assert "copy.db-wal" in text
        assert "would be bought again" in text
        assert before == contents(place)
    assert count == len(await keys_in(path))


async def test_a_log_that_has_grown_is_brought_into_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log is used anew from time to time, however much is written, and nothing is lost by that."""
    monkeypatch.setattr(sqlite_store, "MAX_LOG_SIZE", 1 << 18)
    async with opened(path) as journal:
        for key in range(500):
            await journal.write(intended(f"{key:03}", request="x" * 10_000))
        log = path.with_name(f"{path.name}-wal").stat().st_size
        assert 500 == len(await journal.unsettled())
    assert 1 << 20 > log
    assert 500 == len(await keys_in(path))


async def test_a_journal_that_was_closed_is_one_file(path: Path, tmp_path: Path) -> None:
    """After a clean end nothing lies beside the file, and a copy of it alone is whole."""
    assert [] == await keys_in(path)
    assert {path.name} == contents(tmp_path).keys()
    shutil.copy(path, tmp_path / "copy.db")
    assert [] == await keys_in(tmp_path / "copy.db")


@pytest.mark.parametrize("keys", [(), ("a",), ("a", "b")])
async def test_a_crashed_journal_opens(path: Path, keys: tuple[str, ...]) -> None:
    """With its log beside it the file is whole, also by way of a link from elsewhere."""
    left = await crashed(path, *keys)
    link = path.with_name("elsewhere") / "link.db"
    link.parent.mkdir()
    link.symlink_to(left)
    assert [*keys] == await keys_in(link)


async def test_a_crash_while_the_log_is_brought_into_the_file_does_no_harm(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the mark is there because nobody came to take it back, the log is, too."""
    await filled(path)
    with monkeypatch.context() as dying:
        dying.setattr(sqlite_file, "clear_partial", lambda connection: None)
        left = await crashed(path)
    lost = path.with_name("lost.db")
    shutil.copy(left, lost)
    for _ in range(2):
        assert 500 == len(await keys_in(left))
    path.with_name("lost.db-wal").touch()  # of some other program that looked at the copy
    assert "is incomplete" in await refusal(lost)


@pytest.mark.parametrize("looked", ["SELECT * FROM jobs", "PRAGMA wal_checkpoint(TRUNCATE)"])
async def test_a_crashed_journal_that_somebody_looked_at_opens(path: Path, looked: str) -> None:
    """Other programs bring the log into the file and take it away: the file is whole then."""
    left = await crashed(path, "a", "b")
    with_sqlite(left, looked)
    assert not path.with_name("crashed.db-wal").exists()
    assert ["a", "b"] == await keys_in(left)


async def test_an_empty_log_is_none(path: Path) -> None:
    """A crash of another program may leave an empty log: what was in it is in the file."""
    left = await crashed(path, "a", "b")
    with_sqlite(left, "PRAGMA wal_checkpoint(TRUNCATE)")
    path.with_name("crashed.db-wal").touch()
    assert ["a", "b"] == await keys_in(left)


async def test_a_backup_by_sqlite_is_whole(path: Path) -> None:
    """A backup in one file, made with SQLite's own means of what a crash has left, opens."""
    left, backup = await crashed(path, "a"), path.with_name("backup.db")
    with_sqlite(left, f"VACUUM INTO '{backup}'")
    assert ["a"] == await keys_in(backup)


@pytest.mark.parametrize("failing", ["wal_checkpoint", "main_file"])
async def test_tidying_up_that_fails_costs_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """Where the log cannot be brought into the file, or not be marked, facts go on, and the end is clean."""

    def authorize(action: int, *names: str | None) -> int:
        return sqlite3.SQLITE_DENY if failing in names else sqlite3.SQLITE_OK

    monkeypatch.setattr(sqlite_store, "MAX_LOG_SIZE", 1)
    async with opened(path) as journal:
        await journal._ask(lambda store: store.connection.set_authorizer(authorize))
        for key in "abc":
            await journal.write(intended(key))
    assert ["a", "b", "c"] == await keys_in(path)


async def test_a_journal_of_an_earlier_version_opens(path: Path) -> None:
    """A file that has no mark yet gets one, and keeps its facts."""
    connection = sqlite3.connect(path)
    for migrate in sqlite_file.MIGRATIONS[:2]:
        migrate(connection)
    connection.execute("INSERT INTO jobs (key, request, intended_at) VALUES ('a', '{}', 1.0)")
    connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
    connection.execute("PRAGMA user_version = 2")
    connection.commit()
    connection.close()
    assert ["a"] == await keys_in(path)
    assert ["a"] == await keys_in(path)


# --- damage, and disks that fail -------------------------------------------------------------------------


async def filled(path: Path) -> None:
    async with opened(path) as journal:
        await journal.write(*(intended(f"{number:04}", request="{}" * 100) for number in range(500)))


@pytest.mark.parametrize("page", [0, 1, 2, 3, 10, 20])
async def test_a_damaged_file_is_refused(path: Path, page: int) -> None:
    """Garbage in any page of the file is found before anything is done on the strength of it."""
    await filled(path)
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xa5" * 4096)
    text = await refusal(path)
    assert str(path) in text
    assert "is not a journal" in text if page == 0 else "is damaged" in text


async def test_a_cut_off_file_is_refused(path: Path) -> None:
    """A file that lost its end is damaged."""
    await filled(path)
    os.truncate(path, len(contents(path.parent)[path.name]) // 2)
    text = await refusal(path)
    assert "is damaged" in text
    assert "would buy again" in text


async def test_a_log_that_is_cut_off_ends_at_its_last_whole_commit(path: Path, tmp_path: Path) -> None:
    """After a power cut in the middle of a commit, all earlier ones are there."""
    async with opened(path) as journal:
        await journal.write(intended("a"))
        whole = end_of_log(path)
        await journal.write(intended("b"))
        for cut, expected in ((whole, ["a"]), (whole + 2000, ["a"])):
            copy = tmp_path / f"copy{cut}.db"
            shutil.copy(path, copy)
            shutil.copy(f"{path}-wal", f"{copy}-wal")
            os.truncate(f"{copy}-wal", cut)
            async with opened(copy) as after:
                assert expected == [entry.key for entry in await after.unsettled()]


async def test_damage_that_shows_later_is_an_error(path: Path) -> None:
    """A file that breaks while it is open fails the question at hand, and every write from then on."""
    journal = Journal(path)
    await journal.open(TOKEN)
    await journal._ask(lambda store: store.connection.execute("DROP TABLE learned"))
    with pytest.raises(JournalError, match="no such table"):
        await journal.learned()
    with pytest.raises(JournalError, match="no such table"):
        await journal.write(sending())
    with pytest.raises(JournalError, match="no such table"):
        await journal.close()


@pytest.mark.parametrize("inline", [False, True])
async def test_a_full_disk_fails_every_writer_and_all_later_ones(path: Path, *, inline: bool) -> None:
    """When the file cannot grow, nobody is told that a fact is durable; reads go on, and closing raises."""
    journal = Journal(path, inline=inline)
    await journal.open(TOKEN)
    await journal.write(intended())
    await journal._ask(lambda store: store.connection.execute("PRAGMA max_page_count = 1").fetchone())
    big = "x" * 100_000
    journal.write_soon(intended("behind", request=big))
    writes = [journal.write(intended(key, request=big)) for key in "abc"]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [JournalError] * 3 == [type(one) for one in results]
    assert 3 == len({id(one) for one in results})
    assert "the disk is full; free some space" in str(journal.failure)
    with pytest.raises(JournalError, match=str(path)):
        await journal.write(sending())
    assert ["k"] == [entry.key for entry in await journal.unsettled()]
    with pytest.raises(JournalError, match="disk is full"):
        await journal.close()
    async with opened(path) as again:
        assert ["k"] == [entry.key for entry in await again.unsettled()]


async def test_a_full_disk_outweighs_a_wrong_fact(path: Path) -> None:
    """Where a commit holds a wrong fact and the disk fails too, everybody hears of the disk."""
    journal = Journal(path)
    await journal.open(TOKEN)
    await journal._ask(lambda store: store.connection.execute("PRAGMA max_page_count = 1").fetchone())
    writes = [journal.write(settled("x")), journal.write(intended(request="x" * 100_000))]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [True, True] == ["disk is full" in str(one) for one in results]
    with pytest.raises(JournalError, match="disk is full"):
        await journal.close()


async def test_nothing_is_stored_after_a_failure(path: Path) -> None:
    """Facts that were waiting behind a commit that failed are not stored either: each builds on those before it."""
    journal = Journal(path)
    await journal.open(TOKEN)
    await journal._ask(lambda store: store.connection.execute("PRAGMA max_page_count = 1").fetchone())
    first = asyncio.ensure_future(journal.write(intended("a", request="x" * 100_000)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the first is on its way by now
    second = asyncio.ensure_future(journal.write(Learned(kind="k", data="small")))
    results = await asyncio.gather(first, second, return_exceptions=True)
    assert [JournalError] * 2 == [type(one) for one in results]
    assert {} == await journal.learned()
    with pytest.raises(JournalError):
        await journal.close()


@contextmanager
def small_disk(directory: Path, size: str) -> Iterator[None]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("needs to mount a file system")
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", directory], check=True)


def enlarge(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)


async def write_for_ever(journal: Journal, written: list[str]) -> None:
    for key in map(str, itertools.count()):
        await journal.write(intended(key, request="x" * 1000))
        written.append(key)


async def test_a_disk_that_fills_up_loses_nothing_that_was_durable(tmp_path: Path) -> None:
    """On a real full disk the error says so, and once there is room all that was said to be durable is there."""
    directory = tmp_path / "disk"
    directory.mkdir()
    with small_disk(directory, "400k"):
        path, written = directory / "batch.db", list[str]()
        journal = Journal(path)
        await journal.open(TOKEN)
        with pytest.raises(JournalError, match="the disk is full"):
            await write_for_ever(journal, written)
        with pytest.raises(JournalError, match="the disk is full"):
            await journal.close()
        enlarge(directory)
        async with opened(path) as again:
            assert written == [entry.key for entry in await again.unsettled()]
            await again.write(intended("more"))


async def test_a_full_disk_at_the_start_is_named(tmp_path: Path) -> None:
    """A journal that cannot even be created says that the disk is full."""
    directory = tmp_path / "disk"
    directory.mkdir()
    with small_disk(directory, "16k"):
        (directory / "ballast").write_bytes(b"x" * 8192)
        assert "the disk is full" in await refusal(directory / "batch.db")


AS_NOBODY = """
import os
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
"""


def refusal_to_nobody(path: Path) -> str:
    """
    What a process prints that opens the file as a user for whom permissions count.
    """
    program = OPENER.replace("asyncio.run", AS_NOBODY + "asyncio.run")
    return subprocess.run(
        [sys.executable, "-c", program, str(path), TOKEN], check=True, stdout=-1, text=True
    ).stdout


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """
    A directory that other users may enter, unlike pytest's own.
    """
    directory = Path(tempfile.mkdtemp())
    yield directory
    directory.chmod(0o700)
    shutil.rmtree(directory)


@pytest.mark.parametrize(
    ("file_mode", "directory_mode"), [(0o444, 0o777), (0o666, 0o555), (0o000, 0o777), (None, 0o555)]
)
def test_a_file_that_may_not_be_written_is_refused(
    open_directory: Path, file_mode: int | None, directory_mode: int
) -> None:
    """A read-only file, or a directory where no log can be created, is named before anything is sent."""
    path = open_directory / "batch.db"
    if file_mode is not None:
        asyncio.run(filled(path))
        path.chmod(file_mode)
    open_directory.chmod(directory_mode)
    text = refusal_to_nobody(path)
    assert f"journal {path} cannot be" in text
    assert "this user" in text


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "allow this user to write"), (errno.EIO, "disk failed")],
)
async def test_what_the_system_says_is_put_into_words(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """A file that the operating system will not create is an error with a remedy."""

    def fail(*args: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    assert words in await refusal(path)


# --- kill -9 ---------------------------------------------------------------------------------------------

WRITER = """
import asyncio, os, sys
from veo_async._journal.facts import *
from veo_async._journal.sqlite import *

def facts(key):
    yield Intended(key=key, request="{}", at=1.0)
    yield Sending(key=key, attempt=1, at=2.0)
    yield Accepted(key=key, task_id="task " + key, trace_id=None, at=3.0)
    yield Settled(key=key, failed=False, outcome="{}", at=4.0)

async def job(journal, key):
    for number, fact in enumerate(facts(key), 1):
        await journal.write(fact)
        os.write(1, f"{key} {number}\\n".encode())

async def worker(journal, name):
    for number in range(1_000_000):
        await job(journal, f"{sys.argv[2]}-{name}-{number}")

async def main():
    journal = Journal(sys.argv[1])
    await journal.open(sys.argv[3])
    await asyncio.gather(*(worker(journal, name) for name in range(10)))

asyncio.run(main())
"""


def reached(entry: Entry | None) -> int:
    if entry is None:
        return 0
    return 1 + bool(entry.attempts) + (entry.task_id is not None) + (entry.settled_at is not None)


def kill_after(path: Path, run: int, count: int) -> dict[str, int]:
    """
    Kill a writing process with SIGKILL once it has reported `count` facts; return how far each key got.
    """
    command = [sys.executable, "-c", WRITER, str(path), str(run), TOKEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(count)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    said: dict[str, int] = {}
    for line in lines:
        if line.endswith("\n"):
            key, number = line.split()
            said[key] = int(number)
    return said


async def test_nothing_reported_durable_is_lost_by_kill_9(path: Path) -> None:
    """After SIGKILL at several instants the file opens at once and holds every fact that `write` returned for."""
    said: dict[str, int] = {}
    for run, count in enumerate((1, 40, 333, 1500, 4000)):
        said |= kill_after(path, run, count)
        async with opened(path) as journal:
            for key, number in said.items():
                assert number <= reached(await journal.find(key)) <= number + 1
            unsettled = [entry.key for entry in await journal.unsettled()]
            assert len(unsettled) <= 10 * (run + 1)


async def test_an_unclean_end_shows_exactly_the_durable_facts(path: Path) -> None:
    """A copy of the open file and its log, as a crash leaves them, reads as the journal itself does."""
    async with opened(path) as journal:
        await journal.write(*SETTLED, intended("a"), sending("a"), intended("b"))
        copy = path.with_name("copy.db")
        shutil.copy(path, copy)
        shutil.copy(f"{path}-wal", f"{copy}-wal")
        async with opened(copy) as after:
            for key in "kab":
                assert await journal.find(key) == await after.find(key)
            assert await journal.unsettled() == await after.unsettled()

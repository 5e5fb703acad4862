"""
The journal's file: telling it from other files, creating, migrating and locking it, and what SQLite's errors mean.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, JournalError

__all__ = ["MIGRATIONS", "checkpoint", "explain", "make_whole", "open_file"]

APPLICATION_ID: Final = 0x56454F4A  # "VEOJ"; `file` and SQLite's own tools show it
# Whoever looks into a closed journal for a moment is waited for; a session holds it for as long as it lives.
BUSY_SECONDS: Final = 0.5

_DO: Final[dict[int, str]] = {
    sqlite3.SQLITE_BUSY: "is in use: one journal serves one open session; close the other, or name another file",
    sqlite3.SQLITE_LOCKED: "is in use: one journal serves one open session; close the other, or name another file",
    sqlite3.SQLITE_NOTADB: "is not a journal: name another file, or move this one away",
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away and attach to its tasks by their ids; an older copy of it"
    " does not know what was bought since, and would buy that again",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space and resume",
    sqlite3.SQLITE_READONLY: "cannot be written: give this user leave to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that this user may write the file and its directory",
    sqlite3.SQLITE_PERM: "cannot be opened: check that this user may write the file and its directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk fails; check it and resume",
}
_OS_DO: Final[dict[int, int]] = {
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def explain(path: Path, error: Exception) -> JournalError:
    """
    Say which file failed, how, and what to do about it.
    """
    # The low byte is the primary code; the rest tells apart what calls for the same remedy.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    explained = JournalError(f"journal {path} {_DO.get(code, 'failed')} ({error})")
    explained.__cause__ = error
    return explained


# --- migrations ----------------------------------------------------------------------------------------


def _facts(connection: sqlite3.Connection) -> None:
    """
    Version 1.

    A key has one row in `jobs` per purchase: at most one that has not failed, found by `open_key`.
    Failed ones stay, since their task ids are claimed for ever.
    """
    for statement in (
        "CREATE TABLE owner (salt BLOB NOT NULL, digest BLOB NOT NULL)",
        """CREATE TABLE jobs (
            id INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            failed INTEGER NOT NULL DEFAULT 0,
            intended_at REAL NOT NULL,
            accepted_at REAL,
            settled_at REAL,
            task_id TEXT,
            trace_id TEXT,
            request TEXT NOT NULL,
            outcome TEXT
        )""",
        "CREATE UNIQUE INDEX open_key ON jobs (key) WHERE failed = 0",
        "CREATE INDEX failed_key ON jobs (key) WHERE failed = 1",
        "CREATE UNIQUE INDEX claim ON jobs (task_id) WHERE task_id IS NOT NULL",
        "CREATE INDEX unsettled ON jobs (id) WHERE settled_at IS NULL",
        """CREATE TABLE attempts (
            job INTEGER NOT NULL,
            number INTEGER NOT NULL,
            at REAL NOT NULL,
            nonce TEXT,
            closed TEXT,
            closed_at REAL,
            PRIMARY KEY (job, number)
        ) WITHOUT ROWID""",
        """CREATE TABLE downloads (
            job INTEGER NOT NULL,
            video_id TEXT NOT NULL,
            path TEXT NOT NULL,
            at REAL NOT NULL,
            PRIMARY KEY (job, video_id)
        ) WITHOUT ROWID""",
        "CREATE TABLE learned (kind TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID",
    ):
        connection.execute(statement)


def _server_time(connection: sqlite3.Connection) -> None:
    """
    Version 2: attempts also have the server's time.
    """
    connection.execute("ALTER TABLE attempts ADD COLUMN server_at REAL")


def _main_file(connection: sqlite3.Connection) -> None:
    """
    Version 3: the main file tells whether it is all there is; see `checkpoint`.
    """
    connection.execute("CREATE TABLE main_file (partial INTEGER NOT NULL)")
    connection.execute("INSERT INTO main_file VALUES (0)")


def _marks(connection: sqlite3.Connection) -> None:
    """
    Version 4: an attempt has its mark; the nonce of an older one is none.
    """
    connection.execute("ALTER TABLE attempts RENAME COLUMN nonce TO mark")
    connection.execute("UPDATE attempts SET mark = NULL")


# Each takes a file from the version before it to its own; a file's `user_version` counts those it has had.
MIGRATIONS: Final[list[Callable[[sqlite3.Connection], None]]] = [_facts, _server_time, _main_file, _marks]
KNOWS_WHETHER_PARTIAL: Final = 3  # the version from which a file tells


# --- opening -------------------------------------------------------------------------------------------


def open_file(path: Path, token: str, *, durable: bool = True) -> sqlite3.Connection:
    """
    Open the journal's file for this thread alone, made or brought up to date where need be, and lock it.

    Args:
        path: the file; its directory must exist.
        token: whose journal it is; only a salted hash of it is kept.
        durable: False leaves the disk its own time to write: the facts then survive the process, not the machine.

    Raises:
        ConfigurationError: there can be no such file.
        JournalError: the file is not a journal, not this token's, in use, or cannot be written.
    """
    _create(path)
    has_log = _has_log(path)  # asked before SQLite looks: it would create one
    with _explained(path):
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _prepare(connection, path, token, durable=durable, has_log=has_log)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise explain(path, error) from error


def _create(path: Path) -> None:
    """
    Create an empty file that only its owner may read, unless there is one already.
    """
    # An existing file is not opened here: closing it would drop the lock of a session in the same process.
    if path.name == ":memory:":
        raise ConfigurationError("journal :memory: is not a file: a journal is to outlive the process")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _check_usable(path)
    except ValueError as error:  # a NUL in the path
        raise ConfigurationError(f"journal {str(path)!r} cannot be created: {error}") from error
    except OSError as error:
        code = _OS_DO.get(error.errno or 0)
        if code is None:
            raise ConfigurationError(f"journal {path} cannot be created: {error.strerror}") from error
        raise JournalError(f"journal {path} {_DO[code]} ({error.strerror})") from error


def _check_usable(path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"journal {path} is not a regular file: name another path")
    if not os.access(path, os.R_OK | os.W_OK):  # SQLite would call it a failing disk: a lock needs both
        raise JournalError(f"journal {path} {_DO[sqlite3.SQLITE_READONLY]}")
    _check_filled(path)


def _check_filled(path: Path) -> None:
    """
    Refuse a file that holds nothing any more: for SQLite it would be new, and all that it knew bought again.

    One that never held anything, as a crash before the first transaction leaves it, is new indeed: by the time its
    log is created, a database's first page is in the file.
    """
    had_log = os.path.exists(_log_of(path))  # asked first: another session may be creating both
    size = path.stat().st_size
    if size == 1:  # what SQLite, too, takes for an empty one
        raise JournalError(f"journal {path} {_DO[sqlite3.SQLITE_NOTADB]} (it is one byte long)")
    if size == 0 and had_log:
        raise JournalError(
            f"journal {path} is empty, and {path.name}-wal beside it tells that it was not: put a whole copy in its"
            " place; what that does not know of would be bought again"
        )


def _log_of(path: Path) -> str:
    """
    Name the log, which SQLite keeps beside the file that a link leads to.
    """
    return f"{os.path.realpath(path)}-wal"


def _has_log(path: Path) -> bool:
    """
    Tell whether there is something in the log.
    """
    try:
        return os.path.getsize(_log_of(path)) > 0
    except OSError:
        return False


def _prepare(connection: sqlite3.Connection, path: Path, token: str, *, durable: bool, has_log: bool) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Nothing is written before the file is known for a journal: a foreign one stays as it was.
    version = _recognise(connection, path)
    _check_whole(connection, path)
    if version >= KNOWS_WHETHER_PARTIAL and not has_log:
        _check_complete(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `checkpoint` has more to do
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    # Also takes the lock where the file is up to date, before anybody relies on it.
    connection.execute("BEGIN EXCLUSIVE")
    for migrate in MIGRATIONS[version:]:
        migrate(connection)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    _check_owner(connection, path, token)
    connection.execute("COMMIT")
    checkpoint(connection)


def checkpoint(connection: sqlite3.Connection) -> None:
    """
    Bring what is in the log into the main file, marked there as a part of the journal, and in the log as whole.

    What comes later is in the log alone. So the main file without its log, as whoever copies only the one has it,
    shows the mark, and could not be told from a journal that has never heard of what was bought since.
    Read together they show no mark, after a crash too; and a clean end leaves one file, without it.
    """
    connection.execute("UPDATE main_file SET partial = 1")
    try:
        # Never truncating: only a log that is not empty proves that the mark was left by a crash.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        make_whole(connection)


def make_whole(connection: sqlite3.Connection) -> None:
    """
    Take the mark back, if it is there.
    """
    connection.execute("UPDATE main_file SET partial = 0 WHERE partial = 1")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _recognise(connection: sqlite3.Connection, path: Path) -> int:
    """
    Return how many migrations the file has had; 0 for an empty one.
    """
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise JournalError(f"journal {path} belongs to another application: name another file")
    if version > len(MIGRATIONS):
        raise JournalError(f"journal {path} was made by a newer veo_async: upgrade, or name another file")
    return version


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """
    Read the whole file (0.1 s for 130 MB that the system has cached): money is going to be spent on what it says.
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalError(f"journal {path} {_DO[sqlite3.SQLITE_CORRUPT]} ({found})")


def _check_complete(connection: sqlite3.Connection, path: Path) -> None:
    """
    Refuse a main file without the log that it needs.
    """
    partial = connection.execute("SELECT max(partial) FROM main_file").fetchone()[0]
    if partial:
        raise JournalError(
            f"journal {path} is incomplete: it was copied while it was in use, or has lost {path.name}-wal, where"
            " its latest facts are; put that file beside it again, or copy the journal once it is closed:"
            " what it does not know of would be bought again"
        )


def _digest(token: str, salt: bytes) -> bytes:
    # Fast on purpose: tokens are long and random, so there is no dictionary to try.
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=salt, digest_size=32).digest()


def _check_owner(connection: sqlite3.Connection, path: Path, token: str) -> None:
    owner = connection.execute("SELECT salt, digest FROM owner").fetchone()
    if owner is None:
        salt = os.urandom(32)
        connection.execute("INSERT INTO owner VALUES (?, ?)", (salt, _digest(token, salt)))
    elif not hmac.compare_digest(owner[1], _digest(token, owner[0])):
        raise JournalError(
            f"journal {path} was made under another token: its tasks may be another account's;"
            " use that token, or name another file"
        )

"""
The journal's file: creates, recognises, migrates and locks it, and explains SQLite's errors.
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

__all__ = ["MIGRATIONS", "checkpoint", "clear_partial", "explain", "is_in_use", "open_file"]

APPLICATION_ID: Final = 0x56454F4A  # "VEOJ"; `file` and SQLite's own tools show it
# Opening waits this long for another tool that reads the file; a session would hold it much longer.
BUSY_SECONDS: Final = 0.5

_REMEDIES: Final[dict[int, str]] = {
    sqlite3.SQLITE_BUSY: "is in use: one journal serves one open session; close the other, or name another file",
    sqlite3.SQLITE_LOCKED: "is in use: one journal serves one open session; close the other, or name another file",
    sqlite3.SQLITE_NOTADB: "is not a journal: use another file, or move this one away",
    sqlite3.SQLITE_CORRUPT: "is damaged: move it away and attach to its tasks by their ids; an older copy of it"
    " would buy again whatever was bought since",
    sqlite3.SQLITE_FULL: "cannot grow: the disk is full; free some space and resume",
    sqlite3.SQLITE_READONLY: "cannot be written: allow this user to write the file and its directory",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened: check that this user may write the file and its directory",
    sqlite3.SQLITE_PERM: "cannot be opened: check that this user may write the file and its directory",
    sqlite3.SQLITE_IOERR: "cannot be read or written: the disk failed; check it and resume",
}
_SQLITE_CODES: Final[dict[int, int]] = {
    errno.EACCES: sqlite3.SQLITE_READONLY,
    errno.EPERM: sqlite3.SQLITE_READONLY,
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
}


def explain(path: Path, error: Exception) -> JournalError:
    """
    Make an error that says which file failed, how, and what to do about it.
    """
    # The low byte is the primary code; the other bytes distinguish causes with the same remedy.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    explained = JournalError(f"journal {path} {_REMEDIES.get(code, 'failed')} ({error})")
    explained.__cause__ = error
    return explained


def is_in_use(error: JournalError) -> bool:
    """
    Tell whether a journal could not be opened because another session, or another program, has its file open.
    """
    code = getattr(error.__cause__, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


# --- migrations ----------------------------------------------------------------------------------------


def _facts(connection: sqlite3.Connection) -> None:
    """
    Version 1.

    A key has one row in `jobs` per purchase, and at most one that has not failed (index `open_key`).
    Failed ones stay, since their task ids may never be claimed again.
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
    Version 2: attempts also store the server's time.
    """
    connection.execute("ALTER TABLE attempts ADD COLUMN server_at REAL")


def _main_file(connection: sqlite3.Connection) -> None:
    """
    Version 3: the main file tells whether it is complete without its log; see `checkpoint`.
    """
    connection.execute("CREATE TABLE main_file (partial INTEGER NOT NULL)")
    connection.execute("INSERT INTO main_file VALUES (0)")


def _marks(connection: sqlite3.Connection) -> None:
    """
    Version 4: attempts store their mark; a nonce of an older version is not a mark.
    """
    connection.execute("ALTER TABLE attempts RENAME COLUMN nonce TO mark")
    connection.execute("UPDATE attempts SET mark = NULL")


def _uploads(connection: sqlite3.Connection) -> None:
    """
    Version 5: the addresses of uploaded pictures, by the digests of their contents.
    """
    connection.execute(
        "CREATE TABLE uploads (name TEXT PRIMARY KEY, address TEXT NOT NULL, at REAL NOT NULL) WITHOUT ROWID"
    )


def _reservations(connection: sqlite3.Connection) -> None:
    """
    Version 6: purchases that count towards a budget, and their prices.
    """
    connection.execute("ALTER TABLE jobs ADD COLUMN reserved INTEGER NOT NULL DEFAULT 0")
    connection.execute("ALTER TABLE jobs ADD COLUMN credits REAL")
    connection.execute("CREATE INDEX reserved ON jobs (credits) WHERE reserved = 1 AND failed = 0")


# Each brings a file from the version before to its own; the file's `user_version` counts those that were applied.
MIGRATIONS: Final[list[Callable[[sqlite3.Connection], None]]] = [
    _facts,
    _server_time,
    _main_file,
    _marks,
    _uploads,
    _reservations,
]
TELLS_WHETHER_PARTIAL: Final = 3  # the first version with the table `main_file`


# --- opening -------------------------------------------------------------------------------------------


def open_file(path: Path, token: str, *, durable: bool = True) -> sqlite3.Connection:
    """
    Create the journal's file if there is none, lock it, and migrate it; returns a connection for this thread only.

    Args:
        path: the file; its directory must exist.
        token: the token of the journal's account; only a salted hash of it is kept.
        durable: False does not wait for the disk: facts then survive a crash of the process, but not of the machine.

    Raises:
        ConfigurationError: there can be no file at this path.
        JournalError: the file is not a journal, belongs to another token, is in use, or cannot be written.
    """
    _create(path)
    has_log = _has_log(path)  # checked before SQLite opens the file, and creates a log
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
    # An existing file is not opened here: closing it would release the lock of a session in the same process.
    if path.name == ":memory:":
        raise ConfigurationError("journal :memory: is not a file: a journal must outlive the process")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _check_usable(path)
    except ValueError as error:  # a NUL in the path
        raise ConfigurationError(f"journal {str(path)!r} cannot be created: {error}") from error
    except OSError as error:
        code = _SQLITE_CODES.get(error.errno or 0)
        if code is None:
            raise ConfigurationError(f"journal {path} cannot be created: {error.strerror}") from error
        raise JournalError(f"journal {path} {_REMEDIES[code]} ({error.strerror})") from error


def _check_usable(path: Path) -> None:
    if not path.is_file():
        raise ConfigurationError(f"journal {path} is not a regular file: name another path")
    if not os.access(path, os.R_OK | os.W_OK):  # a lock needs both, and SQLite would report a disk error
        raise JournalError(f"journal {path} {_REMEDIES[sqlite3.SQLITE_READONLY]}")
    _check_filled(path)


def _check_filled(path: Path) -> None:
    """
    Refuse a file that was emptied: SQLite would take it for a new one, and everything in it would be bought again.

    A file that a crash left empty before its first transaction is accepted. It has no log: when the log is created,
    the file already holds the database's first page.
    """
    had_log = os.path.exists(_log_of(path))  # checked first: another session may be creating both
    size = path.stat().st_size
    if size == 1:  # SQLite would take this for an empty file, too
        raise JournalError(f"journal {path} {_REMEDIES[sqlite3.SQLITE_NOTADB]} (it is one byte long)")
    if size == 0 and had_log:
        raise JournalError(
            f"journal {path} is empty, but {path.name}-wal beside it shows that it was not: replace it with a"
            " complete copy; whatever the copy does not know of would be bought again"
        )


def _log_of(path: Path) -> str:
    """
    Return the path of the log; SQLite resolves links, and keeps it beside the real file.
    """
    return f"{os.path.realpath(path)}-wal"


def _has_log(path: Path) -> bool:
    """
    Tell whether the log exists and is not empty.
    """
    try:
        return os.path.getsize(_log_of(path)) > 0
    except OSError:
        return False


def _prepare(connection: sqlite3.Connection, path: Path, token: str, *, durable: bool, has_log: bool) -> None:
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    # Nothing is written before the file is recognised as a journal: a foreign file stays as it was.
    version = _recognise(connection, path)
    _check_whole(connection, path)
    if version >= TELLS_WHETHER_PARTIAL and not has_log:
        _check_complete(connection, path)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `checkpoint` does it instead
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    # This also takes the lock, even if the file needs no migration.
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
    Copy the log into the main file, where `partial` becomes 1; the log then sets it back to 0.

    Later facts are in the log only. Somebody who copies the main file without its log lacks them, and would buy
    again what they tell of; `partial = 1` gives such a copy away.
    Read together, file and log show 0, even after a crash. A clean close leaves one file, with 0.
    """
    connection.execute("UPDATE main_file SET partial = 1")
    try:
        # Never truncate: a log that is not empty proves that a crash, not a copy, left `partial = 1`.
        connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    finally:
        clear_partial(connection)


def clear_partial(connection: sqlite3.Connection) -> None:
    """
    Set `partial` back to 0; see `checkpoint`.
    """
    connection.execute("UPDATE main_file SET partial = 0 WHERE partial = 1")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _recognise(connection: sqlite3.Connection, path: Path) -> int:
    """
    Return how many migrations were applied to the file; 0 for an empty one.
    """
    application = _pragma(connection, "application_id")
    version = _pragma(connection, "user_version")
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application != APPLICATION_ID and (application or version or tables):
        raise JournalError(f"journal {path} belongs to another application: use another file")
    if version > len(MIGRATIONS):
        raise JournalError(f"journal {path} was made by a newer veo_async: upgrade, or use another file")
    return version


def _check_whole(connection: sqlite3.Connection, path: Path) -> None:
    """
    Check the whole file, since money will be spent on what it says (0.1 s for 130 MB in the system's cache).
    """
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise JournalError(f"journal {path} {_REMEDIES[sqlite3.SQLITE_CORRUPT]} ({found})")


def _check_complete(connection: sqlite3.Connection, path: Path) -> None:
    """
    Refuse a main file without the log that it needs.
    """
    partial = connection.execute("SELECT max(partial) FROM main_file").fetchone()[0]
    if partial:
        raise JournalError(
            f"journal {path} is incomplete: it was copied while it was in use, or has lost {path.name}-wal, which"
            " holds its latest facts; put that file beside it again, or copy the journal once it is closed:"
            " whatever it does not know of would be bought again"
        )


def _digest(token: str, salt: bytes) -> bytes:
    # A fast hash is enough: tokens are long and random, so they cannot be guessed.
    return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=salt, digest_size=32).digest()


def _check_owner(connection: sqlite3.Connection, path: Path, token: str) -> None:
    owner = connection.execute("SELECT salt, digest FROM owner").fetchone()
    if owner is None:
        salt = os.urandom(32)
        connection.execute("INSERT INTO owner VALUES (?, ?)", (salt, _digest(token, salt)))
    elif not hmac.compare_digest(owner[1], _digest(token, owner[0])):
        raise JournalError(
            f"journal {path} was made under another token: its tasks may be another account's;"
            " use that token, or another file"
        )

"""
The session's memory: facts about jobs, each durable before its effect, in a SQLite file.

The loop's side gathers what the coroutines of one turn write; a thread commits it as one transaction.
What a fact may follow is in the SQL that stores it: a statement that changes no row is looked into, and is then
either a repetition (ignored) or against the rules (an error).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from attrs import define, field, frozen

from ._journal_schema import explain, open_file
from .errors import JournalError, UsageError

__all__ = [
    "Accepted",
    "AlreadyClaimed",
    "Attempt",
    "AttemptClosed",
    "Downloaded",
    "Entry",
    "Fact",
    "Intended",
    "Journal",
    "Learned",
    "Sending",
    "Settled",
    "Withdrawn",
]


class AlreadyClaimed(JournalError):
    """
    The task id belongs to another purchase.
    """


# --- facts ---------------------------------------------------------------------------------------------
# Times (`at`) are in Unix seconds. Requests and outcomes are JSON text that only the caller understands.


@frozen(kw_only=True)
class Intended:
    """
    The key stands for this request; a key whose outcome is a failure starts a new purchase.
    """

    key: str
    request: str
    at: float


@frozen(kw_only=True)
class Sending:
    """
    An attempt is about to leave; numbers go up within one purchase.
    """

    key: str
    attempt: int
    at: float
    nonce: str | None = None


@frozen(kw_only=True)
class AttemptClosed:
    """
    The attempt bought nothing: `refused` frees the key altogether (unless a task was accepted meanwhile).
    """

    key: str
    attempt: int
    outcome: Literal["refused", "not_sent"]
    at: float


@frozen(kw_only=True)
class Accepted:
    """
    The task is the key's, and no other's for ever.
    """

    key: str
    task_id: str
    trace_id: str | None
    at: float


@frozen(kw_only=True)
class Settled:
    """
    The accepted task ended, in a result or a failure: the outcome stands for ever.
    """

    key: str
    failed: bool
    outcome: str
    at: float


@frozen(kw_only=True)
class Downloaded:
    """
    A video of the result lies at this path.
    """

    key: str
    video_id: str
    path: str
    at: float


@frozen(kw_only=True)
class Withdrawn:
    """
    The job was given up before anything was sent: the intention goes away.
    """

    key: str
    at: float


@frozen(kw_only=True)
class Learned:
    """
    What is known of the durations of one kind of request.
    """

    kind: str
    data: str


Fact: TypeAlias = Intended | Sending | AttemptClosed | Accepted | Settled | Downloaded | Withdrawn | Learned


# --- what is read back ---------------------------------------------------------------------------------


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit.

    Attributes:
        closed: `refused` or `not_sent`; None while it may have bought something.
    """

    number: int
    at: float
    nonce: str | None
    closed: str | None


@frozen(kw_only=True)
class Entry:
    """
    Everything the journal knows of one purchase.
    """

    key: str
    request: str
    intended_at: float
    attempts: tuple[Attempt, ...] = ()
    task_id: str | None = None
    trace_id: str | None = None
    accepted_at: float | None = None
    settled_at: float | None = None
    failed: bool = False
    outcome: str | None = None
    downloads: Mapping[str, str] = field(factory=dict)


# --- storing facts -------------------------------------------------------------------------------------

# A purchase that has not failed is the key's open one: `failed = 0` is what the index `open_key` holds.
# Each statement changes exactly one row when the fact may follow what is there, and none otherwise.
_STORE: Final[Mapping[type, tuple[str, Callable[[Any], tuple[Any, ...]]]]] = {
    Intended: (
        "INSERT OR IGNORE INTO jobs (key, request, intended_at) VALUES (?, ?, ?)",
        lambda fact: (fact.key, fact.request, fact.at),
    ),
    Sending: (
        """INSERT INTO attempts (job, number, at, nonce)
        SELECT id, ?2, ?3, ?4 FROM jobs WHERE key = ?1 AND failed = 0 AND task_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM attempts WHERE job = jobs.id AND number >= ?2)""",
        lambda fact: (fact.key, fact.attempt, fact.at, fact.nonce),
    ),
    Accepted: (
        """UPDATE OR IGNORE jobs SET task_id = ?2, trace_id = ?3, accepted_at = ?4
        WHERE key = ?1 AND failed = 0 AND task_id IS NULL""",
        lambda fact: (fact.key, fact.task_id, fact.trace_id, fact.at),
    ),
    Settled: (
        """UPDATE jobs SET failed = ?2, outcome = ?3, settled_at = ?4
        WHERE key = ?1 AND failed = 0 AND task_id IS NOT NULL AND settled_at IS NULL""",
        lambda fact: (fact.key, int(fact.failed), fact.outcome, fact.at),
    ),
    Downloaded: (
        """INSERT OR REPLACE INTO downloads (job, video_id, path, at)
        SELECT id, ?2, ?3, ?4 FROM jobs WHERE key = ?1 AND failed = 0 AND settled_at IS NOT NULL""",
        lambda fact: (fact.key, fact.video_id, fact.path, fact.at),
    ),
    Learned: (
        "INSERT OR REPLACE INTO learned (kind, data) VALUES (?, ?)",
        lambda fact: (fact.kind, fact.data),
    ),
}

_ENTRY: Final = "SELECT id, key, request, intended_at, task_id, trace_id, accepted_at, settled_at, failed, outcome FROM jobs "
# The open purchase before the failed ones, then the latest of those.
_BY_KEY: Final = _ENTRY + "WHERE key = ? ORDER BY failed, id DESC LIMIT 1"
_BY_TASK: Final = _ENTRY + "WHERE task_id = ?"
_UNSETTLED: Final = _ENTRY + "WHERE settled_at IS NULL ORDER BY id"
_ATTEMPTS: Final = "SELECT job, number, at, nonce, closed FROM attempts WHERE job = ? ORDER BY number"
_OPEN_ATTEMPTS: Final = """SELECT job, number, at, nonce, closed FROM attempts
WHERE job IN (SELECT id FROM jobs WHERE settled_at IS NULL) ORDER BY job, number"""
_DOWNLOADS: Final = "SELECT video_id, path FROM downloads WHERE job = ?"

# What concerns one writer alone; every other error of SQLite is the disk's, and everybody's.
_WRITERS_FAULT: Final = (
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    TypeError,
    ValueError,
)


def _bound(value: object) -> object:
    """
    Give text that UTF-8 cannot hold (lone surrogates) as bytes, which no other text is stored as.
    """
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) and not _encodes(value) else value


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read(value: Any) -> Any:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


@define(eq=False)
class _Store:
    """
    The facts in their file; used by one thread.
    """

    path: Path
    connection: sqlite3.Connection

    @classmethod
    def open(cls, path: Path, token: str, *, durable: bool) -> _Store:
        return cls(path, open_file(path, token, durable=durable))

    def close(self) -> None:
        self.connection.close()

    def execute(self, sql: str, parameters: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        try:
            return self.connection.execute(sql, parameters)
        except UnicodeEncodeError:
            return self.connection.execute(sql, tuple(map(_bound, parameters)))

    def commit(self, batch: Sequence[_Work]) -> JournalError | None:
        """
        Do the works of a batch as one transaction; return what is wrong with the disk, if anything is.
        """
        try:
            self.execute("BEGIN")
            for work in batch:
                work.do(self)
            self.execute("COMMIT")
        except sqlite3.Error as error:
            return self._fail(batch, error)
        return None

    def _fail(self, batch: Sequence[_Work], error: sqlite3.Error) -> JournalError:
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
        for work in batch:
            work.error = explain(self.path, error)
            work.error.__cause__ = error
        failure = explain(self.path, error)
        failure.__cause__ = error
        return failure

    # --- one writer's facts

    def add(self, facts: Sequence[Fact]) -> None:
        """
        Store all of the facts, or none.
        """
        if len(facts) == 1:
            self._add(facts[0])
            return
        self.execute("SAVEPOINT facts")
        try:
            for fact in facts:
                self._add(fact)
        except BaseException:
            if self.connection.in_transaction:
                self.execute("ROLLBACK TO facts")
            raise
        finally:
            if self.connection.in_transaction:
                self.execute("RELEASE facts")

    def _add(self, fact: Fact) -> None:
        if isinstance(fact, AttemptClosed):
            self._close_attempt(fact)
        elif isinstance(fact, Withdrawn):
            self._withdraw(fact)
        else:
            sql, parameters = _STORE[type(fact)]
            if not self.execute(sql, parameters(fact)).rowcount:
                self._look_into(fact)

    def _look_into(self, fact: Any) -> None:
        """
        Tell a repetition, which is ignored, from a fact that cannot follow what is there.
        """
        entry = self.find(fact.key)
        if entry is not None and _REPEATED[type(fact)](fact, entry):
            return
        if isinstance(fact, Accepted) and (owner := self.find_task(fact.task_id)) is not None:
            raise AlreadyClaimed(
                f"task {fact.task_id} belongs to key {owner.key!r} already",
                key=fact.key,
                task_id=fact.task_id,
            )
        raise _out_of_order(fact, entry)

    def _close_attempt(self, fact: AttemptClosed) -> None:
        job, entry = self._latest(fact.key)
        attempt = next((one for one in entry.attempts if one.number == fact.attempt), None) if entry else None
        if attempt is None and fact.outcome == "refused" and (entry is None or entry.failed):
            return  # a repetition: the key was freed before
        if attempt is None or attempt.closed not in (None, fact.outcome):
            raise _out_of_order(fact, entry)
        if fact.outcome == "refused" and entry is not None and entry.task_id is None:
            self._forget(job)
        else:
            self.execute(
                "UPDATE attempts SET closed = ?, closed_at = ? WHERE job = ? AND number = ? AND closed IS NULL",
                (fact.outcome, fact.at, job, fact.attempt),
            )

    def _withdraw(self, fact: Withdrawn) -> None:
        job, entry = self._latest(fact.key)
        if entry is None or entry.failed:
            return  # a repetition
        if entry.task_id is not None or any(attempt.closed is None for attempt in entry.attempts):
            raise _out_of_order(fact, entry)
        self._forget(job)

    def _forget(self, job: int) -> None:
        self.execute("DELETE FROM attempts WHERE job = ?", (job,))
        self.execute("DELETE FROM jobs WHERE id = ?", (job,))

    # --- reading

    def find(self, key: str) -> Entry | None:
        return self._latest(key)[1]

    def find_task(self, task_id: str) -> Entry | None:
        return self._one(_BY_TASK, task_id)[1]

    def _latest(self, key: str) -> tuple[int, Entry | None]:
        return self._one(_BY_KEY, key)

    def _one(self, sql: str, value: str) -> tuple[int, Entry | None]:
        row = self.execute(sql, (value,)).fetchone()
        if row is None:
            return 0, None
        attempts = self.execute(_ATTEMPTS, row[:1]).fetchall()
        downloads = {_read(video): _read(path) for video, path in self.execute(_DOWNLOADS, row[:1])}
        return row[0], _entry(row, attempts, downloads)

    def unsettled(self) -> list[Entry]:
        attempts: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        for attempt in self.execute(_OPEN_ATTEMPTS):
            attempts[attempt[0]].append(attempt)
        return [_entry(row, attempts.get(row[0], ()), {}) for row in self.execute(_UNSETTLED)]

    def learned(self) -> dict[str, str]:
        return {_read(kind): _read(data) for kind, data in self.execute("SELECT kind, data FROM learned")}


def _entry(row: tuple[Any, ...], attempts: Iterable[tuple[Any, ...]], downloads: Mapping[str, str]) -> Entry:
    _, key, request, intended_at, task_id, trace_id, accepted_at, settled_at, failed, outcome = map(
        _read, row
    )
    return Entry(
        key=key,
        request=request,
        intended_at=intended_at,
        attempts=tuple(
            Attempt(number=number, at=at, nonce=_read(nonce), closed=closed)
            for _, number, at, nonce, closed in attempts
        ),
        task_id=task_id,
        trace_id=trace_id,
        accepted_at=accepted_at,
        settled_at=settled_at,
        failed=bool(failed),
        outcome=outcome,
        downloads=downloads,
    )


_REPEATED: Final[Mapping[type, Callable[[Any, Entry], bool]]] = {
    Intended: lambda fact, entry: fact.request == entry.request,
    Sending: lambda fact, entry: any(
        (one.number, one.at, one.nonce) == (fact.attempt, fact.at, fact.nonce) for one in entry.attempts
    ),
    Accepted: lambda fact, entry: fact.task_id == entry.task_id,
    Settled: lambda fact, entry: (fact.failed, fact.outcome) == (entry.failed, entry.outcome),
    Downloaded: lambda fact, entry: False,
}


def _out_of_order(fact: Any, entry: Entry | None) -> JournalError:
    name = type(fact).__name__
    return JournalError(
        f"{name} cannot follow what the journal knows: the key is {_standing(entry)}",
        key=fact.key,
        task_id=entry.task_id if entry else None,
    )


def _standing(entry: Entry | None) -> str:
    if entry is None:
        return "unknown"
    if entry.settled_at is not None:
        return "settled as failed" if entry.failed else "settled"
    if entry.task_id is not None:
        return "accepted"
    return f"intended, with {len(entry.attempts)} attempts"


# --- the loop's side -----------------------------------------------------------------------------------


@define(eq=False)
class _Work:
    """
    What one caller wants done, and how it went; the thread fills in the result.
    """

    facts: tuple[Fact, ...] = ()
    read: Callable[[_Store], Any] | None = None
    waiter: asyncio.Future[Any] | None = None
    result: Any = None
    error: JournalError | None = None

    def do(self, store: _Store) -> None:
        try:
            if self.read is not None:
                self.result = self.read(store)
            else:
                store.add(self.facts)
        except JournalError as error:
            self.error = error
        except _WRITERS_FAULT as error:
            self.error = JournalError(f"the journal cannot hold this: {error}")
            self.error.__cause__ = error


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # where it lies must not depend on later changes of directory


@define(eq=False, repr=False)
class Journal:
    """
    A file that remembers, through any crash, what was asked for, sent, accepted and settled.

    Give it (or its path) to `VeoSession(journal=...)`; one open session holds it at a time.
    It can be opened again after it was closed, in another event loop too.

    Args:
        path: the SQLite file; it is created where there is none, its directory is not.
        inline: work on the caller's thread, for tests on a clock that jumps;
            facts then survive the death of the process, but not of the machine.

    Attributes:
        path: the file, absolute.
        failure: why nothing can be made durable any more, or None; the next `open` clears it.
    """

    path: Path = field(converter=_absolute)
    inline: bool = field(default=False, kw_only=True)

    failure: JournalError | None = field(default=None, init=False)
    _store: _Store | None = field(default=None, init=False)
    _executor: ThreadPoolExecutor | None = field(default=None, init=False)
    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _pending: list[_Work] = field(factory=list, init=False)
    _flushing: bool = field(default=False, init=False)

    async def open(self, token: str) -> None:
        """
        Open and lock the file for the account of this token.

        Raises:
            ConfigurationError: there can be no file at this path.
            JournalError: the file is in use, damaged, foreign, full, read-only, or another token's.
        """
        if self._loop is not None:
            raise UsageError(f"{self!r} is open already")
        self._loop = asyncio.get_running_loop()
        self.failure = None
        try:
            self._store = await self._opened(token)
        except BaseException:
            self._loop = None
            raise

    async def _opened(self, token: str) -> _Store:
        if self.inline:
            return _Store.open(self.path, token, durable=False)
        executor = ThreadPoolExecutor(1, thread_name_prefix="veo-journal")
        opening = executor.submit(_Store.open, self.path, token, durable=True)
        try:
            store = await asyncio.wrap_future(opening)
        except BaseException:
            executor.submit(_undo, opening)
            executor.shutdown(wait=False)
            raise
        self._executor = executor
        return store

    async def write(self, *facts: Fact) -> None:
        """
        Return once the facts are durable, all of them or, on an error, none.

        Cancelling the caller does not take the facts back.

        Raises:
            AlreadyClaimed: the accepted task is another purchase's.
            JournalError: the disk failed, or the facts cannot follow what the journal knows.
        """
        await self._done(facts=facts)

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before whatever is written later.

        Should that fail, `failure` says so, and so do later writes and `close`.
        """
        if self.failure is None:
            self._put(_Work(facts=facts))

    async def find(self, key: str) -> Entry | None:
        """
        Return what is known of the key's latest purchase.
        """
        entry: Entry | None = await self._done(read=lambda store: store.find(key))
        return entry

    async def find_task(self, task_id: str) -> Entry | None:
        """
        Return the purchase that this task belongs to, be it the key's latest or a failed one before it.
        """
        entry: Entry | None = await self._done(read=lambda store: store.find_task(task_id))
        return entry

    async def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order in which they were intended.
        """
        entries: list[Entry] = await self._done(read=_Store.unsettled)
        return entries

    async def learned(self) -> dict[str, str]:
        """
        Return what was learned of each kind of request.
        """
        learned: dict[str, str] = await self._done(read=_Store.learned)
        return learned

    async def close(self) -> None:
        """
        Make everything durable that was written, and let go of the file; do nothing where it is closed.

        Raises:
            JournalError: something could not be made durable.
        """
        if self._store is None:
            return
        store, executor = self._store, self._executor
        if executor is None:
            store.close()
        else:
            self._flush()
        self._store = None
        try:
            if executor is not None:
                await asyncio.shield(asyncio.wrap_future(executor.submit(store.close)))
                executor.shutdown()  # idle by now: this only joins the thread
        finally:
            if executor is not None:
                executor.shutdown(wait=False)
            self._executor = self._loop = None
        if self.failure is not None:
            raise self.failure

    # --- gathering and committing

    async def _done(self, **what: Any) -> Any:
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure
        if self._loop is None:
            raise UsageError(f"{self!r} is not open")
        waiter = self._loop.create_future()
        self._put(_Work(waiter=waiter, **what))
        return await waiter

    def _put(self, work: _Work) -> None:
        if self._store is None or self._loop is None:
            raise UsageError(f"{self!r} is not open")
        self._pending.append(work)
        if self.inline:
            batch, self._pending = self._pending, []
            self._landed(batch, self._store.commit(batch))
        elif not self._flushing:
            # After the turn: everybody who was woken by the last commit gets to add to this one.
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._executor is None or self._store is None or self._loop is None or not self._pending:
            self._flushing = False
            return
        self._flushing = True
        batch, self._pending = self._pending, []
        self._executor.submit(self._commit, self._store, batch, self._loop)

    def _commit(self, store: _Store, batch: list[_Work], loop: asyncio.AbstractEventLoop) -> None:
        failure = store.commit(batch)
        with suppress(RuntimeError):  # the loop is closed: durable, but nobody is left to be told
            loop.call_soon_threadsafe(self._landed, batch, failure)

    def _landed(self, batch: list[_Work], failure: JournalError | None) -> None:
        self.failure = self.failure or failure
        for work in batch:
            self._deliver(work)
        if not self.inline:
            self._flush()

    def _deliver(self, work: _Work) -> None:
        if work.waiter is None:
            self.failure = self.failure or work.error
        elif work.waiter.done():
            pass  # its caller was cancelled
        elif work.error is not None:
            work.waiter.set_exception(work.error)
        else:
            work.waiter.set_result(work.result)

    def __repr__(self) -> str:
        state = "failed" if self.failure else "open" if self._store else "closed"
        return f"<Journal {str(self.path)!r} {state}, {len(self._pending)} waiting>"


def _undo(opening: Future[_Store]) -> None:
    """
    Close what was opened after nobody waited for it any more.
    """
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()

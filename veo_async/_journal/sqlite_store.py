"""
The facts in their file, and the rules of what may follow what.

A batch of facts is one SQL statement. Python's interpreter lock is let go of once a statement, and a busy event
loop is slow to give it back: a statement per fact would make a commit wait for hundreds of turns.
So facts are inserted into a view, all at once, and triggers put each where it belongs.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain, groupby
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import define, field

from ..errors import JournalError
from .batching import Work
from .facts import (
    Accepted,
    AlreadyClaimed,
    Attempt,
    AttemptClosed,
    Disowned,
    Downloaded,
    Entry,
    Fact,
    Fresh,
    Intended,
    Learned,
    Sending,
    Settled,
    Standing,
    TakeIn,
    Withdrawn,
    out_of_order,
    standing,
)
from .sqlite_file import checkpoint, explain, make_whole, open_file

__all__ = ["Store"]

_T = TypeVar("_T")


# --- the rules -----------------------------------------------------------------------------------------

_ROWS: Final[Mapping[type, Callable[[Any], tuple[object, ...]]]] = {
    Intended: lambda fact: ("intended", fact.key, fact.request, None, None, fact.at),
    Sending: lambda fact: ("sending", fact.key, fact.attempt, fact.mark, None, fact.at),
    AttemptClosed: lambda fact: ("closed", fact.key, fact.attempt, fact.outcome, None, fact.at),
    Accepted: lambda fact: ("accepted", fact.key, fact.task_id, fact.trace_id, None, fact.at),
    Disowned: lambda fact: ("disowned", fact.key, fact.task_id, None, None, None),
    Settled: lambda fact: ("settled", fact.key, int(fact.failed), fact.outcome, None, fact.at),
    Downloaded: lambda fact: ("downloaded", fact.key, fact.video_id, fact.path, None, fact.at),
    Withdrawn: lambda fact: ("withdrawn", fact.key, None, None, None, fact.at),
    Learned: lambda fact: ("learned", fact.kind, fact.data, None, None, None),
}
_NO_ROW: Final = (None,) * 6

# What each fact does. Its statement finds a row to change only where the fact may follow what is there.
# A key's open purchase is the one that has not failed: `failed = 0` is what the index `open_key` holds.
_RULES: Final[Mapping[str, str]] = {
    "intended": "INSERT OR IGNORE INTO jobs (key, request, intended_at) VALUES (NEW.key, NEW.one, NEW.at)",
    # Attempt 0 stands for what another process may have sent: closed, it may be in question again.
    "sending": """INSERT OR REPLACE INTO attempts (job, number, mark, at)
        SELECT id, NEW.one, NEW.two, NEW.at FROM jobs WHERE key = NEW.key AND failed = 0 AND task_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM attempts WHERE job = jobs.id
            AND number >= NEW.one AND NOT (number = 0 AND closed IS NOT NULL))""",
    "closed": """UPDATE attempts SET closed = NEW.two, closed_at = NEW.at
        WHERE job = (SELECT id FROM jobs WHERE key = NEW.key AND failed = 0)
        AND number = NEW.one AND closed IS NULL""",
    "accepted": """UPDATE OR IGNORE jobs SET task_id = NEW.one, trace_id = NEW.two, accepted_at = NEW.at
        WHERE key = NEW.key AND failed = 0 AND task_id IS NULL""",
    "disowned": """UPDATE jobs SET task_id = NULL, trace_id = NULL, accepted_at = NULL
        WHERE key = NEW.key AND failed = 0 AND task_id = NEW.one AND settled_at IS NULL""",
    "settled": """UPDATE jobs SET failed = NEW.one, outcome = NEW.two, settled_at = NEW.at
        WHERE key = NEW.key AND failed = 0 AND task_id IS NOT NULL AND settled_at IS NULL""",
    "downloaded": """INSERT OR REPLACE INTO downloads (job, video_id, path, at)
        SELECT id, NEW.one, NEW.two, NEW.at FROM jobs
        WHERE key = NEW.key AND failed = 0 AND settled_at IS NOT NULL""",
    "withdrawn": """DELETE FROM jobs WHERE key = NEW.key AND failed = 0 AND task_id IS NULL
        AND NOT EXISTS (SELECT 1 FROM attempts WHERE job = jobs.id AND closed IS NULL)""",
    "learned": "INSERT OR REPLACE INTO learned (kind, data) VALUES (NEW.key, NEW.one)",
}
# What follows once the statement has found its row.
_THEN: Final[Mapping[str, str]] = {
    "closed": "DELETE FROM jobs WHERE NEW.two = 'refused' AND key = NEW.key AND failed = 0 AND task_id IS NULL;",
}
_VIEW: Final = (
    "CREATE TEMP VIEW fact (kind, key, one, two, three, at) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL",
    # An attempt goes with its purchase, or the next row with this id would inherit it.
    "CREATE TEMP TRIGGER forget AFTER DELETE ON main.jobs BEGIN DELETE FROM attempts WHERE job = OLD.id; END",
    *(
        f"""CREATE TEMP TRIGGER {kind} INSTEAD OF INSERT ON fact WHEN NEW.kind = '{kind}' BEGIN
        {rule}; SELECT RAISE(ABORT, 'no row') WHERE changes() = 0; {_THEN.get(kind, "")} END"""
        for kind, rule in _RULES.items()
    ),
)

# A fact that found no row is ignored if it only says again what the key's latest purchase holds.
_REPEATS: Final[Mapping[type, Callable[[Any, Entry | None], bool]]] = {
    Intended: lambda fact, entry: entry is not None and fact.request == entry.request,
    Sending: lambda fact, entry: entry is not None and _begun(fact) in _attempts(entry),
    # A freed key is unknown, or back at the failure before: there is no more to compare with.
    AttemptClosed: lambda fact, entry: (
        fact.outcome == "refused" if entry is None else entry.failed or _ended(fact) in _attempts(entry)
    ),
    Accepted: lambda fact, entry: entry is not None and fact.task_id == entry.task_id,
    Disowned: lambda fact, entry: entry is None or entry.task_id != fact.task_id,
    Settled: lambda fact, entry: (
        entry is not None and (fact.failed, fact.outcome) == (entry.failed, entry.outcome)
    ),
    Downloaded: lambda fact, entry: False,
    Withdrawn: lambda fact, entry: entry is None or entry.failed,
}


def _begun(fact: Sending) -> tuple[object, ...]:
    return fact.attempt, fact.at, fact.mark


def _ended(fact: AttemptClosed) -> tuple[object, ...]:
    return fact.attempt, fact.outcome


def _attempts(entry: Entry) -> set[tuple[object, ...]]:
    return {one for a in entry.attempts for one in ((a.number, a.at, a.mark), (a.number, a.closed))}


# --- the store -----------------------------------------------------------------------------------------

# Rows of one statement; six values each stay below the 999 that SQLite once allowed in a statement.
_MOST_ROWS: Final = 128
_ENTRY: Final = """SELECT id, key, request, intended_at, task_id, trace_id, accepted_at, settled_at, failed, outcome,
(SELECT coalesce(max(number), 0) FROM attempts WHERE job IN
    (SELECT id FROM jobs AS other WHERE other.key = jobs.key AND failed = 1 AND other.id <> jobs.id))
FROM jobs """
_UNSETTLED: Final = _ENTRY + "WHERE settled_at IS NULL ORDER BY id"
_ATTEMPTS: Final = "SELECT job, number, at, mark, closed FROM attempts WHERE job IN ({}) ORDER BY number"
_DOWNLOADS: Final = "SELECT job, video_id, path FROM downloads WHERE job IN ({})"
_OF_UNSETTLED: Final = "SELECT id FROM jobs WHERE settled_at IS NULL"

# The log is brought into the file when it has grown by about so many bytes: SQLite's own rule is 4 MB. A fact changes
# about so many pages of 4096 bytes (its row, and leaves of the indexes), fewer where many are written at once.
MOST_LOG: Final = 1 << 24
_FACT_SIZE: Final = 4 * 4096

# What is wrong with one caller's facts or question; every other error of SQLite is the disk's, and concerns everybody.
_CALLERS_FAULT: Final = (
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    KeyError,
    OverflowError,
    TypeError,
    ValueError,
)


@define(eq=False)
class Store:
    """
    The facts in their file; to be used by one thread.
    """

    path: Path
    connection: sqlite3.Connection
    failure: JournalError | None = None
    _log_size: int = field(init=False, default=0)  # bytes, about, since the last checkpoint

    @classmethod
    def open(cls, path: Path, token: str, *, durable: bool) -> Store:
        """
        Open the file; see `open_file`.
        """
        connection = open_file(path, token, durable=durable)
        connection.text_factory = _readable
        for statement in ("PRAGMA temp_store = MEMORY", *_VIEW):
            connection.execute(statement)
        return cls(path, connection)

    def close(self) -> None:
        """
        Let go of the file.
        """
        with suppress(sqlite3.Error):
            make_whole(self.connection)  # else a checkpoint that failed would be remembered
        self.connection.close()

    def tidy(self) -> None:
        """
        Bring the log's facts into the main file if it has grown; to be called when nobody waits.
        """
        if self._log_size < MOST_LOG or self.failure is not None:
            return
        self._log_size = 0
        # Should it fail, nothing is lost: the facts are in the log, and a disk that fails will fail the next one too.
        with suppress(sqlite3.Error):
            checkpoint(self.connection)

    def do(self, batch: Sequence[Work[Store]]) -> JournalError | None:
        """
        Do the works in their order, and return what is wrong with the disk, if anything is.

        Facts that stand side by side become durable together; each writer's are stored all or not at all.
        """
        for reading, works in groupby(batch, key=lambda work: work.ask is not None):
            if reading:
                self._read(works)
            else:
                self._write(list(works))
        return self.failure

    # --- writing

    def _write(self, works: Sequence[Work[Store]]) -> None:
        try:
            # After a failure nothing is stored: a fact must not outlive one that was written before it.
            if self.failure is not None:
                raise self.failure
            self._write_together(works)
        except _CALLERS_FAULT:
            self._roll_back()
            self._write_apart(works)
        except Exception as error:
            self._give_up(works, error)

    def _give_up(self, works: Iterable[Work[Store]], error: Exception) -> None:
        self._roll_back()
        self.failure = self.failure or explain(self.path, error)
        for work in works:
            work.error = JournalError(*self.failure.args)
            work.error.__cause__ = error

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with suppress(sqlite3.Error):  # there is an error already, and it says more
                self.connection.execute("ROLLBACK")

    def _write_together(self, works: Sequence[Work[Store]]) -> None:
        """
        Store all facts at the price of one, provided that every one follows the rules and is new.
        """
        rows = [_ROWS[type(fact)](fact) for work in works for fact in work.facts]
        if len(rows) <= _MOST_ROWS:
            self._insert(rows)  # a transaction by itself
            return
        self._execute("BEGIN")
        for some in _slices(rows, _MOST_ROWS):
            self._insert([*some])
        self._execute("COMMIT")

    def _write_apart(self, works: Sequence[Work[Store]]) -> None:
        """
        Find out which facts are wrong or known already, and store the rest.
        """
        try:
            self._execute("BEGIN")
            for work in works:
                self._write_one(work)
            self._execute("COMMIT")
        except Exception as error:
            self._give_up(works, error)

    def _write_one(self, work: Work[Store]) -> None:
        self._execute("SAVEPOINT work")
        try:
            for fact in work.facts:
                self._add(fact)
        except (JournalError, *_CALLERS_FAULT) as error:
            work.error = error if isinstance(error, JournalError) else _unfit(error)
            self._execute("ROLLBACK TO work")
        self._execute("RELEASE work")

    def _add(self, fact: Fact) -> None:
        try:
            self._insert([_ROWS[type(fact)](fact)])
        except sqlite3.IntegrityError:
            if isinstance(fact, Learned):
                raise
            self._look_into(fact)

    def _look_into(self, fact: Any) -> None:
        """
        Tell a repetition, which is ignored, from a fact that cannot follow what is there.
        """
        entry = self.find(fact.key)
        if _REPEATS[type(fact)](fact, entry):
            return
        owner = self.find_tasks([fact.task_id]).get(fact.task_id) if isinstance(fact, Accepted) else None
        if owner is not None:
            raise AlreadyClaimed(
                f"the task is key {owner.key!r}'s already", key=fact.key, task_id=fact.task_id
            )
        raise out_of_order(fact, entry)

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        if rows:
            # Few lengths, so that the statements stay prepared: the next power of two, filled up with no facts.
            length = 1 << (len(rows) - 1).bit_length()
            texts = (len(value) for row in rows for value in row if isinstance(value, str))
            self._log_size += _FACT_SIZE * len(rows) + sum(texts)
            rows = rows + [_NO_ROW] * (length - len(rows))
            self._execute(_INSERT[length], chain.from_iterable(rows))

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, [_bound(value) for value in values])

    def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the keys that are new, and say of each how it stands: all at once, or none on an error.
        """
        known = self.find_many(item.key for item in items)
        entries = [known.get(item.key) for item in items]
        standings = [*map(standing, items, entries)]
        work = Work[Store](facts=tuple(chain.from_iterable(map(_news, items, entries, standings))))
        self._write([work])
        if work.error is not None:
            raise work.error
        return standings

    # --- reading

    def _read(self, works: Iterable[Work[Store]]) -> None:
        for work in works:
            assert work.ask is not None
            try:
                work.result = work.ask(self)
            except JournalError as error:
                work.error = error
            except _CALLERS_FAULT as error:
                work.error = _unfit(error)
            except Exception as error:
                self._give_up([work], error)

    def find(self, key: str) -> Entry | None:
        """
        Return the key's latest purchase.
        """
        return self.find_many([key]).get(key)

    def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return the latest purchases of those keys that are known.
        """
        return {entry.key: entry for entry in self._found("key", keys)}

    def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to.
        """
        return {
            entry.task_id: entry for entry in self._found("task_id", task_ids) if entry.task_id is not None
        }

    def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order of intention.
        """
        attempts = self._by_job(_ATTEMPTS.format(_OF_UNSETTLED), ())
        return [_entry(row, attempts[row[0]], ()) for row in self._execute(_UNSETTLED)]

    def learned(self) -> dict[str, str]:
        """
        Return what was learned, by kind.
        """
        return dict(_texts(self._execute("SELECT kind, data FROM learned")))

    def _found(self, column: str, values: Iterable[str]) -> Iterator[Entry]:
        # The open purchase comes after the failed ones, and of those the latest last.
        question = _ENTRY + f"WHERE {column} IN ({{}}) ORDER BY failed DESC, id"
        for some in _slices([*values], _MOST_ROWS):
            rows = self._rows(question, some)
            ids = [row[0] for row in rows]
            attempts, downloads = self._by_job(_ATTEMPTS, ids), self._by_job(_DOWNLOADS, ids)
            yield from (_entry(row, attempts[row[0]], downloads[row[0]]) for row in rows)

    def _by_job(self, question: str, ids: Sequence[int]) -> Mapping[int, list[tuple[Any, ...]]]:
        found: Mapping[int, list[tuple[Any, ...]]] = defaultdict(list)
        for job, *rest in self._rows(question, ids):
            found[job].append(tuple(rest))
        return found

    def _rows(self, question: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """
        Ask with as many values as there are, in place of the braces.
        """
        return self._execute(question.format(", ".join("?" * len(values))), values).fetchall()


_INSERT: Final = {
    1 << power: "INSERT INTO fact VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?)"] * (1 << power))
    for power in range(_MOST_ROWS.bit_length())
}


def _unfit(error: Exception) -> JournalError:
    unfit = JournalError(f"the journal cannot hold or look up this: {error}")
    unfit.__cause__ = error
    return unfit


def _bound(value: object) -> object:
    """
    Give text that UTF-8 cannot hold (lone surrogates) as bytes; no other text is ever stored so.
    """
    if not isinstance(value, str) or value.isascii():
        return value
    stored = value.encode("utf-8", "surrogatepass")
    return stored if value.encode("utf-8", "replace") != stored else value


def _texts(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    return (tuple(map(_text, row)) for row in rows)


def _text(value: Any) -> Any:
    try:
        return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return _readable(value)


def _readable(stored: bytes) -> str:
    """
    Read a text as far as it can be read: one that is spoilt must not cost all others that are read with it.

    SQLite's own way is an error for the whole question, with the text in its words.
    """
    return stored.decode("utf-8", "replace")


def _entry(
    row: tuple[Any, ...], attempts: Iterable[tuple[Any, ...]], downloads: Iterable[tuple[Any, ...]]
) -> Entry:
    _, key, request, intended_at, task_id, trace_id, accepted_at, settled_at, failed, outcome, earlier = map(
        _text, row
    )
    return Entry(
        key=key,
        request=request,
        intended_at=intended_at,
        attempts=tuple(
            Attempt(number=number, at=at, mark=mark, closed=closed)
            for number, at, mark, closed in _texts(attempts)
        ),
        earlier=earlier,
        task_id=task_id,
        trace_id=trace_id,
        accepted_at=accepted_at,
        settled_at=settled_at,
        failed=bool(failed),
        outcome=outcome,
        downloads=dict(_texts(downloads)),
    )


def _news(item: TakeIn, entry: Entry | None, now: Standing) -> Iterator[Fact]:
    if isinstance(now, Fresh):
        if entry is None or entry.failed:
            yield Intended(key=item.key, request=item.request, at=item.at)
        if sending := item.sending(now.earlier):
            yield sending


def _slices(values: Sequence[_T], length: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + length] for start in range(0, len(values), length))

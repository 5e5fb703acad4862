"""
Reads and writes facts in the file; holds the rules of which fact may follow which.

A batch of facts is one SQL statement. Each statement releases Python's interpreter lock, and a busy event loop is
slow to give it back: with one statement per fact, a commit would wait for hundreds of turns.
So all facts are inserted into a view at once, and triggers write each to its table.
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
    Spent,
    Standing,
    TakeIn,
    Withdrawn,
    out_of_order,
    standing,
)
from .sqlite_file import checkpoint, clear_partial, explain, open_file

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

# What each fact changes. Its statement changes a row only if the fact may follow what is there.
# A key's open purchase is the one that has not failed (`failed = 0`, index `open_key`).
_RULES: Final[Mapping[str, str]] = {
    "intended": "INSERT OR IGNORE INTO jobs (key, request, intended_at) VALUES (NEW.key, NEW.one, NEW.at)",
    # Attempt 0 is one that another process may have made: after it was closed, it may be opened again.
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
# What is done after the statement has changed a row.
_AFTERWARDS: Final[Mapping[str, str]] = {
    "closed": "DELETE FROM jobs WHERE NEW.two = 'refused' AND key = NEW.key AND failed = 0 AND task_id IS NULL;",
}
_VIEW: Final = (
    "CREATE TEMP VIEW fact (kind, key, one, two, three, at) AS SELECT NULL, NULL, NULL, NULL, NULL, NULL",
    # Attempts are deleted with their purchase; otherwise the next row with its id would inherit them.
    "CREATE TEMP TRIGGER forget AFTER DELETE ON main.jobs BEGIN DELETE FROM attempts WHERE job = OLD.id; END",
    *(
        f"""CREATE TEMP TRIGGER {kind} INSTEAD OF INSERT ON fact WHEN NEW.kind = '{kind}' BEGIN
        {rule}; SELECT RAISE(ABORT, 'no row') WHERE changes() = 0; {_AFTERWARDS.get(kind, "")} END"""
        for kind, rule in _RULES.items()
    ),
)

# A fact that changed no row is ignored if it only repeats what is known of the key's latest purchase.
_REPEATS: Final[Mapping[type, Callable[[Any, Entry | None], bool]]] = {
    Intended: lambda fact, entry: entry is not None and fact.request == entry.request,
    Sending: lambda fact, entry: entry is not None and _begun(fact) in _attempts(entry),
    # A freed key is unknown, or back at its earlier failure: there is nothing left to compare with.
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

# Rows per statement: with six values each, they stay below the 999 values that older SQLites allow.
_MAX_ROWS: Final = 128
_ENTRY: Final = """SELECT id, key, request, intended_at, task_id, trace_id, accepted_at, settled_at, failed, outcome,
(SELECT coalesce(max(number), 0) FROM attempts WHERE job IN
    (SELECT id FROM jobs AS other WHERE other.key = jobs.key AND failed = 1 AND other.id <> jobs.id))
FROM jobs """
_UNSETTLED: Final = _ENTRY + "WHERE settled_at IS NULL ORDER BY id"
_ATTEMPTS: Final = "SELECT job, number, at, mark, closed FROM attempts WHERE job IN ({}) ORDER BY number"
_DOWNLOADS: Final = "SELECT job, video_id, path FROM downloads WHERE job IN ({})"
_OF_UNSETTLED: Final = "SELECT id FROM jobs WHERE settled_at IS NULL"

_RESERVE: Final = "UPDATE jobs SET reserved = 1, credits = ? WHERE key = ? AND failed = 0"
_RESERVED: Final = "SELECT credits FROM jobs WHERE key = ? AND failed = 0 AND reserved = 1"
_TOTALS: Final = """SELECT count(*), total(credits), coalesce(sum(credits IS NULL), 0)
    FROM jobs WHERE reserved = 1 AND failed = 0"""
_RESERVE_PURCHASES: Final = """UPDATE jobs SET reserved = 1 WHERE reserved = 0 AND failed = 0
    AND (task_id IS NOT NULL OR EXISTS (SELECT 1 FROM attempts WHERE job = jobs.id AND closed IS NULL))"""
_FREE_WHAT_WAS_NOT_SENT: Final = """UPDATE jobs SET reserved = 0 WHERE reserved = 1 AND failed = 0
    AND task_id IS NULL AND NOT EXISTS (SELECT 1 FROM attempts WHERE job = jobs.id AND closed IS NULL)"""
_UNPRICED: Final = "SELECT key, request FROM jobs WHERE reserved = 1 AND failed = 0 AND credits IS NULL"

# A checkpoint is due when the log has grown by about this many bytes (SQLite's own default is 4 MB). A fact changes
# about four pages of 4096 bytes (its row, and index leaves), or fewer if many are written at once.
MAX_LOG_SIZE: Final = 1 << 24
_FACT_SIZE: Final = 4 * 4096

# Errors of one caller's facts or question; any other error of SQLite is the disk's, and affects all callers.
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
    Reads and writes the facts in the file; for one thread.
    """

    path: Path
    connection: sqlite3.Connection
    failure: JournalError | None = None
    _spent: Spent | None = field(init=False, default=None)  # by all reservations; None must be counted again
    _log_size: int = field(init=False, default=0)  # estimated bytes since the last checkpoint

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
        Close the file.
        """
        with suppress(sqlite3.Error):
            clear_partial(self.connection)  # a failed checkpoint may have left `partial = 1`
        self.connection.close()

    def tidy(self) -> None:
        """
        Make a checkpoint if the log has grown; to be called when nobody waits.
        """
        if self._log_size < MAX_LOG_SIZE or self.failure is not None:
            return
        self._log_size = 0
        # If it fails, nothing is lost: the facts are in the log, and a failing disk also fails the next commit.
        with suppress(sqlite3.Error):
            checkpoint(self.connection)

    def do(self, batch: Sequence[Work[Store]]) -> JournalError | None:
        """
        Do the works in order; returns the error of the disk, if there is one.

        Adjacent works that write become durable together; of each work, all facts are stored or none.
        """
        for reading, works in groupby(batch, key=lambda work: work.ask is not None):
            if reading:
                self._read(works)
            else:
                self._write(list(works))
        return self.failure

    # --- writing

    def _write(self, works: Sequence[Work[Store]]) -> None:
        if any(_may_free(fact) for work in works for fact in work.facts):
            self._spent = None
        try:
            # After a failure nothing is stored: no fact may survive when an earlier one is lost.
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
            with suppress(sqlite3.Error):  # the error that led here says more
                self.connection.execute("ROLLBACK")

    def _write_together(self, works: Sequence[Work[Store]]) -> None:
        """
        Store all facts in one transaction; raises if any breaks a rule or is a repetition.
        """
        rows = [_ROWS[type(fact)](fact) for work in works for fact in work.facts]
        if len(rows) <= _MAX_ROWS:
            self._insert(rows)  # one statement is a transaction
            return
        self._execute("BEGIN")
        for some in _slices(rows, _MAX_ROWS):
            self._insert([*some])
        self._execute("COMMIT")

    def _write_apart(self, works: Sequence[Work[Store]]) -> None:
        """
        Store the facts one by one, to find out which are wrong or known already.
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
        Ignore a fact that is a repetition; raise if it cannot follow what is there.
        """
        entry = self.find(fact.key)
        if _REPEATS[type(fact)](fact, entry):
            return
        owner = self.find_tasks([fact.task_id]).get(fact.task_id) if isinstance(fact, Accepted) else None
        if owner is not None:
            raise AlreadyClaimed(
                f"the task already belongs to key {owner.key!r}", key=fact.key, task_id=fact.task_id
            )
        raise out_of_order(fact, entry)

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        if rows:
            # Padded to a power of two: few different statements, so that they stay prepared.
            length = 1 << (len(rows) - 1).bit_length()
            texts = (len(value) for row in rows for value in row if isinstance(value, str))
            self._log_size += _FACT_SIZE * len(rows) + sum(texts)
            rows = rows + [_NO_ROW] * (length - len(rows))
            self._execute(_INSERT[length], chain.from_iterable(rows))

    def _execute(self, sql: str, values: Iterable[Any] = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, [_bound(value) for value in values])

    def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the new keys, and return the standing of each: all of them or, on an error, none.
        """
        known = self.find_many(item.key for item in items)
        entries = [known.get(item.key) for item in items]
        standings = [*map(standing, items, entries)]
        work = Work[Store](facts=tuple(chain.from_iterable(map(_facts_of, items, entries, standings))))
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
        Return the latest purchases of these keys, by key; unknown keys are absent.
        """
        return {entry.key: entry for entry in self._found("key", keys)}

    def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to, by task id.
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

    def entries(self) -> list[Entry]:
        """
        Return every purchase, in the order of intention.
        """
        every = "SELECT id FROM jobs"
        attempts = self._by_job(_ATTEMPTS.format(every), ())
        downloads = self._by_job(_DOWNLOADS.format(every), ())
        rows = self._execute(f"{_ENTRY} ORDER BY id")
        return [_entry(row, attempts[row[0]], downloads[row[0]]) for row in rows]

    def learned(self) -> dict[str, str]:
        """
        Return what was learned, by kind.
        """
        return dict(_texts(self._execute("SELECT kind, data FROM learned")))

    def uploads(self, names: Sequence[str]) -> dict[str, str]:
        """
        Return the addresses of uploaded pictures, by their names.
        """
        question = "SELECT name, address FROM uploads WHERE name IN ({})"
        return dict(row for some in _slices(names, _MAX_ROWS) for row in _texts(self._rows(question, some)))

    def note_upload(self, name: str, address: str, at: float) -> None:
        """
        Store the address of an uploaded picture.
        """
        self._execute(
            "INSERT OR REPLACE INTO uploads (name, address, at) VALUES (?, ?, ?)", (name, address, at)
        )

    def reserve(
        self, key: str, price: float | None, max_videos: int | None, max_credits: float | None
    ) -> Spent:
        """
        Reserve a purchase if it fits, and return what all others have spent.
        """
        spent = self._spent = self._spent or self._spent_by_all()
        for (known,) in self._execute(_RESERVED, [key]):
            spent = spent.without(known)
        if spent.fits(price, max_videos, max_credits) and self._execute(_RESERVE, (price, key)).rowcount:
            self._spent = spent.plus(price)
        return spent

    def _spent_by_all(self) -> Spent:
        [(videos, credits_, unpriced)] = self._execute(_TOTALS)
        return Spent(videos=videos, credits=credits_, unpriced=unpriced)

    def reserve_purchases(self) -> dict[str, str]:
        """
        Reserve what may have been bought, and nothing else; returns the requests whose prices are not known.
        """
        self._spent = None
        self._execute(_FREE_WHAT_WAS_NOT_SENT)
        self._execute(_RESERVE_PURCHASES)
        return dict(_texts(self._execute(_UNPRICED)))

    def note_price(self, key: str, price: float) -> None:
        """
        Store the price of a reserved purchase.
        """
        self._execute(
            "UPDATE jobs SET credits = ? WHERE key = ? AND failed = 0 AND reserved = 1", (price, key)
        )

    def _found(self, column: str, values: Iterable[str]) -> Iterator[Entry]:
        # Failed purchases come first, oldest first, then the open one: the last row of a key is its latest.
        question = _ENTRY + f"WHERE {column} IN ({{}}) ORDER BY failed DESC, id"
        for some in _slices([*values], _MAX_ROWS):
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
        Fetch the rows of a query whose braces are replaced by as many placeholders as there are values.
        """
        return self._execute(question.format(", ".join("?" * len(values))), values).fetchall()


_INSERT: Final = {
    1 << power: "INSERT INTO fact VALUES " + ", ".join(["(?, ?, ?, ?, ?, ?)"] * (1 << power))
    for power in range(_MAX_ROWS.bit_length())
}


def _may_free(fact: Fact) -> bool:
    """
    Tell whether a fact may end a reservation.
    """
    is_failure = isinstance(fact, Settled) and fact.failed
    return is_failure or isinstance(fact, AttemptClosed | Withdrawn)


def _unfit(error: Exception) -> JournalError:
    unfit = JournalError(f"the journal cannot store or look up this: {error}")
    unfit.__cause__ = error
    return unfit


def _bound(value: object) -> object:
    """
    Return text with lone surrogates, which UTF-8 cannot encode, as bytes; all other text is stored as text.
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
    Decode a text as far as possible, so that a damaged one does not prevent reading the others.

    By default, SQLite fails the whole query, with an error that quotes the text.
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


def _facts_of(item: TakeIn, entry: Entry | None, now: Standing) -> Iterator[Fact]:
    if isinstance(now, Fresh):
        if entry is None or entry.failed:
            yield Intended(key=item.key, request=item.request, at=item.at)
        if sending := item.sending(now.earlier):
            yield sending


def _slices(values: Sequence[_T], length: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + length] for start in range(0, len(values), length))

"""
Reads and writes facts in PostgreSQL; through any outage, each query is repeated until the server answers.

A repeated query may have been done already, so every fact may be written twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import psycopg
from attrs import asdict, define, field

from ..errors import JournalError
from .account_limits import AccountLimits
from .batching import Work
from .facts import (
    Accepted,
    AlreadyClaimed,
    AttemptClosed,
    Disowned,
    Entry,
    Fact,
    Fenced,
    Intended,
    Learned,
    Sending,
    Settled,
    Spent,
    Standing,
    TakeIn,
    Withdrawn,
    out_of_order,
)
from .learned import add_up, subtract
from .postgres_connection import Address, Connection, explain, is_collision, is_outage
from .postgres_lease import Lease
from .postgres_limits import GET_LIMITS, SET_LIMITS, held_back
from .postgres_rows import digest, fact_row, item_row, read_entry, read_standing, readable, stored
from .postgres_schema import INCOMPLETE, OUT_OF_SESSION

__all__ = ["PostgresStore"]

_LOG: Final = logging.getLogger("veo_async")
_PAUSE, _MAX_PAUSE = 0.05, 1.0  # seconds between two tries
_UNFIT: Final = (AttributeError, KeyError, TypeError, ValueError)
_SPENDING: Final = (Intended, Sending, Withdrawn)
_ENDING: Final = (Accepted, AttemptClosed, Disowned, Settled, Withdrawn)

_FOUND: Final = """SELECT to_jsonb(it) FROM SCHEMA.entry AS it WHERE id IN (
    SELECT id FROM SCHEMA.job WHERE account = %(account)s AND digest = ANY(%(digests)s::uuid[]) AND NOT failed
    UNION ALL SELECT id FROM SCHEMA.job WHERE account = %(account)s AND digest = ANY(%(digests)s::uuid[]) AND failed
    ) ORDER BY failed DESC, id"""
_FOUND_TASKS: Final = """SELECT to_jsonb(it) FROM SCHEMA.entry AS it
    WHERE account = %(account)s AND task_digest = ANY(%(digests)s::uuid[])"""
_ENTRIES: Final = "SELECT to_jsonb(it) FROM SCHEMA.entry AS it WHERE account = %(account)s ORDER BY id"
# What may have been paid for with another token, of keys for which this one has bought nothing.
_FOUND_OTHERS: Final = """SELECT to_jsonb(it) FROM SCHEMA.account AS other JOIN SCHEMA.entry AS it ON it.account = other.id
    WHERE other.id <> %(account)s AND it.digest = ANY(%(digests)s::uuid[]) AND NOT it.failed
    AND (it.task_id IS NOT NULL OR it.attempts @? '$[*] ? (@.closed == null)' OR SCHEMA.is_live(it.session))
    AND NOT EXISTS (SELECT FROM SCHEMA.job WHERE account = %(account)s AND digest = it.digest AND NOT failed)
    ORDER BY it.id"""
_REFUSALS: Final = """SELECT key, reason FROM SCHEMA.refusal
    WHERE account = %(account)s AND digest = ANY(%(digests)s::uuid[])"""
_UPLOADS: Final = """SELECT name, address FROM SCHEMA.upload
    WHERE account = %(account)s AND name = ANY(%(names)s)"""
_NOTE_UPLOAD: Final = "SELECT SCHEMA.note_upload(%(session)s, %(name)s, %(address)s, %(at)s)"
_RESERVE: Final = """SELECT SCHEMA.reserve(%(session)s, %(digest)s::uuid, %(credits)s::double precision,
    %(max_videos)s::bigint, %(max_credits)s::double precision)"""
_NOTE_PRICE: Final = """UPDATE SCHEMA.job SET credits = %(credits)s
    WHERE account = %(account)s AND digest = %(digest)s::uuid AND NOT failed AND reserved RETURNING id"""
_LEARNED: Final = """SELECT kind, data, session = %(session)s FROM SCHEMA.learned
    WHERE account = %(account)s ORDER BY kind, session"""
_BEGIN: Final = """INSERT INTO SCHEMA.session (account, name, lease, expires_at)
    SELECT %(account)s, %(name)s, it, clock_timestamp() + it
    FROM make_interval(secs => %(seconds)s) AS it RETURNING id, nonce"""
_HELD: Final = """SELECT pg_is_in_recovery(), (SELECT incomplete FROM SCHEMA.meta),
    (SELECT written FROM SCHEMA.session WHERE id = %(session)s AND nonce = %(nonce)s)"""


@define(eq=False)
class PostgresStore:
    """
    One session's access to the journal; for one coroutine at a time.

    Attributes:
        account: the id of the token's row.
        name: shows people which process a session is.
        failure: set once a fact is missing that the server had confirmed.
    """

    address: Address
    account: int
    name: str
    lease: Lease
    failure: JournalError | None = None
    _connection: Connection | None = field(init=False, default=None)
    _is_away: bool = field(init=False, default=False)
    _others: dict[str, str] = field(init=False, factory=dict)  # what other sessions have learned
    _own: dict[str, str] = field(init=False, factory=dict)  # what this one has learned

    async def close(self) -> None:
        """
        Close the connection.
        """
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    # --- works

    async def do(self, batch: Sequence[Work[PostgresStore]]) -> JournalError | None:
        """
        Do the works in order; adjacent works that write become durable together.
        """
        for reading, group in groupby(batch, key=lambda work: work.ask is not None):
            works = [*group]
            if self.failure is None:
                await self._try(works, self._read if reading else self._write)
            if self.failure is not None:
                _fail(works, self.failure)
        return self.failure

    async def _try(
        self,
        works: Sequence[Work[PostgresStore]],
        do: Callable[[Sequence[Work[PostgresStore]]], Awaitable[None]],
    ) -> None:
        try:
            await do(works)
        except JournalError as error:
            self.failure = self.failure or error

    async def _read(self, works: Iterable[Work[PostgresStore]]) -> None:
        for work in works:
            assert work.ask is not None
            try:
                work.result = await work.ask(self)
            except _UNFIT as error:
                work.error = _unfit(error)

    async def _write(self, works: Sequence[Work[PostgresStore]]) -> None:
        rows = [(work, row) for work in works if (row := self._rows(work))]
        if not rows:
            return
        session, reply = await self._ask(
            "SELECT SCHEMA.write(%(session)s, %(works)s)", works=[r for _, r in rows]
        )
        if reply["dead"]:
            self._lose(session)
        for (work, _), judgement in zip(rows, reply["judgements"] or [None] * len(rows), strict=True):
            work.error = None if judgement is None else self._error_of(work, judgement)
            if work.error is None:
                self._remember(work.facts, session)

    def _rows(self, work: Work[PostgresStore]) -> list[list[object]]:
        try:
            return [fact_row(self._own_share(fact)) for fact in work.facts]
        except _UNFIT as error:
            work.error = _unfit(error)
            return []

    def _own_share(self, fact: Fact) -> Fact:
        if not isinstance(fact, Learned):
            return fact
        self._own[fact.kind] = subtract(fact.data, self._others.get(fact.kind))
        return Learned(kind=fact.kind, data=self._own[fact.kind])

    def _remember(self, facts: Iterable[Fact], session: int) -> None:
        if session != self.lease.session or self.lease.is_lost:
            return  # a lost session may not spend
        for fact in facts:
            if isinstance(fact, Sending):
                self.lease.sending.add(fact.key)
            elif isinstance(fact, _ENDING):
                self.lease.sending.discard(fact.key)

    def _error_of(self, work: Work[PostgresStore], judgement: Mapping[str, Any]) -> JournalError | None:
        fact: Any = work.facts[judgement["place"]]
        verdict = judgement["verdict"]
        entry = None if judgement["entry"] is None else read_entry(judgement["entry"])
        task_id = getattr(fact, "task_id", None)
        if verdict.startswith("held"):
            return held_back(fact, verdict)
        if verdict == "fenced" or (self.lease.was_lost and isinstance(fact, _SPENDING)):
            return Fenced(
                f"{type(fact).__name__} cannot be written: this session does not hold the key", key=fact.key
            )
        if verdict == "claimed":
            owner = readable(judgement["owner"])
            return AlreadyClaimed(f"the task already belongs to key {owner!r}", key=fact.key, task_id=task_id)
        if verdict == "surplus":
            _LOG.error("task %s was paid for, but key %r stands for another purchase", task_id, fact.key)
        if work.waiter is None and _closes_nothing(fact, entry):
            return None  # the writer was cancelled before it knew that the attempt was held back
        return self._ignored_if_late(work, out_of_order(fact, entry))

    def _ignored_if_late(self, work: Work[PostgresStore], error: JournalError) -> JournalError | None:
        # A session that was declared dead may write any fact too late: that is not a failure of the journal.
        if work.waiter is not None or not self.lease.was_lost:
            return error
        _LOG.warning("a late fact is ignored: %s", error)
        return None

    # --- questions

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the new keys, and return the standing of each: all of them or, on an error, none.
        """
        if not items:
            return []
        rows = [item_row(place, item) for place, item in enumerate(items)]
        _, reply = await self._ask("SELECT SCHEMA.take_in(%(session)s, %(items)s)", items=rows)
        return [read_standing(row) for row in sorted(reply["standings"], key=lambda row: row["place"])]

    async def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return the latest purchases of these keys, by key; unknown keys are absent.
        """
        wanted = [*keys]
        entries = {entry.key: entry for entry in await self._entries(_FOUND, wanted)}
        return {key: entries[key] for key in wanted if key in entries}

    async def find_others(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return what other accounts have bought, or may be buying, for keys without a purchase here, by key.
        """
        return {entry.key: entry for entry in await self._entries(_FOUND_OTHERS, keys)}

    async def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to, by task id.
        """
        wanted = [*task_ids]
        entries = {entry.task_id: entry for entry in await self._entries(_FOUND_TASKS, wanted)}
        return {task_id: entries[task_id] for task_id in wanted if task_id in entries}

    async def unsettled(self) -> list[Entry]:
        """
        Claim the unsettled purchases that no live session holds, and return all that this session now holds.
        """
        _, rows = await self._rows_of("SELECT * FROM SCHEMA.claimed(%(session)s)", {})
        return [read_entry(row) for (row,) in rows]

    async def entries(self) -> list[Entry]:
        """
        Return every purchase, in the order of intention.
        """
        _, rows = await self._rows_of(_ENTRIES, {})
        return [read_entry(row) for (row,) in rows]

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return why keys were refused, if they were not used since.
        """
        _, rows = await self._rows_of(_REFUSALS, {"digests": [*map(digest, keys)]})
        return {readable(key): None if reason is None else readable(reason) for key, reason in rows}

    async def learned(self) -> dict[str, str]:
        """
        Return what all sessions have learned, by kind.
        """
        _, rows = await self._rows_of(_LEARNED, {})
        kinds = {readable(kind): [*data] for kind, data in groupby(rows, key=lambda row: row[0])}
        others = {kind: [readable(data) for _, data, own in its if not own] for kind, its in kinds.items()}
        self._others = {kind: add_up(texts) for kind, texts in others.items() if texts}
        return {kind: add_up(readable(data) for _, data, _ in its) for kind, its in kinds.items()}

    async def limits(self) -> AccountLimits:
        """
        Return the limits of the account.
        """
        _, [(rate, burst, most)] = await self._rows_of(GET_LIMITS, {})
        return AccountLimits(submits_per_second=rate, burst=burst, max_in_flight=most)

    async def set_limits(self, limits: AccountLimits) -> None:
        """
        Set the limits of the account, and tell all its sessions.
        """
        await self._rows_of(SET_LIMITS, asdict(limits))

    async def uploads(self, names: Iterable[str]) -> dict[str, str]:
        """
        Return the addresses of uploaded pictures, by their names.
        """
        _, rows = await self._rows_of(_UPLOADS, {"names": [*names]})
        return {name: readable(address) for name, address in rows}

    async def note_upload(self, name: str, address: str, at: float) -> None:
        """
        Store the address of an uploaded picture.
        """
        await self._rows_of(_NOTE_UPLOAD, {"name": name, "address": stored(address), "at": at})

    async def reserve(
        self, key: str, price: float | None, max_videos: int | None, max_credits: float | None
    ) -> Spent:
        """
        Reserve a purchase if it fits, and return what all others have spent.
        """
        values = {
            "digest": digest(key),
            "credits": price,
            "max_videos": max_videos,
            "max_credits": max_credits,
        }
        _, rows = await self._rows_of(_RESERVE, values)
        return Spent(**rows[0][0])

    async def reserve_purchases(self) -> dict[str, str]:
        """
        Reserve what may have been bought, and free what was never sent by sessions that have ended.

        Returns the requests of purchases whose price is not known.
        """
        _, rows = await self._rows_of("SELECT * FROM SCHEMA.reserve_purchases(%(session)s)", {})
        return {readable(key): readable(request) for key, request in rows}

    async def note_price(self, key: str, price: float) -> None:
        """
        Store the price of a reserved purchase.
        """
        await self._rows_of(_NOTE_PRICE, {"digest": digest(key), "credits": price})

    async def _entries(self, statement: str, texts: Iterable[str]) -> list[Entry]:
        _, rows = await self._rows_of(statement, {"digests": [*map(digest, texts)]})
        return [read_entry(row) for (row,) in rows]

    async def _ask(self, statement: str, **values: object) -> tuple[int, Any]:
        texts = {name: json.dumps(value, allow_nan=False) for name, value in values.items()}
        before = self.lease.session, self.lease.acknowledged
        session, rows = await self._rows_of(statement, texts)
        reply = rows[0][0]
        # A pooler may switch to another server without notice.
        if session == before[0] and reply["written"] <= before[1]:
            raise self._lost()
        self.lease.acknowledge(session, reply["written"])
        return session, reply

    # --- through any outage

    async def _rows_of(self, statement: str, values: Mapping[str, object]) -> tuple[int, list[Any]]:
        """
        Repeat a query until there is an answer; returns the session that asked, and the rows.
        """
        sql, pauses = self.address.sql(statement), _pauses()
        while True:
            try:
                connection = await self._connected()
                if self.lease.is_lost:
                    await self.begin()
                session = self.lease.session
                told = {**values, "session": session, "account": self.account}
                rows = await (await connection.execute(sql, told)).fetchall()
                self._is_away = False
                return session, rows
            except psycopg.Error as error:
                await self._wait_out(error, pauses)

    async def _wait_out(self, error: psycopg.Error, pauses: Iterator[float]) -> None:
        if error.sqlstate == OUT_OF_SESSION:
            self._lose(self.lease.session)
        elif error.sqlstate == INCOMPLETE:
            raise self._lost()
        elif not is_outage(error):
            raise explain(self.address, error)
        elif not is_collision(error):
            # Warn once per outage, however long it is.
            _LOG.log(logging.DEBUG if self._is_away else logging.WARNING, "%s", explain(self.address, error))
            self._is_away = True
            await self.close()
            await asyncio.sleep(next(pauses))

    async def _connected(self) -> Connection:
        if self.failure is not None:
            raise JournalError(*self.failure.args)
        if self._connection is None or self._connection.closed:
            connection = await self.address.connect()
            try:
                await self.check(connection)
            except BaseException:
                await connection.close()
                raise
            self._connection = connection
        return self._connection

    async def check(self, connection: Connection) -> None:
        """
        Check that the server has every fact that it, or the server before a fail-over, has confirmed.

        Raises:
            JournalError: facts are missing.
            psycopg.OperationalError: the server is a replica.
        """
        # Read before the query: meanwhile facts may be written over another connection.
        lease = self.lease
        acknowledged, values = lease.acknowledged, {"session": lease.session, "nonce": lease.nonce}
        cursor = await connection.execute(self.address.sql(_HELD), values)
        is_replica, incomplete, written = (await cursor.fetchall())[0]
        if is_replica:
            raise psycopg.OperationalError("the server is a replica, which takes no facts yet")
        if incomplete:
            raise self._lost()
        if values["session"] and (written is None or written < acknowledged):
            await connection.execute(self.address.sql("UPDATE SCHEMA.meta SET incomplete = true"))
            raise self._lost()

    def _lost(self) -> JournalError:
        if self.failure is not None:
            return self.failure
        self.failure = JournalError(
            f"journal {self.address} has lost facts that it had confirmed, as after a fail-over to a replica that"
            " lagged behind: nothing more is sent, since whatever it does not know of would be bought again"
        )
        _LOG.critical("%s", self.failure)
        return self.failure

    # --- the session's row

    async def begin(self) -> None:
        """
        Begin a session row.
        """
        at = self.lease.clocks()
        values = {"account": self.account, "name": self.name, "seconds": self.lease.seconds}
        connection = await self._connected()
        [(session, nonce)] = await (await connection.execute(self.address.sql(_BEGIN), values)).fetchall()
        self._hand_on_learned()
        self.lease.begin(session, nonce, at)

    async def start(self) -> None:
        """
        Begin the first session row.

        Raises:
            JournalError: the server cannot be reached.
        """
        try:
            await self.begin()
        except psycopg.Error as error:
            await self.close()
            raise explain(self.address, error) from error

    async def release(self) -> None:
        """
        Release all keys of this session; the next query begins another session.
        """
        if not self.lease.is_lost:
            self.lease.sending.clear()  # first: other sessions may have the keys before the answer comes
            await self._rows_of("SELECT SCHEMA.released(%(session)s)", {})
            self.lease.lose()

    def _lose(self, session: int) -> None:
        if session == self.lease.session and not self.lease.is_lost:
            self.lease.lose()
            _LOG.warning(
                "session %d of journal %s was declared dead; another one begins", session, self.address
            )

    def _hand_on_learned(self) -> None:
        # For the next session, what this one has learned counts as another's.
        for kind, data in self._own.items():
            self._others[kind] = add_up([self._others[kind], data]) if kind in self._others else data
        self._own.clear()


def _fail(batch: Iterable[Work[PostgresStore]], failure: JournalError) -> None:
    for work in batch:
        work.error = JournalError(*failure.args)
        work.error.__cause__ = failure


def _closes_nothing(fact: Fact, entry: Entry | None) -> bool:
    if not isinstance(fact, AttemptClosed) or fact.outcome != "not_sent":
        return False
    return entry is None or fact.attempt not in {attempt.number for attempt in entry.attempts}


def _unfit(error: Exception) -> JournalError:
    unfit = JournalError(f"the journal cannot store or look up this: {error}")
    unfit.__cause__ = error
    return unfit


def _pauses() -> Iterator[float]:
    pause = _PAUSE
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(pause * 2, _MAX_PAUSE)

"""
Two sessions on one journal in PostgreSQL against a model: any facts, and whatever may befall a session or the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any, ClassVar, TypeVar
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests._journal.test_journal_machine import Model, facts, keys, next_facts, plain, texts, times
from tests.postgres.server import Postgres, Server
from tests.postgres.sessions import Shared, session_of
from veo_async._journal.facts import (
    AttemptClosed,
    Elsewhere,
    Fact,
    Fenced,
    Fresh,
    Intended,
    Learned,
    Sending,
    Settled,
    TakeIn,
    Withdrawn,
)
from veo_async._journal.postgres import PostgresJournal
from veo_async._journal.postgres_keeping import Keeper
from veo_async.errors import JournalError

_T = TypeVar("_T")
KEYS = ("a", "b", "\0\ud800")
SPENDING = (Intended, Sending, Withdrawn)
sessions = st.sampled_from((0, 1))


class SharedModel(Model):
    """
    What one journal holds, and which session holds each of its keys.

    Attributes:
        holders: by key, of its latest purchase, which session row has it.
        settlers: by key, which session row has settled its latest purchase.
        over: rows whose lease is over; whoever asks for one of their keys declares them dead.
        dead: rows that have been declared dead.
    """

    def __init__(self) -> None:
        super().__init__()
        self.holders: dict[str, int] = {}
        self.settlers: dict[str, int] = {}
        self.over: set[int] = set()
        self.dead: set[int] = set()

    def is_live(self, row: int) -> bool:
        if row in self.over:
            self.dead.add(row)
        return row not in self.dead

    def say(self, row: int, fact: Any) -> type[Exception] | None:
        """
        Take a fact that a session says; return the error that it is to get.
        """
        latest = self.latest(fact.key) if not isinstance(fact, Learned) else None
        if isinstance(fact, SPENDING) and self._is_fenced(row, fact, latest):
            return Fenced
        if isinstance(fact, AttemptClosed) and latest and not latest["failed"]:
            return self._close(row, fact, latest)
        if isinstance(fact, Settled) and latest and latest["settled_at"] is not None:
            is_same = (latest["failed"], latest["outcome"]) == (fact.failed, fact.outcome)
            return None if is_same or self.settlers[fact.key] != row else JournalError
        error = self.write((fact,))
        if error is None and self.latest(getattr(fact, "key", "")) is not latest:
            self.holders[fact.key] = row
        if error is None and isinstance(fact, Settled):
            self.settlers[fact.key] = row
        return error

    def _is_fenced(self, row: int, fact: Any, latest: dict[str, Any] | None) -> bool:
        if latest is None or latest["failed"]:
            return isinstance(fact, Intended) and row in self.dead
        is_theirs = row in self.dead or self.holders[fact.key] != row
        return is_theirs and not (isinstance(fact, Intended) and latest["settled_at"] is not None)

    def _close(self, row: int, fact: AttemptClosed, latest: dict[str, Any]) -> type[Exception] | None:
        known, holder = latest["attempts"].get(fact.attempt), self.holders[fact.key]
        if known is None:
            return JournalError
        if known["closed"] not in (None, fact.outcome):
            return JournalError if holder == row else None
        known["closed"] = fact.outcome
        if fact.outcome == "refused" and latest["task_id"] is None:
            is_open = any(one["closed"] is None for one in latest["attempts"].values())
            if holder == row or (not self.is_live(holder) and not is_open):
                self.purchases.remove(latest)
        return None

    def take(self, row: int, item: TakeIn) -> type[object] | None:
        """
        Take a key in for a session; return `Elsewhere` or `Fresh`, or None where it is known.
        """
        latest = self.latest(item.key)
        is_over = latest is not None and (latest["failed"] or latest["settled_at"] is not None)
        if latest is not None and not is_over and self.holders[item.key] != row:
            if self.is_live(self.holders[item.key]):
                return Elsewhere
            self.holders[item.key] = row
        if not self.is_free(item):
            return None
        if latest is None or latest["failed"]:
            self.holders[item.key] = row
            self.write((Intended(key=item.key, request=item.request, at=item.at),))
        return Fresh

    def claim(self, row: int) -> list[str]:
        """
        Give a session what nobody goes on with; return all that it can go on with.
        """
        for other in self.over - {row}:
            self.is_live(other)
        unsettled = [one["key"] for one in self.purchases if one["settled_at"] is None]
        for key in unsettled:
            if self.holders[key] in self.dead:
                self.holders[key] = row
        return [key for key in unsettled if self.holders[key] == row]


class SharedMachine(RuleBasedStateMachine):
    """
    Two sessions and the model, told the same.
    """

    server: ClassVar[Postgres]
    schema: ClassVar[str]

    @initialize()
    def start(self) -> None:
        self.runner = asyncio.Runner()
        self.shared = Shared(self.server, self.schema, uuid4().hex, AsyncExitStack())
        self.model, self.restarts = SharedModel(), 0
        self.journals = [self.do(self.shared.session(lease=3600.0)) for _ in range(2)]

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.do(self.shared.stack.aclose())
            self.runner.close()

    def do(self, act: Coroutine[Any, Any, _T]) -> _T:
        return self.runner.run(act)

    def row(self, journal: PostgresJournal) -> int:
        """
        The row that the session's next word counts for; one that is lost begins another with it.
        """
        assert journal._store is not None
        if journal._store.lease.is_lost:
            self.do(journal.find("k"))
        return session_of(journal)

    def awake(self, journal: PostgresJournal) -> int:
        """
        The same for a question that a dead session may not ask.
        """
        if self.row(journal) in self.model.dead:
            assert journal._store is not None
            journal._store.lease.lose()
        return self.row(journal)

    # --- what sessions say

    @rule(who=sessions, fact=facts)
    def say(self, who: int, fact: Fact) -> None:
        """
        Anything, by either.
        """
        journal = self.journals[who]
        row = self.row(journal)
        expected = self.model.say(row, fact)
        assert journal._store is not None
        was_lost = journal._store.lease.was_lost or row in self.model.dead
        if expected is not None and was_lost and isinstance(fact, SPENDING):
            expected = Fenced
        assert expected == self.do(self.error_of(journal, fact))
        assert None is journal.failure

    async def error_of(self, journal: PostgresJournal, fact: Fact) -> type[Exception] | None:
        try:
            await journal.write(fact)
        except JournalError as error:
            return type(error)
        return None

    @rule(who=sessions, key=keys, at=times, data=st.data(), twice=st.booleans())
    def advance(self, who: int, key: str, at: float, data: st.DataObject, *, twice: bool) -> None:
        """
        One more step in the life of a key, by either session.
        """
        fact = data.draw(st.sampled_from(next_facts(self.model.latest(key), key, at)))
        for _ in range(1 + twice):
            self.say(who, fact)

    @rule(who=sessions, key=keys, request=texts, at=times, retry=st.booleans())
    def take_in(self, who: int, key: str, request: str, at: float, *, retry: bool) -> None:
        """
        Each is told how the key stands, and has it or has it not.
        """
        journal, item = self.journals[who], TakeIn(key=key, request=request, at=at, retry_failed=retry)
        expected = self.model.take(self.awake(journal), item)
        [standing] = self.do(journal.take_in([item]))
        assert (expected is Fresh) == isinstance(standing, Fresh)
        assert (expected is Elsewhere) == isinstance(standing, Elsewhere)
        if not isinstance(standing, Fresh):
            assert self.model.latest(key) == plain(standing.entry)

    @rule(who=sessions)
    def go_on(self, who: int) -> None:
        """
        A session claims what nobody goes on with.
        """
        journal = self.journals[who]
        expected = self.model.claim(self.awake(journal))
        assert expected == [entry.key for entry in self.do(journal.unsettled())]

    # --- what befalls them

    @rule(who=sessions)
    def expire(self, who: int) -> None:
        """
        A lease is over, and its holder does not know.
        """
        self.model.over.add(self.row(self.journals[who]))
        self.shared.let_expire(self.journals[who])

    @rule(who=sessions)
    def renew(self, who: int) -> None:
        """
        A session that was declared dead learns of it, any other goes on.
        """
        journal = self.journals[who]
        row, store = self.row(journal), journal._store
        assert store is not None
        keeper = Keeper(store.address, store.lease, store.check, lambda: None)
        assert self.do(keeper.renew())
        self.do(keeper.close())
        assert (row in self.model.dead) == store.lease.is_lost

    @rule(who=sessions)
    def release(self, who: int) -> None:
        """
        A session hands its keys back, and goes on.
        """
        self.model.dead.add(self.row(self.journals[who]))
        self.do(self.journals[who].release())

    @rule(who=sessions)
    def reopen(self, who: int) -> None:
        """
        A process ends in good order, and comes back.
        """
        journal = self.journals[who]
        self.model.dead.add(self.row(journal))
        self.do(journal.close())
        self.do(journal.open(self.shared.token))

    @rule()
    def break_connections(self) -> None:
        """
        All of them, and each is made again when it is needed.
        """
        self.shared.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'veo_async'"
        )

    @precondition(lambda self: isinstance(self.server, Server) and not self.restarts)
    @rule()
    def restart(self) -> None:
        """
        The server is killed, and started again.
        """
        assert isinstance(self.server, Server)
        self.restarts += 1
        self.server.stop()
        self.server.start()

    # --- what holds

    @invariant()
    def tells_what_the_model_knows(self) -> None:
        """
        Every key reads the same to both sessions, and has the holder that the model says.
        """
        expected = {key: latest for key in KEYS if (latest := self.model.latest(key))}
        for journal in self.journals:
            self.row(journal)
            found = self.do(journal.find_many(KEYS))
            assert expected == {key: plain(entry) for key, entry in found.items()}

    @invariant()
    def only_a_holder_may_send(self) -> None:
        """
        A session whose lease is valid may send nothing but what is its own.
        """
        for journal in self.journals:
            row = self.row(journal)
            for key in KEYS:
                if journal.may_send(key) and row not in self.model.over | self.model.dead:
                    assert self.model.holders[key] == row


@pytest.fixture(scope="module", autouse=True)
def database(postgres: Postgres, schema: str) -> None:
    """
    Where the machine's journals are.
    """
    SharedMachine.server, SharedMachine.schema = postgres, schema


SharedMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestSharedMachine = SharedMachine.TestCase

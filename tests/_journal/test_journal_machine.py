"""
The journal's store against a model of plain dicts: any facts, in any batches, with reopenings and crashes between.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any, Literal

from attrs import asdict
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from veo_async._journal.batching import Work
from veo_async._journal.facts import (
    Accepted,
    AlreadyClaimed,
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
    TakeIn,
    Withdrawn,
)
from veo_async._journal.sqlite_store import Store
from veo_async.errors import JournalError

# Few values, so that facts meet; among them what text may hold at worst.
KEYS = ("a", "b", "\0\ud800")
TASKS = ("t1", "t2", "t3", "t4", "t5", "\udfff")
ATTEMPTS = (0, 1, 2, 3)
OUTCOMES: tuple[Literal["refused", "not_sent"], ...] = ("refused", "not_sent")


class Refused(Exception):
    """
    The model's word for a fact that cannot follow.
    """


class Claimed(Refused):
    """
    The model's word for a task that is another purchase's.
    """


class Model:
    """
    What the journal is to hold: for each key its purchases, oldest first, as dicts.
    """

    def __init__(self) -> None:
        self.purchases: list[dict[str, Any]] = []  # of all keys, in the order of intention
        self.learned: dict[str, str] = {}

    def latest(self, key: str) -> dict[str, Any] | None:
        own = [one for one in self.purchases if one["key"] == key]
        return own[-1] if own else None

    def is_free(self, item: TakeIn) -> bool:
        """
        Tell whether nothing that was sent for the key could still buy anything.
        """
        latest = self.latest(item.key)
        if latest is None:
            return True
        if latest["failed"]:
            return item.retry_failed
        is_open = any(one["closed"] is None for one in latest["attempts"].values())
        return latest["task_id"] is None and not is_open and latest["request"] == item.request

    def write(self, facts: tuple[Fact, ...]) -> type[Exception] | None:
        """
        Take all facts or none; return what the store is to raise.
        """
        before = deepcopy((self.purchases, self.learned))
        try:
            for fact in facts:
                self._take(fact)
        except Refused as error:
            self.purchases, self.learned = before
            return AlreadyClaimed if isinstance(error, Claimed) else JournalError
        return None

    def _take(self, fact: Any) -> None:
        rules: dict[type, Callable[[Any], None]] = {
            Intended: self._intended,
            Sending: self._sending,
            AttemptClosed: self._closed,
            Accepted: self._accepted,
            Disowned: self._disowned,
            Settled: self._settled,
            Downloaded: self._downloaded,
            Withdrawn: self._withdrawn,
            Learned: self._learned,
        }
        rules[type(fact)](fact)

    def _intended(self, fact: Intended) -> None:
        latest = self.latest(fact.key)
        if latest is None or latest["failed"]:
            self.purchases.append(
                {
                    "key": fact.key,
                    "request": fact.request,
                    "intended_at": fact.at,
                    "attempts": {},
                    "task_id": None,
                }
                | {
                    "trace_id": None,
                    "accepted_at": None,
                    "settled_at": None,
                    "failed": False,
                    "outcome": None,
                }
                | {"downloads": {}}
            )
        elif latest["request"] != fact.request:
            raise Refused

    def _sending(self, fact: Sending) -> None:
        latest = self.latest(fact.key)
        if latest is None:
            raise Refused
        known = latest["attempts"].get(fact.attempt)
        if known is not None and (known["at"], known["mark"]) == (fact.at, fact.mark):
            return
        is_open_anew = [0] == [*latest["attempts"]] == [fact.attempt] and known and known["closed"]
        is_in_order = fact.attempt > max(latest["attempts"], default=-1)
        if latest["task_id"] is not None or not (is_in_order or is_open_anew):
            raise Refused
        latest["attempts"][fact.attempt] = {"at": fact.at, "mark": fact.mark, "closed": None}

    def _closed(self, fact: AttemptClosed) -> None:
        latest = self.latest(fact.key)
        if latest is None and fact.outcome == "refused":
            return
        if latest is None:
            raise Refused
        if latest["failed"]:
            return
        known = latest["attempts"].get(fact.attempt)
        if known is None or known["closed"] not in (None, fact.outcome):
            raise Refused
        known["closed"] = fact.outcome
        if fact.outcome == "refused" and latest["task_id"] is None:
            self.purchases.remove(latest)

    def _accepted(self, fact: Accepted) -> None:
        latest = self.latest(fact.key)
        if latest is not None and latest["task_id"] == fact.task_id:
            return
        if any(one["task_id"] == fact.task_id for one in self.purchases):
            raise Claimed
        if latest is None or latest["task_id"] is not None:
            raise Refused
        latest |= {"task_id": fact.task_id, "trace_id": fact.trace_id, "accepted_at": fact.at}

    def _disowned(self, fact: Disowned) -> None:
        latest = self.latest(fact.key)
        if latest is None or latest["task_id"] != fact.task_id:
            return
        if latest["settled_at"] is not None:
            raise Refused
        latest |= {"task_id": None, "trace_id": None, "accepted_at": None}

    def _settled(self, fact: Settled) -> None:
        latest = self.latest(fact.key)
        if latest is None or latest["task_id"] is None:
            raise Refused
        if latest["settled_at"] is not None:
            if (latest["failed"], latest["outcome"]) != (fact.failed, fact.outcome):
                raise Refused
            return
        latest |= {"failed": fact.failed, "outcome": fact.outcome, "settled_at": fact.at}

    def _downloaded(self, fact: Downloaded) -> None:
        latest = self.latest(fact.key)
        if latest is None or latest["settled_at"] is None or latest["failed"]:
            raise Refused
        latest["downloads"][fact.video_id] = fact.path

    def _withdrawn(self, fact: Withdrawn) -> None:
        latest = self.latest(fact.key)
        if latest is None or latest["failed"]:
            return
        if latest["task_id"] is not None or any(one["closed"] is None for one in latest["attempts"].values()):
            raise Refused
        self.purchases.remove(latest)

    def _learned(self, fact: Learned) -> None:
        self.learned[fact.kind] = fact.data


def plain(entry: Entry | None) -> dict[str, Any] | None:
    """
    An entry in the model's form.
    """
    if entry is None:
        return None
    attempts = {one.number: {"at": one.at, "mark": one.mark, "closed": one.closed} for one in entry.attempts}
    held = {
        name: value for name, value in asdict(entry).items() if name != "earlier"
    }  # it has tests of its own
    return held | {"attempts": attempts}


keys = st.sampled_from(KEYS)
numbers = st.sampled_from(ATTEMPTS)
times = st.sampled_from((1.0, 2.5))
texts = st.sampled_from(("{}", '{"prompt": "\ud800"}'))
facts = st.one_of(
    st.builds(Intended, key=keys, request=texts, at=times),
    st.builds(Sending, key=keys, attempt=numbers, at=times, mark=st.sampled_from((None, "n"))),
    st.builds(AttemptClosed, key=keys, attempt=numbers, outcome=st.sampled_from(OUTCOMES), at=times),
    st.builds(Disowned, key=keys, task_id=st.sampled_from(TASKS)),
    st.builds(Accepted, key=keys, task_id=st.sampled_from(TASKS), trace_id=st.just("trace"), at=times),
    st.builds(Settled, key=keys, failed=st.booleans(), outcome=texts, at=times),
    st.builds(Downloaded, key=keys, video_id=st.sampled_from(("v", "w")), path=texts, at=times),
    st.builds(Withdrawn, key=keys, at=times),
    st.builds(Learned, kind=keys, data=texts),
)


writes = st.one_of(facts.map(lambda fact: (fact,)), st.tuples(facts, facts))


def next_facts(latest: dict[str, Any] | None, key: str, at: float) -> list[Fact]:
    """
    What may well happen next to a key: without such steps most facts would be refused, and few states reached.
    """
    if latest is None or latest["failed"]:
        return [Intended(key=key, request="{}", at=at)]
    if latest["settled_at"] is not None:
        return [Downloaded(key=key, video_id="v", path="p", at=at), *_closings(latest, key, at)]
    if latest["task_id"] is not None:
        ends: list[Fact] = [Disowned(key=key, task_id=latest["task_id"])]
        ends += [Settled(key=key, failed=failed, outcome="{}", at=at) for failed in (False, True)]
        return [*ends, *_closings(latest, key, at)]
    number = max(latest["attempts"], default=0) + 1
    claims = [Accepted(key=key, task_id=task_id, trace_id=None, at=at) for task_id in TASKS]
    return [
        Sending(key=key, attempt=number, at=at),
        Withdrawn(key=key, at=at),
        *claims,
        *_closings(latest, key, at),
    ]


def _closings(latest: dict[str, Any], key: str, at: float) -> list[Fact]:
    return [
        AttemptClosed(key=key, attempt=number, outcome=outcome, at=at)
        for number in latest["attempts"]
        for outcome in OUTCOMES
    ]


class JournalMachine(RuleBasedStateMachine):
    """
    The store and the model, told the same.
    """

    @initialize()
    def start(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.copies = 0
        self.path = self.directory / "batch.db"
        self.model = Model()
        self.store = Store.open(self.path, "token", durable=False)

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.store.close()
            shutil.rmtree(self.directory)

    @rule(batch=st.lists(writes, min_size=1, max_size=6))
    def commit(self, batch: list[tuple[Fact, ...]]) -> None:
        """
        Writers who share a commit: each is told what the model says, whatever the others did.
        """
        works = [Work[Store](facts=facts) for facts in batch]
        assert None is self.store.do(works)
        expected = [self.model.write(facts) for facts in batch]
        assert expected == [type(work.error) if work.error is not None else None for work in works]

    @rule(key=keys, at=times, data=st.data(), twice=st.booleans())
    def advance(self, key: str, at: float, data: st.DataObject, *, twice: bool) -> None:
        """
        One more step in the life of a key, said once or twice.
        """
        fact = data.draw(st.sampled_from(next_facts(self.model.latest(key), key, at)))
        self.commit([(fact,)] * (1 + twice))

    @rule(key=keys, at=times, task_id=st.sampled_from(TASKS), failed=st.booleans())
    def live(self, key: str, at: float, task_id: str, *, failed: bool) -> None:
        """
        A whole life in one commit.
        """
        sending = Sending(key=key, attempt=4, at=at)
        accepted = Accepted(key=key, task_id=task_id, trace_id=None, at=at)
        settled = Settled(key=key, failed=failed, outcome="{}", at=at)
        self.commit([(Intended(key=key, request="{}", at=at),), (sending, accepted), (settled,)])

    @rule(keys=st.sets(keys, min_size=1), request=texts, at=times, retry=st.booleans(), look=st.booleans())
    def take_in(self, keys: set[str], request: str, at: float, *, retry: bool, look: bool) -> None:
        """
        Keys that stand for nothing yet are intended, the others are left as they are, and each is told.
        """
        items = [TakeIn(key=key, request=request, at=at, retry_failed=retry, look_first=look) for key in keys]
        for item, standing in zip(items, self.store.take_in(items), strict=True):
            latest = self.model.latest(item.key)
            assert isinstance(standing, Fresh) == self.model.is_free(item)
            if not isinstance(standing, Fresh):
                assert latest == plain(standing.entry)
                continue
            self.model.write((Intended(key=item.key, request=request, at=at),))
            if look and (attempt := item.sending(standing.earlier)):
                assert None is self.model.write((attempt,))

    @rule(key=keys)
    def ask_in_company(self, key: str) -> None:
        """
        A question between two facts sees the first and not the second.
        """
        before, after = (Learned(kind=key, data=text) for text in ("before", "after"))
        question = Work[Store](ask=Store.learned)
        self.store.do([Work(facts=(before,)), question, Work(facts=(after,))])
        self.model.write((before,))
        assert self.model.learned == question.result
        self.model.write((after,))

    @rule()
    def reopen(self) -> None:
        """
        End in good order, and go on with the same file.
        """
        self.store.close()
        self.store = Store.open(self.path, "token", durable=False)

    @rule()
    def crash(self) -> None:
        """
        Go on with the files as they lie there now, as after a crash.
        """
        self.copies += 1
        copy = self.directory / f"copy{self.copies}.db"
        for suffix in ("", "-wal"):
            shutil.copy(f"{self.path}{suffix}", f"{copy}{suffix}")
        self.store.close()
        self.path = copy
        self.store = Store.open(self.path, "token", durable=False)

    @invariant()
    def tells_what_the_model_knows(self) -> None:
        """
        Every key, every task, what is unsettled and what was learned read the same.
        """
        for key in KEYS:
            assert self.model.latest(key) == plain(self.store.find(key))
        for task_id in TASKS:
            owner = next((one for one in self.model.purchases if one["task_id"] == task_id), None)
            assert owner == plain(self.store.find_tasks([task_id]).get(task_id))
        unsettled = [one for one in self.model.purchases if one["settled_at"] is None]
        assert unsettled == [plain(entry) for entry in self.store.unsettled()]
        assert self.model.learned == self.store.learned()


# The file system and fresh databases make the first example slow, which says nothing about the store.
JournalMachine.TestCase.settings = settings(
    max_examples=50,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestJournalMachine = JournalMachine.TestCase

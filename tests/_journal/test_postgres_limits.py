"""
The limits that all sessions of an account share: what they hold back, and what frees a place.
"""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import psycopg
import pytest

from tests._journal.lives import accepted, failed, not_sent, refused, sending, settled
from tests.postgres.sessions import Shared, item, session_of
from veo_async._journal.account_limits import AccountLimits
from veo_async._journal.facts import Fact, Fenced, HeldBack
from veo_async._journal.postgres import PostgresJournal
from veo_async._journal.postgres_rows import fact_row
from veo_async.errors import ConfigurationError, UsageError

SLOW = AccountLimits(submits_per_second=0.01)
WAITING = (
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%SCHEMA.write%' AND wait_event_type = 'Lock'"
)


async def holding(shared: Shared, *keys: str) -> PostgresJournal:
    """
    A session with these keys.
    """
    journal = await shared.session()
    await journal.take_in([item(key) for key in keys])
    return journal


async def ask(journal: PostgresJournal, key: str, attempt: int = 1) -> float | None:
    """
    Write that a key is being sent; return the seconds to wait, 0 if none, or None if a place is missing.
    """
    try:
        await journal.write(sending(key, attempt))
    except HeldBack as held:
        return held.seconds
    return 0.0


async def race(shared: Shared) -> list[float | None]:
    """
    Have four sessions ask for five keys each at once.
    """
    keys = [[f"{who} {number}" for number in range(5)] for who in range(4)]
    journals = [await holding(shared, *its) for its in keys]
    asks = [ask(journal, key) for journal, its in zip(journals, keys, strict=True) for key in its]
    return await asyncio.gather(*asks)


# --- what they are ---------------------------------------------------------------------------------------


async def test_limits_are_the_accounts(shared: Shared) -> None:
    """None at first; once set, every session of the account reads them, also a later one, and no other account."""
    journal, stranger = await shared.session(), shared.journal()
    assert AccountLimits() == await journal.limits()
    limits = AccountLimits(submits_per_second=0.5, burst=3, max_in_flight=7)
    await journal.set_limits(limits)
    assert limits == await (await shared.session()).limits()
    await stranger.open("d" * 32)
    assert AccountLimits() == await stranger.limits()
    await stranger.close()


async def test_limits_need_an_open_journal(shared: Shared) -> None:
    """The account is known once the journal is open."""
    for act in (shared.journal().limits(), shared.journal().set_limits(SLOW)):
        with pytest.raises(UsageError, match="not open"):
            await act


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in ("submits_per_second", "burst", "max_in_flight") for value in (0, -1, math.nan, math.inf, True, "1")]
    + [("burst", None), ("burst", 1.5), ("max_in_flight", 2.5)],
)  # fmt: skip
def test_limits_are_positive_and_finite(name: str, value: Any) -> None:
    """Any other is refused by its name."""
    with pytest.raises(ConfigurationError, match=name):
        AccountLimits(**{name: value})


@pytest.mark.parametrize("rate", [1e-6, 1e6])
async def test_the_widest_limits_can_be_kept(shared: Shared, rate: float) -> None:
    """The database's own numbers suffice for each limit that is taken."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(AccountLimits(submits_per_second=rate, burst=1_000_000, max_in_flight=1_000_000))
    assert [0.0, 0.0] == [await ask(journal, "a"), await ask(journal, "b")]


async def test_a_change_is_told(shared: Shared) -> None:
    """Every session hears of it, its own one too, since a submit of any may wait."""
    journal = await shared.session()
    assert set() == await journal.changed()
    changed = asyncio.create_task(journal.changed())
    await journal.set_limits(SLOW)
    assert set() == await changed


# --- the rate --------------------------------------------------------------------------------------------


async def test_sessions_that_race_share_one_burst(shared: Shared) -> None:
    """However many ask, a burst goes, and all others are told to wait for one slot at most."""
    await (await shared.session()).set_limits(AccountLimits(submits_per_second=0.01, burst=3))
    waits = await race(shared)
    assert 3 == waits.count(0.0)
    assert all(wait is not None and 90 < wait <= 100 for wait in waits if wait != 0.0)


async def test_a_turn_comes_with_time(shared: Shared) -> None:
    """A slot later one more may go, by the server's clock; a long quiet gives no more than the burst."""
    journal = await holding(shared, *"abcdef")
    await journal.set_limits(AccountLimits(submits_per_second=0.01, burst=2))
    assert [0, 0, True] == [await ask(journal, key) and True for key in "abc"]
    shared.sql("UPDATE SCHEMA.account SET next_at = next_at - interval '100 s'")
    assert [0, True] == [await ask(journal, key) and True for key in "cd"]
    shared.sql("UPDATE SCHEMA.account SET next_at = next_at - interval '1 day'")
    assert [0, 0, True] == [await ask(journal, key) and True for key in "def"]


async def test_a_higher_rate_holds_at_once(shared: Shared) -> None:
    """What had to wait for a slow rate's slot waits for a slot of the new one at most."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(SLOW)
    await ask(journal, "a")
    await journal.set_limits(AccountLimits(submits_per_second=0.1))
    wait = await ask(journal, "b")
    assert wait
    assert wait <= 10


@pytest.mark.parametrize("limits", [SLOW, AccountLimits(max_in_flight=1)], ids=["rate", "in flight"])
async def test_one_session_waits_for_another(shared: Shared, limits: AccountLimits) -> None:
    """Who asks while another's turn is not committed yet gets the answer after it."""
    first, second = await holding(shared, "a"), await holding(shared, "b")
    await first.set_limits(limits)
    with psycopg.connect(shared.server.dsn) as other:
        works = json.dumps([[fact_row(sending("a"))]])
        other.execute(f"SELECT {shared.schema}.write(%s, %s)", [session_of(first), works])
        asking = asyncio.create_task(ask(second, "b"))
        while not (asking.done() or shared.sql(WAITING)[0][0]):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert 0 != await asking


async def test_what_is_held_back_is_not_written(shared: Shared) -> None:
    """The attempt is not there, the key is still the session's, and nothing may leave for it."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(SLOW)
    await ask(journal, "a")
    entry = await journal.find("b")
    assert await ask(journal, "b")
    assert entry == await journal.find("b")
    assert not journal.may_send("b")
    assert journal.failure is None
    await journal.set_limits(AccountLimits())
    assert 0 == await ask(journal, "b")
    assert journal.may_send("b")


async def test_a_repetition_takes_no_turn(shared: Shared) -> None:
    """After an outage an attempt may be written twice, and has been allowed once."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(AccountLimits(submits_per_second=0.01, burst=2))
    assert [0, 0, 0] == [await ask(journal, key) for key in "aab"]
    assert [0, True] == [await ask(journal, "b"), await ask(journal, "a", 2) and True]


async def test_who_may_not_spend_takes_no_turn(shared: Shared) -> None:
    """A session that has lost its key is told that, and another one has the turn."""
    late, other = await holding(shared, "a", "b"), await shared.session()
    await late.set_limits(SLOW)
    shared.let_expire(late)
    await other.take_in([item("a")])
    with pytest.raises(Fenced):
        await ask(late, "a")
    assert 0 == await ask(other, "a")


async def test_a_session_that_began_anew_is_held_back_like_any_other(shared: Shared) -> None:
    """That it was declared dead once is no reason to take its keys from it."""
    late, other = await holding(shared, "a"), await holding(shared, "b")
    await late.set_limits(SLOW)
    await late.release()
    await late.take_in([item("a")])
    assert [0, True] == [await ask(other, "b"), await ask(late, "a") and True]


async def test_other_facts_do_not_wait_for_the_limits(shared: Shared) -> None:
    """What is held back stops nothing that is written together with it."""
    journal = await holding(shared, "a", "b", "c")
    await journal.set_limits(SLOW)
    waits = await asyncio.gather(
        ask(journal, "a"), ask(journal, "b"), journal.write(accepted("a")), ask(journal, "c")
    )
    assert [0, True, None, True] == [wait and True for wait in waits]
    entry = await journal.find("a")
    assert entry is not None
    assert "t" == entry.task_id


async def test_who_was_cancelled_while_held_back_may_close_the_attempt(shared: Shared) -> None:
    """A session that is torn down does not know whether its attempt was written: neither case is a fault."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(SLOW)
    for key in "ab":
        asking = asyncio.create_task(ask(journal, key))
        await asyncio.sleep(0)
        asking.cancel()
        journal.write_soon(not_sent(key))
    found = await journal.find_many("ab")
    assert {"a": ["not_sent"], "b": []} == {
        key: [one.closed for one in entry.attempts] for key, entry in found.items()
    }
    assert journal.failure is None


# --- tasks in flight -------------------------------------------------------------------------------------


async def test_sessions_that_race_share_the_places(shared: Shared) -> None:
    """As many go as may be in flight; the others wait for a place, which no time gives."""
    await (await shared.session()).set_limits(AccountLimits(max_in_flight=4))
    waits = await race(shared)
    assert (4, 16) == (waits.count(0.0), waits.count(None))


@pytest.mark.parametrize(
    ("facts", "is_free"),
    [
        ([], False),
        ([accepted()], False),
        ([accepted(), settled()], True),
        ([accepted(), failed()], True),
        ([not_sent()], True),
        ([refused()], True),
        ([not_sent(), sending(attempt=2)], False),
    ],
    ids=["asked", "accepted", "settled", "failed", "not sent", "refused", "sent again"],
)
async def test_what_frees_a_place(shared: Shared, facts: list[Fact], is_free: bool) -> None:
    """An attempt or a task that may be at work has a place, and nothing else."""
    journal, other = await holding(shared, "k"), await holding(shared, "other")
    await journal.set_limits(AccountLimits(max_in_flight=1))
    assert 0 == await ask(journal, "k")
    await journal.write(*facts)
    assert (0 if is_free else None) == await ask(other, "other")


async def test_what_a_dead_session_has_sent_keeps_its_place(shared: Shared) -> None:
    """Its task goes on, whether nobody has the key or another session has taken it over."""
    late, other = await holding(shared, "k"), await holding(shared, "other")
    await late.set_limits(AccountLimits(max_in_flight=1))
    await ask(late, "k")
    shared.let_expire(late)
    assert await ask(other, "other") is None
    await other.take_in([item("k")])
    assert await ask(other, "other") is None
    await other.write(accepted("k"), settled("k"))
    assert 0 == await ask(other, "other")


async def test_a_task_that_vanished_blocks_nobody_for_ever(shared: Shared) -> None:
    """An hour after it was sent, it has no place any more."""
    journal = await holding(shared, "a", "b")
    await journal.set_limits(AccountLimits(max_in_flight=1))
    await ask(journal, "a")
    await journal.write(accepted("a"))
    for minutes, wait in (("59", None), ("2", 0)):
        shared.sql(f"UPDATE SCHEMA.job SET sent_at = sent_at - interval '{minutes} min'")
        assert wait == await ask(journal, "b")


async def test_what_was_sent_before_there_were_limits_counts(shared: Shared) -> None:
    """A limit that is below what is in flight lets nothing go until enough has settled."""
    journal = await holding(shared, *"abcd")
    await asyncio.gather(*(ask(journal, key) for key in "abc"))
    await journal.set_limits(AccountLimits(max_in_flight=2))
    await journal.write(not_sent("a"))
    assert await ask(journal, "d") is None
    await journal.write(not_sent("b"))
    assert 0 == await ask(journal, "d")


async def test_a_key_that_is_looked_for_has_a_place_once_its_task_is_found(shared: Shared) -> None:
    """Looking for hundreds of keys keeps nobody from sending."""
    journal = await holding(shared, "a", "b", "c")
    await journal.set_limits(AccountLimits(max_in_flight=1))
    await journal.take_in([item("looked for", look_first=True)])
    assert 0 == await ask(journal, "a")
    await journal.write(not_sent("a"))
    await journal.write(accepted("looked for"))
    assert await ask(journal, "b") is None

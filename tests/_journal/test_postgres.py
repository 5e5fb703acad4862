"""
Sessions that share a journal in PostgreSQL: who holds a key, who may spend for it, and what the others hear.
"""

from __future__ import annotations

import asyncio
import logging
import random
import subprocess
import sys

import psycopg
import pytest

from tests._journal.lives import (
    accepted,
    attempt,
    downloaded,
    failed,
    intended,
    not_sent,
    refused,
    sending,
    settled,
    withdrawn,
)
from tests.postgres.frozen import FROZEN
from tests.postgres.sessions import REQUEST, Shared, item, session_of
from veo_async._journal.facts import (
    AlreadyClaimed,
    AttemptClosed,
    Elsewhere,
    Fact,
    Fenced,
    Fresh,
    Known,
    Learned,
    Settled,
    Standing,
)
from veo_async._journal.postgres import PostgresJournal
from veo_async.errors import JournalError


async def taken(journal: PostgresJournal, key: str = "k") -> Standing:
    [standing] = await journal.take_in([item(key)])
    return standing


async def sent(journal: PostgresJournal, key: str = "k") -> None:
    """
    Take a key in and write that it is being sent.
    """
    assert isinstance(await taken(journal, key), Fresh)
    await journal.write(sending(key))


async def overtaken(shared: Shared) -> tuple[PostgresJournal, PostgresJournal]:
    """
    A session that lost its key while it was sending it, and the one that has it now.
    """
    late, other = await shared.session(), await shared.session()
    await sent(late)
    shared.let_expire(late)
    assert isinstance(await taken(other), Known)
    return late, other


# --- who holds a key -------------------------------------------------------------------------------------


async def test_a_key_is_one_sessions(shared: Shared) -> None:
    """The first to take a key in has it, and the others are told what it stands for, whatever they asked for."""
    first, second = await shared.session(), await shared.session()
    assert Fresh() == await taken(first)
    entry = await first.find("k")
    assert entry is not None
    assert [Elsewhere(entry)] == await second.take_in([item(request="{}")])
    await first.write(sending())
    entry = await first.find("k")
    assert entry is not None
    assert (Known(entry), Elsewhere(entry)) == (await taken(first), await taken(second))


async def test_sessions_that_race_for_keys_get_each_once(shared: Shared) -> None:
    """Four sessions that take in the same 200 keys in orders of their own hold each key exactly once."""
    sessions = [await shared.session() for _ in range(4)]
    keys = [str(number) for number in range(200)]
    random.seed(14)
    orders = [random.sample(keys, len(keys)) for _ in sessions]
    races = [one.take_in([item(key) for key in order]) for one, order in zip(sessions, orders, strict=True)]
    found = [
        zip(order, told, strict=True)
        for order, told in zip(orders, await asyncio.gather(*races), strict=True)
    ]
    fresh = [key for told in found for key, standing in told if isinstance(standing, Fresh)]
    assert sorted(keys) == sorted(fresh)
    assert 200 == sum([len(await one.unsettled()) for one in sessions])


async def test_what_has_settled_is_known_to_all(shared: Shared) -> None:
    """A result and a failure are everybody's, and a failure may be bought again by anybody, once."""
    first, second = await shared.session(), await shared.session()
    for key, end in (("good", settled("good")), ("bad", failed("bad"))):
        await sent(first, key)
        await first.write(accepted(key, f"t {key}"), end)
        assert isinstance(await taken(second, key), Known)
    again = item("bad", retry_failed=True)
    assert [Fresh(1, 1)] == await second.take_in([again])
    assert isinstance((await first.take_in([again]))[0], Elsewhere)


async def test_a_dead_sessions_key_is_taken_over(shared: Shared) -> None:
    """Once the lease is over whoever asks has the key: what was sent is known, what was not is fresh."""
    first, second = await shared.session(), await shared.session()
    await sent(first, "sent")
    await taken(first, "intended")
    shared.let_expire(first)
    standing = await taken(second, "sent")
    assert isinstance(standing, Known)
    assert (attempt(),) == standing.entry.attempts
    assert Fresh() == await taken(second, "intended")
    assert [True, False] == [
        dead for (dead,) in shared.sql(
            f"SELECT dead FROM SCHEMA.session WHERE id IN ({session_of(first)}, {session_of(second)}) ORDER BY id"
        )
    ]  # fmt: skip


async def test_what_is_unsettled_is_claimed_from_the_dead_alone(shared: Shared) -> None:
    """A session resumes its own keys and those that a dead one held, and none of a live one's."""
    dead, live, heir = [await shared.session() for _ in range(3)]
    for key, journal in (("d1", dead), ("l", live), ("d2", dead), ("h", heir)):
        await sent(journal, key)
    assert ["h"] == [entry.key for entry in await heir.unsettled()]
    shared.let_expire(dead)
    assert ["d1", "d2", "h"] == [entry.key for entry in await heir.unsettled()]
    assert ["l"] == [entry.key for entry in await live.unsettled()]


async def test_keys_that_are_handed_back_need_no_waiting(shared: Shared) -> None:
    """After `release` another session has them at once, and the first one, which goes on, has not."""
    first, second = await shared.session(), await shared.session()
    await sent(first)
    await first.release()
    assert not first.may_send("k")
    assert isinstance(await taken(second), Known)
    assert isinstance(await taken(first), Elsewhere)
    await sent(first, "another")
    assert first.may_send("another")


async def test_nothing_is_sent_while_keys_are_handed_back(shared: Shared) -> None:
    """From the moment when the session says so, and not only from the server's answer."""
    journal = await shared.session()
    await sent(journal)
    blocked = "SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%SCHEMA.released%' AND wait_event_type = 'Lock'"
    with psycopg.connect(shared.server.dsn) as other:
        other.execute(f"SELECT FROM {shared.schema}.session WHERE id = {session_of(journal)} FOR UPDATE")
        releasing = asyncio.create_task(journal.release())
        while not shared.sql(blocked)[0][0]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert not journal.may_send("k")
    await releasing


async def test_closing_hands_keys_back(shared: Shared) -> None:
    """A session that ends in good order leaves its keys to the others at once."""
    first, second = shared.journal(), await shared.session()
    await first.open(shared.token)
    await sent(first)
    await first.close()
    assert isinstance(await taken(second), Known)


async def test_a_lease_is_renewed(shared: Shared) -> None:
    """A session that lives keeps its key for longer than a lease, without a word from its owner."""
    first, second = await shared.session(lease=2.0), await shared.session()
    await sent(first)
    question = f"SELECT expires_at > begun_at + 2 * lease FROM SCHEMA.session WHERE id = {session_of(first)}"
    while not shared.sql(question)[0][0]:  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    assert isinstance(await taken(second), Elsewhere)
    assert first.may_send("k")


async def test_accounts_do_not_see_each_other(shared: Shared) -> None:
    """The same key under another token is another key."""
    first, stranger = await shared.session(), shared.journal()
    await stranger.open("f" * 32)
    await sent(first)
    await first.write(accepted())
    assert Fresh() == await taken(stranger)
    await stranger.write(sending(), accepted())
    await stranger.write(settled())
    await stranger.close()
    assert ["k"] == [entry.key for entry in await first.unsettled()]


# --- who may spend ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact", [intended(), sending(attempt=2), withdrawn()], ids=["intended", "sending", "withdrawn"]
)
async def test_what_spends_is_fenced(shared: Shared, fact: Fact) -> None:
    """A session that lost its key may say nothing that spends, and the journal goes on all the same."""
    late, other = await overtaken(shared)
    before = await other.find("k")
    with pytest.raises(Fenced) as caught:
        await late.write(fact)
    assert "k" == caught.value.key
    assert not late.may_send("k")
    assert before == await other.find("k")
    assert late.failure is None
    await other.write(not_sent())


async def test_a_key_of_another_session_is_fenced(shared: Shared) -> None:
    """Whoever never held the key may not spend for it either, though its own session lives."""
    first, second = await shared.session(), await shared.session()
    await taken(first)
    for fact in (intended(), sending(), withdrawn()):
        with pytest.raises(Fenced):
            await second.write(fact)
    await first.write(sending())


async def test_a_session_that_was_given_up_begins_anew(shared: Shared) -> None:
    """Its owner takes keys in again, as another session: the old key is elsewhere, a new one its own."""
    late, other = await overtaken(shared)
    before = session_of(late)
    assert isinstance(await taken(late), Elsewhere)
    assert before < session_of(late)
    assert not late.may_send("k")
    await sent(late, "new")
    assert late.may_send("new")
    await other.write(not_sent(), withdrawn())
    with pytest.raises(
        Fenced
    ):  # it is nobody's now, and still not to be spent for on the strength of the old session
        await late.write(sending(attempt=2))


async def test_a_session_finds_out_that_it_was_given_up(shared: Shared) -> None:
    """Its next renewal says so: it spends no more, and its owner is told to look at all keys."""
    late, other = await shared.session(lease=1.0), await shared.session()
    await sent(late)
    await late.changed()
    shared.sql(f"UPDATE SCHEMA.session SET dead = true WHERE id = {session_of(late)}")
    assert set() == await late.changed()
    assert not late.may_send("k")
    assert isinstance(await taken(other), Known)


async def test_a_key_may_leave_while_it_is_being_sent(shared: Shared) -> None:
    """From *sending* to the end of the attempt, and for no other key."""
    journal = await shared.session()
    await taken(journal)
    assert not journal.may_send("k")
    await journal.write(sending())
    assert journal.may_send("k")
    await journal.write(not_sent())
    assert not journal.may_send("k")


async def test_a_clock_that_jumps_ends_what_may_leave(shared: Shared) -> None:
    """After a suspend the session spends nothing, until it has renewed its lease."""
    journal = await shared.session()
    await sent(journal)
    assert journal._store is not None
    lease = journal._store.lease
    read = lease.clocks
    lease.clocks = lambda: tuple(time + 25.0 for time in read())
    assert not journal.may_send("k")


async def test_a_frozen_process_may_not_send(shared: Shared) -> None:
    """Stopped between *sending* and the POST until its key is another's, it finds that it may not, and is fenced."""
    command = [sys.executable, "-c", FROZEN, shared.server.dsn, shared.schema, shared.token]
    process = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"True\n" == await process.stdout.readline()
    process.send_signal(19)  # SIGSTOP
    other = await shared.session()
    while isinstance(await taken(other), Elsewhere):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    process.stdin.write(b"go on\n")
    process.send_signal(18)  # SIGCONT
    output, _ = await process.communicate()
    assert ["False", "Fenced", "False", "None"] == output.decode().split()


# --- what tells is taken from anybody ---------------------------------------------------------------------


async def test_late_evidence_is_taken(shared: Shared) -> None:
    """What a session that lost its key has bought is the key's, with its end and its file."""
    late, other = await overtaken(shared)
    for fact in (accepted(), settled(), downloaded()):
        await late.write(fact)
    entry = await other.find("k")
    assert entry is not None
    assert ("t", {"v": "/v.mp4"}) == (entry.task_id, entry.downloads)
    assert Known(entry) == await taken(other)


async def test_the_first_end_stands(shared: Shared) -> None:
    """Two sessions that saw the same task end may say so in other words: it is no error, and the first is kept."""
    late, other = await overtaken(shared)
    await other.write(accepted())
    await other.write(settled())
    await late.write(accepted(), settled(outcome='{"in": "other words"}'))
    entry = await late.find("k")
    assert entry is not None
    assert settled().outcome == entry.outcome


async def test_a_second_task_of_a_key_is_surplus(shared: Shared, caplog: pytest.LogCaptureFixture) -> None:
    """It was paid for, so it is kept, and named in the log at ERROR; the first stays the key's."""
    late, other = await overtaken(shared)
    was = session_of(late)
    await other.write(accepted(task_id="first"))
    for _ in range(2):
        with pytest.raises(JournalError, match="cannot follow"):
            await late.write(accepted(task_id="second"))
    assert [("second", "k")] == shared.sql(f"SELECT task_id, key FROM SCHEMA.surplus WHERE session = {was}")
    assert ["second"] * 2 == [record.args[0] for record in caplog.records if record.levelno == logging.ERROR]  # type: ignore[index]
    entry = await late.find("k")
    assert entry is not None
    assert "first" == entry.task_id


async def test_a_task_belongs_to_one_key_of_all_sessions(shared: Shared) -> None:
    """Two sessions that claim one task for two keys at once: one has it, the other is told whose it is."""
    sessions = [await shared.session() for _ in range(2)]
    for key, journal in zip("ab", sessions, strict=True):
        await sent(journal, key)
    claims = [journal.write(accepted(key, "t")) for key, journal in zip("ab", sessions, strict=True)]
    results = await asyncio.gather(*claims, return_exceptions=True)
    assert {type(None), AlreadyClaimed} == {type(one) for one in results}


async def test_a_late_refusal_leaves_the_key_to_its_holder(shared: Shared) -> None:
    """It closes its own attempt, and takes nothing from the session that goes on with the key."""
    late, other = await overtaken(shared)
    await other.write(sending(attempt=2))
    await late.write(refused())
    await other.write(accepted())
    entry = await other.find("k")
    assert entry is not None
    assert ["refused", None] == [one.closed for one in entry.attempts]


async def test_late_facts_in_the_background_harm_nothing(shared: Shared) -> None:
    """What a session says too late, and nobody waits for, does not make its journal fail."""
    late, other = await overtaken(shared)
    await other.write(refused())
    late.write_soon(not_sent())
    late.write_soon(withdrawn())
    await taken(late, "new")
    assert late.failure is None


# --- what the others hear ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "facts",
    [[accepted(), settled()], [accepted(), failed()], [refused()], [not_sent(), withdrawn()]],
    ids=["settled", "failed", "refused", "withdrawn"],
)
async def test_who_waits_for_a_key_is_told(shared: Shared, facts: list[Fact]) -> None:
    """A key that settles, or is freed, wakes the other sessions by its name."""
    first, second = await shared.session(), await shared.session()
    await sent(first)
    assert set() == await second.changed()  # it listens now
    await first.write(*facts)
    assert {"k"} == await second.changed()


@pytest.mark.parametrize("key", ["\0\ud800 \1", "x" * 10_000])
async def test_any_key_is_told(shared: Shared, key: str) -> None:
    """A key that no notification can carry has the others look at all of theirs."""
    first, second = await shared.session(), await shared.session()
    await sent(first, key)
    assert set() == await second.changed()
    await first.write(accepted(key), settled(key))
    assert await second.changed() in ({key}, set())


async def test_keys_that_are_handed_back_are_told(shared: Shared) -> None:
    """Who waits for any of them looks at all."""
    first, second = await shared.session(), await shared.session()
    await sent(first)
    assert set() == await second.changed()
    await first.write(not_sent())
    await first.release()
    assert set() == await second.changed()
    assert Fresh(1) == await taken(second)


async def test_a_session_does_not_hear_itself(shared: Shared) -> None:
    """What it has said is no news to it, and neither is another account's."""
    journal, other, stranger = await shared.session(), await shared.session(), shared.journal()
    assert set() == await journal.changed()
    await stranger.open("e" * 32)
    for one, key in ((journal, "own"), (stranger, "strange"), (other, "news")):
        await sent(one, key)
        await one.write(refused(key))
    assert {"news"} == await journal.changed()
    await stranger.close()


async def test_a_refusal_is_kept_until_the_key_is_used(shared: Shared) -> None:
    """Who waits elsewhere learns why, and the key is free."""
    first, second = await shared.session(), await shared.session()
    await sent(first)
    await first.write(AttemptClosed(key="k", attempt=1, outcome="refused", at=3.0, reason='"moderation"'))
    assert {"k": '"moderation"'} == await second.refusals(["k", "another"])
    assert None is await second.find("k")
    assert Fresh() == await taken(second)
    assert {} == await first.refusals(["k"])


async def test_what_sessions_learn_adds_up(shared: Shared) -> None:
    """Neither overwrites the other's, whoever writes last and however often."""
    first = await shared.session()
    await first.write(Learned(kind="fast", data="[[1, 2.5], [0, 1]]"))
    second = await shared.session()
    known = await second.learned()
    assert {"fast": "[[1, 2.5], [0, 1]]"} == known
    await second.write(Learned(kind="fast", data="[[2, 2.5], [1, 1]]"))
    await first.write(Learned(kind="fast", data="[[5, 2.5], [4, 1]]"))
    for journal in (first, second):
        assert {"fast": "[[6, 2.5], [5, 1]]"} == await journal.learned()
        assert {"fast": "[[6, 2.5], [5, 1]]"} == await journal.learned()
    await second.write(Learned(kind="fast", data="[[7, 2.5], [5, 1]]"))
    assert {"fast": "[[7, 2.5], [5, 1]]"} == await first.learned()


async def test_a_failure_can_settle_late(shared: Shared) -> None:
    """A task that its late owner saw fail is the key's failure, and may be bought again."""
    late, other = await overtaken(shared)
    await late.write(accepted(), Settled(key="k", failed=True, outcome="{}", at=5.0))
    [standing] = await other.take_in([item(request=REQUEST, retry_failed=True)])
    assert Fresh(1, 1) == standing

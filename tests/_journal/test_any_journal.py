"""
What every journal accepts and gives back, whatever keeps it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests._journal.lives import (
    ACCEPTED,
    FAILED,
    INTENDED,
    REQUEST,
    RESULT,
    SENDING,
    SETTLED,
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
from veo_async._journal.facts import (
    AlreadyClaimed,
    AttemptClosed,
    Disowned,
    Downloaded,
    Entry,
    Fact,
    Fresh,
    Known,
    Learned,
    Settled,
    TakeIn,
)
from veo_async._journal.journal import AnyJournal
from veo_async.errors import JournalError

# --- the life of a purchase ------------------------------------------------------------------------------


async def test_an_unknown_key_has_no_entry(journal: AnyJournal) -> None:
    """A key or a task that was never written is None, and nothing is unsettled or learned."""
    assert None is await journal.find("k")
    assert None is (await journal.find_tasks(["t"])).get("t")
    assert [] == await journal.unsettled()
    assert {} == await journal.learned()


async def test_every_fact_shows_in_the_entry(journal: AnyJournal) -> None:
    """A purchase from intention to download reads back field by field."""
    await journal.write(intended(), sending(mark="n"), not_sent(), sending(attempt=2, at=3.5))
    await journal.write(accepted())
    await journal.write(settled())
    await journal.write(downloaded())
    expected = Entry(
        key="k",
        request=REQUEST,
        intended_at=1.0,
        attempts=(attempt(1, mark="n", closed="not_sent"), attempt(2, at=3.5)),
        task_id="t",
        trace_id="trace",
        accepted_at=4.0,
        settled_at=5.0,
        failed=False,
        outcome=RESULT,
        downloads={"v": "/v.mp4"},
    )
    assert expected == await journal.find("k")
    assert expected == (await journal.find_tasks(["t"])).get("t")


async def test_unsettled_purchases_come_in_the_order_of_intention(journal: AnyJournal) -> None:
    """Intended, sending and accepted ones are unsettled; succeeded, failed and withdrawn ones are not."""
    for key in "edcbaf":
        await journal.write(intended(key))
    await journal.write(sending("d"))
    for key in "cab":
        await journal.write(sending(key, mark=key), accepted(key, f"t{key}"))
    await journal.write(settled("a"), failed("b"), withdrawn("f"))
    entries = await journal.unsettled()
    assert ["e", "d", "c"] == [entry.key for entry in entries]
    assert [(), (attempt(),), (attempt(mark="c"),)] == [entry.attempts for entry in entries]


async def test_a_refusal_frees_the_key(journal: AnyJournal) -> None:
    """After a refusal the key is unknown, and takes another request with attempts from 1."""
    await journal.write(intended(), sending(), refused())
    assert None is await journal.find("k")
    await journal.write(intended(request="{}"), sending())
    entry = await journal.find("k")
    assert entry is not None
    assert ("{}", (attempt(),)) == (entry.request, entry.attempts)


async def test_a_withdrawal_frees_the_key(journal: AnyJournal) -> None:
    """A job that was given up before anything was sent leaves nothing, attempts that were not sent included."""
    await journal.write(intended(), sending(), not_sent())
    await journal.write(withdrawn())
    assert None is await journal.find("k")
    await journal.write(intended(), sending())
    entry = await journal.find("k")
    assert entry is not None
    assert (attempt(),) == entry.attempts


async def test_a_refusal_of_another_attempt_leaves_an_accepted_task(journal: AnyJournal) -> None:
    """A task that was accepted keeps its key, whatever becomes of the key's other attempts."""
    await journal.write(intended(), sending(), sending(attempt=2), accepted())
    await journal.write(refused(attempt=2), not_sent())
    entry = await journal.find("k")
    assert entry is not None
    assert "t" == entry.task_id
    assert ["not_sent", "refused"] == [one.closed for one in entry.attempts]


async def test_a_failed_purchase_can_be_bought_again(journal: AnyJournal) -> None:
    """An intention on a failed key opens a new purchase, and the old task keeps its own entry and its claim."""
    await journal.write(intended(), sending(), accepted(task_id="old"), failed())
    await journal.write(intended(at=8.0))
    entry = await journal.find("k")
    assert entry is not None
    assert (entry.intended_at, entry.task_id, entry.attempts, entry.failed) == (8.0, None, (), False)
    await journal.write(sending(at=9.0))
    with pytest.raises(AlreadyClaimed):
        await journal.write(accepted(task_id="old"))
    await journal.write(accepted(task_id="new"), settled())
    latest, before = await journal.find("k"), (await journal.find_tasks(["old"])).get("old")
    assert latest is not None
    assert before is not None
    assert (latest.task_id, latest.outcome) == ("new", RESULT)
    assert (before.key, before.failed, before.outcome) == ("k", True, '"moderation"')


@pytest.mark.parametrize("ending", [[withdrawn()], [sending(), refused()]], ids=["withdrawn", "refused"])
async def test_a_second_purchase_that_comes_to_nothing_leaves_the_failure(
    journal: AnyJournal, ending: list[Fact]
) -> None:
    """A failed outcome stands for ever: it is the key's again when the purchase after it goes away."""
    await journal.write(intended(), sending(), accepted(), failed())
    await journal.write(intended(), *ending)
    entry = await journal.find("k")
    assert entry is not None
    assert (entry.failed, entry.task_id) == (True, "t")
    await journal.write(*ending[-1:])  # and may be said again


async def test_the_latest_of_several_failures_is_shown(journal: AnyJournal) -> None:
    """After two failed purchases the key stands at the second."""
    for number in "12":
        await journal.write(intended(), sending(), accepted(task_id=f"t{number}"), failed(outcome=number))
    entry = await journal.find("k")
    assert entry is not None
    assert (entry.task_id, entry.outcome) == ("t2", "2")


async def test_a_later_download_takes_the_place_of_an_earlier(journal: AnyJournal) -> None:
    """A video fetched twice lies where it was put last."""
    await journal.write(intended(), sending(), accepted(), settled())
    await journal.write(downloaded(), downloaded(path="/elsewhere.mp4"))
    entry = await journal.find("k")
    assert entry is not None
    assert entry.downloads == {"v": "/elsewhere.mp4"}


async def test_many_keys_are_looked_up_at_once(journal: AnyJournal) -> None:
    """Those of the keys that are known come back with their latest purchases, the others not at all."""
    await journal.write(*(intended(key) for key in "abc"))
    found = await journal.find_many(iter("cxa"))
    assert {key: await journal.find(key) for key in "ca"} == found
    assert {} == await journal.find_many([])


async def test_what_is_learned_is_replaced(journal: AnyJournal) -> None:
    """Each kind of request has the data that were written last."""
    await journal.write(Learned(kind="a", data="1"), Learned(kind="b", data="2"))
    await journal.write(Learned(kind="a", data="3"))
    assert await journal.learned() == {"a": "3", "b": "2"}


# --- what may follow what --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "fact"),
    [
        ([], sending()),
        ([], not_sent()),
        ([], accepted()),
        ([], settled()),
        ([], downloaded()),
        (INTENDED, intended(request="{}")),
        (INTENDED, not_sent()),
        (INTENDED, refused()),
        (INTENDED, settled()),
        (INTENDED, downloaded()),
        (SENDING, sending(at=9.0)),
        ([*INTENDED, sending(attempt=2)], sending(attempt=1)),
        (SENDING, refused(attempt=2)),
        ([*SENDING, not_sent()], refused()),
        (SENDING, settled()),
        (SENDING, withdrawn()),
        (ACCEPTED, sending(attempt=2)),
        (ACCEPTED, accepted(task_id="another")),
        (ACCEPTED, downloaded()),
        (ACCEPTED, withdrawn()),
        (SETTLED, intended(request="{}")),
        (SETTLED, sending(attempt=2)),
        (SETTLED, settled(outcome="{}")),
        (SETTLED, failed()),
        (SETTLED, withdrawn()),
        (FAILED, settled()),
        (FAILED, sending(attempt=2)),
        (FAILED, accepted(task_id="another")),
        (FAILED, downloaded()),
        (SETTLED, Downloaded(key="other", video_id="v", path="/v.mp4", at=6.0)),
    ],
)
async def test_a_fact_that_cannot_follow_is_refused(
    journal: AnyJournal, before: list[Fact], fact: Fact
) -> None:
    """A fact out of order raises, names the key, and changes nothing."""
    await journal.write(*before)
    entry = await journal.find("k")
    with pytest.raises(JournalError, match="cannot follow") as caught:
        await journal.write(fact)
    assert not isinstance(caught.value, AlreadyClaimed)
    assert caught.value.key in {"k", "other"}
    assert entry == await journal.find("k")
    assert journal.failure is None


@pytest.mark.parametrize(
    ("before", "fact"),
    [
        (INTENDED, intended()),
        (ACCEPTED, intended()),
        (SETTLED, intended(at=9.0)),
        (SENDING, sending()),
        ([*INTENDED, sending(mark="n")], sending(mark="n")),
        (SETTLED, sending()),
        ([*SENDING, not_sent()], not_sent()),
        ([*SENDING, refused()], refused()),
        (ACCEPTED, accepted()),
        (SETTLED, accepted()),
        (FAILED, accepted()),
        (SETTLED, settled()),
        (FAILED, failed()),
        (FAILED, not_sent()),
        (ACCEPTED, Disowned(key="k", task_id="another")),
        ([*SETTLED, downloaded()], downloaded()),
        ([*INTENDED, withdrawn()], withdrawn()),
        ([Learned(kind="a", data="1")], Learned(kind="a", data="1")),
    ],
)
async def test_a_fact_may_be_written_twice(journal: AnyJournal, before: list[Fact], fact: Fact) -> None:
    """Saying again what the journal holds changes nothing and raises nothing."""
    await journal.write(*before)
    entry = await journal.find("k")
    await journal.write(fact)
    assert entry == await journal.find("k")


async def test_a_task_belongs_to_one_key(journal: AnyJournal) -> None:
    """A second key that claims a task gets AlreadyClaimed, which names both, and stays unaccepted."""
    await journal.write(*ACCEPTED, intended("other"), sending("other"))
    with pytest.raises(AlreadyClaimed, match="'k'") as caught:
        await journal.write(accepted("other"))
    assert (caught.value.key, caught.value.task_id) == ("other", "t")
    entry = await journal.find("other")
    assert entry is not None
    assert entry.task_id is None


async def test_a_task_that_is_anothers_leaves_its_attempt_open(journal: AnyJournal) -> None:
    """A task that was taken back may be claimed by the key that it belongs to; the attempt is open again."""
    await journal.write(*ACCEPTED, Disowned(key="k", task_id="t"), intended("other"), sending("other"))
    await journal.write(accepted("other"), Disowned(key="k", task_id="t"))
    assert ["k", "other"] == [entry.key for entry in await journal.unsettled()]
    assert (None, (attempt(),)) == ((entry := await journal.unsettled())[0].task_id, entry[0].attempts)


async def test_what_has_ended_is_not_taken_back(journal: AnyJournal) -> None:
    """The task of a settled purchase stays its own."""
    await journal.write(*SETTLED)
    with pytest.raises(JournalError):
        await journal.write(Disowned(key="k", task_id="t"))


async def test_an_entry_tells_how_often_the_key_was_sent_before(journal: AnyJournal) -> None:
    """The attempts of a key are numbered on over its purchases that failed."""
    await journal.write(*FAILED, intended(at=9.0), sending(attempt=4, at=9.5))
    [entry] = await journal.unsettled()
    assert (1, 4) == (entry.earlier, entry.attempts[0].number)


async def test_an_accepted_task_needs_no_open_attempt(journal: AnyJournal) -> None:
    """A task that turns up for an attempt said not to have been sent is remembered all the same."""
    await journal.write(intended(), sending(), not_sent())
    await journal.write(accepted())
    assert (await journal.find_tasks(["t"])).get("t") is not None


async def test_the_facts_of_one_write_stand_or_fall_together(journal: AnyJournal) -> None:
    """When one of several facts is against the rules, none of them is kept."""
    with pytest.raises(JournalError):
        await journal.write(intended(), sending(), settled())
    assert None is await journal.find("k")


async def test_a_wrong_fact_harms_no_other_writer(journal: AnyJournal) -> None:
    """Among writers who share a commit, only the one whose fact is wrong hears of it."""
    await journal.write(intended("claimed"), sending("claimed"), accepted("claimed", "taken"))
    writes = [journal.write(intended(key), sending(key), accepted(key, f"t{key}")) for key in "abc"]
    writes.insert(1, journal.write(intended("x"), sending("x"), accepted("x", "taken")))
    writes.insert(3, journal.write(settled("y")))
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(None), AlreadyClaimed, type(None), JournalError, type(None)] == [
        type(one) for one in results
    ]
    assert ["claimed", "a", "b", "c"] == [entry.key for entry in await journal.unsettled()]


NOTHING: Any = None
SOMETHING: Any = object()


@pytest.mark.parametrize(
    "fact",
    [
        SOMETHING,
        Learned(kind="k", data=SOMETHING),
        Learned(kind="k", data=NOTHING),
        sending("x", attempt=SOMETHING),
        sending("x", attempt=1 << 70),
    ],
)
async def test_what_cannot_be_held_is_its_writers_error(journal: AnyJournal, fact: Any) -> None:
    """A value that SQLite has no type for fails its own write and leaves the journal in order."""
    with pytest.raises(JournalError, match="cannot store"):
        await journal.write(intended("x"), fact)
    await journal.write(intended())
    assert ["k"] == [entry.key for entry in await journal.unsettled()]


async def test_a_question_that_cannot_be_asked_is_its_callers_error(journal: AnyJournal) -> None:
    """Looking for something that is no text fails alone."""
    with pytest.raises(JournalError, match="cannot store or look up"):
        await journal.find(object())  # type: ignore[arg-type]
    assert journal.failure is None


ODD_TEXTS = [
    "",
    "\0",
    "a\0b",
    "a",
    "\ud800",
    "x\udfffy",
    "\U0001f40b",
    "'; DROP TABLE jobs; --",
    "é",
    "e\u0301",
    "k" * 100_000,
]


async def test_many_are_found_at_once(journal: AnyJournal) -> None:
    """More keys and tasks than fit into one statement are found, each with its own attempts and files."""
    keys = [f"key {number}" for number in range(300)]
    for key in keys:
        journal.write_soon(intended(key), sending(key), accepted(key, task_id=f"task of {key}"))
        journal.write_soon(settled(key), downloaded(key, path=key))
    found = await journal.find_many([*keys, "another"])
    assert keys == list(found)
    assert [{"v": key} for key in keys] == [dict(entry.downloads) for entry in found.values()]
    tasks = await journal.find_tasks([*(f"task of {key}" for key in keys), "another"])
    assert [*found.values()] == [*tasks.values()]


async def test_keys_are_taken_in_together(journal: AnyJournal) -> None:
    """New keys are intended, known ones are told, and what is to be looked for first counts as sent elsewhere."""
    await journal.write(intended("open"), sending("open"))
    await journal.write(
        intended("failed"),
        sending("failed"),
        accepted("failed"),
        Settled(key="failed", failed=True, outcome="{}", at=5.0),
    )
    old = await journal.find_many(["open", "failed"])
    items = [
        TakeIn(key="new", request="{}", at=9.0),
        TakeIn(key="elsewhere", request="{}", at=9.0, look_first=True),
        TakeIn(key="open", request="{}", at=9.0),
        TakeIn(key="failed", request="{}", at=9.0),
    ]
    assert [Fresh(), Fresh(), Known(old["open"]), Known(old["failed"])] == await journal.take_in(items)
    again = TakeIn(key="failed", request="{}", at=9.0, retry_failed=True, look_first=True)
    assert [Fresh(1, 1)] == await journal.take_in([again])
    now = await journal.find_many(["new", "elsewhere", "failed"])
    numbers = {key: [attempt.number for attempt in entry.attempts] for key, entry in now.items()}
    assert {"new": [], "elsewhere": [0], "failed": [2]} == numbers


async def test_what_was_looked_for_in_vain_may_be_looked_for_again(journal: AnyJournal) -> None:
    """The attempt that stands for another process's is open again, and only closing it ends the doubt."""
    item = TakeIn(key="k", request="{}", at=9.0, look_first=True)
    for _ in range(2):
        assert [Fresh()] == await journal.take_in([item])
        await journal.write(AttemptClosed(key="k", attempt=0, outcome="not_sent", at=10.0))
    assert [Fresh()] == await journal.take_in([item])
    entry = await journal.find("k")
    assert entry is not None
    assert [(0, None)] == [(attempt.number, attempt.closed) for attempt in entry.attempts]


async def test_any_text_is_a_key(journal: AnyJournal) -> None:
    """Empty text, NULs, lone surrogates, quotes and long ones come back as they were, each its own key."""
    await asyncio.gather(*(journal.write(intended(text, request=text), sending(text)) for text in ODD_TEXTS))
    for text in ODD_TEXTS:
        await journal.write(
            accepted(text, task_id=text), settled(text, outcome=text), downloaded(text, path=text)
        )
        await journal.write(Learned(kind=text, data=text), sending(text))
    for text in ODD_TEXTS:
        entry = await journal.find(text)
        assert entry is not None
        assert entry == (await journal.find_tasks([text])).get(text)
        assert (text, text, text, text) == (entry.key, entry.request, entry.outcome, entry.downloads["v"])
    assert {text: text for text in ODD_TEXTS} == await journal.learned()


# --- writing in company ----------------------------------------------------------------------------------


async def test_a_wrong_fact_in_a_large_crowd_harms_no_other_writer(journal: AnyJournal) -> None:
    """Also beyond one statement, all but the wrong facts are kept."""
    facts: list[Fact] = [intended(str(number)) for number in range(300)]
    facts[7] = facts[290] = settled("x")
    results = await asyncio.gather(*(journal.write(fact) for fact in facts), return_exceptions=True)
    assert 2 == len([one for one in results if isinstance(one, JournalError)])
    assert 298 == len(await journal.unsettled())


async def test_a_read_sees_what_was_written_before_it(journal: AnyJournal) -> None:
    """Reads and writes of one turn take effect in the order in which they were asked for."""
    journal.write_soon(intended())
    before = asyncio.ensure_future(journal.find("k"))
    await asyncio.sleep(0)
    journal.write_soon(sending())
    entry, later = await before, await journal.find("k")
    assert entry is not None
    assert later is not None
    assert ((), (attempt(),)) == (entry.attempts, later.attempts)


async def test_background_facts_come_before_later_ones(journal: AnyJournal) -> None:
    """A fact written soon is durable by the time a fact written after it is."""
    journal.write_soon(intended(), sending())
    await journal.write(accepted())
    assert ["t"] == [entry.task_id for entry in await journal.unsettled()]


async def test_writing_nothing_waits_for_what_went_before(journal: AnyJournal) -> None:
    """An empty write is a barrier."""
    journal.write_soon(intended())
    await journal.write()
    assert await journal.find("k") is not None

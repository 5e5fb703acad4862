"""
The reconciler by itself: what is told of submits and listings, and what it decides.

The caller's clock runs in seconds from 0, the records' from `EPOCH`; the grace is a minute.
"""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest
from attrs import define, evolve, field

from veo_async._api.marks import label, mark_of
from veo_async._submit.listed_tasks import HOUR
from veo_async._submit.sending_again import (
    GIVE_UP_AFTER,
    HIDDEN,
    NAMED,
    NEVER_SEEN,
    UNMARKED,
    USELESS,
    Adopt,
    Attempt,
    Decision,
    GiveUp,
    Listing,
    Reconciler,
    SendAgain,
)

EPOCH = 1_700_000_000.0
GRACE = 60.0
DAY = 86_400.0


def attempt(key: str = "k", number: int = 1, *, at: float = 0.0, marked: bool = True, **more: Any) -> Attempt:
    return Attempt(key=key, number=number, began_at=at, mark=label(key, number) if marked else None, **more)


def record(
    task_id: str, key: str | None = None, number: int = 1, *, at: float = 0.0, **more: Any
) -> dict[str, Any]:
    """
    Make a task's record, with a mark where a key is given.
    """
    request = {} if key is None else {"callback_url": f"https://x/health?{label(key, number)}"}
    return {"id": task_id, "request": request, "created_at": EPOCH + at, **more}


FAILED: dict[str, Any] = {"response": {"success": False, "error": {"code": "forbidden"}}}
KNOWN = record("known", "another")  # a task of this session, accepted when it began


@define
class Play:
    """
    A reconciler, and a listing that shows these records.
    """

    records: list[Any] = field(factory=lambda: [KNOWN])
    known: bool = True
    core: Reconciler = field(factory=lambda: Reconciler(grace=GRACE, recall=DAY))
    asked: list[Listing] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        if self.known:
            self.core.accepted("known", now=0.0)

    def look(self, now: float, *, complete: bool = True) -> list[Decision]:
        listing = self.core.listing(now, unix=EPOCH + now)
        self.asked.append(listing)
        since = -math.inf if listing.created_from is None else listing.created_from
        shown = [
            one for one in self.records if not isinstance(one, dict) or one.get("created_at", 0) >= since
        ]
        return self.core.listed(listing, shown, complete=complete)

    def until(self, end: float) -> list[Decision]:
        """
        List whenever it is due, and stop at the first decision, or at that time.
        """
        while (due_at := self.core.next_due_at()) is not None and due_at <= end:
            if decisions := self.look(max(due_at, 0.0)):
                return decisions
        return []


# --- presence --------------------------------------------------------------------------------------------


def test_a_record_with_the_mark_is_the_attempts_task() -> None:
    """
    It is adopted at the first listing, whatever else it says.
    """
    play, mine = Play([KNOWN, record("t", "k", at=-3000.0)]), attempt()
    assert [] == play.core.unknown(mine, now=0.0)
    assert [Adopt(attempt=mine, task_id="t")] == play.look(0.0)
    play.core.adopted(Adopt(attempt=mine, task_id="t"), now=0.0)
    assert (None, True) == (play.core.next_due_at(), play.core.knows("t"))


def test_what_a_listing_has_shown_is_known_to_who_comes_later() -> None:
    """
    A thousand keys cost one listing: the second finds its task at once.
    """
    play = Play([KNOWN, record("t", "k"), record("u", "l")])
    play.core.unknown(attempt(), now=0.0)
    play.look(0.0)
    mine = attempt("l", 0)
    assert [Adopt(attempt=mine, task_id="u")] == play.core.unknown(mine, now=1.0)


@pytest.mark.parametrize(
    ("records", "adopted", "others"),
    [
        ([record("failed", "k", 2, **FAILED), record("going", "k", 1)], "going", ("failed",)),
        ([record("first", "k", 1), record("second", "k", 2)], "second", ("first",)),
        ([record("early", "k", 1, at=1.0), record("late", "k", 1, at=2.0)], "late", ("early",)),
        ([record("failed", "k", 1, **FAILED)], "failed", ()),
    ],
)
def test_of_several_tasks_of_a_key_the_best_counts(
    records: Any, adopted: str, others: tuple[str, ...]
) -> None:
    """
    One that has not failed comes before one that has, then the latest; the others are named.
    """
    play = Play([KNOWN, *records])
    play.core.unknown(attempt(number=2), now=0.0)
    [decision] = play.look(0.0)
    assert isinstance(decision, Adopt)
    assert (adopted, others) == (decision.task_id, decision.others)


def test_earlier_purchases_do_not_count() -> None:
    """
    A key whose task failed was bought again: only tasks from that purchase on are its own.
    """
    play = Play([KNOWN, record("old", "k", 1, **FAILED)])
    play.core.unknown(attempt(number=2, first=2), now=0.0)
    assert [SendAgain(attempt=attempt(number=2, first=2))] == play.until(DAY)
    assert 1 == play.core.last_number("k")


def test_failed_tasks_are_skipped_where_a_failure_is_to_be_bought_again() -> None:
    """
    The next attempt gets a number above all that were shown.
    """
    play, mine = Play([KNOWN, record("old", "k", 4, **FAILED)]), attempt(number=0, skip_failed=True)
    play.core.unknown(mine, now=0.0)
    assert [SendAgain(attempt=mine)] == play.until(DAY)
    assert 4 == play.core.last_number("k")


def test_a_task_that_is_another_purchases_by_the_journal_is_not_tried_again() -> None:
    """
    The next best is adopted; where there is none, the job is given up, and names the task.
    """
    play, mine = Play([KNOWN, record("t", "k", 2), record("u", "k", 1)]), attempt(number=2)
    play.core.unknown(mine, now=0.0)
    [first] = play.look(0.0)
    assert isinstance(first, Adopt)
    [second] = play.core.rejected(first)
    assert second == Adopt(attempt=mine, task_id="u")
    assert [] == play.core.rejected(second)
    assert [GiveUp(attempt=mine, candidates=("u",), reason=NAMED)] == play.until(DAY)


def test_a_look_up_decides_by_the_mark_alone() -> None:
    """
    Some gateways give every answer the same trace id: a record of another is not adopted.
    """
    play, mine = Play(), attempt()
    play.core.unknown(mine, now=0.0)
    assert [] == play.core.looked_up(record("t", "another"))
    assert [] == play.core.looked_up(None)
    assert [Adopt(attempt=mine, task_id="u")] == play.core.looked_up(record("u", "k"))
    play.core.adopted(Adopt(attempt=mine, task_id="u"), now=0.0)
    assert not play.core.knows("u"), "no listing has shown it"


# --- absence ---------------------------------------------------------------------------------------------


def test_absence_takes_two_listings_the_second_a_grace_later() -> None:
    """
    Listings come soon at first; none before the grace is over lets the job go again.
    """
    play = Play()
    play.core.unknown(attempt(), now=1.0)
    assert [SendAgain(attempt=attempt())] == play.until(DAY)
    assert [1.0, 8.5, 16.0, 31.0, 61.0] == [listing.asked_at for listing in play.asked]
    assert None is play.core.next_due_at()


def test_one_listing_is_not_enough() -> None:
    """
    Where the first comes only after the grace, another follows.
    """
    play = Play()
    play.core.unknown(attempt(), now=0.0)
    assert [] == play.look(100.0)
    assert [SendAgain(attempt=attempt())] == play.until(DAY)
    assert 2 == len(play.asked)


@pytest.mark.parametrize(
    "spoilt", [[KNOWN, KNOWN], [KNOWN, None], [KNOWN, {"id": 5, "created_at": EPOCH}], [KNOWN, "t"]]
)
def test_a_listing_with_something_else_in_it_is_no_evidence(spoilt: list[Any]) -> None:
    """
    An item that came twice, or is no task, tells that something was passed over.
    """
    play = Play(spoilt)
    play.core.unknown(attempt(), now=0.0)
    [decision] = play.until(DAY)
    assert (GiveUp, USELESS) == (type(decision), getattr(decision, "reason", None))


def test_a_listing_that_was_not_read_to_its_end_is_no_evidence() -> None:
    """
    It may show what it shows, and is asked for again.
    """
    play, mine = Play(), attempt()
    play.core.unknown(mine, now=0.0)
    for now in (0.0, 70.0, 140.0):
        assert [] == play.look(now, complete=False)
    play.records.append(record("t", "k"))
    assert [Adopt(attempt=mine, task_id="t")] == play.look(210.0, complete=False)


def test_what_lacks_an_accepted_task_is_read_without_a_filter() -> None:
    """
    The clocks differ by a month: nothing is concluded from the first listings, and then the task is found.
    """
    play = Play([evolve_record(KNOWN, -30 * DAY), record("t", "k", at=-30 * DAY)])
    play.core.unknown(attempt(), now=0.0)
    assert [Adopt(attempt=attempt(), task_id="t")] == play.until(DAY)
    assert None is play.asked[-1].created_from


def evolve_record(old: dict[str, Any], by: float) -> dict[str, Any]:
    return {**old, "created_at": old["created_at"] + by}


def test_a_listing_that_keeps_lacking_an_accepted_task_is_given_up() -> None:
    """
    After some patience; a task that has vanished need not be shown.
    """
    play = Play([])
    play.core.unknown(attempt(), now=0.0)
    assert [GiveUp(attempt=attempt(), candidates=(), reason=USELESS)] == play.until(DAY)
    assert GIVE_UP_AFTER * GRACE <= play.asked[-1].asked_at
    play.core.gone("known")
    play.records.append(record("other", "other"))
    play.core.unknown(attempt(), now=400.0)
    assert [SendAgain(attempt=attempt())] == play.until(DAY)


def test_a_listing_that_shows_no_marks_is_given_up_with_candidates() -> None:
    """
    An accepted task stands in it without its mark: the unmarked ones of that time may be the attempt's.
    """
    play = Play([record("known"), record("mine?"), record("old", at=-2 * DAY)])
    play.core.unknown(attempt(), now=0.0)
    expected = GiveUp(attempt=attempt(), candidates=("known", "mine?"), reason=HIDDEN)
    assert [expected] == play.until(DAY)
    assert GRACE == play.asked[-1].asked_at


def test_a_mark_that_was_shown_once_is_shown() -> None:
    """
    A record that leaves it out later proves nothing against the listing.
    """
    play = Play()
    play.core.unknown(attempt(), now=0.0)
    play.look(0.0)
    play.records[:] = [record("known"), record("new", at=1.0)]
    assert [SendAgain(attempt=attempt())] == play.until(DAY)


@pytest.mark.parametrize("refusals", [3, 10])
def test_refused_listings_are_given_up_after_some_patience(refusals: int) -> None:
    """
    Few answers in a long time are an outage, and decide nothing.
    """
    play, decisions = Play(), list[Decision]()
    play.core.unknown(attempt(), now=0.0)
    for number in range(refusals):
        decisions += play.core.listed(Listing(asked_at=130.0 * number), (), complete=False)
    assert (1 if refusals > 3 else 0) == len(decisions)


def test_a_listing_asked_for_before_the_end_says_nothing() -> None:
    """
    However often: the first listing of evidence is one that was asked for later.
    """
    play = Play()
    play.core.unknown(attempt(), now=50.0)
    for _ in range(3):
        assert [] == play.core.listed(Listing(asked_at=40.0), [KNOWN], complete=True)
    assert [] == play.core.listed(Listing(asked_at=120.0), [KNOWN], complete=True)


def test_an_answer_that_named_a_task_is_never_followed_by_another_submit() -> None:
    """
    No record bears it out, and all that should be listed is: the job is given up with that task.
    """
    play = Play()
    play.core.unknown(attempt(), now=0.0, named="known")
    assert [GiveUp(attempt=attempt(), candidates=("known",), reason=NAMED)] == play.until(DAY)


def test_an_unmarked_attempt_is_given_up_at_the_first_listing() -> None:
    """
    With the unmarked tasks of that time; a listing that fails is waited for.
    """
    play, mine = Play([KNOWN, record("mine?")]), attempt(marked=False)
    play.core.unknown(mine, now=0.0)
    assert [] == play.core.listed(Listing(asked_at=0.0), (), complete=False)
    assert [GiveUp(attempt=mine, candidates=("mine?",), reason=UNMARKED)] == play.look(8.0)


# --- no mark at all --------------------------------------------------------------------------------------


def test_where_no_mark_was_ever_shown_one_job_goes_first() -> None:
    """
    The others wait until its record shows its mark, and go then.
    """
    play = Play([record("stranger", at=-2 * DAY)], known=False)
    for key in "abc":
        play.core.unknown(attempt(key), now=0.0)
    assert [SendAgain(attempt=attempt("a"))] == play.until(DAY)
    assert None in [listing.created_from for listing in play.asked], "all was read before that"
    play.core.accepted("t", now=70.0)
    play.records.append(record("t", "a", 2, at=70.0))
    assert {"b", "c"} == {one.attempt.key for one in play.until(DAY) if isinstance(one, SendAgain)}


def test_where_the_first_shows_no_mark_the_others_are_given_up() -> None:
    """
    What it costs is one video.
    """
    play = Play([], known=False)
    for key in "ab":
        play.core.unknown(attempt(key), now=0.0)
    assert [SendAgain(attempt=attempt("a"))] == play.until(DAY)
    play.core.accepted("t", now=70.0)
    play.records.append(record("t", at=70.0))
    assert [GiveUp(attempt=attempt("b"), candidates=("t",), reason=HIDDEN)] == play.until(DAY)


def test_where_the_first_is_refused_another_goes_first() -> None:
    """
    Nothing was risked; as long as nothing is heard of it, the others wait, and are given up.
    """
    play = Play([], known=False)
    for key in "abc":
        play.core.unknown(attempt(key), now=0.0)
    assert [SendAgain(attempt=attempt("a"))] == play.until(DAY)
    play.core.closed("another")
    play.core.closed("a")
    assert [SendAgain(attempt=attempt("b"))] == play.until(DAY)
    assert [GiveUp(attempt=attempt("c"), candidates=(), reason=NEVER_SEEN)] == play.until(DAY)


@pytest.mark.parametrize(
    ("mine", "named"),
    [(attempt(), None), (attempt(number=0, may_send=False), None), (attempt(number=0), "t")],
    ids=["may have bought an unmarked task", "cannot be sent", "was answered with a task"],
)
def test_who_does_not_go_first(mine: Attempt, named: str | None) -> None:
    """
    A job that may have bought one of the unmarked tasks, that has no request, or whose answer named a task.
    """
    play = Play([record("unmarked")], known=False)
    play.core.unknown(mine, now=0.0, named=named)
    [decision] = play.until(DAY)
    assert (GiveUp, NEVER_SEEN) == (type(decision), getattr(decision, "reason", None))


def test_who_only_looks_first_may_go_first_beside_unmarked_tasks() -> None:
    """
    An attempt of another process would have carried a mark.
    """
    play = Play([record("unmarked")], known=False)
    play.core.unknown(attempt(number=0), now=0.0)
    assert [SendAgain(attempt=attempt(number=0))] == play.until(DAY)


def test_nobody_goes_first_while_an_accepted_task_may_yet_tell() -> None:
    """
    A task that was accepted just now is waited for.
    """
    play = Play([], known=False)
    play.core.unknown(attempt(), now=0.0)
    play.core.accepted("t", now=59.0)
    assert [] == play.until(118.0)
    play.records.append(record("t", "other", at=59.0))
    assert [SendAgain(attempt=attempt())] == play.until(DAY)


# --- how far back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted_at", "reach", "since"),
    [(100.0, HOUR, 100.0 - HOUR), (100.0, DAY, 100.0 - DAY), (99.0, HOUR, 100.0 - DAY)],
)
def test_a_listing_reaches_as_far_as_is_needed(accepted_at: float, reach: float, since: float) -> None:
    """
    An hour where a task accepted since then tells of the clocks, else a day; and so after a crash.
    """
    play = Play()
    play.core.accepted("t", now=accepted_at)
    play.core.unknown(attempt(at=100.0, reach=reach), now=101.0)
    assert since == play.core.listing(101.0, unix=EPOCH).since


def test_a_listing_continues_the_last_one() -> None:
    """
    From two graces before the newest record, as one may be late to show; where that is old, from that record on.
    """
    play = Play([KNOWN, record("newest", "other", at=10.0)])
    play.core.unknown(attempt(), now=20.0)
    for now in (20.0, 30.0):
        play.look(now)
    assert (EPOCH + 10.0 - 2 * GRACE, None) == (play.asked[-1].created_from, play.asked[-1].since)
    for now in (2 * HOUR, 2 * HOUR + 10.0):
        play.core.unknown(attempt("l", at=now), now=now)
        play.look(now)
    assert EPOCH + 10.0 - 1.0 == play.asked[-1].created_from


@pytest.mark.parametrize("change", ["the newest record is gone", "no record is dated"])
def test_what_does_not_continue_is_read_anew(change: str) -> None:
    """
    A listing without the newest record of the last is not evidence, nor does it tell where to go on.
    """
    play = Play()
    play.core.unknown(attempt(), now=0.0)
    if change == "no record is dated":
        play.records[:] = [{**KNOWN, "created_at": 0}]
        play.core.listed(play.core.listing(0.0, unix=EPOCH), play.records, complete=True)
    else:
        play.look(0.0)
        play.records.clear()
        assert [] == play.look(61.0)
    assert play.core.listing(70.0, unix=EPOCH).since is not None


def test_what_was_shown_is_forgotten_after_a_day() -> None:
    """
    The listing then begins anew.
    """
    play = Play()
    play.core.unknown(attempt(), now=0.0)
    play.look(0.0)
    play.core.unknown(attempt("l", at=2 * DAY), now=2 * DAY)
    assert play.core.listing(2 * DAY, unix=EPOCH).since is not None
    assert "0 tasks shown" in repr(play.core)


def test_accepted_tasks_are_forgotten_once_no_listing_needs_them() -> None:
    """
    A session with a million jobs keeps those of the last hour, and what an open attempt may be compared with.
    """
    core = Reconciler(grace=GRACE, recall=DAY)
    for number in range(5000):
        core.accepted(str(number), now=float(number * 10))
    assert (False, True) == (core.knows("0"), core.knows("4999"))


def test_nothing_is_asked_while_nothing_is_unknown() -> None:
    """
    Nor once it is decided.
    """
    play = Play()
    assert None is play.core.next_due_at()
    play.core.unknown(attempt(), now=0.0)
    play.core.adopted(Adopt(attempt=attempt(), task_id="t"), now=0.0)
    assert None is play.core.next_due_at()
    assert math.isfinite(play.core.listing(5.0, unix=EPOCH).asked_at)


# --- any server that is late by less than the grace ----------------------------------------------------------


@pytest.mark.parametrize("seed", range(60))
def test_what_was_bought_is_never_sent_again(seed: int) -> None:
    """
    Records show after any delay below the grace, dated by any clock: what exists is adopted, what does not is sent.
    """
    rng = Random(seed)
    skew, play = rng.choice([0.0, -1000.0, 1e6, -1e6]), Play([], known=False)
    late: list[tuple[float, dict[str, Any]]] = []
    bought, decided = set[str](), dict[str, Decision]()
    events = sorted((rng.uniform(0, 900), f"key {number}") for number in range(40))
    for now, key in events:
        decide(play, late, decided, until=now)
        accepted = rng.random() < 0.6
        if accepted:
            bought.add(key)
            late.append((now + rng.uniform(0, 0.99) * GRACE, record(f"task of {key}", key, at=now + skew)))
        if accepted and rng.random() < 0.7:
            play.core.accepted(f"task of {key}", now=now)
        else:
            play.core.unknown(attempt(key, at=now), now=now)
    decide(play, late, decided, until=5000.0)
    again = {key for key, decision in decided.items() if isinstance(decision, SendAgain)}
    assert set() == again & bought
    assert {Adopt, SendAgain} >= {type(decision) for decision in decided.values()}


def decide(
    play: Play, late: list[tuple[float, dict[str, Any]]], decided: dict[str, Decision], *, until: float
) -> None:
    """
    List whenever it is due, and show what has become visible.
    """
    while (due_at := play.core.next_due_at()) is not None and due_at <= until:
        play.records += [one for at, one in late if at <= due_at and one not in play.records]
        for decision in play.look(due_at):
            decided[decision.attempt.key] = decision
            if isinstance(decision, Adopt):
                play.core.adopted(decision, now=due_at)
                assert mark_of(decision.attempt.key) in str(decision.task_id and play.records)


@pytest.mark.parametrize("ahead", [600.0, DAY, 1e9])
def test_one_record_that_is_dated_ahead_hides_nothing(ahead: float) -> None:
    """
    A listing goes on from the present, not from a time to come: a task that shows late is found behind such a record.
    """
    play = Play([record("ahead", "another", at=ahead)], known=False)
    play.core.unknown(attempt(), now=0.0)
    assert [] == play.until(10.0)
    play.records.append(record("t", "k", at=5.0))
    [adopt] = play.until(GRACE)
    assert isinstance(adopt, Adopt)


def test_one_record_that_is_dated_ahead_hides_no_candidate() -> None:
    """
    Records that show no marks, one of them dated ahead: the other may be the attempt's own, which is not sent again.
    """
    play = Play([record("ahead", at=DAY), record("t")], known=False)
    play.core.unknown(attempt(), now=0.0)
    [given_up] = play.until(DAY)
    assert isinstance(given_up, GiveUp)
    assert {"ahead", "t"} == set(given_up.candidates)


def test_attempts_are_compared_by_what_they_are() -> None:
    """
    A decision about an attempt that was replaced meanwhile can be told from one about the present one.
    """
    assert attempt() != evolve(attempt(), number=2)

"""
Submits whose outcome is unknown: examples for each rule, then a model server that does its worst.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf, nan
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from veo_async._owned import LEAST_MARGIN, MARGIN
from veo_async._reconcile import (
    EMPTY,
    OLDER,
    PATIENCE,
    UNCLEAR,
    USELESS,
    Adopt,
    Attempt,
    Decision,
    GiveUp,
    Listing,
    Reconciler,
    SendAgain,
    Verdict,
    compare,
    fingerprint,
)
from veo_async.errors import SubmissionUnknown

SAMPLES: Final = Path(__file__).parent / "samples"
GRACE: Final = 60.0
SERVER: Final = 1_753_435_158.0  # what the server's clock shows when the client's shows 0


def body(prompt: str = "a whale", **fields: Any) -> dict[str, Any]:
    """What is sent for a prompt; a field that is None is left out."""
    sent = {"action": "text2video", "model": "veo31-fast", "prompt": prompt, "async": True, **fields}
    return {name: value for name, value in sent.items() if value is not None}


def record(
    task_id: str, request: object = None, *, at: float = 0.0, created: object = None, **fields: Any
) -> dict[str, Any]:
    """A task's record, created when the client's clock showed `at`."""
    request = body() if request is None else request
    if isinstance(request, Mapping):
        request = {name: value for name, value in request.items() if name != "async"}
    created = SERVER + at if created is None else created
    return {"id": task_id, "created_at": created, "request": request, **fields}


def attempt(key: str = "k", number: int = 1, *, at: float = 0.0, **fields: Any) -> Attempt:
    """A sending that began when the client's clock showed `at`."""
    return Attempt(**{"key": key, "number": number, "body": body(), "began_at": SERVER + at, **fields})


OLD: Final = record("old", body("another"), at=-1000.0)  # proves that the listing works


def unknown(*attempts: Attempt, ended: float = 1.0, grace: float = GRACE) -> Reconciler:
    """A reconciler to which these attempts became unknown."""
    reconciler = Reconciler(grace)
    for one in attempts or [attempt()]:
        reconciler.sending(one, now=one.began_at - SERVER)
        assert [] == reconciler.unknown(one, now=ended)
    return reconciler


def compare_clocks(reconciler: Reconciler, behind: float = 0.0) -> Reconciler:
    """Show it the record of a task, accepted long ago, whose clock is so many seconds behind."""
    reconciler.accepted(attempt("known", at=-90_000.0), "known", now=-89_999.0)
    anything = Listing(created_from=inf, asked_at=-89_998.0)
    known = record("known", at=-90_000.0 - behind)
    assert [] == reconciler.listed(anything, [known], well_formed=True, complete=False)
    return reconciler


def listed(reconciler: Reconciler, *records: object, at: float, **how: bool) -> list[Decision]:
    """What is decided after a listing, asked for at this time, that brought these records."""
    how = {"well_formed": True, "complete": True, **how}
    return reconciler.listed(reconciler.listing(at), records, **how)


def only(decisions: Sequence[Decision]) -> Decision:
    """The one decision."""
    (decision,) = decisions
    return decision


# --- comparing -------------------------------------------------------------------------------------------

SENT: Final = {
    "plain": body(),
    "small": body(resolution="720p", aspect_ratio="16:9", translation=False),
    "large": body(resolution="1080p"),
    "translated": body(translation=True),
    "frames": body(action="image2video", image_urls=("https://a.example/1.png",)),
    "ingredients": {"action": "ingredients2video", "model": "veo3", "image_urls": ["https://a.example/1"]},
    "called": body(callback_url="https://me.example/mine"),
    "extend": {"video_id": "v", "model": "veo31"},
    "reshoot": {"video_id": "v", "motion_type": "FORWARD"},
    "mask": {"action": "remove", "video_id": "v", "image_mask": "/9j/4AAQ"},
    "mask at a URL": {"action": "remove", "video_id": "v", "image_mask": "https://a.example/mask"},
}
ECHOES: Final[list[tuple[str, Mapping[str, Any], Verdict]]] = [
    ("plain", {}, Verdict.SAME),
    ("plain", {"async": None}, Verdict.SAME),
    ("plain", {"async": False}, Verdict.SAME),
    ("plain", {"tomorrow": "a new default"}, Verdict.SAME),
    ("plain", {"resolution": "720p", "aspect_ratio": "16:9", "translation": False}, Verdict.SAME),
    ("plain", {"image_urls": [], "video_id": "", "callback_url": None}, Verdict.SAME),
    ("plain", {"prompt": " a\nwhale "}, Verdict.SAME),
    ("plain", {"prompt": "a shark"}, Verdict.DIFFERENT),
    ("plain", {"prompt": ["a whale"]}, Verdict.DIFFERENT),
    ("plain", {"prompt": None}, Verdict.UNSURE),
    ("plain", {"model": None}, Verdict.UNSURE),
    ("plain", {"model": "veo31"}, Verdict.DIFFERENT),
    ("plain", {"action": "image2video"}, Verdict.DIFFERENT),
    ("plain", {"resolution": "1080p"}, Verdict.DIFFERENT),
    ("plain", {"aspect_ratio": "9:16"}, Verdict.DIFFERENT),
    ("plain", {"translation": True}, Verdict.DIFFERENT),
    ("plain", {"image_urls": ["https://a.example/1.png"]}, Verdict.DIFFERENT),
    ("plain", {"callback_url": "https://me.example"}, Verdict.DIFFERENT),
    ("plain", {"prompt": "a shark", "model": None}, Verdict.DIFFERENT),
    ("small", {"resolution": None, "aspect_ratio": None, "translation": None}, Verdict.SAME),
    ("small", {"resolution": "1080p"}, Verdict.DIFFERENT),
    ("large", {"resolution": None}, Verdict.UNSURE),
    ("translated", {}, Verdict.SAME),
    ("translated", {"prompt": "une baleine"}, Verdict.UNSURE),
    ("translated", {"translation": None}, Verdict.UNSURE),
    ("translated", {"translation": False}, Verdict.DIFFERENT),
    ("translated", {"prompt": "une baleine", "model": "veo3"}, Verdict.DIFFERENT),
    ("frames", {"image_urls": ["https://a.example/1.png"]}, Verdict.SAME),
    ("frames", {"image_urls": ["https://a.example/2.png"]}, Verdict.DIFFERENT),
    ("frames", {"image_urls": None}, Verdict.UNSURE),
    ("ingredients", {"model": "veo31-fast-ingredients"}, Verdict.SAME),
    ("ingredients", {"model": None}, Verdict.SAME),
    ("ingredients", {"prompt": "a whale"}, Verdict.DIFFERENT),
    ("called", {}, Verdict.SAME),
    ("called", {"callback_url": "https://me.example/other"}, Verdict.DIFFERENT),
    ("called", {"callback_url": None}, Verdict.UNSURE),
    ("extend", {"aspect_ratio": "9:16", "resolution": "1080p"}, Verdict.UNSURE),
    ("extend", {"action": "get1080p"}, Verdict.UNSURE),
    ("extend", {"motion_type": "UP"}, Verdict.DIFFERENT),
    ("reshoot", {"model": "veo31"}, Verdict.SAME),
    ("reshoot", {"motion_type": "BACKWARD"}, Verdict.DIFFERENT),
    ("mask", {"image_mask": "https://cdn.example/mask.jpg"}, Verdict.UNSURE),
    ("mask at a URL", {"image_mask": "https://a.example/another"}, Verdict.DIFFERENT),
]


@pytest.mark.parametrize(("sent", "changes", "expected"), ECHOES)
def test_an_echo_is_compared_field_by_field(sent: str, changes: Mapping[str, Any], expected: Verdict) -> None:
    """An echo is the same unless a field says otherwise, and unsure where a field says nothing."""
    echo = json.loads(json.dumps(SENT[sent])) | changes
    assert expected is compare({"id": "t", "request": echo}, SENT[sent])


@pytest.mark.parametrize("echo", [None, "text2video", [], 7, {}], ids=repr)
def test_a_record_without_an_echo_is_unsure(echo: object) -> None:
    """A record that does not say what was asked for may be anybody's."""
    assert Verdict.UNSURE is compare({"id": "t", "request": echo}, body())


def test_the_documented_record_matches_its_own_request() -> None:
    """The vendor's example of a record echoes the body that made it."""
    documented = json.loads((SAMPLES / "task_succeeded.json").read_text())
    assert Verdict.SAME is compare(documented, {**documented["request"], "async": True})


@pytest.mark.parametrize(
    ("echoed", "expected"),
    [
        ("https://me.example/veo/mine-1", Verdict.SAME),
        ("https://me.example/veo/other-2", Verdict.DIFFERENT),
        (None, Verdict.UNSURE),
        (7, Verdict.DIFFERENT),
    ],
)
def test_a_nonce_settles_the_question(echoed: object, expected: Verdict) -> None:
    """An echoed callback URL tells for certain, whatever else the server changed."""
    sent = body(callback_url="https://me.example/veo/mine-1")
    changed = record("t", {**sent, "callback_url": echoed, "prompt": "a whale" if expected else "rewritten"})
    assert expected is compare(changed, sent, nonce="mine-1")


def test_bodies_that_cannot_be_told_apart_share_a_fingerprint() -> None:
    """Defaults spelled out, and `async`, make no difference; anything else does."""
    assert fingerprint(SENT["plain"]) == fingerprint({**SENT["small"], "async": False})
    assert fingerprint(SENT["frames"]) == fingerprint(
        {**SENT["frames"], "image_urls": ["https://a.example/1.png"]}
    )
    different = [SENT[name] for name in SENT if name != "small"]
    assert len(different) == len({fingerprint(sent) for sent in different})


# --- adopting --------------------------------------------------------------------------------------------


def test_a_same_record_that_nobody_owns_is_adopted() -> None:
    """The task of a lost answer is found in the listing, at once."""
    mine = record("t")
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(unknown(), OLD, mine, at=1.0)


def test_a_claim_is_decided_once() -> None:
    """While the journal takes the claim down, nothing more is decided; then the matter is closed."""
    reconciler = unknown()
    adopt = only(listed(reconciler, record("t"), at=1.0))
    assert isinstance(adopt, Adopt)
    assert None is reconciler.next_due_at()
    assert [] == listed(reconciler, record("t"), record("u"), at=200.0)
    assert "<Reconciler: 0 unknown, 1 open, 1 claimed>" == repr(reconciler)
    reconciler.adopted(adopt, now=200.0)
    assert "<Reconciler: 0 unknown, 0 open, 0 claimed>" == repr(reconciler)


def test_a_rejected_claim_opens_the_question_again() -> None:
    """Where the journal knows the task as another job's, the next record is taken, and never that one."""
    reconciler = unknown()
    adopt = only(listed(reconciler, record("t"), at=1.0))
    assert isinstance(adopt, Adopt)
    reconciler.rejected(adopt, now=2.0)
    assert "u" == only(listed(reconciler, record("t"), record("u"), at=20.0)).task_id  # type: ignore[union-attr]


@pytest.mark.parametrize("how", ["accepted", "owned"])
def test_a_task_that_a_job_has_is_left_alone(how: str) -> None:
    """A record that another job owns explains itself, and is no reason to wait."""
    reconciler = unknown()
    if how == "owned":
        reconciler.owned("t", now=1.0)
    else:
        reconciler.accepted(attempt("other", body=body()), "t", now=1.0)
    assert [] == listed(reconciler, record("t"), at=2.0)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, record("t"), at=61.0)


def test_a_claim_gives_way_to_the_answer_that_names_the_task() -> None:
    """If another submit's own answer names the claimed task, the claimant looks on."""
    reconciler = unknown()
    late = attempt("late", at=30.0)  # began too late for the record, says a clock that was wrong
    reconciler.sending(late, now=30.0)
    assert "t" == only(listed(reconciler, record("t"), at=31.0)).task_id  # type: ignore[union-attr]
    reconciler.accepted(late, "t", now=32.0)
    assert [] == listed(reconciler, record("t"), at=40.0)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, record("t"), at=95.0)


def test_older_records_are_strangers() -> None:
    """A listing that ignores its filters brings identical tasks of last week: they are not adopted."""
    reconciler = unknown()
    last_week = record("t", at=-600_000.0)
    assert [] == listed(reconciler, last_week, at=1.0)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, last_week, at=61.0)


def test_the_window_allows_for_what_is_not_known_of_the_clock() -> None:
    """The listing reaches back by the skew and the uncertainty, and so does the filter."""
    far = attempt(uncertainty=3600.0)
    reconciler = unknown(far)
    assert SERVER - 3610.0 - MARGIN == reconciler.listing(2.0).created_from
    assert [Adopt(attempt=far, task_id="t")] == listed(reconciler, record("t", at=-3600.0), at=10.0)


def test_identical_attempts_share_what_is_there() -> None:
    """Of three identical attempts and two tasks, the two that ended first adopt, oldest first; one waits."""
    reconciler = Reconciler(GRACE)
    for key, ended in [("late", 3.0), ("first", 1.0), ("second", 2.0)]:
        reconciler.sending(attempt(key), now=0.0)
        reconciler.unknown(attempt(key), now=ended)
    tasks = [record("young", at=0.9), record("old", at=0.5)]
    decisions = listed(reconciler, *tasks, at=4.0)
    assert [("first", "old"), ("second", "young")] == [
        (decision.attempt.key, decision.task_id) for decision in decisions if isinstance(decision, Adopt)
    ]
    for decision in decisions:
        assert isinstance(decision, Adopt)
        reconciler.adopted(decision, now=5.0)
    assert [] == listed(reconciler, *tasks, at=30.0)
    assert [SendAgain(attempt=attempt("late"))] == listed(reconciler, *tasks, at=63.0)


def test_a_task_may_be_that_of_a_submit_in_flight() -> None:
    """While an identical submit is unanswered, its task is not taken from it, nor is anything sent."""
    reconciler = unknown()
    other = attempt("other", at=5.0)
    reconciler.sending(other, now=5.0)
    for at in (6.0, 70.0, 500.0):
        assert [] == listed(reconciler, record("t"), at=at)
        assert at + GRACE / 8 == reconciler.next_due_at()
    reconciler.refused(other)
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(reconciler, record("t"), at=510.0)


def test_a_submit_that_began_after_a_task_has_no_claim_to_it() -> None:
    """A stream of identical submits does not keep an older task from its owner."""
    reconciler = unknown()
    reconciler.sending(attempt("later", at=30.0), now=30.0)
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(reconciler, record("t"), at=31.0)


def test_who_lost_a_task_to_an_identical_attempt_takes_the_others() -> None:
    """
    The task of one attempt goes to another; that one's own turns up later, and closes the circle.

    `young` began too late for `theirs`, but its own task went to `old`, so `theirs` is what remains for it.
    """
    reconciler = Reconciler(GRACE)
    old, young = attempt("old", at=0.0), attempt("young", at=20.0)
    for one, ended in [(old, 1.0), (young, 21.0)]:
        reconciler.sending(one, now=one.began_at - SERVER)
        reconciler.unknown(one, now=ended)
    yours, theirs = record("yours", at=20.5), record("theirs", at=0.5)
    assert [Adopt(attempt=old, task_id="yours")] == listed(reconciler, yours, at=22.0)
    assert [Adopt(attempt=young, task_id="theirs")] == listed(reconciler, yours, theirs, at=30.0)


def test_a_record_older_than_what_was_taken_stays_a_strangers() -> None:
    """Of two records before its time, one goes to an older attempt; that does not make the other its own."""
    reconciler = compare_clocks(Reconciler(GRACE))
    old, young = attempt("old", at=0.0), attempt("young", at=20.0)
    for one, ended in [(old, 1.0), (young, 21.0)]:
        reconciler.sending(one, now=one.began_at - SERVER)
        reconciler.unknown(one, now=ended)
    records = [record("ours", at=0.2), record("a stranger's", at=0.5)]
    assert [Adopt(attempt=old, task_id="ours")] == listed(reconciler, *records, at=22.0)
    for at in (81.0, 200.0):
        assert [] == listed(reconciler, *records, at=at)
    given_up = GiveUp(attempt=young, candidates=("a stranger's",), reason=OLDER)
    assert [given_up] == listed(reconciler, *records, at=21.0 + PATIENCE * GRACE)


def test_no_attempt_reaches_back_for_ever() -> None:
    """However long one attempt takes the task of the next, the listing goes back a few graces at most."""
    reconciler = compare_clocks(Reconciler(GRACE))
    for key, at in [("old", 0.0), ("young", 400.0)]:
        reconciler.unknown(attempt(key, at=at), now=at + 1.0)
    adopt = only(listed(reconciler, record("t", at=400.5), at=402.0))
    assert Adopt(attempt=attempt("old", at=0.0), task_id="t") == adopt
    assert isinstance(adopt, Adopt)
    reconciler.adopted(adopt, now=403.0)
    assert SERVER + 90.0 - LEAST_MARGIN == reconciler.listing(410.0).created_from


# --- doubt -----------------------------------------------------------------------------------------------


def test_an_unsure_record_is_neither_adopted_nor_overlooked() -> None:
    """What may be the task, and may not, is left alone until the grace is over, then named in the error."""
    reconciler = unknown()
    unsure = {"id": "t", "created_at": SERVER + 0.5}
    assert [] == listed(reconciler, unsure, at=1.0)
    decision = only(listed(reconciler, unsure, at=61.0))
    assert GiveUp(attempt=attempt(), candidates=("t",), reason=UNCLEAR) == decision
    error = decision.error()
    assert isinstance(error, SubmissionUnknown)
    assert (SERVER, ("t",)) == (error.sent_at, error.candidates)


def test_an_unsure_record_that_clears_up_is_adopted() -> None:
    """An echo that comes later settles it."""
    reconciler = unknown()
    assert [] == listed(reconciler, {"id": "t", "created_at": SERVER}, at=1.0)
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(reconciler, record("t"), at=9.0)


def test_an_unsure_record_may_be_explained_by_another_attempt() -> None:
    """Two translated prompts: each record is unsure for one attempt, but the same for the other."""
    whale, shark = (attempt(prompt, body=body(prompt, translation=True)) for prompt in ("a whale", "a shark"))
    records = [record("w", whale.body), record("s", shark.body)]
    decisions = listed(unknown(whale, shark), *records, at=2.0)
    assert [Adopt(attempt=whale, task_id="w"), Adopt(attempt=shark, task_id="s")] == decisions


def test_an_unsure_record_may_be_explained_by_a_submit_in_flight() -> None:
    """A record that an unanswered submit may have bought is no reason to give up before the answer."""
    reconciler = unknown(attempt(body=body(translation=True)))
    shark = attempt("s", body=body("a shark", translation=True))
    translated = record("t", body("un requin", translation=True))
    reconciler.sending(shark, now=1.0)
    assert [] == listed(reconciler, translated, at=100.0)
    reconciler.accepted(shark, "t", now=101.0)
    assert [] == listed(reconciler, translated, at=110.0)
    assert isinstance(only(listed(reconciler, translated, at=120.0)), SendAgain)


@pytest.mark.parametrize("created", ["2025-07-25 17:19:20", True, nan, inf, 10**400, 1_753_435_158_000, []])
def test_a_record_without_a_usable_time_is_unsure(created: object) -> None:
    """A record that may be older than the attempt is not adopted, however alike."""
    reconciler = unknown()
    timeless = record("t", created=created)
    assert [] == listed(reconciler, timeless, at=1.0)
    assert ("t",) == only(listed(reconciler, timeless, at=61.0)).candidates  # type: ignore[union-attr]


# --- absence ---------------------------------------------------------------------------------------------


def test_a_second_sending_needs_two_listings_and_the_grace() -> None:
    """Absence counts when a listing asked for at least `grace` after the end confirms an earlier one."""
    reconciler = unknown()
    assert [] == listed(reconciler, OLD, at=1.0)
    assert [] == listed(reconciler, OLD, at=60.9)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, OLD, at=61.0)
    assert None is reconciler.next_due_at()


def test_one_late_listing_is_not_enough() -> None:
    """The first listing after a long silence proves nothing by itself, even if it is told twice."""
    reconciler = unknown()
    listing = reconciler.listing(1000.0)
    for _ in range(2):
        assert [] == reconciler.listed(listing, [OLD], well_formed=True, complete=True)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, OLD, at=1008.0)


def test_a_listing_asked_before_the_end_says_nothing() -> None:
    """Pages asked for while the submit was in flight are no evidence when they arrive after it."""
    reconciler = compare_clocks(Reconciler(GRACE))
    early, late = attempt("early"), attempt("late", body=body("another"))
    for one in (early, late):
        reconciler.sending(one, now=0.0)
    reconciler.unknown(early, now=1.0)
    listing = reconciler.listing(2.0)
    reconciler.unknown(late, now=3.0)
    reconciler.listed(listing, [OLD], well_formed=True, complete=True)
    assert [SendAgain(attempt=early)] == listed(reconciler, OLD, at=70.0)
    assert [SendAgain(attempt=late)] == listed(reconciler, OLD, at=80.0)


def test_a_listing_that_reaches_back_too_little_says_nothing() -> None:
    """Any listing may be handed in; absence is drawn only from those that cover the attempt."""
    reconciler = unknown()
    for at in (1.0, 61.0, 122.0):
        short = Listing(created_from=SERVER + 1, asked_at=at)
        assert [] == reconciler.listed(short, [OLD], well_formed=True, complete=True)
    assert 1.0 == reconciler.next_due_at()


USELESS_LISTINGS: Final[list[tuple[list[object], dict[str, bool]]]] = [
    ([], {"well_formed": False}),
    ([OLD], {"complete": False}),
    ([OLD, None], {}),
    ([OLD, "x", 3, []], {}),
    ([OLD, {}], {}),
    ([OLD, {"id": 7}], {}),
    ([OLD, {"id": ""}], {}),
    ([OLD, OLD], {}),
]


@pytest.mark.parametrize(("records", "how"), USELESS_LISTINGS)
def test_a_listing_that_is_off_is_no_evidence(records: list[object], how: dict[str, bool]) -> None:
    """Listings that fail, break off, hold junk or show a record twice prove nothing, and end in giving up."""
    reconciler = unknown()
    assert [] == listed(reconciler, OLD, at=1.0)
    for at in (61.0, 100.0, 300.9):
        assert [] == listed(reconciler, *records, at=at, **how)
    decision = only(listed(reconciler, *records, at=301.0, **how))
    assert GiveUp(attempt=attempt(), candidates=(), reason=USELESS) == decision


@pytest.mark.parametrize(("records", "how"), USELESS_LISTINGS)
def test_a_listing_that_is_off_may_still_show_the_task(records: list[object], how: dict[str, bool]) -> None:
    """A record is a record, whatever the rest of the listing looks like."""
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(unknown(), *records, record("t"), at=1.0, **how)


def test_an_outage_is_no_answer() -> None:
    """However long nobody could be asked, the first answers are waited for before giving up."""
    reconciler = unknown()
    assert [[], []] == [listed(reconciler, at=at, well_formed=False) for at in (10_000.0, 10_008.0)]
    assert isinstance(only(listed(reconciler, at=10_016.0, well_formed=False)), GiveUp)


def test_a_listing_that_lacks_an_accepted_task_is_broken() -> None:
    """A task that a reply named at least `grace` ago must show, or nothing can be concluded."""
    reconciler = unknown()
    other = attempt("other", body=body("another"), at=0.0)
    reconciler.accepted(other, "known", now=1.5)
    assert [] == listed(reconciler, OLD, at=2.0)
    assert [] == listed(reconciler, OLD, at=62.0)
    assert [SendAgain(attempt=attempt())] == listed(reconciler, OLD, record("known", other.body), at=70.0)


def test_an_accepted_task_need_not_show_at_once_nor_from_before() -> None:
    """A task accepted just now, or sent before the window, is not missed."""
    reconciler = compare_clocks(unknown(attempt(at=100.0), ended=101.0))
    reconciler.accepted(attempt("before", body=body("before"), at=-600.0), "before", now=-599.0)
    reconciler.accepted(attempt("new", body=body("new"), at=150.0), "new", now=150.5)
    strangers = record("stranger", body("stranger"), at=150.0)
    assert [] == listed(reconciler, strangers, at=151.0)
    assert isinstance(only(listed(reconciler, strangers, at=161.0)), SendAgain)


# --- the clock of the records ----------------------------------------------------------------------------


def test_a_clock_that_is_behind_forbids_sending_again() -> None:
    """If records may be dated too early, one that looks older than the submit may be its own after all."""
    reconciler = unknown()
    early = record("t", at=-60.0)
    for at in (2.0, 61.0, 62.0, 200.0):
        assert [] == listed(reconciler, early, at=at)
    decision = only(listed(reconciler, early, at=1.0 + PATIENCE * GRACE))
    assert GiveUp(attempt=attempt(), candidates=("t",), reason=OLDER) == decision


def test_a_clock_that_is_known_to_be_behind_is_allowed_for() -> None:
    """The record of a task that a reply named tells by how much; then the right one is adopted."""
    reconciler = compare_clocks(unknown(), behind=1800.0)
    assert SERVER - 1810.0 - 2 * 1800.0 == reconciler.listing(2.0).created_from
    assert [Adopt(attempt=attempt(), task_id="t")] == listed(reconciler, record("t", at=-1799.0), at=10.0)


def test_any_record_of_an_accepted_task_compares_the_clocks() -> None:
    """One that a poll has brought will do; nobody else's does."""
    reconciler = unknown()
    reconciler.accepted(attempt("b", body=body("b"), at=0.5), "b", now=1.0)
    reconciler.seen(record("a stranger's", body("b"), at=0.5))
    assert SERVER - 10.0 - MARGIN == reconciler.listing(2.0).created_from
    for at in (0.6, -100.0):  # the second changes nothing: it is in listings that clocks are watched
        reconciler.seen(record("b", body("b"), at=at))
        assert SERVER - 10.0 - LEAST_MARGIN == reconciler.listing(3.0).created_from


def test_a_task_that_another_purchase_has_is_no_reason_to_wait() -> None:
    """What stands in the way of a decision can be asked of the journal; once it is owned, it is out of the way."""
    reconciler = unknown()
    older = record("t", at=-60.0)
    assert [] == listed(reconciler, older, at=2.0)
    assert {"t"} == reconciler.in_question()
    reconciler.owned("t", now=3.0)
    assert [] == listed(reconciler, older, at=20.0)
    assert set() == reconciler.in_question()
    assert [SendAgain(attempt=attempt())] == listed(reconciler, older, at=61.0)


def test_a_clock_that_falls_further_behind_is_followed() -> None:
    """What was learned of the clocks is corrected by later records, and attempts made since are seen by it."""
    reconciler = compare_clocks(Reconciler(GRACE), behind=100.0)
    compare_clocks(reconciler, behind=300.0)
    compare_clocks(reconciler, behind=200.0)
    compare_clocks(reconciler, behind=MARGIN + 1.0)  # no clock is so far off: that is no time
    reconciler.sending(attempt(), now=0.0)
    reconciler.unknown(attempt(), now=1.0)
    assert SERVER - 310.0 - LEAST_MARGIN == reconciler.listing(2.0).created_from


def test_a_task_that_existed_before_the_submit_is_not_adopted() -> None:
    """Whatever clocks say, one that ran for longer than ago the submit was made is another's; it leaves a doubt."""
    reconciler = unknown()
    ran = record("t", at=5.0, finished_at=SERVER + 200.0)
    assert [] == listed(reconciler, ran, at=2.0)
    decision = only(listed(reconciler, ran, at=61.0))
    assert GiveUp(attempt=attempt(), candidates=("t",), reason=UNCLEAR) == decision


def test_a_task_that_ended_while_the_listing_was_on_its_way_is_adopted() -> None:
    """How long a task may have existed is reckoned until the listing came in, not from when it was asked for."""
    reconciler = unknown()
    listing = reconciler.listing(2.0)
    ran = record("t", at=0.5, finished_at=SERVER + 50.0)
    decisions = reconciler.listed(listing, [ran], well_formed=True, complete=True, received_at=60.0)
    assert [Adopt(attempt=attempt(), task_id="t")] == decisions


def test_a_time_that_is_known_better_costs_no_callback() -> None:
    """What a callback told while the submit was in flight is kept when the attempt is dated anew."""
    reconciler = Reconciler(GRACE)
    reconciler.sending(attempt(nonce="n"), now=0.0)
    assert [] == reconciler.called_back("n", "t")
    earlier = attempt(nonce="n", at=-5.0)
    reconciler.sending(earlier, now=0.0)
    assert [Adopt(attempt=earlier, task_id="t")] == reconciler.unknown(earlier, now=1.0)


def test_a_time_of_zero_is_none() -> None:
    """A record dated by default is not fifty years old: it may be anybody's."""
    reconciler = unknown()
    assert [] == listed(reconciler, record("t", created=0), at=1.0)
    decision = only(listed(reconciler, record("t", created=0), at=61.0))
    assert GiveUp(attempt=attempt(), candidates=("t",), reason=UNCLEAR) == decision


def test_what_a_clock_may_be_off_forbids_sending_again() -> None:
    """Where a clock may have been set, a task in the span in doubt is not adopted, and nothing is sent."""
    doubtful = attempt(doubt=7200.0)
    reconciler = compare_clocks(unknown(doubtful))
    assert SERVER - 7210.0 - LEAST_MARGIN == reconciler.listing(2.0).created_from
    assert [] == listed(reconciler, record("t", at=-7000.0), at=61.0)
    assert [] == listed(reconciler, record("t", at=-7000.0), at=200.0)
    decision = only(listed(reconciler, record("t", at=-7000.0), at=1.0 + PATIENCE * GRACE))
    assert GiveUp(attempt=doubtful, candidates=("t",), reason=OLDER) == decision


def test_whose_a_task_is_is_known_by_what_was_asked_for() -> None:
    """An answer that names a task which a job has can be told to be for the same, for something else, or unknown."""
    reconciler = unknown()
    reconciler.accepted(attempt("a", asked=1), "t", now=1.0)
    reconciler.owned("u", now=1.0)
    reconciler.owned("v", now=1.0, attempt=attempt("c", asked=3))
    asked = [attempt("b", asked=number) for number in (1, 2, 3)]
    assert [True, False, False] == [reconciler.has_bought("t", one) for one in asked]
    assert [None, None, None] == [reconciler.has_bought("u", one) for one in asked]
    assert [False, False, True] == [reconciler.has_bought("v", one) for one in asked]
    assert None is reconciler.has_bought("nobody's", asked[0])


def test_a_time_without_a_clock_says_nothing() -> None:
    """The record of an accepted task that has no time does not count as a comparison of clocks."""
    reconciler = unknown()
    reconciler.accepted(attempt("b", body=body("b"), at=0.5), "b", now=1.0)
    timeless = {"id": "b", "request": body("b")}
    listed(reconciler, timeless, at=2.0)
    assert SERVER - 10.0 - MARGIN == reconciler.listing(3.0).created_from


# --- an account without a record -------------------------------------------------------------------------


def test_one_job_goes_first_on_an_empty_account() -> None:
    """Where no record was ever seen, one job is sent again; the others follow when its task shows."""
    first, second = attempt("first"), attempt("second", body=body("another"))
    reconciler = unknown(first, second)
    assert [] == listed(reconciler, at=1.0)
    assert not reconciler.proven
    assert [SendAgain(attempt=first)] == listed(reconciler, at=61.0)
    again = attempt("first", 2, at=62.0)
    reconciler.sending(again, now=62.0)
    assert [] == listed(reconciler, at=69.0)
    reconciler.accepted(again, "t", now=70.0)
    assert [] == listed(reconciler, at=77.0)
    assert [SendAgain(attempt=second)] == listed(reconciler, record("t", at=62.5), at=85.0)
    assert reconciler.proven


def test_the_others_give_up_if_its_task_never_shows() -> None:
    """A listing that stays empty costs one video at most: the rest settle with `SubmissionUnknown`."""
    first, second = attempt("first"), attempt("second", body=body("another"))
    reconciler = unknown(first, second)
    listed(reconciler, at=1.0)
    assert [SendAgain(attempt=first)] == listed(reconciler, at=61.0)
    reconciler.accepted(attempt("first", 2, at=62.0), "t", now=63.0)
    assert [[], []] == [listed(reconciler, at=at) for at in (120.0, 200.0)]
    assert [GiveUp(attempt=second, candidates=(), reason=USELESS)] == listed(reconciler, at=301.0)


def test_the_first_job_is_not_sent_a_third_time() -> None:
    """If nobody knows what became of its second sending either, an empty listing proves nothing to it."""
    reconciler = unknown()
    listed(reconciler, at=1.0)
    listed(reconciler, at=61.0)
    again = attempt("k", 2, at=62.0)
    reconciler.sending(again, now=62.0)
    reconciler.unknown(again, now=63.0)
    assert [[], [], []] == [listed(reconciler, at=at) for at in (63.0, 123.0, 200.0)]
    assert [GiveUp(attempt=again, candidates=(), reason=EMPTY)] == listed(reconciler, at=363.0)


def test_another_goes_first_if_the_first_was_refused() -> None:
    """A refusal bought nothing, so the question is still open and as cheap to ask; being not sent is neither."""
    first, second = attempt("first"), attempt("second", body=body("another"))
    reconciler = unknown(first, second)
    listed(reconciler, at=1.0)
    assert [SendAgain(attempt=first)] == listed(reconciler, at=61.0)
    reconciler.not_sent(attempt("first", 2))
    assert [] == listed(reconciler, at=69.0)
    reconciler.refused(attempt("first", 3))
    assert [SendAgain(attempt=second)] == listed(reconciler, at=77.0)


def test_nobody_goes_first_while_an_answer_may_bring_proof() -> None:
    """A submit in flight is waited for, though not for ever."""
    reconciler = unknown()
    reconciler.sending(attempt("other", body=body("another")), now=0.0)
    assert [[], [], []] == [listed(reconciler, at=at) for at in (1.0, 61.0, 120.9)]
    assert [SendAgain(attempt=attempt())] == listed(reconciler, at=121.0)


def test_an_accepted_task_is_proof_when_it_shows() -> None:
    """Until the listing is proven it reaches back to every task that was accepted; nobody goes first."""
    reconciler = Reconciler(GRACE)
    reconciler.accepted(attempt("before", at=-80_000.0), "t", now=-79_999.0)
    reconciler.unknown(attempt(), now=1.0)
    assert SERVER - 80_010.0 == reconciler.listing(1.0).created_from
    assert [[], []] == [listed(reconciler, at=at) for at in (9.0, 61.0)]
    before = record("t", body("before"), at=-79_999.5)
    assert [[], [SendAgain(attempt=attempt())]] == [listed(reconciler, before, at=at) for at in (70.0, 78.0)]
    reconciler.unknown(attempt(number=2), now=79.0)
    assert SERVER - 10.0 - LEAST_MARGIN == reconciler.listing(80.0).created_from


def test_any_page_will_do_as_proof() -> None:
    """A page without a time filter proves the listing, and says nothing of absence."""
    reconciler = unknown()
    page = Listing(created_from=inf, asked_at=61.0)
    assert [] == reconciler.listed(page, [OLD], well_formed=True, complete=False)
    assert reconciler.proven
    assert 1.0 == reconciler.next_due_at()


# --- trace ids, callbacks --------------------------------------------------------------------------------


def test_a_trace_id_finds_the_task_without_doubt() -> None:
    """A record found by trace id is adopted, even if its echo says nothing and another is in flight."""
    reconciler = Reconciler(GRACE)
    reconciler.unknown(attempt(), now=1.0, trace_id="trace")
    reconciler.sending(attempt("other"), now=1.0)
    assert ["trace"] == reconciler.trace_ids()
    assert [] == reconciler.looked_up("trace", None)
    assert [] == reconciler.looked_up("trace", {"created_at": SERVER})
    assert [] == reconciler.looked_up("trace", record("t", trace_id="another"))
    assert [] == reconciler.looked_up("trace", record("t", body("a shark")))
    assert [] == reconciler.looked_up("trace", record("t", trace_id=["trace"]))
    assert [Adopt(attempt=attempt(), task_id="t")] == reconciler.looked_up("trace", {"id": "t"})
    assert [] == reconciler.trace_ids()


def test_a_listed_record_with_the_trace_id_is_adopted() -> None:
    """The listing may show what the look-up did not find; the same task is not adopted twice."""
    reconciler = Reconciler(GRACE)
    reconciler.unknown(attempt(), now=1.0, trace_id="trace")
    traced = {"id": "t", "trace_id": "trace", "created_at": SERVER}
    reconciler.owned("u", now=1.0)
    decisions = listed(reconciler, {**traced, "id": "u"}, OLD, traced, {**traced, "id": "v"}, at=2.0)
    assert [Adopt(attempt=attempt(), task_id="t")] == decisions


def test_nonces_tell_identical_attempts_apart() -> None:
    """Each attempt adopts the task that carries its nonce, though others are in flight; strangers' stay."""
    sent = {key: body(callback_url=f"https://me.example/veo/{key}") for key in ("one", "two", "three")}
    one, two, three = (attempt(key, body=sent[key], nonce=key) for key in sent)
    reconciler = unknown(one, two)
    reconciler.sending(three, now=0.0)
    records = [record("2", sent["two"]), record("3", sent["three"]), record("s", body(callback_url="x"))]
    assert [Adopt(attempt=two, task_id="2")] == listed(reconciler, *records, at=2.0)
    assert [SendAgain(attempt=one)] == listed(reconciler, *records, at=61.0)


def test_a_nonce_needs_no_date() -> None:
    """A record that carries the nonce is the attempt's, even if it does not say when it was made."""
    mine = attempt(body=body(callback_url="https://me.example/n"), nonce="n")
    assert [Adopt(attempt=mine, task_id="t")] == listed(
        unknown(mine), record("t", mine.body, created="?"), at=2.0
    )


def test_a_callback_with_the_nonce_settles_it() -> None:
    """A callback names the task of an unknown attempt, once; a nonce that nobody sent is ignored."""
    mine = attempt(nonce="n")
    reconciler = unknown(mine)
    assert [] == reconciler.called_back("forged", "t")
    adopt = only(reconciler.called_back("n", "t"))
    assert Adopt(attempt=mine, task_id="t") == adopt
    assert isinstance(adopt, Adopt)
    assert None is adopt.record
    assert [] == reconciler.called_back("n", "t")


def test_a_callback_may_beat_the_answer() -> None:
    """A callback that comes while the submit is in flight is remembered, should the answer be lost."""
    reconciler = Reconciler(GRACE)
    mine = attempt(nonce="n")
    reconciler.sending(mine, now=0.0)
    assert [] == reconciler.called_back("n", "t")
    assert [Adopt(attempt=mine, task_id="t")] == reconciler.unknown(mine, now=1.0)


@pytest.mark.parametrize(("called", "expected"), [(["t"], True), (["another"], False), ([], False)])
def test_an_answer_tells_whether_a_callback_came_before_it(called: list[str], expected: bool) -> None:
    """Only a callback that named the answer's own task is worth a look right away."""
    reconciler, mine = Reconciler(GRACE), attempt(nonce="n")
    reconciler.sending(mine, now=0.0)
    for task_id in called:
        reconciler.called_back("n", task_id)
    assert expected is reconciler.accepted(mine, "t", now=1.0)
    assert [] == reconciler.called_back("n", "t"), "its nonce is forgotten"


NONCED: Final = body(callback_url="https://me.example/mine-1")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (record("t", NONCED), True),
        (record("t", body()), True),  # the echo leaves the URL out: the callback had it
        (record("t", body(callback_url="https://me.example/another")), False),
        (record("t", body("another")), False),
        (record("u", NONCED), False),
        ({}, False),
        (None, False),
    ],
)
def test_what_a_callback_names_is_adopted_once_the_record_agrees(found: object, expected: bool) -> None:
    """A callback can be forged: without the API's word the attempt is undecided again, and takes its own task."""
    mine = attempt(body=NONCED, nonce="mine-1")
    reconciler = unknown(mine)
    adopt = only(reconciler.called_back("mine-1", "t"))
    assert isinstance(adopt, Adopt)
    assert expected is reconciler.confirmed(adopt, found)
    if not expected:
        assert not reconciler.confirmed(adopt, record("t", NONCED)), "that claim is gone"
        assert [Adopt(attempt=mine, task_id="own")] == listed(reconciler, record("own", NONCED), at=2.0)


def test_a_callback_cannot_take_a_task_that_another_attempt_claims() -> None:
    """A claim is one attempt's alone, also while the API is being asked about it."""
    one, two = (attempt(key, body=NONCED, nonce=key) for key in "ab")
    reconciler = unknown(one, two)
    adopt = only(reconciler.called_back("a", "t"))
    assert isinstance(adopt, Adopt)
    assert [] == reconciler.called_back("b", "t")
    reconciler.owned("t", now=2.0)
    assert not reconciler.confirmed(adopt, record("t", NONCED)), "a job has it meanwhile"


# --- when to ask, what to keep ---------------------------------------------------------------------------


def test_listings_come_at_once_then_ever_more_rarely() -> None:
    """A lost answer is looked for at once, then at growing distances, and right when the grace is over."""
    reconciler, dues = unknown(), []
    while (due_at := reconciler.next_due_at()) is not None:
        dues.append(due_at)
        listed(reconciler, OLD, at=due_at)
    assert [1.0, 8.5, 16.0, 31.0, 61.0] == dues


def test_a_useless_listing_is_soon_repeated() -> None:
    """Where a listing proved nothing, another follows before long, until patience ends."""
    reconciler, dues = unknown(), []
    while (due_at := reconciler.next_due_at()) is not None:
        dues.append(due_at)
        listed(reconciler, OLD, at=due_at, complete=False)
    assert [1.0 + 7.5 * step for step in range(41)] == dues


def test_listings_go_on_for_what_nobody_may_settle_yet() -> None:
    """An attempt that ended long ago, and of which one listing came late, is asked about every half grace."""
    reconciler = unknown()
    listed(reconciler, OLD, at=500.0)
    assert 530.0 == reconciler.next_due_at()


def test_one_listing_serves_all() -> None:
    """However many attempts are unknown, listings keep their distance; where no answer comes, too."""
    reconciler = unknown(*(attempt(f"{number}", body=body(f"{number}")) for number in range(100)))
    reconciler.listing(1.0)
    assert 8.5 == reconciler.next_due_at()


def test_a_grace_of_zero_does_not_ask_without_pause() -> None:
    """Even without a grace, listings are some time apart."""
    reconciler = unknown(grace=0.0)
    listed(reconciler, OLD, at=1.0)
    assert 1.05 == reconciler.next_due_at()


def test_an_attempt_found_after_a_crash_ends_now() -> None:
    """What the journal shows as open is unknown from the restart on, by the server's clock from its sending on."""
    reconciler = Reconciler(GRACE)
    reconciler.unknown(attempt(at=-5000.0), now=0.0)
    assert SERVER - 5010.0 - MARGIN == reconciler.listing(0.0).created_from
    found = record("t", at=-4990.0)
    assert [Adopt(attempt=attempt(at=-5000.0), task_id="t")] == listed(reconciler, found, at=1.0)


def test_the_tasks_of_long_ago_are_forgotten() -> None:
    """A million accepted tasks take no memory when no attempt could be taken for theirs."""
    reconciler = compare_clocks(Reconciler(GRACE))
    for number in range(20_000):
        reconciler.accepted(attempt(f"{number}", at=number), f"t{number}", now=float(number))
    assert 3_000 > len(reconciler._owned._tasks)
    assert not reconciler._is_free("t19999")


def test_nothing_is_forgotten_that_an_open_attempt_may_see() -> None:
    """While an attempt is open, what was accepted since it began is remembered."""
    reconciler = unknown()
    for number in range(5_000):
        reconciler.owned(f"t{number}", now=float(number))
    assert not any(reconciler._is_free(f"t{number}") for number in range(5_000))


# --- a model server that does its worst ------------------------------------------------------------------


@define(eq=False)
class Fate:
    """
    How one sending goes.

    Attributes:
        lasts: how long it is out.
        accepted: whether the server takes it, sooner or (as far as half the grace allows) later.
        answered: `reply`, `lost` or `not_sent`.
        late: when its task shows in the listing, as a share of the latest that the grace allows.
    """

    lasts: float
    accepted: bool
    answered: str
    late: float


@define(eq=False)
class Plan:
    """
    One job: when it starts, what it asks for, and the fates of its sendings; after those, all goes well.
    """

    start: float
    prompt: str
    fates: Sequence[Fate]


@define(eq=False)
class Bought:
    """
    A task of the server; `key` is who paid, None for a stranger.
    """

    key: str | None
    record: dict[str, Any]
    visible_at: float
    touched_at: float


@define(eq=False)
class World:
    """
    A server, and a driver of the reconciler with its journal, in virtual time.

    Attributes:
        order: how the listing is sorted: `newest`, `oldest`, or `touched` (last changed first).
        filters: whether the listing heeds `created_at_min`.
        empty: whether the listing lies, and shows nothing for ever.
        translates: whether echoes show another prompt than was sent.
        faults: the share of listings that are off.
        kills: when the client dies, to start again at once from its journal.
        clock: what the server's clock shows when the client's shows 0.
        uncertainty: by how much the client may be wrong about that, in seconds.
        behind: by how many seconds the clock of the records is behind the one that the client sees.
    """

    plans: Sequence[Plan]
    random: Random
    nonces: bool = False
    page: int = 3
    order: str = "newest"
    filters: bool = True
    empty: bool = False
    translates: bool = False
    faults: float = 0.0
    kills: Sequence[float] = ()
    strangers: Sequence[tuple[float, dict[str, Any]]] = ()
    clock: float = SERVER
    uncertainty: float = 0.0
    behind: float = 0.0
    now: float = 0.0
    tasks: dict[str, Bought] = field(factory=dict)
    owner: dict[str, str] = field(factory=dict)
    gave_up: dict[str, GiveUp] = field(factory=dict)
    reconciler: Reconciler = field(factory=lambda: Reconciler(GRACE))
    _journal: dict[str, Attempt | int] = field(factory=dict)
    _events: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _ticket: Iterator[int] = field(factory=count)
    _life: int = 0
    _listing: bool = False

    def run(self) -> World:
        """Let everything happen, in order."""
        for number, plan in enumerate(self.plans):
            self._journal[f"{number}"] = 1
            self.client(plan.start, partial(self.send, f"{number}", 1))
        for instant, request in self.strangers:
            self.server(instant, partial(self.accept, f"stranger at {instant}", None, request, instant))
        for instant in self.kills:
            self.server(instant, self.restart)
        while self._events:
            self.now, _, event = heappop(self._events)
            assert self.now < 100_000, "it never ends"
            event()
            due_at = self.reconciler.next_due_at()
            if due_at is not None and not self._listing:
                self._listing = True
                self.client(due_at, self.begin)
        return self

    def server(self, instant: float, event: Callable[[], None]) -> None:
        """Have something happen, come what may."""
        heappush(self._events, (instant, next(self._ticket), event))

    def client(self, instant: float, event: Callable[[], None]) -> None:
        """Have something happen, unless the client dies before."""
        life = self._life
        self.server(max(instant, self.now), lambda: event() if life == self._life else None)

    def restart(self) -> None:
        """Lose everything that is not in the journal, and take up what is."""
        self._life += 1
        self._listing = False
        self.reconciler = Reconciler(GRACE)
        for task_id in self.owner:
            self.reconciler.owned(task_id, now=self.now)
        for key, left in self._journal.items():
            if isinstance(left, Attempt):
                self.decide(self.reconciler.unknown(left, now=self.now))
            else:
                plan = self.plans[int(key)]
                self.client(max(self.now, plan.start), partial(self.send, key, left))

    # --- submits ---

    def send(self, key: str, number: int) -> None:
        """Send a job, as its fate wills."""
        plan = self.plans[int(key)]
        last = number > len(plan.fates)
        fate = Fate(0.5, True, "reply", 0.0) if last else plan.fates[number - 1]
        nonce = f"nonce-{key}-{number}-" if self.nonces else None
        request = body(plan.prompt, callback_url=nonce, translation=self.translates or None)
        error = self.random.uniform(-1, 1) * (self.uncertainty + self.reconciler.skew / 2)
        sent = Attempt(
            key=key,
            number=number,
            body=request,
            began_at=self.now + self.clock + error,
            uncertainty=self.uncertainty,
            nonce=nonce,
        )
        self._journal[key] = sent
        self.reconciler.sending(sent, now=self.now)
        killed_at = min((instant for instant in self.kills if instant >= self.now), default=inf)
        ends_at = min(self.now + fate.lasts, killed_at)
        task_id = f"task {number} of {key}"
        if fate.accepted:
            latest = ends_at - self.now + 0.99 * GRACE / 2
            shows_at = self.now + fate.late * latest
            at = self.random.uniform(
                self.now, min(shows_at, ends_at) if fate.answered == "reply" else shows_at
            )
            self.server(at, partial(self.accept, task_id, key, request, shows_at))
        self.client(ends_at, partial(self.end, sent, fate, task_id))

    def accept(self, task_id: str, key: str | None, request: dict[str, Any], shows_at: float) -> None:
        """Take a task in, at the server."""
        if key and self.translates:
            request = {**request, "prompt": f"{request['prompt']}, translated"}
        made = record(task_id, request, created=self.now + self.clock - self.behind)
        self.tasks[task_id] = bought = Bought(key, made, shows_at, self.now)
        for _ in range(2):
            self.server(self.now + self.random.uniform(0, 3 * GRACE), partial(self.touch, bought))

    def touch(self, bought: Bought) -> None:
        """Change a record, which moves it to the front where the last changed come first."""
        bought.touched_at = self.now

    def end(self, sent: Attempt, fate: Fate, task_id: str) -> None:
        """End a sending, at the client."""
        if fate.answered == "reply" and fate.accepted and task_id in self.owner:
            # Clocks that differ let an identical job adopt it; the submitters then doubt the answer.
            self.decide(self.reconciler.unknown(sent, now=self.now))
        elif fate.answered == "reply" and fate.accepted:
            self.own(task_id, sent.key)
            self.reconciler.accepted(sent, task_id, now=self.now)
        elif fate.answered == "lost":
            self.decide(self.reconciler.unknown(sent, now=self.now))
        else:
            self.reconciler.not_sent(sent)
            self.again(sent)

    def again(self, sent: Attempt) -> None:
        """Send a job once more, after a while at the gate."""
        self._journal[sent.key] = sent.number + 1
        self.client(self.now + self.random.uniform(0, 30), partial(self.send, sent.key, sent.number + 1))

    # --- listings ---

    def begin(self) -> None:
        """Ask for a listing, if one is still wanted."""
        listing = self.reconciler.listing(self.now)
        if not self.reconciler.proven:
            anything = Listing(created_from=-inf, asked_at=self.now)
            page = [bought.record for bought in self.shown(anything)][: self.page]
            anything = Listing(created_from=inf, asked_at=self.now)
            self.decide(self.reconciler.listed(anything, page, well_formed=True, complete=False))
        if self.random.random() < self.faults:
            self.answer_badly(listing)
        else:
            self.read(listing, [])

    def answer_badly(self, listing: Listing) -> None:
        """Answer with an error, half a listing, junk, or not at all."""
        self._listing = False
        records: list[object] = [bought.record for bought in self.shown(listing)]
        records, well_formed, complete = self.random.choice(
            [
                ([], False, False),
                (records[:1], True, False),
                ([None, "x", 3, {}, {"id": 7}, *records[:1]], True, True),
            ]
        )
        if self.random.random() < 0.7:
            self.decide(self.reconciler.listed(listing, records, well_formed=well_formed, complete=complete))

    def read(self, listing: Listing, seen: list[object]) -> None:
        """Read a page, and the next a while later: meanwhile they may shift."""
        page = [bought.record for bought in self.shown(listing)][len(seen) : len(seen) + self.page]
        if page:
            pause = self.random.uniform(0.1, 2)
            self.client(self.now + pause, partial(self.read, listing, seen + page))
        else:
            self._listing = False
            self.decide(self.reconciler.listed(listing, seen, well_formed=True, complete=True))

    def shown(self, listing: Listing) -> list[Bought]:
        """What a listing shows now, in its order."""
        since = listing.created_from if self.filters else -inf
        shown = [
            bought
            for bought in self.tasks.values()
            if bought.visible_at <= self.now and bought.record["created_at"] >= since and not self.empty
        ]
        if self.order == "oldest":
            return shown
        return sorted(shown, key=lambda bought: -getattr(bought, ORDERS[self.order]))

    # --- decisions ---

    def decide(self, decisions: Sequence[Decision]) -> None:
        """Carry out what was decided."""
        for decision in decisions:
            match decision:
                case Adopt():
                    self.client(self.now + self.random.uniform(0, 1), partial(self.adopt, decision))
                case SendAgain():
                    self.again(decision.attempt)
                case GiveUp():
                    del self._journal[decision.attempt.key]
                    self.gave_up[decision.attempt.key] = decision

    def adopt(self, adopt: Adopt) -> None:
        """Write a claim down, then confirm it."""
        self.own(adopt.task_id, adopt.attempt.key)
        self.reconciler.adopted(adopt, now=self.now)

    def own(self, task_id: str, key: str) -> None:
        """Give a task to a job; no journal would do so twice."""
        assert task_id not in self.owner, f"{task_id} was adopted twice"
        assert key in self._journal, f"{key} has a task already, or gave up"
        del self._journal[key]
        self.owner[task_id] = key

    # --- judging ---

    def prompts(self, keys: Iterable[str]) -> Counter[str]:
        """How many of these jobs there are for each prompt."""
        return Counter(self.plans[int(key)].prompt for key in keys)

    def check(self) -> None:
        """Nothing bought twice, nothing of ours lost, every job settled, and each with what it asked for."""
        paid = [(task_id, bought.key) for task_id, bought in self.tasks.items() if bought.key is not None]
        jobs = self.prompts(f"{number}" for number in range(len(self.plans)))
        assert self.prompts(key for _, key in paid) <= jobs, "bought twice"
        assert not self._journal, "a job has no outcome"
        if not self.gave_up:
            assert {task_id for task_id, _ in paid} == self.owner.keys(), "lost, or a stranger's"
        for task_id, key in self.owner.items():
            assert self.tasks[task_id].record["request"]["prompt"] == self.plans[int(key)].prompt


ORDERS: Final = {"newest": "visible_at", "touched": "touched_at"}

lasting = st.sampled_from([0.01, 0.5, 20.0, 60.0]) | st.floats(0, 60)
fates = st.builds(
    Fate,
    lasts=lasting,
    accepted=st.booleans(),
    answered=st.sampled_from(["lost", "lost", "reply", "not_sent"]),
    late=st.sampled_from([0.0, 1.0]) | st.floats(0, 1),
).filter(lambda fate: fate.answered != "not_sent" or not fate.accepted)
PROMPTS: Final = ("a whale", "a shark", "a squid")
starts = st.sampled_from([0.0, 1.0, 30.0]) | st.floats(0, 200)


def plans(*prompts: str, fate: st.SearchStrategy[Fate] = fates) -> st.SearchStrategy[list[Plan]]:
    """Up to a dozen jobs for a few prompts, many of them identical."""
    plan = st.builds(Plan, starts, st.sampled_from(prompts or PROMPTS), st.lists(fate, max_size=3))
    return st.lists(plan, min_size=1, max_size=12)


worlds = st.fixed_dictionaries(
    {
        "random": st.integers(0, 2**32).map(Random),
        "page": st.sampled_from([2, 3, 50]),
        "order": st.sampled_from(["newest", "touched", "oldest"]),
        "filters": st.booleans(),
        "clock": st.sampled_from([SERVER, 3600.0, 1e9]),
    }
)
quickly = settings(max_examples=60, deadline=None)
anywhen = st.lists(st.floats(0, 300), max_size=3, unique=True)


@quickly
@given(worlds, plans(), anywhen, st.sampled_from([0.0, 3600.0]))
def test_nothing_is_lost_and_nothing_bought_twice(
    how: dict[str, Any], jobs: list[Plan], others: list[float], uncertainty: float
) -> None:
    """Whatever is lost, late, identical or shifting, each job ends with a task of its own, bought once."""
    strangers = [(instant, body(f"a stranger's {instant}")) for instant in (-50_000.0, *others)]
    world = World(jobs, strangers=strangers, uncertainty=uncertainty, **how).run()
    world.check()
    assert {} == world.gave_up
    assert len(jobs) == len(world.owner)


@quickly
@given(worlds, plans(), anywhen, st.sampled_from([0.1, 0.4]))
def test_no_fault_of_the_listing_costs_anything(
    how: dict[str, Any], jobs: list[Plan], kills: list[float], faults: float
) -> None:
    """Listings that are off, cut or full of junk, and a client that dies, cost a job its certainty at worst."""
    world = World(jobs, faults=faults, kills=kills, **how).run()
    world.check()
    assert {GiveUp} >= {type(decision) for decision in world.gave_up.values()}
    assert {EMPTY, USELESS} >= {decision.reason for decision in world.gave_up.values()}


@quickly
@given(worlds, plans(), anywhen, st.floats(0, 3600))
def test_no_clock_makes_us_buy_twice(
    how: dict[str, Any], jobs: list[Plan], kills: list[float], behind: float
) -> None:
    """Where records are dated earlier than replies, nothing is bought twice, and what is given up says why."""
    strangers = [(-50_000.0, body("a stranger's"))]
    world = World(jobs, strangers=strangers, kills=kills, behind=behind, **how).run()
    world.check()
    assert {OLDER, USELESS} >= {decision.reason for decision in world.gave_up.values()}


@quickly
@given(worlds, plans("a whale"), anywhen)
def test_strangers_with_the_same_prompts_are_told_apart_by_nonces(
    how: dict[str, Any], jobs: list[Plan], others: list[float]
) -> None:
    """With a nonce in each callback URL, identical tasks of other processes are left alone."""
    strangers = [(instant, body("a whale", callback_url="another")) for instant in (-50_000.0, *others)]
    world = World(jobs, strangers=strangers, nonces=True, **how).run()
    world.check()
    assert {} == world.gave_up
    assert all(key == world.tasks[task_id].key for task_id, key in world.owner.items())


@quickly
@given(worlds, plans("a whale"), anywhen)
def test_strangers_with_the_same_prompts_never_make_us_buy_twice(
    how: dict[str, Any], jobs: list[Plan], others: list[float]
) -> None:
    """Without nonces a stranger's task may be mistaken for ours, but no more is bought for it."""
    strangers = [(instant, body("a whale")) for instant in (-50_000.0, *others)]
    world = World(jobs, strangers=strangers, **how).run()
    assert len(jobs) >= sum(bought.key is not None for bought in world.tasks.values())
    assert len(jobs) == len(world.owner) + len(world.gave_up)
    assert all(world.tasks[task_id].record["created_at"] >= world.clock for task_id in world.owner)


dropped = st.builds(Fate, lasts=lasting, accepted=st.just(False), answered=st.just("lost"), late=st.just(0.0))


@quickly
@given(worlds, plans(fate=dropped).map(lambda jobs: [Plan(0.0, job.prompt, job.fates[:1]) for job in jobs]))
def test_an_empty_account_gets_going(how: dict[str, Any], jobs: list[Plan]) -> None:
    """Where every first request is dropped on an account that has no record, every job is done all the same."""
    world = World(jobs, **how).run()
    world.check()
    assert {} == world.gave_up


@quickly
@given(worlds, plans())
def test_a_listing_that_lies_costs_one_video_at_most(how: dict[str, Any], jobs: list[Plan]) -> None:
    """Where the listing stays empty though tasks exist, at most one is bought twice, and the jobs say so."""
    world = World(jobs, empty=True, **how).run()
    bought = Counter(bought.key for bought in world.tasks.values())
    assert 1 >= sum(bought.values()) - len(bought)
    assert {f"{number}" for number in range(len(jobs))} == {*world.owner.values(), *world.gave_up}


@quickly
@given(worlds, plans())
def test_a_server_that_translates_leaves_doubt(how: dict[str, Any], jobs: list[Plan]) -> None:
    """Where no record can be recognised, nothing is bought twice, and what may be ours is named."""
    world = World(jobs, translates=True, **how).run()
    paid = [bought.key for bought in world.tasks.values()]
    assert len(paid) == len(set(paid))
    lost = world.tasks.keys() - world.owner.keys()
    assert lost <= {task_id for decision in world.gave_up.values() for task_id in decision.candidates}

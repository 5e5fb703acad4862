"""
The comparison of a journal, its files and the ledger, without any of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from veo_async._api.marks import label, mark_of
from veo_async._journal.facts import Attempt, Entry
from veo_async.platform.answers import Charge, Ledger, balances_in, charges_in
from veo_async.platform.audit import Finding, compare, shows_keys

VIDEOS = [{"id": "v1", "video_url": "https://x.example/1.mp4", "state": "succeeded"}]
RAW = {"id": "t", "response": {"success": True, "task_id": "t", "data": VIDEOS}}
SUCCESS = json.dumps({"task_id": "t", "trace_id": "r", "raw": RAW})


def entry(**fields: Any) -> Entry:
    known: dict[str, Any] = {"key": "k", "request": "{}", "intended_at": 1000.0}
    return Entry(**known | fields)


def success(**fields: Any) -> Entry:
    known: dict[str, Any] = {
        "task_id": "t",
        "trace_id": "r",
        "outcome": SUCCESS,
        "downloads": {"v1": "/v1.mp4"},
    }
    return entry(**known | fields)


def sent(closed: str | None = None) -> tuple[Attempt, ...]:
    return (Attempt(number=1, at=1.0, mark=None, closed=closed),)


def ledger(*charges: Charge, complete: bool = True) -> Ledger:
    return Ledger(charges, complete)


def compared(journals: Mapping[str, Sequence[Entry]], book: Ledger | None) -> list[Finding]:
    return [*compare(journals, book, lambda path: path == "/v1.mp4")]


def marked(task_id: str | None, *, key: str = "k", credits_: float | None = 0.65, **fields: Any) -> Charge:
    return Charge(credits=credits_, task_id=task_id, marks=[mark_of(key)], **fields)


PAID = Charge(id="1", credits=0.65, task_id="t")
OTHER = success(task_id="u", trace_id="s")


@pytest.mark.parametrize(
    ("entries", "book", "kinds"),
    [
        ([success()], ledger(PAID), []),
        ([success()], ledger(Charge(credits=0.65, trace_id="r")), []),
        ([success()], None, []),
        ([success(downloads={})], ledger(PAID), ["not_fetched"]),
        ([success(downloads={"v1": "/gone.mp4"})], ledger(PAID), ["file_missing"]),
        ([success(outcome="?", downloads={})], ledger(PAID), ["not_fetched"]),
        ([success()], ledger(), ["not_billed"]),
        ([success()], ledger(Charge(credits=0.0, task_id="t")), ["not_billed"]),
        ([success()], ledger(complete=False), []),
        ([entry(task_id="t")], ledger(), ["open"]),
        ([entry(attempts=sent())], None, ["doubtful"]),
        ([entry(attempts=sent("not_sent"))], None, []),
        ([entry()], None, []),
        ([success(failed=True)], ledger(), []),
        ([], ledger(PAID), ["not_in_journal"]),
        ([], ledger(Charge(credits=0.65)), ["not_in_journal"]),
        ([], ledger(Charge(credits=0.0, task_id="x"), Charge(credits=None, task_id="y")), []),
        ([entry()], ledger(Charge(credits=1.0, task_id="x", created_at=1.0)), []),
        ([entry()], ledger(Charge(credits=1.0, task_id="x", created_at=1001.0)), ["not_in_journal"]),
    ],
)
def test_what_is_off_is_found(entries: list[Entry], book: Ledger | None, kinds: list[str]) -> None:
    """Each kind where it is, and nowhere else; what the ledger does not tell is not held against anybody."""
    assert kinds == [finding.kind for finding in compared({"j": entries}, book)]


def test_a_finding_carries_what_is_known_of_it() -> None:
    """The ids to look with, the price and the file."""
    [finding] = compared({"j": [success(downloads={"v1": "/gone.mp4"})]}, ledger(PAID))
    known = {"key": "k", "task_id": "t", "trace_id": "r", "credits": 0.65, "path": "/gone.mp4"}
    assert {"kind": "file_missing", **known, "purchases": ()} == finding.to_dict()


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("journals", "book", "tasks", "in_vain"),
    [
        ({"a": [success()], "b": [OTHER]}, None, [("t", "a"), ("u", "b")], None),
        (
            {"a": [success()], "b": [OTHER]},
            ledger(marked("t"), marked("u", credits_=0.5)),
            [("t", "a"), ("u", "b")],
            0.5,
        ),
        ({"a": [success()]}, ledger(PAID, marked("x", created_at=1.0)), [("t", "a"), ("x", None)], 0.65),
        ({"a": [success()]}, ledger(PAID, marked(None, trace_id="x")), [("t", "a"), (None, None)], 0.65),
        ({"a": [entry(task_id="t")]}, ledger(PAID, marked("x")), [("t", "a"), ("x", None)], 0.65),
        ({"a": [entry(attempts=sent())]}, ledger(marked("x"), marked("y")), [("x", None), ("y", None)], 0.65),
    ],
)
def test_a_key_that_was_bought_more_than_once_is_found(
    journals: dict[str, list[Entry]],
    book: Ledger | None,
    tasks: list[tuple[str | None, str | None]],
    in_vain: float | None,
) -> None:
    """Once, with its tasks, however long ago, and with what all but one of them have cost."""
    found = compared(journals, book)
    [twice] = [finding for finding in found if finding.kind == "bought_twice"]
    assert tasks == [(purchase.task_id, purchase.journal) for purchase in twice.purchases]
    assert ("k", in_vain) == (twice.key, twice.credits)
    assert "not_in_journal" not in [finding.kind for finding in found], "each task is told once"
    assert tasks == [(one["task_id"], one["journal"]) for one in twice.to_dict()["purchases"]]


@pytest.mark.parametrize(
    ("journals", "book", "kinds"),
    [
        ({"a": [success()], "b": [success()]}, ledger(PAID), []),  # a copy of the journal
        ({"a": [success()], "b": [success(key="l", task_id="u", trace_id="s")]}, None, []),
        ({"a": [success(failed=True)], "b": [OTHER]}, ledger(marked("t", credits_=0.0), marked("u")), []),
        ({"a": [success()]}, ledger(PAID, marked("x", credits_=0.0)), []),  # it failed, and was bought again
        ({"a": [success()]}, ledger(PAID, marked("x", key="l")), ["not_in_journal"]),
        ({"a": [entry(task_id="t")], "b": [OTHER]}, None, ["open"]),
        ({"a": [entry(attempts=sent())]}, ledger(marked("x")), ["doubtful", "not_in_journal"]),
        # Rows of one task, and a row that may be the task's.
        ({"a": [success()]}, ledger(PAID, Charge(credits=0.65, task_id="t", trace_id="s")), []),
        ({"a": [success(trace_id=None)]}, ledger(PAID, marked(None, trace_id="s")), ["not_in_journal"]),
    ],
)
def test_what_was_bought_once_is_not_twice(
    journals: dict[str, list[Entry]], book: Ledger | None, kinds: list[str]
) -> None:
    """Nor is what failed and was bought again, nor what cannot be told apart."""
    assert kinds == [finding.kind for finding in compared(journals, book)]


def test_what_is_not_in_the_journal_may_have_a_key_of_it() -> None:
    """Then it is told, as its mark shows it; a stranger's has none."""
    book = ledger(marked("x"), marked("y", key="l"))
    found = compared({"j": [entry(attempts=sent("not_sent"))]}, book)
    assert [("x", "k"), ("y", None)] == [(finding.task_id, finding.key) for finding in found]


@pytest.mark.parametrize(
    ("book", "shows"),
    [
        (ledger(marked("t")), True),
        (ledger(marked("t"), Charge(task_id="x")), True),
        (ledger(), True),
        (ledger(marked("t"), complete=False), False),
        (ledger(PAID), False),
        (ledger(marked("t", key="l")), False),
    ],
)
def test_a_ledger_may_show_the_keys(book: Ledger, *, shows: bool) -> None:
    """If it does not show the mark of a purchase that is known, it would not show that of another one."""
    assert shows == shows_keys([success(), entry()], book)


# --- answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer", [None, 7, [], {}, {"items": [3]}, {"items": [{"x": 1}]}, {"results": {"y": []}}]
)
def test_other_shapes_are_no_rows(answer: Any) -> None:
    """Nothing is made up, and nothing raises."""
    assert ((), ()) == (charges_in(answer), balances_in(answer))


def test_every_field_of_a_row_may_be_absent() -> None:
    """Or be of another type."""
    rows = [
        {"deducted_amount": None},
        {"metadata": 3},
        {"deducted_amount": "0.65", "metadata": {"response": [], "request": 3}},
    ]
    rows += [
        {"deducted_amount": 1, "created_at": at}
        for at in ("x", "2026-11-01T00:00:00", 5, "1970-01-01T00:01Z")
    ]
    assert [None, None, 0.65, 1.0, 1.0, 1.0, 1.0] == [one.credits for one in charges_in(rows)]
    assert [None, None, 5.0, 60.0] == [one.created_at for one in charges_in(rows)][3:]
    assert not any(one.marks for one in charges_in(rows))


def test_a_row_shows_the_mark_of_its_key() -> None:
    """In the callback URL of the submitted body."""
    request = {"callback_url": f"https://x.example/?{label('k', 2)}"}
    [row] = charges_in([{"metadata": {"request": request}}])
    assert [mark_of("k")] == row.marks


@pytest.mark.parametrize(
    ("record", "is_veo"),
    [
        ({"service_id": "73cd74ba-a1bd-4a12-8df6-11d64c38df14"}, True),
        ({"service": {"alias": "veo"}}, True),
        ({"service": {"alias": "suno"}}, False),
        ({"service": "veo"}, None),
        ({}, None),
    ],
)
def test_an_application_may_tell_its_service(record: dict[str, Any], is_veo: bool | None) -> None:
    """By its id or its alias; a balance may be below zero."""
    [found] = balances_in([record | {"remaining_amount": -1.5}])
    assert (-1.5, is_veo) == (found.remaining, found.is_veo)

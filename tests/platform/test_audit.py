"""
The comparison of a journal, its files and the ledger, without any of them.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from veo_async._journal.facts import Attempt, Entry
from veo_async.platform.answers import Charge, Ledger, balances_in, charges_in
from veo_async.platform.audit import compare

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


PAID = Charge(id="1", credits=0.65, task_id="t")


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
    assert kinds == [finding.kind for finding in compare(entries, book, lambda path: path == "/v1.mp4")]


def test_a_finding_carries_what_is_known_of_it() -> None:
    """The ids to look with, the price and the file."""
    [finding] = compare([success(downloads={"v1": "/gone.mp4"})], ledger(PAID), lambda path: False)
    known = {"key": "k", "task_id": "t", "trace_id": "r", "credits": 0.65, "path": "/gone.mp4"}
    assert {"kind": "file_missing", **known} == finding.to_dict()


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
        {"deducted_amount": "0.65", "metadata": {"response": []}},
    ]
    rows += [
        {"deducted_amount": 1, "created_at": at}
        for at in ("x", "2026-11-01T00:00:00", 5, "1970-01-01T00:01Z")
    ]
    assert [None, None, 0.65, 1.0, 1.0, 1.0, 1.0] == [one.credits for one in charges_in(rows)]
    assert [None, None, 5.0, 60.0] == [one.created_at for one in charges_in(rows)][3:]


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

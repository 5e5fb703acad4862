"""
What the platform's answers say. No shape of them is documented [C], so every field may be absent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from attrs import frozen

from .._api.marks import marks_in
from .._api.rules import is_web_address

__all__ = [
    "Balance",
    "Charge",
    "Ledger",
    "address_of",
    "balances_in",
    "charges_in",
    "number_of",
    "records_of",
]

SERVICE: Final = "73cd74ba-a1bd-4a12-8df6-11d64c38df14"  # [C] the id of the service `veo`


@frozen(kw_only=True)
class Balance:
    """
    What one application of the account has left, in credits.

    Attributes:
        is_veo: whether its service is Veo; None where it does not tell.
        used: what it has spent, or None.
    """

    remaining: float
    used: float | None = None
    is_veo: bool | None = None


@frozen(kw_only=True)
class Charge:
    """
    A row of the account's ledger.

    Attributes:
        id: the row's own, or None.
        credits: what was deducted; None where it does not tell.
        task_id, trace_id: of the task, or None.
        created_at: in Unix seconds; None where it does not tell, or not in a form that is known.
        marks: the names of the marks in the callback URL of the submitted body; empty where it shows none.
    """

    id: str | None = None
    credits: float | None = None
    task_id: str | None = None
    trace_id: str | None = None
    created_at: float | None = None
    marks: Sequence[str] = ()


@frozen
class Ledger:
    """
    What the platform says was charged.

    Attributes:
        complete: whether all rows were read.
    """

    charges: Sequence[Charge]
    complete: bool


def address_of(answer: object) -> str | None:
    """
    Find the public address of an uploaded file: `file_url` (web app, SDK), or `url`; None if there is none.
    """
    for holder in records_of(answer):
        for name in ("file_url", "url"):
            value = holder.get(name)
            if isinstance(value, str) and is_web_address(value):
                return value
    return None


def balances_in(answer: object) -> tuple[Balance, ...]:
    """
    Return the balances of an answer; empty if none is understood.
    """
    return tuple(
        Balance(remaining=remaining, used=number_of(record.get("used_amount")), is_veo=_is_veo(record))
        for record in records_of(answer)
        if (remaining := number_of(record.get("remaining_amount"), low=-math.inf)) is not None
    )


def _is_veo(record: Mapping[str, Any]) -> bool | None:
    service = record.get("service")
    marks = [
        record.get("service_id"),
        *(service.get(name) for name in ("id", "alias") if isinstance(service, dict)),
    ]
    known = [mark for mark in marks if mark is not None]
    return any(mark in (SERVICE, "veo") for mark in known) if known else None


def charges_in(answer: object) -> tuple[Charge, ...]:
    """
    Return the rows of a page of the ledger; what is no row is left out.
    """
    return tuple(
        _charge(record)
        for record in records_of(answer)
        if "deducted_amount" in record or "metadata" in record
    )


def _charge(record: Mapping[str, Any]) -> Charge:
    metadata = record.get("metadata")
    response = metadata.get("response") if isinstance(metadata, dict) else None
    inner = response if isinstance(response, dict) else {}
    return Charge(
        id=_text(record.get("id")),
        credits=number_of(record.get("deducted_amount")),
        task_id=_text(inner.get("task_id")),
        trace_id=_text(record.get("trace_id")) or _text(inner.get("trace_id")),
        created_at=_moment(record.get("created_at")),
        marks=[mark.name for mark in marks_in(metadata)] if isinstance(metadata, dict) else (),
    )


def _moment(value: object) -> float | None:
    if isinstance(value, str):
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            return None
        return at.timestamp() if at.tzinfo is not None else None  # the zone of a local time is not known
    return number_of(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def number_of(value: object, *, low: float = 0.0) -> float | None:
    """
    Return a number that is finite and not below `low`; it may come as text, as decimals often do.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if low <= number and math.isfinite(number) else None


def records_of(answer: object) -> Iterator[dict[str, Any]]:
    """
    Yield the records of an answer: a list, a page with the list in `items`, `results` or `data`, or one record.
    """
    if isinstance(answer, list):
        yield from (one for one in answer if isinstance(one, dict))
    elif isinstance(answer, dict):
        pages = [page for name in ("items", "results", "data") if (page := answer.get(name)) is not None]
        if pages and isinstance(pages[0], list | dict):
            yield from records_of(pages[0])
        else:
            yield answer

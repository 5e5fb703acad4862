"""
Reads a price list: rows of conditions over a request's body, of which the first that holds counts [C].

Nothing is guessed: a row that is not understood makes the price unknown, because it may be the one that counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .answers import number_of, records_of
from .json_logic import UnknownRule, evaluate, is_true

__all__ = ["price_in", "rows_of"]

_ALWAYS: Final[tuple[object, ...]] = (None, True, {}, [], "")  # conditions that hold for every request


def rows_of(answer: object) -> tuple[Mapping[str, Any], ...]:
    """
    Return the price list of the first record that has one; empty if none is understood.
    """
    for record in records_of(answer):
        cost = record.get("cost")
        if isinstance(cost, list) and cost and all(isinstance(row, dict) for row in cost):
            return tuple(cost)
    return ()


def price_in(rows: tuple[Mapping[str, Any], ...], body: Mapping[str, Any]) -> float | None:
    """
    Return what a request costs, in credits; None if the list does not tell, or is not understood.
    """
    try:
        return next(_matching(rows, body), None)
    except UnknownRule:
        return None


def _matching(rows: tuple[Mapping[str, Any], ...], body: Mapping[str, Any]) -> Iterator[float | None]:
    for row in rows:
        conditions = row.get("conditions")
        if conditions in _ALWAYS or is_true(evaluate(conditions, body)):
            yield _credits(row, body)


def _credits(row: Mapping[str, Any], body: Mapping[str, Any]) -> float | None:
    unit = row.get("unit")
    if unit is not None and not (isinstance(unit, str) and unit.lower().rstrip("s") == "credit"):
        return None  # a price for something else than a request, such as for a second
    return number_of(evaluate(row.get("consumption"), body))

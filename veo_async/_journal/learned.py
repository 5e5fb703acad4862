"""
What several sessions have learned of one thing: numbers in lists, which add up.

Anything else is no count that could be added; of that the last one counts.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any

__all__ = ["beyond", "together"]


def together(texts: Iterable[str]) -> str:
    """
    Add up what sessions have learned, each without the others.
    """
    several = [*texts]
    return several[0] if len(several) == 1 else reduce(_added, several)


def beyond(text: str, before: str | None) -> str:
    """
    Take away what was known before.
    """
    return text if before is None else _joined(text, before, operator.sub)


def _added(one: str, other: str) -> str:
    return _joined(other, one, operator.add)


def _joined(text: str, other: str, join: Callable[[float, float], float]) -> str:
    try:
        return json.dumps(_cells(json.loads(text), json.loads(other), join))
    except (TypeError, ValueError):  # no JSON, or of another shape
        return text


def _cells(one: Any, other: Any, join: Callable[[float, float], float]) -> Any:
    if isinstance(one, list) and isinstance(other, list):
        return [_cells(*pair, join) for pair in zip(one, other, strict=True)]
    if isinstance(one, bool) or isinstance(other, bool):
        raise TypeError("a truth is no count")
    if isinstance(one, int | float) and isinstance(other, int | float):
        return join(one, other)
    raise TypeError("not of one shape")

"""
What the platform's contract of an endpoint [C] allows, and where the built-in tables differ from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from .._api.models import ASPECT_RATIOS, MODELS, RESOLUTIONS, RETIRED_ASPECT_RATIOS, SMALLEST

__all__ = ["differences"]

# The values of each field: those in use, and those that the newest documents have retired.
_OURS: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {
    "model": (
        frozenset(model.name for model in MODELS.values() if not model.retired),
        frozenset(model.name for model in MODELS.values() if model.retired),
    ),
    "resolution": (frozenset(RESOLUTIONS) - {SMALLEST}, frozenset()),  # which is what one gets without any
    "aspect_ratio": (frozenset(ASPECT_RATIOS), frozenset(RETIRED_ASPECT_RATIOS)),
}


def differences(answer: object) -> list[str] | None:
    """
    Say in words where a contract differs from the built-in tables; None if it lists no models.
    """
    listed: dict[str, set[str]] = {field: set() for field in _OURS}
    for field, values in _enumerations(answer):
        listed[field] |= values
    if not listed["model"]:
        return None
    return [words for field, values in listed.items() if values for words in _compared(field, values)]


def _enumerations(node: object) -> Iterator[tuple[str, set[str]]]:
    """
    Find the values of our fields anywhere in an OpenAPI document: its schemas may be nested, or stand apart.
    """
    waiting = [node]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield from _properties(node.get("properties"))
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _properties(properties: Any) -> Iterator[tuple[str, set[str]]]:
    for field in _OURS if isinstance(properties, Mapping) else ():
        schema = properties.get(field)
        values = schema.get("enum") if isinstance(schema, Mapping) else None
        if isinstance(values, list):
            yield field, {value for value in values if isinstance(value, str)} - {SMALLEST}


def _compared(field: str, values: set[str]) -> Iterator[str]:
    current, retired = _OURS[field]
    found = {
        "not known to this version": values - current - retired,
        "retired by this version": values & retired,
        "no longer in the contract": current - values,
    }
    for what, which in found.items():
        if which:
            yield f"{field} {', '.join(sorted(which))}: {what}"

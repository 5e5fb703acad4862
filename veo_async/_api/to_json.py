"""
Records as plain values, which JSON can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """
    Turn a record, or what is in one, into dicts, lists, strings and numbers; times are written in ISO 8601.

    What a record keeps as `raw` is left out: it says the same again, at greater length.
    """
    match value:
        case Enum():
            return value.value
        case datetime():
            return value.isoformat()
        case Mapping():
            return {plain(name): plain(held) for name, held in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
    names = [attribute.name for attribute in getattr(value, "__attrs_attrs__", ())]
    return {name: plain(getattr(value, name)) for name in names if name != "raw"} if names else value

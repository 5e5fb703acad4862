"""
Turns records into plain values for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

__all__ = ["plain"]


def plain(value: Any) -> Any:
    """
    Turn a record or one of its values into dicts, lists, strings and numbers, with times in ISO 8601.

    `raw` is left out, because it repeats the record at greater length.
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

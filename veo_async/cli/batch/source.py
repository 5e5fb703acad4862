"""
Finds the input of a command: a file of prompts or requests, or stdin.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..ending import complain
from .input import Reading, format_of, read_items

__all__ = ["caution", "read_source"]


def read_source(source: str, form: str | None, violations: list[str]) -> Reading:
    """
    Read a file, or stdin for `-`; adds to the violations why it cannot be read.

    Args:
        form: its format, or None if its name or its text tells.
    """
    nothing = Reading(items=(), faults=(), cautions=())
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        violations.append(f"line {data[: error.start].count(10) + 1}: not UTF-8")
        return nothing
    except (OSError, ValueError) as error:
        violations.append(f"INPUT {source} cannot be read: {getattr(error, 'strerror', None) or error}")
        return nothing
    reading = read_items(text, form or format_of(source, text))
    if not reading.items and not reading.faults:
        violations.append(f"INPUT {source} holds no request")
    return reading


def caution(reading: Reading) -> None:
    """
    Print the cautions about a file's lines.
    """
    for words in reading.cautions:
        complain(f"note: {words}")

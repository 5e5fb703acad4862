"""
Formats text: makes foreign text safe for a terminal, and writes durations, sizes and counts.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Final

__all__ = ["READ_AS", "duration", "is_harmless", "plural", "printable", "read_as", "shortened", "size"]

READ_AS: Final = {  # what a request of this class makes from an earlier video
    "Get1080p": "1080p of",
    "Upsample": "a larger version of",
    "Extend": "a continuation of",
    "Reshoot": "another take of",
    "InsertObject": "something put into",
    "RemoveObject": "something taken out of",
}
_KIB: Final = 1024
_CONTROLS: Final = frozenset({"Cc", "Cs"})  # control characters; surrogates, which cannot be encoded
_BIDI_CONTROLS: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def read_as(kind: str, target: object = None) -> str:
    """
    Say what a request of a class makes from an earlier video, such as `a larger version of`.

    Args:
        target: what to enlarge it to, or to make of it; of an `Upsample` only.
    """
    return "a GIF of" if (kind, target) == ("Upsample", "gif") else READ_AS[kind]


def printable(text: str) -> str:
    """
    Put a text on one line, without control characters.
    """
    spaced = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_harmful(letter) else letter for letter in spaced)


def is_harmless(text: str) -> bool:
    """
    Tell whether a text can be written as it is: on one line, and without control characters.
    """
    return not any(map(_is_harmful, text))


def _is_harmful(letter: str) -> bool:
    return letter in _BIDI_CONTROLS or unicodedata.category(letter) in _CONTROLS


def shortened(text: str, width: int) -> str:
    """
    Put a text on one line of at most `width` characters.
    """
    line = printable(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """
    Write a duration with a suitable precision: `4.2 s`, `1:06`, `2:03:10`.
    """
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    if not minutes:
        return f"{whole} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """
    Write a number of bytes: `812 bytes`, `14 KB`, `3.4 MB`.
    """
    if count < _KIB:
        return plural(round(count), "byte")
    power = min(3, int(math.log(count, _KIB)))
    amount, unit = count / _KIB**power, ("KB", "MB", "GB")[power - 1]
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """
    Write a count with its noun: `1 video`, `12 videos`.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

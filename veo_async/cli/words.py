"""
How things read: text from elsewhere made harmless for a terminal, durations, sizes, counts.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Final

__all__ = ["READ_AS", "duration", "plural", "printable", "shortened", "size"]

READ_AS: Final = {  # what a request of this class makes of an earlier video
    "Get1080p": "1080p of",
    "Upsample": "a larger version of",
    "Extend": "a continuation of",
    "Reshoot": "another take of",
    "InsertObject": "something put into",
    "RemoveObject": "something taken out of",
}
_KIB: Final = 1024
_OBEYED: Final = frozenset({"Cc", "Cs"})  # control characters, and surrogates, which cannot be written at all
_TURNS: Final = frozenset(
    "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)  # the direction of what follows


def printable(text: str) -> str:
    """
    Put a text on one line, with nothing in it that a terminal would obey.
    """
    spaced = " ".join(text.split())
    return "".join("\N{REPLACEMENT CHARACTER}" if _is_harmful(letter) else letter for letter in spaced)


def _is_harmful(letter: str) -> bool:
    return letter in _TURNS or unicodedata.category(letter) in _OBEYED


def shortened(text: str, width: int) -> str:
    """
    Put a text on one line of at most `width` characters.
    """
    line = printable(text)
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def duration(seconds: float) -> str:
    """
    Tell how long something took, as precisely as anybody wants to know: `4.2 s`, `1:06`, `2:03:10`.
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
    Tell a number of bytes: `812 bytes`, `14 KB`, `3.4 MB`.
    """
    if count < _KIB:
        return plural(round(count), "byte")
    power = min(3, int(math.log(count, _KIB)))
    amount, unit = count / _KIB**power, ("KB", "MB", "GB")[power - 1]
    return f"{amount:.1f} {unit}" if amount < 10 else f"{amount:.0f} {unit}"


def plural(count: int, noun: str) -> str:
    """
    Tell how many: `1 video`, `12 videos`.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"

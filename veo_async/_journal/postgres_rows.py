"""
Facts as PostgreSQL takes them, and entries as it gives them back.

Keys and ids are looked up by digests, so that they may be of any length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

from .._api.marks import label
from .facts import (
    Accepted,
    Attempt,
    AttemptClosed,
    Disowned,
    Downloaded,
    Elsewhere,
    Entry,
    Fact,
    Fresh,
    Intended,
    Known,
    Learned,
    Sending,
    Settled,
    Standing,
    TakeIn,
    Withdrawn,
)

__all__ = ["digest", "fact_row", "item_row", "read_entry", "read_standing", "readable", "stored"]

# A text that begins so is escaped: PostgreSQL's cannot hold NUL, nor UTF-8 lone surrogates.
_ESCAPED: Final = "\1"
_MOST_NUMBER: Final = (1 << 31) - 1

Row = list[object]


# --- texts and numbers ---------------------------------------------------------------------------------


def stored(text: str) -> str:
    """
    Write a text in such a way that PostgreSQL can hold it; nearly all stay as they are.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text")
    if "\0" not in text and not text.startswith(_ESCAPED) and (text.isascii() or _is_utf8(text)):
        return text
    return _ESCAPED + text.encode("unicode_escape").decode("ascii")


def readable(text: str) -> str:
    """
    Read a text that was written by `stored`.
    """
    return text[1:].encode("ascii").decode("unicode_escape") if text.startswith(_ESCAPED) else text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest(text: str) -> str:
    """
    Return what a key, a task or a video is looked up by.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is no text")
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _maybe(text: str | None) -> str | None:
    return None if text is None else stored(text)


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MOST_NUMBER:
        raise ValueError(f"{value!r} is no number of an attempt")
    return value


def _time(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no time")
    return value


# --- facts ---------------------------------------------------------------------------------------------

# Kind, digest, key, one, two, at, number, the digest of the task or the video; see `postgres_rules`.
_REST: Final[Mapping[type, Callable[[Any], Row]]] = {
    Intended: lambda fact: [stored(fact.request), None, _time(fact.at)],
    Sending: lambda fact: [None, _maybe(fact.mark), _time(fact.at), _number(fact.attempt)],
    AttemptClosed: lambda fact: [
        fact.outcome, _maybe(fact.reason), _time(fact.at), _number(fact.attempt)
    ],
    Accepted: lambda fact: [
        stored(fact.task_id), _maybe(fact.trace_id), _time(fact.at), None, digest(fact.task_id)
    ],
    Disowned: lambda fact: [None, None, None, None, digest(fact.task_id)],
    Settled: lambda fact: [stored(fact.outcome), None, _time(fact.at), bool(fact.failed)],
    Downloaded: lambda fact: [
        stored(fact.video_id), stored(fact.path), _time(fact.at), None, digest(fact.video_id)
    ],
    Withdrawn: lambda fact: [],
    Learned: lambda fact: [stored(fact.data)],
}  # fmt: skip
_KINDS: Final[Mapping[type, str]] = {kind: kind.__name__.lower() for kind in _REST} | {
    AttemptClosed: "closed"
}


def fact_row(fact: Fact) -> Row:
    """
    Write a fact as the function `write` takes it.

    Raises:
        KeyError, TypeError, ValueError: it holds something that cannot be held.
    """
    key = fact.kind if isinstance(fact, Learned) else fact.key
    return [_KINDS[type(fact)], digest(key), stored(key), *_REST[type(fact)](fact)]


def item_row(place: int, item: TakeIn) -> dict[str, object]:
    """
    Write a key that is taken in as the function `take_in` takes it.
    """
    return {
        "place": place,
        "digest": digest(item.key),
        "key": stored(item.key),
        "request": stored(item.request),
        "at": _time(item.at),
        "retry": item.retry_failed,
        "look": item.look_first,
        "mark": label(item.key, 0).removesuffix("0"),
    }


# --- what is read back ---------------------------------------------------------------------------------


def read_entry(row: Mapping[str, Any]) -> Entry:
    """
    Read a row of the view `entry`, or of the table `job`.
    """
    return Entry(
        key=readable(row["key"]),
        request=readable(row["request"]),
        intended_at=float(row["intended_at"]),
        attempts=tuple(map(_attempt, row["attempts"])),
        earlier=row["earlier"],
        task_id=_text(row["task_id"]),
        trace_id=_text(row["trace_id"]),
        accepted_at=_moment(row["accepted_at"]),
        settled_at=_moment(row["settled_at"]),
        failed=row["failed"],
        outcome=_text(row["outcome"]),
        downloads={readable(video): readable(path) for video, path in (row.get("downloads") or {}).items()},
    )


def read_standing(row: Mapping[str, Any]) -> Standing:
    """
    Read how a key stands.
    """
    if row["standing"] == "fresh":
        return Fresh(row["earlier"], row["failed"])
    stands = Known if row["standing"] == "known" else Elsewhere
    return stands(read_entry(row["entry"]))


def _attempt(row: Mapping[str, Any]) -> Attempt:
    return Attempt(number=row["number"], at=float(row["at"]), mark=_text(row["mark"]), closed=row["closed"])


def _text(value: str | None) -> str | None:
    return None if value is None else readable(value)


def _moment(value: float | None) -> float | None:
    return None if value is None else float(value)

"""
Converts facts to rows for PostgreSQL, and rows back to entries.

Keys and ids are looked up by digests, so they may have any length.
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

__all__ = [
    "digest",
    "fact_row",
    "item_row",
    "read_entry",
    "read_notice",
    "read_standing",
    "readable",
    "stored",
]

# Marks an escaped text: PostgreSQL cannot store NUL, and UTF-8 cannot encode lone surrogates.
_ESCAPED: Final = "\1"
_MAX_NUMBER: Final = (1 << 31) - 1

Row = list[object]


# --- texts and numbers ---------------------------------------------------------------------------------


def stored(text: str) -> str:
    """
    Escape a text that PostgreSQL cannot store; all others stay as they are.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a string")
    if "\0" not in text and not text.startswith(_ESCAPED) and (text.isascii() or _is_utf8(text)):
        return text
    return _ESCAPED + text.encode("unicode_escape").decode("ascii")


def readable(text: str) -> str:
    """
    Undo `stored`.
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
    Return the digest that a key, a task or a video is looked up by.
    """
    if not isinstance(text, str):
        raise TypeError(f"{text!r} is not a string")
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _maybe(text: str | None) -> str | None:
    return None if text is None else stored(text)


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value <= _MAX_NUMBER:
        raise ValueError(f"{value!r} is not an attempt's number")
    return value


def _time(value: object) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is not a time")
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
    Return a fact as an argument of the SQL function `write`.

    Raises:
        KeyError, TypeError, ValueError: it holds a value that cannot be stored.
    """
    key = fact.kind if isinstance(fact, Learned) else fact.key
    return [_KINDS[type(fact)], digest(key), stored(key), *_REST[type(fact)](fact)]


def item_row(place: int, item: TakeIn) -> dict[str, object]:
    """
    Return a key as an argument of the SQL function `take_in`.
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
    Read a key's standing.
    """
    if row["standing"] == "fresh":
        return Fresh(row["earlier"], row["failed"])
    stands = Known if row["standing"] == "known" else Elsewhere
    return stands(read_entry(row["entry"]))


def read_notice(payload: str) -> tuple[int, int, str] | None:
    """
    Read a notice: the session, the account and the key; None if it is not ours, since anybody may send one.
    """
    try:
        session, account, key = payload.split(" ", 2)
        return int(session), int(account), readable(key)
    except ValueError:
        return None


def _attempt(row: Mapping[str, Any]) -> Attempt:
    return Attempt(number=row["number"], at=float(row["at"]), mark=_text(row["mark"]), closed=row["closed"])


def _text(value: str | None) -> str | None:
    return None if value is None else readable(value)


def _moment(value: float | None) -> float | None:
    return None if value is None else float(value)

"""
Puts into lines how a queue stands, and what has happened to a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .words import printable

if TYPE_CHECKING:
    from .. import AccountLimits
    from ..worker.administration import Event, QueueStatus

__all__ = ["event_lines", "limit_lines", "status_lines"]

_TOLD: Final = 10  # of each kind; `--json` writes all
_WIDTH: Final = 12


def status_lines(found: QueueStatus) -> Iterator[str]:
    """
    Describe how a queue stands.
    """
    refused = {"refused": found.refused} if found.refused else {}
    yield _row("deliveries", _counts(found.deliveries))
    yield _row("purchases", _counts({**found.purchases, **refused}))
    yield _row("sessions", ", ".join(found.sessions) or "none")
    for events in (found.parked, found.surplus):
        for event in events[:_TOLD]:
            yield _row(event.what, _details(event.details))
        if len(events) > _TOLD:
            yield _row("", f"and {len(events) - _TOLD:,} more {events[0].what}")


def limit_lines(limits: AccountLimits) -> Iterator[str]:
    """
    Describe the limits that all sessions share.
    """
    rate = limits.submits_per_second
    at_once = f", {limits.burst} at once after a quiet time" if rate and limits.burst > 1 else ""
    yield _row("submits", "no limit" if rate is None else f"{rate:g} a second{at_once}")
    yield _row("in flight", "no limit" if limits.max_in_flight is None else f"{limits.max_in_flight:,} tasks")


def _row(name: str, words: str) -> str:
    return f"{name:<{_WIDTH}}{words}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {state}" for state, count in sorted(counts.items())) or "none"


def event_lines(events: Iterable[Event]) -> Iterator[str]:
    """
    Describe what has happened to a key, a line for each event.
    """
    for event in events:
        at = datetime.fromtimestamp(event.at).strftime("%Y-%m-%d %H:%M:%S")
        yield f"{at}  {event.what}  {_details(event.details)}".rstrip()


def _details(details: Mapping[str, Any]) -> str:
    words = (value if isinstance(value, str) else json.dumps(value) for value in details.values())
    return printable(", ".join(f"{name} {word}" for name, word in zip(details, words, strict=True)))

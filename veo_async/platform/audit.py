"""
Compares a journal, the files that it names, and the account's ledger: was everything that was paid for received?
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from .._api.journal_text import load_outcome
from .._journal.facts import Entry
from .answers import Charge, Ledger

__all__ = ["FINDINGS", "Finding", "compare"]

CLOCKS: Final = 600.0  # seconds by which the clocks of this machine and of the platform may differ
FINDINGS: Final[Mapping[str, str]] = {  # what is found, and in which words
    "not_fetched": "paid, and not fetched",
    "file_missing": "paid and fetched, and its file is gone or has changed",
    "open": "accepted, and its end is not known yet",
    "doubtful": "sent, and it is not known whether it was accepted",
    "not_in_journal": "paid, and not in the journal",
    "not_billed": "in the journal as a success, and not billed",
}


@frozen(kw_only=True)
class Finding:
    """
    Something that is off.

    Attributes:
        kind: one of `FINDINGS`.
        credits: what was paid, if the ledger tells.
        path: the file, or None.
    """

    kind: str
    key: str | None = None
    task_id: str | None = None
    trace_id: str | None = None
    credits: float | None = None
    path: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """
        Return the finding as plain values, ready for JSON.
        """
        names = ("kind", "key", "task_id", "trace_id", "credits", "path")
        return {name: getattr(self, name) for name in names}


def compare(
    entries: Sequence[Entry], ledger: Ledger | None, is_whole: Callable[[str], bool]
) -> Iterator[Finding]:
    """
    Yield what is off.

    Args:
        ledger: None if it is not compared.
        is_whole: whether a file is there, and as it was saved.
    """
    charges = () if ledger is None else ledger.charges
    paid = {name: one for one in charges if one.credits for name in _names(one)}
    for entry in entries:
        charge = next((paid[name] for name in _names(entry) if name in paid), None)
        yield from _of_entry(entry, charge, is_whole)
        if charge is None and ledger is not None and ledger.complete and _has_succeeded(entry):
            yield Finding(kind="not_billed", key=entry.key, task_id=entry.task_id, trace_id=entry.trace_id)
    yield from _strange(entries, charges)


def _has_succeeded(entry: Entry) -> bool:
    return entry.outcome is not None and not entry.failed


def _names(one: Entry | Charge) -> list[str]:
    """
    Return the ids by which a purchase and its charge are matched; either may lack one of them.
    """
    return [name for name in (one.task_id, one.trace_id) if name is not None]


def _of_entry(entry: Entry, charge: Charge | None, is_whole: Callable[[str], bool]) -> Iterator[Finding]:
    about: dict[str, Any] = {
        "key": entry.key,
        "task_id": entry.task_id,
        "trace_id": entry.trace_id,
        "credits": charge.credits if charge else None,
    }
    if entry.outcome is None and entry.task_id is not None:
        yield Finding(kind="open", **about)
    elif entry.outcome is None and any(attempt.closed is None for attempt in entry.attempts):
        yield Finding(kind="doubtful", **about)
    elif _has_succeeded(entry):
        for path in _paths(entry):
            if path is None:
                yield Finding(kind="not_fetched", **about)
            elif not is_whole(path):
                yield Finding(kind="file_missing", path=path, **about)


def _paths(entry: Entry) -> list[str | None]:
    """
    Return where each video of a success was saved; None for one that was not.
    """
    try:
        ids = [video.id for video in load_outcome(entry.outcome or "", None).videos]  # type: ignore[union-attr]
    except Exception:  # the text of another version: at least what was saved is known
        ids = [*entry.downloads] or [""]
    return [entry.downloads.get(video_id) for video_id in ids]


def _strange(entries: Sequence[Entry], charges: Iterable[Charge]) -> Iterator[Finding]:
    """
    Yield what was paid since the first purchase of the journal, and is not in it.
    """
    known = {name for entry in entries for name in _names(entry)}
    since = min((entry.intended_at for entry in entries), default=0.0) - CLOCKS
    for charge in charges:
        is_earlier = charge.created_at is not None and charge.created_at < since
        if charge.credits and not is_earlier and known.isdisjoint(_names(charge)):
            yield Finding(
                kind="not_in_journal",
                task_id=charge.task_id,
                trace_id=charge.trace_id,
                credits=charge.credits,
            )

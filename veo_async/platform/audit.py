"""
Compares journals, the files that they name, and the account's ledger: was everything that was paid for received?
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import fsum
from typing import Any, Final

from attrs import asdict, frozen

from .._api.journal_text import load_outcome
from .._api.marks import mark_of
from .._journal.facts import Entry
from .answers import Charge, Ledger

__all__ = ["FINDINGS", "Finding", "Purchase", "compare", "shows_keys"]

CLOCKS: Final = 600.0  # seconds by which the clocks of this machine and of the platform may differ
FINDINGS: Final[Mapping[str, str]] = {  # what is found, and in which words
    "not_fetched": "paid, and not fetched",
    "file_missing": "paid and fetched, and its file is gone or has changed",
    "open": "accepted, and its end is not known yet",
    "doubtful": "sent, and it is not known whether it was accepted",
    "bought_twice": "bought more than once",
    "not_in_journal": "paid, and not in the journal",
    "not_billed": "in the journal as a success, and not billed",
}


@frozen(kw_only=True)
class Purchase:
    """
    One of several purchases of a key: it was paid, or its journal knows its success.

    Attributes:
        journal: the journal that it is in, or None.
        credits: what was paid, if the ledger tells.
    """

    task_id: str | None
    trace_id: str | None
    journal: str | None
    credits: float | None


@frozen(kw_only=True)
class Finding:
    """
    Something that is off.

    Attributes:
        kind: one of `FINDINGS`.
        credits: what was paid, if the ledger tells; of a key that was bought more than once, what was paid in vain.
        path: the file, or None.
        purchases: of a key that was bought more than once; otherwise empty.
    """

    kind: str
    key: str | None = None
    task_id: str | None = None
    trace_id: str | None = None
    credits: float | None = None
    path: str | None = None
    purchases: Sequence[Purchase] = ()

    def to_dict(self) -> dict[str, Any]:
        """
        Return the finding as plain values, ready for JSON.
        """
        return asdict(self)


def compare(
    journals: Mapping[str, Sequence[Entry]], ledger: Ledger | None, is_whole: Callable[[str], bool]
) -> Iterator[Finding]:
    """
    Yield what is off.

    Args:
        journals: the entries of each journal, by its name.
        ledger: None if it is not compared.
        is_whole: whether a file is there, and as it was saved.
    """
    charges = () if ledger is None else [charge for charge in ledger.charges if charge.credits]
    paid = {name: charge for charge in charges for name in _names(charge)}
    entries = [entry for its in journals.values() for entry in its]
    for entry in entries:
        charge = _charge_of(entry, paid)
        yield from _of_entry(entry, charge, is_whole)
        if charge is None and ledger is not None and ledger.complete and _has_succeeded(entry):
            yield Finding(kind="not_billed", key=entry.key, task_id=entry.task_id, trace_id=entry.trace_id)
    known = {name for entry in entries for name in _names(entry)}
    strange = [charge for charge in charges if known.isdisjoint(_names(charge))]
    keys = {mark_of(entry.key): entry.key for entry in entries}
    repeated = [*_bought_twice(_purchases(journals, paid, strange, keys))]
    yield from repeated
    told = {name for finding in repeated for purchase in finding.purchases for name in _names(purchase)}
    since = min((entry.intended_at for entry in entries), default=0.0) - CLOCKS
    yield from _not_in_journal(strange, keys, told, since)


def shows_keys(entries: Iterable[Entry], ledger: Ledger) -> bool:
    """
    Tell whether the ledger shows of which key each purchase is; if not, a key may have been bought twice unseen.
    """
    marks = {name: mark_of(entry.key) for entry in entries for name in _names(entry)}
    return ledger.complete and all(
        marks[name] in charge.marks for charge in ledger.charges for name in _names(charge) if name in marks
    )


def _has_succeeded(entry: Entry) -> bool:
    return entry.outcome is not None and not entry.failed


def _names(one: Entry | Charge | Purchase) -> list[str]:
    """
    Return the ids by which a purchase and its charge are matched; either may lack one of them.
    """
    return [name for name in (one.task_id, one.trace_id) if name is not None]


def _charge_of(entry: Entry, paid: Mapping[str, Charge]) -> Charge | None:
    return next((paid[name] for name in _names(entry) if name in paid), None)


def _key_of(charge: Charge, keys: Mapping[str, str]) -> str | None:
    """
    Return the key whose mark a charge shows, of those in `keys`, by their marks.
    """
    return next((keys[mark] for mark in charge.marks if mark in keys), None)


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


# --- keys ------------------------------------------------------------------------------------------------


def _bought_twice(purchases: Iterable[tuple[str, Purchase]]) -> Iterator[Finding]:
    """
    Yield the keys that were bought more than once, however long ago.
    """
    of_key: dict[str, list[Purchase]] = {}
    for key, purchase in purchases:
        its = of_key.setdefault(key, [])
        if all(_are_two(purchase, other) for other in its):
            its.append(purchase)
    for key, its in of_key.items():
        if len(its) > 1:
            prices = sorted(purchase.credits for purchase in its if purchase.credits is not None)
            in_vain = fsum(prices[:-1]) if prices else None  # one of them was wanted
            yield Finding(kind="bought_twice", key=key, credits=in_vain, purchases=its)


def _purchases(
    journals: Mapping[str, Sequence[Entry]],
    paid: Mapping[str, Charge],
    strange: Iterable[Charge],
    keys: Mapping[str, str],
) -> Iterator[tuple[str, Purchase]]:
    """
    Yield what was bought with each key: what was paid, in a journal or not, and what succeeded.
    """
    for journal, entries in journals.items():
        for entry in entries:
            charge = _charge_of(entry, paid)
            if charge is not None or _has_succeeded(entry):  # a failed task is not billed, and bought again
                yield entry.key, _purchase(entry, journal, charge)
    for charge in strange:
        key = _key_of(charge, keys)
        if key is not None:
            yield key, _purchase(charge, None, charge)


def _purchase(one: Entry | Charge, journal: str | None, charge: Charge | None) -> Purchase:
    credits_ = charge.credits if charge else None
    return Purchase(task_id=one.task_id, trace_id=one.trace_id, journal=journal, credits=credits_)


def _are_two(one: Purchase, other: Purchase) -> bool:
    """
    Tell whether two purchases differ; where they have no id of one kind, they may be the same.
    """
    if one.task_id and other.task_id:
        return one.task_id != other.task_id
    return bool(one.trace_id and other.trace_id and one.trace_id != other.trace_id)


def _not_in_journal(
    strange: Iterable[Charge], keys: Mapping[str, str], told: Collection[str], since: float
) -> Iterator[Finding]:
    """
    Yield what was paid since the first purchase of the journals, is in none of them, and was not told yet.
    """
    for charge in strange:
        is_earlier = charge.created_at is not None and charge.created_at < since
        if not is_earlier and all(name not in told for name in _names(charge)):
            yield Finding(
                kind="not_in_journal",
                key=_key_of(charge, keys),
                task_id=charge.task_id,
                trace_id=charge.trace_id,
                credits=charge.credits,
            )

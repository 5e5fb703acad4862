"""
The account's tasks that listings have shown, by their marks.

What a listing has shown is kept, and the next one begins a little before the newest record of the last.
If that record does not come again, the next listing does not continue the last, and everything is read again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from attrs import define, field, frozen

from .._api.marks import marks_in, marks_of, unescaped, url_in
from .._api.records import TaskState
from .._api.states import classify
from .._api.tasks import task_id_of

__all__ = ["Listing", "ShownTask", "ShownTasks"]

HOUR: Final = 3600.0  # seconds by which the clocks of records, filter and this machine may differ
OVERLAP: Final = 1.0  # seconds: keeps the newest record in the range even if the range excludes its bound
# Unix seconds: a `created_at` above this, or of 0, is not a time (milliseconds, an infinity, a default, a fake).
MAX_CREATED_AT: Final = 1e11


@frozen(kw_only=True)
class Listing:
    """
    A query for the account's tasks.
    """

    asked_at: float  # by the caller's clock
    unix: float = 0.0  # the same in Unix seconds, as far as is known
    created_from: float | None = None  # by the clock of the records, in Unix seconds; None for all tasks
    since: float | None = -math.inf  # the same by the caller's clock; None if it continues an earlier listing


class ShownTask(NamedTuple):
    """
    A task as its record shows it.
    """

    id: str
    number: int  # of the attempt whose mark it shows
    created_at: float  # by the clock of the records; minus infinity if the record has no usable time
    failed: bool


@define(eq=False)
class ShownTasks:
    """
    Keeps what records have shown.
    """

    lateness: float  # a record shows at most so many seconds after its creation
    reaches_back_to: float = field(init=False, default=math.inf)  # no task since is missing; caller's clock
    _by_name: dict[str, dict[str, ShownTask]] = field(init=False, factory=dict)
    marked: set[str] = field(init=False, factory=set)  # tasks that a listing has shown with a mark
    _unmarked: dict[str, float] = field(init=False, factory=dict)  # all other tasks: when they were created
    _unmarked_urls: dict[str, float] = field(init=False, factory=dict)  # their callback URLs, and the latest
    _marked_urls: set[str] = field(init=False, factory=set)  # callback URLs shown with a mark as fragment
    _newest: tuple[float, str] | None = field(init=False, default=None)
    _read_at: float = field(init=False, default=-math.inf)  # when its listing was asked for, in Unix seconds

    def __len__(self) -> int:
        return len(self.marked) + len(self._unmarked)

    # --- taking in ---

    def add(self, record: object, *, listed: bool = False) -> str | None:
        """
        Keep a record; returns its task's id, or None if it is not a record.

        Args:
            listed: whether a listing has shown it.
        """
        task_id = task_id_of(record)
        if task_id is None or not isinstance(record, Mapping):
            return None
        created_at, failed = _created_at(record), classify(record) is TaskState.FAILED
        for name, number in marks_in(record):
            shown = ShownTask(task_id, number, created_at, failed)
            self._by_name.setdefault(name, {})[task_id] = shown
        if listed:
            self._list(task_id, record, created_at)
        return task_id

    def _list(self, task_id: str, record: Mapping[str, Any], created_at: float) -> None:
        url, _, fragment = unescaped(url_in(record)).partition("#")
        if marks_in(record):
            self.marked.add(task_id)
            self._unmarked.pop(task_id, None)
            if marks_of(fragment):
                self._marked_urls.add(url)
        elif task_id not in self.marked:
            self._unmarked[task_id] = created_at
            if url:
                at = math.inf if created_at == -math.inf else created_at
                self._unmarked_urls[url] = max(at, self._unmarked_urls.get(url, at))

    def take(self, listing: Listing, records: Sequence[object], *, complete: bool) -> bool:
        """
        Keep a listing; returns whether it is whole: read to the end, and each item a task that came once.
        """
        ids = {self.add(record, listed=True) for record in records} - {None}
        if not complete or len(ids) != len(records):
            return False
        if listing.since is not None:
            self.reaches_back_to = min(self.reaches_back_to, listing.since)
        elif self._newest and self._newest[1] not in ids:
            self.reaches_back_to, self._newest = math.inf, None
            return False
        newest = max(((_created_at(record), task_id_of(record) or "") for record in records), default=None)
        if newest is not None and newest[0] > -math.inf:
            # A record dated in the future must not hide the records that come after it.
            self._newest, self._read_at = (min(newest[0], listing.unix), newest[1]), listing.unix
        return True

    # --- looking up ---

    def continues_from(self, *, sure: bool) -> float | None:
        """
        Return where the next listing may begin, by the clock of the records; None if it must start over.

        Args:
            sure: whether that clock is known to differ from ours by less than `HOUR`.
        """
        if self._newest is None:
            return None
        newest_at = self._newest[0]
        # A task that did not show yet was created after this moment. If the newest record is older, none is missing.
        is_old = sure and newest_at < self._read_at - HOUR - self.lateness
        return newest_at - (OVERLAP if is_old else 2 * self.lateness)

    def shows(self, task_id: str) -> bool | None:
        """
        Tell whether listings have shown a task with a mark; None if they have not shown it at all.
        """
        if task_id in self.marked:
            return True
        return False if task_id in self._unmarked else None

    def of_name(self, name: str, *, first: int, skip_failed: bool) -> list[ShownTask]:
        """
        Return the tasks whose mark has this name and an attempt number of at least `first`, the best one first.

        A pending or successful task is better than a failed one; among equals, the latest is best.
        """
        tasks = (task for task in self._by_name.get(name, {}).values() if task.number >= first)
        kept = [task for task in tasks if not (skip_failed and task.failed)]
        return sorted(kept, key=lambda task: (not task.failed, task.number, task.created_at), reverse=True)

    def unmarked(self, seconds: float) -> tuple[str, ...]:
        """
        Return the tasks without a mark that were created in the last `seconds`, by the clock of the records.
        """
        since = self._now() - seconds
        return tuple(task_id for task_id, at in self._unmarked.items() if at == -math.inf or at >= since)

    def may_hide(self, own_url: str, seconds: float) -> bool:
        """
        Tell whether a task of the last `seconds` shows this callback URL, or its beginning, without a mark.

        False if this URL was ever shown with its mark: then fragments are not cut off.
        """
        whole, since = unescaped(own_url), self._now() - seconds
        if whole in self._marked_urls:
            return False
        return any(at >= since and whole.startswith(url) for url, at in self._unmarked_urls.items())

    def _now(self) -> float:
        return max(self._newest[0], self._read_at - HOUR) if self._newest else -math.inf


def _created_at(record: object) -> float:
    value: Any = record.get("created_at") if isinstance(record, Mapping) else None
    usable = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MAX_CREATED_AT
    return float(value) if usable else -math.inf

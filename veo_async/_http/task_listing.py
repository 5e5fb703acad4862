"""
Queries to `/veo/tasks`: one task, several, or all tasks of the account.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, TypeVar

from attrs import define, field

from .._api.records import TaskRecord
from .._api.tasks import read_batch, read_items, read_record, task_id_of, task_record
from ..errors import BadRequest, InvalidRequest, TaskNotFound
from .client import Http

__all__ = ["batch_query", "list_tasks", "read_all", "record_or_none", "retrieve", "retrieve_many"]

NOT_FOUND: Final = 404
PAGE: Final = 50  # records; the vendor recommends at most 50, and the default is 12
MAX_PAGES: Final = 2000  # a longer listing is taken for broken

T = TypeVar("T")


async def retrieve(http: Http, *, task_id: str | None, trace_id: str | None) -> TaskRecord:
    """
    Return the record of one task, found by exactly one of its ids.

    Raises:
        InvalidRequest: neither or both of the ids were given.
        TaskNotFound: the server knows no such task.
    """
    if (task_id is None) == (trace_id is None):
        raise InvalidRequest("give either a task_id or a trace_id")
    wanted = {"id": task_id} if task_id is not None else {"trace_id": trace_id}
    raw = await record_or_none(http.read({"action": "retrieve", **wanted}))
    if raw is None:
        raise TaskNotFound(f"the server knows no task {task_id or trace_id}", task_id=task_id)
    return task_record(raw)


async def record_or_none(answer: Awaitable[Any]) -> dict[str, Any] | None:
    """
    Read the record from the answer to a `retrieve`; None if the server knows no such task.
    """
    try:
        return read_record(await answer)
    except BadRequest as error:
        # [C] another API of the vendor answers an unknown id with 404; [D] `no_api` means there is no such endpoint.
        if error.status != NOT_FOUND or error.code == "no_api":
            raise
        return None


def batch_query(task_ids: Sequence[str]) -> dict[str, Any]:
    """
    Make the query for several tasks.
    """
    # `limit` is sent because it may also apply to a query by ids; nobody knows.
    return {"action": "retrieve_batch", "ids": task_ids, "offset": 0, "limit": len(task_ids)}


async def retrieve_many(http: Http, task_ids: Iterable[str], *, at_once: int) -> dict[str, TaskRecord]:
    """
    Return the records of tasks, `at_once` per request; ids that the server does not know are absent.
    """
    found: dict[str, TaskRecord] = {}
    remaining = iter(dict.fromkeys(task_ids))
    while ids := list(islice(remaining, at_once)):
        for raw in read_batch(await http.read(batch_query(ids))):
            if task_id_of(raw) in ids:
                record = task_record(raw)
                found[record.id] = record
    return found


async def list_tasks(
    http: Http,
    *,
    created_from: datetime | float | None,
    created_to: datetime | float | None,
    type: str | None,  # noqa: A002 - the API's own word
    limit: int | None,
) -> AsyncGenerator[TaskRecord, None]:
    """
    Yield the account's tasks, each once, even if the pages shift while they are read.
    """
    filters = {"type": type, "created_at_min": _seconds(created_from), "created_at_max": _seconds(created_to)}
    question = {
        "action": "retrieve_batch",
        "limit": PAGE,
        **{k: v for k, v in filters.items() if v is not None},
    }
    pages, seen, count = _Pages(), set[str | None](), 0
    while pages.whole is None:
        page = read_batch(await http.read({**question, "offset": pages.offset}))
        for raw in pages.take(page):
            if limit is not None and count >= limit:
                return
            if task_id_of(raw) not in seen:
                seen.add(task_id_of(raw))
                count += 1
                yield task_record(raw)


async def read_all(http: Http, created_from: float | None) -> tuple[list[object], bool]:
    """
    Return the raw records of a listing, and whether it was read to its end.

    Args:
        created_from: Unix seconds by the clock of the records; None for all tasks.
    """
    filters = {} if created_from is None else {"created_at_min": created_from}
    pages, records = _Pages(), list[object]()
    while pages.whole is None and pages.offset <= MAX_PAGES * PAGE:
        question = {"action": "retrieve_batch", "offset": pages.offset, "limit": PAGE, **filters}
        records += pages.take(read_items(await http.read(question)))
    return records, pages.whole or False


@define(eq=False)
class _Pages:
    """
    The pages of a listing, read one after the other.

    Attributes:
        offset: where the next page begins, in records.
        whole: whether the listing was read to its end; None while more may follow.
    """

    offset: int = field(init=False, default=0)
    whole: bool | None = field(init=False, default=None)
    _known: set[str | None] = field(init=False, factory=set)
    _first: int = field(init=False, default=0)  # records on the first page; the server may cap `limit`
    _last: list[str | None] = field(init=False, factory=list)  # the ids on the last page

    def take(self, page: Sequence[T]) -> Sequence[T]:
        """
        Take the next page; returns its records without those that new tasks have pushed down from earlier pages.

        Other repeated records stay: they show the reconciler that the listing has changed.
        """
        ids = [task_id_of(record) for record in page]
        pushed = next((place for place, task_id in enumerate(ids) if task_id not in self._known), len(ids))
        self._first = self._first or len(ids)
        if self._known.issuperset(filter(None, ids)):
            self.whole = self._ends(ids, is_pushed=pushed == len(ids))
        self._known.update(filter(None, ids))
        self._last, self.offset = ids, self.offset + len(ids)
        return page[pushed:]

    def _ends(self, ids: Sequence[str | None], *, is_pushed: bool) -> bool | None:
        if not ids:
            return True
        if not is_pushed:
            return False  # records that are no tasks
        if len(ids) < self._first:
            return True  # the end, pushed down by new tasks, or given once more
        # The server ignores `offset`; or new tasks have pushed down a page, and more may follow.
        return False if ids == self._last else None


def _seconds(moment: datetime | float | None) -> float | None:
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise InvalidRequest("a datetime must be aware: which time zone is it in?")
    return moment.timestamp()

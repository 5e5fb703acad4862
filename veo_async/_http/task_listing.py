"""
Queries to `/veo/tasks`: one task, several, or all tasks of the account.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from .._api.records import TaskRecord
from .._api.tasks import read_batch, read_items, read_record, task_id_of, task_record
from ..errors import BadRequest, InvalidRequest, TaskNotFound
from .client import Http

__all__ = ["batch_query", "list_tasks", "read_all", "record_or_none", "retrieve", "retrieve_many"]

NOT_FOUND: Final = 404
PAGE: Final = 50  # records; the vendor recommends at most 50, and the default is 12
MAX_PAGES: Final = 2000  # a longer listing is taken for broken


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
    offset, count, known = 0, 0, set[str | None]()
    while True:
        page = read_batch(await http.read({**question, "offset": offset}))
        # A short page may not be the last, since the server may cap `limit`. A page with nothing new is the last.
        fresh = [raw for raw in page if task_id_of(raw) not in known]
        known.update(map(task_id_of, fresh))
        offset += len(page)
        for raw in fresh:
            if limit is not None and count >= limit:
                return
            count += 1
            yield task_record(raw)
        if not fresh:
            return


async def read_all(http: Http, created_from: float | None) -> tuple[list[object], bool]:
    """
    Return the raw records of a listing, and whether it was read to its end.

    On a busy account, new tasks push the others down during the read, so a page may begin with records of the page
    before; these are dropped. Other repeated records stay: they show the reconciler that the listing has changed.

    Args:
        created_from: Unix seconds by the clock of the records; None for all tasks.
    """
    filters = {} if created_from is None else {"created_at_min": created_from}
    records: list[object] = []
    known: set[str | None] = set()
    while len(records) <= MAX_PAGES * PAGE:
        question = {"action": "retrieve_batch", "offset": len(records), "limit": PAGE, **filters}
        page = read_items(await http.read(question))
        ids = [task_id_of(record) for record in page]
        pushed = next((place for place, task_id in enumerate(ids) if task_id not in known), len(page))
        fresh = page[pushed:]
        if known.issuperset(filter(None, ids)):
            # Nothing new: this is the end, pushed down by new tasks. A full repetition: `offset` was ignored.
            return records + fresh, not page or (not fresh and len(page) < len(records))
        records += fresh
        known.update(filter(None, ids))
    return records, False


def _seconds(moment: datetime | float | None) -> float | None:
    if not isinstance(moment, datetime):
        return moment
    if moment.tzinfo is None:
        raise InvalidRequest("a datetime must be aware: which time zone is it in?")
    return moment.timestamp()

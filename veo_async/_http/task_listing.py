"""
Questions to `/veo/tasks` that a caller asks: one task, many, or all of one's own.
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

__all__ = ["about_many", "list_tasks", "or_none", "read_all", "retrieve", "retrieve_many"]

NOT_FOUND: Final = 404
PAGE: Final = 50  # records; the vendor's help recommends at most that, its default is 12
MOST_PAGES: Final = 2000  # a listing that goes on for ever is broken


async def retrieve(http: Http, *, task_id: str | None, trace_id: str | None) -> TaskRecord:
    """
    Ask about one task, by exactly one of its ids.
    """
    if (task_id is None) == (trace_id is None):
        raise InvalidRequest("give a task_id or a trace_id, and not both")
    wanted = {"id": task_id} if task_id is not None else {"trace_id": trace_id}
    raw = await or_none(http.read({"action": "retrieve", **wanted}))
    if raw is None:
        raise TaskNotFound(f"the server knows no task {task_id or trace_id}", task_id=task_id)
    return task_record(raw)


async def or_none(answer: Awaitable[Any]) -> dict[str, Any] | None:
    """
    Read the record that a `retrieve` is answered with; None where the server knows no such task.
    """
    try:
        return read_record(await answer)
    except BadRequest as error:
        # [C] a sibling answers an unknown id with 404; [D] `no_api` means that there is no such endpoint.
        if error.status != NOT_FOUND or error.code == "no_api":
            raise
        return None


def about_many(task_ids: Sequence[str]) -> dict[str, Any]:
    """
    Make the question about many tasks at once.
    """
    # Whether `limit` also caps a question by ids is not known, so it is said.
    return {"action": "retrieve_batch", "ids": task_ids, "offset": 0, "limit": len(task_ids)}


async def retrieve_many(http: Http, task_ids: Iterable[str], *, at_once: int) -> dict[str, TaskRecord]:
    """
    Ask about many tasks, `at_once` in a request; ids that the server does not know are absent.
    """
    found: dict[str, TaskRecord] = {}
    remaining = iter(dict.fromkeys(task_ids))
    while ids := list(islice(remaining, at_once)):
        for raw in read_batch(await http.read(about_many(ids))):
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
    Go through the caller's own tasks; each is given once, however the pages shift while they are read.
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
        # A short page need not be the last: the server may cap `limit`. One with nothing new is.
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
    Read a listing with everything on it as it came; tells whether that was to the end.

    On a busy account new tasks push the others down while it is read, so that a page begins with what came before.
    Any other repetition stays, for the reconciler to see that the listing moved under it.

    Args:
        created_from: Unix seconds by the clock of the records; None for all tasks.
    """
    filters = {} if created_from is None else {"created_at_min": created_from}
    records: list[object] = []
    known: set[str | None] = set()
    while len(records) <= MOST_PAGES * PAGE:
        question = {"action": "retrieve_batch", "offset": len(records), "limit": PAGE, **filters}
        page = read_items(await http.read(question))
        ids = [task_id_of(record) for record in page]
        pushed = next((place for place, task_id in enumerate(ids) if task_id not in known), len(page))
        fresh = page[pushed:]
        if known.issuperset(filter(None, ids)):
            # Nothing new: the end, pushed down by new tasks. The whole once more: `offset` was not heeded.
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

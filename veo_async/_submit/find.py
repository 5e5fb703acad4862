"""
Which keys have tasks: asked of the account's listing, by their marks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .._api.marks import mark_of
from .._api.records import TaskRecord
from .._api.tasks import task_record
from .._http.client import Http
from .._http.listing import read_all
from ..errors import ProtocolError
from .shown import ShownTasks

__all__ = ["find_by_keys"]


async def find_by_keys(http: Http, keys: Sequence[str], *, recall: float) -> dict[str, TaskRecord]:
    """
    Find the tasks of these keys by their marks, among those of the last `recall` seconds.

    Raises:
        ProtocolError: some keys were not found, and the listing could not be read to its end.
    """
    now = http.clock.earliest(asyncio.get_running_loop().time())
    records, complete = await read_all(http, now - recall)
    shown, raw = ShownTasks(0.0), {}
    for record in records:
        if isinstance(record, dict) and (task_id := shown.add(record)) is not None:
            raw[task_id] = record
    best = {key: shown.of_name(mark_of(key), first=1, skip_failed=False) for key in keys}
    if not complete and not all(best.values()):
        raise ProtocolError(
            "the account's listing cannot be read to its end: that a key is not in it proves nothing"
        )
    return {key: task_record(raw[tasks[0].id]) for key, tasks in best.items() if tasks}

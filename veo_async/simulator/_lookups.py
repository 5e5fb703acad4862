"""
Answers lookups and listings, and applies the faults of records.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any, Final

from attrs import define, evolve

from ._calls import Call, list_of, number, paging
from ._faults import Hit
from ._records import TRACE_MASK, Link, Task, dashed, number_of, record
from ._rules import Refusal
from ._settings import Settings

__all__ = ["Lookups"]

Items = list[dict[str, Any]]


@define(eq=False)
class Lookups:
    """
    Answers lookups and listings.
    """

    settings: Settings
    tasks: Mapping[str, Task]
    link: Link
    new_id: Callable[[], str]

    def answer(self, call: Call, hit: Hit | None) -> object:
        """
        Return the body of the answer.
        """
        match call.kind:
            case "retrieve":
                return self._retrieve(call, hit)
            case "retrieve_batch":
                return self._batch(call, hit)
            case _:
                return self._list(call, hit)

    def _names(self, ids: Sequence[str], traces: Sequence[str]) -> list[str]:
        names = [*ids, *(dashed((number_of(trace) or 0) ^ TRACE_MASK) for trace in traces)]
        return names if self.settings.repeats else [*dict.fromkeys(names)]

    def _find(self, call: Call, names: Sequence[str]) -> list[Task]:
        found = (self.tasks.get(name) for name in names)
        mine = (task for task in found if task and task.account == call.account.name)
        return [task for task in mine if task.visible_at <= call.now]

    def _show(self, task: Task, now: float) -> dict[str, Any]:
        task.shown = task.shown or now >= task.ends_at
        return record(task, self.settings, self.link, now)

    def _retrieve(self, call: Call, hit: Hit | None) -> object:
        ids, traces = ([value] if (value := _text(call.body, name)) else [] for name in ("id", "trace_id"))
        if not ids and not traces:
            raise Refusal("bad_request", "id or trace_id is required")
        found = self._find(call, self._names(ids, [] if ids else traces))
        items = self._with_fault(found, call, hit, alone=True)
        if items:
            return items[0]
        if self.settings.unknown == "404":
            raise Refusal("bad_request", "The task does not exist.", status=404)
        return {} if self.settings.unknown == "{}" else None

    def _batch(self, call: Call, hit: Hit | None) -> object:
        ids, traces = list_of(call.body, "ids"), list_of(call.body, "trace_ids")
        most = self.settings.max_batch
        if most is not None and len(ids) + len(traces) > most:
            raise Refusal("bad_request", f"At most {most} tasks can be retrieved at once.")
        found = self._find(call, self._names(ids, traces))
        if self.settings.limit_caps_ids:
            offset, limit = paging(call.body)
            found = found[offset : offset + limit]
        items = self._with_fault(found, call, hit)
        return {"items": items, "count": len(items)}

    def _list(self, call: Call, hit: Hit | None) -> object:
        offset, limit = paging(call.body)
        kind, since, until = self._filters(call.body)
        if self.settings.listing == "refused":
            raise Refusal("bad_request", "ids is required")
        if self.settings.listing == "empty":
            return {"items": [], "count": 0}
        closed = self.settings.bounds_inclusive
        listing = call.account.listing(call.now, since=since, until=until, closed=closed)
        newest_first = self.settings.order == "newest"
        found, size = listing.page(offset, limit, newest_first=newest_first, kind=kind)
        items = self._with_fault(found, call, hit)
        return {"items": items, "count": size if self.settings.count == "total" else len(items)}

    def _filters(self, body: Mapping[str, Any]) -> tuple[object, float, float]:
        since, until = number(body, "created_at_min", -inf), number(body, "created_at_max", inf)
        if self.settings.listing == "unfiltered":
            return None, -inf, inf
        return body.get("type"), since, until

    # --- faults ----------------------------------------------------------------------------------------

    def _with_fault(self, found: list[Task], call: Call, hit: Hit | None, *, alone: bool = False) -> Items:
        if hit is None or hit.fault.kind not in _RECORD_FAULTS:
            return [self._show(task, call.now) for task in found]
        return _RECORD_FAULTS[hit.fault.kind](self, found, call.now, hit, alone)

    def _missing(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        gone = _some(found, hit)
        return [self._show(task, now) for task in found if task.id not in gone]

    def _shuffled(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        items = [self._show(task, now) for task in found]
        hit.random.shuffle(items)
        return items

    def _doubled(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        return self._shuffled(found * 2, now, hit, alone)

    def _strangers(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        strangers = [record(self._stranger(task), self.settings, self.link, now) for task in found]
        if alone:
            return strangers
        return strangers + [self._show(task, now) for task in found]

    def _stranger(self, task: Task) -> Task:
        other = self.new_id()
        # The stranger has the same request, but no callback URL, as another client submitted it.
        body = {name: value for name, value in task.body.items() if name != "callback_url"}
        return evolve(
            task, id=other, number=number_of(other) or 0, body=body, ends_at=task.created_at, error=None
        )

    def _stale(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        old = _some(found, hit)
        return [
            record(task, self.settings, self.link, -inf) if task.id in old else self._show(task, now)
            for task in found
        ]

    def _flipped(self, found: list[Task], now: float, hit: Hit, alone: bool) -> Items:
        pending = [record(task, self.settings, self.link, -inf) for task in found]
        return [self._show(task, now) for task in found] + pending


_RECORD_FAULTS: Final[Mapping[str, Callable[[Lookups, list[Task], float, Hit, bool], Items]]] = {
    "missing": Lookups._missing,
    "shuffled": Lookups._shuffled,
    "doubled": Lookups._doubled,
    "strangers": Lookups._strangers,
    "stale": Lookups._stale,
    "flipped": Lookups._flipped,
}


def _some(found: list[Task], hit: Hit) -> set[str]:
    """
    Choose the tasks that the fault applies to: those of the struck jobs, or half of them, so that the others go on.
    """
    ids = dict.fromkeys(task.id for task in found)
    struck = [task_id for task_id in ids if task_id in hit.keys] or [*ids]
    return set(struck if hit.whole else hit.random.sample(struck, (len(struck) + 1) // 2))


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise Refusal("bad_request", f"{name} is invalid")
    return value

"""
Reads raw task records, and the answers that hold them.

Types are strict (nothing is coerced); unknown fields are allowed.
The facts come from the vendor's documents and clients; each table gives its source:
[D] documented, [C] seen in one of the vendor's clients, [I] inferred.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, TypeVar

import cattrs
from attrs import field, frozen

from ..errors import JobFailed, ProtocolError
from .records import TaskError, TaskRecord, TaskState, Video, VideoResult, is_id
from .requests import Request
from .states import classify, has_video, items_of, lacks_link
from .wire import MAX_DEPTH, code_and_message, deeper_than, trace_id_of

__all__ = [
    "BatchStates",
    "batch_states",
    "failure_of",
    "read_batch",
    "read_items",
    "read_record",
    "task_id_of",
    "task_record",
    "video_result",
]

Shape = TypeVar("Shape")

BEIJING: Final = timezone(timedelta(hours=8))  # [I] from the arithmetic of the documents' examples


# --- one record ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class _Item:
    """
    One entry of `data[]` [D].
    """

    id: str = ""
    video_url: str
    state: str | None = None
    created_at: datetime | None = None
    complete_at: datetime | None = None


@frozen(kw_only=True)
class _Record:
    """
    A task record [D]; only newer records have the three times.
    """

    id: str
    trace_id: str | None = None
    type: str | None = None
    request: dict[str, Any] = field(factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    value.encode()  # refuses a lone surrogate: UnicodeEncodeError is a ValueError
    return value


def _mapping(value: object, _: object) -> dict[str, Any]:
    # A record is valid without the echo of its request.
    return value if isinstance(value, dict) else {}


def _moment(value: object, _: object) -> datetime | None:
    """
    Read a time in any documented form. An unreadable time becomes None, since no video depends on it.
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            # [I] times without a zone are UTC+8.
            return moment if moment.tzinfo else moment.replace(tzinfo=BEIJING)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


_inward: Final = cattrs.Converter(detailed_validation=False)
_inward.register_structure_hook(str, _string)
_inward.register_structure_hook_func(lambda kind: kind == dict[str, Any], _mapping)
_inward.register_structure_hook(datetime | None, _moment)


def task_record(raw: Mapping[str, Any]) -> TaskRecord:
    """
    Make a `TaskRecord` from a raw record.

    Raises:
        ProtocolError: a required field is missing or has the wrong type.
    """
    known = _structure(raw, _Record)
    state = classify(raw)
    return TaskRecord(
        id=known.id,
        trace_id=known.trace_id,
        type=known.type,
        state=state,
        request=known.request,
        videos=_videos(known.id, _response(raw)) if state is TaskState.SUCCEEDED else (),
        error=_task_error(_response(raw)) if state is TaskState.FAILED else None,
        created_at=known.created_at,
        started_at=known.started_at,
        finished_at=known.finished_at,
        raw=raw,
    )


def video_result(task_id: str, raw: Mapping[str, Any], request: Request | None) -> VideoResult:
    """
    Make the result of a succeeded task from its record.

    Raises:
        ProtocolError: a required field is missing or has the wrong type.
    """
    response = _response(raw)
    return VideoResult(
        task_id=task_id,
        trace_id=trace_id_of(raw) or trace_id_of(response),
        request=request,
        videos=_videos(task_id, response),
        raw=raw,
    )


def failure_of(task_id: str, raw: Mapping[str, Any]) -> JobFailed:
    """
    Make the error of a failed task from its record.
    """
    response = _response(raw)
    error = _task_error(response)
    trace_id = trace_id_of(raw) or trace_id_of(response)
    return JobFailed(error.message, code=error.code, trace_id=trace_id, task_id=task_id)


def _structure(raw: Mapping[str, Any], shape: type[Shape]) -> Shape:
    try:
        return _inward.structure(raw, shape)
    except (ValueError, TypeError, KeyError) as error:
        raise ProtocolError(f"the API sent a record that cannot be read: {error}") from error


def _response(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    response = raw.get("response")
    return response if isinstance(response, dict) else {}


def _videos(task_id: str, response: Mapping[str, Any]) -> tuple[Video, ...]:
    return tuple(_video(task_id, item) for item in items_of(response) if has_video(item))


def _video(task_id: str, raw: Mapping[str, Any]) -> Video:
    # The caller has paid for the link, so an `id` or `state` of the wrong type must not withhold it.
    texts = {name: raw[name] for name in ("id", "state") if _is_text(raw.get(name))}
    rest = {name: value for name, value in raw.items() if name not in ("id", "state")}
    item = _structure(rest | texts, _Item)
    return Video(
        id=item.id,
        task_id=task_id,
        url=item.video_url,
        state=item.state,
        created_at=item.created_at,
        completed_at=item.complete_at,
        raw=raw,
    )


def _is_text(value: object) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _task_error(response: Mapping[str, Any]) -> TaskError:
    code, message = code_and_message(response)
    if not message and response.get("success") is not False:
        message = "the task ended without a video"
    return TaskError(code=code, message=message)


# --- answers that hold records -------------------------------------------------------------------------


def task_id_of(record: object) -> str | None:
    """
    Read the id of a raw record; None if it has no usable one.
    """
    value = record.get("id") if isinstance(record, dict) else None
    return value if is_id(value) else None


def read_items(data: object) -> list[object]:
    """
    Return the list in a `retrieve_batch` reply, `{"items": [...], "count": n}` [D].

    Raises:
        ProtocolError: it has no list of items.
    """
    items = data.get("items") if isinstance(data, dict) else data
    if not isinstance(items, list):
        raise ProtocolError("the reply to retrieve_batch has no list of items")
    return items


def read_batch(data: object) -> list[dict[str, Any]]:
    """
    Read the records of a `retrieve_batch` reply.

    Raises:
        ProtocolError: it has no list of items.
    """
    return [item for item in read_items(data) if isinstance(item, dict) and task_id_of(item)]


class BatchStates(NamedTuple):
    """
    The states of the polled tasks; a task that the answer left out is in none of the attributes.

    Attributes:
        pending: ids of pending tasks.
        ended: records of ended tasks, by id.
        unreadable: ids of ended tasks whose record is nested deeper than `MAX_DEPTH`.
        linkless: ids of those pending tasks that succeeded without a usable link.
    """

    pending: Collection[str]
    ended: Mapping[str, Mapping[str, Any]]
    unreadable: Collection[str] = ()
    linkless: Collection[str] = ()


def batch_states(items: Iterable[object], asked: Iterable[str]) -> BatchStates:
    """
    Sort the polled tasks by the state in their raw records; records of other tasks are ignored.

    If a task has two records, a terminal one outranks a pending one, and a video outranks a failure.
    """
    waiting = frozenset(asked)
    pending: dict[str, None] = {}
    ended: dict[str, dict[str, Any]] = {}
    unreadable: dict[str, None] = {}
    linkless: dict[str, None] = {}
    for item in items:
        if not isinstance(item, dict):
            continue
        task_id = item.get("id")
        if not isinstance(task_id, str) or task_id not in waiting:
            continue
        # Most tasks are pending and have no response yet; this test saves them the call of `classify`.
        if item.get("response") is None:
            pending[task_id] = None
        elif classify(item) is TaskState.PENDING:
            pending[task_id] = None
            if lacks_link(item):
                linkless[task_id] = None
        elif deeper_than(item, MAX_DEPTH):
            unreadable[task_id] = None
        elif task_id not in ended or classify(item) is TaskState.SUCCEEDED:
            ended[task_id] = item
    for task_id in ended:
        pending.pop(task_id, None)
        unreadable.pop(task_id, None)
    for task_id in unreadable:
        pending.pop(task_id, None)
    return BatchStates([*pending], ended, [*unreadable], tuple(linkless.keys() & pending.keys()))


def read_record(data: object) -> dict[str, Any] | None:
    """
    Read the record of a `retrieve` reply; None for `{}` or `null`, the answers about an unknown id [C].

    Raises:
        ProtocolError: it is neither a record nor one of these.
    """
    if data is None or data == {}:
        return None
    if not isinstance(data, dict) or task_id_of(data) is None:
        raise ProtocolError("the reply to retrieve is not a task record")
    return data

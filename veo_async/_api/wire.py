"""
Bytes to records and back, and what an answer means.

Strict about types (nothing is coerced), open to fields nobody knows yet.
The facts come from the vendor's documents and clients; each table names its source in short:
[D] documented, [C] seen in one of the vendor's clients, [I] inferred.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple, TypeVar

import cattrs
from attrs import Attribute, field, fields, frozen
from cattrs.gen import make_dict_unstructure_fn, override

from ..errors import JobFailed, ProtocolError
from .records import is_id
from .requests import (
    REQUEST_TYPES,
    Request,
    TaskError,
    TaskRecord,
    TaskState,
    Video,
    VideoResult,
)
from .rules import SMALLEST
from .states import classify, has_video, items_of, lacks_link

__all__ = [
    "classify",
    "code_and_message",
    "decode",
    "dump_outcome",
    "dump_request",
    "encode",
    "failure_of",
    "glimpse",
    "load_outcome",
    "load_request",
    "read_batch",
    "read_items",
    "read_record",
    "standings",
    "task_id_of",
    "task_record",
    "trace_id_of",
    "video_result",
]

Shape = TypeVar("Shape")

MAX_DEPTH: Final = 64  # a record nests six deep; anything far beyond is not the API's
_NESTS: Final = frozenset((dict, list))
MAX_MESSAGE: Final = 500  # characters of somebody else's text that an error may carry
BEIJING: Final = timezone(timedelta(hours=8))  # [I] from the arithmetic of the documents' examples


# --- bytes -----------------------------------------------------------------------------------------------


def decode(body: bytes, *, any_depth: bool = False) -> Any:
    """
    Read a reply's JSON.

    Args:
        any_depth: leave it to the caller to bound how deep that nests which is kept.

    Raises:
        ProtocolError: it is empty, not UTF-8, not JSON, cut off, or nested deeper than `MAX_DEPTH`.
    """
    if not body.strip():
        raise ProtocolError("the reply is empty")
    try:
        data = json.loads(body.removeprefix(BOM_UTF8).decode())
    except RecursionError:
        raise ProtocolError("the reply is nested too deep") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise ProtocolError(f"the reply is not JSON: {glimpse(body)}") from error
    opened = 0 if any_depth else body.count(b"{") + body.count(b"[")
    if opened > MAX_DEPTH and _deeper_than(data, MAX_DEPTH):
        raise ProtocolError("the reply is nested too deep")
    return data


def _deeper_than(data: object, levels: int) -> bool:
    # Much goes through this, so it makes no calls; and these two are all that JSON nests.
    layer: list[Any] = [data] if type(data) in _NESTS else []
    while layer and levels:
        layer = [
            child
            for node in layer
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _NESTS
        ]
        levels -= 1
    return bool(layer)


def glimpse(body: bytes) -> str:
    text = body[:2000].decode("utf-8", "replace")
    if title := re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE):
        return f"a page titled {' '.join(title[1].split())!r}"
    return repr(" ".join(text.split())[:100])


# --- requests, outwards ----------------------------------------------------------------------------------

# One table of renamed fields: `target` avoids calling two different things `action`.
_RENAMED: Final = {"target": "action"}

_outward: Final = cattrs.Converter(unstruct_collection_overrides={tuple: list})


def _leave_out_if_unset(attribute: Attribute[Any]) -> Any:
    return override(
        rename=_RENAMED.get(attribute.name),
        omit_if_default=attribute.default is None or attribute.default is False,
    )


for _kind in REQUEST_TYPES.values():
    _overrides = {attribute.name: _leave_out_if_unset(attribute) for attribute in fields(_kind)}
    _outward.register_unstructure_hook(_kind, make_dict_unstructure_fn(_kind, _outward, **_overrides))


def encode(request: Request) -> dict[str, Any]:
    """
    Make the body of a submit: always asynchronous, with everything that was set.
    """
    body: dict[str, Any] = {"action": request.action} if request.action else {}
    body |= _outward.unstructure(request)
    if request.endpoint == Request.endpoint and body.get("resolution") == SMALLEST:
        del body["resolution"]  # seed: 720p is what leaving it out gives, and no listed value
    body["async"] = True
    return body


# --- requests and outcomes, to be kept -------------------------------------------------------------------

_kept: Final = cattrs.Converter(omit_if_default=True, detailed_validation=False)


def dump_request(request: Request) -> str:
    """
    Write a request as JSON text; equal requests give equal texts.
    """
    return _text({"kind": type(request).__name__} | _kept.unstructure(request))


def load_request(text: str) -> Request:
    """
    Read what `dump_request` wrote, and nothing else: it may be bought.

    Raises:
        Exception: of any kind that reading a text may end in.
    """
    kept = json.loads(text)
    request = _kept.structure(kept, REQUEST_TYPES[kept.pop("kind")])
    if dump_request(request) != text:
        raise ValueError("no request was written so")
    return request


def dump_outcome(outcome: VideoResult | JobFailed) -> str:
    """
    Write a job's lasting outcome as JSON text.
    """
    names = ("task_id", "trace_id", "code", "message", "raw")
    return _text({name: getattr(outcome, name) for name in names if hasattr(outcome, name)})


def load_outcome(text: str, request: Request | None) -> VideoResult | JobFailed:
    """
    Read what `dump_outcome` wrote.

    Raises:
        Exception: of any kind that reading a text may end in.
    """
    kept = json.loads(text)
    if not text.isascii() or not is_id(kept["task_id"]):
        raise ValueError("no outcome was written so")
    if "raw" not in kept:
        code, message = code_and_message({"error": {name: kept[name] for name in ("code", "message")}})
        return JobFailed(message, code=code, trace_id=trace_id_of(kept), task_id=kept["task_id"])
    result = video_result(kept["task_id"], kept["raw"], request)
    if not result.videos:
        raise ValueError("a result has a video")
    return result


def _text(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


# --- records, inwards ------------------------------------------------------------------------------------


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
    A task record [D]; the three later times are in newer records only.
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
    value.encode()  # a lone surrogate is no text: UnicodeEncodeError is a ValueError
    return value


def _mapping(value: object, _: object) -> dict[str, Any]:
    # The echo of the request is evidence, not a condition: without one the record still counts.
    return value if isinstance(value, dict) else {}


def _moment(value: object, _: object) -> datetime | None:
    """
    Read a time in any documented form; one that cannot be read is None, since no video depends on it.
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
    Make a `TaskRecord` of a raw record.

    Raises:
        ProtocolError: a field that matters is missing or of the wrong type.
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
    Make the result of a task that succeeded, from its record.

    Raises:
        ProtocolError: a field that matters is missing or of the wrong type.
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
    Make the error of a task that failed, from its record.
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
    # The link is what was paid for: an id or a word of the wrong type is no reason to withhold it.
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


def trace_id_of(holder: Mapping[str, Any]) -> str | None:
    value = holder.get("trace_id")
    return value if is_id(value) else None


def task_id_of(record: object) -> str | None:
    """
    Read the id of a raw record; None where it has no usable one.
    """
    value = record.get("id") if isinstance(record, dict) else None
    return value if is_id(value) else None


def read_items(data: object) -> list[object]:
    """
    Find what is listed in a `retrieve_batch` reply, `{"items": [...], "count": n}` [D].

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


class Standings(NamedTuple):
    """
    How tasks stand that were asked about; those of which the answer says nothing are in none of these.

    Attributes:
        pending: their ids.
        ended: their records.
        unreadable: the ids of those that have ended with a record nested deeper than `MAX_DEPTH`.
        linkless: which of the pending have succeeded, and have no link that can be used.
    """

    pending: Collection[str]
    ended: Mapping[str, Mapping[str, Any]]
    unreadable: Collection[str] = ()
    linkless: Collection[str] = ()


def standings(items: Iterable[object], asked: Iterable[str]) -> Standings:
    """
    Tell from raw records how the tasks asked about stand; what is said of others is nobody's business.

    The same task twice: an end outranks, and a video outranks a failure.
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
        # Most are pending, and say so by having no answer: that is seen without a call.
        if item.get("response") is None:
            pending[task_id] = None
        elif classify(item) is TaskState.PENDING:
            pending[task_id] = None
            if lacks_link(item):
                linkless[task_id] = None
        elif _deeper_than(item, MAX_DEPTH):
            unreadable[task_id] = None
        elif task_id not in ended or classify(item) is TaskState.SUCCEEDED:
            ended[task_id] = item
    for task_id in ended:
        pending.pop(task_id, None)
        unreadable.pop(task_id, None)
    for task_id in unreadable:
        pending.pop(task_id, None)
    return Standings([*pending], ended, [*unreadable], tuple(linkless.keys() & pending.keys()))


def read_record(data: object) -> dict[str, Any] | None:
    """
    Read the record of a `retrieve` reply; an unknown id is answered with `{}` or `null` [C].

    Raises:
        ProtocolError: it is something else altogether.
    """
    if data is None or data == {}:
        return None
    if not isinstance(data, dict) or task_id_of(data) is None:
        raise ProtocolError("the reply to retrieve is not a task record")
    return data


# --- words of an error, for records and answers alike ------------------------------------------------------


def code_and_message(data: object) -> tuple[str | None, str]:
    """
    Find the code and the message in an error body of any shape seen: `error` as an object [D], a string,
    a list or null, `detail`, or plain text [C].
    """
    if not isinstance(data, dict):
        return None, _flat(data)
    error = data.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return (code if is_id(code) else None), _flat(error.get("message") or error.get("detail"))
    return None, _flat(error or data.get("detail") or data.get("message"))


def _flat(value: object) -> str:
    """
    Turn whatever stands where a message should be into one line of bounded length.
    """
    if isinstance(value, list):
        return "; ".join(filter(None, map(_flat, value[:5])))[:MAX_MESSAGE]
    if isinstance(value, dict):
        return _flat(value.get("message") or value.get("msg") or json.dumps(value)[:MAX_MESSAGE])
    text = "" if value is None else str(value)
    return " ".join(text.encode("utf-8", "replace").decode()[: 2 * MAX_MESSAGE].split())[:MAX_MESSAGE]

"""
A task as the server keeps it, and every form in which the documents show it.
"""

from __future__ import annotations

import html
import re
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, Literal

from attrs import define, field

from ._rules import model_of
from ._settings import CallbackUrlForm, FailedForm, PendingForm, Settings

__all__ = ["Task", "dashed", "failure", "number_of", "record", "result", "video_ids"]

Link = Callable[["Task", int], str]
State = Literal["pending", "succeeded", "failed"]

# Other ids are the task's number XOR a mask, so they need not be stored to be found.
# The zeros keep the digits of a UUID's version and variant.
TRACE_MASK: Final = 0x5A17C3D94E6B0F2D00B81C6A93F47E25
VIDEO_MASK: Final = 0x3C9E27B1D5840A6F007D52E8B6194CF3
MAX_VIDEOS: Final = 9


def dashed(number: int) -> str:
    """
    Write a number as a UUID.
    """
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def number_of(text: object) -> int | None:
    """
    Read a UUID, dashed or not; None for anything else.
    """
    try:
        return int(str(text).replace("-", ""), 16)
    except ValueError:
        return None


@define(eq=False, kw_only=True)
class Task:
    """
    One accepted request.

    Attributes:
        id: the task's id.
        number: the same as a number.
        token, account: the token that submitted it, and the account that owns it.
        path: the endpoint.
        body: the submitted body, without the fields that the endpoint does not know.
        created_at: in Unix seconds, by the clock that dates records.
        ends_at: Unix seconds.
        error: the code and message it fails with, or None.
        videos: how many videos it makes.
        source: the task whose video it works on, or None.
        visible_at: when lookups begin to find it, in Unix seconds.
        linked_at: when its current link was made, in Unix seconds.
        counted: whether its account has counted it as ended.
        shown: whether an answer has already shown it as ended.
    """

    id: str
    number: int = field(repr=False)
    token: str = field(repr=False)
    account: str
    path: str
    body: Mapping[str, Any]
    created_at: float
    ends_at: float
    error: tuple[str, str] | None = None
    videos: int = 1
    source: Task | None = None
    visible_at: float
    linked_at: float = field(default=0.0, repr=False)
    counted: bool = field(default=False, repr=False)
    shown: bool = field(default=False, repr=False)

    @property
    def trace_id(self) -> str:
        """
        The id that the vendor's support would ask for.
        """
        return dashed(self.number ^ TRACE_MASK)

    @property
    def type(self) -> str:
        """
        The record's `type`: the last part of the endpoint's path, such as `videos`.
        """
        return self.path.rsplit("/", 1)[1]

    @property
    def origin(self) -> Task:
        """
        The task whose video ids and times this one shows: itself, or for get1080p its source's origin.
        """
        again = self.source is not None and self.body.get("action") in {"get1080p", "get_1080p"}
        return self.source.origin if again and self.source else self

    def state(self, now: float) -> State:
        """
        Return the task's state.
        """
        if now < self.ends_at:
            return "pending"
        return "failed" if self.error else "succeeded"


def video_ids(task: Task, settings: Settings) -> list[str]:
    """
    Return the ids of a task's videos.
    """
    first = task.origin.number ^ VIDEO_MASK
    write = dashed if settings.video_ids == "dashed" else "{:032x}".format
    return [write(first ^ index) for index in range(max(1, task.videos))]


# --- `data` --------------------------------------------------------------------------------------------


def _utc8(at: float) -> str:
    return (datetime.fromtimestamp(at, UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_TIMES: Final = {"utc8": _utc8, "iso": _iso}


def _finished_at(task: Task, settings: Settings) -> float:
    return task.ends_at + settings.records_ahead


def _videos(task: Task, settings: Settings, link: Link) -> list[dict[str, Any]]:
    write = _TIMES[settings.times]
    origin = task.origin
    times = {"created_at": write(origin.created_at), "complete_at": write(_finished_at(origin, settings))}
    if not task.videos:  # a success without a video
        return [{"id": video_ids(task, settings)[0], **times, "state": settings.success_word}]
    return [
        {"id": video_id, "video_url": link(task, index), **times, "state": settings.success_word}
        for index, video_id in enumerate(video_ids(task, settings))
    ]


def _ids(task: Task) -> dict[str, Any]:
    return {"task_id": task.id, "trace_id": task.trace_id}


def result(task: Task, settings: Settings, link: Link) -> dict[str, Any]:
    """
    Return a finished task in the form of a synchronous answer, a callback and a record's `response`.
    """
    return {"success": True, **_ids(task), "data": _videos(task, settings, link)}


def failure(task: Task) -> dict[str, Any]:
    """
    Return a failed task in the form of a callback.
    """
    code, message = task.error or ("api_error", "")
    return {"success": False, **_ids(task), "error": {"code": code, "message": message}}


# --- the record ----------------------------------------------------------------------------------------

_ABSENT: Final = object()


def _waiting(word: str) -> Callable[[Task], Any]:
    return lambda task: {"success": True, **_ids(task), "data": [{"state": word}]}


_PENDING: Final[Mapping[PendingForm, Callable[[Task], Any]]] = {  # seen in the vendor's clients
    "absent": lambda task: _ABSENT,
    "null": lambda task: None,
    "empty": lambda task: {},
    "started": lambda task: {"success": True, "task_id": task.id},
    "no_data": lambda task: {"success": True, "data": []},
    "null_data": lambda task: {"success": True, "data": None},
    "running": _waiting("running"),
    "processing": _waiting("processing"),
    "pending": _waiting("pending"),
    "queued": _waiting("queued"),
    "hiccup": lambda task: {"success": False, "error": "temporary"},
    "null_error": lambda task: {"success": False, "error": None},
}


def _failed_state(task: Task, settings: Settings) -> dict[str, Any]:
    item = {"id": video_ids(task, settings)[0], "state": settings.failed_word}
    return {"success": False, **_ids(task), "data": [item]}


def _empty_success(task: Task, settings: Settings) -> dict[str, Any]:
    item = {"id": video_ids(task, settings)[0], "state": settings.success_word}
    return {"success": True, **_ids(task), "data": [item]}


def _bare(error: str | None, task: Task) -> dict[str, Any]:
    return {"success": False, **_ids(task), "error": error}


_FAILED: Final[Mapping[FailedForm, Callable[[Task, Settings], Any]]] = {  # seen in the vendor's clients
    "error": lambda task, settings: failure(task),
    "open": lambda task, settings: failure(task),
    "text": lambda task, settings: _bare((task.error or ("", ""))[1], task),
    "null": lambda task, settings: _bare(None, task),
    "state": _failed_state,
    "empty_success": _empty_success,
}
_NEEDS_FINISHED_AT: Final = {"text", "null"}  # without it they would mean a temporary error


def _pick(form: str, forms: Mapping[Any, Any], task: Task) -> str:
    return str([*forms][task.number % len(forms)]) if form == "mixed" else form


def _cut_off(url: str) -> str:
    return url.partition("#")[0].partition("?")[0]


def _rewritten(url: str) -> str:
    """
    Rewrite a URL with the same meaning: capitals where case is ignored, parameters reversed, needless escapes.
    """
    url, hash_sign, fragment = url.partition("#")
    url, question_mark, query = url.partition("?")
    scheme, slashes, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    query = "&".join(reversed(query.split("&")))
    tail = slash + path + question_mark + query + hash_sign + fragment
    return (scheme + slashes + host).upper() + re.sub(r"[-._~]", lambda found: f"%{ord(found[0]):X}", tail)


def _escaped(url: str) -> str:
    return html.escape(url).replace("/", "&#x2F;").replace("=", "&#x3D;")  # as cautious templates do


_CALLBACK_URLS: Final[Mapping[CallbackUrlForm, Callable[[str], str | None]]] = {
    "whole": lambda url: url,
    "cut_off": _cut_off,
    "rewritten": _rewritten,
    "escaped": _escaped,
    "absent": lambda url: None,
}


def _echo(task: Task, settings: Settings) -> dict[str, Any]:
    body = {name: value for name, value in task.body.items() if name not in settings.echo_omits}
    if url := body.pop("callback_url", None):
        shown = _CALLBACK_URLS[settings.echo_callback_url](url)
        body |= {} if shown is None else {"callback_url": shown}
    if settings.echo_defaults and task.path == "/veo/videos":
        body["model"] = model_of(task.body, settings)
    return body


@cache
def _owner(account: str) -> dict[str, str]:
    number = zlib.crc32(account.encode()) * 0x9E3779B97F4A7C15F39CC060  # spreads over the digits of a UUID
    names = ("application_id", "credential_id", "user_id")
    return {name: dashed(number ^ place) for place, name in enumerate(names)}


def _head(task: Task, settings: Settings) -> dict[str, Any]:
    owner = _owner(task.account)
    return {
        "_id": f"{task.number >> 32:024x}",
        "id": task.id,
        "api_id": "52a0fa83-3c78-4793-b45a-c1a5c869ae46",
        "application_id": owner["application_id"],
        "created_at": task.created_at,
        "credential_id": owner["credential_id"],
        "request": _echo(task, settings),
        "trace_id": task.trace_id,
        "type": task.type,
        "user_id": owner["user_id"],
    }


def _finished(task: Task, settings: Settings) -> dict[str, Any]:
    at = _finished_at(task, settings)
    return {"finished_at": round(at, 3), "elapsed": round(at - task.created_at, 3)}


def _pending(task: Task, settings: Settings) -> dict[str, Any]:
    form: Any = _pick(settings.pending, _PENDING, task)
    response = _PENDING[form](task)
    finished = {"finished_at": None} if settings.pending_finished_at == "null" else {}
    return finished if response is _ABSENT else finished | {"response": response}


def _succeeded(task: Task, settings: Settings, link: Link) -> dict[str, Any]:
    times = _finished(task, settings) if settings.newer_fields else {}
    return times | {"response": result(task, settings, link)}


def _failed(task: Task, settings: Settings) -> dict[str, Any]:
    form: Any = _pick(settings.failed, _FAILED, task)
    timed = form in _NEEDS_FINISHED_AT or (settings.newer_fields and form != "open")
    return (_finished(task, settings) if timed else {}) | {"response": _FAILED[form](task, settings)}


def record(task: Task, settings: Settings, link: Link, now: float) -> dict[str, Any]:
    """
    Return a task in the form of lookups and listings.
    """
    started = {"started_at": task.created_at} if settings.newer_fields else {}
    match task.state(now):
        case "pending":
            rest = _pending(task, settings)
        case "succeeded":
            rest = _succeeded(task, settings, link)
        case "failed":
            rest = _failed(task, settings)
    return _head(task, settings) | started | rest

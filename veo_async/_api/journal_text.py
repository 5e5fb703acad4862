"""
Requests, outcomes and refusals as JSON text, which a later process reads again.
"""

from __future__ import annotations

import json
from typing import Final

import cattrs

from .. import errors
from ..errors import ApiError, JobFailed
from .records import VideoResult, is_id
from .requests import REQUEST_TYPES, Request
from .tasks import video_result
from .wire import code_and_message, trace_id_of

__all__ = ["dump_outcome", "dump_refusal", "dump_request", "load_outcome", "load_refusal", "load_request"]

UNREADABLE: Final = "the request was refused"

_kept: Final = cattrs.Converter(omit_if_default=True, detailed_validation=False)


def dump_request(request: Request) -> str:
    """
    Write a request as JSON text; equal requests give equal texts.
    """
    return _text({"kind": type(request).__name__} | _kept.unstructure(request))


def load_request(text: str) -> Request:
    """
    Read a text that `dump_request` wrote. Anything else is refused, because the request may be submitted and paid.

    Raises:
        Exception: of any type, if the text cannot be read.
    """
    kept = json.loads(text)
    request = _kept.structure(kept, REQUEST_TYPES[kept.pop("kind")])
    if dump_request(request) != text:
        raise ValueError("this is not a text that dump_request wrote")
    return request


def dump_outcome(outcome: VideoResult | JobFailed) -> str:
    """
    Write a job's final outcome as JSON text.
    """
    names = ("task_id", "trace_id", "code", "message", "raw")
    return _text({name: getattr(outcome, name) for name in names if hasattr(outcome, name)})


def load_outcome(text: str, request: Request | None) -> VideoResult | JobFailed:
    """
    Read what `dump_outcome` wrote.

    Raises:
        Exception: of any type, if the text cannot be read.
    """
    kept = json.loads(text)
    if not text.isascii() or not is_id(kept["task_id"]):
        raise ValueError("this is not a text that dump_outcome wrote")
    if "raw" not in kept:
        code, message = code_and_message({"error": {name: kept[name] for name in ("code", "message")}})
        return JobFailed(message, code=code, trace_id=trace_id_of(kept), task_id=kept["task_id"])
    result = video_result(kept["task_id"], kept["raw"], request)
    if not result.videos:
        raise ValueError("the result has no video")
    return result


def dump_refusal(error: ApiError) -> str:
    """
    Write the answer that refused a request as JSON text.
    """
    names = ("status", "code", "message", "trace_id")
    return _text({"kind": type(error).__name__} | {name: getattr(error, name) for name in names})


def load_refusal(text: str | None) -> ApiError:
    """
    Read what `dump_refusal` wrote; a text that cannot be read gives an error without particulars.
    """
    try:
        kept = json.loads(text or "")
        kind = getattr(errors, kept.pop("kind"))
        return kind(**kept) if issubclass(kind, ApiError) else ApiError(UNREADABLE)
    except Exception:  # whatever the text is, the request was refused
        return ApiError(UNREADABLE)


def _text(data: object) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))

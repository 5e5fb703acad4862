"""
The state of a task from its raw record: pending, succeeded or failed.

The facts come from the vendor's documents and clients; each table gives its source:
[D] documented, [C] seen in one of the vendor's clients, [I] inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from .records import TaskState, is_id

__all__ = ["classify", "has_video", "items_of", "lacks_link"]

# [D] only `succeeded` for Veo; the other words come from the vendor's other APIs [C].
_SUCCESS_WORDS: Final = frozenset({"succeeded", "succeed", "success", "completed", "complete", "finished"})
_FAILURE_WORDS: Final = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})  # [C]
_PENDING_WORDS: Final = frozenset({"running", "processing", "pending", "queued"})  # [C]


def classify(record: Mapping[str, Any]) -> TaskState:
    """
    Tell whether a task is pending, succeeded or failed, from its raw record.

    In doubt it is pending: a wrong `pending` costs one more poll, a wrong terminal state costs a paid video.

    A success with an unusable `video_url` (null, blank, of a wrong type, relative, not http) is pending: it is
    billed, and the link may follow. A success without the field `video_url` is a failure: no link will follow
    (the "empty success" of the vendor's clients [C]).
    If only some videos of a task have a usable link, the task succeeds with those.
    """
    return _judged(record)[0]


def lacks_link(record: Mapping[str, Any]) -> bool:
    """
    Tell whether a task is pending only because it succeeded without a usable link.
    """
    return _judged(record)[1]


def _judged(record: Mapping[str, Any]) -> tuple[TaskState, bool]:
    response = record.get("response")
    if not isinstance(response, dict) or _is_about_another_task(record, response):
        return TaskState.PENDING, False
    finished = bool(record.get("finished_at"))  # a field that was never set may hold 0
    states = [_item_state(item, response, finished=finished) for item in items_of(response)]
    if response.get("success") is False and _is_final_failure(response, finished=finished):
        return TaskState.FAILED, False
    if TaskState.PENDING in states:
        return TaskState.PENDING, False
    if TaskState.SUCCEEDED in states:
        return TaskState.SUCCEEDED, False
    if None in states:
        return TaskState.PENDING, response.get("success") is not False
    # [C] "empty success": the server reports the end, but there is no video.
    has_ended = (
        bool(states) or (finished and response.get("success") is True) or _word(response) in _SUCCESS_WORDS
    )
    return (TaskState.FAILED if has_ended else TaskState.PENDING), False


def _is_about_another_task(record: Mapping[str, Any], response: Mapping[str, Any]) -> bool:
    """
    Tell whether the response belongs to another task than the record does.
    """
    named, own = response.get("task_id"), record.get("id")
    return is_id(named) and is_id(own) and named != own


def _is_final_failure(response: Mapping[str, Any], *, finished: bool) -> bool:
    error = response.get("error")
    # [C] a structured error is final; a bare string or null may be transient until `finished_at` is set.
    return finished or (isinstance(error, dict) and bool(error.get("code")))


def _item_state(item: Mapping[str, Any], response: Mapping[str, Any], *, finished: bool) -> TaskState | None:
    """
    Return the state of one item of `data`; None for a success with an unusable link.
    """
    word, playable = _word(item), has_video(item)
    if word in _FAILURE_WORDS:
        return TaskState.FAILED
    if word in _PENDING_WORDS:
        return TaskState.PENDING
    if finished or (word or _word(response)) in _SUCCESS_WORDS:
        unplayable = None if "video_url" in item else TaskState.FAILED
        return TaskState.SUCCEEDED if playable else unplayable
    # No known state word: a usable link counts once the server reports success.
    done = playable and response.get("success") is True
    return TaskState.SUCCEEDED if done else TaskState.PENDING


def _word(holder: Mapping[str, Any]) -> str:
    word = holder.get("state")
    return word.lower() if isinstance(word, str) else ""


def has_video(item: Mapping[str, Any]) -> bool:
    url = item.get("video_url")
    try:
        parts = urlsplit(url) if isinstance(url, str) and url.encode() else None
        return parts is not None and parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # a malformed host, or a lone surrogate, which cannot be encoded
        return False


def items_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = response.get("data")
    listed = data if isinstance(data, list) else [data]
    return [item for item in listed if isinstance(item, dict)]

"""
What a raw record says of its task: pending, succeeded or failed.

The facts come from the vendor's documents and clients; each table names its source in short:
[D] documented, [C] seen in one of the vendor's clients, [I] inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from .records import TaskState, is_id

__all__ = ["classify", "has_video", "items_of", "lacks_link"]

# [D] only `succeeded` for Veo; the other words come from its siblings [C].
_SUCCESS_WORDS: Final = frozenset({"succeeded", "succeed", "success", "completed", "complete", "finished"})
_FAILURE_WORDS: Final = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})  # [C]
_PENDING_WORDS: Final = frozenset({"running", "processing", "pending", "queued"})  # [C]


def classify(record: Mapping[str, Any]) -> TaskState:
    """
    Tell whether a task is pending, succeeded or failed, from its raw record.

    In doubt it is pending: a wrong `pending` costs a look, a wrong end would cost a paid video.

    A success whose `video_url` is there and cannot be used (null, blank, of a wrong type, relative, not http) is
    pending: it is billed, and the link may follow. One that has no `video_url` at all is the "empty success" of
    the vendor's clients [C]: no link was ever meant to be there, so it is a failure.
    Where several videos are due, those with a link are handed over.
    """
    return _judged(record)[0]


def lacks_link(record: Mapping[str, Any]) -> bool:
    """
    Tell whether a task is pending only because its success has no link that can be used.
    """
    return _judged(record)[1]


def _judged(record: Mapping[str, Any]) -> tuple[TaskState, bool]:
    response = record.get("response")
    if not isinstance(response, dict) or _is_of_another(record, response):
        return TaskState.PENDING, False
    finished = bool(record.get("finished_at"))  # 0 and the like are what a field holds that was never set
    states = [_item_state(item, response, finished=finished) for item in items_of(response)]
    if response.get("success") is False and _is_final_failure(response, finished=finished):
        return TaskState.FAILED, False
    if TaskState.PENDING in states:
        return TaskState.PENDING, False
    if TaskState.SUCCEEDED in states:
        return TaskState.SUCCEEDED, False
    if None in states:
        return TaskState.PENDING, response.get("success") is not False
    # [C] "empty success": the server says it is done, and there is no video.
    over = bool(states) or (finished and response.get("success") is True) or _word(response) in _SUCCESS_WORDS
    return (TaskState.FAILED if over else TaskState.PENDING), False


def _is_of_another(record: Mapping[str, Any], response: Mapping[str, Any]) -> bool:
    """
    Tell whether the response is about another task than the record: then it says nothing of this one.
    """
    named, own = response.get("task_id"), record.get("id")
    return is_id(named) and is_id(own) and named != own


def _is_final_failure(response: Mapping[str, Any], *, finished: bool) -> bool:
    error = response.get("error")
    # [C] a structured error is final; a bare string or null may be transient until `finished_at` is set.
    return finished or (isinstance(error, dict) and bool(error.get("code")))


def _item_state(item: Mapping[str, Any], response: Mapping[str, Any], *, finished: bool) -> TaskState | None:
    """
    Tell how one item of `data` stands; None for a success whose link cannot be used.
    """
    word, playable = _word(item), has_video(item)
    if word in _FAILURE_WORDS:
        return TaskState.FAILED
    if word in _PENDING_WORDS:
        return TaskState.PENDING
    if finished or (word or _word(response)) in _SUCCESS_WORDS:
        unplayable = None if "video_url" in item else TaskState.FAILED
        return TaskState.SUCCEEDED if playable else unplayable
    # A word nobody knows yet, or none: a video is a video once the server calls it a success.
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
    except ValueError:  # a malformed host, or a lone surrogate, which is no text
        return False


def items_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = response.get("data")
    listed = data if isinstance(data, list) else [data]
    return [item for item in listed if isinstance(item, dict)]

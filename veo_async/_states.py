"""
What a raw record says of its task: pending, succeeded or failed.

The facts come from the vendor's documents and clients; each table names its source in short:
[D] documented, [C] seen in one of the vendor's clients, [I] inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ._results import TaskState

__all__ = ["classify", "has_video", "items_of"]

# [D] only `succeeded` for Veo; the other words come from its siblings [C].
_SUCCESS_WORDS: Final = frozenset({"succeeded", "succeed", "success", "completed", "complete", "finished"})
_FAILURE_WORDS: Final = frozenset({"failed", "failure", "error", "cancelled", "canceled", "rejected"})  # [C]
_PENDING_WORDS: Final = frozenset({"running", "processing", "pending", "queued"})  # [C]


def classify(record: Mapping[str, Any]) -> TaskState:
    """
    Tell whether a task is pending, succeeded or failed, from its raw record.

    In doubt it is pending: a wrong `pending` costs a look, a wrong end would cost a paid video.
    """
    response = record.get("response")
    if not isinstance(response, dict):
        return TaskState.PENDING
    finished = bool(record.get("finished_at"))  # 0 and the like are what a field holds that was never set
    items = items_of(response)
    states = [_item_state(item, response, finished=finished) for item in items]
    if response.get("success") is False and _is_final_failure(response, finished=finished):
        return TaskState.FAILED
    if TaskState.PENDING in states:
        return TaskState.PENDING
    if TaskState.SUCCEEDED in states:
        return TaskState.SUCCEEDED
    # [C] "empty success": the server says it is done, and there is no video.
    over = bool(states) or (finished and response.get("success") is True) or _word(response) in _SUCCESS_WORDS
    return TaskState.FAILED if over else TaskState.PENDING


def _is_final_failure(response: Mapping[str, Any], *, finished: bool) -> bool:
    error = response.get("error")
    # [C] a structured error is final; a bare string or null may be transient until `finished_at` is set.
    return finished or (isinstance(error, dict) and bool(error.get("code")))


def _item_state(item: Mapping[str, Any], response: Mapping[str, Any], *, finished: bool) -> TaskState:
    word, playable = _word(item), has_video(item)
    if word in _FAILURE_WORDS:
        return TaskState.FAILED
    if word in _PENDING_WORDS:
        return TaskState.PENDING
    if word in _SUCCESS_WORDS or finished:
        return TaskState.SUCCEEDED if playable else TaskState.FAILED
    # A word nobody knows yet, or none: a video is a video once the server calls it a success.
    done = playable and response.get("success") is True
    return TaskState.SUCCEEDED if done else TaskState.PENDING


def _word(holder: Mapping[str, Any]) -> str:
    word = holder.get("state")
    return word.lower() if isinstance(word, str) else ""


def has_video(item: Mapping[str, Any]) -> bool:
    url = item.get("video_url")
    return isinstance(url, str) and url.startswith(("https://", "http://"))


def items_of(response: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = response.get("data")
    listed = data if isinstance(data, list) else [data]
    return [item for item in listed if isinstance(item, dict)]

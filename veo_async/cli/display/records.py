"""
The outcome of a job: as a record for programs, and as a gallery card for people.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ... import Job, JobState, Video, VideoResult
from ...errors import JobFailed, VeoError
from ..advice import reason
from ..batch.input import KINDS, fields_of
from ..words import duration
from .gallery import Entry

__all__ = ["UNSAVED", "entry_of", "outcome_record", "record_of"]

UNSAVED: Final = "not saved"  # the card's word for a task that succeeded, but whose file is missing

_READ_AS: Final = (
    "text to video",
    "image to video",
    "ingredients",
    "1080p of a video",
    "upsampled",
    "extended",
    "reshot",
    "object put in",
    "object taken out",
)
_KINDS: Final = dict(zip(KINDS, _READ_AS, strict=True))
_TOLD: Final = ("model", "resolution", "target", "aspect_ratio", "motion_type")


# --- for programs ----------------------------------------------------------------------------------------


def record_of(job: Job, files: Sequence[Path] = (), error: VeoError | None = None) -> dict[str, Any]:
    """
    Describe a job in plain values.

    Args:
        files: the files of its videos, in order; fewer if not all could be fetched.
        error: what went wrong, in the job or after it.
    """
    videos = job.result().videos if job.done() and job.exception() is None else ()
    return {
        "key": job.key,
        "state": job.state.value,
        "task_id": job.task_id or (error.task_id if error else None),
        "trace_id": job.trace_id,
        "request": fields_of(job.request) if job.request else None,
        "videos": [_video(video, number, files) for number, video in enumerate(videos)],
        "file": str(files[0]) if files else None,
        "error": None if error is None else _error(error),
    }


def outcome_record(key: str, found: VideoResult | VeoError) -> dict[str, Any]:
    """
    Describe how a key has ended, like `record_of`; whoever waits for it has no files.
    """
    result, error = (found, None) if isinstance(found, VideoResult) else (None, found)
    state = JobState.FAILED if isinstance(error, JobFailed) else JobState.STOPPED
    return {
        "key": key,
        "state": (JobState.SUCCEEDED if result else state).value,
        "task_id": result.task_id if result else found.task_id,
        "trace_id": getattr(found, "trace_id", None),
        "request": fields_of(result.request) if result and result.request else None,
        "videos": [_video(video, number, ()) for number, video in enumerate(result.videos if result else ())],
        "error": None if error is None else _error(error),
    }


def _video(video: Video, number: int, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "id": video.id,
        "url": video.url,
        "file": str(files[number]) if number < len(files) else None,
        "created_at": _time(video.created_at),
        "completed_at": _time(video.completed_at),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _error(error: VeoError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "code": getattr(error, "code", None),
        "message": reason(error),
    }


# --- for people ------------------------------------------------------------------------------------------


def entry_of(record: Mapping[str, Any], *, words: str = "") -> Entry:
    """
    Make the card of a record, which another version or a person may have written.

    Args:
        words: the text if the request has no prompt.
    """
    request = record.get("request") or {}
    error = record.get("error") or {}
    return Entry(
        prompt=str(request.get("prompt") or words),
        state=_state(record),
        file=record.get("file"),
        facts=_facts(request),
        details=tuple((name, str(value)) for name, value in _details(record) if value),
        error=error.get("message"),
    )


def _state(record: Mapping[str, Any]) -> str:
    state = str(record.get("state"))
    return UNSAVED if state == JobState.SUCCEEDED and not record.get("file") else state


def _facts(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """
    Return the kind of a request, and the fields that describe the video.
    """
    kind, images = str(fields.get("kind")), fields.get("image_urls") or ()
    shown = f"{len(images)} images" if len(images) > 1 else ""
    translated = "translated" if fields.get("translation") else ""
    words = (_KINDS.get(kind, ""), *(fields.get(name) for name in _TOLD), shown, translated)
    return tuple(str(word) for word in words if word)


def _details(record: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """
    Return the times, and the ids that a later command or the vendor's support needs.
    """
    for video in record.get("videos") or ():
        yield "made", video.get("completed_at")
        yield "took", _took(video)
    yield "task", record.get("task_id")
    for video in record.get("videos") or ():
        yield "video", video.get("id")
    yield "trace", record.get("trace_id")


def _took(video: Mapping[str, Any]) -> str | None:
    began, ended = video.get("created_at"), video.get("completed_at")
    if not began or not ended:
        return None
    return duration((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())

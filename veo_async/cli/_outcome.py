"""
How a job ended, in plain values for a program to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import Job, Video
from ..errors import VeoError
from ._advice import reason

__all__ = ["outcome_of"]


def outcome_of(job: Job, files: Sequence[Path] = (), error: VeoError | None = None) -> dict[str, Any]:
    """
    Describe a job.

    Args:
        files: where its videos lie, in their order; fewer than those where not all could be fetched.
        error: what went wrong, in the job or after it.
    """
    return {
        "state": job.state.value,
        "task_id": job.task_id or (error.task_id if error else None),
        "trace_id": job.trace_id,
        "key": job.key,
        "videos": [_video(video, number, files) for number, video in enumerate(_videos_of(job))],
        "file": str(files[0]) if files else None,
        "error": None if error is None else _error(error),
    }


def _videos_of(job: Job) -> tuple[Video, ...]:
    return job.result().videos if job.done() and job.exception() is None else ()


def _video(video: Video, number: int, files: Sequence[Path]) -> dict[str, Any]:
    return {
        "id": video.id,
        "url": video.url,
        "file": str(files[number]) if number < len(files) else None,
    }


def _error(error: VeoError) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "code": getattr(error, "code", None),
        "message": reason(error),
    }

"""
Immutable records that callers get: a job's result, the server's task records, and their videos.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from html import escape
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from attrs import field, frozen

from .rules import is_web_address
from .to_json import plain

if TYPE_CHECKING:
    from .requests import Request

__all__ = ["TaskError", "TaskRecord", "TaskState", "Video", "VideoResult", "is_id", "is_task_id"]

MAX_ID: Final = 256  # characters; ids are UUIDs of 36
_TASK_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


class TaskState(StrEnum):
    """
    The state of a task. A succeeded task counts as pending until its record has a usable link.

        if (await veo.retrieve(video.task_id)).state is TaskState.SUCCEEDED:
            print("it is there")
    """

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@frozen(kw_only=True)
class Video:
    """
    A finished file of a task.

        await veo.download(video, f"{video.id}.mp4")

    Attributes:
        id: the video's id; post-processing requests take it.
        task_id: the id of its task.
        url: the link to the file; said to work for 30 days (low confidence).
        state: the server's own word.
        created_at, completed_at: aware datetimes, or None.
        raw: the item as the server sent it.
    """

    id: str
    task_id: str
    url: str
    state: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)


@frozen(kw_only=True)
class TaskError:
    """
    Why a task failed, in the server's words.

        if error := (await veo.retrieve(video.task_id)).error:
            print(error.code, error.message)
    """

    code: str | None = None
    message: str = ""


@frozen(kw_only=True)
class TaskRecord:
    """
    The server's record of a task.

        record = await veo.retrieve(video.task_id)
        print(record.state, record.finished_at, [video.url for video in record.videos])

    Attributes:
        id: the task's id.
        trace_id: what the vendor's support asks for, or None.
        type: the server's word for the kind of task, such as `videos`, or None.
        state: pending, succeeded or failed.
        request: the submitted body, as the server echoes it.
        videos: the finished files; empty unless it succeeded.
        error: why it failed, or None.
        created_at, started_at, finished_at: aware datetimes, or None.
        raw: the record as the server sent it.
    """

    id: str
    trace_id: str | None = None
    type: str | None = None
    state: TaskState
    request: Mapping[str, Any] = field(factory=dict, eq=False)
    videos: tuple[Video, ...] = ()
    error: TaskError | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """
        Return the record as plain values for JSON, with times in ISO 8601.

            print(json.dumps((await veo.retrieve(video.task_id)).to_dict()))

        Args:
            raw: include the record as the server sent it, under `raw`.
        """
        told: dict[str, Any] = plain(self)
        return told | {"raw": self.raw} if raw else told


@frozen(kw_only=True)
class VideoResult:
    """
    The result of a job.

        result = await veo.text_to_video("a whale")
        print(result.task_id, result.video.url)

    Attributes:
        task_id: the server's id of the task.
        trace_id: what the vendor's support asks for, or None.
        request: the submitted request; None for a task that was attached by its id.
        videos: the finished files, at least one.
        raw: the server's answer.
    """

    task_id: str
    trace_id: str | None = None
    request: Request | None = None
    videos: tuple[Video, ...]
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)

    @property
    def video(self) -> Video:
        """
        The only video.

        Raises:
            ValueError: there is not exactly one.
        """
        if len(self.videos) != 1:
            raise ValueError(f"task {self.task_id} has {len(self.videos)} videos, not one: use .videos")
        return self.videos[0]

    def to_dict(self, *, raw: bool = False) -> dict[str, Any]:
        """
        Return the result as plain values for JSON, with times in ISO 8601; the request has its class name as `kind`.

            print(json.dumps(result.to_dict()))

        Args:
            raw: include the server's answer, under `raw`.
        """
        told: dict[str, Any] = plain(self)
        if self.request is not None:
            told["request"] = {"kind": type(self.request).__name__} | told["request"]
        return told | {"raw": self.raw} if raw else told

    def _repr_html_(self) -> str | None:
        """
        Play the videos in a notebook; only links of http and https are shown.
        """
        is_gif = "gif" in (getattr(self.request, "resolution", None), getattr(self.request, "target", None))
        tag = '<img src="{}">' if is_gif else '<video controls preload="metadata" src="{}"></video>'
        urls = [video.url for video in self.videos if is_web_address(video.url)]
        return "\n".join(tag.format(escape(url)) for url in urls) or None


def is_task_id(value: object) -> TypeGuard[str]:
    """
    Tell whether a value may be a task's id: letters, digits, `.`, `_`, `:` and `-` [I]. `../../x` is not one.
    """
    return is_id(value) and _TASK_ID.fullmatch(value) is not None


def is_id(value: object) -> TypeGuard[str]:
    """
    Tell whether a value may be an id of any kind from the server.
    """
    return isinstance(value, str) and 0 < len(value) <= MAX_ID and value.isprintable()

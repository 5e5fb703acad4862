"""
`veo-async 1080p`, `upsample`, `extend`, `reshoot`, `insert`, `remove`: each makes a new video from an earlier one.
"""

from __future__ import annotations

import re
from typing import Any, Final

import click
from attrs import evolve

from ... import (
    Extend,
    Get1080p,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TaskNotFound,
    TaskState,
    Upsample,
    VeoSession,
)
from ..._api.models import MOTION_TYPES
from ...errors import JobError
from ..options import checked, submitting
from ..words import read_as
from .generate import order

__all__ = ["extend", "get_1080p", "insert", "remove", "reshoot", "upsample"]

HEXADECIMAL: Final = re.compile(r"[0-9a-f]{32}")

_video_id: Final = click.argument("video_id", metavar="ID")
_model: Final = click.option("-m", "--model", metavar="NAME", help="[default: veo31-fast]")


def _order(kind: type[Request], *values: str, options: dict[str, Any], names: tuple[str, ...] = ()) -> None:
    """
    Buy a video of one kind.

    Args:
        names: the options that are fields of the request.
    """
    chosen = {name: options.pop(name) for name in (*names, "callback_url")}
    fields = {name: value for name, value in chosen.items() if value is not None}
    violations: list[str] = []
    request = checked(lambda: kind(*values, **fields), violations)
    title = f"{read_as(kind.__name__, *values[1:])} {values[0]}"
    order(request, violations, title=title, of_task=_only_video_of, **options)


async def _only_video_of(veo: VeoSession, request: Request) -> Request:
    """
    Replace a task's id by the id of its only video; leave a video's id as it is.
    """
    given = str(getattr(request, "video_id", ""))
    if HEXADECIMAL.fullmatch(given):  # only ids of videos look like this
        return request
    try:
        record = await veo.retrieve(given)
    except TaskNotFound:
        return request
    if record.state is TaskState.PENDING:
        raise JobError(
            f"task {given} has not ended yet: `veo-async wait {given}` waits for it", task_id=given
        )
    if len(record.videos) != 1:
        ids = ", ".join(video.id for video in record.videos)
        words = f"has several videos: give the id of one: {ids}" if ids else "has no video"
        raise JobError(f"task {given} {words}", task_id=given)
    video: dict[str, Any] = {"video_id": record.videos[0].id}
    return evolve(request, **video)


@click.command("1080p", short_help="Get an earlier video in 1080p.")
@_video_id
@_model
@submitting
def get_1080p(video_id: str, **options: Any) -> None:
    """
    Get an earlier video in 1080p. ID is the video's own, or that of its task.
    """
    _order(Get1080p, video_id, names=("model",), options=options)


@click.command(short_help="Enlarge an earlier video, or make it a GIF.")
@_video_id
@click.option("--to", "target", required=True, metavar="WORD", help="1080p, 4k or gif.")
@submitting
def upsample(video_id: str, target: str, **options: Any) -> None:
    """
    Enlarge an earlier video, or make it a GIF. (The API is said to have retired this in 2026.)
    """
    _order(Upsample, video_id, target, options=options)


@click.command(short_help="Continue an earlier video.")
@_video_id
@click.argument("prompt", required=False)
@_model
@click.option("-r", "--resolution", metavar="WORD", help="720p or 1080p. [default: 720p]")
@click.option("-a", "--aspect-ratio", metavar="RATIO", help="16:9 or 9:16.")
@submitting
def extend(video_id: str, **options: Any) -> None:
    """
    Continue an earlier video, as PROMPT says. (The API is said to have retired this in 2026.)
    """
    _order(Extend, video_id, names=("prompt", "model", "resolution", "aspect_ratio"), options=options)


def _motions(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    return [motion for motion in MOTION_TYPES if motion.startswith(begun.upper())]


@click.command(short_help="Repeat an earlier video with another camera.")
@_video_id
@click.argument("motion", metavar="MOTION", required=False, shell_complete=_motions)
@submitting
def reshoot(video_id: str, motion: str | None, **options: Any) -> None:
    """
    Repeat an earlier video with another movement of the camera, such as FORWARD or LEFT_TO_RIGHT.
    (The API is said to have retired this in 2026.)
    """
    _order(Reshoot, video_id, (motion or "").upper(), options=options)  # the rule for none lists the choices


@click.command(short_help="Put something into an earlier video.")
@_video_id
@click.argument("prompt")
@click.option(
    "--mask", "image_mask", metavar="MASK", help="Where: a JPEG, its base64 or a URL; white is the region."
)
@submitting
def insert(video_id: str, prompt: str, **options: Any) -> None:
    """
    Put what PROMPT says into an earlier video. (The API is said to have retired this in 2026.)
    """
    _order(InsertObject, video_id, prompt, names=("image_mask",), options=options)


@click.command(short_help="Take something out of an earlier video.")
@_video_id
@click.option(
    "--mask",
    "image_mask",
    required=True,
    metavar="MASK",
    help="Where: a JPEG, its base64 or a URL; white is the region.",
)
@submitting  # fmt: skip
def remove(video_id: str, image_mask: str, **options: Any) -> None:
    """
    Take something out of an earlier video. (The API is said to have retired this in 2026.)
    """
    _order(RemoveObject, video_id, image_mask, options=options)

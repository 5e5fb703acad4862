"""
`veo-async 1080p`, `upsample`, `extend`, `reshoot`, `insert`, `remove`: a new video from an earlier one.
"""

from __future__ import annotations

from typing import Any, Final

import click

from .. import Extend, Get1080p, InsertObject, RemoveObject, Request, Reshoot, Upsample
from ._generate import order
from ._options import checked, submitting

__all__ = ["REWORKING"]

_video_id: Final = click.argument("video_id")
_model: Final = click.option("-m", "--model", metavar="NAME", help="[default: veo31-fast]")


def _order(kind: type[Request], *values: str, options: dict[str, Any], names: tuple[str, ...] = ()) -> None:
    """
    Buy a video of one kind; `names` are those of the options that are fields of the request.
    """
    chosen = {name: options.pop(name) for name in (*names, "callback_url")}
    fields = {name: value for name, value in chosen.items() if value is not None}
    violations: list[str] = []
    request = checked(lambda: kind(*values, **fields), violations)
    order(request, violations, title=f"{kind.__name__} of {values[0]}", **options)


@click.command("1080p", short_help="Get an earlier video in 1080p.")
@_video_id
@_model
@submitting
def get_1080p(video_id: str, **options: Any) -> None:
    """
    Get an earlier video in 1080p. VIDEO_ID is the video's own id, not its task's.
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


@click.command(short_help="Repeat an earlier video with another camera.")
@_video_id
@click.argument("motion")
@submitting
def reshoot(video_id: str, motion: str, **options: Any) -> None:
    """
    Repeat an earlier video with another movement of the camera, such as FORWARD or LEFT_TO_RIGHT.
    (The API is said to have retired this in 2026.)
    """
    _order(Reshoot, video_id, motion.upper(), options=options)


@click.command(short_help="Put something into an earlier video.")
@_video_id
@click.argument("prompt")
@click.option(
    "--mask", "image_mask", metavar="URL", help="Where: a URL or a base64 JPEG; white is the region."
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
    metavar="URL",
    help="Where: a URL or a base64 JPEG; white is the region.",
)
@submitting  # fmt: skip
def remove(video_id: str, image_mask: str, **options: Any) -> None:
    """
    Take something out of an earlier video. (The API is said to have retired this in 2026.)
    """
    _order(RemoveObject, video_id, image_mask, options=options)


REWORKING: Final = (get_1080p, upsample, extend, reshoot, insert, remove)

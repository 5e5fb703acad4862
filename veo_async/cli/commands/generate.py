"""
`veo-async generate`, and what it shares with `1080p`, `upsample`, `extend`, ...: buys one video and saves it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

import click

from ... import ImageToVideo, IngredientsToVideo, Job, Request, TextToVideo, VeoSession
from ..batch.input import fields_of
from ..display.board import Board
from ..ending import new_session, refuse, run
from ..fetch import Piece, fetch, interrupted, tell
from ..options import (
    Target,
    as_typed,
    checked,
    local_images,
    make_directory,
    submitting,
    target_violations,
    tell_uploads,
    unusable_images,
    usable,
)
from ..words import printable

__all__ = ["generate", "order"]

Prepare: TypeAlias = Callable[[VeoSession, Request], Awaitable[Request]]

NO_PROMPT: Final = "PROMPT is missing: what is the video to show?"


@click.command(short_help="Make a video from a prompt or from images.")
@click.argument("prompt", required=False)
@click.option("-m", "--model", metavar="NAME", help="See `veo-async models`. [default: veo31-fast]")
@click.option(
    "-i", "--image", "images", multiple=True, metavar="IMAGE", help="First, then last frame: URL or file."
)
@click.option("--ingredients", is_flag=True, help="Put what the images show together instead.")
@click.option("-r", "--resolution", metavar="WORD", help="1080p, gif, or 4k (veo31). [default: 720p]")
@click.option("-a", "--aspect-ratio", metavar="RATIO", help="16:9 or 9:16. [default: 16:9]")
@click.option("--translation", is_flag=True, help="Have the prompt translated first.")
@submitting
def generate(*, prompt: str | None, images: tuple[str, ...], ingredients: bool, **options: Any) -> None:
    """
    Make a video from PROMPT, or from images, and save it.

    An image that is a file on this machine is uploaded to a public address; that takes the account token, in
    ACEDATACLOUD_PLATFORM_TOKEN.

    With --journal and --key, repeating the command continues where it ended, even after a crash, and buys nothing
    twice.
    """
    names = ("model", "resolution", "aspect_ratio", "translation", "callback_url")
    fields = {name: value for name in names if (value := options.pop(name)) is not None}
    violations = [as_typed(words) for words in unusable_images(images)]
    addresses = tuple(map(usable, images))
    request = checked(lambda: _request(prompt, addresses, ingredients, fields), violations)
    if prompt is None:
        violations = [NO_PROMPT if words.startswith("PROMPT") else words for words in violations]
    order(request, violations, title=prompt or " ".join(images), **options)


def _request(prompt: str | None, images: Sequence[str], ingredients: bool, fields: dict[str, Any]) -> Request:
    if ingredients:
        return IngredientsToVideo(images, prompt, **fields)
    if images:
        return ImageToVideo(prompt or "", images, **fields)
    return TextToVideo(prompt or "", **fields)


def order(
    request: Request | None,
    violations: list[str],
    *,
    title: str,
    of_task: Prepare | None = None,
    dry_run: bool,
    journal: Path | None,
    key: str | None,
    timeout: float | None,
    output: str,
    overwrite: bool,
    as_json: bool,
    base_url: str | None,
    speed: float,
) -> None:
    """
    Buy one video and save it; or exit before anything is sent, and list all violations.
    """
    violations += _key_violations(key, journal)
    violations += target_violations(output, overwrite=overwrite)
    if dry_run:
        refuse(violations)
        assert request is not None, "what is missing was a violation"
        click.echo(json.dumps(fields_of(request)) if as_json else f"would buy {_described(request)}")
        return
    images, board = local_images([request] if request else []), Board()
    session = new_session(
        violations,
        base_url=base_url,
        speed=speed,
        timeout=timeout,
        journal=journal,
        with_platform=bool(images),
        uploading=board.uploading,
    )
    refuse(violations)
    tell_uploads(images)
    assert session is not None, "what is missing was a violation"
    assert request is not None, "what is missing was a violation"

    async def start(veo: VeoSession) -> Job:
        wanted = request if of_task is None else await of_task(veo, request)
        return veo.submit(wanted, key=key, timeout=timeout)

    make_directory(output)
    piece = Piece(title=title, start=start, target=Target(path=Path(output), overwrite=overwrite))
    run(_fetch_and_tell(session, [piece], board, as_json=as_json, kept=journal is not None))


def _described(request: Request) -> str:
    """
    Describe a request: `text2video: prompt 'a whale', model 'veo31-fast'`.
    """
    fields = fields_of(request)
    kind = fields.pop("kind")
    return f"{kind}: {printable(', '.join(f'{name} {value!r}' for name, value in fields.items()))}"


def _key_violations(key: str | None, journal: Path | None) -> Iterator[str]:
    """
    Report why repeating the command would not find the purchase: it needs both a key and a journal.
    """
    if key is not None and not key:
        yield "--key must not be empty"
    if key is not None and journal is None:
        yield "--key needs --journal FILE: a key is only remembered in a journal"
    if key is None and journal is not None:
        yield "--journal needs --key TEXT: without one, the same command would buy the same video again"
    if journal is not None and not journal.absolute().parent.is_dir():
        yield f"--journal {journal}: there is no directory {journal.parent}; make it first"


async def _fetch_and_tell(
    session: VeoSession, pieces: Sequence[Piece], board: Board, *, as_json: bool, kept: bool
) -> int:
    try:
        await fetch(session, pieces, board)
    except asyncio.CancelledError:
        interrupted(pieces, kept=kept)
        raise
    return tell(pieces, as_json=as_json)

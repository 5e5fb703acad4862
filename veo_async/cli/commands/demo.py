"""
`veo-async demo`: a dozen requests of different kinds, against a simulator inside this process.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import warnings
import webbrowser
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from attrs import frozen

from ... import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    Job,
    PollPolicy,
    Request,
    RequestWarning,
    Reshoot,
    RetryPolicy,
    TextToVideo,
    VeoSession,
)
from ...simulator import Settings, Simulator
from ..advice import reason
from ..display.board import Board
from ..display.gallery import Entry, Note, page
from ..display.records import entry_of, record_of
from ..ending import FAILED, FINE, complain, refuse, run
from ..fetch import Piece, fetch
from ..options import Target, positive
from ..words import duration, plural, printable

__all__ = ["demo"]

SPEED: Final = 40.0  # two rounds of tasks then take six seconds: long enough to watch
SEED: Final = 7  # the same durations every time
IMAGES: Final = "https://example.com/images"  # the simulator checks addresses, but fetches none


NEXT: Final = """\
export ACEDATACLOUD_API_TOKEN=...    # yours: https://platform.acedata.cloud
{command} generate "a whale breaching at golden hour" -o whale.mp4
"""


# --- the scenes ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Scene:
    """
    One request of the demonstration.

    Attributes:
        name: the name of its file.
        make: makes the request; called with the video of the scene `after`, or None.
        after: the name of an earlier scene, or None.
        words: the page's text if the request has no prompt.
        fails: whether it is meant to fail.
        suffix: the suffix of its file.
    """

    name: str
    make: Callable[[Any], Request]
    after: str | None = None
    words: str = ""
    fails: bool = False
    suffix: str = ".mp4"


SCENES: Final = (
    Scene(
        name="whale",
        make=lambda _: TextToVideo("A humpback whale breaching at golden hour, the spray lit from behind"),
    ),
    Scene(
        name="paper-city",
        make=lambda _: TextToVideo(
            "A city folded from white paper unfolds itself, street by street, in morning light", model="veo31"
        ),
    ),
    Scene(
        name="lighthouse",
        make=lambda _: TextToVideo("A lighthouse in a storm, seen from far below", aspect_ratio="9:16"),
    ),
    Scene(
        name="kettle",
        make=lambda _: TextToVideo("A kettle comes to the boil and whistles", resolution="gif"),
        suffix=".gif",
    ),
    Scene(
        name="dunes",
        make=lambda _: TextToVideo(
            "Wind draws lines over endless dunes, from the air", model="veo31", resolution="4k"
        ),
    ),
    Scene(
        name="tram",
        make=lambda _: TextToVideo(
            "Um elétrico amarelo sobe uma ladeira de Lisboa ao amanhecer", translation=True
        ),
    ),
    Scene(
        name="portrait",
        make=lambda _: ImageToVideo(
            "She turns to the window and smiles", [f"{IMAGES}/portrait.jpg"], aspect_ratio="9:16"
        ),
    ),
    Scene(
        name="seasons",
        make=lambda _: ImageToVideo(
            "The orchard goes from blossom to snow",
            [f"{IMAGES}/spring.jpg", f"{IMAGES}/winter.jpg"],
            model="veo3",
        ),
    ),
    Scene(
        name="still-life",
        make=lambda _: IngredientsToVideo(
            [f"{IMAGES}/vase.png", f"{IMAGES}/lemon.png", f"{IMAGES}/cloth.png"],
            "A still life arranges itself on the cloth",
        ),
    ),
    Scene(
        name="too-sharp",
        make=lambda _: ImageToVideo(
            "A portrait in 4k, which only a prompt alone may ask for",
            [f"{IMAGES}/portrait.jpg"],
            model="veo31",
            resolution="4k",
        ),
        fails=True,
    ),
    Scene(name="whale-1080p", make=Get1080p, after="whale", words="The whale again, in 1080p"),
    Scene(
        name="whale-dives",
        make=lambda video: Extend(video, "The whale dives, and the sea closes over it"),
        after="whale",
    ),
    Scene(
        name="lighthouse-nearer",
        make=lambda video: Reshoot(video, "FORWARD"),
        after="lighthouse",
        words="The lighthouse again, with the camera moving forward",
    ),
)


@click.command(short_help="See it work, with a simulator: no key, no cost.")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    default=Path("veo-demo"),
    show_default=True,
    metavar="DIR",
    help="Where the files go.",
)
@click.option(
    "--speed",
    type=positive,
    default=SPEED,
    metavar="N",
    help=f"How many times faster than life. [default: {SPEED:g}]",
)
@click.option("--open/--no-open", "show", default=False, help="Open the page in a browser.")  # fmt: skip
def demo(out: Path, speed: float, show: bool) -> None:
    """
    Run a dozen requests against a simulator inside this process, save the files, and write a page that shows
    them. No key is needed, and nothing leaves this machine.
    """
    refuse(_out_violations(out))
    run(_demonstrate(out, speed, show=show))


def _out_violations(out: Path) -> Iterator[str]:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        yield f"--out {out} cannot be made a directory: {getattr(error, 'strerror', None) or error}"


async def _demonstrate(out: Path, speed: float, *, show: bool) -> int:
    pieces = _pieces(out)
    board = Board(total=len(pieces))
    try:
        async with Simulator(Settings(speed=speed, seed=SEED)) as simulator:
            session = VeoSession(
                simulator.token,
                base_url=simulator.url,
                polling=PollPolicy().scaled(1 / speed),
                retry=RetryPolicy().scaled(1 / speed),
            )
            await fetch(session, pieces, board)
    except asyncio.CancelledError:
        saved = sum(len(piece.files) for piece in pieces)
        complain(f"interrupted; {plural(saved, 'file')} saved in {out}.")
        raise
    index = out / "index.html"
    seconds = board.elapsed
    index.write_text(_page(pieces, seconds, speed), encoding="utf-8")
    _tell(pieces, index, seconds)
    if show:
        webbrowser.open(index.absolute().as_uri())
    return FINE if _as_expected(pieces) else FAILED


# --- from scenes to pieces -----------------------------------------------------------------------------


def _pieces(out: Path) -> list[Piece]:
    jobs: dict[str, Job] = {}
    return [_piece(scene, number, out, jobs) for number, scene in enumerate(SCENES, start=1)]


def _piece(scene: Scene, number: int, out: Path, jobs: dict[str, Job]) -> Piece:
    target = Target(path=out / f"{number:02}-{scene.name}{scene.suffix}", overwrite=True)
    return Piece(title=scene.name, start=_starter(scene, jobs), target=target)


def _starter(scene: Scene, jobs: dict[str, Job]) -> Callable[[VeoSession], Awaitable[Job]]:
    async def start(veo: VeoSession) -> Job:
        # Pieces start in order, so the job of an earlier scene exists.
        video = (await jobs[scene.after]).video if scene.after else None
        with warnings.catch_warnings():
            # One scene is meant to fail.
            warnings.simplefilter("ignore", RequestWarning)
            jobs[scene.name] = veo.submit(scene.make(video))
        return jobs[scene.name]

    return start


def _as_expected(pieces: Sequence[Piece]) -> bool:
    return all((piece.error is not None) is scene.fails for piece, scene in zip(pieces, SCENES, strict=True))


def _next() -> str:
    """
    Return the commands to type next; with this command's full path, if its bare name is not on the path.
    """
    called = Path(sys.argv[0])
    elsewhere = called.name == "veo-async" and shutil.which("veo-async") is None
    return NEXT.format(command=called if elsewhere else "veo-async")


# --- what is told --------------------------------------------------------------------------------------


def _page(pieces: Sequence[Piece], seconds: float, speed: float) -> str:
    entries = [_entry(piece, scene) for piece, scene in zip(pieces, SCENES, strict=True)]
    return page(
        entries,
        title="veo-async: the demonstration",
        summary=f"{_summary(pieces, seconds)} A simulator made these small clips, {speed:g} times faster than life.",
        notes=(Note(text="With a token, the same commands make real videos.", code=_next()),),
    )


def _entry(piece: Piece, scene: Scene) -> Entry:
    assert piece.job is not None, "every scene was submitted"
    files = [Path(path.name) for path in piece.files]
    return entry_of(record_of(piece.job, files, piece.error), words=scene.words)


def _summary(pieces: Sequence[Piece], seconds: float) -> str:
    saved, failed = (
        sum(bool(piece.files) for piece in pieces),
        sum(piece.error is not None for piece in pieces),
    )
    return f"{plural(len(pieces), 'request')}, {plural(saved, 'video')}, {failed} failed, in {duration(seconds)}."


def _tell(pieces: Sequence[Piece], index: Path, seconds: float) -> None:
    click.echo(_summary(pieces, seconds), err=True)
    for piece, scene in zip(pieces, SCENES, strict=True):
        if piece.error is not None:
            on_purpose = " (on purpose, to show a failure)" if scene.fails else ""
            click.echo(f"  {scene.name}: {printable(reason(piece.error))}{on_purpose}", err=True)
    click.echo("\nLook at it in a browser:", err=True)
    click.echo(index.absolute().as_uri())
    click.echo("\nThat was a simulator. With a token, the same commands make real videos:\n", err=True)
    click.echo("\n".join(f"  {line}" for line in _next().splitlines()), err=True)

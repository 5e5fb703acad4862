"""
Jobs from their submit to their files, shown on a board, and accounted for however it ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import click
from attrs import define, field

from .. import Job, JobState, VeoSession
from ..errors import SessionClosed, VeoError
from .advice import BAD_INPUT, lines
from .display.board import DOWNLOADING, SAVED, Board, follow
from .display.records import record_of
from .ending import FAILED, FINE, REFUSED, complain
from .options import Target
from .words import printable

__all__ = ["NO_CANCEL", "ON_THE_WAY", "STOPPING", "Piece", "fetch", "interrupted", "see_through", "tell"]

ON_THE_WAY: Final = frozenset({JobState.SUBMITTING, JobState.UNKNOWN})

STOPPING: Final = (
    "stopping: a submit that is on its way gets a moment to be answered; Ctrl-C again leaves at once"
)
NO_CANCEL: Final = "The API has no cancel: what it has accepted goes on, and is billed if it succeeds."


@define(eq=False, kw_only=True)
class Piece:
    """
    One job to be seen through.

    Attributes:
        title: what the board calls it.
        start: submits the request, or attaches to the task.
        target: where its videos go; None leaves them where they are.
        job, files, error: what has become of it so far.
    """

    title: str
    start: Callable[[VeoSession], Awaitable[Job]]
    target: Target | None
    job: Job | None = field(default=None, init=False)
    files: list[Path] = field(factory=list, init=False)
    error: VeoError | None = field(default=None, init=False)

    @property
    def on_its_way(self) -> bool:
        """
        Whether its submit waits for an answer; what is attached to is not submitted.
        """
        return self.job is not None and self.job.request is not None and self.job.state in ON_THE_WAY

    @property
    def open(self) -> bool:
        """
        Whether the server may still be at work on it, or it was never known to have begun.
        """
        return self.job is not None and (
            not self.job.done() or isinstance(self.job.exception(), SessionClosed)
        )


async def fetch(session: VeoSession, pieces: Sequence[Piece], board: Board) -> None:
    """
    See all pieces through at once; what goes wrong with one is kept with it.
    """
    async with board, session as veo:
        await see_through(veo, pieces, board)


async def see_through(veo: VeoSession, pieces: Sequence[Piece], board: Board) -> None:
    """
    The same within a session and on a board that are there already.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for piece in pieces:
                group.create_task(_see_through(piece, veo, board), name=f"veo-async {piece.title}")
    except asyncio.CancelledError:
        if any(piece.on_its_way for piece in pieces):
            board.say(STOPPING)
        raise


async def _see_through(piece: Piece, veo: VeoSession, board: Board) -> None:
    row = board.add(piece.title)
    try:
        piece.job = await piece.start(veo)
        await follow(piece.job, board, row)
        result = await piece.job
        if piece.target is not None:
            for index, video in enumerate(result.videos):
                board.change(row, DOWNLOADING)
                path = await veo.download(video, piece.target.place(index), progress=board.progress(row))
                piece.files.append(path)
            board.change(row, SAVED, ", ".join(path.name for path in piece.files))
        else:
            board.change(row, JobState.SUCCEEDED)
    except VeoError as error:
        piece.error = error
        board.fail(row, error)


def interrupted(pieces: Sequence[Piece], *, kept: bool = False) -> None:
    """
    Tell what was accepted, by its id: nobody here waits for it any more.

    Args:
        kept: whether a journal knows of it under a key, so that the same command finds it again.
    """
    ids = [piece.job.task_id for piece in pieces if piece.open and piece.job and piece.job.task_id]
    if ids:
        complain("interrupted. The server has accepted:", *(f"task {task_id}" for task_id in ids))
        again = "the same command again, or " if kept else ""
        target = "FILE" if len(ids) == 1 else "DIR"
        complain(NO_CANCEL, f"To go on: {again}veo-async wait {' '.join(ids)} -o {target}")
    else:
        complain("interrupted.")
    for piece in pieces:
        error = piece.error or (piece.job.exception() if piece.job and piece.job.done() else None)
        if error is not None and not (piece.job and (piece.job.task_id or piece.job.request is None)):
            complain(*lines(error))


def tell(pieces: Sequence[Piece], *, as_json: bool) -> int:
    """
    Write results to stdout and errors to stderr, and return the exit status.
    """
    for piece in pieces:
        if piece.error is not None:
            complain(*lines(piece.error))
        if as_json and piece.job is not None:
            click.echo(json.dumps(record_of(piece.job, piece.files, piece.error)))
        for path in [] if as_json else piece.files:
            click.echo(click.format_filename(path))
        if piece.job is not None and piece.job.done() and piece.job.exception() is None:
            for video in piece.job.result().videos:
                click.echo(f"video {printable(video.id)} of task {printable(video.task_id)}", err=True)
    errors = [piece.error for piece in pieces if piece.error]
    if any(isinstance(error, BAD_INPUT) for error in errors):
        return REFUSED
    return FAILED if errors else FINE

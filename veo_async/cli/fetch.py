"""
Takes jobs from their submit to their files, shows them on a board, and reports how they ended.
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

__all__ = ["NO_CANCEL", "ON_THE_WAY", "STOPPING", "Piece", "fetch", "interrupted", "run_pieces", "tell"]

ON_THE_WAY: Final = frozenset({JobState.SUBMITTING, JobState.UNKNOWN})

STOPPING: Final = "stopping: waiting a moment for the answer to a submit; Ctrl-C again leaves at once"
NO_CANCEL: Final = "The API has no cancel: what it has accepted goes on, and is billed if it succeeds."


@define(eq=False, kw_only=True)
class Piece:
    """
    One job, and the files of its videos.

    Attributes:
        title: its title on the board.
        start: submits the request, or attaches to the task.
        target: where its videos go; None does not download them.
        job, files, error: its progress so far.
    """

    title: str
    start: Callable[[VeoSession], Awaitable[Job]]
    target: Target | None
    job: Job | None = field(default=None, init=False)
    files: list[Path] = field(factory=list, init=False)
    error: VeoError | None = field(default=None, init=False)

    @property
    def task_id(self) -> str | None:
        """
        Its task; the job's error names it where the session ended while the answer was being written down.
        """
        if self.job is None:
            return None
        error = self.job.exception() if self.job.done() else None
        return self.job.task_id or (error.task_id if error else None)

    @property
    def on_its_way(self) -> bool:
        """
        Whether its submit waits for an answer; never for an attached job.
        """
        return self.job is not None and self.job.request is not None and self.job.state in ON_THE_WAY

    @property
    def open(self) -> bool:
        """
        Whether its task may still be running, or its outcome is unknown because the session ended.
        """
        return self.job is not None and (
            not self.job.done() or isinstance(self.job.exception(), SessionClosed)
        )


async def fetch(session: VeoSession, pieces: Sequence[Piece], board: Board) -> None:
    """
    Run all pieces concurrently in a new session; a piece keeps its own error.
    """
    async with board, session as veo:
        await run_pieces(veo, pieces, board)


async def run_pieces(veo: VeoSession, pieces: Sequence[Piece], board: Board) -> None:
    """
    Run all pieces concurrently, with an open session and board.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for piece in pieces:
                group.create_task(_run_piece(piece, veo, board), name=f"veo-async {piece.title}")
    except asyncio.CancelledError:
        if any(piece.on_its_way for piece in pieces):
            board.say(STOPPING)
        raise


async def _run_piece(piece: Piece, veo: VeoSession, board: Board) -> None:
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
    Print the ids of the accepted tasks, since this command no longer waits for them.

    Args:
        kept: whether a journal knows the purchase by its key, so that repeating the command resumes it.
    """
    ids = [piece.task_id for piece in pieces if piece.open and piece.task_id]
    if ids:
        complain("interrupted. The server has accepted:", *(f"task {task_id}" for task_id in ids))
        again = "the same command again, or " if kept else ""
        target = "FILE" if len(ids) == 1 else "DIR"
        complain(NO_CANCEL, f"To go on: {again}veo-async wait {' '.join(ids)} -o {target}")
    else:
        complain("interrupted.")
    for piece in pieces:
        error = piece.error or (piece.job.exception() if piece.job and piece.job.done() else None)
        if error is not None and not (piece.job and (piece.task_id or piece.job.request is None)):
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

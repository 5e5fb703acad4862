"""
Waits for keys that workers make the videos of, and tells how each has ended.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import click

from .. import ConfigurationError, JobState, JournalError, VeoError, VideoResult
from .advice import lines, reason
from .databases import Place
from .display.board import Board
from .display.records import outcome_record
from .ending import FAILED, FINE, complain
from .words import plural, printable

__all__ = ["wait_for_all"]


async def wait_for_all(place: Place, keys: Sequence[str], *, timeout: float | None, as_json: bool) -> int:
    """
    Wait for the keys, show them, and tell their outcomes; returns the exit status.
    """
    outcomes: dict[str, VideoResult | VeoError] = {}
    async with place.opened() as dsn:
        await _note_unknown(keys, dsn, place.schema)
        async with Board(total=len(keys)) as board:
            try:
                async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
                    for key in keys:
                        group.create_task(_wait(key, dsn, place.schema, board, outcomes))
            except TimeoutError:
                pass
    for key in keys:
        if key in outcomes:
            _tell(key, outcomes[key], as_json=as_json)
    if left := len(keys) - len(outcomes):
        complain(f"{plural(left, 'key')} had not ended after {timeout:g} seconds; the videos go on")
    return FINE if all(isinstance(outcomes.get(key), VideoResult) for key in keys) else FAILED


async def _note_unknown(keys: Sequence[str], dsn: str, schema: str) -> None:
    from ..worker.listing import unknown  # noqa: PLC0415 - the extra may be missing

    match await unknown(keys, dsn, schema=schema):
        case [key]:
            complain(f"nothing is known of the key {key!r} yet: waiting for somebody to enqueue it")
        case [_, *_] as found:
            complain(f"nothing is known of {len(found):,} keys yet: waiting for somebody to enqueue them")


async def _wait(
    key: str, dsn: str, schema: str, board: Board, outcomes: dict[str, VideoResult | VeoError]
) -> None:
    from ..worker import wait_for  # noqa: PLC0415 - the extra may be missing

    row = board.add(key)
    board.change(row, JobState.PENDING)
    try:
        outcomes[key] = await wait_for(key, database=dsn, schema=schema)
        board.change(row, JobState.SUCCEEDED)
    except VeoError as error:
        if isinstance(error, ConfigurationError | JournalError) and error.key is None:
            raise  # it concerns the database, not the key
        outcomes[key] = error
        board.fail(row, error)


def _tell(key: str, found: VideoResult | VeoError, *, as_json: bool) -> None:
    if isinstance(found, VeoError):
        complain(f"key {key}: {reason(found)}", *lines(found)[1:])
    if as_json:
        click.echo(json.dumps(outcome_record(key, found)))
    for video in found.videos if isinstance(found, VideoResult) else ():
        if not as_json:
            click.echo(video.url)
        click.echo(f"video {printable(video.id)} of task {printable(video.task_id)}", err=True)

"""
`veo-async wait`, `status`, `list`, `download` and `resume`: for tasks that exist already.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ... import Job, TaskRecord, TaskState, VeoSession
from ...errors import JobError, VeoError
from ..advice import CHECK_THE_ID, unknown_task
from ..display.board import Board
from ..ending import FAILED, FINE, complain, new_session, refuse, run
from ..fetch import Piece, interrupted, run_pieces, tell
from ..options import Target, connecting, make_directory, target_violations, waiting, whole
from ..words import plural, printable, shortened

__all__ = ["download", "list_", "resume", "status", "wait"]

PROMPT: Final = 60  # characters
UNCUT: Final = 100_000  # characters of a line that is not written to a terminal

_json: Final = click.option("--json", "as_json", is_flag=True, help="Write one JSON object per task.")
_ids: Final = click.argument("task_ids", metavar="TASK_ID...", nargs=-1, required=True)


# --- to files --------------------------------------------------------------------------------------------


@click.command(short_help="Wait for tasks that were asked for earlier.")
@click.argument("task_ids", metavar="[TASK_ID]...", nargs=-1)
@click.option("--key", "keys", metavar="KEY", multiple=True, help="A task by the key it was bought with.")
@click.option("-o", "--output", metavar="PATH", help="Save the videos there.")
@waiting
def wait(
    *,
    task_ids: tuple[str, ...],
    keys: tuple[str, ...],
    output: str | None,
    timeout: float | None,
    **options: Any,
) -> None:
    """
    Wait until the tasks have ended, and save their videos if --output says where: for one task a file or a
    directory, for several a directory.

    A key finds the task that any program has bought with it in the last day.
    """
    if not task_ids and not keys:
        refuse(["give a TASK_ID or a --key"])
    starts = {f"task {task_id}": _attach(task_id, timeout) for task_id in task_ids}
    starts |= {f"key {key}": _attach_key(key, timeout) for key in keys}
    _see(starts, output, to_check=list(dict.fromkeys(task_ids)), **options)


@click.command(short_help="Save the videos of tasks that have ended.")
@_ids
@click.option("-o", "--output", metavar="PATH", default=".", help="File or directory. [default: .]")
@click.option("--overwrite", is_flag=True, help="Replace a file that exists.")
@_json
@connecting
def download(*, task_ids: tuple[str, ...], output: str, **options: Any) -> None:
    """
    Save the videos of tasks that have ended; for those that have not, use `wait`.

    The output is a file (for one task only), or a directory, where each file is named after its ids. In a directory,
    an existing file is replaced, as it is the same video; otherwise only with --overwrite.
    """
    _see({f"task {task_id}": _attach_ended(task_id) for task_id in task_ids}, output, **options)


Start = Callable[[VeoSession], Awaitable[Job]]


def _see(
    starts: Mapping[str, Start],
    output: str | None,
    *,
    to_check: Sequence[str] = (),
    overwrite: bool,
    as_json: bool,
    base_url: str | None,
    speed: float,
) -> None:
    violations: list[str] = []
    if output and len(starts) > 1:
        output = _directory(output, "for several tasks", violations)
    violations += target_violations(output, overwrite=overwrite) if output else ()
    session = new_session(violations, base_url=base_url, speed=speed)
    refuse(violations)
    assert session is not None, "what is missing was a violation"
    if output:
        make_directory(output)
    target = Target(path=Path(output), overwrite=overwrite) if output else None
    pieces = [Piece(title=title, start=start, target=target) for title, start in starts.items()]
    run(_fetch(session, pieces, to_check, as_json=as_json))


def _directory(output: str, why: str, violations: list[str]) -> str:
    """
    Return an output as a directory, which need not exist; a name that looks like a file's is a violation.
    """
    path = Path(output)
    if path.is_file() or (path.suffix and not path.is_dir() and not output.endswith(("/", os.sep))):
        violations.append(f"--output {output} must be a directory {why}")
        return "."
    return os.path.join(output, "")


async def _fetch(
    session: VeoSession, pieces: Sequence[Piece], to_check: Sequence[str], *, as_json: bool
) -> int:
    board = Board(total=len(pieces) if len(pieces) > 1 else None)
    try:
        async with board, session as veo:
            checking = asyncio.create_task(_report_unknown(veo, to_check, board), name="veo-async id check")
            try:
                await run_pieces(veo, pieces, board)
            finally:
                checking.cancel()
                await asyncio.gather(checking, return_exceptions=True)
    except asyncio.CancelledError:
        interrupted(pieces)
        raise
    return tell(pieces, as_json=as_json)


async def _report_unknown(veo: VeoSession, task_ids: Sequence[str], board: Board) -> None:
    """
    Say at once which tasks the server does not know, so that nobody waits in silence for a mistyped id.

    They are still waited for, since a new task may take a while to show.
    """
    with contextlib.suppress(VeoError):  # the wait itself meets the same error
        records = await veo.retrieve_many(task_ids) if task_ids else {}
        for task_id in task_ids:
            if task_id not in records:
                board.say(f"{unknown_task(task_id)} yet; is the id right? It is looked for a while longer")


def _attach(task_id: str, timeout: float | None) -> Start:
    async def start(veo: VeoSession) -> Job:
        return veo.attach(task_id, timeout=timeout)

    return start


def _attach_key(key: str, timeout: float | None) -> Start:
    async def start(veo: VeoSession) -> Job:
        return veo.attach(key=key, timeout=timeout)

    return start


def _attach_ended(task_id: str) -> Start:
    async def start(veo: VeoSession) -> Job:
        record = await veo.retrieve(task_id)
        if record.state is TaskState.PENDING:
            raise JobError("the task has not ended yet: `veo-async wait` waits for it", task_id=task_id)
        return veo.attach(task_id)

    return start


# --- a journal -------------------------------------------------------------------------------------------


@click.command(short_help="Resume the unsettled jobs of a journal.")
@click.argument("journal", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="DIR", help="Where the videos go. [default: beside the journal]")
@waiting
def resume(
    *,
    journal: Path,
    output: str | None,
    timeout: float | None,
    overwrite: bool,
    as_json: bool,
    base_url: str | None,
    speed: float,
) -> None:
    """
    Resume the unsettled jobs of JOURNAL, which `generate --journal` or a program has left, and save their videos.
    (To resume a batch, repeat its command.)
    """
    out = output or str(journal.absolute().parent)
    violations: list[str] = []
    out = _directory(out, "for what a journal holds", violations)
    violations += target_violations(out, overwrite=overwrite)
    if not journal.is_file():  # otherwise a new one would be created
        violations.append(f"JOURNAL {journal} is not a file")
    session = new_session(violations, base_url=base_url, speed=speed, timeout=timeout, journal=journal)
    refuse(violations)
    assert session is not None, "what is missing was a violation"
    make_directory(out)
    run(_resume(session, Target(path=Path(out), overwrite=overwrite), as_json=as_json))


async def _resume(session: VeoSession, target: Target, *, as_json: bool) -> int:
    pieces: list[Piece] = []
    board = Board(total=0)
    try:
        async with board, session as veo:
            pieces += [_resumed(job, target) for job in await veo.resume()]
            board.total = len(pieces)
            await run_pieces(veo, pieces, board)
    except asyncio.CancelledError:
        interrupted(pieces)
        raise
    click.echo(f"{plural(len(pieces), 'job')} resumed.", err=True)
    return tell(pieces, as_json=as_json)


def _resumed(job: Job, target: Target) -> Piece:
    async def start(_: VeoSession) -> Job:
        return job

    return Piece(title=str(getattr(job.request, "prompt", None) or job.key), start=start, target=target)


# --- to look at ------------------------------------------------------------------------------------------


@click.command(short_help="Show the state of tasks.")
@_ids
@_json
@connecting
def status(*, task_ids: tuple[str, ...], as_json: bool, base_url: str | None, speed: float) -> None:
    """
    Show the state of the tasks.
    """
    run(_status(_session(base_url, speed), list(dict.fromkeys(task_ids)), as_json=as_json))


async def _status(session: VeoSession, ids: Sequence[str], *, as_json: bool) -> int:
    async with session as veo:
        records = await veo.retrieve_many(ids)
    _show([records[task_id] for task_id in ids if task_id in records], as_json=as_json)
    missing = [task_id for task_id in ids if task_id not in records]
    for task_id in missing:
        complain(unknown_task(task_id), CHECK_THE_ID)
    return FAILED if missing else FINE


@click.command("list", short_help="Show your latest tasks.")
@click.option("--limit", type=whole, default=20, metavar="N", help="How many. [default: 20]")
@_json
@connecting
def list_(*, limit: int, as_json: bool, base_url: str | None, speed: float) -> None:
    """
    Show the tasks of this account, in the server's order.
    """
    run(_list(_session(base_url, speed), limit, as_json=as_json))


async def _list(session: VeoSession, limit: int, *, as_json: bool) -> int:
    async with session as veo, aclosing(veo.list_tasks(limit=limit)) as tasks:
        records = [record async for record in tasks]
    _show(records, as_json=as_json)
    if not records:
        click.echo("There are no tasks of this account yet.", err=True)
    return FINE


def _session(base_url: str | None, speed: float) -> VeoSession:
    violations: list[str] = []
    session = new_session(violations, base_url=base_url, speed=speed)
    refuse(violations)
    assert session is not None, "what is missing was a violation"
    return session


def _show(records: Sequence[TaskRecord], *, as_json: bool) -> None:
    if as_json:
        for record in records:
            click.echo(json.dumps(_plain(record)))
        return
    if not records:  # headings without rows would look like an error
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("task", no_wrap=True)
    for heading in ("state", "created", "video", "request"):
        table.add_column(heading, no_wrap=True, overflow="ellipsis")
    cut = sys.stdout.isatty()  # programs and files get whole lines
    for record in records:
        table.add_row(*map(Text, _cells(record, PROMPT if cut else UNCUT)))
    Console(highlight=False, width=None if cut else UNCUT).print(table)


def _cells(record: TaskRecord, widest: int) -> tuple[str, ...]:
    fields = record.request
    words = fields.get("prompt") or fields.get("action") or ""
    created = record.created_at.astimezone().strftime("%m-%d %H:%M") if record.created_at else ""
    videos = " ".join(printable(video.id) for video in record.videos)
    return (printable(record.id), record.state.value, created, videos, shortened(str(words), widest))


def _plain(record: TaskRecord) -> dict[str, Any]:
    return {
        "task_id": record.id,
        "trace_id": record.trace_id,
        "state": record.state.value,
        "request": dict(record.request),
        "videos": [{"id": video.id, "url": video.url} for video in record.videos],
        "error": {"code": record.error.code, "message": record.error.message} if record.error else None,
        "created_at": _time(record.created_at),
        "finished_at": _time(record.finished_at),
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()

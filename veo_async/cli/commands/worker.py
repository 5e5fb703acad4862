"""
`veo-async worker`: makes the videos that any program has enqueued in a database.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shlex
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from attrs import asdict, define

from ... import PostgresJournal, VeoError, VeoSession
from ...errors import AuthenticationError, JournalError
from ..advice import lines, reason
from ..databases import Place, placed
from ..display.traffic import Count, Traffic
from ..ending import FINE, complain, listening, new_session, refuse, run
from ..options import HIGHEST_PORT, connecting, positive, unwritable, whole
from ..words import plural
from .doctor import LONGEST, ask

if TYPE_CHECKING:
    from ...worker import Worker

__all__ = ["worker"]

LOST: Final = 3  # the exit status if the journal has failed for good
_COUNT_EVERY: Final = 2.0  # seconds
_LOOK_EVERY: Final = 0.05  # seconds; until the worker is ready
_STOPPING: Final = (
    "stopping: submits on their way are waited for, all else is handed back; Ctrl-C again leaves at once"
)
_NOISY: Final = ("procrastinate", "psycopg")  # what concerns users is in our own log, too


def _address(value: str) -> tuple[str, int]:
    """
    Read `PORT` or `HOST:PORT`.
    """
    host, _, port = value.rpartition(":")
    if not port.isdecimal() or int(port) > HIGHEST_PORT:
        raise click.BadParameter(f"{value!r} is neither a port, 0 to {HIGHEST_PORT}, nor HOST:PORT.")
    return host.strip("[]") or "127.0.0.1", int(port)


@click.command(short_help="Make the videos that other programs enqueue.")
@placed
@click.option(
    "--concurrency", type=whole, default=1000, show_default=True, metavar="N", help="Requests at once."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=".",
    metavar="DIR",
    help="Where videos are saved. [default: .]",
)
@click.option(
    "--lease",
    type=positive,
    default=30.0,
    metavar="SECONDS",
    help="After which a dead worker's requests are another's. [default: 30]",
)
@click.option("--submits-per-second", type=positive, metavar="X", help="Of this worker at most.")
@click.option("--max-in-flight", type=whole, metavar="N", help="Unfinished tasks of this worker at most.")
@click.option(
    "--health",
    type=_address,
    metavar="[HOST:]PORT",
    help="Answer there at /health and /ready; 0: a free port.",
)
@connecting
def worker(
    *,
    database: str | None,
    local: Path | None,
    schema: str,
    concurrency: int,
    out: Path,
    lease: float,
    health: tuple[str, int] | None,
    **options: Any,
) -> None:
    """
    Make the videos that any program enqueues: with `veo-async queue add`, or from Python.

    With --local, a database is made and started on this machine; else `veo-async queue init` makes the tables once.
    Ctrl-C and SIGTERM hand what is not finished to other workers, which buy nothing twice. Exit status 0: stopped;
    1: it could not start, or the token was refused at once; 2: bad input; 3: the database has lost facts, and nothing
    more is bought; 130: cut short.
    """
    violations = [*_out_violations(out)]
    new_session(violations, **options)
    refuse(violations)
    place = Place(database=database, local=local, schema=schema)
    session = partial(_session, **options)
    settings = {"concurrency": concurrency, "out": out, "lease": lease, "session": session}
    run(_work(place, health, options["base_url"], **settings))


def _out_violations(out: Path) -> Iterator[str]:
    """
    Report why videos could not be saved; to be called before any is bought.
    """
    there = next(place for place in (out, *out.absolute().parents) if place.exists())
    trouble = unwritable(there) if there.is_dir() else f"{there} is not a directory"
    if trouble:
        yield f"--out {out} cannot be written to: {trouble}"


def _session(journal: PostgresJournal, **options: Any) -> VeoSession:
    session = new_session([], journal=journal, **options)
    assert session is not None, "what is missing was a violation"
    return session


async def _work(place: Place, health: tuple[str, int] | None, base_url: str | None, **settings: Any) -> int:
    async with place.opened() as dsn:
        from ...worker import Worker  # noqa: PLC0415 - the extra may be missing

        worker = Worker(dsn, schema=place.schema, **settings)
        _greet(place, dsn)
        with _quiet():
            async with _healthy(worker, health), _Seen(worker, dsn).shown() as board:
                status = await _until_stopped(worker, board, base_url)
    _tell(worker)
    return status


def _greet(place: Place, dsn: str) -> None:
    if place.local is not None:
        click.echo(
            "# Other programs on this machine reach the queue with --local, or by its address:", err=True
        )
        click.echo(f"#     export VEO_ASYNC_DATABASE={shlex.quote(dsn)}", err=True)


async def _until_stopped(worker: Worker, board: Traffic, base_url: str | None) -> int:
    """
    Run the worker; returns the exit status.
    """
    running = asyncio.create_task(_run(worker, board, base_url))
    try:
        await asyncio.wait([running])
    except asyncio.CancelledError:
        board.say(_STOPPING)
        worker.stop()
    try:
        await running  # cancelled here by the second Ctrl-C, which cuts the end short
    except JournalError as error:
        if worker.failure is None and not await _was_lost(worker):
            raise
        complain(*lines(error))
        return LOST
    return FINE


async def _run(worker: Worker, board: Traffic, base_url: str | None) -> None:
    await _check_token(board, base_url)
    telling = asyncio.create_task(_tell_when_ready(worker, board), name="veo-async greeting")
    try:
        await worker.run(signals=False)
    finally:
        telling.cancel()


async def _check_token(board: Traffic, base_url: str | None) -> None:
    """
    End a worker whose token is refused before it takes anything from one whose token is good.
    """
    try:
        async with asyncio.timeout(LONGEST):
            await ask(base_url)
    except AuthenticationError:
        raise
    except (VeoError, TimeoutError) as error:
        why = reason(error) if isinstance(error, VeoError) else f"nothing in {LONGEST:g} seconds"
        board.say(
            f"note: the API gave no good answer to a first question ({why}); the worker starts all the same"
        )


async def _tell_when_ready(worker: Worker, board: Traffic) -> None:
    while not worker.is_ready:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(_LOOK_EVERY)
    board.say("Working until Ctrl-C.")


async def _was_lost(worker: Worker) -> bool:
    """
    Tell whether an earlier worker has found facts missing.
    """
    from ...worker.administration import has_lost_facts  # noqa: PLC0415 - the extra may be missing

    try:
        return await has_lost_facts(worker.dsn, schema=worker.schema)
    except JournalError:  # the database cannot be asked
        return False


def _tell(worker: Worker) -> None:
    tally = worker.tally
    words = (
        f"{plural(tally.made, 'video')} made, {plural(tally.handed_back, 'request')} handed back to the queue"
    )
    click.echo(f"Stopped: {words}.", err=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """
    Keep the logs of libraries from the terminal in the block.
    """
    loggers = [logging.getLogger(name) for name in _NOISY]
    before = [logger.propagate for logger in loggers]
    silent = logging.NullHandler()
    for logger in loggers:
        logger.propagate = False
        logger.addHandler(silent)
    try:
        yield
    finally:
        for logger, propagate in zip(loggers, before, strict=True):
            logger.propagate = propagate
            logger.removeHandler(silent)


@contextlib.asynccontextmanager
async def _healthy(worker: Worker, address: tuple[str, int] | None) -> AsyncIterator[None]:
    """
    Answer about the worker's health during the block, if an address is given.
    """
    if address is None:
        yield
        return
    from ...worker.health import health_of  # noqa: PLC0415 - the extra may be missing

    async with contextlib.AsyncExitStack() as stack:
        with listening("--health", address[1]):
            host, port = await stack.enter_async_context(health_of(worker, host=address[0], port=address[1]))
        name = f"[{host}]" if ":" in host else host
        click.echo(f"# Health at http://{name}:{port}/health and /ready.", err=True)
        yield


@define(eq=False)
class _Seen:
    """
    What the display shows of a worker.
    """

    worker: Worker
    dsn: str
    waiting: int | None = None

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[Traffic]:
        """
        Show the worker's counts during the block.
        """
        counting = asyncio.create_task(self._count(), name="veo-async queue length")
        try:
            async with Traffic(counts=self._counts, ended=self._ended) as board:
                yield board
        finally:
            counting.cancel()
            await asyncio.gather(counting, return_exceptions=True)

    async def _count(self) -> None:
        from ...worker.administration import waiting  # noqa: PLC0415 - the extra may be missing

        while True:
            with contextlib.suppress(VeoError):  # in an outage, the last count stands
                self.waiting = await waiting(self.dsn)
            await asyncio.sleep(_COUNT_EVERY)

    def _counts(self) -> list[Count]:
        tally = asdict(self.worker.tally)
        always = [("waiting", self.waiting), ("running", tally["running"]), ("made", tally["made"])]
        rest = ("failed", "parked", "later", "handed_back")
        return always + [(name.replace("_", " "), tally[name]) for name in rest if tally[name]]

    def _ended(self) -> int:
        tally = self.worker.tally
        return tally.made + tally.failed

"""
`Worker`: a session that makes videos, and procrastinate's worker that brings it the requests of the queue.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Final

import psycopg
from attrs import define, evolve, field
from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import ConnectorException

from .. import ConfigurationError, JournalError, PostgresJournal, SessionStats, VeoSession
from .._journal.postgres_connection import Address, explain, is_outage
from .database import address_of, connected
from .deliveries import DESK, Desk, Tally, new_blueprint
from .enqueueing import QUEUE
from .handing_back import SureJobManager, take_back
from .token_watch import TokenWatch

__all__ = ["Worker"]

_LOG: Final = logging.getLogger("veo_async")
_FETCH_EVERY: Final = 1.0  # seconds; procrastinate sends no notice of what is delivered again
_CONNECTIONS: Final = 4
_PAUSE: Final = 0.5  # seconds before procrastinate's worker is run again
_NAMESPACE: Final = "veo"


def _new_session(journal: PostgresJournal) -> VeoSession:
    return VeoSession(journal=journal)


@define(eq=False)
class Worker:
    """
    Makes the videos that any program has enqueued in this database.

        asyncio.run(Worker("postgresql://...").run())

    Args:
        dsn: the database's address; falls back to `VEO_ASYNC_DATABASE`.
        session: makes the session, which must use the journal that it is given; for a session with policies, limits
            or observers of one's own.
        concurrency: how many requests this worker has at once; waiting for a video costs little.
        lease: the seconds after which the requests of a worker that died are another's.
        out: the directory where videos are saved that were enqueued with `to`.
        schema: the schema with the journal's tables.
        app: an app of one's own, not open, that has taken in `blueprint` with the namespace `veo`; the worker runs its
            tasks of all `queues`. Its connections should be in autocommit mode (`PsycopgConnector(configure=...)`):
            a worker that is frozen in the middle of a fetch would otherwise lock the request for all others.
        queues: the queues that are worked on. What follows a video, with `then`, is in its task's own queue, which is
            procrastinate's `default` if it names none. A task that runs when the worker stops is cancelled, and runs
            again only with a `retry` of procrastinate's.
    """

    dsn: str | None = field(default=None, repr=False)  # it may contain a password
    session: Callable[[PostgresJournal], VeoSession] = field(default=_new_session, kw_only=True)
    concurrency: int = field(default=1000, kw_only=True)
    lease: float = field(default=30.0, kw_only=True)
    out: str | os.PathLike[str] = field(default=".", kw_only=True)
    schema: str = field(default="veo", kw_only=True)
    app: App | None = field(default=None, kw_only=True)
    queues: tuple[str, ...] = field(default=(QUEUE,), kw_only=True)
    _journal: PostgresJournal | None = field(init=False, default=None)
    _veo: VeoSession | None = field(init=False, default=None)
    _tally: Tally = field(init=False, factory=Tally)
    _token: TokenWatch = field(init=False, factory=TokenWatch)
    _is_delivering: bool = field(init=False, default=False)
    _is_away: bool = field(init=False, default=False)
    _stopping: asyncio.Event = field(init=False, factory=asyncio.Event)

    @property
    def is_ready(self) -> bool:
        """
        Whether it gets requests, and may buy videos for them, and the API did not refuse its token when it last
        answered for one.
        """
        may_buy = self._journal is not None and self._journal.is_live and not self._token.is_refused
        return self._is_delivering and may_buy

    @property
    def stats(self) -> SessionStats | None:
        """
        What its session has done so far; None before it runs.
        """
        return None if self._veo is None else self._veo.stats

    @property
    def tally(self) -> Tally:
        """
        What has become of its deliveries so far.
        """
        return evolve(self._tally)

    @property
    def failure(self) -> JournalError | None:
        """
        The error that has ended its journal for good, as after a fail-over that lost facts; None while it works.
        """
        return None if self._journal is None else self._journal.failure

    def stop(self) -> None:
        """
        Let `run` end: nothing more is fetched, and what is waited for is handed to other workers.
        """
        self._stopping.set()

    async def run(self, *, signals: bool = True) -> None:
        """
        Work until `stop`, cancellation, or SIGTERM.

        Args:
            signals: whether SIGTERM stops it.

        Raises:
            ConfigurationError: there is no database or no token, or they cannot be used.
            JournalError: the database cannot be reached at first or lacks the tables, or it has lost facts. Outages
                are waited for.
        """
        address = address_of(self.dsn, self.schema)
        journal = PostgresJournal(address.dsn, lease=self.lease, schema=self.schema)
        app = self.app or _own_app(address)
        if f"{_NAMESPACE}:make" not in app.tasks:
            raise ConfigurationError("the app lacks our task: app.add_tasks_from(blueprint, namespace='veo')")
        await _check_tables(address)
        app.job_manager = manager = SureJobManager(app.connector, self.lease, self._registered)
        async with self.session(journal) as veo, app.open_async():
            self._journal, self._veo = journal, veo
            desk = Desk(veo, journal, Path(self.out), address, self._tally, self._token)
            with _until_terminated(self.stop) if signals else nullcontext():
                await self._run(manager, self._deliver(app, desk), self._sweep(app, journal))

    async def _run(self, manager: SureJobManager, *parts: Coroutine[Any, Any, None]) -> None:
        """
        Run the parts until the worker is to stop, or one of them fails.
        """
        tasks = [asyncio.create_task(part) for part in [*parts, self._stopped()]]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self.stop()
            manager.hurry()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _stopped(self) -> None:
        await self._stopping.wait()

    async def _deliver(self, app: App, desk: Desk) -> None:
        """
        Run procrastinate's worker, and again when an outage of the database has ended it.
        """
        while not self._stopping.is_set():  # an error of its end may hide that it was cancelled
            try:
                await app.run_worker_async(
                    queues=[*self.queues],
                    concurrency=self.concurrency,
                    additional_context={DESK: desk},
                    fetch_job_polling_interval=_FETCH_EVERY,
                    shutdown_graceful_timeout=0,  # an awaiter that is cancelled harms no job
                    install_signal_handlers=False,
                    update_heartbeat_interval=self.lease / 4,
                    stalled_worker_timeout=self.lease,
                )
            except ConnectorException as error:
                if isinstance(error.__cause__, psycopg.Error) and not _is_passing(error.__cause__):
                    raise explain(desk.address, error.__cause__) from error
                # Once per outage, however long it is; the journal says when it is over.
                level = logging.DEBUG if self._is_away else logging.WARNING
                _LOG.log(level, "the queue waits for its database: %s", error.__cause__ or error)
                self._is_away = True
            finally:
                self._is_delivering = False
            await asyncio.sleep(_PAUSE)

    def _registered(self) -> None:
        self._is_delivering, self._is_away = True, False

    async def _sweep(self, app: App, journal: PostgresJournal) -> None:
        """
        Take back the deliveries of dead workers, every half lease, and raise what has made the journal useless.
        """
        while journal.failure is None:
            with suppress(ConnectorException):
                await take_back(app.job_manager, self.queues, self.lease)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.lease / 2):
                    await self._stopping.wait()
                    return  # up to Python 3.11, what is awaited above may swallow a cancellation
        raise JournalError(*journal.failure.args)


def _is_passing(error: psycopg.Error) -> bool:
    # The worker's row is gone if it was frozen while another worker started: run again, it makes another row.
    return is_outage(error) or isinstance(error, psycopg.errors.ForeignKeyViolation)


async def _autocommit(connection: psycopg.AsyncConnection[Any]) -> None:
    # Otherwise a worker that is frozen between a fetch and its commit would lock the request for all others.
    await connection.set_autocommit(True)


def _own_app(address: Address) -> App:
    app = App(
        connector=PsycopgConnector(
            conninfo=address.dsn,
            min_size=1,
            max_size=_CONNECTIONS,
            kwargs={"application_name": "veo_async worker"},
            configure=_autocommit,
        )
    )
    app.add_tasks_from(new_blueprint(), namespace=_NAMESPACE)
    return app


async def _check_tables(address: Address) -> None:
    async with connected(address) as connection:
        await connection.execute("SELECT FROM procrastinate_jobs LIMIT 0")


@contextmanager
def _until_terminated(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with suppress(NotImplementedError):  # Windows has no such handler
        loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        yield
    finally:
        with suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)

"""
What procrastinate leaves to its users: deliveries of dead workers, and ends that cannot be written down at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import psycopg
from procrastinate.connector import BaseConnector
from procrastinate.exceptions import ConnectorException, UniqueViolation
from procrastinate.jobs import Job as QueuedJob
from procrastinate.manager import JobManager

__all__ = ["SureJobManager", "take_back"]

_LOG: Final = logging.getLogger("veo_async")
_AT_ONCE: Final = 1000  # deliveries that are taken back in one turn
_LAST_PATIENCE: Final = 5.0  # seconds to try when the worker ends
_PAUSE: Final = 0.2  # seconds before the end of a delivery is written down again

# As if its worker had died, so that it is taken back later.
_LEAVE: Final = "UPDATE procrastinate_jobs SET worker_id = NULL WHERE id = %(job_id)s AND status = 'doing'"


class SureJobManager(JobManager):
    """
    Writes down how deliveries end, also if the database is away for a while.

    procrastinate ends a delivery by its id alone: who ends one that another worker has ended already gets an error
    that nobody awaits. It is harmless, as the journal knows what was bought, so it is only noted.

    Args:
        patience: for how many seconds to try; then other workers take the delivery back.
        registered: called whenever the worker has its row, and can take deliveries.
    """

    def __init__(
        self, connector: BaseConnector, patience: float, registered: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(connector)
        self._patience = patience
        self._registered = registered
        self._tries: set[asyncio.Timeout] = set()

    def hurry(self) -> None:
        """
        Be patient for some seconds only from now on, since the worker is to end.
        """
        self._patience = min(self._patience, _LAST_PATIENCE)
        until = asyncio.get_running_loop().time() + self._patience
        for each in self._tries:
            if not each.expired():
                each.reschedule(min(until, each.when() or until))

    async def register_worker(self) -> int:
        """
        Make the worker's row.
        """
        worker_id = await super().register_worker()
        self._registered()
        return worker_id

    async def fetch_job(self, *args: Any, **kwargs: Any) -> QueuedJob | None:
        """
        Fetch a delivery; procrastinate does not end before this does, however long a connection is waited for.
        """
        with suppress(TimeoutError):
            async with self._limited(None):
                return await super().fetch_job(*args, **kwargs)
        return None

    async def unregister_worker(self, *args: Any, **kwargs: Any) -> None:
        """
        Delete the worker's row; if that fails, one that starts later does.
        """
        await self._surely(lambda: super(SureJobManager, self).unregister_worker(*args, **kwargs))

    async def finish_job(self, *args: Any, **kwargs: Any) -> None:
        """
        End a delivery.
        """
        await self._surely(lambda: super(SureJobManager, self).finish_job(*args, **kwargs))

    async def retry_job(self, job: QueuedJob, *args: Any, **kwargs: Any) -> None:
        """
        Hand a delivery back; while another one of its key waits in the queue, leave it to be taken back after that.
        """
        try:
            await self._surely(lambda: super(SureJobManager, self).retry_job(job, *args, **kwargs))
        except UniqueViolation:
            await self._surely(lambda: self.connector.execute_query_async(_LEAVE, job_id=job.id))

    async def _surely(self, write: Callable[[], Awaitable[None]]) -> None:
        with suppress(TimeoutError):
            async with self._limited(self._patience):
                await _until_written(write)

    @asynccontextmanager
    async def _limited(self, seconds: float | None) -> AsyncIterator[None]:
        async with asyncio.timeout(seconds) as limit:
            self._tries.add(limit)
            try:
                yield
            finally:
                self._tries.discard(limit)


async def _until_written(write: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await write()
        except UniqueViolation:
            raise
        except ConnectorException as error:
            if isinstance(error.__cause__, psycopg.errors.RaiseException):
                _LOG.debug("a delivery has ended elsewhere: %s", error.__cause__)
                return None
            await asyncio.sleep(_PAUSE)


async def take_back(manager: JobManager, queues: Sequence[str], lease: float) -> int:
    """
    Put deliveries of workers without a heartbeat back into the queue; returns how many.
    """
    taken = 0
    for queue in queues:
        stalled = [*await manager.get_stalled_jobs(queue=queue, seconds_since_heartbeat=lease)]
        # In any order, so that those that cannot be handed back yet do not hold up the others.
        for job in random.sample(stalled, min(len(stalled), _AT_ONCE)):
            await manager.retry_job(job)  # if another worker was quicker, this does nothing
            taken += 1
    if taken:
        _LOG.info("took back %d deliveries of workers that have died", taken)
    return taken

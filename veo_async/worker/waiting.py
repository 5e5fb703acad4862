"""
Waits for outcomes that workers bring about: one listening connection per process tells of them all.

A notice may be missed while a connection is down, so what is waited for is also looked at every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

import psycopg
from attrs import define, field

from .. import VideoResult
from .._journal.postgres_connection import Address, Connection, explain
from .._journal.postgres_rows import read_notice
from .database import address_of, connected
from .outcomes import Outcome, read_outcomes, recently_settled

__all__ = ["ended", "wait_for"]

_Answer = TypeVar("_Answer")

_LOG: Final = logging.getLogger("veo_async")
_CHECK_EVERY: Final = 5.0  # seconds
_PAUSE: Final = 0.5  # seconds before the database is tried again
_SKEW: Final = 60.0  # seconds by which the clocks of machines may differ


async def wait_for(
    key: str, *, timeout: float | None = None, database: str | None = None, schema: str = "veo"
) -> VideoResult:
    """
    Wait until a key has ended, whichever worker makes its video; returns the result.

    A key that nobody has enqueued yet is waited for, too. Cancelling this stops nothing but the waiting.

    Args:
        timeout: in seconds; None waits for ever.
        database: falls back to `VEO_ASYNC_DATABASE`.
        schema: the schema with the journal's tables.

    Raises:
        ApiError: the request was refused for good; what another token, more credits or time mend is waited for.
        ConfigurationError: there is no database.
        JobFailed: the task failed.
        JournalError: the database cannot be reached at first, or lacks the tables; later outages are waited for.
        SubmissionUnknown: the workers cannot find out what became of the purchase; a person has to.
        TimeoutError: the key has not ended in time; its video goes on.
    """
    async with _watching(address_of(database, schema)) as watch, asyncio.timeout(timeout):
        found = await watch.outcome(key)
    if isinstance(found, VideoResult):
        return found
    raise found


async def ended(
    *, database: str | None = None, schema: str = "veo"
) -> AsyncGenerator[tuple[str, Outcome], None]:
    """
    Yield each key that ends from now on, with its outcome; errors are yielded, not raised. It never ends by itself.

    Raises:
        ConfigurationError, JournalError: as `wait_for` does.
    """
    async with _watching(address_of(database, schema)) as watch:
        told = _Told()
        looked_at = time.time()
        told.new(await watch.since(looked_at))
        with watch.heard() as heard:
            while True:
                keys = await _some(heard)
                outcomes = await watch.outcomes(keys - {""})
                if "" in keys or time.time() > looked_at + _SKEW:
                    # Not only the last moments: during an outage, nobody was told.
                    now = time.time()
                    outcomes |= await watch.since(looked_at)
                    looked_at = now
                for key, found in told.new(outcomes):
                    yield key, found


async def _some(heard: asyncio.Queue[str]) -> set[str]:
    """
    Wait for keys; an empty one means that any key may have ended.
    """
    try:
        async with asyncio.timeout(_CHECK_EVERY):
            keys = {await heard.get()}
    except TimeoutError:
        return {""}
    while not heard.empty():
        keys.add(heard.get_nowait())
    return keys


@define(eq=False)
class _Told:
    """
    The outcomes that `ended` has yielded lately; a refusal has no task, and is yielded whenever there is a notice.
    """

    _at: dict[tuple[str, str], float] = field(init=False, factory=dict)

    def new(self, outcomes: Mapping[str, Outcome]) -> list[tuple[str, Outcome]]:
        """
        Return the outcomes that are new, and remember them as long as they may be shown again.
        """
        now, new = time.monotonic(), []
        for key, found in outcomes.items():
            task_id = getattr(found, "task_id", None)
            if task_id is None or (key, task_id) not in self._at:
                new.append((key, found))
            if task_id is not None:
                self._at[key, task_id] = now
        while self._at and next(iter(self._at.values())) < now - 10 * _SKEW:
            del self._at[next(iter(self._at))]
        return new


# --- one for all who wait in an event loop ------------------------------------------------------------------


@define(eq=False)
class _Watch:
    """
    Tells those who wait in one event loop how their keys have ended.
    """

    address: Address
    users: int = field(init=False, default=0)
    _waiting: dict[str, set[asyncio.Future[Outcome]]] = field(init=False, factory=dict)
    _queues: set[asyncio.Queue[str]] = field(init=False, factory=set)
    _connection: Connection | None = field(init=False, default=None)
    _is_away: bool = field(init=False, default=False)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)
    _tasks: list[asyncio.Task[None]] = field(init=False, factory=list)

    async def start(self) -> None:
        """
        Check that the database is there, and begin to listen, unless that was done before.
        """
        async with self._turn:
            if not self._tasks:
                async with connected(self.address) as connection:
                    await read_outcomes(connection, [], schema=self.address.schema)
                self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._answer())]

    async def stop(self) -> None:
        """
        Close the connections.
        """
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._disconnect()

    async def outcome(self, key: str) -> Outcome:
        """
        Wait for the outcome of a key.
        """
        told: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(key, set())
        waiting.add(told)
        self._hear(key)
        try:
            return await told
        finally:
            waiting.discard(told)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    @contextmanager
    def heard(self) -> Iterator[asyncio.Queue[str]]:
        """
        In the block, have all keys that may have ended put into a queue.
        """
        queue: asyncio.Queue[str] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield queue
        finally:
            self._queues.discard(queue)

    async def outcomes(self, keys: Iterable[str]) -> dict[str, Outcome]:
        """
        Return how keys have ended; during an outage of the database this waits.
        """
        wanted = list(keys)
        return await self._ask(lambda it: read_outcomes(it, wanted, schema=self.address.schema))

    async def since(self, at: float) -> dict[str, Outcome]:
        """
        Return the outcomes since a time, and some earlier ones.
        """
        earliest = at - _SKEW - 2 * _CHECK_EVERY
        keys = await self._ask(lambda it: recently_settled(it, earliest, schema=self.address.schema))
        return await self.outcomes(keys)

    # --- hearing

    async def _listen(self) -> None:
        while True:
            with suppress(psycopg.Error):  # whoever waits looks every few seconds all the same
                connection = await self.address.connect()
                try:
                    await connection.execute(self.address.sql("LISTEN SCHEMA"))
                    self._hear("")  # notices may have been sent before this connection listened
                    async for notice in connection.notifies():
                        if (told := read_notice(notice.payload)) is not None:
                            self._hear(told[2])
                finally:
                    await connection.close()
            await asyncio.sleep(_PAUSE)

    def _hear(self, key: str) -> None:
        for queue in self._queues:
            queue.put_nowait(key)

    async def _answer(self) -> None:
        keys = {""}  # somebody may wait already
        with self.heard() as heard:
            while True:
                wanted = self._waiting.keys() if "" in keys else self._waiting.keys() & keys
                for key, found in (await self.outcomes(wanted)).items() if wanted else ():
                    for told in self._waiting.pop(key, ()):
                        if not told.done():
                            told.set_result(found)
                keys = await _some(heard)

    # --- asking

    async def _ask(self, question: Callable[[Connection], Awaitable[_Answer]]) -> _Answer:
        async with self._turn:
            while True:
                try:
                    if self._connection is None:
                        self._connection = await self.address.connect()
                    answer = await question(self._connection)
                    self._is_away = False
                    return answer
                except psycopg.Error as error:
                    # Warn once per outage, however long it is.
                    level = logging.DEBUG if self._is_away else logging.WARNING
                    _LOG.log(level, "whoever waits for outcomes waits on: %s", explain(self.address, error))
                    self._is_away = True
                    await self._disconnect()
                    await asyncio.sleep(_PAUSE)

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


_watches: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, str], _Watch]]] = (
    WeakKeyDictionary()
)


@asynccontextmanager
async def _watching(address: Address) -> AsyncIterator[_Watch]:
    """
    Share the watch of this event loop and database for the block; the last one to leave closes it.
    """
    watches = _watches.setdefault(asyncio.get_running_loop(), {})
    place = address.dsn, address.schema
    watch = watches.setdefault(place, _Watch(address))
    watch.users += 1
    try:
        await watch.start()
        yield watch
    finally:
        watch.users -= 1
        if not watch.users:
            del watches[place]
            await watch.stop()

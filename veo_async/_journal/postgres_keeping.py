"""
Background tasks of a session's journal: renewing the lease, and listening for other sessions' keys.

Each has its own connection, so that a long query or an outage of one does not delay the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
from attrs import define, field

from .postgres_connection import Address, Connection, explain
from .postgres_lease import Lease
from .postgres_rows import read_notice

__all__ = ["Keeper", "Listener"]

_LOG: Final = logging.getLogger("veo_async")
_CHECK_EVERY: Final = 5.0  # seconds; without a notice, since nobody sends one when a session dies
_PAUSE: Final = 0.5  # seconds between two tries
_RENEW: Final = "SELECT SCHEMA.renewed(%(session)s)"


@define(eq=False)
class Keeper:
    """
    Renews the lease four times in its length.

    Attributes:
        check: checks that the server has lost no facts; its error ends `run`.
        lost: called when the server says that the session is dead.
    """

    address: Address
    lease: Lease
    check: Callable[[Connection], Awaitable[None]]
    lost: Callable[[], None]
    _connection: Connection | None = field(init=False, default=None)
    _away_since: float | None = field(init=False, default=None)

    async def run(self) -> None:
        """
        Renew the lease until cancelled.
        """
        while True:
            is_renewed = await self.renew()
            quarter = self.lease.seconds / 4
            await asyncio.sleep(quarter if is_renewed else min(_PAUSE, quarter / 5))

    async def renew(self) -> bool:
        """
        Renew the lease once; returns whether the server has answered.
        """
        try:
            await self._renew()
        except psycopg.Error as error:
            self._failed(error)
            await self.close()
            return False
        self._succeeded()
        return True

    def _failed(self, error: psycopg.Error) -> None:
        level = logging.WARNING if self._away_since is None else logging.DEBUG
        _LOG.log(level, "the lease could not be renewed: %s", explain(self.address, error))
        if self._away_since is None:
            self._away_since = asyncio.get_running_loop().time()

    def _succeeded(self) -> None:
        if self._away_since is not None:
            # A warning as well: whoever saw that it was away has to see that it is back.
            seconds = asyncio.get_running_loop().time() - self._away_since
            _LOG.warning("the database is reached again, after %.0f s", seconds)
            self._away_since = None

    async def close(self) -> None:
        """
        Let go of the connection.
        """
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _renew(self) -> None:
        if self._connection is None:
            self._connection = await self.address.connect()
            await self.check(self._connection)
        if self.lease.is_lost:
            return
        at, session = self.lease.clocks(), self.lease.session
        cursor = await self._connection.execute(self.address.sql(_RENEW), {"session": session})
        if (row := await cursor.fetchone()) is not None:
            self.lease.acknowledge(session, row[0])
            self.lease.renew(session, at)
        elif session == self.lease.session and not self.lease.is_lost:
            self.lease.lose()
            self.lost()


@define(eq=False)
class Listener:
    """
    Receives notices of keys that other sessions have settled or freed.
    """

    address: Address
    account: int
    lease: Lease
    _keys: set[str] = field(init=False, factory=set)
    _any: bool = field(init=False, default=False)
    _news: asyncio.Event = field(init=False, factory=asyncio.Event)

    async def run(self) -> None:
        """
        Listen until cancelled; reconnects after errors.
        """
        while True:
            try:
                connection = await self.address.connect()
                try:
                    await self._listen(connection)
                finally:
                    await connection.close()
            except psycopg.Error as error:
                _LOG.debug("no notices from other sessions: %s", explain(self.address, error))
            await asyncio.sleep(_PAUSE)

    async def _listen(self, connection: Connection) -> None:
        await connection.execute(self.address.sql("LISTEN SCHEMA"))
        self.wake()  # notices may have been sent before this connection listened
        async for notice in connection.notifies():
            self._hear(notice.payload)

    def _hear(self, payload: str) -> None:
        if (told := read_notice(payload)) is None:
            return
        session, account, key = told
        if account != self.account or session == self.lease.session:
            return
        if key:
            self._keys.add(key)
            self._news.set()
        else:
            self.wake()

    def wake(self) -> None:
        """
        Make `changed` report that any key may have changed.
        """
        self._any = True
        self._news.set()

    async def changed(self) -> set[str]:
        """
        Wait for notices, and return their keys; an empty set means that any key may have changed.
        """
        try:
            async with asyncio.timeout(_CHECK_EVERY):
                await self._news.wait()
        except TimeoutError:
            return set()
        keys, any_key = self._keys, self._any
        self._keys, self._any = set(), False
        self._news.clear()
        return set() if any_key else keys

"""
The journal in PostgreSQL, for any number of sessions, processes and machines.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from attrs import define, field

from ..errors import ConfigurationError, JournalError, UsageError
from .account_limits import AccountLimits
from .batching import Batching, Work
from .facts import Entry, Fact, Standing, TakeIn
from .postgres_lease import Lease
from .questions import Questions

if TYPE_CHECKING:  # the driver is imported when a journal is opened
    from .postgres_connection import Address
    from .postgres_keeping import Keeper, Listener
    from .postgres_store import PostgresStore

__all__ = ["PostgresJournal"]

_LOG: Final = logging.getLogger("veo_async")
_Answer = TypeVar("_Answer")


@define(eq=False, repr=False)
class PostgresJournal(Questions):
    """
    A database that stores what was asked for, sent, accepted and settled, for all sessions of an account.

    Pass it to `VeoSession(journal=...)`, which opens and closes it.
    A session holds the keys that it works on as long as it renews its lease.
    If it dies, freezes or is cut off, its lease ends: other sessions may take its keys, and it spends nothing for them.

        journal = PostgresJournal("postgresql://me@db.example.com/app", lease=60.0)
        veo = VeoSession(journal=journal)

    Args:
        dsn: the server's address, as libpq takes it; its password is never shown.
        lease: the seconds without a renewal after which a session is declared dead.
        schema: the schema with the tables; `install` makes it.
        listen_dsn: an address that bypasses a pooler in transaction mode, for notices about other sessions' keys.
    """

    dsn: str
    lease: float = field(default=30.0, kw_only=True)
    schema: str = field(default="veo", kw_only=True)
    listen_dsn: str | None = field(default=None, kw_only=True)

    _batching: Batching[PostgresStore] = field(init=False)
    _loop: asyncio.AbstractEventLoop | None = field(init=False, default=None)
    _store: PostgresStore | None = field(init=False, default=None)
    _keeper: Keeper | None = field(init=False, default=None)
    _listener: Listener | None = field(init=False, default=None)
    _tasks: dict[str, asyncio.Task[None]] = field(init=False, factory=dict)
    _turn: asyncio.Lock = field(init=False, factory=asyncio.Lock)

    def __attrs_post_init__(self) -> None:
        self._batching = Batching(self._begin)

    def __repr__(self) -> str:
        state = "failed" if self.failure else "open" if self._store else "closed"
        return f"<PostgresJournal {self.schema!r} {state}, {len(self._batching.waiting)} waiting>"

    @property
    def failure(self) -> JournalError | None:
        """
        The error that stopped the journal for good; None while it works, or waits for an outage to end.
        """
        return self._batching.failure

    @property
    def is_live(self) -> bool:
        """
        Whether this session's lease is valid now, so that it may spend.
        """
        return self.failure is None and self._store is not None and self._store.lease.is_valid()

    # --- opening and closing

    async def install(self) -> None:
        """
        Make the schema, or bring it up to date; see `veo-async queue init`.

        Raises:
            ConfigurationError: the address, the schema's name or the database's encoding cannot be used.
            JournalError: the server cannot be reached, or does not allow it.
        """
        address = _address(self.dsn, self.schema)
        from .postgres_install import install  # noqa: PLC0415

        await install(address)

    async def open(self, token: str) -> None:
        """
        Begin a session of this token's account; only a salted hash of the token is kept.

        Raises:
            ConfigurationError: the address or the schema's name cannot be used.
            JournalError: the server cannot be reached, or has no usable journal.
            UsageError: the journal is open already.
        """
        if self._loop is not None:
            raise UsageError(f"{self!r} is open already")
        self._loop = asyncio.get_running_loop()
        self._batching.failure, self._turn = None, asyncio.Lock()
        try:
            self._store = await self._opened(token)
        except BaseException:
            self._loop = None
            raise
        self._keep("keeper", self._keeper_of(self._store).run())

    async def _opened(self, token: str) -> PostgresStore:
        address = _address(self.dsn, self.schema)
        from .postgres_install import account_of  # noqa: PLC0415
        from .postgres_store import PostgresStore  # noqa: PLC0415

        account = await account_of(address, token)
        store = PostgresStore(address, account, f"{socket.gethostname()} {os.getpid()}", Lease(self.lease))
        await store.start()
        return store

    def _keeper_of(self, store: PostgresStore) -> Keeper:
        from .postgres_keeping import Keeper, Listener  # noqa: PLC0415

        listen = _address(self.listen_dsn or self.dsn, self.schema)
        self._listener = Listener(listen, store.account, store.lease)
        self._keeper = Keeper(store.address, store.lease, store.check, self._listener.wake)
        return self._keeper

    async def close(self) -> None:
        """
        Make everything durable that was written, and release all keys; waits at most one lease for an outage to end.

        Raises:
            JournalError: something could not be made durable.
        """
        if self._store is None or self._keeper is None:
            return
        store, keeper = self._store, self._keeper
        self._batching.flush()
        self._store = self._loop = None
        try:
            await self._drain(store)
        finally:
            await self._disconnect(store, keeper)
        if self.failure is not None:
            raise self.failure

    async def _drain(self, store: PostgresStore) -> None:
        try:
            async with asyncio.timeout(self.lease):
                while (committing := self._tasks.get("commit")) and not committing.done():
                    await asyncio.shield(committing)
                if self.failure is None:
                    await store.release()
        except TimeoutError:
            self._batching.failure = self.failure or JournalError(
                "the server could not be reached when the journal was closed: the last facts may be lost"
            )

    async def _disconnect(self, store: PostgresStore, keeper: Keeper) -> None:
        tasks, self._tasks = [*self._tasks.values()], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await keeper.close()
        await store.close()

    # --- writing and reading

    async def write(self, *facts: Fact) -> None:
        """
        Make the facts durable: all of them or, on an error, none.

        They are written even if the caller is cancelled. During an outage of the server this waits.

        Raises:
            AlreadyClaimed: the accepted task belongs to another purchase.
            Fenced: the session does not hold the key that it wants to spend for.
            HeldBack: the limits that all sessions of the account share allow no submit now.
            JournalError: the journal has failed, or the facts cannot follow what it knows.
        """
        self._check_whole()
        await self._put(Work(facts=facts))

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before any later write.

        If that fails, `failure` is set, and later writes and `close` raise it.
        """
        if self.failure is None:
            self._check_open()
            self._batching.add(Work(facts=facts))

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the new keys, and return the standing of each: all of them or, on an error, none.

        This session then also holds those of the keys that a dead session held, or that another one released.

        Raises:
            JournalError: the journal has failed.
        """
        self._check_whole()
        return await self._ask(lambda store: store.take_in(items))

    async def find_others(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return what was bought with other tokens, or may be, for keys for which this one has bought nothing, by key.
        """
        wanted = tuple(keys)
        return await self._ask(lambda store: store.find_others(wanted))

    async def unsettled(self) -> list[Entry]:
        """
        Claim the keys of dead sessions, and return every unsettled purchase that this session holds, oldest first.
        """
        return await self._ask(lambda store: store.unsettled())

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return why keys were refused, if they were not used since; for sessions that waited for another's key.
        """
        wanted = tuple(keys)
        return await self._ask(lambda store: store.refusals(wanted))

    async def learned(self) -> dict[str, str]:
        """
        Return what all sessions have learned, as JSON text by kind of request.
        """
        return await self._ask(lambda store: store.learned())

    # --- sharing

    async def limits(self) -> AccountLimits:
        """
        Return the limits that all sessions of the account share.
        """
        return await self._ask(lambda store: store.limits())

    async def set_limits(self, limits: AccountLimits) -> None:
        """
        Set the limits that all sessions of the account share, in place of the earlier ones.

        They hold from now on, whatever session sends, and are kept in the database.

        Raises:
            JournalError: the journal has failed.
            UsageError: the journal is not open.
        """
        await self._ask(lambda store: store.set_limits(limits))

    def may_send(self, key: str) -> bool:
        """
        Tell, just before a submit's body is sent, whether this session surely still holds its key.

        It does not ask the server: it checks, by two clocks, how long ago the lease was renewed.
        """
        return self.failure is None and self._store is not None and self._store.lease.may_send(key)

    async def changed(self) -> set[str]:
        """
        Wait until keys of other sessions may have settled or become free; returns them, or nothing for "any key".

        For one caller at a time. The first call returns once it listens; each call returns after at most 5 s.
        """
        self._check_open()
        listener = self._listener
        assert listener is not None
        if "listener" not in self._tasks:
            self._keep("listener", listener.run())
        return await listener.changed()

    async def release(self) -> None:
        """
        Release all keys at once; the journal stays open, and `take_in` begins another session.
        """
        await self._ask(lambda store: store.release())

    # --- committing

    async def _ask(self, question: Callable[[PostgresStore], Awaitable[_Answer]]) -> _Answer:
        answer: _Answer = await self._put(Work(ask=question))
        return answer

    async def _put(self, work: Work[PostgresStore]) -> Any:
        self._check_open()
        return await self._batching.put(work)

    def _check_open(self) -> None:
        if self._loop is None or self._store is None:
            raise UsageError(f"{self!r} is not open")

    def _check_whole(self) -> None:
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure

    def _begin(self, batch: list[Work[PostgresStore]]) -> None:
        if self._store is not None:
            self._tasks["commit"] = asyncio.create_task(self._commit(self._store, batch))

    async def _commit(self, store: PostgresStore, batch: list[Work[PostgresStore]]) -> None:
        try:
            async with self._turn:  # `close` starts the last batch even if another one is being committed
                failure = await store.do(batch)
        except asyncio.CancelledError:
            self._give_up(batch, JournalError("the journal was closed while its server could not be reached"))
            raise
        except Exception as error:
            _LOG.exception("the journal failed")
            store.failure = JournalError(f"the journal failed: {error}")
            self._give_up(batch, store.failure)
        else:
            self._batching.landed(batch, failure)

    def _give_up(self, batch: list[Work[PostgresStore]], failure: JournalError) -> None:
        for work in batch:
            work.error = JournalError(*failure.args)
        self._batching.landed(batch, failure)

    def _keep(self, name: str, run: Any) -> None:
        task: asyncio.Task[None] = asyncio.create_task(run, name=f"veo_async {name}")
        task.add_done_callback(self._ended)
        self._tasks[name] = task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failure = (
                error if isinstance(error, JournalError) else JournalError(f"the journal failed: {error}")
            )
            self._batching.failure = self.failure or failure


def _address(dsn: str, schema: str) -> Address:
    try:
        from .postgres_connection import Address  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "a journal in PostgreSQL needs `pip install 'veo-async[postgres]'`"
        ) from error
    return Address(dsn, schema)

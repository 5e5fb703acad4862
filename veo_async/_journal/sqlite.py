"""
The journal in a SQLite file, for one process: its own thread commits batches of facts.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

from attrs import Factory, define, field

from ..errors import JournalError, UsageError
from .batching import Batching, Work
from .facts import Entry, Fact, Standing, TakeIn
from .questions import Questions
from .sqlite_store import Store

__all__ = ["Journal"]

# A busy event loop starves the thread if its turns are shorter than the 5 ms after which Python switches threads:
# with turns of 2 ms, one commit took up to 18 s. So while a commit takes longer than 5 ms, the loop sleeps for an
# instant every 5 ms, which gives the interpreter lock to the thread; then the longest commit took 40 ms.
_YIELD_EVERY: Final = 0.005  # seconds
_YIELD_FOR: Final = 0.00002  # seconds


_Answer = TypeVar("_Answer")


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # later changes of directory must not matter


@define(eq=False, repr=False)
class Journal(Questions):
    """
    A file that stores, through any crash, what was asked for, sent, accepted and settled.

    Pass it, or its path, to `VeoSession(journal=...)`, which opens and closes it; one session holds it at a time.
    A closed journal can be opened again, also in another event loop.

        async with VeoSession(journal=Journal("batch.db")) as veo:
            jobs = await veo.resume()

    Args:
        path: the SQLite file; it is created if there is none, but its directory is not.
        inline: work on the caller's own thread, for tests on a clock that jumps;
            facts then survive a crash of the process, but not of the machine.

    Attributes:
        path: the file, absolute.
    """

    path: Path = field(converter=_absolute)
    inline: bool = field(default=False, kw_only=True)

    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _store: Store | None = field(default=None, init=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _cancelled_open: Future[None] | None = field(default=None, init=False)
    _batching: Batching[Store] = field(
        default=Factory(lambda self: Batching(self._begin, at_once=self.inline), takes_self=True), init=False
    )
    _next_yield: asyncio.TimerHandle | None = field(default=None, init=False)

    def __repr__(self) -> str:
        state = "failed" if self.failure else "open" if self._store else "closed"
        return f"<Journal {str(self.path)!r} {state}, {len(self._batching.waiting)} waiting>"

    @property
    def failure(self) -> JournalError | None:
        """
        The error that stopped the journal, or None; the next `open` clears it.
        """
        return self._batching.failure

    # --- opening and closing

    async def open(self, token: str) -> None:
        """
        Open and lock the file for this token's account; only a salted hash of the token is kept.

        Raises:
            ConfigurationError: there can be no file at this path.
            JournalError: the file is in use, damaged, incomplete, foreign or read-only, its disk is full, or it
                belongs to another token.
            UsageError: the journal is open already.
        """
        if self._loop is not None:
            raise UsageError(f"{self!r} is open already")
        self._loop = asyncio.get_running_loop()
        self._batching.failure = None
        try:
            self._store = await self._opened(token)
        except BaseException:
            self._loop = None
            raise

    async def _opened(self, token: str) -> Store:
        if self.inline:
            return Store.open(self.path, token, durable=False)
        if self._cancelled_open is not None:  # a cancelled `open` may still hold the file
            await asyncio.to_thread(wait, [self._cancelled_open])
        thread = ThreadPoolExecutor(1, thread_name_prefix="veo-journal")
        opening = thread.submit(Store.open, self.path, token, durable=True)
        try:
            store = await asyncio.wrap_future(opening)
        except BaseException:
            self._cancelled_open = thread.submit(_undo, opening)
            thread.shutdown(wait=False)
            raise
        self._thread = thread
        return store

    async def close(self) -> None:
        """
        Make everything durable that was written, and close the file; repeating it is harmless.

        Raises:
            JournalError: something could not be made durable.
        """
        if self._store is None:
            return
        store, thread = self._store, self._thread
        self._batching.flush()
        self._store = self._thread = self._loop = None
        if thread is None:
            store.close()
        else:
            await _finish(thread, store)
        if self.failure is not None:
            raise self.failure

    # --- writing and reading

    async def write(self, *facts: Fact) -> None:
        """
        Make the facts durable: all of them or, on an error, none.

        They are written even if the caller is cancelled.

        Raises:
            AlreadyClaimed: the accepted task belongs to another purchase.
            JournalError: the disk failed, or the facts cannot follow what the journal knows.
        """
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure
        await self._put(Work(facts=facts))

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before any later write.

        If that fails, `failure` is set, and later writes and `close` raise it.
        """
        if self.failure is None:
            self._add(Work(facts=facts))

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the new keys, and return the standing of each: all of them or, on an error, none.

        Raises:
            JournalError: the disk failed.
        """
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure
        return await self._ask(lambda store: store.take_in(items))

    async def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order in which they were intended.
        """
        return await self._ask(Store.unsettled)

    async def learned(self) -> dict[str, str]:
        """
        Return what was learned, as JSON text by kind of request.
        """
        return await self._ask(Store.learned)

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return nothing: all jobs are in this process, so each got its own refusal.
        """
        return {}

    def may_send(self, key: str) -> bool:
        """
        Tell whether a submit may be sent: the process holds the file's lock as long as it lives.
        """
        return self.failure is None

    async def changed(self) -> set[str]:
        """
        Wait for ever: no other session holds a key.
        """
        await asyncio.get_running_loop().create_future()
        return set()

    async def release(self) -> None:
        """
        Do nothing: whoever opens the file next holds the keys.
        """

    # --- committing

    async def _ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        answer: _Answer = await self._put(Work(ask=question))
        return answer

    async def _put(self, work: Work[Store]) -> Any:
        self._check_open()
        return await self._batching.put(work)

    def _add(self, work: Work[Store]) -> None:
        self._check_open()
        self._batching.add(work)

    def _check_open(self) -> None:
        if self._loop is None or self._store is None:
            raise UsageError(f"{self!r} is not open")

    def _begin(self, batch: list[Work[Store]]) -> None:
        if self._loop is None or self._store is None:
            return
        if self._thread is None:
            store = self._store
            self._batching.landed(batch, store.do(batch))
            store.tidy()
        else:
            self._give_way_later(self._loop)
            self._thread.submit(self._commit, self._loop, self._store, batch)

    def _commit(self, loop: asyncio.AbstractEventLoop, store: Store, batch: list[Work[Store]]) -> None:
        failure = store.do(batch)
        with suppress(RuntimeError):  # the loop is closed: the facts are durable, but nobody waits for them
            loop.call_soon_threadsafe(self._landed, batch, failure)
        store.tidy()

    def _landed(self, batch: list[Work[Store]], failure: JournalError | None) -> None:
        if self._next_yield is not None:
            self._next_yield.cancel()
        self._batching.landed(batch, failure)

    def _give_way_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._next_yield = loop.call_later(_YIELD_EVERY, self._give_way, loop)

    def _give_way(self, loop: asyncio.AbstractEventLoop) -> None:
        time.sleep(_YIELD_FOR)
        self._give_way_later(loop)


def _undo(opening: Future[Store]) -> None:
    """
    Close a file that was opened after its `open` was cancelled.
    """
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _finish(thread: ThreadPoolExecutor, store: Store) -> None:
    """
    Close the file once the thread has done all its work, even if the caller is cancelled meanwhile.
    """
    loop = asyncio.get_running_loop()
    closed = loop.create_future()

    def close() -> None:
        store.close()
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_wake, closed)

    thread.submit(close)
    thread.shutdown(wait=False)
    await closed
    thread.shutdown()  # short: the thread has nothing left to do


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

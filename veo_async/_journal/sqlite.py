"""
The journal in a SQLite file, for one process: a thread of its own commits what the event loop has gathered.
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
from .sqlite_store import Store

__all__ = ["Journal"]

# A loop that is never idle keeps the interpreter from the thread for as long as its turns are shorter than the
# 5 ms after which Python makes it share: measured beside turns of 2 ms, up to 18 s for one commit. So a commit
# that takes longer than those 5 ms gets the interpreter for an instant every 5 ms; then the longest took 40 ms.
_PATIENCE: Final = 0.005
_INSTANT: Final = 0.00002


_Answer = TypeVar("_Answer")


def _absolute(path: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(path))  # where it lies must not depend on later changes of directory


@define(eq=False, repr=False)
class Journal:
    """
    A file that remembers, through any crash, what was asked for, sent, accepted and settled.

    Give it, or its path, to `VeoSession(journal=...)`, which opens and closes it; one session holds it at a time.
    It can be opened again after it was closed, in another event loop too.

    Args:
        path: the SQLite file; it is created where there is none, its directory is not.
        inline: work on the caller's own thread, for tests on a clock that jumps;
            facts then survive the death of the process, but not of the machine.

    Attributes:
        path: the file, absolute.
    """

    path: Path = field(converter=_absolute)
    inline: bool = field(default=False, kw_only=True)

    _loop: asyncio.AbstractEventLoop | None = field(default=None, init=False)
    _store: Store | None = field(default=None, init=False)
    _thread: ThreadPoolExecutor | None = field(default=None, init=False)
    _undoing: Future[None] | None = field(default=None, init=False)
    _batching: Batching[Store] = field(
        default=Factory(lambda self: Batching(self._begin, at_once=self.inline), takes_self=True), init=False
    )
    _courtesy: asyncio.TimerHandle | None = field(default=None, init=False)

    def __repr__(self) -> str:
        state = "failed" if self.failure else "open" if self._store else "closed"
        return f"<Journal {str(self.path)!r} {state}, {len(self._batching.waiting)} waiting>"

    @property
    def failure(self) -> JournalError | None:
        """
        Why nothing can be made durable any more, or None; the next `open` clears it.
        """
        return self._batching.failure

    # --- opening and closing

    async def open(self, token: str) -> None:
        """
        Open and lock the file for the account of this token, of which only a salted hash is kept.

        Raises:
            ConfigurationError: there can be no file at this path.
            JournalError: the file is in use, damaged, incomplete, foreign, full, read-only, or another token's.
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
        if self._undoing is not None:  # an opening that was cancelled may still hold the file
            await asyncio.to_thread(wait, [self._undoing])
        thread = ThreadPoolExecutor(1, thread_name_prefix="veo-journal")
        opening = thread.submit(Store.open, self.path, token, durable=True)
        try:
            store = await asyncio.wrap_future(opening)
        except BaseException:
            self._undoing = thread.submit(_undo, opening)
            thread.shutdown(wait=False)
            raise
        self._thread = thread
        return store

    async def close(self) -> None:
        """
        Make durable whatever was written, and let go of the file; a closed journal stays closed.

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
        Return once the facts are durable: all of them or, on an error, none.

        Cancelling the caller does not take them back.

        Raises:
            AlreadyClaimed: the accepted task is another purchase's.
            JournalError: the disk failed, or the facts cannot follow what the journal knows.
        """
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure
        await self._put(Work(facts=facts))

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before anything that is written later.

        Should that fail, `failure` says so, and so do later writes and `close`.
        """
        if self.failure is None:
            self._add(Work(facts=facts))

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the keys that are new, and say of each how it stands: all at once, or none on an error.

        Raises:
            JournalError: the disk failed.
        """
        if self.failure is not None:
            raise JournalError(*self.failure.args) from self.failure
        return await self._ask(lambda store: store.take_in(items))

    async def find(self, key: str) -> Entry | None:
        """
        Return what is known of the key's latest purchase.
        """
        return (await self.find_many([key])).get(key)

    async def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return what is known of the latest purchases of those keys that are known at all.
        """
        wanted = tuple(keys)
        return await self._ask(lambda store: store.find_many(wanted))

    async def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to, be it their keys' latest or failed ones before.
        """
        wanted = tuple(task_ids)
        return await self._ask(lambda store: store.find_tasks(wanted))

    async def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order in which they were intended.
        """
        return await self._ask(Store.unsettled)

    async def learned(self) -> dict[str, str]:
        """
        Return what was learned of each kind of request.
        """
        return await self._ask(Store.learned)

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return nothing: whoever waits for a refusal is in this process, and has been told.
        """
        return {}

    def may_send(self, key: str) -> bool:
        """
        Tell whether a submit may leave: the file's lock is held for as long as the process lives.
        """
        return self.failure is None

    async def changed(self) -> set[str]:
        """
        Wait for ever: no other session has a key.
        """
        await asyncio.get_running_loop().create_future()
        return set()

    async def release(self) -> None:
        """
        Do nothing: the keys are whoever's who opens the file next.
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
        with suppress(RuntimeError):  # the loop is closed: it is durable, but nobody is left to be told
            loop.call_soon_threadsafe(self._landed, batch, failure)
        store.tidy()

    def _landed(self, batch: list[Work[Store]], failure: JournalError | None) -> None:
        if self._courtesy is not None:
            self._courtesy.cancel()
        self._batching.landed(batch, failure)

    def _give_way_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._courtesy = loop.call_later(_PATIENCE, self._give_way, loop)

    def _give_way(self, loop: asyncio.AbstractEventLoop) -> None:
        time.sleep(_INSTANT)
        self._give_way_later(loop)


def _undo(opening: Future[Store]) -> None:
    """
    Close what was opened when nobody waited for it any more.
    """
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


async def _finish(thread: ThreadPoolExecutor, store: Store) -> None:
    """
    Close the file once the thread has done all it was given, also where the caller is cancelled meanwhile.
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
    thread.shutdown()  # it has nothing left to do but to end


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

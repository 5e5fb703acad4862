"""
Gathering: what the coroutines of one turn of the event loop write goes to the store together, at the price of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define, field

from ..errors import JournalError
from .facts import Fact

__all__ = ["Batching", "Work"]

_Store = TypeVar("_Store")


@define(eq=False)
class Work(Generic[_Store]):
    """
    What one caller wants done, facts to keep or something to ask of the store; and how it went.

    Attributes:
        waiter: of the caller who waits for it, if one does.
    """

    facts: tuple[Fact, ...] = ()
    ask: Callable[[_Store], Any] | None = None
    waiter: asyncio.Future[Any] | None = None
    result: Any = None
    error: JournalError | None = None


@define(eq=False)
class Batching(Generic[_Store]):
    """
    Hands works to the store, a batch at a time, in the order in which they came.

    Attributes:
        begin: has a batch done, and `landed` called once it is; None while the journal is closed.
        at_once: do not wait for the end of the turn.
        failure: the first error that nobody waited for, or None.
    """

    begin: Callable[[list[Work[_Store]]], None]
    at_once: bool = False
    waiting: list[Work[_Store]] = field(init=False, factory=list)
    failure: JournalError | None = field(init=False, default=None)
    _is_busy: bool = field(init=False, default=False)

    async def put(self, work: Work[_Store]) -> Any:
        """
        Return what comes of a work once it is done.
        """
        # A future of each caller's own: cancelling it takes nothing out of the batch.
        work.waiter = asyncio.get_running_loop().create_future()
        self.add(work)
        return await work.waiter

    def add(self, work: Work[_Store]) -> None:
        """
        Have a work done, with those that are added in the same turn.
        """
        self.waiting.append(work)
        if self.at_once:
            self.flush()
        elif not self._is_busy:
            # At the end of the turn: everybody whom the last batch woke gets to add to this one.
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """
        Begin with whatever waits.
        """
        batch, self.waiting = self.waiting, []
        self._is_busy = bool(batch)
        if batch:
            self.begin(batch)

    def landed(self, batch: list[Work[_Store]], failure: JournalError | None) -> None:
        """
        Tell the callers how it went, and go on with what has come in meanwhile.
        """
        self.failure = self.failure or failure
        for work in batch:
            self._deliver(work)
        # What came in meanwhile goes now, and what its end brings about in the next turn.
        self.flush()

    def _deliver(self, work: Work[_Store]) -> None:
        if work.waiter is None:
            self.failure = self.failure or work.error
        elif work.waiter.done():
            pass  # its caller was cancelled
        elif work.error is not None:
            work.waiter.set_exception(work.error)
        else:
            work.waiter.set_result(work.result)

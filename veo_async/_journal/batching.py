"""
Batches the writes of all coroutines in one turn of the event loop, so that they cost one commit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from attrs import define, field

from ..errors import JournalError
from .facts import Fact, Fenced

__all__ = ["Batching", "Work"]

_Store = TypeVar("_Store")


@define(eq=False)
class Work(Generic[_Store]):
    """
    One caller's facts or question for the store, and then its result or error.

    Attributes:
        waiter: the future that the caller waits for, if it does.
    """

    facts: tuple[Fact, ...] = ()
    ask: Callable[[_Store], Any] | None = None
    waiter: asyncio.Future[Any] | None = None
    result: Any = None
    error: JournalError | None = None


@define(eq=False)
class Batching(Generic[_Store]):
    """
    Passes works to the store in batches, one at a time and in order.

    Attributes:
        begin: starts a batch; calls `landed` once it is done.
        at_once: do not wait for the end of the turn.
        failure: the first failure of the store, or first error of a work that nobody waits for; or None.
    """

    begin: Callable[[list[Work[_Store]]], None]
    at_once: bool = False
    waiting: list[Work[_Store]] = field(init=False, factory=list)
    failure: JournalError | None = field(init=False, default=None)
    _is_busy: bool = field(init=False, default=False)

    async def put(self, work: Work[_Store]) -> Any:
        """
        Do a work, and return its result.
        """
        # Each caller has its own future: cancelling it removes nothing from the batch.
        work.waiter = asyncio.get_running_loop().create_future()
        self.add(work)
        return await work.waiter

    def add(self, work: Work[_Store]) -> None:
        """
        Do a work, together with others that are added in the same turn.
        """
        self.waiting.append(work)
        if self.at_once:
            self.flush()
        elif not self._is_busy:
            # At the end of the turn, so that every caller that the last batch woke can add to this one.
            self._is_busy = True
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """
        Start a batch with the works that wait.
        """
        batch, self.waiting = self.waiting, []
        self._is_busy = bool(batch)
        if batch:
            self.begin(batch)

    def landed(self, batch: list[Work[_Store]], failure: JournalError | None) -> None:
        """
        Give the callers their results, and start the works that came in meanwhile.
        """
        self.failure = self.failure or failure
        for work in batch:
            self._deliver(work)
        # Works that the callers just woken add go with the next batch.
        self.flush()

    def _deliver(self, work: Work[_Store]) -> None:
        if work.waiter is None:
            if not isinstance(work.error, Fenced):  # another session's key, which is no fault of the journal
                self.failure = self.failure or work.error
        elif work.waiter.done():
            pass  # its caller was cancelled
        elif work.error is not None:
            work.waiter.set_exception(work.error)
        else:
            work.waiter.set_result(work.result)

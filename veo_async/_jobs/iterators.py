"""
`map`: requests are read only as fast as their jobs settle, so that a million prompts fit into constant memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from contextlib import aclosing
from typing import TypeVar

from attrs import define, field

from .._api.requests import Request
from .job import Job

__all__ = ["Item", "feed"]

Item = Request | tuple[str, Request]
_T = TypeVar("_T")


@define(eq=False)
class _Window:
    """
    The jobs that were submitted and not yet yielded.

    Attributes:
        open: how many there are.
    """

    size: int
    ordered: bool
    jobs: deque[Job] = field(init=False, factory=deque)
    settled: deque[Job] = field(init=False, factory=deque)
    open: int = field(init=False, default=0)
    change: asyncio.Event = field(init=False, factory=asyncio.Event)

    def add(self, job: Job) -> None:
        self.open += 1
        if self.ordered:
            self.jobs.append(job)
        job.add_done_callback(self._settle)

    def _settle(self, job: Job) -> None:
        if not self.ordered:
            self.settled.append(job)
        self.change.set()

    def take(self) -> Job | None:
        """
        Return the next settled job, if there is one, and free its place.
        """
        if self.ordered:
            job = self.jobs.popleft() if self.jobs and self.jobs[0].done() else None
        else:
            job = self.settled.popleft() if self.settled else None
        if job is not None:
            self.open -= 1
            self.change.set()
        return job

    async def wait(self) -> None:
        self.change.clear()
        await self.change.wait()


async def feed(
    requests: Iterable[Item] | AsyncIterable[Item],
    submit: Callable[[Item], Job],
    *,
    window: int,
    ordered: bool,
) -> AsyncGenerator[Job, None]:
    """
    Submit requests, with at most `window` jobs not yet yielded, and yield the jobs as they settle.

    Leaving the loop stops the reading; submitted jobs go on.
    """
    jobs = _Window(window, ordered)
    reader = asyncio.create_task(_read(requests, submit, jobs), name="veo_async map reader")
    try:
        while not (reader.done() and not jobs.open):
            if (job := jobs.take()) is not None:
                yield job
            elif reader.done() and not reader.cancelled() and reader.exception():
                break
            else:
                await jobs.wait()
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


async def _read(
    requests: Iterable[Item] | AsyncIterable[Item], submit: Callable[[Item], Job], jobs: _Window
) -> None:
    try:
        async with aclosing(_each(requests)) as items:
            while True:
                while jobs.open >= jobs.size:
                    await jobs.wait()
                jobs.add(submit(await anext(items)))
    except StopAsyncIteration:
        pass
    finally:
        jobs.change.set()


async def _each(items: Iterable[_T] | AsyncIterable[_T]) -> AsyncGenerator[_T, None]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
            await asyncio.sleep(0)  # an endless plain iterable must not hold the event loop

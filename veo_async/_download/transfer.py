"""
One download: attempt follows attempt, each going on where the last one stopped, as long as each gets further.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from random import Random
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from attrs import define, evolve, field

from .._api.records import TaskRecord, Video
from .._policies import RetryPolicy
from ..errors import DownloadError, TransportError, VeoError
from .file_io import on_disk
from .part_file import Mark, Part
from .responses import Interrupted, LinkRefused, begun, content_type_of, continued, raise_for_status

__all__ = ["LookUp", "Open", "Progress", "Transfer", "checked_link"]

log = logging.getLogger("veo_async")

Open = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]
LookUp = Callable[[str], Awaitable[TaskRecord]]
Progress = Callable[[int, int | None], object]

BATCH: Final = 1 << 20  # bytes per trip to a thread: a trip costs about 0.1 ms, a MiB about 2 ms
FLUSH_EVERY: Final = 0.25  # seconds: on a slow line, how old unwritten bytes and the last progress may get
FRUITLESS: Final = 8  # attempts in a row without a new byte: about a minute with the default delays
LOOK_UPS: Final = 3  # in a row without a new byte: fresh links that do not work either

_DROPS: Final = (aiohttp.ClientError, TransportError, OSError)  # a TimeoutError is an OSError too
_HOPELESS: Final = (
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.TooManyRedirects,
    aiohttp.ClientConnectorCertificateError,
    RuntimeError,  # the session was closed
    ValueError,  # a host or a port that nobody can have
)


# --- links ---------------------------------------------------------------------------------------------


def checked_link(url: str) -> str:
    """
    Return a video's link, or refuse one that is not an http or https URL.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # urlsplit's own word for a malformed host
        fine = False
    if not fine:
        raise DownloadError("the video's link is not an http or https URL")
    return url


def _bare(url: str) -> str:
    """
    Strip what may be secret: a signed link carries its signature in the query.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# --- bytes ---------------------------------------------------------------------------------------------


async def _batches(content: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
    """
    Yield a body in pieces worth a trip to the disk; what came before a drop is yielded before it is raised.

    The last hundred kilobytes or so are lost: when a connection breaks, aiohttp forgets what it had not handed over.
    """
    now = asyncio.get_running_loop().time
    batch: list[bytes] = []
    size, flushed_at = 0, now()
    drop: Exception | None = None
    try:
        async for chunk in content.iter_any():
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH or now() - flushed_at >= FLUSH_EVERY:
                yield batch
                batch, size, flushed_at = [], 0, now()
    except _DROPS as error:
        drop = error
    if batch:
        yield batch
    if drop is not None:
        raise Interrupted("the connection broke") from drop


# --- attempts ------------------------------------------------------------------------------------------


@define(eq=False, kw_only=True)
class Transfer:
    """
    Makes attempts until the part is whole, or there is no more hope.
    """

    open: Open
    look_up: LookUp | None
    retry: RetryPolicy
    random: Random
    progress: Progress | None
    video: Video
    part: Part
    content_type: str = field(init=False, default="")
    _furthest: int = field(init=False, default=0)
    _fruitless: int = field(init=False, default=0)
    _look_ups: int = field(init=False, default=0)
    _delays: Iterator[float] = field(init=False)

    async def run(self) -> None:
        """
        Fetch until the part is whole.
        """
        if self._whole():  # the last process came this far, and died before the renaming
            self._tell()
        self._furthest = self._have()
        self._count(progress=True)
        while not self._whole():
            before = self._furthest
            try:
                await self._attempt()
            except Interrupted as stop:
                self._count(progress=self._furthest > before)
                await self._prepare_another(stop)

    def _count(self, *, progress: bool) -> None:
        """
        Count the attempts in a row that got no further than one before them.

        A server that breaks off at the same place each time is given up, one that gets further each time is not.
        """
        self._fruitless = 0 if progress else self._fruitless + 1
        if progress:
            self._look_ups = 0
            self._delays = self.retry.delays(self.random)

    async def _prepare_another(self, stop: Interrupted) -> None:
        if stop.afresh:
            await on_disk(self.part.restart, None)
        if isinstance(stop, LinkRefused) and await self._renew_link(stop):
            return
        if self._fruitless == FRUITLESS:
            tries = f"{FRUITLESS} attempts in a row without a new byte"
            raise DownloadError(f"gave up after {tries}: {stop}") from stop.__cause__
        delay = self.retry.pause(next(self._delays), retry_after=stop.floor)
        log.info("download of task %s: %s; again in %.1f s", self.video.task_id, stop, delay)
        await asyncio.sleep(delay)

    async def _renew_link(self, stop: LinkRefused) -> bool:
        """
        Ask for the task again; True if that gave a link worth trying at once.
        """
        if self.look_up is None or self._look_ups == LOOK_UPS:
            raise DownloadError(str(stop)) from stop.__cause__
        self._look_ups += 1
        try:
            record = await self.look_up(self.video.task_id)
        except VeoError as error:
            raise DownloadError(f"{stop}, and its task cannot be looked up") from error
        fresh = next((video for video in record.videos if video.id == self.video.id), None)
        if fresh is None:
            raise DownloadError(f"{stop}, and its task no longer names this video")
        changed = checked_link(fresh.url) != self.video.url
        self.video = evolve(self.video, url=fresh.url)
        return changed and self._look_ups == 1

    async def _attempt(self) -> None:
        have = self._have()
        async with AsyncExitStack() as stack:
            response = await self._ask(stack, have)
            await self._accept(response, have)
            await self._take(response.content)

    async def _ask(self, stack: AsyncExitStack, have: int) -> aiohttp.ClientResponse:
        headers = {"accept-encoding": "identity"}  # a range of something compressed would be of no use
        if have:
            headers |= {"range": f"bytes={have}-", "if-range": str(self._mark.etag)}
        try:
            return await stack.enter_async_context(self.open(self.video.url, headers))
        except _HOPELESS as error:
            raise DownloadError("the link cannot be followed") from error
        except _DROPS as error:
            raise Interrupted("no answer came") from error

    async def _accept(self, response: aiohttp.ClientResponse, have: int) -> None:
        """
        Make the part ready for the body of a reply, or refuse the reply.
        """
        headers = response.headers
        raise_for_status(response.status, headers, have)
        self.content_type = content_type_of(headers)
        if response.status == 206:
            mark = continued(headers, self._mark, have)
            await on_disk(self.part.note, mark)
        else:
            mark = begun(headers, self._unread())
            await on_disk(self.part.restart, mark)
        if mark.total is not None:
            await on_disk(self.part.raise_if_short_of_space, mark.total - self.part.size)
        self._tell()

    async def _take(self, content: aiohttp.StreamReader) -> None:
        """
        Write a body to the part, and check that its length is right.
        """
        async with aclosing(_batches(content)) as batches:
            async for batch in batches:
                await self._append(batch)
        if self.part.size == 0:
            raise DownloadError("the link answered with an empty file")
        if self._mark.total is None:  # nobody said how long it is, and the body ended as it should
            await on_disk(self.part.note, evolve(self._mark, total=self.part.size))
        if not self._whole():
            raise Interrupted("the server sent less than it announced")

    async def _append(self, batch: Sequence[bytes]) -> None:
        total = self._mark.total
        if total is not None and self.part.size + sum(map(len, batch)) > total:
            raise Interrupted("the server sent more than it announced", afresh=True)
        await on_disk(self.part.append, batch)
        self._furthest = max(self._furthest, self.part.size)
        self._tell()

    def _tell(self) -> None:
        if self.progress is not None:
            self.progress(self.part.size, self._mark.total)

    def _unread(self) -> Mark:
        return Mark(task_id=self.video.task_id, video_id=self.video.id, link=_bare(self.video.url))

    @property
    def _mark(self) -> Mark:
        """
        What the part belongs to, if that is this video by this link; else a mark without validator and length.
        """
        unread = self._unread()
        mark = self.part.mark
        return mark if mark is not None and mark.same_file(unread) else unread

    def _have(self) -> int:
        """
        How many bytes need not be fetched again.
        """
        mark = self._mark
        usable = mark.etag is not None and self.part.size <= (mark.total or sys.maxsize)
        return self.part.size if usable else 0

    def _whole(self) -> bool:
        return self.part.size == self._mark.total

"""
One download: attempts follow each other, and each resumes where the last one stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from random import Random
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from attrs import define, evolve, field

from .._api.records import TaskRecord, Video
from .._observing.observers import Observers
from .._policies import RetryPolicy
from ..errors import DownloadError, TransportError, VeoError
from ..events import DownloadRetried
from .file_io import on_disk
from .part_file import Part, PartInfo
from .responses import (
    Interrupted,
    LinkRefused,
    content_type_of,
    info_from_200,
    info_from_206,
    raise_for_status,
)

__all__ = ["LookUp", "Open", "Progress", "Transfer", "checked_link"]

Open = Callable[[str, Mapping[str, str]], AbstractAsyncContextManager[aiohttp.ClientResponse]]
LookUp = Callable[[str], Awaitable[TaskRecord]]
Progress = Callable[[int, int | None], object]

BATCH: Final = 1 << 20  # bytes per call in a thread; a call costs about 0.1 ms, and writing a MiB about 2 ms
FLUSH_EVERY: Final = 0.25  # seconds; on a slow line, the longest time between writes and progress calls
MAX_FRUITLESS: Final = 8  # attempts in a row without a new byte; about a minute with the default delays
MAX_LOOK_UPS: Final = 3  # in a row without a new byte

_CONNECTION_ERRORS: Final = (aiohttp.ClientError, TransportError, OSError)  # a TimeoutError is an OSError too
_FINAL_ERRORS: Final = (
    aiohttp.InvalidURL,
    aiohttp.NonHttpUrlClientError,
    aiohttp.TooManyRedirects,
    aiohttp.ClientConnectorCertificateError,
    RuntimeError,  # the aiohttp session is closed
    ValueError,  # an impossible host or port
)


# --- links ---------------------------------------------------------------------------------------------


def checked_link(url: str) -> str:
    """
    Return a video's link.

    Raises:
        DownloadError: it is not an http or https URL.
    """
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:  # urlsplit raises it for a malformed host
        fine = False
    if not fine:
        raise DownloadError("the video's link is not an http or https URL")
    return url


def _without_secrets(url: str) -> str:
    """
    Remove the query, where a signed link has its signature, and the user and password.
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


# --- bytes ---------------------------------------------------------------------------------------------


async def _batches(content: aiohttp.StreamReader) -> AsyncGenerator[list[bytes], None]:
    """
    Yield a body in pieces large enough for a disk call. If the connection breaks, the bytes so far are yielded first.

    About the last 100 kB are lost, because aiohttp then discards what it has not delivered.

    Raises:
        Interrupted: the connection broke.
    """
    now = asyncio.get_running_loop().time
    batch: list[bytes] = []
    size, flushed_at = 0, now()
    broken_by: Exception | None = None
    try:
        async for chunk in content.iter_any():
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH or now() - flushed_at >= FLUSH_EVERY:
                yield batch
                batch, size, flushed_at = [], 0, now()
    except _CONNECTION_ERRORS as error:
        broken_by = error
    if batch:
        yield batch
    if broken_by is not None:
        raise Interrupted("the connection broke") from broken_by


# --- attempts ------------------------------------------------------------------------------------------


@define(eq=False, kw_only=True)
class Transfer:
    """
    Makes attempts until the part is complete, or no attempt can succeed.
    """

    open: Open
    look_up: LookUp | None
    retry: RetryPolicy
    random: Random
    progress: Progress | None
    observers: Observers
    video: Video
    part: Part
    content_type: str = field(init=False, default="")
    _furthest: int = field(init=False, default=0)
    _fruitless: int = field(init=False, default=0)
    _look_ups: int = field(init=False, default=0)
    _delays: Iterator[float] = field(init=False)

    async def run(self) -> None:
        """
        Download until the part is complete.

        Raises:
            DownloadError: no attempt can succeed.
        """
        if self._is_whole():  # an earlier process died before it renamed the part
            self._report_progress()
        self._furthest = self._bytes_kept()
        self._count_attempt(progress=True)
        while not self._is_whole():
            before = self._furthest
            try:
                await self._attempt()
            except Interrupted as stop:
                self._count_attempt(progress=self._furthest > before)
                await self._prepare_another(stop)

    def _count_attempt(self, *, progress: bool) -> None:
        """
        Count the attempts in a row that got no new byte.

        So a download that breaks at the same byte each time ends, and one that gets further each time goes on.
        """
        self._fruitless = 0 if progress else self._fruitless + 1
        if progress:
            self._look_ups = 0
            self._delays = self.retry.delays(self.random)

    async def _prepare_another(self, stop: Interrupted) -> None:
        if stop.from_zero:
            await on_disk(self.part.restart, None)
        if isinstance(stop, LinkRefused) and await self._renew_link(stop):
            return
        if self._fruitless == MAX_FRUITLESS:
            tries = f"{MAX_FRUITLESS} attempts in a row without a new byte"
            raise DownloadError(f"gave up after {tries}: {stop}") from stop.__cause__
        delay = self.retry.pause(next(self._delays), retry_after=stop.min_delay)
        self.observers.tell(
            DownloadRetried,
            task_id=self.video.task_id,
            video_id=self.video.id,
            reason=str(stop),
            seconds=delay,
        )
        await asyncio.sleep(delay)

    async def _renew_link(self, stop: LinkRefused) -> bool:
        """
        Retrieve the task again; returns whether its link should be tried at once.
        """
        if self.look_up is None or self._look_ups == MAX_LOOK_UPS:
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
        have = self._bytes_kept()
        async with AsyncExitStack() as stack:
            response = await self._ask(stack, have)
            await self._accept(response, have)
            await self._take(response.content)

    async def _ask(self, stack: AsyncExitStack, have: int) -> aiohttp.ClientResponse:
        headers = {"accept-encoding": "identity"}  # ranges of a compressed body cannot be joined
        if have:
            headers |= {"range": f"bytes={have}-", "if-range": str(self._info.etag)}
        try:
            return await stack.enter_async_context(self.open(self.video.url, headers))
        except _FINAL_ERRORS as error:
            raise DownloadError("the link cannot be followed") from error
        except _CONNECTION_ERRORS as error:
            raise Interrupted("no answer came") from error

    async def _accept(self, response: aiohttp.ClientResponse, have: int) -> None:
        """
        Check a reply, and prepare the part for its body.
        """
        headers = response.headers
        raise_for_status(response.status, headers, have)
        self.content_type = content_type_of(headers)
        if response.status == 206:
            info = info_from_206(headers, self._info, have)
            await on_disk(self.part.note, info)
        else:
            info = info_from_200(headers, self._new_info())
            await on_disk(self.part.restart, info)
        if info.total is not None:
            await on_disk(self.part.raise_if_short_of_space, info.total - self.part.size)
        self._report_progress()

    async def _take(self, content: aiohttp.StreamReader) -> None:
        """
        Write a body to the part, and check its length.
        """
        async with aclosing(_batches(content)) as batches:
            async for batch in batches:
                await self._append(batch)
        if self.part.size == 0:
            raise DownloadError("the link answered with an empty file")
        if self._info.total is None:  # no length was announced, and the body ended regularly
            await on_disk(self.part.note, evolve(self._info, total=self.part.size))
        if not self._is_whole():
            raise Interrupted("the server sent less than it announced")

    async def _append(self, batch: Sequence[bytes]) -> None:
        total = self._info.total
        if total is not None and self.part.size + sum(map(len, batch)) > total:
            raise Interrupted("the server sent more than it announced", from_zero=True)
        await on_disk(self.part.append, batch)
        self._furthest = max(self._furthest, self.part.size)
        self._report_progress()

    def _report_progress(self) -> None:
        if self.progress is not None:
            self.progress(self.part.size, self._info.total)

    def _new_info(self) -> PartInfo:
        return PartInfo(
            task_id=self.video.task_id, video_id=self.video.id, link=_without_secrets(self.video.url)
        )

    @property
    def _info(self) -> PartInfo:
        """
        What the part belongs to, if it is this video and link; else a new one without `ETag` and length.
        """
        new = self._new_info()
        info = self.part.info
        return info if info is not None and info.same_file(new) else new

    def _bytes_kept(self) -> int:
        """
        Return how many bytes of the part can be kept.
        """
        info = self._info
        usable = info.etag is not None and self.part.size <= (info.total or sys.maxsize)
        return self.part.size if usable else 0

    def _is_whole(self) -> bool:
        return self.part.size == self._info.total

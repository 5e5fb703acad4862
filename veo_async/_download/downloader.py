"""
Downloads videos, a bounded number of them at a time.

A file under its final name is always complete.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

from attrs import define, field, validators

from .._api.records import Video
from .._observing.observers import Observers
from .._policies import RetryPolicy
from ..errors import DownloadError
from ..events import Downloaded
from .destination import Place, place_for
from .file_io import on_disk
from .part_file import Part
from .transfer import LookUp, Open, Progress, Transfer, checked_link

__all__ = ["Downloader"]


@define(eq=False, kw_only=True)
class Downloader:
    """
    Downloads videos, a bounded number of them at a time.

    Attributes:
        open: begins a GET without token and cookies; handles redirects, time-outs and connections.
        look_up: retrieves a task again, with fresh links; None: a refused link ends the download.
        retry: the delays after broken connections, stalls and server errors.
        observers: who is told of downloads.
        at_once: how many downloads run at a time; others wait.
    """

    _open: Open
    _look_up: LookUp | None
    _retry: RetryPolicy
    _observers: Observers = field(factory=Observers)
    _at_once: int = field(default=8, validator=validators.ge(1))
    _slots: asyncio.Semaphore = field(init=False)
    _random: Random = field(init=False, factory=Random, repr=False)

    @_slots.default
    def _make_slots(self) -> asyncio.Semaphore:
        return asyncio.Semaphore(self._at_once)

    async def download(
        self, video: Video, destination: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        """
        Download a video's file, and return its path; an existing file is replaced.

        Args:
            video: the video to download.
            destination: a file, or an existing directory; in a directory the name is made from the ids.
            progress: called in the event loop with the number of bytes so far and the total, or None if the total
                is unknown. The first number falls if the download starts again. An exception from it ends the
                download and propagates unchanged; the part is kept if it can be resumed.

        Raises:
            DownloadError: the file could not be downloaded completely, or could not be written.
        """
        try:
            checked_link(video.url)
            place = await on_disk(place_for, destination, video)
            async with self._slots:
                return await self._fetch(video, place, progress)
        except DownloadError as error:
            error.task_id = error.task_id or video.task_id
            raise

    async def _fetch(self, video: Video, place: Place, progress: Progress | None) -> Path:
        part, now = Part(place.path), asyncio.get_running_loop().time
        began_at = now()
        transfer = Transfer(
            open=self._open,
            look_up=self._look_up,
            retry=self._retry,
            random=self._random,
            progress=progress,
            observers=self._observers,
            video=video,
            part=part,
        )
        try:
            await on_disk(part.claim)
            await transfer.run()
            target = place.final(await on_disk(part.head), transfer.content_type)
            size = part.size
            await on_disk(part.finish, target)
        finally:
            await on_disk(part.close)
        self._observers.tell(
            Downloaded,
            task_id=video.task_id,
            video_id=video.id,
            path=str(target),
            size=size,
            seconds=now() - began_at,
        )
        return target

"""
Downloads of videos, a bounded number of them at a time.

Under its final name a file is whole, or it is not there.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from random import Random

from attrs import define, field, validators

from .._api.records import Video
from .._policies import RetryPolicy
from ..errors import DownloadError
from .destination import Place, place_for
from .file_io import on_disk
from .part_file import Part
from .transfer import LookUp, Open, Progress, Transfer, checked_link

__all__ = ["Downloader"]


@define(eq=False, kw_only=True)
class Downloader:
    """
    Fetches videos' files, a bounded number of them at a time.

    Attributes:
        open: begins a GET without token and cookies; redirects, time-outs and connections are its business.
        look_up: asks for a task again, whose links are then fresh; None: a link that is refused is final.
        retry: the delays after drops, stalls and errors of the server.
        at_once: downloads under way at a time; more of them wait.
    """

    _open: Open
    _look_up: LookUp | None
    _retry: RetryPolicy
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
        Put a video's file where it is wanted, whole, and return its path; a file that is there is replaced.

        Args:
            video: which one.
            destination: a file, or an existing directory; the name in a directory is made from the ids.
            progress: called in the event loop with the bytes that are there and the total, or None where it
                is not known. The first number falls when a download has to start again. What it raises ends
                the download, comes out unchanged, and leaves what can be resumed.

        Raises:
            DownloadError: the file could not be fetched whole, or not be written.
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
        part = Part(place.path)
        transfer = Transfer(
            open=self._open,
            look_up=self._look_up,
            retry=self._retry,
            random=self._random,
            progress=progress,
            video=video,
            part=part,
        )
        try:
            await on_disk(part.claim)
            await transfer.run()
            target = place.final(await on_disk(part.head), transfer.content_type)
            await on_disk(part.finish, target)
            return target
        finally:
            await on_disk(part.close)

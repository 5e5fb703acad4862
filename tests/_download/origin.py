"""
A server of files that does as it is told, and a downloader that tells it how far it is.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from attrs import define, evolve, field, frozen

from veo_async._api.records import TaskRecord, TaskState, Video
from veo_async._download.downloader import Downloader
from veo_async._download.transfer import Progress
from veo_async._policies import RetryPolicy
from veo_async.errors import DownloadError

__all__ = [
    "GIF",
    "MP4",
    "QUICK",
    "Answer",
    "Asked",
    "Make",
    "Origin",
    "Script",
    "Watched",
    "leave_part",
    "names",
    "record",
]

MP4 = b"\0\0\0\x18ftypmp42" + Random(1).randbytes(300_000)
GIF = b"GIF89a" + Random(2).randbytes(5_000)
QUICK = RetryPolicy(first=0.001, max_delay=0.002, max_pause=0.005)


@define(eq=False)
class Heard:
    """
    How far the client says it is: aiohttp drops what it has not handed over when a connection breaks.
    """

    done: int = field(init=False, default=-1)
    _changed: asyncio.Event = field(init=False, factory=asyncio.Event)

    def tell(self, done: int) -> None:
        self.done = done
        self._changed.set()

    async def reach(self, done: int) -> None:
        while self.done < done:
            self._changed.clear()
            await self._changed.wait()


class Asked(NamedTuple):
    """
    One request as the server saw it; header names in lower case.
    """

    path: str
    headers: Mapping[str, str]


@frozen(kw_only=True)
class Answer:
    """
    What to send, down to the byte.

    After `keep` bytes of the body the connection is cut, once the client has them, or goes silent.
    """

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = b""
    keep: int | None = None
    silent: bool = False
    measured: bool = True
    after: asyncio.Event | None = None


Script = Answer | Callable[[Asked], Answer]


@define(eq=False)
class Origin:
    """
    A file behind a raw socket; the script's answers come first, then the file as RFC 9110 wants it.
    """

    content: bytes = MP4
    etag: str | None = '"one"'
    type: str = "video/mp4"
    script: deque[Script] = field(factory=deque)
    heard: Heard = field(factory=Heard)
    asked: list[Asked] = field(init=False, factory=list)
    port: int = field(init=False, default=0)

    def url(self, path: str = "/whale") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def video(self, path: str = "/whale", **fields: Any) -> Video:
        return Video(**{"id": "v1", "task_id": "t1", "url": self.url(path)} | fields)

    def ranges(self) -> list[str | None]:
        return [asked.headers.get("range") for asked in self.asked]

    def proper(self, asked: Asked) -> Answer:
        """
        Answer as a server should, with the conditions of the request honoured.
        """
        headers = {"Content-Type": self.type} | ({"ETag": self.etag} if self.etag else {})
        wanted = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
        if wanted is None or asked.headers.get("if-range") != self.etag:
            return Answer(headers=headers, body=self.content)
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        return Answer(status=206, headers=headers, body=self.content[start:])

    def cut(self, keep: int, **changes: Any) -> Callable[[Asked], Answer]:
        return lambda asked: evolve(self.proper(asked), keep=keep, **changes)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Origin]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            pairs = (line.partition(":") for line in head[1:] if line)
            asked = Asked(head[0].split()[1], {name.lower(): value.strip() for name, _, value in pairs})
            self.asked.append(asked)
            step = self.script.popleft() if self.script else self.proper
            self.heard.tell(-1)
            await self._send(step if isinstance(step, Answer) else step(asked), reader, writer)
        except ConnectionError:
            pass  # the client had seen enough
        finally:
            writer.close()

    async def _send(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer.after is not None:
            await answer.after.wait()
        length = {"Content-Length": str(len(answer.body))} if answer.measured else {}
        headers = length | {"Connection": "close"} | dict(answer.headers)
        lines = [f"HTTP/1.1 {answer.status} So", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body[: answer.keep])
        await writer.drain()
        if answer.silent:
            await reader.read(1)  # until the client hangs up
        elif answer.keep is not None:
            start = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
            sent = min(answer.keep, len(answer.body))
            reached = asyncio.ensure_future(self.heard.reach(sent + (int(start[1]) if start else 0)))
            hung_up = asyncio.ensure_future(reader.read(1))
            await asyncio.wait((reached, hung_up), return_when=asyncio.FIRST_COMPLETED)
            reached.cancel()
            hung_up.cancel()


Make = Callable[..., Downloader]


class Watched(Downloader):
    """
    Tells the server how far it is, beside the caller.
    """

    heard: Heard

    async def download(
        self, video: Video, destination: str | os.PathLike[str], *, progress: Progress | None = None
    ) -> Path:
        def tell(done: int, total: int | None) -> None:
            self.heard.tell(done)
            if progress is not None:
                progress(done, total)

        return await super().download(video, destination, progress=tell)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def record(*videos: Video) -> TaskRecord:
    return TaskRecord(id="t1", state=TaskState.SUCCEEDED, videos=videos)


async def leave_part(origin: Origin, make: Make, target: Path, keep: int = 100_000) -> None:
    """
    Stop a download after so many bytes, and forget what was asked.
    """
    origin.script.append(origin.cut(keep))
    origin.script.append(Answer(status=401))
    with pytest.raises(DownloadError):
        await make().download(origin.video(), target)
    assert keep == target.with_name(target.name + ".part").stat().st_size
    origin.asked.clear()

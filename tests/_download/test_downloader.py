"""
Downloads over real loopback sockets, from servers that are well behaved, badly behaved, or gone.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web
from attrs import define, evolve, field, frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from veo_async._api.records import TaskRecord, TaskState, Video
from veo_async._download import downloader as downloader_room
from veo_async._download import part_file
from veo_async._download.downloader import FRUITLESS, LOOK_UPS, Downloader, Progress
from veo_async._policies import RetryPolicy
from veo_async.errors import ConnectionFailed, DownloadError, TaskNotFound, TransportTimedOut

MP4 = b"\0\0\0\x18ftypmp42" + Random(1).randbytes(300_000)
GIF = b"GIF89a" + Random(2).randbytes(5_000)
QUICK = RetryPolicy(first=0.001, max_delay=0.002, max_pause=0.005)


# --- a server that does as it is told --------------------------------------------------------------------


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


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin().serving() as origin:
        yield origin


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=5.0)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        yield http


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


@pytest.fixture
def downloader(http: aiohttp.ClientSession, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(downloader_room, "FLUSH_EVERY", 0.0)  # each chunk is written when it comes

    def begin(url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return http.get(url, headers=headers, max_redirects=3)

    def make(**fields: Any) -> Downloader:
        made = Watched(**{"open": begin, "look_up": None, "retry": QUICK} | fields)
        made.heard = origin.heard
        return made

    return make


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def record(*videos: Video) -> TaskRecord:
    return TaskRecord(id="t1", state=TaskState.SUCCEEDED, videos=videos)


# --- the ordinary way ------------------------------------------------------------------------------------


async def test_a_file_arrives_whole(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """The bytes are the server's, the path is the one that was asked for, and nothing else is left."""
    path = await downloader().download(origin.video(), tmp_path / "whale.mp4")
    assert tmp_path / "whale.mp4" == path
    assert MP4 == path.read_bytes()
    assert ["whale.mp4"] == names(tmp_path)
    assert ["identity"] == [asked.headers["accept-encoding"] for asked in origin.asked]


async def test_a_file_from_an_aiohttp_server_arrives_whole(downloader: Make, tmp_path: Path) -> None:
    """A real server with several megabytes to send, in chunks and without a length, is read to the end."""
    content = Random(3).randbytes(5_000_000)

    async def get(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for start in range(0, len(content), 70_000):
            await response.write(content[start : start + 70_000])
        return response

    app = web.Application()
    app.router.add_get("/", get)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        video = Video(id="v1", task_id="t1", url=f"http://127.0.0.1:{runner.addresses[0][1]}/")
        told: list[tuple[int, int | None]] = []
        path = await downloader().download(
            video, str(tmp_path / "a.mp4"), progress=lambda *seen: told.append(seen)
        )
    finally:
        await runner.cleanup()
    assert content == path.read_bytes()
    assert (0, None) == told[0]
    assert len(content) == told[-1][0]


@pytest.mark.parametrize(
    ("file", "extension"),
    [
        ((MP4, "video/mp4"), ".mp4"),
        ((MP4, "image/gif"), ".mp4"),
        ((GIF, "image/gif"), ".gif"),
        ((GIF, "application/octet-stream"), ".gif"),
        ((b"unfamiliar", "image/gif; version=89"), ".gif"),
        ((b"unfamiliar", "video/x-flv"), ".mp4"),
    ],
)
async def test_a_directory_gets_a_file_named_after_the_ids(
    origin: Origin, downloader: Make, tmp_path: Path, file: tuple[bytes, str], extension: str
) -> None:
    """The extension follows the file's first bytes, or else its type, whatever the link looks like."""
    origin.content, origin.type = content, _ = file
    path = await downloader().download(origin.video("/../../evil.sh"), tmp_path)
    assert tmp_path / f"t1_v1{extension}" == path
    assert content == path.read_bytes()
    assert [path.name] == names(tmp_path)


async def test_an_older_file_is_replaced_only_by_a_whole_one(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """A download that fails leaves the file that is there alone; one that succeeds replaces it."""
    target = tmp_path / "whale.mp4"
    target.write_bytes(b"older")
    origin.script.append(Answer(status=401))
    with pytest.raises(DownloadError, match="answered 401"):
        await downloader().download(origin.video(), target)
    assert b"older" == target.read_bytes()
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["whale.mp4"] == names(tmp_path)


async def test_progress_is_told_in_bytes(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """Progress goes from nothing to everything, never back, with the total once it is known."""
    told: list[tuple[int, int | None]] = []
    await downloader().download(origin.video(), tmp_path, progress=lambda *seen: told.append(seen))
    assert (0, len(MP4)) == told[0]
    assert (len(MP4), len(MP4)) == told[-1]
    assert sorted(told) == told


async def test_no_more_run_at_once_than_allowed(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """Of six downloads two are under way at a time, and all of them end."""
    begin = downloader()._open
    busy, busiest, both = 0, 0, asyncio.Event()

    @asynccontextmanager
    async def counted(url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        nonlocal busy, busiest
        busy += 1
        busiest = max(busy, busiest)
        if busy == 2:
            both.set()
        await both.wait()
        async with begin(url, headers) as response:
            yield response
        busy -= 1

    shared = downloader(open=counted, at_once=2)
    await asyncio.gather(*(shared.download(origin.video(id=f"v{n}"), tmp_path) for n in range(6)))
    assert 2 == busiest
    assert [f"t1_v{n}.mp4" for n in range(6)] == names(tmp_path)


async def test_two_downloads_of_one_target_do_not_meet(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Two at once write apart, both end, and the file is one of theirs, whole."""
    both = asyncio.Event()
    other = Origin(content=MP4[::-1])
    target = tmp_path / "whale.mp4"
    for place, neighbour in ((origin, other), (other, origin)):

        def hold(asked: Asked, place: Origin = place, neighbour: Origin = neighbour) -> Answer:
            if neighbour.asked:
                both.set()
            return evolve(place.proper(asked), after=both)

        place.script.append(hold)
    async with other.serving():
        await asyncio.gather(
            downloader().download(origin.video(), target),
            downloader().download(other.video(id="v2"), target),
        )
    assert target.read_bytes() in {MP4, MP4[::-1]}
    assert ["whale.mp4"] == names(tmp_path)


# --- going on --------------------------------------------------------------------------------------------


async def test_a_cut_is_resumed_where_it_happened(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """After a cut only the rest is asked for, on condition that the file is still the same."""
    origin.script.extend([origin.cut(100_000), origin.cut(50_000)])
    path = await downloader().download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert [None, "bytes=100000-", "bytes=150000-"] == origin.ranges()
    assert [None, '"one"', '"one"'] == [asked.headers.get("if-range") for asked in origin.asked]


async def test_a_stall_is_resumed(origin: Origin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that goes silent in the middle is left, and the rest is fetched on another connection."""
    monkeypatch.setattr(downloader_room, "FLUSH_EVERY", 3600.0)
    origin.script.append(origin.cut(100_000, silent=True))
    timeout = aiohttp.ClientTimeout(sock_read=0.15)
    async with aiohttp.ClientSession(timeout=timeout) as impatient:
        plain = Downloader(
            open=lambda url, headers: impatient.get(url, headers=headers), look_up=None, retry=QUICK
        )
        path = await plain.download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert "bytes=100000-" == origin.ranges()[1]


async def test_progress_renews_the_patience(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A connection that breaks far more often than the allowed failures in a row still gets the file."""
    origin.script.extend([origin.cut(10_000)] * (2 * FRUITLESS))
    path = await downloader().download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert 2 * FRUITLESS + 1 == len(origin.asked)


async def test_a_cancelled_download_is_taken_up_by_the_next(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Cancelling leaves the part and no final file; the next call fetches only what is missing."""
    origin.script.append(origin.cut(100_000, silent=True))
    target = tmp_path / "whale.mp4"
    begun = asyncio.Event()
    task = asyncio.create_task(
        downloader().download(origin.video(), target, progress=lambda done, _: begun.set() if done else None)
    )
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ["whale.mp4.part", "whale.mp4.part.json"] == names(tmp_path)
    had = (tmp_path / "whale.mp4.part").stat().st_size
    assert 0 < had <= 100_000

    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert [None, f"bytes={had}-"] == origin.ranges()
    assert ["whale.mp4"] == names(tmp_path)


PROGRAM = """
import asyncio, sys
import aiohttp
from veo_async._download import downloader as downloader_room
from veo_async._policies import RetryPolicy
from veo_async._api.records import Video

downloader_room.FLUSH_EVERY = 0.0

async def main(url, target):
    async with aiohttp.ClientSession() as http:
        fetch = downloader_room.Downloader(
            open=lambda url, headers: http.get(url, headers=headers), look_up=None, retry=RetryPolicy()
        )
        video = Video(id="v1", task_id="t1", url=url)
        await fetch.download(video, target, progress=lambda done, total: print(done, flush=True))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_killed_process_is_taken_up_by_the_next(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """After `kill -9` in the middle another process goes on with the part."""
    origin.script.append(origin.cut(100_000, silent=True))
    target = tmp_path / "whale.mp4"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, origin.url(), str(target), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        while int(await process.stdout.readline()) == 0:
            pass
    finally:
        process.send_signal(signal.SIGKILL)
        await process.communicate()
    had = (tmp_path / "whale.mp4.part").stat().st_size

    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert [None, f"bytes={had}-"] == origin.ranges()
    assert ["whale.mp4"] == names(tmp_path)


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


async def test_a_changed_file_is_fetched_from_its_beginning(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """A server that answers 200 because the validator no longer fits gives the new file, and none of the old."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)
    origin.content, origin.etag = MP4[::-1], '"two"'
    await downloader().download(origin.video(), target)
    assert MP4[::-1] == target.read_bytes()
    assert ["bytes=100000-"] == origin.ranges()


@pytest.mark.parametrize(
    "changes",
    [
        {"Content-Range": "bytes 99999-300011/300012"},
        {"Content-Range": "bytes 100000-300011/300013"},
        {"Content-Range": "bytes 100000-300012/300012"},
        {"Content-Range": "bytes 100000-99999/300012"},
        {"Content-Range": "bytes */300012"},
        {"Content-Range": "kilometres 100-200/300"},
        {"Content-Range": ""},
        {"ETag": '"two"'},
        {"ETag": ""},
    ],
)
async def test_a_part_that_does_not_fit_is_refused(
    origin: Origin, downloader: Make, tmp_path: Path, changes: Mapping[str, str]
) -> None:
    """A 206 with a wrong start, length or validator is not used: the file is fetched from its beginning."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)

    def wrong(asked: Asked) -> Answer:
        fine = origin.proper(asked)
        return evolve(fine, body=bytes(len(fine.body)), headers={**fine.headers, **changes})

    origin.script.append(wrong)
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["bytes=100000-", None] == origin.ranges()


async def test_a_range_of_unknown_total_is_taken(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """An asterisk for the total is fine where the total was known before."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)

    def vague(asked: Asked) -> Answer:
        fine = origin.proper(asked)
        return evolve(fine, headers={**fine.headers, "Content-Range": "bytes 100000-300011/*"})

    origin.script.append(vague)
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["bytes=100000-"] == origin.ranges()


async def test_a_shorter_range_is_continued(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A server may send less than it was asked for: what is missing is asked for next."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)

    def some(asked: Asked) -> Answer:
        fine = origin.proper(asked)
        headers = {**fine.headers, "Content-Range": "bytes 100000-199999/300012"}
        return evolve(fine, headers=headers, body=fine.body[:100_000])

    origin.script.append(some)
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["bytes=100000-", "bytes=200000-"] == origin.ranges()


async def test_a_range_that_the_server_lacks_starts_again(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """A 416 throws the part away, since the file must have become another."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)
    origin.script.append(Answer(status=416, headers={"Content-Range": "bytes */50000"}))
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["bytes=100000-", None] == origin.ranges()


@pytest.mark.parametrize("etag", [None, 'W/"one"', '""', '"o ne"', "one"])
async def test_without_a_strong_validator_nothing_is_resumed(
    origin: Origin, downloader: Make, tmp_path: Path, etag: str | None
) -> None:
    """Where nobody can tell whether the rest belongs to the beginning, the file is fetched anew."""
    origin.etag = etag
    origin.script.append(origin.cut(100_000))
    told: list[int] = []
    path = await downloader().download(
        origin.video(), tmp_path / "whale.mp4", progress=lambda done, _: told.append(done)
    )
    assert MP4 == path.read_bytes()
    assert [None, None] == origin.ranges()
    assert 0 == told[told.index(100_000) + 1]


async def test_what_cannot_be_resumed_is_not_kept(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A failed download without a validator leaves nothing behind."""
    origin.etag = None
    origin.script.extend([origin.cut(100_000), Answer(status=401)])
    with pytest.raises(DownloadError):
        await downloader().download(origin.video(), tmp_path)
    assert [] == names(tmp_path)


async def test_a_whole_part_needs_no_server(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A process that died between the last byte and the renaming cost nothing: the part becomes the file."""
    target = tmp_path / "whale.mp4"

    def stop(done: int, total: int | None) -> None:
        if done == total:
            raise KeyError("just now")

    with pytest.raises(KeyError, match="just now"):
        await downloader().download(origin.video(), target, progress=stop)
    assert ["whale.mp4.part", "whale.mp4.part.json"] == names(tmp_path)
    origin.asked.clear()
    told: list[tuple[int, int | None]] = []
    await downloader().download(origin.video(), target, progress=lambda *seen: told.append(seen))
    assert MP4 == target.read_bytes()
    assert [(len(MP4), len(MP4))] == told
    assert [] == origin.asked


@pytest.mark.parametrize("other", [{"id": "v2"}, {"task_id": "t2"}, {"path": "/other"}])
async def test_a_part_of_another_video_is_not_used(
    origin: Origin, downloader: Make, tmp_path: Path, other: dict[str, str]
) -> None:
    """What lies there from another task, video or link is thrown away."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)
    origin.content = MP4[::-1]  # and the validator happens to be the same
    await downloader().download(origin.video(**other), target)
    assert MP4[::-1] == target.read_bytes()
    assert [None] == origin.ranges()


async def test_a_signature_in_a_link_is_neither_kept_nor_compared(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Only a link's query changed: the part goes on; and the query was never written down."""
    target = tmp_path / "whale.mp4"
    origin.script.extend([origin.cut(100_000), Answer(status=401)])
    with pytest.raises(DownloadError) as caught:
        await downloader().download(origin.video("/whale?signature=secret"), target)
    assert "secret" not in str(caught.value)
    assert "secret" not in (tmp_path / "whale.mp4.part.json").read_text()
    await downloader().download(origin.video("/whale?signature=fresh"), target)
    assert MP4 == target.read_bytes()
    assert "bytes=100000-" == origin.ranges()[-1]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"task_id": "t1"}',
        b"\xff",
        b"[" * 10_000,
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"a\\"\\r\\nX: y", "total": 9}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "W/\\"a\\"", "total": 300012}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": 7, "total": 300012}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"one\\"", "total": 100000.0}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"one\\"", "total": true}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"one\\"", "total": 0}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"one\\"", "total": 99999}',
        b'{"task_id": "t1", "video_id": "v1", "link": "LINK", "etag": "\\"one\\"", "extra": 1}',
        None,
    ],
)
async def test_a_part_that_nobody_vouches_for_is_not_used(
    origin: Origin, downloader: Make, tmp_path: Path, text: bytes | None
) -> None:
    """A note beside the part that is missing, cut off, altered or impossible means starting at zero."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)
    note = tmp_path / "whale.mp4.part.json"
    note.unlink()
    if text is not None:
        note.write_bytes(text.replace(b"LINK", origin.url().encode()))
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert [None] == origin.ranges()
    assert ["whale.mp4"] == names(tmp_path)


# --- everything at once ----------------------------------------------------------------------------------

Fault = Callable[[Origin, int], Script]


def _misplaced(origin: Origin, keep: int) -> Script:
    def answer(asked: Asked) -> Answer:
        fine = origin.proper(asked)
        wrong = {"Content-Range": f"bytes {keep}-{len(origin.content) - 1}/{len(origin.content)}"}
        return evolve(fine, headers={**fine.headers, **wrong}) if fine.status == 206 else fine

    return answer


def _replaced(origin: Origin, keep: int) -> Script:
    def answer(asked: Asked) -> Answer:
        origin.content = Random(keep).randbytes(1000 + keep)
        origin.etag = f'"{keep}"' if keep % 3 else None
        return evolve(origin.proper(asked), keep=keep)

    return answer


def _unconditional(origin: Origin, keep: int) -> Script:
    """
    Ignore the range, as many a server does.
    """
    return lambda asked: evolve(origin.proper(Asked(asked.path, {})), keep=keep)


FAULTS: dict[str, Fault] = {
    "cut": lambda origin, keep: origin.cut(keep),
    "dropped": lambda origin, keep: origin.cut(0),
    "failing": lambda origin, keep: Answer(status=503),
    "short of range": lambda origin, keep: Answer(status=416),
    "misplaced": _misplaced,
    "replaced": _replaced,
    "unconditional": _unconditional,
    "refused": lambda origin, keep: Answer(status=401),
}


@settings(max_examples=25, deadline=None)
@given(faults=st.lists(st.tuples(st.sampled_from(sorted(FAULTS)), st.integers(0, 5000)), max_size=12))
def test_whatever_happens_a_file_is_whole(faults: list[tuple[str, int]]) -> None:
    """After any series of faults the file is the server's last version, whole; until then there is none."""

    async def fetch(target: Path) -> Origin:
        async with Origin(content=MP4[:6000]).serving() as origin, aiohttp.ClientSession() as http:
            origin.script.extend(FAULTS[name](origin, keep) for name, keep in faults)
            for _ in range(
                len(faults) + 1
            ):  # a call ends with the file, or with a fault that ends a download
                fetch = Watched(
                    open=lambda url, headers: http.get(url, headers=headers), look_up=None, retry=QUICK
                )
                fetch.heard = origin.heard
                with suppress(DownloadError):
                    await fetch.download(origin.video(), target)
                    break
            return origin

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloader_room, "FLUSH_EVERY", 0.0)
        target = Path(directory, "whale.mp4")
        origin = asyncio.run(fetch(target))
        assert origin.content == target.read_bytes()
        assert ["whale.mp4"] == names(target.parent)


# --- replies that are no file ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (Answer(), "empty file"),
        (Answer(headers={"Transfer-Encoding": "chunked"}, body=b"0\r\n\r\n", measured=False), "empty file"),
        (Answer(headers={"Content-Type": "text/html; charset=utf-8"}, body=b"<html>"), "text/html"),
        (Answer(headers={"Content-Type": "application/JSON"}, body=b"{}"), "application/json"),
        (Answer(headers={"Content-Encoding": "gzip"}, body=b"\x1f\x8b"), "content encoding 'gzip'"),
        (Answer(status=206, headers={"Content-Range": "bytes 0-1/2"}, body=b"ab"), "answered 206"),
        (Answer(status=204), "answered 204"),
        (Answer(status=400), "answered 400"),
        (Answer(status=416), "answered 416"),
        (Answer(status=302, headers={"Location": "ftp://example.com/"}), "cannot be followed"),
        (Answer(status=302, headers={"Location": "file:///etc/passwd"}), "cannot be followed"),
    ],
)
async def test_a_reply_without_a_video_ends_the_download(
    origin: Origin, downloader: Make, tmp_path: Path, answer: Answer, words: str
) -> None:
    """What will not become better by asking again is an error at once, which names the task."""
    origin.script.append(answer)
    with pytest.raises(DownloadError, match=words) as caught:
        await downloader().download(origin.video(), tmp_path)
    assert "t1" == caught.value.task_id
    assert 1 == len(origin.asked)
    assert [] == names(tmp_path)


async def test_a_session_that_is_closed_ends_the_download(
    origin: Origin, downloader: Make, http: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Without connections there is nothing to wait for."""
    await http.close()
    with pytest.raises(DownloadError, match="cannot be followed") as caught:
        await downloader().download(origin.video(), tmp_path)
    assert "Session is closed" == str(caught.value.__cause__)


async def test_redirects_without_end_are_not_followed(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """A few redirects are the opener's business; too many end the download."""
    origin.script.extend([Answer(status=302, headers={"Location": "/whale"})] * 10)
    with pytest.raises(DownloadError, match="cannot be followed") as caught:
        await downloader().download(origin.video(), tmp_path)
    assert isinstance(caught.value.__cause__, aiohttp.TooManyRedirects)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
async def test_a_passing_failure_is_tried_again(
    origin: Origin, downloader: Make, tmp_path: Path, status: int
) -> None:
    """An overloaded or failing server is asked again after a delay."""
    origin.script.extend([Answer(status=status, body=b"sorry")] * 2)
    path = await downloader().download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert 3 == len(origin.asked)


async def test_retry_after_is_a_floor(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """What a server asks to wait reaches the policy, which weighs it against the back-off."""
    asked_for: list[float | None] = []

    class Patient(RetryPolicy):
        def pause(self, delay: float, *, retry_after: float | None = None) -> float:
            asked_for.append(retry_after)
            return 0.0

    origin.script.append(Answer(status=429, headers={"Retry-After": "7"}))
    origin.script.append(Answer(status=503))
    await downloader(retry=Patient()).download(origin.video(), tmp_path)
    assert [7.0, 0.0] == asked_for


async def test_failures_without_end_are_given_up(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """So many attempts in a row without a new byte end the download, and keep what it had."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)
    origin.script.extend([Answer(status=503)] * 100)
    with pytest.raises(
        DownloadError, match=r"gave up after 8 attempts in a row without a new byte: the link answered 503"
    ):
        await downloader().download(origin.video(), target)
    assert FRUITLESS == len(origin.asked)
    assert ["whale.mp4.part", "whale.mp4.part.json"] == names(tmp_path)


async def test_a_server_that_always_breaks_off_at_one_place_is_given_up(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Bytes that were had before are no progress."""
    origin.etag = None
    origin.script.extend([origin.cut(100_000)] * 100)
    with pytest.raises(DownloadError, match="the connection broke") as caught:
        await downloader().download(origin.video(), tmp_path)
    assert isinstance(caught.value.__cause__, aiohttp.ClientPayloadError)
    assert FRUITLESS + 1 == len(origin.asked)
    assert [] == names(tmp_path)


async def test_a_server_that_is_not_there_is_given_up(downloader: Make, tmp_path: Path) -> None:
    """A refused connection is tried again a bounded number of times, and is the cause of the error."""
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="no answer came") as caught:
            await downloader().download(Video(id="v1", task_id="t1", url=url), tmp_path)
    assert isinstance(caught.value.__cause__, aiohttp.ClientConnectorError)


async def test_an_opener_may_raise_our_own_errors(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A transport error from the opener counts as a drop."""
    errors = deque([TransportTimedOut("slow"), ConnectionFailed("gone")])
    begin = downloader()._open

    def open_later(
        url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        if errors:
            raise errors.popleft()
        return begin(url, headers)

    path = await downloader(open=open_later).download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()


async def test_more_than_announced_is_thrown_away(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A body that goes on past its end is not the file: it is fetched from its beginning."""
    target = tmp_path / "whale.mp4"
    await leave_part(origin, downloader, target)

    def endless(asked: Asked) -> Answer:
        fine = origin.proper(asked)
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(MP4), MP4)
        return evolve(
            fine, headers={**fine.headers, "Transfer-Encoding": "chunked"}, body=body, measured=False
        )

    origin.script.append(endless)
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert ["bytes=100000-", None] == origin.ranges()


# --- links that expire -----------------------------------------------------------------------------------


@define(eq=False)
class Desk:
    """
    Where tasks are looked up: gives the prepared records in turn, the last one for ever.
    """

    answers: deque[TaskRecord | Exception]
    asked: list[str] = field(init=False, factory=list)

    async def look_up(self, task_id: str) -> TaskRecord:
        self.asked.append(task_id)
        answer = self.answers.popleft() if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_link_that_expired_is_renewed(
    origin: Origin, downloader: Make, tmp_path: Path, status: int
) -> None:
    """The task is looked up, and its fresh link to the same video followed."""
    origin.script.append(Answer(status=status))
    desk = Desk(deque([record(origin.video("/other", id="v0"), origin.video("/fresh"))]))
    path = await downloader(look_up=desk.look_up).download(origin.video("/stale"), tmp_path)
    assert MP4 == path.read_bytes()
    assert ["t1"] == desk.asked
    assert ["/stale", "/fresh"] == [asked.path for asked in origin.asked]


async def test_a_link_that_expires_on_the_way_goes_on(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Only the signature changed, so what is there need not be fetched again."""
    origin.script.extend([origin.cut(100_000), Answer(status=403)])
    desk = Desk(deque([record(origin.video("/whale?s=2"))]))
    path = await downloader(look_up=desk.look_up).download(origin.video("/whale?s=1"), tmp_path)
    assert MP4 == path.read_bytes()
    assert [None, "bytes=100000-", "bytes=100000-"] == origin.ranges()


async def test_a_fresh_link_may_need_a_moment(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """The same link again is tried after a delay, since a file may appear late."""
    origin.script.extend([Answer(status=404)] * LOOK_UPS)
    desk = Desk(deque([record(origin.video())]))
    path = await downloader(look_up=desk.look_up).download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert LOOK_UPS == len(desk.asked)


async def test_links_that_never_work_are_given_up(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A task is looked up a bounded number of times."""
    origin.script.extend([Answer(status=410)] * 100)
    desk = Desk(deque([record(origin.video(f"/{n}")) for n in range(100)]))
    with pytest.raises(DownloadError, match="the link answered 410"):
        await downloader(look_up=desk.look_up).download(origin.video(), tmp_path)
    assert LOOK_UPS == len(desk.asked)
    assert LOOK_UPS + 1 == len(origin.asked)


async def test_a_link_cannot_be_renewed_without_a_look_up(
    origin: Origin, downloader: Make, tmp_path: Path
) -> None:
    """Where tasks cannot be asked for, an expired link is an error at once."""
    origin.script.append(Answer(status=404))
    with pytest.raises(DownloadError, match="the link answered 404"):
        await downloader().download(origin.video(), tmp_path)
    assert 1 == len(origin.asked)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (record(), "no longer names this video"),
        (record(Video(id="v2", task_id="t1", url="http://127.0.0.1/")), "no longer names this video"),
        (record(Video(id="v1", task_id="t1", url="javascript:alert(1)")), "not an http or https URL"),
        (TaskNotFound("gone"), "cannot be looked up"),
    ],
)
async def test_a_link_that_cannot_be_renewed_is_an_error(
    origin: Origin, downloader: Make, tmp_path: Path, answer: TaskRecord | Exception, words: str
) -> None:
    """A task that is gone, or no longer has the video, ends the download with its cause."""
    origin.script.append(Answer(status=404))
    desk = Desk(deque([answer]))
    with pytest.raises(DownloadError, match=words) as caught:
        await downloader(look_up=desk.look_up).download(origin.video(), tmp_path)
    assert "t1" == caught.value.task_id
    assert (answer if isinstance(answer, Exception) else None) is caught.value.__cause__


# --- what the caller does wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "whale.mp4", "/whale.mp4", "ftp://127.0.0.1/a", "file:///etc/passwd", "http://", "http://[a"]
)
async def test_only_web_links_are_followed(downloader: Make, tmp_path: Path, url: str) -> None:
    """Anything but an absolute http or https URL is refused."""
    with pytest.raises(DownloadError, match="not an http or https URL") as caught:
        await downloader().download(Video(id="v1", task_id="t1", url=url), tmp_path)
    assert "t1" == caught.value.task_id
    assert [] == names(tmp_path)


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("missing/whale.mp4", "there is no directory .*missing"),
        ("missing/", "there is no directory .*missing"),
        ("file/whale.mp4", "there is no directory .*file"),
        ("pipe", "neither a file nor a directory"),
        ("a\0b", "cannot write"),
        ("x" * 300, "cannot write .*: File name too long"),
        ("taken.mp4", "cannot write .*: Is a directory"),
        ("linked.mp4", "cannot write"),
    ],
)
async def test_a_destination_that_cannot_be_is_refused_before_any_traffic(
    origin: Origin, downloader: Make, tmp_path: Path, destination: str, words: str
) -> None:
    """A missing directory, a device, or a name that cannot be written is said before the server is asked."""
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "taken.mp4.part").mkdir()
    (tmp_path / "linked.mp4.part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DownloadError, match=words) as caught:
        await downloader().download(origin.video(), f"{tmp_path}/{destination}")
    assert "t1" == caught.value.task_id
    assert [] == origin.asked
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture
def read_only(tmp_path: Path) -> Path:
    tmp_path.chmod(0o500)
    return tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
async def test_a_directory_that_may_not_be_written_is_an_error(
    origin: Origin, downloader: Make, read_only: Path
) -> None:
    """A lack of permission is said, with its cause, before the server is asked."""
    with pytest.raises(DownloadError, match="Permission denied") as caught:
        await downloader().download(origin.video(), read_only)
    assert isinstance(caught.value.__cause__, PermissionError)
    assert [] == origin.asked


async def test_a_file_larger_than_the_disk_is_not_begun(
    origin: Origin, downloader: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the bytes that are needed and those that are free."""
    nearly_full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: nearly_full)
    with pytest.raises(DownloadError, match=f"{len(MP4)} bytes are needed, 1000 are free"):
        await downloader().download(origin.video(), tmp_path / "whale.mp4")
    assert [] == names(tmp_path)


@pytest.mark.parametrize(
    "failure", [(errno.ENOSPC, []), (errno.EIO, ["whale.mp4.part", "whale.mp4.part.json"])]
)
async def test_a_write_that_fails_is_an_error(
    origin: Origin,
    downloader: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: tuple[int, list[str]],
) -> None:
    """A full disk is given back what it was given; after any other failure the part stays."""
    target = tmp_path / "whale.mp4"
    code, left = failure
    await leave_part(origin, downloader, target)

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(part_file, "_write_all", fail)
    with pytest.raises(DownloadError, match=os.strerror(code)) as caught:
        await downloader().download(origin.video(), target)
    assert isinstance(caught.value.__cause__, OSError)
    assert code == caught.value.__cause__.errno
    assert 1 == len(origin.asked)
    assert left == names(tmp_path)


async def test_a_renaming_that_fails_keeps_the_part(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A target that became a directory meanwhile costs no byte: the part is whole and waits."""
    target = tmp_path / "whale.mp4"

    def block(done: int, total: int | None) -> None:
        target.mkdir(exist_ok=True)

    with pytest.raises(DownloadError, match=r"cannot write .*whale.mp4: Is a directory"):
        await downloader().download(origin.video(), target, progress=block)
    target.rmdir()
    await downloader().download(origin.video(), target)
    assert MP4 == target.read_bytes()
    assert 1 == len(origin.asked)


@pytest.mark.parametrize("error", [OSError("mine"), TimeoutError("mine"), KeyError("mine")])
async def test_what_progress_raises_ends_the_download(
    origin: Origin, downloader: Make, tmp_path: Path, error: Exception
) -> None:
    """The caller's own exception comes out unchanged, is not taken for a drop, and the part stays."""

    def fail(done: int, total: int | None) -> None:
        if done:
            raise error

    with pytest.raises(type(error), match="mine") as caught:
        await downloader().download(origin.video(), tmp_path / "whale.mp4", progress=fail)
    assert error is caught.value
    assert 1 == len(origin.asked)
    assert ["whale.mp4.part", "whale.mp4.part.json"] == names(tmp_path)


async def test_waiting_for_a_turn_can_be_cancelled(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A download that has not begun leaves nothing, and the one under way is not disturbed."""
    origin.script.append(origin.cut(100_000, silent=True))
    shared = downloader(at_once=1)
    begun = asyncio.Event()
    first = asyncio.create_task(
        shared.download(
            origin.video(), tmp_path / "a.mp4", progress=lambda done, _: begun.set() if done else None
        )
    )
    await begun.wait()
    second = asyncio.create_task(shared.download(origin.video(), tmp_path / "b.mp4"))
    second.cancel()
    await asyncio.wait([second])
    first.cancel()
    await asyncio.wait([first])
    assert second.cancelled()
    assert first.cancelled()
    assert ["a.mp4.part", "a.mp4.part.json"] == names(tmp_path)

"""
Downloads over real loopback sockets: the ordinary way, and what the caller does wrong.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import pytest
from aiohttp import web
from attrs import evolve

from veo_async._api.records import Video
from veo_async._download import part_file
from veo_async.errors import DownloadError

from .origin import GIF, MP4, Answer, Asked, Make, Origin, leave_part, names


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

"""
Answers that are no file, or not the right one.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import aiohttp
import pytest
from attrs import evolve

from veo_async._api.records import Video
from veo_async._download.transfer import MAX_FRUITLESS
from veo_async._policies import RetryPolicy
from veo_async.errors import ConnectionFailed, DownloadError, TransportTimedOut

from .origin import MP4, Answer, Asked, Make, Origin, leave_part, names


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
    assert MAX_FRUITLESS == len(origin.asked)
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
    assert MAX_FRUITLESS + 1 == len(origin.asked)
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

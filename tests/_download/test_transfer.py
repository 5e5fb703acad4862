"""
One download: how it goes on after whatever happens, and when it is given up.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from random import Random

import aiohttp
import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from veo_async._api.records import TaskRecord, Video
from veo_async._download import transfer
from veo_async._download.downloader import Downloader
from veo_async._download.transfer import MAX_FRUITLESS, MAX_LOOK_UPS
from veo_async.errors import DownloadError, TaskNotFound

from .origin import MP4, QUICK, Answer, Asked, Make, Origin, Script, Watched, leave_part, names, record

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
    monkeypatch.setattr(transfer, "FLUSH_EVERY", 3600.0)
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
    origin.script.extend([origin.cut(10_000)] * (2 * MAX_FRUITLESS))
    path = await downloader().download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert 2 * MAX_FRUITLESS + 1 == len(origin.asked)


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
from veo_async._api.records import Video
from veo_async._download import transfer
from veo_async._download.downloader import Downloader
from veo_async._policies import RetryPolicy

transfer.FLUSH_EVERY = 0.0

async def main(url, target):
    async with aiohttp.ClientSession() as http:
        fetch = Downloader(
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
        patch.setattr(transfer, "FLUSH_EVERY", 0.0)
        target = Path(directory, "whale.mp4")
        origin = asyncio.run(fetch(target))
        assert origin.content == target.read_bytes()
        assert ["whale.mp4"] == names(target.parent)


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
    origin.script.extend([Answer(status=404)] * MAX_LOOK_UPS)
    desk = Desk(deque([record(origin.video())]))
    path = await downloader(look_up=desk.look_up).download(origin.video(), tmp_path)
    assert MP4 == path.read_bytes()
    assert MAX_LOOK_UPS == len(desk.asked)


async def test_links_that_never_work_are_given_up(origin: Origin, downloader: Make, tmp_path: Path) -> None:
    """A task is looked up a bounded number of times."""
    origin.script.extend([Answer(status=410)] * 100)
    desk = Desk(deque([record(origin.video(f"/{n}")) for n in range(100)]))
    with pytest.raises(DownloadError, match="the link answered 410"):
        await downloader(look_up=desk.look_up).download(origin.video(), tmp_path)
    assert MAX_LOOK_UPS == len(desk.asked)
    assert MAX_LOOK_UPS + 1 == len(origin.asked)


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

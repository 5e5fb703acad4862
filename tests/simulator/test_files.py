"""
The files behind `video_url`: real videos, in the right shape, in whole or in part.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import pytest
from attrs import define
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from veo_async.simulator import Core, Reply, Settings

START: Final = 1_790_000_000.0
IMAGE: Final = "https://example.com/a.jpg"


@define
class Clock:
    """A clock that stands still until told otherwise."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **choices: Any) -> Core:
    return Core(Settings(duration=lambda body: 0.0, **choices), clock=clock)


def submit(core: Core, path: str = "/veo/videos", **fields: Any) -> dict[str, Any]:
    """Make a video, and return it as the synchronous answer has it."""
    body = fields if "video_id" in fields else {"action": "text2video", "prompt": "a whale"} | fields
    video: dict[str, Any] = core.post(path, body).json()["data"][0]
    return video


def fetch(core: Core, video: dict[str, Any], method: str = "GET", **headers: str) -> Reply:
    path = video["video_url"].removeprefix(core.files.base_url)
    return core.handle(method, path, {name.replace("_", "-"): value for name, value in headers.items()}, b"")


def content(reply: Reply) -> bytes:
    return b"".join(reply.chunks) if reply.chunks is not None else reply.body


def boxes(data: bytes) -> list[str]:
    """Walk over the boxes of an MP4."""
    names, at = [], 0
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        names.append(name.decode())
        at += size
    assert at == len(data)
    return names


def mp4_size(data: bytes) -> tuple[int, int]:
    """Read width and height from the track's head, where they stand as 16.16 numbers at its end."""
    at = data.index(b"tkhd")
    (length,) = struct.unpack_from(">I", data, at - 4)
    width, height = struct.unpack_from(">II", data, at - 4 + length - 8)
    return width >> 16, height >> 16


@pytest.mark.parametrize(
    ("ratio", "size"),
    [
        (None, (320, 180)),
        ("16:9", (320, 180)),
        ("9:16", (180, 320)),
        ("4:3", (240, 180)),
        ("3:4", (180, 240)),
        ("1:1", (180, 180)),
    ],
)
def test_the_video_has_the_shape_that_was_asked_for(
    clock: Clock, ratio: str | None, size: tuple[int, int]
) -> None:
    """An H.264 MP4 in the right orientation, with its index in front; 16:9 unless told otherwise."""
    core = Core(Settings.oldest(duration=lambda body: 0.0), clock=clock)
    reply = fetch(core, submit(core, aspect_ratio=ratio))

    assert (200, "video/mp4") == (reply.status, reply.headers["Content-Type"])
    assert ["ftyp", "moov", "free", "mdat", "free"] == boxes(reply.body)
    assert b"avc1" in reply.body
    assert size == mp4_size(reply.body)


def test_a_gif_is_a_gif(clock: Clock) -> None:
    """For `gif` an animated GIF comes, also from upsampling, in the shape of its source."""
    core = make(clock)
    tall = submit(core, resolution="gif", aspect_ratio="9:16")
    source = submit(core, aspect_ratio="9:16")
    upsampled = submit(core, "/veo/upsample", video_id=source["id"], action="gif")
    replies = [fetch(core, video) for video in (tall, upsampled)]

    assert ["image/gif"] * 2 == [reply.headers["Content-Type"] for reply in replies]
    assert [(90, 160)] * 2 == [struct.unpack_from("<HH", reply.body, 6) for reply in replies]
    assert [b"GIF89a"] * 2 == [reply.body[:6] for reply in replies]
    assert [b"\x00;"] * 2 == [reply.body[-2:] for reply in replies]
    assert replies[0].body != replies[1].body


def test_post_processing_keeps_the_shape(clock: Clock) -> None:
    """A video made from another has its orientation."""
    core = make(clock)
    source = submit(core, aspect_ratio="9:16")
    larger = submit(core, action="get1080p", video_id=source["id"])
    wider = submit(core, "/veo/extend", video_id=larger["id"], model="veo31", aspect_ratio="16:9")

    assert [(180, 320), (320, 180)] == [mp4_size(fetch(core, video).body) for video in (larger, wider)]


def test_every_file_is_its_tasks_own(clock: Clock) -> None:
    """Two tasks, and two videos of one task, have different files; the same one is always the same."""
    core = make(clock, videos=2)
    videos = [*core.post("/veo/videos", {"action": "text2video", "prompt": "x"}).json()["data"], submit(core)]
    files = [fetch(core, video) for video in videos]

    assert 3 == len({reply.body for reply in files}) == len({reply.headers["ETag"] for reply in files})
    assert files[0].body == fetch(core, videos[0]).body


def test_head_tells_the_length(clock: Clock) -> None:
    """HEAD has the headers of GET and no body."""
    core = make(clock)
    video = submit(core)
    whole, head = fetch(core, video), fetch(core, video, "HEAD")

    assert (200, b"", whole.headers) == (head.status, head.body, head.headers)
    assert str(len(whole.body)) == head.headers["Content-Length"]


@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-", 0, None),
        ("bytes=100-", 100, None),
        ("bytes=100-199", 100, 200),
        ("bytes=100-999999", 100, None),
        ("bytes=-10", -10, None),
        ("bytes=-999999", 0, None),
    ],
)
def test_a_part_can_be_had(clock: Clock, wanted: str, start: int, stop: int | None) -> None:
    """A range is answered with 206, the bytes, and where they lie."""
    core = make(clock)
    video = submit(core)
    whole = fetch(core, video).body
    part = fetch(core, video, Range=wanted)
    first, last, _ = slice(start, stop).indices(len(whole))

    assert (206, whole[start:stop]) == (part.status, part.body)
    assert f"bytes {first}-{last - 1}/{len(whole)}" == part.headers["Content-Range"]
    assert str(len(part.body)) == part.headers["Content-Length"]


@pytest.mark.parametrize(
    "wanted", ["bytes=999999-", "bytes=5-2", "bytes=a-", "bytes=-", "lines=1-2", "bytes=1-2,4-5"]
)
def test_a_range_that_cannot_be_had_is_416(clock: Clock, wanted: str) -> None:
    """A range outside the file, or of a kind unknown, says how long the file is."""
    core = make(clock)
    video = submit(core)
    reply = fetch(core, video, Range=wanted)

    assert 416 == reply.status
    assert f"bytes */{len(fetch(core, video).body)}" == reply.headers["Content-Range"]


def test_if_range_guards_a_resume(clock: Clock) -> None:
    """With the right `If-Range` the part comes, with another the whole."""
    core = make(clock)
    video = submit(core)
    etag = fetch(core, video).headers["ETag"]

    assert 206 == fetch(core, video, Range="bytes=9-", If_Range=etag).status
    assert 200 == fetch(core, video, Range="bytes=9-", If_Range='"other"').status


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_a_file_can_be_padded(clock: Clock, kind: str) -> None:
    """A padded file has exactly the size, streams, and an MP4 stays one."""
    core = make(clock, file_size=3_000_000)
    reply = fetch(core, submit(core, resolution="gif") if kind == "gif" else submit(core))
    data = content(reply)

    assert "3000000" == reply.headers["Content-Length"]
    assert 3_000_000 == len(data) == reply.length
    if kind == "mp4":
        assert ["ftyp", "moov", "free", "mdat", "free", "free"] == boxes(data)


def test_a_file_may_be_larger_than_memory(clock: Clock) -> None:
    """A file of 100 GB costs nothing until it is read, at any place."""
    core = make(clock, file_size=100_000_000_000)
    video = submit(core)
    head = fetch(core, video, "HEAD")
    end = fetch(core, video, Range="bytes=-1000")

    assert "100000000000" == head.headers["Content-Length"]
    assert 1000 == len(content(end))


@given(cut=st.integers(1, 2_999_999))
@hypothesis_settings(max_examples=30, deadline=None)
def test_two_parts_make_the_whole(cut: int) -> None:
    """Wherever a padded file is cut, both parts together are the file, and the second fits nowhere else."""
    core = make(Clock(), file_size=3_000_000)
    video = submit(core)
    whole = content(fetch(core, video))
    first, second = (
        content(fetch(core, video, Range=wanted)) for wanted in (f"bytes=0-{cut - 1}", f"bytes={cut}-")
    )

    assert whole == first + second
    assert whole == core.files.contents(next(iter(core.tasks.values())))


@pytest.mark.parametrize(
    "name", ["nothing", "00000000-0000-4000-8000-000000000000-0.mp4", "{}-1.mp4", "{}-x.mp4"]
)
def test_there_is_no_other_file(clock: Clock, name: str) -> None:
    """Unknown tasks, other numbers and other methods are 404."""
    core = make(clock)
    video = submit(core)
    path = "/files/" + name.format(next(iter(core.tasks)))

    assert 404 == core.handle("GET", path, {}, b"").status
    assert 404 == fetch(core, video, "POST").status


def test_an_unfinished_task_has_no_file() -> None:
    """A file is there once its task has succeeded."""
    core = Core(clock=Clock())
    task_id = core.post("/veo/videos", {"action": "text2video", "prompt": "x", "async": True}).json()[
        "task_id"
    ]
    path = core.files.link(core.tasks[task_id]).removeprefix(core.files.base_url)

    assert 404 == core.handle("GET", path, {}, b"").status


@pytest.mark.parametrize("status", [403, 404, 410])
def test_links_can_expire(clock: Clock, status: int) -> None:
    """An old link answers with the chosen status, and another lookup gives a fresh one."""
    core = make(clock, link_lifetime=60.0, expired_status=status)
    video = submit(core)
    (task_id,) = core.tasks
    clock.now += 59.0
    assert 200 == fetch(core, video).status

    clock.now += 1.0
    fresh = core.post("/veo/tasks", {"id": task_id}).json()["response"]["data"][0]
    assert [status, 200] == [fetch(core, link).status for link in (video, fresh)]
    path = fresh["video_url"].removeprefix(core.files.base_url).partition("?")[0]
    assert status == core.handle("GET", path, {}, b"").status


def test_files_may_lie_elsewhere(clock: Clock) -> None:
    """The host of `video_url` can be chosen."""
    core = make(clock, files_url="https://cdn.example.com/")

    assert submit(core)["video_url"].startswith("https://cdn.example.com/files/")

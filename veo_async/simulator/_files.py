"""
The files of `video_url`: small real videos, each with a note that makes it unique, padded on demand.

The clips in `media/` show for two seconds a white square that moves over a rotating gradient, one clip per
shape. They were made with ffmpeg 5.1, for each size, pair of colours and name:

    SRC="gradients=s=320x180:c0=0x0b3954:c1=0xff6663:x0=0:y0=0:x1=320:y1=180:speed=0.06:d=2:r=12[b];
    color=white:s=44x44:d=2:r=12[d];
    [b][d]overlay=x='(W-w)*(0.5-0.5*cos(PI*t))':y='(H-h)*(0.5-0.5*cos(2*PI*t))'"
    ffmpeg -f lavfi -i "$SRC" -c:v libx264 -profile:v high -preset veryslow -crf 30 -pix_fmt yuv420p \
        -movflags +faststart -map_metadata -1 -fflags +bitexact -flags:v +bitexact 16x9.mp4
    ffmpeg -f lavfi -i "$SRC,fps=8,scale=iw/2:-2,split[a][b];[a]palettegen=max_colors=16[p];
    [b][p]paletteuse=dither=none" -map_metadata -1 -fflags +bitexact -loop 0 16x9.gif
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Final

from attrs import define, field

from ._records import Task
from ._replies import Reply
from ._settings import Settings

__all__ = ["Files", "VideoFile", "video_file"]

CHUNK: Final = 1 << 20  # bytes; large enough that copying, not Python, limits the speed
PATTERN_SIZE: Final = 1_048_573  # bytes; a prime, so that resuming at a wrong offset changes the contents
TYPES: Final = {"mp4": "video/mp4", "gif": "image/gif"}
SHAPES: Final = {"16:9": "16x9", "9:16": "9x16", "4:3": "4x3", "3:4": "3x4", "1:1": "1x1"}


@cache
def _clip(name: str) -> bytes:
    return (files(__package__) / "media" / name).read_bytes()


@cache
def _pattern() -> memoryview:
    return memoryview(random.Random(0).randbytes(PATTERN_SIZE))


def _shape(task: Task) -> str:
    ratio = task.body.get("aspect_ratio")
    if ratio is None and task.source is not None:
        return _shape(task.source)
    return SHAPES[ratio or "16:9"]


def _extension(task: Task) -> str:
    """
    Return the extension of a task's files: `mp4` or `gif`.
    """
    wanted = (task.body.get("resolution"), task.body.get("action"))
    return "gif" if "gif" in wanted else "mp4"


def _free_box(size: int) -> bytes:
    """
    Return the header of a box that players skip; `size` is in bytes, with the header.
    """
    if size < 1 << 32:
        return struct.pack(">I4s", size, b"free")
    return struct.pack(">I4sQ", 1, b"free", size)


def _with_note(clip: bytes, note: bytes, kind: str) -> bytes:
    """
    Add a note to a clip, in a place that players skip.
    """
    if kind == "gif":  # a comment extension before the trailer
        return clip[:-1] + b"\x21\xfe" + bytes([len(note)]) + note + b"\x00" + clip[-1:]
    return clip + _free_box(8 + len(note)) + note


@define(eq=False)
class VideoFile:
    """
    One file.

    Attributes:
        kind: `mp4` or `gif`.
        head: the bytes before the padding.
        size: the length in bytes, with the padding.
    """

    kind: str
    head: bytes
    size: int
    etag: str

    def chunks(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """
        Yield the bytes from `start` to `stop`.
        """
        while start < stop:
            if start < len(self.head):
                piece: bytes | memoryview = self.head[start:stop]
            else:
                place = start % PATTERN_SIZE
                piece = _pattern()[place : place + min(CHUNK, stop - start)]
            yield piece
            start += len(piece)


def video_file(task: Task, index: int, size: int | None) -> VideoFile:
    """
    Describe a file of a task, padded to `size` bytes.
    """
    kind = _extension(task)
    head = _with_note(_clip(f"{_shape(task)}.{kind}"), f"{task.id}/{index}".encode(), kind)
    total = max(len(head), size or 0)
    if kind == "mp4" and total - len(head) >= 16:  # room for the box that holds the padding
        head += _free_box(total - len(head))
    return VideoFile(kind, head, total, f'"{task.id}-{index}-{total}"')


# --- HTTP ----------------------------------------------------------------------------------------------


def _range(text: str, size: int) -> tuple[int, int] | None:
    """
    Read a `Range` of one part; None if it is malformed or cannot be satisfied.
    """
    first, dash, last = text.removeprefix("bytes=").partition("-")
    if not text.startswith("bytes=") or not dash or not (first + last).isdecimal():
        return None
    if not first:
        start, stop = max(0, size - int(last)), size
    else:
        start, stop = int(first), min(size, int(last) + 1) if last else size
    return (start, stop) if start < stop else None


def _serve(file: VideoFile, headers: Mapping[str, str], *, head_only: bool = False) -> Reply:
    """
    Answer a GET or HEAD; `headers` have lower-case names.
    """
    common = {"Content-Type": TYPES[file.kind], "ETag": file.etag, "Accept-Ranges": "bytes"}
    wanted = headers.get("range")
    if wanted is None or headers.get("if-range", file.etag) != file.etag or head_only:
        return _content(file, 200, common, 0, file.size, head_only=head_only)
    part = _range(wanted, file.size)
    if part is None:
        return Reply(status=416, headers=common | {"Content-Range": f"bytes */{file.size}"})
    common["Content-Range"] = f"bytes {part[0]}-{part[1] - 1}/{file.size}"
    return _content(file, 206, common, *part)


def _content(
    file: VideoFile, status: int, headers: dict[str, str], start: int, stop: int, *, head_only: bool = False
) -> Reply:
    headers["Content-Length"] = str(stop - start)
    if head_only:
        return Reply(status=status, headers=headers)
    if stop - start > CHUNK:
        return Reply(status=status, headers=headers, chunks=file.chunks(start, stop))
    return Reply(status=status, headers=headers, body=b"".join(file.chunks(start, stop)))


def _plain(status: int, text: str) -> Reply:
    return Reply(status=status, headers={"Content-Type": "text/plain"}, body=f"{text}\n".encode())


def _has(task: Task, index: str, now: float) -> bool:
    return index.isdecimal() and int(index) < task.videos and task.state(now) == "succeeded"


@define(eq=False)
class Files:
    """
    Serves the files of finished tasks at `/files/<task id>-<index>.<kind>`.

    Attributes:
        base_url: the start of their addresses.
    """

    settings: Settings
    tasks: Mapping[str, Task]
    clock: Callable[[], float]
    base_url: str = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.base_url = self.settings.files_url or "https://files.simulator.test"

    def link(self, task: Task, index: int = 0) -> str:
        """
        Return the address of a file; a new one if the last has expired.
        """
        name = f"{self.base_url}/files/{task.id}-{index}.{_extension(task)}"
        if self.settings.link_lifetime is None:
            return name
        if self.clock() >= task.linked_at + self.settings.link_lifetime:
            task.linked_at = self.clock()
        return f"{name}?issued={task.linked_at!r}"

    def answer(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Reply:
        """
        Answer a request; `headers` have lower-case names.
        """
        name, _, query = path.removeprefix("/files/").partition("?")
        task, index = self.tasks.get(name[:36]), name[37:].partition(".")[0]
        if method not in {"GET", "HEAD"} or task is None or not _has(task, index, now):
            return _plain(404, "no such file")
        if self._expired(query, now):
            return _plain(self.settings.expired_status, "the link has expired")
        file = video_file(task, int(index), self.settings.file_size)
        return _serve(file, headers, head_only=method == "HEAD")

    def contents(self, task: Task, index: int = 0) -> bytes:
        """
        Return a whole file, to compare with a download.
        """
        file = video_file(task, index, self.settings.file_size)
        return b"".join(file.chunks(0, file.size))

    def _expired(self, query: str, now: float) -> bool:
        if self.settings.link_lifetime is None:
            return False
        try:
            issued = float(query.removeprefix("issued="))
        except ValueError:
            return True
        return now >= issued + self.settings.link_lifetime

"""
The file that a download's bytes are gathered in, until it gets its final name.

Bytes are gathered in `<target>.part`, beside the target, which is renamed when its length is right.
What can be resumed is kept after a failure, a cancellation or a crash, together with `<target>.part.json`,
which says what it is a part of; a strong `ETag` is the condition, since without one nobody can tell
whether the rest still belongs to the beginning.

Kept: after a drop, a cancellation, an error of the server, a check that found too little space.
Removed: what cannot be resumed, and everything after a write that filled the disk.

The file is only ever appended to, so a crash leaves a beginning of the right bytes, never a hole.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from attrs import asdict, define, evolve, field, frozen

from ..errors import DownloadError
from .file_io import beside, disk_errors

__all__ = ["STRONG_ETAG", "Mark", "Part"]

SIDECAR_LENGTH: Final = 16384  # bytes: anything longer is not ours
STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,1024}"')  # RFC 9110 8.8.3, ASCII only

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


# --- what the bytes belong to --------------------------------------------------------------------------


@frozen(kw_only=True)
class Mark:
    """
    What the bytes of a part belong to.

    Attributes:
        task_id, video_id, link: whose bytes they are; the link without its query.
        etag: the strong validator, or None where there was none: then they cannot be continued.
        total: the length of the whole in bytes, or None where it was not said.
    """

    task_id: str
    video_id: str
    link: str
    etag: str | None = None
    total: int | None = None

    def same_file(self, other: Mark) -> bool:
        """
        Tell whether two marks are of the same video by the same link; its content may have changed.
        """
        return evolve(self, etag=None, total=None) == evolve(other, etag=None, total=None)


def _mark_from(text: bytes) -> Mark | None:
    """
    Read a sidecar back; anything odd makes it None, and the download starts from zero.
    """
    try:
        known = json.loads(text)
        mark = Mark(**known)
    except (ValueError, TypeError, RecursionError):
        return None
    strings = (mark.task_id, mark.video_id, mark.link, mark.etag)
    sound = all(isinstance(value, str) for value in strings) and STRONG_ETAG.fullmatch(mark.etag or "")
    measured = mark.total is None or (type(mark.total) is int and mark.total > 0)
    return mark if sound and measured else None


# --- the part ------------------------------------------------------------------------------------------


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


if sys.platform == "win32":  # pragma: no cover

    def _locked(path: Path) -> FileIO | None:
        """
        Lock nothing: an open file cannot be renamed there, so parts are private, and are not resumed.
        """
        return None

    def _sync_directory(directory: Path) -> None:
        """
        Do nothing: directories cannot be synced there.
        """

else:
    import fcntl

    def _open_or_make(path: str, flags: int) -> int:
        # O_NOFOLLOW: in a directory that others write to, a link could lead anywhere.
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)

    def _locked(path: Path) -> FileIO | None:
        """
        Open a file and lock it for as long as it stays open, or None where another has it.

        Also None on a file system without locks.
        """
        file = FileIO(path, "r+", opener=_open_or_make)
        with suppress(OSError):  # held, renamed meanwhile, or no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
        return None

    def _sync_directory(directory: Path) -> None:
        """
        Make a renaming outlive a power failure, where directories can be synced.
        """
        with suppress(OSError):
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@define(eq=False)
class Part:
    """
    The file that the bytes are gathered in. Its methods block, and run in threads, one at a time.

    Whoever holds the lock of `<target>.part` goes on with it; anybody else who wants the same target meanwhile
    gathers in a private file, so that both end up whole and the last one stays.
    """

    _target: Path
    size: int = field(init=False, default=0)
    mark: Mark | None = field(init=False, default=None)
    _path: Path = field(init=False)
    _sidecar: Path | None = field(init=False, default=None)
    _file: FileIO | None = field(init=False, default=None)

    def claim(self) -> None:
        """
        Take up the part that is there, or make one.
        """
        with disk_errors(self._target):
            self._path = beside(self._target, ".part")
            self._file = _locked(self._path)
            if self._file is None:
                self._path = beside(self._target, f".{secrets.token_hex(4)}.part")
                self._file = FileIO(self._path, "x+")
                return
            self._sidecar = beside(self._target, ".part.json")
            self.size = self._file.seek(0, os.SEEK_END)
            self.mark = self._read_mark()

    def restart(self, mark: Mark | None) -> None:
        """
        Throw the bytes away, and say what the next ones will belong to.
        """
        with disk_errors(self._path):
            # In this order, a crash between leaves no old bytes under a new mark.
            self._open.truncate(0)
            self._open.seek(0)
            self.size = 0
            self.note(mark)

    def note(self, mark: Mark | None) -> None:
        """
        Remember what the bytes belong to, for another process too if they can be continued at all.
        """
        if self._sidecar is not None and mark != self.mark:
            with disk_errors(self._sidecar):
                self._sidecar.unlink(missing_ok=True)
                if mark is not None and mark.etag is not None:
                    self._sidecar.write_text(json.dumps(asdict(mark)))
        self.mark = mark

    def append(self, chunks: Sequence[bytes]) -> None:
        """
        Write the next bytes.
        """
        with disk_errors(self._path):
            try:
                for chunk in chunks:
                    _write_all(self._open, chunk)
                    self.size += len(chunk)
            except OSError as error:
                if error.errno in _DISK_FULL:
                    self.mark = None  # what fills a disk is not left lying on it
                raise

    def head(self) -> bytes:
        """
        Read the first bytes, by which a format is known.
        """
        with disk_errors(self._path):
            self._open.seek(0)
            return self._open.read(16)

    def finish(self, target: Path) -> None:
        """
        Give the file its final name, once it has reached the disk.
        """
        with disk_errors(target):
            os.fsync(self._open.fileno())
            if sys.platform == "win32":  # pragma: no cover
                self._open.close()  # an open file cannot be renamed there
            os.replace(self._path, target)  # still locked: nobody takes up a part that is about to go
            self._open.close()
            self._file = None
            if self._sidecar is not None:
                self._sidecar.unlink(missing_ok=True)
            _sync_directory(target.parent)

    def close(self) -> None:
        """
        Let go of the part: keep it for another time if it can be resumed, else remove it.
        """
        if self._file is None:
            return
        with suppress(OSError), self._file:  # the download has failed already, and that is what counts
            if not (self._sidecar and self.size and self.mark and self.mark.etag):
                self._path.unlink(missing_ok=True)
                if self._sidecar is not None:
                    self._sidecar.unlink(missing_ok=True)

    def raise_if_short_of_space(self, needed: int) -> None:
        """
        Refuse to begin what cannot be finished.
        """
        with disk_errors(self._path):
            free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise DownloadError(f"cannot write {self._target}: {needed} bytes are needed, {free} are free")

    @property
    def _open(self) -> FileIO:
        assert self._file is not None
        return self._file

    def _read_mark(self) -> Mark | None:
        assert self._sidecar is not None
        try:
            with self._sidecar.open("rb") as file:
                return _mark_from(file.read(SIDECAR_LENGTH))
        except OSError:
            return None

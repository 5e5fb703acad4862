"""
The file that collects a download's bytes until it gets its final name.

The bytes go to `<target>.part`, in the same directory, which is renamed to the target once its length is right.
A part that can be resumed is kept after a failure, a cancellation or a crash. `<target>.part.json` says which video
it belongs to. Resuming needs a strong `ETag`: without one, the rest may come from another version of the file.

Kept: after a broken connection, a cancellation, a server error, or a check that found too little space.
Removed: if it cannot be resumed, and after a write that filled the disk.

Bytes are only appended, so after a crash the file is a correct beginning without holes.
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
from .file_io import disk_errors, with_suffix_appended

__all__ = ["STRONG_ETAG", "PartInfo", "Part"]

SIDECAR_LENGTH: Final = 16384  # bytes; a longer file is not ours
STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,1024}"')  # RFC 9110 8.8.3, ASCII only

_DISK_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


# --- what a part belongs to ----------------------------------------------------------------------------


@frozen(kw_only=True)
class PartInfo:
    """
    What a part belongs to.

    Attributes:
        task_id, video_id, link: the video, and its link without the query.
        etag: the strong `ETag`, or None; without one the part cannot be resumed.
        total: the length of the complete file in bytes, or None if unknown.
    """

    task_id: str
    video_id: str
    link: str
    etag: str | None = None
    total: int | None = None

    def same_file(self, other: PartInfo) -> bool:
        """
        Tell whether both have the same video and link; the content may still have changed.
        """
        return evolve(self, etag=None, total=None) == evolve(other, etag=None, total=None)


def _info_from(text: bytes) -> PartInfo | None:
    """
    Read a sidecar; None if anything in it is invalid, and then the download starts from zero.
    """
    try:
        known = json.loads(text)
        info = PartInfo(**known)
    except (ValueError, TypeError, RecursionError):
        return None
    strings = (info.task_id, info.video_id, info.link, info.etag)
    sound = all(isinstance(value, str) for value in strings) and STRONG_ETAG.fullmatch(info.etag or "")
    measured = info.total is None or (type(info.total) is int and info.total > 0)
    return info if sound and measured else None


# --- the part ------------------------------------------------------------------------------------------


def _write_all(file: FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


if sys.platform == "win32":  # pragma: no cover

    def _locked(path: Path) -> FileIO | None:
        """
        Return None: Windows cannot rename an open file, so parts are private and not resumed.
        """
        return None

    def _sync_directory(directory: Path) -> None:
        """
        Do nothing: Windows cannot sync directories.
        """

else:
    import fcntl

    def _open_or_make(path: str, flags: int) -> int:
        # O_NOFOLLOW: in a shared directory, another user's symbolic link could lead anywhere.
        return os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW, 0o666)

    def _locked(path: Path) -> FileIO | None:
        """
        Open a file and lock it while it is open; None if it is locked already, or the file system has no locks.
        """
        file = FileIO(path, "r+", opener=_open_or_make)
        with suppress(OSError):  # locked, just renamed, or no locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
        return None

    def _sync_directory(directory: Path) -> None:
        """
        Make a rename survive a power failure, if the file system can sync directories.
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
    The file that collects the bytes. Its methods block, and run in threads, one at a time.

    Only the holder of the lock resumes `<target>.part`. A concurrent download to the same target uses a private
    file, so both complete, and the later one replaces the other.
    """

    _target: Path
    size: int = field(init=False, default=0)
    info: PartInfo | None = field(init=False, default=None)
    _path: Path = field(init=False)
    _sidecar: Path | None = field(init=False, default=None)
    _file: FileIO | None = field(init=False, default=None)

    def claim(self) -> None:
        """
        Open the existing part to resume it, or make a new one.
        """
        with disk_errors(self._target):
            self._path = with_suffix_appended(self._target, ".part")
            self._file = _locked(self._path)
            if self._file is None:
                self._path = with_suffix_appended(self._target, f".{secrets.token_hex(4)}.part")
                self._file = FileIO(self._path, "x+")
                return
            self._sidecar = with_suffix_appended(self._target, ".part.json")
            self.size = self._file.seek(0, os.SEEK_END)
            self.info = self._read_info()

    def restart(self, info: PartInfo | None) -> None:
        """
        Discard the bytes, and note what the next ones belong to.
        """
        with disk_errors(self._path):
            # In this order, a crash in between leaves no old bytes under a new sidecar.
            self._open.truncate(0)
            self._open.seek(0)
            self.size = 0
            self.note(info)

    def note(self, info: PartInfo | None) -> None:
        """
        Note what the bytes belong to; if they can be resumed, also in the sidecar for other processes.
        """
        if self._sidecar is not None and info != self.info:
            with disk_errors(self._sidecar):
                self._sidecar.unlink(missing_ok=True)
                if info is not None and info.etag is not None:
                    self._sidecar.write_text(json.dumps(asdict(info)))
        self.info = info

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
                    self.info = None  # a part that has filled the disk is removed
                raise

    def head(self) -> bytes:
        """
        Read the first 16 bytes, which tell the format.
        """
        with disk_errors(self._path):
            self._open.seek(0)
            return self._open.read(16)

    def finish(self, target: Path) -> None:
        """
        Sync the file to disk, then give it its final name.
        """
        with disk_errors(target):
            os.fsync(self._open.fileno())
            if sys.platform == "win32":  # pragma: no cover
                self._open.close()  # an open file cannot be renamed there
            os.replace(self._path, target)  # still locked, so that no other process resumes this part
            self._open.close()
            self._file = None
            if self._sidecar is not None:
                self._sidecar.unlink(missing_ok=True)
            _sync_directory(target.parent)

    def close(self) -> None:
        """
        Close the part; keep it if it can be resumed, else remove it.
        """
        if self._file is None:
            return
        with suppress(OSError), self._file:  # the download has already failed; that error counts
            if not (self._sidecar and self.size and self.info and self.info.etag):
                self._path.unlink(missing_ok=True)
                if self._sidecar is not None:
                    self._sidecar.unlink(missing_ok=True)

    def raise_if_short_of_space(self, needed: int) -> None:
        """
        Check that the disk has enough space.

        Raises:
            DownloadError: fewer than `needed` bytes are free.
        """
        with disk_errors(self._path):
            free = shutil.disk_usage(self._path.parent).free
        if needed > free:
            raise DownloadError(f"cannot write {self._target}: {needed} bytes are needed, {free} are free")

    @property
    def _open(self) -> FileIO:
        assert self._file is not None
        return self._file

    def _read_info(self) -> PartInfo | None:
        assert self._sidecar is not None
        try:
            with self._sidecar.open("rb") as file:
                return _info_from(file.read(SIDECAR_LENGTH))
        except OSError:
            return None

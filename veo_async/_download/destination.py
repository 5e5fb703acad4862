"""
Chooses the path of a video's file, and its name if the caller gives only a directory.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from attrs import frozen

from .._api.records import Video
from ..errors import DownloadError
from .file_io import disk_errors, with_suffix_appended

__all__ = ["Place", "place_for"]

NAME_LENGTH: Final = 64  # characters of an id in a file name; a UUID has 36, file systems allow 255 in all

_EXTENSIONS: Final = {"video/mp4": ".mp4", "image/gif": ".gif"}
_PLAIN_NAME: Final = re.compile(rf"[0-9a-z](?:[0-9a-z-]{{0,{NAME_LENGTH - 1}}})")


def _safe(text: str) -> str:
    """
    Make a component of a file name: an ordinary id unchanged, any other cleaned, with a digest to keep it unique.

    Capitals are not ordinary, since some file systems ignore case.
    """
    if _PLAIN_NAME.fullmatch(text):
        return text
    cleaned = re.sub(r"[^0-9a-z]+", "-", text.lower()).strip("-")[: NAME_LENGTH // 2]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{cleaned or 'x'}-{digest}"


def _stem(video: Video) -> str:
    # No component has an underscore, so different pairs of ids give different names.
    # The underscore also avoids the device names of Windows (CON, NUL, COM1).
    return f"{_safe(video.task_id)}_{_safe(video.id)}"


def _extension(head: bytes, content_type: str) -> str:
    if head.startswith((b"GIF87a", b"GIF89a")):
        return ".gif"
    if head[4:8] == b"ftyp":  # ISO/IEC 14496-12, 4.3
        return ".mp4"
    return _EXTENSIONS.get(content_type, ".mp4")


@frozen(kw_only=True)
class Place:
    """
    The path of the file. If `needs_extension`, the extension is not chosen yet.
    """

    path: Path
    needs_extension: bool

    def final(self, head: bytes, content_type: str) -> Path:
        """
        Return the final path; a missing extension follows from the first bytes, or from the content type.
        """
        return (
            with_suffix_appended(self.path, _extension(head, content_type))
            if self.needs_extension
            else self.path
        )


def place_for(destination: str | os.PathLike[str], video: Video) -> Place:
    """
    Choose the path of a video's file.

    Raises:
        DownloadError: the destination cannot hold a file.
    """
    text = os.fspath(destination)
    path = Path(text)
    with disk_errors(path):
        if path.is_dir():
            return Place(path=path / _stem(video), needs_extension=True)
        if text.endswith(("/", os.sep)) or not path.parent.is_dir():
            missing = path if text.endswith(("/", os.sep)) else path.parent
            raise DownloadError(f"there is no directory {missing}")
        if path.exists() and not path.is_file():  # renaming onto a device would replace the device
            raise DownloadError(f"{path} is neither a file nor a directory")
    return Place(path=path, needs_extension=False)

"""
Where a video's file goes, and what it is called where the caller names a directory only.
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
from .file_io import beside, disk_errors

__all__ = ["Place", "place_for"]

NAME_LENGTH: Final = 64  # characters of one id in a file name: a dashed UUID has 36, file systems take 255

_EXTENSIONS: Final = {"video/mp4": ".mp4", "image/gif": ".gif"}
_PLAIN_NAME: Final = re.compile(rf"[0-9a-z](?:[0-9a-z-]{{0,{NAME_LENGTH - 1}}})")


def _safe(text: str) -> str:
    """
    Make one component of a file name: an ordinary id as it is, anything else cleaned and told apart by a digest.

    Capitals count as unusual, since some file systems do not tell them from small letters.
    """
    if _PLAIN_NAME.fullmatch(text):
        return text
    cleaned = re.sub(r"[^0-9a-z]+", "-", text.lower()).strip("-")[: NAME_LENGTH // 2]
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{cleaned or 'x'}-{digest}"


def _stem(video: Video) -> str:
    # No component holds an underscore, so two pairs of ids never meet in one name;
    # and no device of Windows (CON, NUL, COM1) has one in its name.
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
    Where the file is to go; `extend` says that its extension is still to be chosen.
    """

    path: Path
    extend: bool

    def final(self, head: bytes, content_type: str) -> Path:
        """
        Complete the name, by the file's first bytes or by what it was said to be.
        """
        return beside(self.path, _extension(head, content_type)) if self.extend else self.path


def place_for(destination: str | os.PathLike[str], video: Video) -> Place:
    """
    Choose the file's place, and refuse a destination that could not hold it.
    """
    text = os.fspath(destination)
    path = Path(text)
    with disk_errors(path):
        if path.is_dir():
            return Place(path=path / _stem(video), extend=True)
        if text.endswith(("/", os.sep)) or not path.parent.is_dir():
            missing = path if text.endswith(("/", os.sep)) else path.parent
            raise DownloadError(f"there is no directory {missing}")
        if path.exists() and not path.is_file():  # renaming onto a device would replace the device
            raise DownloadError(f"{path} is neither a file nor a directory")
    return Place(path=path, extend=False)

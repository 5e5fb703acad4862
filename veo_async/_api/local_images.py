"""
Pictures on this machine, in place of image URLs: reads them, checks them, and names them by their contents.

A picture is uploaded before it is sent, because the API takes URLs only. Its name in a request is the digest of its
contents. So a request stays the same if the file moves, after a restart, and wherever the picture was uploaded to.
"""

from __future__ import annotations

import os
import re
import stat
from base64 import b64encode
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Self

__all__ = [
    "MAX_PICTURE",
    "LocalImage",
    "encoded_mask",
    "file_trouble",
    "is_name",
    "localized",
    "names_in",
    "picture_type",
]

MAX_PICTURE: Final = 100_000_000  # bytes; [C] the platform's default limit for an upload is 100 MB
PREFIX: Final = "sha256:"

# What a file of each type begins with: bytes, and their offset.
_SIGNATURES: Final[Mapping[str, tuple[tuple[int, bytes], ...]]] = {
    "image/jpeg": ((0, b"\xff\xd8\xff"),),
    "image/png": ((0, b"\x89PNG\r\n\x1a\n"),),
    "image/webp": ((0, b"RIFF"), (8, b"WEBP")),
    "image/gif": ((0, b"GIF8"),),
    "image/avif": ((4, b"ftypavif"),),
    "image/heic": ((4, b"ftyphei"),),
    "image/tiff": ((0, b"II*\0"),),
    "image/bmp": ((0, b"BM"), (6, b"\0\0\0\0")),
}


class LocalImage(str):
    """
    A picture of this machine in a request; as a string, it is `sha256:` and the digest of its contents.

    Requests make it from a path or from bytes. Two are equal if their contents are.

        request = ImageToVideo("it swims away", [picture])  # the bytes of a picture, or its path
        print(request.image_urls[0])  # sha256:...

    Attributes:
        path: the absolute path of the file, or None.
        content: the bytes, or None for a file, which is read again for the upload.
    """

    path: str | None
    content: bytes | None

    def __new__(cls, name: str, *, path: str | None = None, content: bytes | None = None) -> Self:
        image = super().__new__(cls, name)
        image.path, image.content = path, content
        return image

    def __repr__(self) -> str:
        return repr(os.path.basename(self.path)) if self.path is not None else f"<picture {self[:15]}…>"

    @property
    def source(self) -> str:
        """
        How messages name it: its path, or its digest.
        """
        return self.path or str(self)

    def read(self) -> bytes:
        """
        Return the contents.

            request = ImageToVideo("it swims away", [picture])
            assert picture == request.image_urls[0].read()

        Raises:
            ValueError: the file is gone, or has changed since the request was made.
        """
        if self.content is not None:
            return self.content
        content = _read(Path(self.path or ""))
        if _name_of(content) != self:
            raise ValueError("it has changed since the request was made")
        return content


def localized(value: object) -> Any:
    """
    Turn a path or bytes into a `LocalImage`; return anything else, and what is no picture, unchanged.
    """
    try:
        return value if isinstance(value, LocalImage) else _picture(value)
    except (OSError, ValueError):
        return value


def file_trouble(value: object) -> str | None:
    """
    Say why a value that looks like a file or like a picture's bytes is no usable picture; None for other values.
    """
    if not (isinstance(value, bytes) or _is_path(value)):
        return None
    try:
        _picture(value)
    except OSError as error:
        return error.strerror or str(error)
    except ValueError as error:
        return str(error)
    return None


def encoded_mask(value: object) -> Any:
    """
    Encode the path or the bytes of a JPEG as base64, which masks may be; return anything else unchanged.
    """
    try:
        content = value if isinstance(value, bytes) else _read(_path_of(value)) if _is_path(value) else b""
    except (OSError, ValueError):
        return value
    return b64encode(content).decode() if picture_type(content) == "image/jpeg" else value


def is_name(value: object) -> bool:
    """
    Tell whether a value names a picture by its contents.
    """
    return isinstance(value, str) and bool(re.fullmatch(rf"{PREFIX}[0-9a-f]{{64}}", value))


def names_in(text: str) -> list[str]:
    """
    Return the names of pictures that a journal's text holds.
    """
    return re.findall(rf"{PREFIX}[0-9a-f]{{64}}", text)


def picture_type(content: bytes) -> str | None:
    """
    Return the media type of a picture, by its first bytes; None for what is no picture.
    """
    for kind, signature in _SIGNATURES.items():
        if all(content.startswith(part, offset) for offset, part in signature):
            return kind
    return None


def _picture(value: object) -> Any:
    if isinstance(value, bytes):
        _check(value)
        return LocalImage(_name_of(value), content=value)
    if not _is_path(value):
        return value
    path = _path_of(value)
    status = path.stat()
    return _picture_at(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)  # a batch may hold one picture in a thousand lines
def _picture_at(path: Path, *_: int) -> LocalImage:
    content = _read(path)
    _check(content)
    return LocalImage(_name_of(content), path=str(path))


def _check(content: bytes) -> None:
    if len(content) > MAX_PICTURE:
        raise ValueError(f"it is larger than {MAX_PICTURE // 1_000_000} MB")
    if picture_type(content) is None:
        raise ValueError("it is not a picture")


def _read(path: Path) -> bytes:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could last for ever
        raise ValueError("it is not a regular file")
    if status.st_size > MAX_PICTURE:
        raise ValueError(f"it is larger than {MAX_PICTURE // 1_000_000} MB")
    return path.read_bytes()


def _path_of(value: Any) -> Path:
    return Path(os.path.abspath(os.fsdecode(value)))  # later changes of directory must not matter


def _is_path(value: object) -> bool:
    if isinstance(value, str):
        return (
            bool(value.strip())
            and "://" not in value
            and not is_name(value)
            and not value.startswith("data:")
        )
    return isinstance(value, os.PathLike)


def _name_of(content: bytes) -> str:
    return PREFIX + sha256(content).hexdigest()

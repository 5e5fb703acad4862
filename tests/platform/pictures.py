"""
Pictures for the tests: as small as they can be, and different from each other.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["JPEG", "PNG", "picture"]

PNG: Final = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
JPEG: Final = b"\xff\xd8\xff\xe0\0\x10JFIF\0"


def picture(folder: Path, name: str = "portrait.jpg", *, note: bytes = b"") -> Path:
    """
    Write a JPEG, whose contents depend on the note, and return its path.
    """
    path = folder / name
    path.write_bytes(JPEG + note)
    return path

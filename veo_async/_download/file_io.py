"""
Calls to the disk: made in threads, and with errors of ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DownloadError

__all__ = ["beside", "disk_errors", "on_disk"]

_T = TypeVar("_T")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """
    Raise what the disk refuses as a `DownloadError` that names the path.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(f"cannot write {path}: {reason}") from error


async def on_disk(call: Callable[..., _T], *arguments: Any) -> _T:
    """
    Run a call in a thread and see it through, also when cancelled: a file still being written cannot be closed.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    future.exception()  # looked at, so that asyncio does not complain about it
    raise cancelled


def beside(path: Path, suffix: str) -> Path:
    """
    Return the path of a file in the same directory, whose name has this suffix.
    """
    return path.with_name(path.name + suffix)

"""
Disk calls in threads, with errors translated to `DownloadError`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import DownloadError

__all__ = ["disk_errors", "on_disk", "with_suffix_appended"]

_T = TypeVar("_T")


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """
    Translate disk errors.

    Raises:
        DownloadError: the disk call failed; names the path.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or error
        raise DownloadError(f"cannot write {path}: {reason}") from error


async def on_disk(call: Callable[..., _T], *arguments: Any) -> _T:
    """
    Run a call in a thread. On cancellation, wait for its end first, so that no file is closed during a write.
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
    future.exception()  # retrieved, so that asyncio does not log it
    raise cancelled


def with_suffix_appended(path: Path, suffix: str) -> Path:
    """
    Return the path with a suffix added to the file's name.
    """
    return path.with_name(path.name + suffix)

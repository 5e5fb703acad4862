"""
Calls to the disk are made in threads, and seen through.
"""

from __future__ import annotations

import asyncio
import threading

import pytest

from veo_async._download.file_io import on_disk


async def test_the_loop_goes_on_while_the_disk_is_busy() -> None:
    """A call that blocks holds only its own coroutine."""
    go = threading.Event()
    task = asyncio.create_task(on_disk(go.wait, 10))
    await asyncio.sleep(0)
    go.set()  # which could not happen if the loop were held
    assert await task


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_to_the_disk_is_seen_through(fails: bool) -> None:
    """However often it is cancelled, it returns only when the thread is done, and then as cancelled."""
    started, go, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        go.wait(10)
        ended.set()
        if fails:
            raise OSError("of no interest any more")

    task = asyncio.create_task(on_disk(call))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()

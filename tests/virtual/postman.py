"""
Callbacks in virtual time: what the server owes is handed to whichever receiver has the path's secret.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from veo_async import VeoSession
from veo_async._session.session import called_back
from veo_async.receiver import CallbackReceiver
from veo_async.simulator import Core

__all__ = ["attached", "delivering"]

PUBLIC_URL = "http://127.0.0.1:1/veo"
LEAST_NAP = 1e-3  # seconds; the Unix time of a callback is not as fine as the loop's clock


@asynccontextmanager
async def attached(
    veo: VeoSession, *, window: float = 0.05, secret: str | None = None
) -> AsyncIterator[CallbackReceiver]:
    """
    Attach a receiver without a socket.
    """
    receiver = CallbackReceiver(veo, public_url=PUBLIC_URL, window=window, secret=secret)
    runner = web.AppRunner(receiver.app)
    await runner.setup()
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def delivering(core: Core, receivers: Sequence[CallbackReceiver]) -> AsyncIterator[None]:
    """
    Deliver callbacks when they are due; receivers may come and go.
    """
    postman = asyncio.create_task(_deliver(core, receivers))
    try:
        yield
    finally:
        postman.cancel()
        await asyncio.gather(postman, return_exceptions=True)


async def _deliver(core: Core, receivers: Sequence[CallbackReceiver]) -> None:
    woken = asyncio.Event()
    core.listeners.append(woken.set)
    while True:
        woken.clear()
        for callback in core.callbacks_due(core.clock()):
            _post(callback.url, callback.body, receivers)
        due_at = core.next_callback_at()
        nap = None if due_at is None else max(LEAST_NAP, due_at - core.clock())
        try:
            async with asyncio.timeout(nap):
                await woken.wait()
        except TimeoutError:
            pass


def _post(url: str, body: bytes, receivers: Sequence[CallbackReceiver]) -> None:
    address, _, path = url.rpartition("/")
    for receiver in receivers:
        if receiver.url == address:
            called_back(receiver._session, json.loads(body), window=receiver.window, path=path)

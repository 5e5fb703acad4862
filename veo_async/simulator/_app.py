"""
The core as an aiohttp application: reads requests, waits until answers are due, delivers callbacks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from attrs import define, field

from ._acts import act_out
from ._core import Core
from ._replies import Callback

__all__ = ["create_app"]

_log: Final = logging.getLogger("veo_async.simulator")
MAX_REQUEST: Final = 128 << 20  # bytes: the platform takes files of 100 MB
CALLBACK_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)
MAX_NAP: Final = 3600.0  # seconds; the loop's timers do not accept infinity


@define(eq=False)
class _Bell:
    """
    Wakes everybody who waits for the core to change.
    """

    _event: asyncio.Event = field(factory=asyncio.Event, init=False)

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        # Not asyncio.wait_for: up to Python 3.11 it swallows a cancellation that comes with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(max(seconds, 0.0), MAX_NAP)):
                await self._event.wait()


# --- callbacks -----------------------------------------------------------------------------------------


def _is_loopback(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@define(eq=False)
class _Postman:
    """
    Delivers callbacks when they are due.
    """

    core: Core
    bell: _Bell
    http: aiohttp.ClientSession
    _on_their_way: set[asyncio.Task[None]] = field(factory=set, init=False)

    async def run(self) -> None:
        while True:
            for callback in self.core.callbacks_due(self.core.clock()):
                self._send(callback)
            due_at = self.core.next_callback_at()
            await self.bell.wait(MAX_NAP if due_at is None else due_at - self.core.clock())

    def _send(self, callback: Callback) -> None:
        task = asyncio.create_task(self.deliver(callback), name=f"callback {callback.task_id}")
        self._on_their_way.add(task)
        task.add_done_callback(self._on_their_way.discard)

    async def deliver(self, callback: Callback) -> None:
        if self.core.settings.callbacks != "any" and not _is_loopback(callback.url):
            _log.warning("no callback to %s: it is not this machine", callback.url)
            return
        for _ in range(self.core.settings.callback_attempts):
            if await self._post(callback):
                return

    async def _post(self, callback: Callback) -> bool:
        headers = {"Content-Type": "application/json"}
        try:
            async with self.http.post(callback.url, data=callback.body, headers=headers) as response:
                return response.ok
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            _log.info("callback to %s failed: %s", callback.url, error)
            return False

    async def close(self) -> None:
        tasks = [*self._on_their_way]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- requests ------------------------------------------------------------------------------------------


Restart = Callable[[float], None]


@define(eq=False)
class _Front:
    """
    Passes aiohttp's requests to the core, and sends its replies.
    """

    core: Core
    bell: _Bell
    postmen: list[_Postman]
    restart: Restart | None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        reply = self.core.handle(request.method, request.raw_path, request.headers, body)
        if reply.callbacks_first:
            await self._call_back()
        while reply.later is not None and reply.answer_at is not None:
            await self.bell.wait(reply.answer_at - self.core.clock())
            reply = reply.later()
        if self.restart is not None and reply.fault in {"restart_before", "restart_after"}:
            self.restart(reply.seconds)
        return await act_out(request, reply)

    async def _call_back(self) -> None:
        for callback in self.core.callbacks_due(self.core.clock()):
            await self.postmen[0].deliver(callback)


def create_app(core: Core, *, restart: Restart | None = None) -> web.Application:
    """
    Return the API as an aiohttp application.

    Args:
        restart: called when an injected fault restarts the server, with the seconds for which it is away.
    """
    bell = _Bell()
    postmen: list[_Postman] = []

    async def background(app: web.Application) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()

        def ring() -> None:  # a test may control the core from another thread
            loop.call_soon_threadsafe(bell.ring)

        core.listeners.append(ring)
        async with aiohttp.ClientSession(timeout=CALLBACK_TIMEOUT) as http:
            postmen.append(_Postman(core, bell, http))
            task = asyncio.create_task(postmen[0].run(), name="veo_async.simulator callbacks")
            yield
            core.listeners.remove(ring)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await postmen.pop().close()

    app = web.Application(client_max_size=MAX_REQUEST)
    app.cleanup_ctx.append(background)
    app.router.add_route("*", "/{path:.*}", _Front(core, bell, postmen, restart).handle)
    return app

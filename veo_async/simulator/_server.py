"""
The simulator as a service on this machine.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from aiohttp import web
from attrs import Factory, define, field

from ._app import create_app
from ._core import Core
from ._faults import Faults
from ._settings import Settings

__all__ = ["Simulator"]


@define(eq=False)
class Simulator:
    """
    Serves the API on a local port inside `async with`.

    Args:
        settings: how it behaves; ignored if a `core` is given.
        core: the in-memory server to put on the port, such as one that already has tasks.
        host: the address to listen at; loopback by default.
        port: the port; 0 takes a free one.
        faults: the faults to inject.
    """

    settings: Settings = field(factory=Settings)
    core: Core = field(default=Factory(lambda self: Core(self.settings), takes_self=True), kw_only=True)
    host: str = field(default="127.0.0.1", kw_only=True)
    port: int = field(default=0, kw_only=True)
    faults: Faults | None = field(default=None, kw_only=True)
    _runner: web.AppRunner | None = field(default=None, init=False, repr=False)
    _restarting: asyncio.Task[None] | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.settings = self.core.settings
        self.core.faults = self.faults = self.faults or self.core.faults

    @property
    def url(self) -> str:
        """
        The base URL.
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def token(self) -> str:
        """
        A valid token.
        """
        return next(iter(self.core.tokens))

    @property
    def account_token(self) -> str:
        """
        A valid account token, for the platform.
        """
        return next(iter(self.core.platform.tokens))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """
        Listen; a later start uses the same port.
        """
        app = create_app(self.core, restart=self._restart_soon)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.0)
        await self._runner.setup()
        # Without reuse_address, the port would stay taken for a minute after a stop.
        await web.TCPSite(self._runner, self.host, self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]
        if self.settings.files_url is None:
            self.core.files.base_url = self.url

    async def stop(self) -> None:
        """
        Close the port and every connection; the core keeps its state.
        """
        restarting, self._restarting = self._restarting, None
        if restarting is not None:
            restarting.cancel()
            await asyncio.gather(restarting, return_exceptions=True)
        await self._close()

    async def restart(self, *, pause: float = 0.0) -> None:
        """
        Close every connection, stay away for `pause` seconds, and come back with the same state.
        """
        await self._close()
        await asyncio.sleep(pause)
        await self.start()

    async def _close(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    def _restart_soon(self, pause: float) -> None:
        if self._restarting is None or self._restarting.done():
            name = "veo_async.simulator restart"
            self._restarting = asyncio.create_task(self.restart(pause=pause), name=name)

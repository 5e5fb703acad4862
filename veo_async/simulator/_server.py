"""
The simulator as a service on this machine.
"""

from __future__ import annotations

from types import TracebackType
from typing import Self

from aiohttp import web
from attrs import Factory, define, field

from ._app import create_app
from ._core import Core
from ._settings import Settings

__all__ = ["Simulator"]


@define(eq=False)
class Simulator:
    """
    Serves the API on a local port while inside `async with`.

    Args:
        settings: how it behaves; ignored where a `core` is given.
        core: an in-memory server to put on the port, such as one that has a past.
        host: loopback unless told otherwise.
        port: 0 takes a free one.
    """

    settings: Settings = field(factory=Settings)
    core: Core = field(default=Factory(lambda self: Core(self.settings), takes_self=True), kw_only=True)
    host: str = field(default="127.0.0.1", kw_only=True)
    port: int = field(default=0, kw_only=True)
    _runner: web.AppRunner | None = field(default=None, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.settings = self.core.settings

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

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """
        Listen; a second start takes the same port.
        """
        self._runner = web.AppRunner(
            create_app(self.core), access_log=None, handler_cancellation=True, shutdown_timeout=0.0
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]
        if self.settings.files_url is None:
            self.core.files.base_url = self.url

    async def stop(self) -> None:
        """
        Close the port and every connection; the core keeps what it knows.
        """
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

"""
An outage, told once: while the API cannot be reached, jobs wait without end, and somebody should know why.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import aiohttp
from attrs import define, field

from ._http import Outgoing, Reply, Transport
from .errors import TransportError

__all__ = ["Watched"]

PATIENCE: Final = 3.0  # seconds without an answer; what is shorter than that, nobody needs to hear of

log = logging.getLogger("veo_async")


@define(eq=False)
class Watched:
    """
    A transport that says in the log when nothing has come through for a while, and why, and when that is over.
    """

    transport: Transport
    _heard_at: float = field(init=False, default=-math.inf)  # the last answer, on the event loop's clock
    _out_since: float | None = field(init=False, default=None)
    _told: bool = field(init=False, default=False)

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        """
        Send a request once and read the answer whole.
        """
        now = asyncio.get_running_loop().time
        began_at = now()
        try:
            reply = await self.transport.send(method, url, outgoing)
        except TransportError as error:
            self._failed(str(error), began_at, now())
            raise
        if reply.status >= 500:
            self._failed(f"{url} answers {reply.status}", began_at, now())
        else:
            self._answered(now())
        return reply

    def _failed(self, reason: str, began_at: float, now: float) -> None:
        # A request that hung while others were answered is no outage.
        began_at = max(began_at, self._heard_at)
        self._out_since = began_at if self._out_since is None else self._out_since
        out_for = now - self._out_since
        if out_for >= PATIENCE and not self._told:
            self._told = True
            log.warning(
                "no answer of the API for %.0f s, trying on; check the network and the base URL: %s",
                out_for,
                reason,
            )

    def _answered(self, now: float) -> None:
        if self._told and self._out_since is not None:
            log.info("the API answers again, after %.0f s", now - self._out_since)
        self._heard_at, self._out_since, self._told = now, None, False

    def open_file(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """
        Begin a download.
        """
        return self.transport.open_file(url, headers)

    async def close(self) -> None:
        """
        Give back what was opened.
        """
        await self.transport.close()

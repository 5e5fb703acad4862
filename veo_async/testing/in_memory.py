"""
The network's place taken by the simulator's core: every fault becomes the error that a socket would give.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from email.utils import formatdate
from urllib.parse import urlsplit

import aiohttp
from attrs import define, field

from .._http.transport import Outgoing, Reply, Transport
from ..errors import ConnectionFailed, ProtocolError, TransportTimedOut
from ..simulator import Core
from ..simulator import Reply as ServerReply
from .clock import VeoClock

__all__ = ["InMemoryTransport", "WithFiles"]


@define(eq=False)
class InMemoryTransport:
    """
    Carries requests to a core without a socket.

    Attributes:
        core: the server.
        token: whom the requests are from.
        latency: seconds each way.
        read_timeout: seconds until a silent answer is given up.
        cut_off: while true, the network is gone.
        ahead: by how many seconds the clock of `Date` is ahead of the one that dates records.
    """

    core: Core
    token: str
    latency: float = 0.005
    read_timeout: float = 60.0
    cut_off: bool = False
    ahead: float = 0.0
    max_reply: int = 16 * 1024 * 1024
    closed: bool = field(init=False, default=False)

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        await asyncio.sleep(self.latency)
        if self.cut_off:
            raise ConnectionFailed("the network is gone")
        if not outgoing.may_leave():
            raise ConnectionFailed("it may not leave any more")
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        reply = self.core.handle(method, urlsplit(url).path, headers, outgoing.data)
        if reply.act == "refuse":
            raise ConnectionFailed("connection refused")
        outgoing.left = True
        while reply.later is not None:
            await asyncio.sleep(max(0.0, (reply.answer_at or 0.0) - self.core.clock()))
            reply = reply.later()
        await self._act_out(reply)
        if len(reply.body) > self.max_reply:
            raise ProtocolError("the reply is too large", too_large=True)
        await asyncio.sleep(self.latency)
        lowered = {name.lower(): value for name, value in reply.headers.items()}
        if self.ahead:
            lowered["date"] = formatdate(self.core.clock() + self.ahead, usegmt=True)
        return Reply(reply.status, lowered, bytes(reply.body))

    async def _act_out(self, reply: ServerReply) -> None:
        match reply.act:
            case "drop" | "reset":
                raise ConnectionFailed(f"the connection was {reply.act}")
            case "stall":
                await asyncio.sleep(self.read_timeout)
                raise TransportTimedOut("no answer in time")
            case "slow":
                await asyncio.sleep(reply.seconds)
            case "cut":
                raise ProtocolError("the answer is not whole")
            case "oversize" if reply.size > self.max_reply:
                raise ProtocolError("the reply is too large", too_large=True)

    def open_file(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        raise NotImplementedError("files need sockets")

    async def close(self) -> None:
        self.closed = True


@define(eq=False)
class WithFiles(InMemoryTransport):
    """
    The same, with downloads over the network, for whose time the clock does not jump.
    """

    network: Transport = field(kw_only=True)
    clock: VeoClock = field(kw_only=True)

    @asynccontextmanager
    async def open_file(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        with self.clock.held():
            async with self.network.open_file(url, headers) as response:
                yield response

    async def close(self) -> None:
        await self.network.close()
        await super().close()

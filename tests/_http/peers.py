"""
Servers that do as they are told, over raw sockets, and a transport that calls on them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest

from veo_async import Limits, RetryPolicy, TransportError
from veo_async._http.aiohttp_transport import AiohttpTransport
from veo_async._http.client import Http
from veo_async._http.gate import Gate
from veo_async._http.limiter import Limiter
from veo_async._http.transport import Outgoing

__all__ = [
    "QUICK",
    "TOKEN",
    "Peer",
    "answering",
    "api_at",
    "error_at",
    "hang",
    "raw_server",
    "request_of",
    "transport",
]

TOKEN = "sk-very-secret"
QUICK = Limits(connect=5.0, read=0.2, max_reply=1 << 16)
HASTY = RetryPolicy(first=0.001, max_delay=0.002, max_pause=0.002)
Peer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(peer: Peer) -> AsyncIterator[str]:
    """
    A server that does with each connection whatever it likes.
    """

    serving: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving[asyncio.current_task()] = writer  # type: ignore[index]
        try:
            await peer(reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        closed = (writer.wait_closed() for writer in serving.values())
        await asyncio.gather(*closed, return_exceptions=True)


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """
    Read one request whole.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
    return head + await reader.readexactly(length)


def answering(answer: bytes) -> Peer:
    """
    A peer that reads one request, writes these bytes, and closes.
    """

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)
        await writer.drain()

    return peer


@asynccontextmanager
async def transport(limits: Limits = QUICK) -> AsyncIterator[AiohttpTransport]:
    opened = AiohttpTransport.over(None, limits=limits, token=TOKEN)
    try:
        yield opened
    finally:
        await opened.close()


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    await reader.read()


async def error_at(url: str, limits: Limits = QUICK) -> tuple[TransportError, bool]:
    """
    Send one request; give its error, and whether the body had begun to leave.
    """
    outgoing = Outgoing(b"{}")
    async with transport(limits) as link:
        with pytest.raises(TransportError) as caught:
            await link.send("POST", url, outgoing)
    assert TOKEN not in str(caught.value)
    return caught.value, outgoing.left


def api_at(link: AiohttpTransport, url: str) -> Http:
    limiter = Limiter(Gate(retry=HASTY, random=Random(1)))
    return Http(transport=link, base_url=url, polls=limiter, retry=HASTY)

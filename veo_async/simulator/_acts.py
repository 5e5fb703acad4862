"""
Sends replies, and carries out what they do to the connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Final

from aiohttp import web
from attrs import evolve

from ._replies import Act, Reply

__all__ = ["act_out"]

PIECES: Final = 20  # parts of a slow answer
NO_LINGER: Final = struct.pack("ii", 1, 0)  # closing then sends RST


async def _stream(
    request: web.Request, reply: Reply, chunks: Iterable[bytes | memoryview]
) -> web.StreamResponse:
    stream = web.StreamResponse(status=reply.status, headers=reply.headers)
    await stream.prepare(request)
    for chunk in chunks:
        await stream.write(chunk)
    return stream


async def _plain(request: web.Request, reply: Reply) -> web.StreamResponse:
    if reply.chunks is not None:
        return await _stream(request, reply, reply.chunks)
    if request.method == "HEAD":  # its headers give the length of the body that is not sent
        return await _stream(request, reply, ())
    return web.Response(status=reply.status, headers=reply.headers, body=reply.body or None)


async def _drop(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Close the connection without an answer.
    """
    if request.transport is not None:
        request.transport.close()
    return web.Response()  # goes nowhere


async def _reset(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Abort the connection, so that the client sees a reset.
    """
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        transport.abort()
    return web.Response()  # goes nowhere


async def _stall(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Keep the connection open without an answer until the client leaves.
    """
    # aiohttp shows that a client has left only by closing the transport.
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return web.Response()  # goes nowhere


async def _cut(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Promise the whole body, send half of it, and close the connection.
    """
    promised = evolve(reply, headers={**reply.headers, "Content-Length": str(reply.length)})
    await _stream(request, promised, reply.half())
    return await _drop(request, reply)


async def _slow(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Send the body in small pieces.
    """
    stream = web.StreamResponse(status=reply.status, headers=reply.headers)
    await stream.prepare(request)
    body = reply.body if reply.chunks is None else b"".join(reply.chunks)
    step = max(1, -(-len(body) // PIECES))
    for start in range(0, len(body), step):
        await asyncio.sleep(reply.seconds / PIECES)
        await stream.write(body[start : start + step])
    return stream


def _padded(reply: Reply) -> Iterator[bytes]:
    yield reply.body
    for _ in range(len(reply.body), reply.size, len(_BLANKS)):
        yield _BLANKS


_BLANKS: Final = b" " * (1 << 18)


async def _oversize(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Send white space after the body, up to the size.
    """
    headers = {name: value for name, value in reply.headers.items() if name != "Content-Length"}
    return await _stream(request, evolve(reply, headers=headers), _padded(reply))


_ACTS: Final[Mapping[Act | None, Callable[[web.Request, Reply], Awaitable[web.StreamResponse]]]] = {
    None: _plain,
    "refuse": _reset,  # the connection exists already; a reset is closest to a refused one
    "drop": _drop,
    "reset": _reset,
    "stall": _stall,
    "cut": _cut,
    "slow": _slow,
    "oversize": _oversize,
}


async def act_out(request: web.Request, reply: Reply) -> web.StreamResponse:
    """
    Send the reply, or carry out its `act` on the connection.
    """
    return await _ACTS[reply.act](request, reply)

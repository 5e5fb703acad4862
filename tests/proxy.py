"""
A raw TCP proxy that does to connections what networks do: cuts, resets, stalls, half-closes and delays, at a byte.

    async with Proxy(sim.url) as proxy:
        proxy.add(Cut("reset", of="reply", at=0.5), when=every(3))
        ...  # talk to proxy.url

It knows just enough of HTTP to tell one message from the next; it changes no byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Final, Literal
from urllib.parse import urlsplit

from attrs import define, field, frozen

__all__ = ["Choice", "Cut", "Exchange", "Proxy", "both", "every", "first_of_each", "on_reused"]

NO_LINGER: Final = struct.pack("ii", 1, 0)  # closing then sends RST
READ: Final = 1 << 16  # bytes


@frozen(kw_only=True)
class Exchange:
    """
    A request that the proxy holds, and where it stands.

    Attributes:
        number: of all requests to the proxy, from 1.
        on_connection: of the requests of its own connection, from 1.
    """

    path: str
    body: bytes = field(repr=False)
    number: int
    on_connection: int


@frozen
class Cut:
    """
    What happens to a connection, and after how much of a message.

    Attributes:
        act: `close` by FIN; `reset` by RST; `stall`: silence until the client leaves; `half_close`: nothing
            more is sent, though what the client sends is still read; `delay`: all goes on after `seconds`.
        of: the message: the `request` on its way to the server, or the `reply` on its way back.
        at: the share of its bytes that passes first, 0 to 1.
    """

    act: Literal["close", "reset", "stall", "half_close", "delay"]
    of: Literal["request", "reply"] = field(default="request", kw_only=True)
    at: float = field(default=0.0, kw_only=True)
    seconds: float = field(default=0.0, kw_only=True)


Choice = Callable[[Exchange], bool]


def every(step: int, *, path: str = "/veo/") -> Choice:
    """
    Choose every so-many-th request to such a path, the first included.
    """
    seen = Counter[str]()

    def choose(exchange: Exchange) -> bool:
        if not exchange.path.startswith(path):
            return False
        seen[path] += 1
        return seen[path] % step == 1 % step

    return choose


def first_of_each(*, path: str = "/veo/videos") -> Choice:
    """
    Choose the first request with each body.
    """
    seen = set[bytes]()

    def choose(exchange: Exchange) -> bool:
        if not exchange.path.startswith(path) or exchange.body in seen:
            return False
        seen.add(exchange.body)
        return True

    return choose


def on_reused(exchange: Exchange) -> bool:
    """
    Choose requests on a connection that has served before: the race of every keep-alive.
    """
    return exchange.on_connection > 1


def both(*choices: Choice) -> Choice:
    """
    Choose what all of them choose, asked in this order.
    """
    return lambda exchange: all(choose(exchange) for choose in choices)


class _Over(Exception):
    """
    The connection has come to its end.
    """


@define(eq=False)
class Proxy:
    """
    Stands before one server while inside `async with`.

    Attributes:
        struck: how often each rule struck, by act, message and share.
    """

    target: str
    url: str = field(init=False, default="")
    struck: Counter[tuple[str, str, float]] = field(init=False, factory=Counter)
    _rules: list[tuple[Cut, Choice]] = field(init=False, factory=list, repr=False)
    _server: asyncio.Server | None = field(init=False, default=None, repr=False)
    _connections: set[asyncio.Task[None]] = field(init=False, factory=set, repr=False)
    _requests: int = field(init=False, default=0)

    def add(self, cut: Cut, *, when: Choice) -> Proxy:
        """
        Add a rule, and return the same proxy; the first rule that chooses a request is the one.
        """
        self._rules.append((cut, when))
        return self

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=512)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        connections = [*self._connections]
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    def number(self) -> int:
        """
        Count one more request.
        """
        self._requests += 1
        return self._requests

    def choose(self, exchange: Exchange) -> Cut | None:
        """
        Decide about one request.
        """
        for cut, when in self._rules:
            if when(exchange):
                self.struck[cut.act, cut.of, cut.at] += 1
                return cut
        return None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: one of the stream's would complain where it is cancelled.
        task = asyncio.create_task(self._serve(reader, writer), name="proxied connection")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = urlsplit(self.target)
        try:
            with contextlib.suppress(OSError, EOFError, _Over):
                there = await asyncio.open_connection(place.hostname, place.port)
                try:
                    await _Connection(self, reader, writer, *there).run()
                finally:
                    await _closed(there[1])
        finally:
            await _closed(writer)


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@define(eq=False)
class _Connection:
    """
    One connection of a client, and the one behind it.
    """

    proxy: Proxy
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server_reader: asyncio.StreamReader
    server_writer: asyncio.StreamWriter

    async def run(self) -> None:
        served = 0
        while True:
            message = await _message(self.reader)
            served += 1
            head, _, body = message.partition(b"\r\n\r\n")
            exchange = Exchange(
                path=head.split(b" ", 2)[1].decode(),
                body=body,
                number=self.proxy.number(),
                on_connection=served,
            )
            cut = self.proxy.choose(exchange)
            await self._pass(self.server_writer, message, cut, of="request")
            await self._pass(self.writer, await _message(self.server_reader), cut, of="reply")

    async def _pass(self, to: asyncio.StreamWriter, message: bytes, cut: Cut | None, *, of: str) -> None:
        place = 0
        if cut is not None and cut.of == of:
            place = int(cut.at * len(message))
            await self._write(to, message[:place])
            await self._act(cut)
        await self._write(to, message[place:])

    async def _write(self, to: asyncio.StreamWriter, data: bytes) -> None:
        if data:
            to.write(data)
            await to.drain()

    async def _act(self, cut: Cut) -> None:
        """
        Do it to the client's connection; only a delay lets it go on.
        """
        match cut.act:
            case "delay":
                await asyncio.sleep(cut.seconds)
                return
            case "reset":
                connection = self.writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
                self.writer.transport.abort()
            case "half_close":
                self.writer.write_eof()
                await self._until_the_client_leaves()
            case "stall":
                await self._until_the_client_leaves()
        raise _Over

    async def _until_the_client_leaves(self) -> None:
        while await self.reader.read(READ):
            pass


async def _message(reader: asyncio.StreamReader) -> bytes:
    """
    Read one request or reply whole.

    Raises:
        EOFError: there is none, or it breaks off.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
    assert length is not None, "this proxy tells messages apart by their length"
    return head + await reader.readexactly(length)

"""
The interface to the network: sends a request to the API and returns its reply.

`Transport.send(method, url, outgoing)` returns a `Reply`, or raises a `TransportError`.
The package implements it in `aiohttp_transport`; tests use a simulator in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from attrs import define, field

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HEADERS", "Outgoing", "Reply", "Transport"]

HEADERS: Final = ("date", "retry-after", "x-trace-id")  # the only headers of an answer that are read


class Reply(NamedTuple):
    """
    A whole answer, with the headers named in `HEADERS` that it has.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@define(eq=False)
class Outgoing:
    """
    A request's body, which records whether it has begun to leave this machine.

    Attributes:
        may_leave: called when the body begins to leave, with no await in between; False forbids it.
    """

    data: bytes
    may_leave: Callable[[], bool] = lambda: True
    left: bool = field(init=False, default=False)

    def leave(self) -> None:
        """
        Note that the body begins to leave; from now on the server may get the request.

        Raises:
            ConnectionAbortedError: `may_leave` forbids it.
        """
        if not self.may_leave():
            raise ConnectionAbortedError(
                "nothing was sent: the journal may have given the key to another session"
            )
        self.left = True


class Transport(Protocol):
    """
    Sends requests to the API.
    """

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        """
        Send a request once and read the whole answer.

        Raises:
            TransportError: no answer came; `outgoing.left` tells whether the request may have arrived.
        """
        ...

    def open_file(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """
        Begin a download.
        """
        ...

    async def close(self) -> None:
        """
        Close what was opened.
        """
        ...

"""
The seam to the network: what carries a request to the API, and what comes back.

`Transport.send(method, url, outgoing)` gives a `Reply`, or raises one of our `TransportError`s.
In the package `aiohttp_transport` stands behind it, in tests a simulator in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from attrs import define

if TYPE_CHECKING:
    import aiohttp

__all__ = ["HEADERS", "Outgoing", "Reply", "Transport"]

HEADERS: Final = ("date", "retry-after", "x-trace-id")  # of an answer; nobody reads another one


class Reply(NamedTuple):
    """
    An answer, whole, with those of `HEADERS` that it has.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


@define(eq=False)
class Outgoing:
    """
    A request's body, which knows whether it has begun to leave this machine.
    """

    data: bytes
    left: bool = False


class Transport(Protocol):
    """
    What carries a request to the API.
    """

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        """
        Send a request once and read the answer whole.

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
        Give back what was opened.
        """
        ...

"""
The transport over aiohttp, on the caller's session or on one of its own.

Whatever a caller's own `aiohttp.ClientSession` might do differently is said explicitly with each request.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import aiohttp
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.client_proto import ResponseHandler
from attrs import define, field

from .._policies import Limits
from ..errors import ConfigurationError, ProtocolError, SessionClosed, UsageError, VeoError
from .failures import translated
from .redaction import Secret
from .transport import HEADERS, Outgoing, Reply

__all__ = ["AiohttpTransport"]

OVER: Final = "the session ended before an answer came"
DOWNLOAD_REDIRECTS: Final = 5  # a link may lead to a CDN, and from there to its nearest copy


class _Payload(aiohttp.BytesPayload):
    """
    Records the moment when aiohttp begins to write it, and is written only to a server that is silent.

    That moment is never guessed from an exception: a time-out in the pool looks just like one in flight.
    The request's head leaves with the body, not before it.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        # Past the initialiser of `BytesPayload`, which warns of a body of a megabyte: an image has that.
        aiohttp.Payload.__init__(self, outgoing.data, content_type="application/json")
        self._size = len(outgoing.data)
        self._outgoing = outgoing

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await _hear_out(writer)
        self._outgoing.leave()
        await super().write_with_length(writer, content_length)


async def _hear_out(writer: AbstractStreamWriter) -> None:
    """
    Raise if the server has said something on this connection already, or has closed it.

    What lies there before the question is the answer to another one, or a proxy's farewell to an idle connection
    (408). aiohttp would send the question nevertheless, and take that for its answer.
    """
    protocol: ResponseHandler = getattr(writer, "protocol")  # noqa: B009 - the one writer there is has it
    if _may_be_read(protocol):
        for _ in range(2):  # in one turn of the loop the socket is read, in the next one the protocol has it
            await asyncio.sleep(0)
    if protocol.should_close or not protocol.is_connected():
        raise ConnectionResetError("the connection was answered or closed before anything was sent")


def _may_be_read(protocol: ResponseHandler) -> bool:
    """
    Ask the system whether something lies in the socket: mostly nothing does, and then there is nothing to wait for.
    """
    socket: Any = protocol.transport.get_extra_info("socket") if protocol.transport else None
    try:
        return bool(select.select([socket], [], [], 0)[0])
    except (OSError, TypeError, ValueError):  # closed, none, or with a number too large for `select`
        return True


def _too_large(most: int) -> ProtocolError:
    return ProtocolError(f"the reply is larger than Limits.max_reply, {most} bytes", too_large=True)


def _cancelling() -> int:
    """
    Return how many requests to cancel the running task has that it has not taken back.
    """
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@define(eq=False)
class AiohttpTransport:
    """
    Sends through an aiohttp session: the caller's, or one of its own.
    """

    session: aiohttp.ClientSession
    _limits: Limits
    _token: str = field(repr=False)
    _secret: Secret = field(init=False)
    _headers: Mapping[str, str] = field(init=False, repr=False)
    _timeout: aiohttp.ClientTimeout = field(init=False)
    _files: aiohttp.ClientSession | None = field(init=False, default=None)
    _owned: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        limits = self._limits
        self._secret = Secret(self._token)
        self._headers = {
            "authorization": f"Bearer {self._token}",
            "accept": "application/json",
            "content-type": "application/json",  # else a default of the caller's session would come first
            # An answer is a few kilobytes: spare both sides the compression, and us a bomb.
            "accept-encoding": "identity",
        }
        self._timeout = aiohttp.ClientTimeout(
            # A server that drips bytes never trips the read time-out, so the whole is bounded too.
            total=limits.connect + 2 * limits.read,
            connect=limits.connect,
            sock_connect=limits.connect,
            sock_read=limits.read,
        )

    @classmethod
    def over(cls, session: aiohttp.ClientSession | None, *, limits: Limits, token: str) -> AiohttpTransport:
        """
        Use the caller's session, or open one that `close` will close.

        Raises:
            ConfigurationError: the caller's session has default `auth`, which aiohttp puts before our token, or a
                default `Expect`, with which a request's head leaves alone, and may be answered alone.
            UsageError: the caller's session is closed.
        """
        if session is not None and session.auth is not None:
            raise ConfigurationError("the aiohttp session has default auth, which would replace the token")
        if session is not None and "expect" in session.headers:
            raise ConfigurationError(
                "the aiohttp session has a default Expect header: requests are sent whole here"
            )
        if session is not None and session.closed:
            raise UsageError("the aiohttp session is closed")
        transport = cls(session=session or _open_session(limits), limits=limits, token=token)
        transport._owned = session is None
        return transport

    async def close(self) -> None:
        """
        Close what was opened here, and nothing else.
        """
        if self._files is not None:
            await self._files.close()
        if self._owned:
            await self.session.close()

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        """
        Send a request once and read the answer whole, bounded in size and time.
        """
        if self._is_over():
            raise self._closed()
        cancelled = _cancelling()
        try:
            async with self.session.request(
                method,
                url,
                data=_Payload(outgoing),
                headers=self._headers,
                allow_redirects=False,  # a 307 would send the POST a second time
                timeout=self._timeout,
                raise_for_status=False,
                middlewares=(),
            ) as response:
                if not outgoing.left:
                    response.close()
                    raise ProtocolError(
                        f"an answer ({response.status}) from {url} came before the question: it is another's"
                    )
                body = await self._read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = translated(error, url, token=self._token)
        except asyncio.CancelledError:
            # Closing an aiohttp session cancels the wait for a connection, though nobody has cancelled this task.
            if not self._is_over() or _cancelling() > cancelled:
                raise
            raise self._closed() from None
        else:
            return self._reply(response, body)
        raise failure  # out here, or the error that it hides would become its context

    def _is_over(self) -> bool:
        """
        Tell whether the session is closed, which may change with each await.
        """
        return self.session.closed

    def _closed(self) -> VeoError:
        return SessionClosed(OVER) if self._owned else UsageError("the aiohttp session is closed")

    def _reply(self, response: aiohttp.ClientResponse, body: bytes) -> Reply:
        headers = {
            name: self._secret.out_of(value)
            for name in HEADERS
            if (value := response.headers.get(name)) is not None
        }
        return Reply(response.status, headers, self._secret.out_of_body(body))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        most = self._limits.max_reply
        if (response.content_length or 0) > most:
            response.close()
            raise _too_large(most)
        chunks, size = [], 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > most:
                response.close()
                raise _too_large(most)
        return b"".join(chunks)

    def open_file(
        self, url: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """
        Begin a download: neither the token nor cookies go along, and a few redirects are followed.
        """
        if self._files is None:
            # Default headers and cookies of the caller's session are for other hosts; its connections serve.
            self._files = aiohttp.ClientSession(
                connector=self.session.connector,
                connector_owner=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=self.session.trust_env,
                auto_decompress=False,
                requote_redirect_url=False,
            )
        limits = self._limits
        timeout = aiohttp.ClientTimeout(
            total=None, connect=None, sock_connect=limits.connect, sock_read=limits.read
        )
        return self._files.get(
            # A signed link must travel as it was signed: yarl would write some of its escapes anew.
            yarl.URL(url, encoded=True) if url.isascii() and " " not in url else url,
            headers={"accept-encoding": "identity", **headers},
            timeout=timeout,
            max_redirects=DOWNLOAD_REDIRECTS,
        )


def _open_session(limits: Limits) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limits.connections),
        cookie_jar=aiohttp.DummyCookieJar(),
    )

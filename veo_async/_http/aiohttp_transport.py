"""
The transport over aiohttp, with the caller's session or its own.

Each request sets every option for which a caller's `aiohttp.ClientSession` may have another default.
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

CLOSED_MESSAGE: Final = "the session ended before an answer came"
DOWNLOAD_REDIRECTS: Final = 5  # a link may redirect to a CDN, and the CDN to its nearest copy


class _Payload(aiohttp.BytesPayload):
    """
    A body that records when aiohttp begins to write it, and refuses a connection with unread data.

    An exception cannot tell that moment: a time-out in the pool looks like one in flight.
    aiohttp sends the request's head together with the body, not before it.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        # Skip the initialiser of `BytesPayload`: it warns about bodies over 1 MiB, and images are that large.
        aiohttp.Payload.__init__(self, outgoing.data, content_type="application/json")
        self._size = len(outgoing.data)
        self._outgoing = outgoing

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await _raise_unless_idle(writer)
        self._outgoing.leave()
        await super().write_with_length(writer, content_length)


async def _raise_unless_idle(writer: AbstractStreamWriter) -> None:
    """
    Raise if the server has already sent data on this connection, or has closed it.

    Such data answers another request, or is a proxy's 408 for an idle connection. aiohttp would send our request
    anyway, and take that data for its answer.

    Raises:
        ConnectionResetError: the connection cannot be used; nothing was sent.
    """
    protocol: ResponseHandler = getattr(writer, "protocol")  # noqa: B009 - aiohttp's only writer has it
    if _may_have_data(protocol):
        for _ in range(
            2
        ):  # the loop reads the socket in one turn, and the protocol gets the data in the next
            await asyncio.sleep(0)
    if protocol.should_close or not protocol.is_connected():
        raise ConnectionResetError("the connection was answered or closed before anything was sent")


def _may_have_data(protocol: ResponseHandler) -> bool:
    """
    Ask the system whether the socket has data to read. Usually it has none, and then the caller need not wait.
    """
    socket: Any = protocol.transport.get_extra_info("socket") if protocol.transport else None
    try:
        return bool(select.select([socket], [], [], 0)[0])
    except (OSError, TypeError, ValueError):  # closed, missing, or its number is too large for `select`
        return True


def _too_large(most: int) -> ProtocolError:
    return ProtocolError(f"the reply is larger than Limits.max_reply, {most} bytes", too_large=True)


def _cancelling() -> int:
    """
    Return how many cancellation requests the current asyncio task has pending.
    """
    task = asyncio.current_task()
    return task.cancelling() if task else 0


@define(eq=False)
class AiohttpTransport:
    """
    Sends requests through an aiohttp session: the caller's or its own.
    """

    session: aiohttp.ClientSession
    _limits: Limits
    _token: str = field(repr=False)
    _secret: Secret = field(init=False)
    _headers: Mapping[str, str] = field(init=False, repr=False)
    _middlewares: tuple[aiohttp.ClientMiddlewareType, ...] = field(init=False, default=())
    _timeout: aiohttp.ClientTimeout = field(init=False)
    _files: aiohttp.ClientSession | None = field(init=False, default=None)
    _owned: bool = field(init=False, default=False)

    def __attrs_post_init__(self) -> None:
        limits = self._limits
        self._secret = Secret(self._token)
        self._headers = {
            "authorization": f"Bearer {self._token}",
            "accept": "application/json",
            "content-type": "application/json",  # overrides a default of the caller's session
            # Answers are a few kilobytes: compression gains little, and could hide a decompression bomb.
            "accept-encoding": "identity",
        }
        if self.session.trust_env:
            # Then aiohttp may take a password from ~/.netrc, and refuses to replace a header by it.
            self._headers = {name: self._headers[name] for name in self._headers if name != "authorization"}
            self._middlewares = (self._authorize,)
        self._timeout = aiohttp.ClientTimeout(
            # A server that sends bytes slowly never exceeds the read time-out, so the total is bounded too.
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
            ConfigurationError: the caller's session has default `auth`, which would replace our token, or a default
                `Expect` header, which sends the head of a request before its body.
            UsageError: the caller's session is closed.
        """
        if session is not None and session.auth is not None:
            raise ConfigurationError("the aiohttp session has default auth, which would replace the token")
        if session is not None and "expect" in session.headers:
            raise ConfigurationError(
                "the aiohttp session has a default Expect header, but requests must be sent whole"
            )
        if session is not None and session.closed:
            raise UsageError("the aiohttp session is closed")
        transport = cls(session=session or _open_session(limits), limits=limits, token=token)
        transport._owned = session is None
        return transport

    async def close(self) -> None:
        """
        Close the sessions that this transport opened; the caller's session stays open.
        """
        if self._files is not None:
            await self._files.close()
        if self._owned:
            await self.session.close()

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        """
        Send a request once and read the whole answer, within the limits of size and time.
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
                middlewares=self._middlewares,
            ) as response:
                if not outgoing.left:
                    response.close()
                    raise ProtocolError(
                        f"{url} answered ({response.status}) before the request was sent: it answered another request"
                    )
                body = await self._read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = translated(error, url, token=self._token)
        except asyncio.CancelledError:
            # Closing an aiohttp session cancels the wait for a connection, although nobody cancelled our task.
            if not self._is_over() or _cancelling() > cancelled:
                raise
            raise self._closed() from None
        else:
            return self._reply(response, body)
        raise failure  # outside of `except`: there the original error would become its context

    async def _authorize(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        request.headers["authorization"] = f"Bearer {self._token}"
        return await send(request)

    def _is_over(self) -> bool:
        """
        Tell whether the session is closed; this may change at each await.
        """
        return self.session.closed

    def _closed(self) -> VeoError:
        return SessionClosed(CLOSED_MESSAGE) if self._owned else UsageError("the aiohttp session is closed")

    def _reply(self, response: aiohttp.ClientResponse, body: bytes) -> Reply:
        headers = {
            name: self._secret.redact(value)
            for name in HEADERS
            if (value := response.headers.get(name)) is not None
        }
        return Reply(response.status, headers, self._secret.redact_body(body))

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
        Begin a download, without token and cookies; follows up to `DOWNLOAD_REDIRECTS` redirects.
        """
        if self._files is None:
            # The caller's default headers and cookies are not for this host, but its connector can be shared.
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
            # A signed link must be sent unchanged: yarl would re-encode some of its escapes.
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

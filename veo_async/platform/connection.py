"""
HTTP to the platform's host: sends the account token there and nowhere else, and explains what goes wrong.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, TypeAlias

import aiohttp
from attrs import define, field

from .._api.wire import code_and_message, decode
from .._http.failures import translated
from .._http.redaction import Secret
from .._policies import RetryPolicy
from ..errors import PlatformError, ProtocolError, TransportError

__all__ = ["NO_TOKEN", "Connection", "Progress"]

Progress: TypeAlias = Callable[[int, int], object]

VARIABLE: Final = "ACEDATACLOUD_PLATFORM_TOKEN"  # [C] what the vendor's own tools read
NO_TOKEN: Final = (
    f"there is no account token: set {VARIABLE} to one from https://platform.acedata.cloud;"
    " it begins with `platform-`, and the token of the API does not work in its place"
)
MAX_REPLY: Final = 16 << 20  # bytes
TRIES: Final = 3  # nothing here is billed, so it may be repeated
TIMEOUT: Final = aiohttp.ClientTimeout(
    total=600, sock_connect=10, sock_read=60
)  # seconds; 100 MB may be uploaded

# What a status means for the user; any other one is told as it is.
_REASONS: Final[Mapping[int, str]] = {
    401: f"it refused the account token: check {VARIABLE}, which begins with `platform-`",
    403: f"it refused the account token: check {VARIABLE}, which begins with `platform-`",
    404: "it does not know that address; the vendor does not document it, and may have changed it",
    413: "the file is too large for it",
    429: "there were too many requests: try again later",
}


@define(eq=False)
class Connection:
    """
    Sends requests to one host.

    Attributes:
        base_url: the host's address, without a slash at its end.
        token: the account token, or None.
        progress: called with the bytes sent and in total of the file that is uploaded, or None.
        shared: a client of the user's, which is not closed here, or None for one of its own.
    """

    base_url: str
    token: str | None = field(repr=False)
    retry: RetryPolicy
    progress: Progress | None = None
    shared: aiohttp.ClientSession | None = field(default=None, repr=False)
    _secret: Secret = field(init=False, repr=False)
    _own: aiohttp.ClientSession | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        self._secret = Secret(self.token or "")

    async def close(self) -> None:
        """
        Close the connection; the next request opens another one.
        """
        own, self._own = self._own, None
        if own is not None:
            await own.close()

    def _http(self) -> aiohttp.ClientSession:
        if self.shared is not None:
            return self.shared
        if self._own is None:
            self._own = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        return self._own

    async def get(self, path: str, query: Mapping[str, str], *, with_token: bool = False) -> Any:
        """
        Return what an address of the platform answers, as JSON.

        Raises:
            PlatformError: there is no such answer.
        """
        return await self._ask("GET", path, query, None, with_token=with_token)

    async def upload(self, path: str, content: bytes, *, name: str, media_type: str) -> Any:
        """
        Upload a file, and return the answer.

        Raises:
            PlatformError: there is no such answer.
        """
        return await self._ask("POST", path, {}, (content, name, media_type), with_token=True)

    async def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        file: tuple[bytes, str, str] | None,
        *,
        with_token: bool,
    ) -> Any:
        if with_token and self.token is None:
            raise PlatformError(NO_TOKEN)
        delays = self.retry.delays(Random())
        for tries_left in reversed(range(TRIES)):
            try:
                return self._read(*await self._send(method, path, query, file, with_token=with_token))
            except TransportError as error:
                failure = PlatformError(f"the platform could not be reached: {error}")
                failure.__cause__ = error
            except PlatformError as error:
                failure = error
            if not tries_left or not _is_passing(failure):
                break
            await asyncio.sleep(next(delays))
        raise failure

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        file: tuple[bytes, str, str] | None,
        *,
        with_token: bool,
    ) -> tuple[int, bytes]:
        url, headers = f"{self.base_url}{path}", {"accept": "application/json", "accept-encoding": "identity"}
        if with_token:
            headers["authorization"] = f"Bearer {self.token}"
        try:
            async with self._http().request(
                method,
                url,
                params=query,
                data=None if file is None else _form(*file, self.progress),
                headers=headers,
                allow_redirects=False,  # the token is for this host only
                timeout=TIMEOUT,
            ) as response:
                return response.status, self._secret.redact_body(await _bounded(response))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failure = translated(error, url, token=self.token or "")
        raise failure  # outside of `except`: there the original error would become its context

    def _read(self, status: int, body: bytes) -> Any:
        """
        Return the JSON of an answer.

        Raises:
            PlatformError: it is an error, or not JSON.
        """
        try:
            data = decode(body)
        except ProtocolError as error:
            if status < 300:
                raise PlatformError(f"the platform's answer cannot be read: {error}", status=status) from None
            data = str(error)
        if status < 300:
            return data
        said = code_and_message(data)[1]
        reason = _REASONS.get(status, "it failed: try again later" if status >= 500 else "it refused")
        words = f"the platform answered with status {status}: {reason}"
        raise PlatformError(words + (f" ({said})" if said else ""), status=status)


def _is_passing(error: PlatformError) -> bool:
    return error.status is None or error.status == 429 or error.status >= 500


class _Counted(io.BytesIO):
    """
    A file's contents, which tell how far they were read: aiohttp reads them piece by piece, as it sends them.
    """

    def __init__(self, content: bytes, progress: Progress | None) -> None:
        super().__init__(content)
        self._progress, self._total = progress, len(content)

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        if piece and self._progress is not None:
            self._progress(self.tell(), self._total)
        return piece


def _form(content: bytes, name: str, media_type: str, progress: Progress | None) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", _Counted(content, progress), filename=name, content_type=media_type)
    return form


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = await response.content.read(MAX_REPLY)
    while chunk := await response.content.readany():
        body += chunk
        if len(body) > MAX_REPLY:
            response.close()
            raise ProtocolError(f"the answer is larger than {MAX_REPLY >> 20} MB", too_large=True)
    return body

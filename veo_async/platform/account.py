"""
`AccountPlatform`: what a session, or the command, asks the platform.
"""

from __future__ import annotations

import asyncio
import math
import os
from collections.abc import Mapping
from hashlib import sha256
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

import aiohttp
from attrs import define, field

from .._api.local_images import picture_type
from .._api.requests import Request
from .._api.wire import encode
from .._policies import RetryPolicy
from .._session.credentials import PLATFORM, base_url_from, check_token
from .._submit.uploads import Uploader
from ..errors import PlatformError
from .answers import Balance, Ledger, address_of, balances_in
from .connection import VARIABLE, Connection, Progress
from .contract import differences
from .ledger import APIS, read_ledger
from .prices import price_in, rows_of

__all__ = ["AccountPlatform"]

ADDRESS_VARIABLE: Final = "ACEDATACLOUD_PLATFORM_BASE_URL"  # [C] what the vendor's own tools read
LISTS_LAST: Final = 60.0  # seconds; [C] the platform caches its price list as long
FAILURES_LAST: Final = 10.0  # seconds until it is asked again, since a thousand jobs may ask
SERVICES: Final = "/api/v1/services/"  # [C] likewise; the price list of the whole service
APPLICATIONS: Final = "/api/v1/applications/"  # [C] the vendor's SDK and web app
FILES: Final = "/api/v1/files/"  # [C] the vendor's SDK


_Rows: TypeAlias = tuple[Mapping[str, Any], ...]
_List: TypeAlias = tuple[
    float, _Rows | PlatformError
]  # until when it counts, and its rows or why there are none


def _token_from(token: str | None) -> str | None:
    source = "the account token" if token is not None else VARIABLE
    token = (token if token is not None else os.environ.get(VARIABLE)) or None
    if token is not None:
        check_token(token, source)
    return token


def _base_url_from(base_url: str | None) -> str:
    return base_url_from(base_url, variable=ADDRESS_VARIABLE, default=PLATFORM)


@define(eq=False, repr=False)
class AccountPlatform:
    """
    The vendor's platform, for a session: `VeoSession(platform=AccountPlatform())`.

    It uploads pictures. An upload is public: whoever has its address can see it, and the API cannot delete it.

    Args:
        token: the account token, which begins with `platform-`; falls back to `ACEDATACLOUD_PLATFORM_TOKEN`. It is
            sent to the platform only. Without one there are no uploads.
        base_url: falls back to `ACEDATACLOUD_PLATFORM_BASE_URL`, then to the public address.
        uploader: uploads pictures elsewhere, such as into a bucket of one's own; then no account token is needed.
        retry: how long to wait before an attempt that failed is repeated.
        progress: called, while a picture is uploaded, with the bytes sent and in total; up to four may be under way.
        http: an `aiohttp.ClientSession` of one's own, such as for a proxy; it is not closed.

    Raises:
        ConfigurationError: the token or the base URL cannot be used.
    """

    _token: str | None = field(alias="token", default=None, converter=_token_from)
    _base_url: str = field(alias="base_url", default=None, converter=_base_url_from, kw_only=True)
    _uploader: Uploader | None = field(alias="uploader", default=None, kw_only=True)
    _retry: RetryPolicy = field(alias="retry", factory=RetryPolicy, kw_only=True)
    _progress: Progress | None = field(alias="progress", default=None, kw_only=True)
    _http: aiohttp.ClientSession | None = field(alias="http", default=None, kw_only=True)
    _connection: Connection = field(init=False)
    _lists: dict[str, _List] = field(init=False, factory=dict)  # price lists, by their endpoints
    _lock: asyncio.Lock = field(init=False, factory=asyncio.Lock)

    def __attrs_post_init__(self) -> None:
        self._connection = Connection(self._base_url, self._token, self._retry, self._progress, self._http)

    def __repr__(self) -> str:
        return f"<AccountPlatform {self._base_url}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """
        Close the connection to the platform; a session does this when it ends.
        """
        await self._connection.close()

    async def price(self, endpoint: str, body: Mapping[str, Any]) -> float | None:
        """
        Return what a request with this body costs, in credits; None if the price list is not understood.

        The list needs no account token, and is asked for once a minute at most.

        Raises:
            PlatformError: there is no answer.
        """
        async with self._lock:  # who asks meanwhile takes the same answer
            until, rows = self._lists.get(endpoint, (-math.inf, ()))
            if until < asyncio.get_running_loop().time():
                rows = await self._price_list(endpoint)
                lasts = FAILURES_LAST if isinstance(rows, PlatformError) else LISTS_LAST
                self._lists[endpoint] = (asyncio.get_running_loop().time() + lasts, rows)
        if isinstance(rows, PlatformError):
            raise PlatformError(*rows.args, status=rows.status)
        return price_in(rows, body)

    async def request_price(self, request: Request) -> float | None:
        """
        Return what a request costs, in credits; None if the price list is not understood.

        Raises:
            PlatformError: there is no answer.
        """
        return await self.price(request.endpoint, encode(request))

    async def _price_list(self, endpoint: str) -> _Rows | PlatformError:
        try:
            rows = rows_of(await self._connection.get(APIS, {"path": endpoint}))
            if rows or endpoint != Request.endpoint:  # the service's list is for this endpoint only
                return rows
            return rows_of(await self._connection.get(SERVICES, {"alias": "veo"}))
        except PlatformError as error:
            return error

    async def contract_differences(self) -> list[str] | None:
        """
        Say in words where the contract of `/veo/videos` differs from this package's tables of models and choices.

        None means that the contract lists no models. It needs no account token.

        Raises:
            PlatformError: there is no answer.
        """
        return differences(await self._connection.get(APIS, {"path": Request.endpoint}))

    async def balances(self, user_id: str | None = None) -> tuple[Balance, ...]:
        """
        Return what the account's applications have left; empty if the answer is not understood.

        Args:
            user_id: the account's own id, which records of tasks show; the vendor's web app sends it.

        Raises:
            PlatformError: there is no answer.
        """
        query = {} if user_id is None else {"user_id": user_id}
        return balances_in(await self._connection.get(APPLICATIONS, query, with_token=True))

    async def balance(self, user_id: str | None = None) -> float | None:
        """
        Return the credits that are left for Veo: of its applications or, where none says that it is Veo's, of all.

        None means that the answer is not understood.

        Raises:
            PlatformError: there is no answer.
        """
        found = await self.balances(user_id)
        ours = [one for one in found if one.is_veo] or [one for one in found if one.is_veo is None]
        return sum(one.remaining for one in ours) if ours else None

    async def ledger(self) -> Ledger:
        """
        Return what was charged for calls of Veo's endpoints.

        Raises:
            PlatformError: there is no answer, or it is not understood.
        """
        return await read_ledger(self._connection)

    async def upload(self, content: bytes) -> str:
        """
        Upload a picture, and return its public address.

        The platform is told the digest of the contents as the file's name, and not the name on this machine.

        Raises:
            PlatformError: the picture could not be uploaded.
        """
        if self._uploader is not None:
            return await self._uploader.upload(content)
        media_type = picture_type(content) or "application/octet-stream"
        name = f"{sha256(content).hexdigest()[:32]}.{media_type.partition('/')[2]}"
        answer = await self._connection.upload(FILES, content, name=name, media_type=media_type)
        address = address_of(answer)
        if address is None:
            raise PlatformError("the platform's answer to an upload has no address of the file")
        return address

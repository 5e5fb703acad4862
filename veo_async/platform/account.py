"""
`AccountPlatform`: what a session, or the command, asks the platform.
"""

from __future__ import annotations

import os
from hashlib import sha256
from types import TracebackType
from typing import Final, Self

from attrs import define, field

from .._api.local_images import picture_type
from .._policies import RetryPolicy
from .._session.credentials import PLATFORM, base_url_from, check_token
from .._submit.uploads import Uploader
from ..errors import PlatformError
from .answers import address_of
from .connection import VARIABLE, Connection

__all__ = ["AccountPlatform"]

ADDRESS_VARIABLE: Final = "ACEDATACLOUD_PLATFORM_BASE_URL"  # [C] what the vendor's own tools read
FILES: Final = "/api/v1/files/"  # [C] the vendor's SDK


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

    Raises:
        ConfigurationError: the token or the base URL cannot be used.
    """

    _token: str | None = field(alias="token", default=None, converter=_token_from)
    _base_url: str = field(alias="base_url", default=None, converter=_base_url_from, kw_only=True)
    _uploader: Uploader | None = field(alias="uploader", default=None, kw_only=True)
    _retry: RetryPolicy = field(alias="retry", factory=RetryPolicy, kw_only=True)
    _connection: Connection = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._connection = Connection(self._base_url, self._token, self._retry)

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

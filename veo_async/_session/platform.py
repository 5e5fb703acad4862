"""
What a session calls on a platform; `veo_async.platform.AccountPlatform` is the one in the box.
"""

from __future__ import annotations

from typing import Protocol

from .._submit.budget import Prices
from .._submit.uploads import Uploader

__all__ = ["AnyPlatform"]


class AnyPlatform(Uploader, Prices, Protocol):
    """
    Uploads pictures and knows prices; a session closes it when it ends.
    """

    async def close(self) -> None:
        """
        Close what was opened.
        """
        ...

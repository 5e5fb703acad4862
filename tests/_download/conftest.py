"""
A server, and downloaders that reach it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest

from veo_async._download import transfer
from veo_async._download.downloader import Downloader

from .origin import QUICK, Make, Origin, Watched


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with Origin().serving() as origin:
        yield origin


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=5.0)
    async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as http:
        yield http


@pytest.fixture
def downloader(http: aiohttp.ClientSession, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setattr(transfer, "FLUSH_EVERY", 0.0)  # each chunk is written when it comes

    def begin(url: str, headers: Mapping[str, str]) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        return http.get(url, headers=headers, max_redirects=3)

    def make(**fields: Any) -> Downloader:
        made = Watched(**{"open": begin, "look_up": None, "retry": QUICK} | fields)
        made.heard = origin.heard
        return made

    return make

"""
Networks of other people: a proxy that the environment names, and a certificate of an authority of their own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme
from aiohttp import web
from attrs import define, field

from veo_async import Limits, PollPolicy, RetryPolicy, SubmitTimedOut, TextToVideo, VeoSession
from veo_async.platform import AccountPlatform
from veo_async.simulator import Core, Settings, create_app

from ._http.peers import raw_server, request_of

SPEED: Final = 500.0
POLLING: Final = PollPolicy().scaled(1 / SPEED)
RETRY: Final = RetryPolicy().scaled(1 / SPEED)


PROGRAM: Final = """
import asyncio, veo_async

async def main():
    async with veo_async.VeoSession() as veo:
        await veo.text_to_video("an owl").accepted()

asyncio.run(main())
"""

# --- the network -----------------------------------------------------------------------------------------


@define(eq=False)
class ForwardProxy:
    """
    An HTTP proxy, as companies have it: a tunnel for https, and requests with whole addresses for http.

    Attributes:
        asked: the method and target of each request.
        refusing: the answer to all of them, instead of a connection.
    """

    refusing: bytes = b""
    asked: list[str] = field(init=False, factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await request_of(reader)
        method, target = self._note(request)
        if self.refusing:
            writer.write(self.refusing)
            return
        place = urlsplit(f"//{target}" if method == "CONNECT" else target)
        there_reader, there = await asyncio.open_connection(place.hostname, place.port)
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                onward = _copy(reader, there)
            else:
                onward = self._pass(request, reader, there, f"http://{place.netloc}".encode())
            await asyncio.gather(onward, _copy(there_reader, writer))
        finally:
            there.close()

    def _note(self, request: bytes) -> list[str]:
        first = request.partition(b"\r\n")[0].decode().split(" ")[:2]
        self.asked.append(" ".join(first))
        return first

    async def _pass(
        self, request: bytes, reader: asyncio.StreamReader, there: asyncio.StreamWriter, host: bytes
    ) -> None:
        with contextlib.suppress(EOFError):
            while True:
                there.write(request.replace(b" " + host, b" ", 1))
                request = await request_of(reader)
                self._note(request)
        there.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


@asynccontextmanager
async def api(certified: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Core, str]]:
    """
    Serve the API over http, or over https with this certificate; yields it and its address.
    """
    core = Core(Settings(speed=SPEED))
    runner = web.AppRunner(create_app(core), access_log=None, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "localhost", 0, ssl_context=certified).start()
    scheme = "https" if certified else "http"
    core.files.base_url = f"{scheme}://localhost:{runner.addresses[0][1]}"
    try:
        yield core, core.files.base_url
    finally:
        await runner.cleanup()


async def fetch_one(core: Core, url: str, folder: Path, http: aiohttp.ClientSession | None) -> None:
    """
    Buy a video and fetch its file through this aiohttp session, or through one of the session's own.
    """
    token = next(iter(core.tokens))
    async with VeoSession(token, base_url=url, http=http, polling=POLLING, retry=RETRY) as veo:
        result = await veo.text_to_video("an owl")
        assert (await veo.download(result.video, folder / "owl.mp4")).stat().st_size > 0
    assert 1 == len(core.tasks)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """
    A certificate authority that no system knows.
    """
    return trustme.CA()


def certified(authority: trustme.CA) -> ssl.SSLContext:
    """
    What a server at `localhost` shows.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


def trusting(authority: trustme.CA) -> aiohttp.TCPConnector:
    """
    A connector for servers of this authority.
    """
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return aiohttp.TCPConnector(ssl=context)


# --- a proxy ---------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What the machine's own environment says of proxies is not what is tested.
    """
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "netrc"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_the_environments_proxy_is_for_who_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of our own goes straight to the API, as aiohttp does; `trust_env=True` takes the proxy."""
    proxy = ForwardProxy()
    async with api() as (core, url), raw_server(proxy.serve) as address:
        monkeypatch.setenv("HTTP_PROXY", address)
        await fetch_one(core, url, tmp_path, None)
        assert [] == proxy.asked
        core.tasks.clear()
        async with aiohttp.ClientSession(trust_env=True) as http:
            await fetch_one(core, url, tmp_path, http)
        assert f"POST {url}/veo/videos" in proxy.asked
        assert any(line.startswith(f"GET {url}/") for line in proxy.asked)  # the file


async def test_the_platform_is_asked_through_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a client of the user's own, which stays open for its other uses."""
    proxy = ForwardProxy()
    async with api() as (_, url), raw_server(proxy.serve) as address:
        monkeypatch.setenv("HTTP_PROXY", address)
        async with aiohttp.ClientSession(trust_env=True) as http:
            async with AccountPlatform(base_url=url, http=http) as platform:
                assert (await platform.request_price(TextToVideo("a whale"))) is not None
            assert not http.closed
    assert [line for line in proxy.asked if line.startswith(f"GET {url}/api/v1/")]


async def test_no_proxy_is_kept_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What NO_PROXY names is reached without it."""
    async with api() as (core, url), aiohttp.ClientSession(trust_env=True) as http:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # where nobody listens
        monkeypatch.setenv("NO_PROXY", "localhost")
        await fetch_one(core, url, tmp_path, http)


async def test_through_a_proxy_the_token_stays_inside_the_tunnel(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For https the proxy sees the host's name, and nothing that is sent."""
    proxy = ForwardProxy()
    async with (
        api(certified(authority)) as (core, url),
        raw_server(proxy.serve) as address,
        aiohttp.ClientSession(connector=trusting(authority), trust_env=True) as http,
    ):
        monkeypatch.setenv("HTTPS_PROXY", address)
        await fetch_one(core, url, tmp_path, http)
        assert {f"CONNECT {urlsplit(url).netloc}"} == set(proxy.asked)


async def test_the_token_goes_before_a_password_of_netrc(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `trust_env=True`, aiohttp also reads ~/.netrc; what that has for the host replaces no token."""
    (tmp_path / "netrc").write_text("default login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with api() as (core, url), aiohttp.ClientSession(trust_env=True) as http:
        await fetch_one(core, url, tmp_path, http)


async def test_a_proxy_that_refuses_has_sent_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job waits as for any connection that cannot be made, and the error says that it was the proxy."""
    denied = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    async with (
        raw_server(ForwardProxy(denied).serve) as address,
        aiohttp.ClientSession(trust_env=True) as http,
    ):
        monkeypatch.setenv("HTTPS_PROXY", address)
        error = await unsent("https://api.example", http)
    assert "it was never sent: the proxy made no connection to https://api.example" in str(error)
    assert "407" in str(error)


# --- an authority of one's own ---------------------------------------------------------------------------


async def unsent(url: str, http: aiohttp.ClientSession | None) -> SubmitTimedOut:
    """
    Return what a job says that cannot be sent within half a second.
    """
    limits = Limits(max_queue_wait=0.5)
    async with VeoSession("token-of-the-test", base_url=url, http=http, retry=RETRY, limits=limits) as veo:
        error = await asyncio.wait_for(settled(veo), 60)
    assert isinstance(error, SubmitTimedOut)
    return error


async def settled(veo: VeoSession) -> BaseException | None:
    """
    Wait for a job that fails, and return its exception.
    """
    async for job in veo.as_completed([veo.text_to_video("an owl")]):
        return job.exception()
    return None


async def test_a_private_authority_is_trusted_where_the_caller_trusts_it(
    authority: trustme.CA, tmp_path: Path
) -> None:
    """The caller's connector is used for the API and for files."""
    async with (
        api(certified(authority)) as (core, url),
        aiohttp.ClientSession(connector=trusting(authority)) as http,
    ):
        await fetch_one(core, url, tmp_path, http)


async def test_a_certificate_that_is_not_trusted_gets_no_token(authority: trustme.CA) -> None:
    """Nothing is sent, and the error says what to do."""
    async with api(certified(authority)) as (core, url):
        error = await unsent(url, None)
        assert not core.requests
    assert f"it was never sent: the certificate of {url}" in str(error)
    assert "TCPConnector(ssl=context)" in str(error)


async def test_an_authority_may_be_named_in_the_environment(authority: trustme.CA, tmp_path: Path) -> None:
    """SSL_CERT_FILE is enough for a session of its own, where it is set before the program begins."""
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    async with api(certified(authority)) as (core, url):
        named = {"SSL_CERT_FILE": str(tmp_path / "authority.pem"), "ACEDATACLOUD_API_BASE_URL": url}
        named["ACEDATACLOUD_API_TOKEN"] = next(iter(core.tokens))
        running = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=os.environ | named)
        assert 0 == await asyncio.wait_for(running.wait(), 60)
        assert 1 == len(core.tasks)

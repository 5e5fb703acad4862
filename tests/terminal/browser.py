"""
Chromium without a window, spoken to by its own protocol.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
from attrs import define, field

__all__ = ["CHROMIUM", "Browser"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1280,900",
)
_LOADED = "document.readyState === 'complete' || new Promise(done => addEventListener('load', done))"


@define
class Browser:
    """
    One page of a browser that lives until the end of the block.
    """

    events: list[dict[str, Any]] = field(factory=list, init=False)
    _profile: Path = field(init=False)
    _process: asyncio.subprocess.Process = field(init=False)
    _http: aiohttp.ClientSession = field(init=False)
    _socket: aiohttp.ClientWebSocketResponse = field(init=False)
    _calls: int = field(default=0, init=False)

    async def __aenter__(self) -> Self:
        assert CHROMIUM is not None
        self._profile = Path(tempfile.mkdtemp())
        self._process = await asyncio.create_subprocess_exec(
            CHROMIUM,
            *_FLAGS,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._http = aiohttp.ClientSession()
        try:
            await self._connect()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._socket.close()
        await self._close()

    async def _connect(self) -> None:
        port = await self._port()
        async with self._http.get(f"http://127.0.0.1:{port}/json") as answer:
            tabs = await answer.json(content_type=None)
        address = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        self._socket = await self._http.ws_connect(address, max_msg_size=0)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")

    async def _port(self) -> int:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            if b"DevTools listening on" in line:
                return int(line.split(b":")[2].split(b"/")[0])
        raise AssertionError("the browser did not start")

    async def _close(self) -> None:
        await self._http.close()
        if self._process.returncode is None:
            self._process.terminate()
        assert self._process.stderr is not None
        await self._process.stderr.read()
        await self._process.wait()
        # Its own helpers may still be writing.
        shutil.rmtree(self._profile, ignore_errors=True)

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """
        Call a method of the browser; what it reports meanwhile goes to `events`.
        """
        self._calls += 1
        await self._socket.send_json({"id": self._calls, "method": method, "params": parameters})
        while True:
            message: dict[str, Any] = json.loads((await self._socket.receive()).data)
            if message.get("id") == self._calls:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    async def open(self, page: Path) -> None:
        """
        Open a file, and wait until it is loaded.
        """
        await self.call("Page.navigate", url=page.as_uri())
        await self.run(_LOADED)

    async def run(self, script: str) -> Any:
        """
        Return the value of an expression, once it has one.
        """
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """
        Wait until an expression is true, looking at every picture that the page draws.
        """
        await self.run(
            "new Promise(done => { const look = () => ("
            + condition
            + ") ? done(true) : setTimeout(look, 20); look(); })"
        )

    def complaints(self) -> list[dict[str, Any]]:
        """
        What the page's console and its scripts have complained of.
        """
        bad = {"Runtime.exceptionThrown", "Log.entryAdded"}
        return [event for event in self.events if event.get("method") in bad]

    def addresses(self) -> list[str]:
        """
        What the page has asked for.
        """
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]

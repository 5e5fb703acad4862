"""
Receives callbacks, so that a result is known as soon as it exists.

    async with VeoSession() as veo, CallbackReceiver(veo, public_url="https://hooks.example.com") as receiver:
        await receiver.start(port=8080)
        result = await veo.text_to_video("a whale breaching at golden hour")

The API POSTs a task's result to the `callback_url` of its submit, without a signature.
So a callback is only a hint: it makes the session poll the task now instead of a few seconds later. Only the API's
answer to the poll settles a job.
Polling continues, less often while callbacks come, so a lost callback costs only time.

The path of the callback URL contains an unguessable secret, so that strangers cannot send hints. Whoever learns it
can only cause a few more polls of the tasks that the session waits for, within the same budget of requests.
The path also contains the mark of the submit, a different one for each attempt. The API repeats it in the task's
record and in the callback. It tells which attempt bought the task if the submit's own answer was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import logging
import math
import re
import secrets
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from aiohttp import web
from attrs import Attribute, define, field

from . import VeoSession
from ._session.session import call_back_at, called_back
from .errors import ConfigurationError, UsageError

__all__ = ["CallbackReceiver", "read_payload"]

MAX_BODY: Final = 64 * 1024  # bytes; a callback has a few ids and links
PATIENCE: Final = 10.0  # seconds for a body to arrive
LINGER: Final = 1.0  # seconds that a connection may stay open after its answer, or after the receiver stops
SECRET_BYTES: Final = 32
MIN_SECRET_LENGTH: Final = 16  # of a secret that the caller provides

log = logging.getLogger("veo_async")


# --- settings ------------------------------------------------------------------------------------------


def _without_slash(url: str | None) -> str | None:
    return url.rstrip("/") if isinstance(url, str) else url


def _check_url(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not _is_plain_address(value):
        words = "must be an http or https address with a host, optionally a port and a path, and nothing else"
        raise ConfigurationError(f"{attribute.name} {words}, not {value!r}")


def _is_plain_address(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port  # reading it makes urlsplit check it
    except ValueError:
        return False
    more = parts.username is not None or parts.query or parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not more


def _check_secret(_: object, attribute: Attribute[Any], value: object) -> None:
    letters = rf"[A-Za-z0-9_-]{{{MIN_SECRET_LENGTH},}}"
    if not isinstance(value, str) or not re.fullmatch(letters, value):
        words = f"must be at least {MIN_SECRET_LENGTH} letters, digits, - or _, such as from secrets.token_urlsafe()"
        raise ConfigurationError(f"{attribute.name} {words}")


def _check_window(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{attribute.name} must be seconds, 0 or more, not {value!r}")


def _secret_from(secret: str | None) -> str:
    return secrets.token_urlsafe(SECRET_BYTES) if secret is None else secret


# --- the receiver --------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class CallbackReceiver:
    """
    Receives the API's callbacks for a session, mounted in your aiohttp application or on its own port.

    Mounted: `your_app.add_subapp("/veo", receiver.app)`, with `public_url="https://your.host/veo"`.
    On its own port: `await receiver.start(port=8080)`, until `stop()` or the end of its `async with`.
    While it runs, every submit whose request has no `callback_url` gets one.

    The secret is part of the path, so keep the path out of the access logs of a reverse proxy.
    If it leaks, little is lost: it allows only a few more polls.

    Args:
        session: the session that waits for the tasks.
        public_url: the URL at which the API reaches the receiver, with the path at which it is mounted; None means
            its own port, which only a simulator on the same machine can reach.
        secret: the secret part of the path; None makes a new one. If a later process uses the same secret, it also
            gets the callbacks of tasks that were submitted before.
        window: how long a callback may wait for others to share a request, in seconds.

    Attributes:
        app: the aiohttp application, to be mounted in another.
        heard: the number of callbacks about tasks that the session waits for.
        ignored: the number of other POSTs to the secret path.

    Raises:
        ConfigurationError: `public_url`, `secret` or `window` cannot be used.
    """

    _session: VeoSession
    public_url: str | None = field(kw_only=True, converter=_without_slash, validator=_check_url)
    _secret: str = field(default=None, kw_only=True, converter=_secret_from, validator=_check_secret)
    window: float = field(default=0.05, kw_only=True, validator=_check_window)
    app: web.Application = field(init=False)
    heard: int = field(init=False, default=0)
    ignored: int = field(init=False, default=0)
    _runner: web.AppRunner | None = field(init=False, default=None)
    _listening: asyncio.Server | None = field(init=False, default=None)
    _address: str | None = field(init=False, default=None)  # of its own port

    def __attrs_post_init__(self) -> None:
        self.app = web.Application(client_max_size=MAX_BODY)
        for path in ("/{secret}", "/{secret}/{mark}"):
            self.app.router.add_route("*", path, self._answer)
        self.app.on_startup.append(self._attach)
        self.app.on_cleanup.append(self._detach)

    def __repr__(self) -> str:
        return f"<CallbackReceiver {self.public_url or self._address}: {self.heard} heard, {self.ignored} ignored>"

    @property
    def url(self) -> str:
        """
        The callback URL without a mark, for requests that are submitted in another way; it contains the secret.

        Raises:
            UsageError: there is no `public_url`, and the receiver has no port yet.
        """
        address = self.public_url or self._address
        if address is None:
            raise UsageError("a CallbackReceiver without a public_url has no address until it is started")
        return f"{address}/{self._secret}"

    # --- its own port ----------------------------------------------------------------------------------

    async def start(self, *, port: int, host: str = "127.0.0.1") -> int:
        """
        Listen on its own port; returns the port's number.

        Args:
            port: the port's number; 0 takes a free port.
            host: the address to listen on; the default is for a reverse proxy on this machine.

        Raises:
            OSError: the port is taken.
            UsageError: the receiver is listening already.
        """
        if self._runner is not None:
            raise UsageError("this CallbackReceiver is listening already")
        self._runner = web.AppRunner(
            self.app,
            access_log=None,  # it would contain the secret
            auto_decompress=False,  # callbacks are small, so a compressed body is an attack
            lingering_time=LINGER,
            shutdown_timeout=LINGER,
        )
        try:
            await self._runner.setup()
            self._listening = await _listen(self._runner, host, port)
        except BaseException:
            await self.stop()
            raise
        address = self._listening.sockets[0].getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        self._address = f"http://{name}:{address[1]}"
        call_back_at(self._session, self._new_url)
        return int(address[1])

    async def stop(self) -> None:
        """
        Close the port. Later submits get no callback URL, and are polled as usual.
        """
        call_back_at(
            self._session, None
        )  # first, so that a submit during the close does not ask for an address
        listening, self._listening = self._listening, None
        runner, self._runner, self._address = self._runner, None, None
        try:
            if listening is not None:
                await _stop_listening(listening)
        finally:
            if runner is not None:
                await runner.cleanup()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # --- called by the session -------------------------------------------------------------------------

    async def _attach(self, _: web.Application) -> None:
        if self.public_url is not None:
            call_back_at(self._session, self._new_url)

    async def _detach(self, _: web.Application) -> None:
        call_back_at(self._session, None)

    def _new_url(self, mark: str) -> str:
        return f"{self.url}/{mark}"

    # --- called by the network -------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """
        Answer a request at once, with an empty body: the sender must not learn whether the callback was accepted.
        """
        if not self._is_secret(request.match_info["secret"]):
            return web.Response(status=404)
        if request.method != "POST":
            return web.Response(status=405, headers={"Allow": "POST"})
        payload = await read_payload(request)
        path = request.match_info.get("mark", "")
        if called_back(self._session, payload, window=self.window, path=path):
            self.heard += 1
        else:
            self.ignored += 1
        return web.Response(status=204)  # also if ignored, so that it is not sent again

    def _is_secret(self, text: str) -> bool:
        # In constant time, however many characters are correct.
        return hmac.compare_digest(text.encode(errors="replace"), self._secret.encode())


async def _listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    assert runner.server is not None, "a runner that is set up has a server"
    # Without reuse_address, the port of a process that has just ended stays taken for a minute.
    return await asyncio.get_running_loop().create_server(runner.server, host, port, reuse_address=True)


async def _stop_listening(server: asyncio.Server) -> None:
    """
    Stop accepting connections, and close the port in the next turn of the event loop.
    """
    # asyncio does not close a connection that it accepts in the same turn in which its server closes.
    loop = asyncio.get_running_loop()
    try:
        with contextlib.suppress(NotImplementedError):  # the default event loop of Windows has no readers
            for listening in server.sockets:
                loop.remove_reader(listening)
        await asyncio.sleep(0)
    finally:
        server.close()


async def read_payload(request: web.Request) -> object:
    """
    Read a callback's body as JSON; None if it is not JSON.

    Raises:
        aiohttp.web.HTTPException: the body is too large, too slow, or cut off.
    """
    try:
        return json.loads(await _read(request))
    except (ValueError, RecursionError):  # not JSON, not text, or nested too deep
        return None


async def _read(request: web.Request) -> bytes:
    """
    Read a body of at most `MAX_BODY` bytes; for a mounted application, aiohttp applies only the outer one's limit.
    """
    if (request.content_length or 0) > MAX_BODY:
        raise _refused(web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0))
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    raise _refused(web.HTTPRequestEntityTooLarge(MAX_BODY, len(body)))
    except TimeoutError:
        raise _refused(web.HTTPRequestTimeout()) from None
    except (web.RequestPayloadError, OSError):  # the sender has disconnected
        raise _refused(web.HTTPBadRequest()) from None
    return bytes(body)


def _refused(answer: web.HTTPException) -> web.HTTPException:
    answer.force_close()  # does not wait for the rest of the body
    return answer

"""
Callbacks: the result the moment it exists.

    async with VeoSession() as veo, CallbackReceiver(veo, public_url="https://hooks.example.com") as receiver:
        await receiver.start(port=8080)
        result = await veo.text_to_video("a whale breaching at golden hour")

The API POSTs a task's result to the `callback_url` of its submit, and does not sign it.
So a callback is a hint and nothing more: it makes the session ask the API about the task now, instead of a few
seconds later, and only the API's own answer settles a job.
Polling goes on, more rarely while callbacks come, so one that is lost costs nothing but time.

What stands between a stranger and such a hint is the path, which holds a secret that nobody can guess.
Whoever learns it all the same can make the session look at tasks it waits for a few times more, within the same
budget of requests.
The path also holds the mark of the submit, another one for each sending; the API repeats it in the task's record
and in the callback, and so tells which sending bought the task where the submit's own answer got lost.
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

MOST: Final = 64 * 1024  # bytes; a callback holds a few ids and links
PATIENCE: Final = 10.0  # seconds for a body to arrive
LINGERING: Final = 1.0  # seconds that a connection may go on after its answer, or after the end of all
SECRET_BYTES: Final = 32
FEWEST_LETTERS: Final = 16  # of a secret that the caller brings

log = logging.getLogger("veo_async")


# --- settings --------------------------------------------------------------------------------------------


def _without_slash(url: str | None) -> str | None:
    return url.rstrip("/") if isinstance(url, str) else url


def _check_url(_: object, attribute: Attribute[Any], value: object) -> None:
    if value is not None and not _is_plain_address(value):
        words = "must be an http or https address: a host, perhaps a port and a path, and no more"
        raise ConfigurationError(f"{attribute.name} {words}, not {value!r}")


def _is_plain_address(value: object) -> bool:
    if not isinstance(value, str) or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        _ = parts.port  # urlsplit looks at it only when asked
    except ValueError:
        return False
    more = parts.username is not None or parts.query or parts.fragment
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and not more


def _check_secret(_: object, attribute: Attribute[Any], value: object) -> None:
    letters = rf"[A-Za-z0-9_-]{{{FEWEST_LETTERS},}}"
    if not isinstance(value, str) or not re.fullmatch(letters, value):
        words = f"must be at least {FEWEST_LETTERS} letters, digits, - or _, as secrets.token_urlsafe() makes them"
        raise ConfigurationError(f"{attribute.name} {words}")


def _check_window(_: object, attribute: Attribute[Any], value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{attribute.name} must be seconds, 0 or more, not {value!r}")


def _secret_from(secret: str | None) -> str:
    return secrets.token_urlsafe(SECRET_BYTES) if secret is None else secret


# --- the receiver ----------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class CallbackReceiver:
    """
    Takes the API's callbacks for a session, as a sub-application of yours or on a port of its own.

    Mounted: `your_app.add_subapp("/veo", receiver.app)`, with `public_url="https://your.host/veo"`.
    By itself: `await receiver.start(port=8080)`, and `stop()`, or leave its `async with`.
    As long as it runs, every submit whose request has no `callback_url` of its own gets one.

    The secret is part of the path: keep it out of the access logs of what stands in front.
    Where those cannot be silenced, little is lost: see above what it is good for.

    Args:
        session: whose jobs are waiting.
        public_url: the address under which the API reaches the receiver, with the path it is mounted at;
            None is the port of its own, which only a simulator on the same machine can reach.
        secret: the secret part of the path; None makes a new one. With one that outlives the process, callbacks
            of tasks that were submitted before it are heard, too.
        window: seconds that a callback may wait for others, to share a request with them.

    Attributes:
        app: the aiohttp application, to be mounted into another.
        heard: callbacks so far of tasks that somebody waits for.
        ignored: all other POSTs so far that came to the secret path.

    Raises:
        ConfigurationError: an address, a secret or a window that cannot be used.
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
    _address: str | None = field(init=False, default=None)  # of the port of its own

    def __attrs_post_init__(self) -> None:
        self.app = web.Application(client_max_size=MOST)
        for path in ("/{secret}", "/{secret}/{mark}"):
            self.app.router.add_route("*", path, self._answer)
        self.app.on_startup.append(self._attach)
        self.app.on_cleanup.append(self._detach)

    def __repr__(self) -> str:
        return f"<CallbackReceiver {self.public_url or self._address}: {self.heard} heard, {self.ignored} ignored>"

    @property
    def url(self) -> str:
        """
        The callback URL without a mark, for requests that are submitted in another way; it holds the secret.

        Raises:
            UsageError: there is no `public_url`, and no port of its own yet.
        """
        address = self.public_url or self._address
        if address is None:
            raise UsageError("a CallbackReceiver without a public_url has no address until it is started")
        return f"{address}/{self._secret}"

    # --- running by itself ------------------------------------------------------------------------------

    async def start(self, *, port: int, host: str = "127.0.0.1") -> int:
        """
        Listen on a port of its own; returns which.

        Args:
            port: 0 takes a free one.
            host: where to listen; the default is for a reverse proxy on this machine.

        Raises:
            OSError: the port is taken.
            UsageError: it is listening already.
        """
        if self._runner is not None:
            raise UsageError("this CallbackReceiver is listening already")
        self._runner = web.AppRunner(
            self.app,
            access_log=None,  # it would hold the secret
            auto_decompress=False,  # nobody compresses a few hundred bytes but to make them many
            lingering_time=LINGERING,
            shutdown_timeout=LINGERING,
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
        Close the port; from now on nothing is submitted with a callback URL, and polling does all the work.
        """
        call_back_at(self._session, None)  # first of all: what is sent meanwhile must not ask for an address
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

    # --- what the session sees --------------------------------------------------------------------------

    async def _attach(self, _: web.Application) -> None:
        if self.public_url is not None:
            call_back_at(self._session, self._new_url)

    async def _detach(self, _: web.Application) -> None:
        call_back_at(self._session, None)

    def _new_url(self, mark: str) -> str:
        return f"{self.url}/{mark}"

    # --- what the network sees --------------------------------------------------------------------------

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        """
        Answer a request, fast and without a word: whether a callback was believed is nobody's business.
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
        return web.Response(status=204)  # also for what is ignored, or it would be sent again

    def _is_secret(self, text: str) -> bool:
        # In a time that does not depend on how much of it is right.
        return hmac.compare_digest(text.encode(errors="replace"), self._secret.encode())


async def _listen(runner: web.AppRunner, host: str, port: int) -> asyncio.Server:
    assert runner.server is not None, "a runner that is set up has a server"
    # Without reuse_address the port of a process that has just gone is taken for a minute.
    return await asyncio.get_running_loop().create_server(runner.server, host, port, reuse_address=True)


async def _stop_listening(server: asyncio.Server) -> None:
    """
    Close the port once the connections just taken have begun.
    """
    # asyncio forgets to close a connection that it takes in the very turn in which its server closes.
    loop = asyncio.get_running_loop()
    try:
        with contextlib.suppress(NotImplementedError):  # Windows' own loop has no readers
            for listening in server.sockets:
                loop.remove_reader(listening)
        await asyncio.sleep(0)
    finally:
        server.close()


async def read_payload(request: web.Request) -> object:
    """
    Read a callback's body as JSON, bounded in size and time; None where it is none.

    Raises:
        aiohttp.web.HTTPException: it is too large, too slow, or cut off.
    """
    try:
        return json.loads(await _read(request))
    except (ValueError, RecursionError):  # no JSON, no text, or nested too deep
        return None


async def _read(request: web.Request) -> bytes:
    """
    Read a body up to `MOST` bytes; aiohttp's own limit is that of the application that this one is mounted into.
    """
    if (request.content_length or 0) > MOST:
        raise _refused(web.HTTPRequestEntityTooLarge(MOST, request.content_length or 0))
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MOST:
                    raise _refused(web.HTTPRequestEntityTooLarge(MOST, len(body)))
    except TimeoutError:
        raise _refused(web.HTTPRequestTimeout()) from None
    except (web.RequestPayloadError, OSError):  # whoever sent it has gone
        raise _refused(web.HTTPBadRequest()) from None
    return bytes(body)


def _refused(answer: web.HTTPException) -> web.HTTPException:
    answer.force_close()  # the rest of the body is not waited for
    return answer

"""
The transport over real sockets: well-behaved servers, and raw ones that misbehave.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

from veo_async import (
    ConfigurationError,
    ConnectionFailed,
    Limits,
    PollPolicy,
    ProtocolError,
    SessionClosed,
    TextToVideo,
    TransportError,
    TransportTimedOut,
    UsageError,
    VeoError,
    VeoSession,
)
from veo_async._http.aiohttp_transport import AiohttpTransport
from veo_async._http.transport import Outgoing

from .peers import QUICK, TOKEN, Peer, answering, error_at, hang, raw_server, request_of, transport


async def test_a_request_says_everything_explicitly() -> None:
    """
    Token, accepted type and body go out; the reply comes back whole with lower-case header names.
    """
    seen: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(b"HTTP/1.1 201 Created\r\nX-Trace-Id: t\r\nContent-Length: 2\r\n\r\n{}")
        await writer.drain()

    outgoing = Outgoing(b'{"a": 1}')
    async with raw_server(peer) as url, transport() as link:
        reply = await link.send("POST", f"{url}/veo/tasks", outgoing)
    assert (201, b"{}", "t") == (reply.status, reply.body, reply.headers["x-trace-id"])
    assert outgoing.left
    request = seen[0].lower()
    assert request.startswith(b"post /veo/tasks http/1.1\r\n")
    for line in (
        b"authorization: bearer sk-very-secret",
        b"content-type: application/json",
        b"accept: application/json",
    ):
        assert b"\r\n" + line + b"\r\n" in request
    assert request.endswith(b'\r\n\r\n{"a": 1}')


async def test_a_refused_connection_never_left() -> None:
    """
    Where nobody listens, the error is a connection's and the body has not left.
    """
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error, left = await error_at(f"http://127.0.0.1:{port}")
    assert isinstance(error, ConnectionFailed)
    assert isinstance(error, ConnectionError)
    assert not left


async def test_what_may_not_leave_is_not_sent() -> None:
    """
    Whether a body may leave is asked when the connection is there; where it may not, the server hears nothing.
    """
    heard = asyncio.get_running_loop().create_future()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.set_result(await reader.read())

    outgoing = Outgoing(b'{"prompt": "a whale"}', lambda: False)
    async with raw_server(peer) as url:
        async with transport() as link:
            with pytest.raises(ConnectionFailed, match="request body"):
                await link.send("POST", url, outgoing)
        assert not outgoing.left
        assert b"" == await heard


async def test_a_timeout_in_the_pool_never_left() -> None:
    """
    A request that waited for a free connection and got none has not left, unlike the one that holds it.
    """
    held = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        held.set()
        await reader.read()

    limits = Limits(connections=1, connect=0.2, read=5.0)
    first, second = Outgoing(b"{}"), Outgoing(b"{}")
    async with raw_server(peer) as url, transport(limits) as link:
        holder = asyncio.create_task(link.send("POST", url, first))
        await held.wait()
        with pytest.raises(TransportTimedOut):
            await link.send("POST", url, second)
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)
    assert first.left
    assert not second.left


async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)


async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\n \r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request_of(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(1600):  # 100 MB
        writer.write(b"10000\r\n" + b" " * 0x10000 + b"\r\n")
        await writer.drain()


@pytest.mark.parametrize(
    ("peer", "kind"),
    [
        (drop, ConnectionFailed),
        (hang, TransportTimedOut),
        (drip, TransportTimedOut),
        (flood, ProtocolError),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n"), ProtocolError),
        (answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"), ProtocolError),
        (answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"), ProtocolError),
        (answering(b"\x00\x01\x02 this is not HTTP\r\n\r\n"), ProtocolError),
        (answering(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), ProtocolError),
        (
            answering(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}"),
            ProtocolError,
        ),
    ],
    ids=["drop", "hang", "drip", "flood", "announced", "cut", "chunk", "noise", "headers", "encoding"],
)
async def test_a_peer_that_misbehaves_after_reading_leaves_the_outcome_open(
    peer: Peer, kind: type[TransportError]
) -> None:
    """
    Drops, stalls, floods and noise end in time with our own error, and the body counts as having left.
    """
    async with raw_server(peer) as url:
        error, left = await error_at(url, Limits(connect=0.3, read=0.3, max_reply=1 << 16))
    assert kind is type(error)
    assert left


async def test_a_redirect_is_not_followed() -> None:
    """
    A 307 is an answer: following it would send the POST a second time.
    """
    answer = b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n"
    async with raw_server(answering(answer)) as url, transport() as link:
        assert 307 == (await link.send("POST", url, Outgoing(b"{}"))).status


async def test_a_server_that_repeats_the_token_does_not_get_it_into_an_error() -> None:
    """
    The token is struck out of whatever comes back.
    """
    body = b'{"error": "bad token sk-very-secret"}'
    answer = b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with raw_server(answering(answer)) as url, transport() as link:
        assert b'{"error": "bad token [token]"}' == (await link.send("POST", url, Outgoing(b"{}"))).body


async def test_the_tasks_of_a_poll_that_drips_are_asked_about_beside_it() -> None:
    """
    One byte every 0.2 s trips no time-out of a silence; the jobs end long before that answer is there.
    """
    polls = 0

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal polls
        with suppress(asyncio.IncompleteReadError):
            while True:
                body = json.loads((await request_of(reader)).partition(b"\r\n\r\n")[2])
                if "prompt" in body:
                    answer: dict[str, Any] = {"task_id": f"task-of-{body['prompt']}"}
                elif "ids" in body:
                    answer = {"items": list(map(finished, body["ids"]))}
                else:
                    answer = finished(body["id"])
                data = json.dumps(answer).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(data))
                polls += "prompt" not in body
                if polls == 1 and "prompt" not in body:
                    for byte in data:
                        writer.write(bytes([byte]))
                        await asyncio.sleep(0.2)
                else:
                    writer.write(data)

    def finished(task_id: str) -> dict[str, Any]:
        video = {"id": "v", "video_url": "https://cdn.example/v.mp4", "state": "succeeded"}
        return {"id": task_id, "response": {"success": True, "data": [video]}}

    polling = PollPolicy(first_look=10.0, deadline=1800.0).scaled(0.01)
    async with raw_server(peer) as url, VeoSession(TOKEN, base_url=url, polling=polling) as veo:
        results = await asyncio.gather(*veo.submit_many(TextToVideo(prompt) for prompt in "abc"))
    assert ["task-of-a", "task-of-b", "task-of-c"] == [result.task_id for result in results]
    assert polls > 1, "the first answer is not what they ended by"


async def test_an_answer_before_the_question_is_anothers() -> None:
    """
    What a server says twice lies in wait on the connection; the next submit does not take it for its own answer.
    """
    again, bodies = asyncio.Event(), list[bytes]()

    async def stammering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while True:
                bodies.append((await request_of(reader)).partition(b"\r\n\r\n")[2])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await again.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")

    async with raw_server(stammering) as url, transport() as link:
        await link.send("POST", url, Outgoing(b"1"))
        again.set()
        connections: Any = link.session.connector
        while not any(kept._tail or kept._buffer for [(kept, _)] in connections._conns.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.001)  # aiohttp tells nobody
        outgoing = Outgoing(b"2")
        with pytest.raises(ProtocolError, match="answered another request"):
            await link.send("POST", url, outgoing)
    assert (False, [b"1"]) == (outgoing.left, bodies)


@asynccontextmanager
async def kept_connection(link: AiohttpTransport) -> AsyncIterator[tuple[str, socket.socket]]:
    """
    A connection over which one question was answered, with the server's end of it in the test's own hands.
    """
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        first = asyncio.create_task(link.send("POST", url, Outgoing(b"1")))
        peer, _ = await loop.sock_accept(server)
        with peer:
            while not (await loop.sock_recv(peer, 1 << 16)).endswith(b"1"):
                pass
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await first
            yield url, peer


async def rest_of(peer: socket.socket) -> bytes:
    """
    What comes next over a connection; nothing where it was closed.
    """
    async with asyncio.timeout(5.0):
        return await asyncio.get_running_loop().sock_recv(peer, 100)


@pytest.mark.parametrize("status", [200, 400, 402, 408, 429, 503])
async def test_no_answer_is_believed_that_came_before_the_question(status: int) -> None:
    """
    Whatever an early answer says, even if it has only just arrived, it is not taken, and the question stays here.
    """
    outgoing = Outgoing(b"2")
    async with transport() as link, kept_connection(link) as (url, peer):
        peer.send(b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\n{}" % status)
        with pytest.raises(ProtocolError, match=rf"\({status}\).* before the request was sent"):
            await link.send("POST", url, outgoing)
        assert b"" == await rest_of(peer), "nothing was sent, and the connection is given up"
    assert not outgoing.left


async def test_a_connection_that_was_closed_meanwhile_takes_no_question() -> None:
    """
    A kept connection that the server has just closed is noticed before anything is sent.
    """
    outgoing = Outgoing(b"2")
    async with transport() as link, kept_connection(link) as (url, peer):
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionFailed):
            await link.send("POST", url, outgoing)
        assert b"" == await rest_of(peer)
    assert not outgoing.left


@pytest.mark.parametrize("status", [401, 413])
@pytest.mark.parametrize("size", [300, 1 << 20, 1 << 24])
async def test_an_answer_to_the_head_alone_is_the_questions_own(status: int, size: int) -> None:
    """
    A server may refuse before it has read the body, however large: that is believed, and the body had begun to leave.
    """

    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d No\r\nContent-Length: 2\r\n\r\n{}" % status)
        await writer.drain()
        await answered.wait()

    answered, outgoing = asyncio.Event(), Outgoing(bytes(size))
    async with raw_server(hasty) as url, transport(Limits()) as link:
        reply = await link.send("POST", url, outgoing)
        answered.set()
    assert (status, True) == (reply.status, outgoing.left)


async def test_connections_that_serve_once_take_a_question() -> None:
    """
    A caller's session that keeps no connections, and says so, is no closed one.
    """
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        raw_server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")) as url,
    ):
        link = AiohttpTransport.over(session, limits=QUICK, token=TOKEN)
        assert [200] * 2 == [(await link.send("POST", url, Outgoing(b"{}"))).status for _ in range(2)]


# --- the caller's own session ------------------------------------------------------------------------------


async def test_the_callers_session_is_used_and_left_open() -> None:
    """
    Its connections serve; its redirects, its `raise_for_status` and its closing are its own.
    """
    answer = b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"
    async with aiohttp.ClientSession(raise_for_status=True, headers={"Authorization": "other"}) as session:
        link = AiohttpTransport.over(session, limits=QUICK, token=TOKEN)
        async with raw_server(answering(answer)) as url:
            assert 500 == (await link.send("POST", url, Outgoing(b"{}"))).status
        await link.close()
        assert not session.closed


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_session_with_default_auth_is_refused() -> None:
    """
    aiohttp would refuse our token beside it, so it is said at once.
    """
    async with aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b")) as session:
        with pytest.raises(ConfigurationError, match="default auth"):
            AiohttpTransport.over(session, limits=QUICK, token=TOKEN)


async def test_a_session_with_a_default_expect_is_refused() -> None:
    """
    A head that is sent by itself could be answered by itself, and the job would be sent for ever.
    """
    async with aiohttp.ClientSession(headers={"Expect": "100-continue"}) as session:
        with pytest.raises(ConfigurationError, match="default Expect"):
            AiohttpTransport.over(session, limits=QUICK, token=TOKEN)


async def test_a_closed_session_is_a_mistake_of_use() -> None:
    """
    A session that the caller closed too early is named as the reason.
    """
    session = aiohttp.ClientSession()
    link = AiohttpTransport.over(session, limits=QUICK, token=TOKEN)
    await session.close()
    with pytest.raises(UsageError, match="closed"):
        await link.send("POST", "http://127.0.0.1:1", Outgoing(b"{}"))


@pytest.mark.parametrize(("owned", "kind"), [(True, SessionClosed), (False, UsageError)])
async def test_who_waits_for_a_connection_when_the_session_closes_is_told(
    kind: type[VeoError], *, owned: bool
) -> None:
    """
    aiohttp cancels what waits for a connection: to a task that nobody cancelled that is an error like others.
    """
    held = asyncio.Event()

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        held.set()
        await reader.read()

    limits, second = Limits(connections=1), Outgoing(b"{}")
    callers = None if owned else aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
    async with raw_server(peer) as url:
        link = AiohttpTransport.over(callers, limits=limits, token=TOKEN)
        holder = asyncio.create_task(link.send("POST", url, Outgoing(b"{}")))
        await held.wait()
        waiter = asyncio.create_task(link.send("POST", url, second))
        quitter = asyncio.create_task(link.send("POST", url, Outgoing(b"{}")))
        assert isinstance(link.session.connector, aiohttp.TCPConnector)
        while sum(map(len, link.session.connector._waiters.values())) < 2:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(0)
        quitter.cancel()
        await link.session.close()
        with pytest.raises(kind, match=r"closed|ended"):
            await waiter
        with pytest.raises(asyncio.CancelledError):
            await quitter
        with pytest.raises(TransportError):
            await holder
        with pytest.raises(kind):
            await link.send("POST", url, Outgoing(b"{}"))
    assert not second.left


async def test_whatever_comes_of_an_answer_breaks_the_silence() -> None:
    """
    An answer that comes in parts, each within the time, is waited for: an interim one, the head, and the body.
    """
    parts = (b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", b"{}")

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for part in parts:
            await asyncio.sleep(0.6)
            writer.write(part)
            await writer.drain()

    async with raw_server(peer) as url, transport(Limits(connect=5.0, read=1.5)) as link:
        assert b"{}" == (await link.send("POST", url, Outgoing(b"{}"))).body


async def test_downloads_carry_neither_token_nor_cookies() -> None:
    """
    A file's host gets none of the caller's secrets, though the caller's session holds some.
    """
    seen: list[bytes] = []

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        await writer.drain()

    headers, cookies = {"X-Secret": "mine"}, {"sid": "mine"}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(headers=headers, cookies=cookies, cookie_jar=jar) as session:
        link = AiohttpTransport.over(session, limits=QUICK, token=TOKEN)
        async with (
            raw_server(peer) as url,
            link.open_file(f"{url}/a%2Fb?s=c%2Fd", {"range": "bytes=3-"}) as response,
        ):
            assert b"x" == await response.read()
        await link.close()
    assert b"mine" not in seen[0]
    assert TOKEN.encode() not in seen[0]
    assert b"GET /a%2Fb?s=c%2Fd HTTP/1.1" in seen[0], "a signed link travels as it was signed"
    assert b"range: bytes=3-" in seen[0].lower()

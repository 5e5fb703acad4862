"""
What is said of a failure: everything but the token.
"""

from __future__ import annotations

import asyncio
import json
import traceback

import aiohttp
import pytest

from veo_async import ConnectionFailed, ProtocolError
from veo_async._http import outage
from veo_async._http.aiohttp_transport import AiohttpTransport
from veo_async._http.failures import translated
from veo_async._http.transport import Outgoing

from .peers import QUICK, TOKEN, Peer, answering, api_at, error_at, raw_server, request_of


def _quoting(where: bytes) -> Peer:
    """
    A peer whose answer cannot be read, and repeats the token there.
    """

    async def peer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await request_of(reader)
        [token] = [
            line.split()[-1] for line in head.split(b"\r\n") if line.lower().startswith(b"authorization")
        ]
        writer.write(where.replace(b"TOKEN", token).replace(b"KEN-1", token[:-2]))
        await writer.drain()

    return peer


MALFORMED = {
    "status line": b"HTTP/1.1 TOKEN\r\n\r\n",
    "a part of it": b"HTTP/1.1 KEN-1\r\n\r\n",
    "noise": b"Authorization: Bearer TOKEN\r\n\r\n",
    "header": b"HTTP/1.1 200 OK\r\nBad Header\x01: Bearer TOKEN\r\n\r\n",
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: TOKEN\r\n\r\n",
    "chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nTOKEN\r\n\r\n",
    "a long line": b"HTTP/1.1 200 OK\r\nX: TOKEN" + b"x" * 9000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("token", ["sk-very-secret", "s'k\"v\\e/r%y-secret"])
@pytest.mark.parametrize("where", MALFORMED.values(), ids=MALFORMED)
async def test_an_answer_that_cannot_be_read_does_not_tell_the_token(
    where: bytes, token: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What aiohttp quotes of a malformed answer is in no word, cause or context of the error, nor in the log.
    """
    monkeypatch.setattr(outage, "PATIENCE", 0.0)
    link = AiohttpTransport.over(None, limits=QUICK, token=token)
    async with raw_server(_quoting(where)) as url:
        with pytest.raises(ProtocolError) as caught:
            await api_at(link, url).post("", Outgoing(b"{}"), kind="submit")
    await link.close()
    error, seen = caught.value, list[str]()
    behind: list[BaseException | None] = [error]
    while behind:
        if (each := behind.pop()) is not None:
            seen += [str(each), repr(each), repr(vars(each)), *traceback.format_exception(each)]
            behind += each.__cause__, each.__context__
    for told in ("\n".join(seen), caplog.text):
        assert "repeats the token" in told
        for secret in (token, repr(token)[1:-1], repr(token.encode())[2:-1], "very-sec", "y-secr"):
            assert secret not in told


async def test_a_failure_that_tells_nothing_keeps_its_cause() -> None:
    """
    What aiohttp says of a malformed answer is shown, and chained, where the token is not in it.
    """
    async with raw_server(answering(b"HTTP/1.1 nonsense\r\n\r\n")) as url:
        error, _ = await error_at(url)
    assert "nonsense" in str(error)
    assert isinstance(error.__cause__, aiohttp.ClientResponseError)


@pytest.mark.parametrize(
    "told",
    [
        "sk-very-secret",
        r"sk-v\u0065ry-s\\\\x65cret",
        "sk%2Dvery%2dsecret",
        "Bearer sk-very-",
        "ry-secret'",
    ],
)
def test_the_token_is_known_in_disguise(told: str) -> None:
    """
    Escapes of JSON, of `repr` and of URLs, or half of it in another packet, hide no token.
    """
    error = OSError("fine")
    error.__context__ = ValueError("fine", [told])
    failure = translated(error, "http://x", token=TOKEN)
    assert isinstance(failure, ConnectionFailed)
    assert (None, None) == (failure.__cause__, failure.__context__)
    assert "the connection to http://x failed: the reply repeats the token" in str(failure)


async def test_a_token_in_the_escapes_of_json_is_struck_out() -> None:
    """
    However a server writes the token into its answer, it does not come out of it again.
    """
    odd = 'a/b"c\\d-secret'
    escaped = "".join(f"\\u{ord(char):04X}" for char in odd)
    told = json.dumps({"error": {"message": f"{odd} is wrong"}}).replace("/", "\\/")
    body = f'{{"detail": "{escaped}", "more": {told}}}'.encode()
    reply = b"HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    link = AiohttpTransport.over(None, limits=QUICK, token=odd)
    async with raw_server(answering(reply)) as url:
        answer = await link.send("POST", url, Outgoing(b"{}"))
    await link.close()
    said = {"detail": "[token]", "more": {"error": {"message": "[token] is wrong"}}}
    assert said == json.loads(answer.body)

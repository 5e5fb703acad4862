"""
Translates aiohttp's errors into ours, without revealing the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import aiohttp

from ..errors import ConnectionFailed, ProtocolError, TransportError, TransportTimedOut

__all__ = ["SHORTEST_REDACTED", "WITHHELD", "translated"]

SHORTEST_REDACTED: Final = 12  # characters; a shorter token may be an ordinary word, or a part of one
REVEALING: Final = 8  # consecutive characters of the token that must not be shown
WITHHELD: Final = "the reply repeats the token, so it is not shown"

_UNTRUSTED: Final = (
    "the certificate of {} is not trusted; for an authority of your own, SSL_CERT_FILE names its certificate,"
    " or http=aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) has it: {}"
)

# From special to general: the first match counts.
_KINDS: Final[Mapping[type[Exception], tuple[type[TransportError], str]]] = {
    TimeoutError: (TransportTimedOut, "no answer from {} in time: {}"),
    aiohttp.ClientConnectorCertificateError: (ConnectionFailed, _UNTRUSTED),
    aiohttp.ClientHttpProxyError: (ConnectionFailed, "the proxy made no connection to {}: {}"),
    aiohttp.ClientPayloadError: (ProtocolError, "the answer from {} is incomplete: {}"),
    aiohttp.ClientResponseError: (ProtocolError, "the answer from {} is incomplete: {}"),
    Exception: (ConnectionFailed, "the connection to {} failed: {}"),
}


def translated(error: Exception, url: str, *, token: str) -> TransportError:
    """
    Translate an error of aiohttp; the original is chained unless it reveals the token.

    aiohttp quotes an answer that it cannot read, and some servers and proxies repeat the request in it.
    """
    _drop_authorization(error)
    kind, words = next(_KINDS[each] for each in _KINDS if isinstance(error, each))
    if len(token) >= SHORTEST_REDACTED and _reveals(error, token):
        return kind(words.format(url, WITHHELD))
    failure = kind(words.format(url, str(error) or type(error).__name__))
    failure.__cause__ = error
    return failure


def _drop_authorization(error: Exception) -> None:
    """
    Remove the header with the token from aiohttp's error, which will be chained and shown.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        asked = error.request_info
        headers = asked.headers.copy()
        headers.popall("authorization", None)
        bare = aiohttp.RequestInfo(asked.url, asked.method, type(asked.headers)(headers), asked.real_url)
        error.request_info, error.args = bare, (bare, error.history)


def _reveals(error: Exception, token: str) -> bool:
    """
    Tell whether an error, its causes or its contexts contain a part of the token.
    """
    text, secret = _unquoted("\n".join(_texts(error))), _unquoted(token)
    # A part is enough: aiohttp quotes only one half of what came in two packets.
    length = min(len(secret), REVEALING)
    return any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


def _texts(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
            waiting += each.__cause__, each.__context__


def _unquoted(text: str) -> str:
    """
    Undo the escapes of `repr`, JSON and URLs, nested ones too, and drop quotes and backslashes.
    """
    text = re.sub(r"\\+(?:x|u00)([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})", _unescaped, text)
    return re.sub(r"[\\'\"]", "", text)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))

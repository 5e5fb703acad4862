"""
What aiohttp's errors are in our words, and nothing in them that tells the token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import aiohttp

from ..errors import ConnectionFailed, ProtocolError, TransportError, TransportTimedOut

__all__ = ["SHORTEST_SOUGHT", "WITHHELD", "translated"]

SHORTEST_SOUGHT: Final = 12  # characters of a token; a shorter one may be a word, or a part of one
TELLING: Final = 8  # characters of the token, in a row, that are too many to be shown
WITHHELD: Final = "what was received repeats the token, and is not shown"

# From the special to the general: the first that fits counts.
_KINDS: Final[Mapping[type[Exception], tuple[type[TransportError], str]]] = {
    TimeoutError: (TransportTimedOut, "no answer from {} in time: {}"),
    aiohttp.ClientPayloadError: (ProtocolError, "the answer from {} is not whole: {}"),
    aiohttp.ClientResponseError: (ProtocolError, "the answer from {} is not whole: {}"),
    Exception: (ConnectionFailed, "the connection to {} failed: {}"),
}


def translated(error: Exception, url: str, *, token: str) -> TransportError:
    """
    Say in our words what went wrong, with the cause chained unless that would tell the token.

    aiohttp quotes an answer that it cannot read, and some servers and proxies repeat in it what they were sent.
    """
    _forget_the_request(error)
    kind, words = next(_KINDS[each] for each in _KINDS if isinstance(error, each))
    if len(token) >= SHORTEST_SOUGHT and _tells(error, token):
        return kind(words.format(url, WITHHELD))
    failure = kind(words.format(url, str(error) or type(error).__name__))
    failure.__cause__ = error
    return failure


def _forget_the_request(error: Exception) -> None:
    """
    Take the request's headers, where the token is, out of what aiohttp raised: it will be chained, and shown.
    """
    if isinstance(error, aiohttp.ClientResponseError):
        asked = error.request_info
        headers = asked.headers.copy()
        headers.popall("authorization", None)
        bare = aiohttp.RequestInfo(asked.url, asked.method, type(asked.headers)(headers), asked.real_url)
        error.request_info, error.args = bare, (bare, error.history)


def _tells(error: Exception, token: str) -> bool:
    """
    Tell whether a part of the token stands anywhere in an error, or in those behind it.
    """
    text, secret = _bare("\n".join(_words(error))), _bare(token)
    # What came in two packets is quoted by halves.
    length = min(len(secret), TELLING)
    return any(secret[start : start + length] in text for start in range(len(secret) - length + 1))


def _words(error: BaseException) -> Iterator[str]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield from (str(each), repr(each), repr(each.args), repr(vars(each)))
            waiting += each.__cause__, each.__context__


def _bare(text: str) -> str:
    """
    Undo the escapes of `repr`, of JSON and of URLs, one inside the other too, and drop quotes and backslashes.
    """
    text = re.sub(r"\\+(?:x|u00)([0-9a-fA-F]{2})|%([0-9a-fA-F]{2})", _unescaped, text)
    return re.sub(r"[\\'\"]", "", text)


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1] or found[2], 16))

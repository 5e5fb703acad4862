"""
Removes the token from replies: some servers repeat a request that they refuse.

A reply's text gets into errors and logs, and into the raw records that callers and journals keep.
The token is removed from the strings of the parsed reply, because in the raw bytes a match could span JSON syntax.
Most replies do not contain the token; they cost only a search of their bytes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from attrs import define, field

from .._api.rules import FIELD_RULES
from .._api.wire import decode
from ..errors import ProtocolError
from .failures import SHORTEST_REDACTED, WITHHELD

__all__ = ["Secret"]

REPLACEMENT: Final = "[token]"
_ASCII: Final = re.compile(rb"\\u00([0-9a-fA-F]{2})")  # an ASCII character as a JSON escape


@define(eq=False)
class Secret:
    """
    The token to redact. A token shorter than `SHORTEST_REDACTED` is not redacted, as it may be an ordinary word.
    """

    _token: str = field(repr=False)
    _is_redacted: bool = field(init=False)
    _as_sent: bytes = field(init=False, repr=False)
    _bare: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._is_redacted = len(self._token) >= SHORTEST_REDACTED
        self._as_sent = self._token.encode()
        self._bare = self._as_sent.replace(b"\\", b"")

    def redact(self, text: str) -> str:
        """
        Return a header's text without the token.
        """
        return text.replace(self._token, REPLACEMENT) if self._is_redacted else text

    def redact_body(self, body: bytes) -> bytes:
        """
        Return a reply's JSON without the token; an unreadable body with the token is replaced as a whole.
        """
        if not (self._is_redacted and self._may_be_in(body)):
            return body
        try:
            return json.dumps(self._redact_data(decode(body))).encode()
        except ProtocolError:
            return WITHHELD.encode()

    def _may_be_in(self, body: bytes) -> bool:
        return self._as_sent in body or (b"\\" in body and self._bare in _unescaped(body))

    def _redact_data(self, data: Any) -> Any:
        match data:
            case str():
                return self.redact(data)
            case list():
                return [self._redact_data(item) for item in data]
            case dict():
                return {
                    self.redact(name): self._redact_echo(value)
                    if name == "request"
                    else self._redact_data(value)
                    for name, value in data.items()
                }
        return data

    def _redact_echo(self, echo: Any) -> Any:
        """
        Redact the echoed request, except the caller's own fields: they identify the task, and a token there is theirs.
        """
        cleaned = self._redact_data(echo)
        if not isinstance(echo, dict):
            return cleaned
        return cleaned | {name: value for name, value in echo.items() if name in FIELD_RULES}


def _unescaped(body: bytes) -> bytes:
    """
    Undo the JSON escapes that a token may contain.
    """
    return _ASCII.sub(lambda found: bytes([int(found[1], 16)]), body).replace(b"\\", b"")

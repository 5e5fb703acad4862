"""
How the token is kept out of what the server says: some servers repeat what they refuse.

What is read goes into errors, and so into logs, and into the raw records that callers and journals keep.
So the token is taken out once, from the texts of an answer that has been parsed; in the bytes it could be a part
of anything. Most answers do not hold it, and cost no more than a search of their bytes.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from attrs import define, field

from .._api.rules import FIELD_RULES
from .._api.wire import decode
from ..errors import ProtocolError
from .failures import SHORTEST_SOUGHT, WITHHELD

__all__ = ["Secret"]

STRUCK_OUT: Final = "[token]"
_ASCII: Final = re.compile(rb"\\u00([0-9a-fA-F]{2})")  # as JSON may write it


@define(eq=False)
class Secret:
    """
    The token, to be taken out of what comes back; a short one may be any word, and is left where it is.
    """

    _token: str = field(repr=False)
    _is_sought: bool = field(init=False)
    _as_sent: bytes = field(init=False, repr=False)
    _bare: bytes = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._is_sought = len(self._token) >= SHORTEST_SOUGHT
        self._as_sent = self._token.encode()
        self._bare = self._as_sent.replace(b"\\", b"")

    def out_of(self, text: str) -> str:
        """
        Return a header's text without the token.
        """
        return text.replace(self._token, STRUCK_OUT) if self._is_sought else text

    def out_of_body(self, body: bytes) -> bytes:
        """
        Return an answer's JSON without the token; what holds it and cannot be read is not shown at all.
        """
        if not (self._is_sought and self._may_be_in(body)):
            return body
        try:
            return json.dumps(self._out_of_data(decode(body))).encode()
        except ProtocolError:
            return WITHHELD.encode()

    def _may_be_in(self, body: bytes) -> bool:
        return self._as_sent in body or (b"\\" in body and self._bare in _unescaped(body))

    def _out_of_data(self, data: Any) -> Any:
        match data:
            case str():
                return self.out_of(data)
            case list():
                return [self._out_of_data(item) for item in data]
            case dict():
                return {
                    self.out_of(name): self._out_of_echo(value)
                    if name == "request"
                    else self._out_of_data(value)
                    for name, value in data.items()
                }
        return data

    def _out_of_echo(self, echo: Any) -> Any:
        """
        Leave what the caller has sent as it is: a task is known by it, and only the caller can have put a token there.
        """
        cleaned = self._out_of_data(echo)
        if not isinstance(echo, dict):
            return cleaned
        return cleaned | {name: value for name, value in echo.items() if name in FIELD_RULES}


def _unescaped(body: bytes) -> bytes:
    """
    Undo the escapes of JSON as far as a token may have them.
    """
    return _ASCII.sub(lambda found: bytes([int(found[1], 16)]), body).replace(b"\\", b"")

"""
What the core returns: bytes to send, what to do to the connection, and callbacks to deliver.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from email.utils import formatdate
from typing import Any, Final, Literal

from attrs import field, frozen

__all__ = ["Act", "Callback", "Reply", "encode", "http_date"]

Act = Literal["refuse", "drop", "reset", "stall", "cut", "slow", "oversize"]


_encoder: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def encode(body: object) -> bytes:
    """
    Encode JSON as bytes; a lone surrogate, which UTF-8 cannot encode, becomes a question mark.
    """
    return _encoder.encode(body).encode(errors="replace")


def http_date(at: float) -> str:
    """
    Return a time in Unix seconds as an HTTP date.
    """
    return formatdate(at, usegmt=True)


@frozen(kw_only=True)
class Reply:
    """
    The answer to one request.

    A transport checks in this order:

    - `later` is set: the connection stays open; call `later` at `answer_at` for the next reply.
    - `act` is set: do that to the connection.
        `refuse`: it is not made; `drop`: closed without an answer; `reset`: the same, by RST;
        `stall`: no answer, until the client leaves; `cut`: closed after half the body;
        `slow`: the answer takes `seconds`; `oversize`: white space follows the body, up to `size` bytes.
    - Otherwise: send `status`, `headers` and `body`, or `chunks` if the body is a large file.

    Attributes:
        fault: the kind of the injected fault, or None.
        callbacks_first: whether the callbacks that are due must be delivered before this answer.
    """

    status: int = 200
    headers: Mapping[str, str] = field(factory=dict)
    body: bytes = field(default=b"", repr=False)
    chunks: Iterable[bytes | memoryview] | None = field(default=None, repr=False)
    answer_at: float | None = None
    later: Callable[[], Reply] | None = None
    act: Act | None = None
    seconds: float = 0.0
    size: int = 0
    fault: str | None = None
    callbacks_first: bool = False

    @property
    def length(self) -> int:
        """
        How many bytes the body has.
        """
        return len(self.body) if self.chunks is None else int(self.headers["Content-Length"])

    def half(self) -> Iterator[bytes | memoryview]:
        """
        Yield the first half of the body.
        """
        left = self.length // 2
        for chunk in (self.body,) if self.chunks is None else self.chunks:
            yield chunk[:left]
            left -= min(left, len(chunk))
            if not left:
                return

    def json(self) -> Any:
        """
        Parse the body; for tests.
        """
        return json.loads(self.body)


@frozen(kw_only=True)
class Callback:
    """
    One POST that the server owes a client.
    """

    task_id: str
    url: str
    body: bytes = field(repr=False)
    due_at: float

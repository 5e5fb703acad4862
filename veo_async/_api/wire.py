"""
JSON and bytes: makes the body of a request, and reads the body of any reply.

The shapes of errors come from the vendor's documents [D] and its clients [C].
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import cattrs
from attrs import Attribute, fields
from cattrs.gen import make_dict_unstructure_fn, override

from ..errors import ProtocolError
from .models import SMALLEST
from .records import is_id
from .requests import REQUEST_TYPES, Request

__all__ = [
    "MAX_DEPTH",
    "code_and_message",
    "decode",
    "deeper_than",
    "encode",
    "glimpse",
    "trace_id_of",
]

MAX_DEPTH: Final = 64  # a record nests six levels deep; a reply far beyond that does not come from the API
_NESTS: Final = frozenset((dict, list))
MAX_MESSAGE: Final = 500  # characters of the server's text in an error

# --- outgoing requests ---------------------------------------------------------------------------------

# `target` has another name on the wire: `action` already means something else in our requests.
_RENAMED: Final = {"target": "action"}

_outward: Final = cattrs.Converter(unstruct_collection_overrides={tuple: list})


def _leave_out_if_unset(attribute: Attribute[Any]) -> Any:
    return override(
        rename=_RENAMED.get(attribute.name),
        omit_if_default=attribute.default is None or attribute.default is False,
    )


for _kind in REQUEST_TYPES.values():
    _overrides = {attribute.name: _leave_out_if_unset(attribute) for attribute in fields(_kind)}
    _outward.register_unstructure_hook(_kind, make_dict_unstructure_fn(_kind, _outward, **_overrides))


def encode(request: Request) -> dict[str, Any]:
    """
    Make the body of a submit: always asynchronous, with every field that was set.
    """
    body: dict[str, Any] = {"action": request.action} if request.action else {}
    body |= _outward.unstructure(request)
    if request.endpoint == Request.endpoint and body.get("resolution") == SMALLEST:
        del body["resolution"]  # seed: 720p is the default, and not an accepted value
    body["async"] = True
    return body


# --- incoming bytes ------------------------------------------------------------------------------------


def _quick_parser() -> Callable[[bytes], Any] | None:
    """
    Return msgspec's parser, if the extra `speed` is installed.
    """
    try:
        from msgspec.json import decode as parse  # noqa: PLC0415
    except ImportError:
        return None
    return parse


_quickly: Final = _quick_parser()


def decode(body: bytes, *, any_depth: bool = False) -> Any:
    """
    Read a reply's JSON.

    Args:
        any_depth: skip the check of the nesting depth; the caller checks the parts that it keeps.

    Raises:
        ProtocolError: it is empty, not UTF-8, not JSON, cut off, or nested deeper than `MAX_DEPTH`.
    """
    if not body.strip():
        raise ProtocolError("the reply is empty")
    try:
        data = _parsed(body.removeprefix(BOM_UTF8))
    except RecursionError:
        raise ProtocolError("the reply is nested too deep") from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError, or a number with thousands of digits
        raise ProtocolError(f"the reply is not JSON: {glimpse(body)}") from error
    opened = 0 if any_depth else body.count(b"{") + body.count(b"[")
    if opened > MAX_DEPTH and deeper_than(data, MAX_DEPTH):
        raise ProtocolError("the reply is nested too deep")
    return data


def _parsed(body: bytes) -> Any:
    """
    Parse JSON, with msgspec if it is there; whatever that refuses, such as NaN, is left to `json`: both read alike.
    """
    if _quickly is not None:
        with suppress(Exception):
            return _quickly(body)
    return json.loads(body.decode())


def deeper_than(data: object, levels: int) -> bool:
    """
    Tell whether data read from JSON nests deeper than `levels`.
    """
    # A hot path: it makes no calls, and compares types, since JSON nests only dicts and lists.
    layer: list[Any] = [data] if type(data) in _NESTS else []
    while layer and levels:
        layer = [
            child
            for node in layer
            for child in (node.values() if type(node) is dict else node)
            if type(child) in _NESTS
        ]
        levels -= 1
    return bool(layer)


def glimpse(body: bytes) -> str:
    """
    Describe a body in one line: the title of an HTML page, or the first 100 characters.
    """
    text = body[:2000].decode("utf-8", "replace")
    if title := re.search(r"<title[^>]*>([^<]{1,200})", text, re.IGNORECASE):
        return f"a page titled {' '.join(title[1].split())!r}"
    return repr(" ".join(text.split())[:100])


# --- shared by records and errors ----------------------------------------------------------------------


def trace_id_of(holder: Mapping[str, Any]) -> str | None:
    """
    Read the trace id, which the vendor's support asks for; None if there is no usable one.
    """
    value = holder.get("trace_id")
    return value if is_id(value) else None


def code_and_message(data: object) -> tuple[str | None, str]:
    """
    Find the code and the message in an error body of any known shape: `error` as an object [D], a string,
    a list or null, `detail`, or plain text [C].
    """
    if not isinstance(data, dict):
        return None, _flat(data)
    error = data.get("error")
    if isinstance(error, dict):
        code = error.get("code")
        return (code if is_id(code) else None), _flat(error.get("message") or error.get("detail"))
    return None, _flat(error or data.get("detail") or data.get("message"))


def _flat(value: object) -> str:
    """
    Turn any value in place of a message into one line of at most `MAX_MESSAGE` characters.
    """
    if isinstance(value, list):
        return "; ".join(filter(None, map(_flat, value[:5])))[:MAX_MESSAGE]
    if isinstance(value, dict):
        return _flat(value.get("message") or value.get("msg") or json.dumps(value)[:MAX_MESSAGE])
    text = "" if value is None else str(value)
    return " ".join(text.encode("utf-8", "replace").decode()[: 2 * MAX_MESSAGE].split())[:MAX_MESSAGE]

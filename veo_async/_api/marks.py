"""
Marks: each submit carries one in its callback URL, and the task's record returns it.

A task's record echoes the submitted body unchanged, `callback_url` included [D].
The callback URL is the only value of our own that the server returns. The mark in it replaces the idempotency
key that the API lacks: any process can derive it from the job's key.

Whoever can guess a key can derive its mark: the hash does not protect a guessable key.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import unescape
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["Mark", "label", "mark_of", "marked_url", "marks_in", "marks_of", "unescaped", "url_in"]

_NAME: Final = "veo_async"
_LABEL: Final = re.compile(rf"{_NAME}=([A-Za-z0-9_-]{{22}})\.([0-9]{{1,9}})(?![0-9])")
_MAX_ESCAPE_LAYERS: Final = 3  # layers of escaping that others may have applied to a URL


class Mark(NamedTuple):
    """
    The mark of one submit.

    Attributes:
        name: 22 characters derived from the job's key; no other key gives the same.
        number: the number of the attempt with this key, from 1.
    """

    name: str
    number: int


def mark_of(key: str) -> str:
    """
    Derive the name that the marks of all attempts with a key share.
    """
    digest = sha256(f"{_NAME}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def label(key: str, number: int) -> str:
    """
    Return the mark of one attempt, as text for a URL.
    """
    return f"{_NAME}={mark_of(key)}.{number}"


def marked_url(text: str, *, own: str | None, placeholder: str | None) -> str | None:
    """
    Put a label into a callback URL; None if the submit can carry no label.

    Args:
        own: the request's own callback URL; the label goes into its fragment, which no HTTP client sends.
            If it was copied from a task's record, the label replaces that task's label.
        placeholder: the callback URL for a request without one; the label goes into its query.
    """
    if own is not None and _LABEL.search(own):
        return _LABEL.sub(text, own)
    if own is not None:
        return None if "#" in own else f"{own}#{text}"
    if placeholder is None:
        return None
    return f"{placeholder}{'&' if urlsplit(placeholder).query else '?'}{text}"


def marks_in(record: Mapping[str, Any]) -> list[Mark]:
    """
    Find the marks in the callback URL of a task's record, anywhere in it and under any escaping.
    """
    return marks_of(url_in(record))


def url_in(record: Mapping[str, Any]) -> str:
    """
    Read the callback URL from a task's record; empty if it has none.
    """
    request = record.get("request")
    url = request.get("callback_url") if isinstance(request, Mapping) else None
    return url if isinstance(url, str) else ""


def marks_of(url: str) -> list[Mark]:
    """
    Find the marks in a callback URL, or in a part of one.
    """
    for _ in range(_MAX_ESCAPE_LAYERS):
        if found := _LABEL.findall(url):
            return [Mark(name, int(number)) for name, number in found]
        url = unescaped(url)
    return []


def unescaped(url: str) -> str:
    """
    Undo one layer of escaping that others have applied to a URL.
    """
    return unescape(unquote(url))

"""
Marks: the name of its own that every submit carries, and that comes back with its task.

A task's record shows the submitted body, `callback_url` included [D], as it was sent.
So a callback URL is the one thing of ours that the server gives back, and the mark in it is what the API
lacks: an idempotency key that any process can work out from the job's key.

Whoever can guess a key can work out its mark: the hash hides nothing that can be guessed.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from html import unescape
from typing import Any, Final, NamedTuple
from urllib.parse import unquote, urlsplit

__all__ = ["Mark", "label", "mark_of", "marked_url", "marks_in", "marks_of", "plainly", "url_in"]

_NAME: Final = "veo_async"
_LABEL: Final = re.compile(rf"{_NAME}=([A-Za-z0-9_-]{{22}})\.([0-9]{{1,9}})(?![0-9])")
_MOST_LAYERS: Final = 3  # of escapes that others have put around a URL


class Mark(NamedTuple):
    """
    What one submit carries.

    Attributes:
        name: 22 letters that the job's key gives, and no other key.
        number: which attempt of that key it is, counted from 1.
    """

    name: str
    number: int


def mark_of(key: str) -> str:
    """
    Work out the name that all attempts of a key carry.
    """
    digest = sha256(f"{_NAME}\0{key}".encode("utf-8", "surrogatepass")).digest()
    return urlsafe_b64encode(digest[:16]).decode().rstrip("=")


def label(key: str, number: int) -> str:
    """
    Write the mark of one attempt as it stands in a URL.
    """
    return f"{_NAME}={mark_of(key)}.{number}"


def marked_url(text: str, *, own: str | None, placeholder: str | None) -> str | None:
    """
    Put a label into a callback URL; None where the submit can carry none.

    Args:
        own: the request's own callback URL; the label goes into its fragment, which no HTTP client sends.
            Where it was copied from a task's record, the label takes the place of that task's.
        placeholder: the callback URL for a request that has none; the label goes into its query.
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
    Find the marks that a task's record shows, wherever in its callback URL they are, and however that is escaped.
    """
    return marks_of(url_in(record))


def url_in(record: Mapping[str, Any]) -> str:
    """
    Read the callback URL that a task's record shows; empty where it shows none.
    """
    request = record.get("request")
    url = request.get("callback_url") if isinstance(request, Mapping) else None
    return url if isinstance(url, str) else ""


def marks_of(url: str) -> list[Mark]:
    """
    Find the marks in a callback URL, or in a part of one.
    """
    for _ in range(_MOST_LAYERS):
        if found := _LABEL.findall(url):
            return [Mark(name, int(number)) for name, number in found]
        url = plainly(url)
    return []


def plainly(url: str) -> str:
    """
    Undo a layer of escapes that others have put around a URL.
    """
    return unescape(unquote(url))

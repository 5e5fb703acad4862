"""
What the platform's answers say. No shape of them is documented [C], so every field may be absent.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .._api.rules import is_web_address

__all__ = ["address_of", "records_of"]


def address_of(answer: object) -> str | None:
    """
    Find the public address of an uploaded file: `file_url` (web app, SDK), or `url`; None if there is none.
    """
    for holder in records_of(answer):
        for name in ("file_url", "url"):
            value = holder.get(name)
            if isinstance(value, str) and is_web_address(value):
                return value
    return None


def records_of(answer: object) -> Iterator[dict[str, Any]]:
    """
    Yield the records of an answer: a list, a page with the list in `items`, `results` or `data`, or one record.
    """
    if isinstance(answer, list):
        yield from (one for one in answer if isinstance(one, dict))
    elif isinstance(answer, dict):
        pages = [page for name in ("items", "results", "data") if (page := answer.get(name)) is not None]
        if pages and isinstance(pages[0], list | dict):
            yield from records_of(pages[0])
        else:
            yield answer

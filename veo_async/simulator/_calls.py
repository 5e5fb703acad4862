"""
Reads requests, and checks their form only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

from ._accounts import Account
from ._rules import FIELDS, Refusal

__all__ = ["Call", "bearer", "kind_of", "list_of", "number", "paging", "read_object"]

PAGE: Final = 12  # the default of `limit`; seen in the vendor's clients


@frozen
class Call:
    """
    One well-formed, authorised request.

    Attributes:
        kind: `submit`, `retrieve`, `retrieve_batch` or `list`.
        now: when it came, in Unix seconds.
    """

    kind: str
    path: str
    token: str
    account: Account
    body: dict[str, Any]
    now: float


def bearer(headers: Mapping[str, str]) -> str:
    """
    Return the token of a request.
    """
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Refusal("no_token", "The token is missing.")
    return token.strip()


def read_object(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """
    Return the JSON object of a request.
    """
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("bad_request", "The content type must be application/json.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("bad_request", "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refusal("bad_request", "The body must be a JSON object.")
    return value


def kind_of(path: str, body: Mapping[str, Any]) -> str:
    """
    Return the kind of a request.
    """
    if path in FIELDS:
        return "submit"
    action = body.get("action") or "retrieve"  # the default in practice
    if action not in ("retrieve", "retrieve_batch"):
        raise Refusal("bad_request", f"action is not supported: {action}")
    if action == "retrieve":
        return "retrieve"
    return "retrieve_batch" if body.get("ids") or body.get("trace_ids") else "list"


def list_of(body: Mapping[str, Any], name: str) -> list[str]:
    """
    Return a list of ids.
    """
    value = body.get(name) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal("bad_request", f"{name} is invalid")
    return value


def number(body: Mapping[str, Any], name: str, default: float) -> float:
    """
    Return a number.
    """
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("bad_request", f"{name} is invalid")
    return value


def paging(body: Mapping[str, Any]) -> tuple[int, int]:
    """
    Return the offset and the limit.
    """
    offset, limit = number(body, "offset", 0), number(body, "limit", PAGE)
    if offset < 0 or limit < 0 or offset % 1 or limit % 1:
        raise Refusal("bad_request", "offset and limit must be whole numbers, not negative")
    return int(offset), int(limit)

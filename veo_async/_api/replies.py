"""
What an answer means: an error body becomes an exception, and the answer to a submit one of four outcomes.

The table of error codes is documented [D]; the shapes without a code were seen in the vendor's clients [C].
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Final

from attrs import field, frozen

from ..errors import (
    ApiError,
    AuthenticationError,
    BadRequest,
    InsufficientBalance,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
    VeoError,
)
from .records import is_id, is_task_id
from .wire import code_and_message, decode, glimpse, trace_id_of

__all__ = [
    "Accepted",
    "NotSent",
    "Refused",
    "SubmitOutcome",
    "Unknown",
    "error_from",
    "is_dead_token",
    "read_answer",
    "read_submit",
    "retry_after",
    "server_time",
]

# --- errors --------------------------------------------------------------------------------------------

_CLASS_BY_CODE: Final[Mapping[str, type[ApiError]]] = {  # [D] the table of error codes
    "token_mismatched": AuthenticationError,
    "no_token": AuthenticationError,
    "invalid_token": AuthenticationError,
    "token_expired": AuthenticationError,
    "disabled": PermissionDenied,
    "forbidden": PermissionDenied,
    "used_up": InsufficientBalance,
    "bad_request": BadRequest,
    "no_api": BadRequest,
    "api_not_implemented": BadRequest,
    "too_many_requests": RateLimited,
    "api_error": ServerError,
    "timeout": ServerError,
}
_CLASS_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    401: AuthenticationError,
    402: InsufficientBalance,
    403: PermissionDenied,
    408: ServerError,
    425: ServerError,
    429: RateLimited,
    499: ServerError,
}


def error_from(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """
    Make the exception for an error answer. Its class depends on the code, or without a known one on the HTTP status.

    Args:
        headers: with lower-case names.
    """
    try:
        data = decode(body)
    except ProtocolError:
        data = None
    code, message = code_and_message(data) if data is not None else (None, _plain_message(body))
    trace_id = (trace_id_of(data) if isinstance(data, dict) else None) or _header_trace_id(headers)
    kind = _CLASS_BY_CODE.get(code or "") or _class_by_status(status)
    error = kind(message or _phrase(status), status=status, code=code, trace_id=trace_id)
    if isinstance(error, RateLimited | ServerError):
        error.retry_after = retry_after(headers)
    return error


def read_answer(status: int, headers: Mapping[str, str], body: bytes, *, any_depth: bool = False) -> Any:
    """
    Read the answer to a query; an error may come with HTTP 200 [C].

    Args:
        any_depth: skip the check of the nesting depth; the caller checks the parts that it keeps.

    Raises:
        ApiError: the server answered with an error.
        ProtocolError: the answer does not come from the API.
    """
    if not 200 <= status < 300:
        raise error_from(status, headers, body)
    data = decode(body, any_depth=any_depth)
    if isinstance(data, dict) and "id" not in data and (data.get("success") is False or data.get("error")):
        raise error_from(status, headers, body)
    return data


def is_dead_token(error: VeoError) -> bool:
    """
    Tell whether the error of a free query means that the token no longer works.
    """
    kinds = (AuthenticationError, PermissionDenied)
    return isinstance(error, kinds) and not isinstance(error, InsufficientBalance)


def _header_trace_id(headers: Mapping[str, str]) -> str | None:
    value = headers.get("x-trace-id")
    return value if is_id(value) else None


def _class_by_status(status: int) -> type[ApiError]:
    by_hundred = {4: BadRequest, 5: ServerError}
    return _CLASS_BY_STATUS.get(status) or by_hundred.get(status // 100, ApiError)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "no message"


def _plain_message(body: bytes) -> str:
    return glimpse(body) if body.strip() else ""


# --- headers -------------------------------------------------------------------------------------------


def retry_after(headers: Mapping[str, str]) -> float | None:
    """
    Read `Retry-After` in seconds: a number, or an HTTP date relative to the reply's own `Date`.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,99}(\.\d{1,99})?", text):
        return float(text)
    wanted, sent = _http_date(text), server_time(headers)
    return max(0.0, wanted - sent) if wanted is not None and sent is not None else None


def server_time(headers: Mapping[str, str]) -> float | None:
    """
    Read the server's clock, in Unix seconds, from a reply's `Date`.
    """
    return _http_date(headers.get("date", ""))


@lru_cache(maxsize=16)  # many replies a second share one `Date`
def _http_date(text: str) -> float | None:
    try:
        moment = parsedate_to_datetime(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None


# --- what a submit's answer means ----------------------------------------------------------------------


@frozen(kw_only=True)
class Accepted:
    """
    The server has accepted the task. If the answer carried `data`, the task has also finished.
    """

    task_id: str
    trace_id: str | None = None
    record: Mapping[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Refused:
    """
    The server has refused the submit: nothing was bought.
    """

    error: ApiError


@frozen(kw_only=True)
class NotSent:
    """
    The server has not processed the submit: it may be sent again.
    """

    error: Exception


@frozen(kw_only=True)
class Unknown:
    """
    The server may or may not have accepted the submit.
    """

    error: Exception
    trace_id: str | None = None


SubmitOutcome = Accepted | Refused | NotSent | Unknown

_REFUSED_CODES: Final = frozenset(
    (
        "token_mismatched",
        "api_not_implemented",
        "bad_request",
        "no_token",
        "disabled",
        "invalid_token",
        "token_expired",
        "used_up",
        "forbidden",
        "no_api",
    )
)
_UNKNOWN_CODES: Final = frozenset({"api_error", "timeout"})
_UNKNOWN_STATUSES: Final = frozenset({408, 425, 499})


def read_submit(status: int, headers: Mapping[str, str], body: bytes) -> SubmitOutcome:
    """
    Classify the answer to a submit as one of the four outcomes.

    Args:
        headers: with lower-case names.
    """
    try:
        data = decode(body)
    except ProtocolError as error:
        return _unread(status, headers, body, error)
    task_id = data.get("task_id") if isinstance(data, dict) else None
    if is_task_id(task_id):
        trace_id = trace_id_of(data) or _header_trace_id(headers)
        record = {"id": task_id, "trace_id": trace_id, "response": data}
        return Accepted(task_id=task_id, trace_id=trace_id, record=record)
    return _judge(error_from(status, headers, body), status)


def _unread(status: int, headers: Mapping[str, str], body: bytes, error: ProtocolError) -> SubmitOutcome:
    if 200 <= status < 300:
        return Unknown(error=error, trace_id=_header_trace_id(headers))
    return _judge(error_from(status, headers, body), status)


def _judge(error: ApiError, status: int) -> SubmitOutcome:
    # The order matters: first certain refusals, then submits that were certainly not processed, then doubt.
    if error.code in _REFUSED_CODES:
        return Refused(error=error)
    if error.code == "too_many_requests" or status == 429:
        return NotSent(error=error)
    doubtful = error.code in _UNKNOWN_CODES or status in _UNKNOWN_STATUSES
    if doubtful or not 400 <= status < 500:
        return Unknown(error=error, trace_id=error.trace_id)
    return Refused(error=error)

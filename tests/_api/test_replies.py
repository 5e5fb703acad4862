"""
What an answer means: the table of errors, and the four outcomes of a submit.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from veo_async import (
    ApiError,
    AuthenticationError,
    BadRequest,
    InsufficientBalance,
    PermissionDenied,
    ProtocolError,
    RateLimited,
    ServerError,
)
from veo_async._api.replies import (
    Accepted,
    NotSent,
    Refused,
    Unknown,
    error_from,
    read_answer,
    read_submit,
    retry_after,
    server_time,
)

SAMPLES = Path(__file__).parent.parent / "samples"
DATE = "Sat, 21 Nov 2026 03:00:00 GMT"
LATER = "Sat, 21 Nov 2026 03:00:07 GMT"


def body_of(name: str) -> bytes:
    return (SAMPLES / f"{name}.json").read_bytes()


def with_code(code: str) -> bytes:
    """
    The documented error body with another code.
    """
    body = json.loads(body_of("error_invalid_token"))
    body["error"]["code"] = code
    return json.dumps(body).encode()


# The documented table: the code, the statuses it comes with, what it is, and what it means for a submit.
CODES: list[tuple[str, tuple[int, ...], type[ApiError], type[Any]]] = [
    ("token_mismatched", (400, 401), AuthenticationError, Refused),
    ("api_not_implemented", (400,), BadRequest, Refused),
    ("bad_request", (400,), BadRequest, Refused),
    ("no_token", (400,), AuthenticationError, Refused),
    ("disabled", (400, 403), PermissionDenied, Refused),
    ("invalid_token", (401,), AuthenticationError, Refused),
    ("token_expired", (401,), AuthenticationError, Refused),
    ("used_up", (403,), InsufficientBalance, Refused),
    ("forbidden", (403,), PermissionDenied, Refused),
    ("no_api", (404,), BadRequest, Refused),
    ("too_many_requests", (429,), RateLimited, NotSent),
    ("api_error", (500,), ServerError, Unknown),
    ("timeout", (504,), ServerError, Unknown),
]
ROWS = [
    (code, status, error, outcome)
    for code, statuses, error, outcome in CODES
    for status in (*statuses, 200, 502)
]


@pytest.mark.parametrize(("code", "status", "kind", "outcome"), ROWS)
def test_the_code_decides_whatever_the_status(
    code: str, status: int, kind: type[ApiError], outcome: type[Any]
) -> None:
    """
    Each documented code becomes its error and its outcome, behind its own status, a 200 and a gateway's 502.
    """
    error = error_from(status, {}, with_code(code))
    assert kind is type(error)
    assert (status, code, "The specified token is invalid or wrong.") == (
        error.status,
        error.code,
        error.message,
    )
    assert "2efa9340-7a05-4f1c-9c5a-6f8a3c2b1d0e" == error.trace_id
    assert outcome is type(read_submit(status, {}, with_code(code)))


STATUSES: list[tuple[int, type[ApiError], type[Any]]] = [
    (302, ApiError, Unknown),
    (307, ApiError, Unknown),
    (400, BadRequest, Refused),
    (401, AuthenticationError, Refused),
    (402, InsufficientBalance, Refused),
    (403, PermissionDenied, Refused),
    (404, BadRequest, Refused),
    (408, ServerError, Unknown),
    (413, BadRequest, Refused),
    (422, BadRequest, Refused),
    (425, ServerError, Unknown),
    (429, RateLimited, NotSent),
    (499, ServerError, Unknown),
    (500, ServerError, Unknown),
    (502, ServerError, Unknown),
    (503, ServerError, Unknown),
    (504, ServerError, Unknown),
    (599, ServerError, Unknown),
]
BODIES = [
    b"",
    b"<html><title>Oops</title></html>",
    b"null",
    b'{"error": "oops"}',
    b'{"detail": "oops"}',
    b'"oops"',
]


@pytest.mark.parametrize(("status", "kind", "outcome"), STATUSES)
@pytest.mark.parametrize("body", BODIES)
def test_the_status_decides_where_there_is_no_code(
    status: int, kind: type[ApiError], outcome: type[Any], body: bytes
) -> None:
    """
    Empty bodies, a gateway's pages and errors without a code go by their status.
    """
    error = error_from(status, {}, body)
    assert kind is type(error)
    assert error.code is None
    assert error.message
    assert outcome is type(read_submit(status, {}, body))


def test_a_code_that_nobody_knows_goes_by_the_status() -> None:
    """
    A new code does not hide what the status says, and is told.
    """
    error = error_from(403, {}, with_code("new_rule"))
    assert PermissionDenied is type(error)
    assert "new_rule" == error.code
    assert Refused is type(read_submit(403, {}, with_code("new_rule")))


def test_an_error_without_words_says_its_status() -> None:
    """
    Where the server says nothing, the status's own phrase stands in; an unknown status has none.
    """
    assert "Bad Gateway" == error_from(502, {}, b"").message
    assert "no message" == error_from(599, {}, b"").message


def test_the_trace_id_may_stand_in_a_header() -> None:
    """
    `x-trace-id` serves where the body has none.
    """
    assert "t-1" == error_from(500, {"x-trace-id": "t-1"}, b"").trace_id
    assert "t-1" == error_from(500, {"x-trace-id": "t-1"}, b'{"error": {"code": "api_error"}}').trace_id


# --- submits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "submit_async",
        "submit_sync",
        "submit_get1080p",
        "submit_image2video",
        "submit_iso_times",
        "callback_failed",
    ],
)
@pytest.mark.parametrize("status", [200, 400, 429, 500])
def test_a_task_id_means_accepted_whatever_the_status(name: str, status: int) -> None:
    """
    Any readable answer with a task id is an accepted task, with its record.
    """
    body = json.loads(body_of(name))
    outcome = read_submit(status, {}, body_of(name))
    assert isinstance(outcome, Accepted)
    assert body["task_id"] == outcome.task_id
    assert body.get("trace_id") == outcome.trace_id
    assert body == outcome.record["response"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'{"success": true}',
        b'{"task_id": 7}',
        b'{"task_id": ""}',
        b'{"task_id": "../../x"}',
        b'{"task_id": "two words"}',
        b'{"success": false}',
        b"<html>",
    ],
)
def test_an_unfamiliar_success_is_unknown(body: bytes) -> None:
    """
    A 2xx that does not name a task may have accepted one all the same; its trace id is kept.
    """
    outcome = read_submit(200, {"x-trace-id": "t-1"}, body)
    assert isinstance(outcome, Unknown)
    assert "t-1" == outcome.trace_id


# --- questions -------------------------------------------------------------------------------------------


def test_an_answer_is_its_data() -> None:
    """
    A 2xx with JSON that is no error is handed on.
    """
    assert json.loads(body_of("task_batch")) == read_answer(200, {}, body_of("task_batch"))
    assert json.loads(body_of("task_failed_inferred")) == read_answer(
        200, {}, body_of("task_failed_inferred")
    )
    assert {} == read_answer(200, {}, b"{}")
    assert read_answer(200, {}, b"null") is None


def test_an_error_may_hide_behind_200() -> None:
    """
    `success: false`, or an error where a record should be, is raised whatever the status.
    """
    with pytest.raises(ServerError, match="fetch failed"):
        read_answer(200, {}, body_of("error_api_error"))
    with pytest.raises(AuthenticationError):
        read_answer(200, {}, body_of("error_invalid_token"))
    with pytest.raises(ServerError):
        read_answer(503, {}, b"<html>")
    with pytest.raises(ProtocolError):
        read_answer(200, {}, b"<html>")


# --- headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.5 "}, 0.5),
        ({"retry-after": "9999999999"}, 9999999999.0),
        ({"retry-after": "-7"}, None),
        ({"retry-after": "1e9"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": LATER, "date": DATE}, 7.0),
        ({"retry-after": DATE, "date": LATER}, 0.0),
        ({"retry-after": LATER}, None),
        ({"retry-after": LATER, "date": "today"}, None),
        ({"retry-after": "Sat, 21 Nov 2026 03:00:07", "date": DATE}, 7.0),
        ({"retry-after": "Sat, 99 Nov 99999 03:00:07 GMT", "date": DATE}, None),
    ],
)
def test_retry_after_is_read_in_both_forms(headers: dict[str, str], seconds: float | None) -> None:
    """
    Seconds, or a date against the reply's own; anything else is as if nothing was asked.
    """
    assert seconds == retry_after(headers)


@pytest.mark.parametrize("status", [429, 503])
def test_errors_carry_what_the_server_asks_to_wait(status: int) -> None:
    """
    A 429 and a 503 tell their `Retry-After`.
    """
    error = error_from(status, {"retry-after": "3"}, b"")
    assert isinstance(error, RateLimited | ServerError)
    assert 3.0 == error.retry_after


def test_the_servers_clock_is_read() -> None:
    """
    `Date` gives Unix seconds.
    """
    assert 1795230000.0 == server_time({"date": DATE})
    assert server_time({}) is None

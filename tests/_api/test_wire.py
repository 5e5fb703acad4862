"""
JSON and bytes: the bodies of requests, and what can be read of any body that comes back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async import ProtocolError
from veo_async._api.requests import Request, TextToVideo
from veo_async._api.wire import MAX_DEPTH, code_and_message, decode, encode

from .bodies import KINDS, REQUESTS, SAMPLES, sample

# --- bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_documented_bodies_are_read(path: Path) -> None:
    """
    Every documented body is JSON that is read as it stands.
    """
    assert json.loads(path.read_text()) == decode(path.read_bytes())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html><head><TITLE>502 Bad\nGateway</TITLE></head></html>", "'502 Bad Gateway'"),
        (b"oops", "'oops'"),
        (b'{"task_id": "1', "not JSON"),
        (b'\xff\xfe{"a": 1}', "not JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested too deep"),
    ],
)
def test_what_is_not_the_apis_json_is_a_protocol_error(body: bytes, words: str) -> None:
    """
    Empty, cut-off, wrongly encoded, foreign and deep bodies are refused with words that show what came.
    """
    with pytest.raises(ProtocolError, match=words):
        decode(body)


def test_what_nests_as_deep_as_allowed_is_read() -> None:
    """
    The bound on depth lets through what just keeps it, and a byte order mark does no harm.
    """
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.loads(body) == decode(b"\xef\xbb\xbf" + body)


@given(
    st.recursive(st.none() | st.booleans() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t))
)
def test_any_json_is_read_as_it_is(data: object) -> None:
    """
    Whatever a server may write comes out as the same data.
    """
    assert data == decode(json.dumps(data).encode())


# --- requests --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("request_", "body"), REQUESTS, ids=KINDS)
def test_a_request_becomes_its_documented_body(request_: Request, body: dict[str, Any]) -> None:
    """
    What was set is sent, always asynchronously, and nothing else.
    """
    assert {**body, "async": True} == encode(request_)


def test_the_smallest_resolution_is_said_by_saying_nothing() -> None:
    """
    `/veo/videos` lists no `720p`: it is what leaving the field out gives.
    """
    assert "resolution" not in encode(TextToVideo("a", resolution="720p"))


# --- the words of an error -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (sample("error_api_error"), "api_error", "fetch failed"),
        (sample("error_invalid_token"), "invalid_token", "The specified token is invalid or wrong."),
        ({"error": "out\nof order"}, None, "out of order"),
        ({"error": ["a", {"msg": "b"}, None]}, None, "a; b"),
        ({"error": None, "detail": "no"}, None, "no"),
        ({"error": None}, None, ""),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, None, "field required"),
        ({"detail": {"why": 1}}, None, '{"why": 1}'),
        ({"message": "no"}, None, "no"),
        ({"error": {"code": 7, "detail": "no"}}, None, "no"),
        ({"error": {"code": "", "message": "no"}}, None, "no"),
        ("plain", None, "plain"),
        (None, None, ""),
        ({"error": "x" * 10_000}, None, "x" * 500),
        ({"error": "\ud800"}, None, "?"),
    ],
)
def test_error_bodies_of_every_shape_give_code_and_message(
    body: object, code: str | None, message: str
) -> None:
    """
    Objects, strings, lists, null, `detail` and plain text are understood, on one line of bounded length.
    """
    assert (code, message) == code_and_message(body)

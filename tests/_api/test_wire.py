"""
JSON and bytes: the bodies of requests, and what can be read of any body that comes back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async import ProtocolError
from veo_async._api import wire
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


HOSTILE = [
    b'"\\ud800"', b'["\\udc00\\ud800"]', b'"\\ud83d\\ude00"', b"18446744073709551616", b"-9223372036854775809",
    b"-0", b"-0.0", b"1e5", b"1E400", b"-1e400", b"5e-324", b"2e-324", b"1.7976931348623159e308", b"0.1",
    b'{"a": 1, "a": 2}', b"NaN", b"-Infinity", b'"\x01"', b'"\x7f"', b"\xff", b"[1,]", b" [1] ", b"\x0b[1]", b"01",
    b"1.", b".5", b"+1", b'"\\u0000"', b'"\\x"', b"[" * 2000 + b"]" * 2000, b"1" * 5000, b"9007199254740993.0",
    b"nul", b"[1] x", b"[1]\x00", b'"\xed\xa0\x80"', b"\xef\xbb\xbf[1]", b"\xef\xbb\xbf\xef\xbb\xbf1",
]  # fmt: skip


def read_by(parser: Any, body: bytes) -> str:
    """
    What a body is read as, or how it is refused.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_quickly", parser)
        try:
            return repr(decode(body))
        except ProtocolError as error:
            return str(error)


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: repr(body[:20]))
def test_a_hostile_body_is_read_alike_by_both_parsers(body: bytes) -> None:
    """
    Whether msgspec is installed makes no difference but for speed.
    """
    assert read_by(None, body) == read_by(msgspec.json.decode, body)


def test_the_quick_parser_may_be_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It is used if it is installed.
    """
    assert wire._quick_parser() is msgspec.json.decode
    monkeypatch.setitem(sys.modules, "msgspec.json", None)
    assert wire._quick_parser() is None


ANY = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda t: st.lists(t) | st.dictionaries(st.text(), t),
)


@given(ANY, st.booleans(), st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=2))
def test_any_body_is_read_alike_by_both_parsers(
    data: object, is_ascii: bool, changes: list[tuple[int, int]]
) -> None:
    """
    So it is with any JSON, spelled either way, and with bytes changed at random.
    """
    body = bytearray(json.dumps(data, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass"))
    for place, byte in changes:
        body[place % len(body)] = byte
    assert read_by(None, bytes(body)) == read_by(msgspec.json.decode, bytes(body))


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

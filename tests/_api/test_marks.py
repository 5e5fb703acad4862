"""
Marks: made from keys, put into callback URLs, and found again in records.
"""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async._api.marks import Mark, label, mark_of, marked_url, marks_in

KEY = "order 66"
TEXT = label(KEY, 3)
OWN = Mark(mark_of(KEY), 3)
PLACEHOLDER = "https://api.acedata.cloud/health"


def record(url: object) -> dict[str, Any]:
    return {"id": "t", "request": {"callback_url": url}}


def test_a_mark_is_the_documented_hash_of_its_key() -> None:
    """
    22 letters of base64url, of the first 16 bytes of SHA-256 over the package's name, a NUL and the key.
    """
    digest = hashlib.sha256(b"veo_async\0order 66").digest()[:16]
    assert base64.urlsafe_b64encode(digest) == mark_of(KEY).encode() + b"=="
    assert 22 == len(mark_of("\ud800"))
    assert f"veo_async={mark_of(KEY)}.3" == TEXT


@pytest.mark.parametrize(
    ("own", "placeholder", "url"),
    [
        (None, PLACEHOLDER, f"{PLACEHOLDER}?{TEXT}"),
        (None, f"{PLACEHOLDER}?a=b", f"{PLACEHOLDER}?a=b&{TEXT}"),
        ("https://example.com/hook?a=b", PLACEHOLDER, f"https://example.com/hook?a=b#{TEXT}"),
        ("https://example.com/hook#part", PLACEHOLDER, None),
        (None, None, None),
        ("https://example.com/hook", None, f"https://example.com/hook#{TEXT}"),
    ],
)
def test_a_mark_travels_where_it_harms_nobody(
    own: str | None, placeholder: str | None, url: str | None
) -> None:
    """
    In the fragment of a URL of one's own, else in the query of the placeholder; a fragment in use is left alone.
    """
    assert url == marked_url(TEXT, own=own, placeholder=placeholder)
    assert ([OWN] if url else []) == marks_in(record(url))


@pytest.mark.parametrize(
    "form", [f"{PLACEHOLDER}?a=b&%s", f"{PLACEHOLDER}?%s&a=b", "https://x.org/%s", "https://x.org#%s"]
)
def test_a_url_that_was_copied_from_a_record_loses_the_mark_of_its_task(form: str) -> None:
    """
    Whoever sends a request again that a record shows must not pass its task off as one of the earlier key.
    """
    copied = form % label("order 65", 12)
    assert form % TEXT == marked_url(TEXT, own=copied, placeholder=PLACEHOLDER)


@pytest.mark.parametrize(
    "url",
    [
        quote(f"{PLACEHOLDER}?{TEXT}"),
        quote(quote(f"{PLACEHOLDER}?{TEXT}", safe=""), safe=""),
        escape(f"{PLACEHOLDER}?a=b&{TEXT}"),
        quote(escape(f"{PLACEHOLDER}?a=b&{TEXT}&c=d"), safe=""),
        f"HTTPS://API.ACEDATA.CLOUD/health?{TEXT}&utm_source=x#top",
        f"https://example.com/hook/secret/{TEXT}",
        f"https://example.com/hook/secret/{TEXT}/",
    ],
)
def test_a_mark_is_found_whatever_the_url_went_through(url: str) -> None:
    """
    Escaped once or twice, with parameters before and behind, in a path: it is the same mark.
    """
    assert [OWN] == marks_in(record(url))


@pytest.mark.parametrize(
    "url",
    [
        PLACEHOLDER,
        f"{PLACEHOLDER}?veo_async=",
        f"{PLACEHOLDER}?veo_async={mark_of(KEY)}",
        f"{PLACEHOLDER}?veo_async={mark_of(KEY)[:21]}.1",
        f"{PLACEHOLDER}?{mark_of(KEY)}.1",
        f"{PLACEHOLDER}?{TEXT}{'0' * 12}",
    ],
)
def test_what_is_no_mark_is_not_taken_for_one(url: str) -> None:
    """
    A stranger's callback URL, and one that is cut off, have none.
    """
    assert [] == marks_in(record(url))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["request", "callback_url"]), inner),
    )
)
def test_no_record_is_too_odd(said: Any) -> None:
    """
    Whatever stands where a URL should, there is no mark in it, and no error.
    """
    assert [] == marks_in({"request": said})
    assert [] == marks_in(record(said))

"""
The gallery: everything that comes from elsewhere is text in it, and nothing else.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async.cli.display.gallery import Entry, Note, page

HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!-- --> ]]> &amp; &lt;",
    "</style></title></textarea>",
    "\x00\x1b[31m\x85\ud800",
    "javascript:alert(1)",
]
# Elements that the page itself is made of; a card of a hostile entry may hold no other.
KNOWN = re.compile(
    "html|head|meta|title|style|body|header|h1|p|div|input|button|b|main|article|video|img|ul|li|details|summary"
    "|dl|dt|dd|a|footer|pre|script"
)


class Reader(HTMLParser):
    """
    Reads a page as a browser would: which elements with which attributes, and which text.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(*entries: Entry, **settings: Any) -> Reader:
    reader = Reader()
    reader.feed(page(entries, **({"title": "Videos"} | settings)))
    reader.close()
    return reader


def succeeded(**changes: Any) -> Entry:
    return Entry(**({"prompt": "a whale", "state": "succeeded", "file": "whale.mp4"} | changes))


@pytest.mark.parametrize("words", HOSTILE)
def test_hostile_words_stay_words(words: str) -> None:
    """No prompt, error, fact, detail, title or note can add an element or an attribute to the page."""
    entries = [
        succeeded(prompt=words, facts=(words,), details=((words, words),)),
        Entry(prompt=words, state=words, error=words),
    ]
    tame = [
        succeeded(prompt="a", facts=("a",), details=(("a", "a"),)),
        Entry(prompt="a", state="a", error="a"),
    ]
    hostile = read(*entries, title=words, summary=words, notes=[Note(text=words, code=words)])
    expected = read(*tame, title="a", summary="a", notes=[Note(text="a", code="a")])
    assert [name for name, _ in expected.elements] == [name for name, _ in hostile.elements]
    assert [set(held) for _, held in expected.elements] == [set(held) for _, held in hostile.elements]


@given(st.text(), st.text(min_size=1).filter(lambda name: name not in (".", "..")))
def test_any_text_makes_a_page_that_can_be_written(words: str, name: str) -> None:
    """Whatever the words and the file's name are, the page is valid UTF-8 and has only its own elements."""
    text = page([succeeded(prompt=words, file=name), Entry(prompt=words, state="failed")], title=words)
    reader = Reader()
    reader.feed(text)
    assert text.encode()
    assert all(KNOWN.fullmatch(name) for name, _ in reader.elements)
    assert 1 == len(reader.all("script"))


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("whale.mp4", "./whale.mp4"),
        ("a whale #1?.mp4", "./a%20whale%20%231%3F.mp4"),
        ("javascript:alert(1).mp4", "./javascript%3Aalert%281%29.mp4"),
        ("//example.com/x.mp4", ".///example.com/x.mp4"),
        ("clips/鯨.mp4", "./clips/%E9%AF%A8.mp4"),
        ("bad\udcff.mp4", "./bad%FF.mp4"),
    ],
)
def test_addresses_stay_beside_the_page(name: str, address: str) -> None:
    """A file's name becomes a relative URL, whatever is in it."""
    reader = read(succeeded(file=name))
    assert [address] == [video["src"] for video in reader.all("video")]
    assert [address] == [link["href"] for link in reader.all("a")]


def test_a_video_shows_its_first_picture_before_it_plays() -> None:
    """Videos are muted, loop, and load enough to show something; pictures are lazy."""
    reader = read(succeeded(), succeeded(file="kettle.GIF"))
    [video] = reader.all("video")
    [picture] = reader.all("img")
    assert {"muted", "loop", "playsinline", "preload"} <= set(video)
    assert ("metadata", "lazy") == (video["preload"], picture["loading"])


def test_no_browser_opens_a_thousand_videos() -> None:
    """Only the videos that fill a window are opened at once; the others wait until they are near it."""
    reader = read(*[succeeded()] * 1000)
    assert ["metadata"] * 24 + ["none"] * 976 == [video["preload"] for video in reader.all("video")]


def test_a_failure_tells_why() -> None:
    """A card without a file has no video, and shows its state and its error."""
    reader = read(Entry(prompt="a whale", state="failed", error="api_error: no"), succeeded())
    assert 1 == len(reader.all("video"))
    assert {"failed", "api_error: no"} <= set(reader.text)


def test_the_filter_counts_states() -> None:
    """There is a button for all, and one for each state that occurs, with its number."""
    reader = read(
        succeeded(), succeeded(), Entry(prompt="", state="failed"), Entry(prompt="", state="stopped")
    )
    assert ["", "succeeded", "failed", "stopped"] == [one["data-state"] for one in reader.all("button")]
    assert ["4", "2", "1", "1"] == [text for text in reader.text if text.isdecimal()]


def test_one_entry_needs_no_filter() -> None:
    """With a single entry there is nothing to choose from."""
    assert [] == read(succeeded()).all("button")


def test_the_page_asks_nobody() -> None:
    """No address on the page leads to another host, and its policy forbids everything but what lies beside it."""
    text = page([succeeded()], title="Videos")
    assert [] == re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", text)
    [policy] = [meta["content"] for meta in read(succeeded()).all("meta") if "http-equiv" in meta]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_a_page_without_entries_is_a_page() -> None:
    """Nothing to show is no fault."""
    assert [] == read(summary="nothing yet").all("article")

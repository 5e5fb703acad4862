"""
The gallery: makes one HTML page from records; it opens from disk and needs no network.

All foreign text (a prompt, an error, a file's name) is escaped here and nowhere else.
If that ever fails, the page's content security policy still allows no foreign script, and only files beside the page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Final
from urllib.parse import quote

from attrs import frozen

__all__ = ["Entry", "Note", "page"]

FILTER_FROM: Final = 2  # entries; fewer need no filter
STATES: Final = {"succeeded": "succeeded", "failed": "failed"}  # with their own style
PREVIEWS: Final = 24  # videos that fill a large window; a browser opens a few dozen at most
PICTURES: Final = (".gif", ".webp", ".png", ".jpg", ".jpeg")  # shown by <img>, which a browser loops itself

_FORBIDDEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters, except white space


@frozen(kw_only=True)
class Entry:
    """
    One card of the gallery.

    Attributes:
        prompt: the request's prompt; may be empty.
        state: `succeeded`, `failed`, or another word for the outcome.
        file: the file's path relative to the page, or None.
        facts: short words beneath the prompt, such as the model.
        details: names and values that are shown on demand, such as ids and times.
        error: why there is no file, or None.
    """

    prompt: str
    state: str
    file: str | None = None
    facts: tuple[str, ...] = ()
    details: tuple[tuple[str, str], ...] = ()
    error: str | None = None


@frozen(kw_only=True)
class Note:
    """
    A text below the gallery.

    Attributes:
        text: a paragraph.
        code: lines to type in a terminal; may be empty.
    """

    text: str
    code: str = ""


def page(entries: Sequence[Entry], *, title: str, summary: str = "", notes: Iterable[Note] = ()) -> str:
    """
    Return the page that shows the entries in their order.
    """
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en">',
            *_head(title),
            "<body>",
            f"<header><h1>{_text(title)}</h1>{_paragraph('summary', summary)}</header>",
            *_filter(entries),
            '<main class="gallery" id="gallery">',
            *(_card(entry, number) for number, entry in enumerate(entries, start=1)),
            "</main>",
            '<p class="none" id="none" hidden>Nothing here fits the filter.</p>',
            *_notes(notes),
            f"<script>{_asset('page.js')}</script>",
            "</body>",
            "</html>",
            "",
        )
    )


# --- escaping ------------------------------------------------------------------------------------------


def _text(value: str) -> str:
    """
    Escape a text for an element or a quoted attribute; characters that HTML forbids are replaced.
    """
    sound = value.encode("utf-8", "replace").decode()  # a lone surrogate cannot be written to a file
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", sound), quote=True)


def _address(path: str) -> str:
    """
    Return a relative path as a URL. It begins with `./`, as a colon in its first part would look like a scheme.
    """
    return "./" + quote(path.encode("utf-8", "surrogateescape"), safe="/")


# --- parts ---------------------------------------------------------------------------------------------


@cache
def _asset(name: str) -> str:
    return (files(__package__) / "assets" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _policy() -> str:
    """
    Allow exactly this style and this script, and media files beside the page.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {_digest(_asset('page.css'))}",
            f"script-src {_digest(_asset('page.js'))}",
            "media-src 'self' file:",
            "img-src 'self' file:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _head(title: str) -> Iterator[str]:
    yield '<head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{_policy()}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield '<meta name="color-scheme" content="light dark">'
    yield f"<title>{_text(title)}</title>"
    yield f"<style>{_asset('page.css')}</style></head>"


def _paragraph(name: str, text: str) -> str:
    return f'<p class="{name}" dir="auto">{_text(text)}</p>' if text else ""


def _filter(entries: Sequence[Entry]) -> Iterator[str]:
    if len(entries) < FILTER_FROM:
        return
    yield '<div class="filter" id="filter" role="search" hidden>'
    yield '<input type="search" id="words" placeholder="Filter by words" aria-label="Filter by words" autocomplete="off">'
    yield '<div class="states" role="group" aria-label="Filter by state">'
    yield _state_button("", "all", len(entries))
    for state, count in Counter(entry.state for entry in entries).items():
        yield _state_button(state, state, count)
    yield "</div></div>"


def _state_button(state: str, word: str, count: int) -> str:
    pressed = "false" if state else "true"
    return (
        f'<button type="button" data-state="{_text(state)}" aria-pressed="{pressed}">'
        f"{_text(word)} <b>{count:,}</b></button>"
    )


def _card(entry: Entry, number: int) -> str:
    tone = entry.state if entry.state in STATES else "open"
    return "".join(
        (
            f'<article class="card {tone}" data-state="{_text(entry.state)}">',
            _frame(entry, number),
            '<div class="words">',
            _paragraph("prompt", entry.prompt),
            _facts(entry),
            _foot(entry),
            "</div></article>",
        )
    )


def _frame(entry: Entry, number: int) -> str:
    if entry.file is None:
        why = entry.error or "no file"
        return f'<div class="frame lost"><p><b>{_text(entry.state)}</b>{_text(why)}</p></div>'
    label = _text(entry.prompt or f"video {number}")
    address = _text(_address(entry.file))
    if entry.file.lower().endswith(PICTURES):
        return f'<div class="frame"><img loading="lazy" src="{address}" alt="{label}"></div>'
    # The controls are for a browser without scripts; the script removes them, and plays the visible videos.
    preload = "metadata" if number <= PREVIEWS else "none"
    attributes = f'src="{address}" aria-label="{label}" preload="{preload}" muted loop playsinline controls'
    return f'<div class="frame"><video {attributes}></video></div>'


def _facts(entry: Entry) -> str:
    items = "".join(f"<li>{_text(fact)}</li>" for fact in entry.facts if fact)
    return f'<ul class="facts">{items}</ul>' if items else ""


def _foot(entry: Entry) -> str:
    rows = "".join(f"<dt>{_text(name)}</dt><dd>{_text(value)}</dd>" for name, value in entry.details)
    more = f"<details><summary>more</summary><dl>{rows}</dl></details>" if rows else ""
    link = f'<a href="{_text(_address(entry.file))}">file</a>' if entry.file else ""
    return f'<div class="foot">{more}{link}</div>' if more or link else ""


def _notes(notes: Iterable[Note]) -> Iterator[str]:
    written = [
        _paragraph("note", note.text) + (f"<pre>{_text(note.code)}</pre>" if note.code else "")
        for note in notes
    ]
    if written:
        yield f"<footer>{''.join(written)}</footer>"

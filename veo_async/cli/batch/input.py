"""
Reads a file of prompts or requests, and checks all of it before anything is bought.

Three formats: JSON Lines, CSV with a heading, or a plain list with one prompt per line.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from operator import itemgetter
from pathlib import PurePath
from typing import Any, Final

import attrs
from attrs import frozen

from ... import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    InvalidRequest,
    RemoveObject,
    Request,
    RequestWarning,
    Reshoot,
    TextToVideo,
    Upsample,
)
from ..options import unusable_images, usable
from ..words import plural

__all__ = ["FORMATS", "KINDS", "Item", "Reading", "fields_of", "format_of", "read_items"]

FORMATS: Final = ("jsonl", "csv", "text")
KINDS: Final[Mapping[str, type[Request]]] = {  # the API's own words, and ours for endpoints without one
    "text2video": TextToVideo,
    "image2video": ImageToVideo,
    "ingredients2video": IngredientsToVideo,
    "get1080p": Get1080p,
    "upsample": Upsample,
    "extend": Extend,
    "reshoot": Reshoot,
    "insert": InsertObject,
    "remove": RemoveObject,
}
OF_A_VIDEO: Final = tuple(word for word, kind in KINDS.items() if "video_id" in attrs.fields_dict(kind))
_WORDS: Final = {kind: word for word, kind in KINDS.items()}
_OWN: Final = ("kind", "key", "file")  # what a line may set besides the fields of a request
_BOOLEANS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TAKEN: Final = frozenset({"index.html", "manifest.jsonl", "journal.db"})  # the batch's own files

_JSON_LINE: Final = 'a line must be an object such as {"prompt": "a whale"}, or a prompt in double quotes'
COMMENT: Final = "#"  # begins a line of a plain list that is no prompt
NAMED: Final = 3  # line numbers in a caution; further lines are only counted
KEY_LENGTH: Final = 16  # hexadecimal digits: 64 bits, more than enough to tell the lines of a batch apart
SLUG_LENGTH: Final = 48  # characters of a prompt in a file's name
LONGEST_NAME: Final = 200  # bytes: file systems take 255, and a download adds an ending


@frozen(kw_only=True)
class Item:
    """
    One line: a request, its idempotency key, and the name of its file.
    """

    number: int
    request: Request
    key: str
    name: str
    own_name: bool  # whether the line chose it


@frozen(kw_only=True)
class Reading:
    """
    The contents of a file: its items, and the faults and cautions with their line numbers.
    """

    items: tuple[Item, ...]
    faults: tuple[str, ...]
    cautions: tuple[str, ...]


# --- from text to lines ----------------------------------------------------------------------------------


def format_of(name: str, text: str) -> str:
    """
    Tell the format of an input by its name, or by its first character.
    """
    suffix = PurePath(name).suffix.lower()
    if suffix in (".jsonl", ".ndjson", ".json"):
        return "jsonl"
    if suffix == ".csv":
        return "csv"
    return "jsonl" if text.lstrip("\ufeff \t\r\n").startswith("{") else "text"


class _Fault(Exception):
    """
    Why a line cannot be read; one argument per reason.
    """


_Line = tuple[int, Mapping[str, Any] | _Fault]


def _json_lines(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, _Fault(f"not JSON ({_in_one_line(error)}): {_JSON_LINE}")
            continue
        if isinstance(fields, dict):
            yield number, {name: value for name, value in fields.items() if value is not None}
        elif isinstance(fields, str):
            yield number, {"prompt": fields}
        else:
            yield number, _Fault(f"neither a JSON object nor a string: {_JSON_LINE}")


def _in_one_line(error: Exception) -> str:
    return re.sub(r"line 1 (column \d+) \(char \d+\)$", r"\1", str(error))


def _csv_lines(text: str) -> Iterator[_Line]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    heading: list[str] | None = None
    while True:
        begins = reader.line_num + 1  # a quoted cell may span several lines
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield begins, _Fault(f"not CSV: {error}")
            return
        if cells is None:
            return
        if not any(cell.strip() for cell in cells):
            continue
        if heading is None:
            heading = [cell.strip() for cell in cells]
        elif len(cells) > len(heading):
            yield begins, _Fault(f"{len(cells)} cells under a heading of {len(heading)}")
        else:
            yield begins, _from_cells(dict(zip(heading, cells, strict=False)))


def _from_cells(cells: Mapping[str, str]) -> dict[str, Any]:
    """
    Convert cells to their types; leave out empty ones.
    """
    fields: dict[str, Any] = {name: value for name, value in cells.items() if value.strip()}
    if "translation" in fields:
        word = fields["translation"].strip().lower()
        fields["translation"] = _BOOLEANS.get(word, word)
    return fields


def _prompts(text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.startswith(COMMENT):
            yield number, {"prompt": line.strip()}


def _skipped(text: str, form: str) -> Iterator[str]:
    """
    Caution about comments: a prompt that was meant to begin with # would be missed.
    """
    count = sum(line.startswith(COMMENT) for line in text.split("\n")) if form == "text" else 0
    if count:
        words = "begins with # and is skipped" if count == 1 else "begin with # and are skipped"
        yield f"{plural(count, 'line')} {words}"


_READERS: Final[Mapping[str, Callable[[str], Iterator[_Line]]]] = {
    "jsonl": _json_lines,
    "csv": _csv_lines,
    "text": _prompts,
}


# --- from lines to items ---------------------------------------------------------------------------------


def read_items(text: str, form: str) -> Reading:
    """
    Read and check all lines; every fault names its line.
    """
    text = text.removeprefix("\ufeff")
    items: list[Item] = []
    faults: list[tuple[int, str]] = []
    cautions: dict[str, list[int]] = {}
    repeats: Counter[str] = Counter()
    for number, line in _READERS[form](text):
        try:
            if isinstance(line, _Fault):
                raise line
            items.append(_item(number, line, repeats, cautions))
        except _Fault as fault:
            faults.extend((number, reason) for reason in fault.args)
    faults.extend(_clashes(items))
    faults.sort(key=itemgetter(0))
    return Reading(
        items=tuple(items),
        faults=tuple(f"line {number}: {reason}" for number, reason in faults),
        cautions=(
            *_skipped(text, form),
            *(f"{_lines(numbers)}: {words}" for words, numbers in cautions.items()),
        ),
    )


def _lines(numbers: Sequence[int]) -> str:
    """
    Name lines by their numbers: `line 3`, `lines 3, 5, 8 and 12 more`.
    """
    if len(numbers) == 1:
        return f"line {numbers[0]}"
    more = f" and {len(numbers) - NAMED:,} more" if len(numbers) > NAMED else ""
    return f"lines {', '.join(map(str, numbers[:NAMED]))}{more}"


def _item(
    number: int, line: Mapping[str, Any], repeats: Counter[str], cautions: dict[str, list[int]]
) -> Item:
    own = {name: line[name] for name in _OWN if name in line}
    fields = {name: value for name, value in line.items() if name not in _OWN}
    reasons = [
        f"{name} must be a string that is not empty"
        for name, value in own.items()
        if not (isinstance(value, str) and value.strip())
    ]
    if reasons:
        raise _Fault(*reasons)
    request, caught = _request(own.get("kind"), fields)
    for words in caught:
        cautions.setdefault(words, []).append(number)
    key = own.get("key") or _key(request, repeats)
    name = own.get("file") or _name(request, key)
    _check_name(name)
    return Item(number=number, request=request, key=key, name=name, own_name="file" in own)


def _request(word: str | None, fields: dict[str, Any]) -> tuple[Request, list[str]]:
    kind = KINDS.get(word or _likely(fields))
    if kind is None and word is None:
        raise _Fault(f"kind is missing: a line with a video_id is one of {', '.join(OF_A_VIDEO)}")
    if kind is None:
        near = get_close_matches(str(word), KINDS, n=1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise _Fault(f"kind must be one of {', '.join(KINDS)}, not {word!r}{hint}")
    known = {attribute.name: attribute for attribute in attrs.fields(kind)}
    strange = [name for name in fields if name not in known]
    missing = [name for name, one in known.items() if one.default is attrs.NOTHING and name not in fields]
    if strange or missing:
        guessed = "" if word else f" (taken for {_WORDS[kind]}, as the line names no kind and {_why(fields)})"
        raise _Fault(
            *(f"{_WORDS[kind]} has no field {name!r}{_meant(name, known)}{guessed}" for name in strange),
            *(f"{name} is missing{guessed}" for name in missing),
        )
    reasons = _replace_unusable_images(fields)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RequestWarning)
        try:
            request = kind(**fields)
        except InvalidRequest as error:
            reasons += error.violations
    if reasons:
        raise _Fault(*reasons)
    return request, [str(caution.message) for caution in caught]


def _meant(name: str, known: Iterable[str]) -> str:
    """
    Suggest the field that a misspelt name may mean, of this kind or of any other.
    """
    every = {one.name for kind in KINDS.values() for one in attrs.fields(kind)} | {*_OWN}
    near = get_close_matches(name.strip().lower(), sorted(every), n=1)
    return f": did you mean {near[0]}?" if near else f", only {', '.join((*known, *_OWN))}"


def _why(fields: Mapping[str, Any]) -> str:
    return "has image_urls" if "image_urls" in fields else "has no image_urls"


def _replace_unusable_images(fields: dict[str, Any]) -> list[str]:
    """
    Replace files that cannot be uploaded by a valid address, so that the rest is checked; returns a fault for each.
    """
    images = fields.get("image_urls")
    images = images.split() if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        return []
    fields["image_urls"] = [usable(image) for image in images]
    return list(unusable_images(images))


def _likely(fields: Mapping[str, Any]) -> str:
    """
    Guess the kind that a line does not name; empty for a line with a video's id, which may be any of six kinds.
    """
    if "video_id" in fields:
        return ""
    return "image2video" if "image_urls" in fields else "text2video"


def fields_of(request: Request) -> dict[str, Any]:
    """
    Return a request as the fields of a line: its kind, and the fields that are set.
    """
    values = {one.name: getattr(request, one.name) for one in attrs.fields(type(request))}
    return {"kind": _WORDS[type(request)]} | {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


# --- keys and names --------------------------------------------------------------------------------------


def _key(request: Request, repeats: Counter[str]) -> str:
    """
    Derive a key from the request, so that a line that moves in the file is not bought again.

    A line that is repeated is bought once per repetition.
    """
    text = json.dumps(fields_of(request), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]
    repeats[digest] += 1
    return digest if repeats[digest] == 1 else f"{digest}-{repeats[digest]}"


def _name(request: Request, key: str) -> str:
    fields = fields_of(request)
    words = str(fields.get("prompt") or fields["kind"])
    plain = unicodedata.normalize("NFKD", words).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or str(fields["kind"])
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    gif = "gif" in (fields.get("resolution"), fields.get("target"))
    return f"{slug}-{digest}.{'gif' if gif else 'mp4'}"


def _check_name(name: str) -> None:
    """
    Refuse a name that is not a plain file name.
    """
    odd = any(letter in '/\\:*?"<>|' or not letter.isprintable() for letter in name)
    if odd or name.startswith(".") or name != name.strip() or len(name.encode()) > LONGEST_NAME:
        raise _Fault(f"file must be a plain name, without a directory, not {name!r}")
    if name.lower() in _TAKEN:
        raise _Fault(f"file must not be {name}, which is the batch's own")


def _clashes(items: Sequence[Item]) -> Iterator[tuple[int, str]]:
    """
    Report the lines that use a key or a file of an earlier line.
    """
    keys: dict[str, Item] = {}
    names: dict[str, Item] = {}
    for item in items:
        first = keys.setdefault(item.key, item)
        if first is not item:
            yield item.number, f"the key {item.key!r} is that of line {first.number}, too"
            continue
        first = names.setdefault(item.name.lower(), item)  # some file systems ignore case
        if first is not item:
            yield item.number, f"the file {item.name!r} is that of line {first.number}, too"

"""
What a batch reads: every line checked, every fault with its number, stable keys, and names that stay in.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TextToVideo,
    Upsample,
)
from veo_async.cli.batch.input import KINDS, Item, fields_of, format_of, read_items
from veo_async.cli.batch.manifest import Manifest

IMAGE = "https://example.com/a.png"


def lines(*values: Any) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


def items(text: str, form: str = "jsonl") -> tuple[Item, ...]:
    reading = read_items(text, form)
    assert () == reading.faults
    return reading.items


def faults(text: str, form: str = "jsonl") -> tuple[str, ...]:
    return read_items(text, form).faults


# --- forms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.jsonl", "", "jsonl"),
        ("a.NDJSON", "", "jsonl"),
        ("a.csv", "{", "csv"),
        ("a.txt", "a whale", "text"),
        ("-", ' \n{"prompt"', "jsonl"),
        ("-", "\ufeff{", "jsonl"),
        ("-", "", "text"),
    ],
)
def test_the_form_is_told_by_name_or_beginning(name: str, text: str, form: str) -> None:
    """A name's ending decides; where it says nothing, an opening brace means JSON Lines."""
    assert form == format_of(name, text)


def test_a_list_of_prompts() -> None:
    """Each line is a prompt; empty ones, comments, Windows' line ends and a byte order mark do no harm."""
    read = items("\ufeffa whale\r\n\r\n# not this\n  a walrus  \nlast", "text")
    assert [(1, "a whale"), (4, "a walrus"), (5, "last")] == [
        (item.number, fields_of(item.request)["prompt"]) for item in read
    ]


@pytest.mark.parametrize(
    ("line", "request_"),
    [
        ("a whale", TextToVideo("a whale")),
        (
            {"prompt": "a", "model": "veo31", "resolution": "4k"},
            TextToVideo("a", model="veo31", resolution="4k"),
        ),
        ({"prompt": "a", "translation": True, "model": None}, TextToVideo("a", translation=True)),
        ({"prompt": "a", "image_urls": [IMAGE]}, ImageToVideo("a", [IMAGE])),
        ({"prompt": "a", "image_urls": IMAGE}, ImageToVideo("a", [IMAGE])),
        ({"kind": "ingredients2video", "image_urls": [IMAGE]}, IngredientsToVideo([IMAGE])),
        ({"kind": "get1080p", "video_id": "v"}, Get1080p("v")),
        ({"kind": "upsample", "video_id": "v", "target": "4k"}, Upsample("v", "4k")),
        ({"kind": "extend", "video_id": "v", "prompt": "a"}, Extend("v", "a")),
        ({"kind": "reshoot", "video_id": "v", "motion_type": "UP"}, Reshoot("v", "UP")),
        ({"kind": "insert", "video_id": "v", "prompt": "a"}, InsertObject("v", "a")),
        ({"kind": "remove", "video_id": "v", "image_mask": IMAGE}, RemoveObject("v", IMAGE)),
    ],
)
def test_json_lines_make_every_kind_of_request(line: Any, request_: Request) -> None:
    """A JSON object becomes the request of its kind, and reads the same when it is written down."""
    [item] = items(lines(line))
    assert request_ == item.request
    [again] = items(lines(fields_of(item.request)))
    assert (item.request, item.key) == (again.request, again.key)
    assert fields_of(item.request)["kind"] in KINDS


def test_csv_with_a_heading() -> None:
    """Cells become fields: empty ones say nothing, images are separated by blanks, and a cell may be several lines long."""
    text = (
        " prompt ,image_urls,translation,key\r\n"
        '"first\nsecond",https://example.com/1 https://example.com/2,Yes,k\r\n'
        ",,,\r\n"
        "plain,,no,\r\n"
        "short\r\n"
    )
    first, plain, short = items(text, "csv")
    expected = ImageToVideo(
        "first\nsecond", ["https://example.com/1", "https://example.com/2"], translation=True
    )
    assert (2, "k", expected) == (first.number, first.key, first.request)
    assert (5, TextToVideo("plain")) == (plain.number, plain.request)
    assert (6, TextToVideo("short")) == (short.number, short.request)


# --- faults ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not JSON (Expecting property name enclosed in double quotes: column 2): "),
        (
            "a whale",
            'a line must be an object such as {"prompt": "a whale"}, or a prompt in double quotes',
        ),
        ("[" * 100_000, "not JSON"),
        ("[1]", "neither a JSON object nor a string: a line must be"),
        ('""', "prompt must not be empty"),
        ('{"prompt": 3}', "prompt must be a string, not int"),
        ('{"promt": "a"}', "text2video has no field 'promt': did you mean prompt? (taken for text2video, as"),
        ("{}", "prompt is missing"),
        ('{"video_id": "v"}', "kind is missing: a line with a video_id is one of get1080p, upsample, extend"),
        ('{"prompt": "a", "image_url": "https://x.example/a.jpg"}', "'image_url': did you mean image_urls?"),
        ('{"prompt": "a", "zzz": 1}', "text2video has no field 'zzz', only callback_url, prompt"),
        ('{"prompt": "a", "kind": "text2vidoe"}', "not 'text2vidoe': did you mean text2video?"),
        ('{"kind": "text3video", "prompt": "a"}', "not 'text3video'"),
        ('{"kind": 3, "prompt": "a"}', "kind must be a string"),
        ('{"prompt": "a", "key": " "}', "key must be a string that is not empty"),
        ('{"prompt": "a", "file": ["b"]}', "file must be a string"),
        ('{"prompt": "a", "image_urls": ["file:///a.png"]}', "is a file on this machine"),
        ('{"prompt": "a", "image_urls": 3}', "image_urls must be a sequence"),
        ('{"prompt": "a", "image_urls": [3]}', "must be an absolute http or https URL"),
        ('{"prompt": "a", "resolution": "8k"}', "resolution must be one of"),
        ('{"prompt": "a", "model": "veo31-fast-ingredients"}', "needs images"),
    ],
)
def test_a_fault_names_its_line(line: str, words: str) -> None:
    """Whatever is wrong with a line, it is said with the line's number, and the others are read on."""
    reading = read_items(f'"good"\n{line}\n"also good"\n', "jsonl")
    assert [1, 3] == [item.number for item in reading.items]
    assert any(fault.startswith("line 2: ") and words in fault for fault in reading.faults), reading.faults


def test_all_faults_of_a_line_are_told() -> None:
    """One line can break several rules, and is told of all of them."""
    line = {
        "prompt": " ",
        "image_urls": [str(Path(__file__)), "ftp://x"],
        "resolution": "4k",
        "model": "veo3",
    }
    found = "\n".join(faults(lines(line)))
    for words in ("prompt must not", "is a file on this machine", "image_urls[1] must be", "resolution 4k"):
        assert words in found


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("prompt\na,b\n", "line 2: 2 cells under a heading of 1"),
        ('prompt\n"a\n', "line 2: not CSV: unexpected end of data"),
        ("prompt,translation\na,maybe\n", "line 2: translation must be True or False, not 'maybe'"),
        ("words\na\n", "line 2: text2video has no field 'words'"),
    ],
)
def test_faults_of_csv(text: str, fault: str) -> None:
    """A row that does not fit its heading, or is no CSV, is a fault of its line."""
    assert faults(text, "csv")[0].startswith(fault)


def test_cautions_are_told_once() -> None:
    """What the newest documents doubt is no fault; the same doubt about many lines is one note with their numbers."""
    doubted = [{"prompt": str(n), "model": "veo2"} for n in range(5)]
    reading = read_items(lines("fine", *doubted, {"prompt": "x", "aspect_ratio": "4:3"}), "jsonl")
    many, one = reading.cautions
    assert (7, True) == (len(reading.items), many.startswith("lines 2, 3, 4 and 2 more: model veo2"))
    assert one.startswith("line 7: aspect_ratio 4:3")


# --- keys and names --------------------------------------------------------------------------------------


def test_keys_belong_to_what_is_asked_for() -> None:
    """A line keeps its key wherever it stands, and however it is written; another request has another."""
    one, two = items(lines("a whale", "a walrus"))
    moved = items(lines("new", {"prompt": "a walrus", "model": "veo31-fast"}, "a whale"))
    assert {one.key, two.key} < {item.key for item in moved}
    assert 3 == len({item.key for item in moved})


def test_the_same_line_twice_is_two_purchases() -> None:
    """Equal lines have different keys and files."""
    read = items("a whale\na whale\na whale\n", "text")
    assert 3 == len({item.key for item in read}) == len({item.name for item in read})


def test_keys_and_files_of_ones_own() -> None:
    """A line may name its key and its file."""
    [item] = items(lines({"prompt": "a", "key": "k", "file": "whale.mp4"}))
    assert ("k", "whale.mp4", True) == (item.key, item.name, item.own_name)


def test_two_lines_cannot_share_a_key_or_a_file() -> None:
    """The second line that wants the same is told of the first; capitals make no other file."""
    found = faults(
        lines(
            {"prompt": "a", "key": "k", "file": "a.mp4"},
            {"prompt": "b", "key": "k"},
            {"prompt": "c", "file": "A.MP4"},
        )
    )
    assert (
        "line 2: the key 'k' is that of line 1, too",
        "line 3: the file 'A.MP4' is that of line 1, too",
    ) == found


@pytest.mark.parametrize(
    "name",
    ["../a.mp4", "a/b.mp4", "a\\b.mp4", "C:a.mp4", ".hidden", "..", "a\0b", "a\nb", " a", "é" * 200, "index.html", "Journal.DB"],
)  # fmt: skip
def test_names_cannot_leave_the_directory(name: str) -> None:
    """A file's name that is more than a name, or that the batch itself needs, is a fault."""
    [fault] = faults(lines({"prompt": "a", "file": name}))
    assert fault.startswith("line 1: file must")


@given(st.text(min_size=1).filter(str.strip))
def test_names_made_of_prompts_are_plain(prompt: str) -> None:
    """Whatever the prompt, the name made of it is short, plain ASCII, and in no other directory."""
    [item] = read_items(lines({"prompt": prompt}), "jsonl").items
    assert item.name.isascii()
    assert 80 > len(item.name)
    assert item.name == PurePosixPath(item.name).name == PureWindowsPath(item.name).name
    assert set(item.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_gifs_are_called_so() -> None:
    """A request for a GIF gets its ending."""
    read = items(
        lines({"prompt": "a", "resolution": "gif"}, {"kind": "upsample", "video_id": "v", "target": "gif"})
    )
    assert [".gif", ".gif"] == [item.name[-4:] for item in read]


# --- the manifest ----------------------------------------------------------------------------------------


def test_the_last_record_of_a_key_counts(tmp_path: Path) -> None:
    """Records are appended, read back, and put in order at the end; those of other inputs stay."""
    path = tmp_path / "manifest.jsonl"
    manifest = Manifest(path)
    for key, state in (("b", "failed"), ("x", "succeeded"), ("a", "succeeded"), ("b", "succeeded")):
        assert manifest.add({"key": key, "state": state})
    assert 4 == len(path.read_text().splitlines())
    again = Manifest(path)
    assert ["a", "b", "x"] == [record["key"] for record in again.finish(["a", "b", "new"])]
    assert 3 == len(path.read_text().splitlines())
    assert "succeeded" == Manifest(path).records["b"]["state"]


def test_no_news_is_not_written(tmp_path: Path) -> None:
    """The same end again adds no line, though it be told at another time."""
    manifest = Manifest(tmp_path / "manifest.jsonl")
    assert manifest.add({"key": "a", "state": "failed", "settled_at": "1"})
    assert not manifest.add({"key": "a", "state": "failed", "settled_at": "2"})
    assert manifest.add({"key": "a", "state": "succeeded", "settled_at": "3"})


@pytest.mark.parametrize("torn", [b'{"key": "b", "st', b"\xff\xfe", b"[1]", b'{"key": 3}', b"[" * 100_000])
def test_a_torn_line_spoils_nothing(tmp_path: Path, torn: bytes) -> None:
    """What a crash has cut off is passed over, and does not run into the line after it."""
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(b'{"key": "a"}\n' + torn)
    manifest = Manifest(path)
    manifest.add({"key": "c"})
    assert {"a", "c"} == set(Manifest(path).records)

"""
Images that are files, in `generate` and in `batch`: uploaded with the account token, or refused in a sentence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..platform.pictures import JPEG, PNG, picture
from ..terminal import Finished, Served, invoke, served

ACCOUNT_TOKEN = "platform-simulator-token"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path)


def call(server: Served, *arguments: str, token: str | None = ACCOUNT_TOKEN) -> Finished:
    with_token = {} if token is None else {"ACEDATACLOUD_PLATFORM_TOKEN": token}
    return invoke(*arguments, environment=server.environment | with_token)


def test_an_image_may_be_a_file(server: Served) -> None:
    """It is uploaded, which is said before, and its address is sent."""
    before = len(server.core.platform.uploads)
    result = call(server, "generate", "she turns", "--image", "portrait.jpg", "-o", "a.mp4")
    assert (0, "a.mp4\n") == (result.status, result.out)
    assert "portrait.jpg: uploaded to a public address" in result.err
    assert "s  a picture of 11 bytes was uploaded\n" in result.err
    [address] = server.bodies[-1]["image_urls"]
    assert address.startswith(f"{server.url}/uploads/")
    assert [JPEG] == [*server.core.platform.uploads.values()][before:]


@pytest.mark.parametrize(
    ("token", "content", "status", "words"),
    [
        (
            None,
            JPEG,
            2,
            "portrait.jpg is a file on this machine, and the API takes URLs only: set ACEDATACLOUD",
        ),
        (ACCOUNT_TOKEN, b"words", 2, "nor is it a picture on this machine: it is not a picture"),
        ("platform-of-nobody", JPEG, 1, "it refused the account token: check ACEDATACLOUD_PLATFORM_TOKEN"),
        ("platform of nobody", JPEG, 2, "ACEDATACLOUD_PLATFORM_TOKEN holds a space"),
    ],
)
def test_what_cannot_be_uploaded_is_not_bought(
    server: Served, token: str | None, content: bytes, status: int, words: str
) -> None:
    """Without a token, with a wrong one, or with another file, a sentence says so; it never has the token."""
    Path("portrait.jpg").write_bytes(content)
    before = server.core.accepted
    result = call(server, "generate", "she turns", "--image", "portrait.jpg", token=token)
    assert (status, before) == (result.status, server.core.accepted)
    assert words in " ".join(result.err.split())
    assert token is None or token not in result.err


def test_a_wrong_account_token_stops_nothing_else(server: Served) -> None:
    """A request that needs no platform does not look at the token."""
    assert 0 == call(server, "generate", "a whale", "-o", "b.mp4", token="not a token").status


def test_the_lines_of_a_batch_share_their_pictures(server: Served) -> None:
    """Twelve lines with two pictures upload two; run again, and with the files moved, nothing is bought."""
    Path("other.png").write_bytes(PNG)
    before, bought = len(server.core.platform.uploads), server.core.accepted
    lines = [{"prompt": str(n), "image_urls": [("portrait.jpg", "other.png")[n % 2]]} for n in range(12)]
    Path("lines.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = call(server, "batch", "lines.jsonl", "--out", "out")
    assert (0, True) == (result.status, "portrait.jpg and 1 more: uploaded to a public address" in result.err)
    assert 2 == result.err.count(" was uploaded\n")
    assert (before + 2, bought + 12) == (len(server.core.platform.uploads), server.core.accepted)
    Path("other.png").rename("moved.png")
    Path("lines.jsonl").write_text(
        "\n".join(map(json.dumps, lines)).replace("other", "moved"), encoding="utf-8"
    )
    assert 0 == call(server, "batch", "lines.jsonl", "--out", "out").status
    assert (before + 2, bought + 12) == (len(server.core.platform.uploads), server.core.accepted)


def test_a_line_without_a_way_to_upload_is_a_fault(server: Served) -> None:
    """Nothing is bought, and the line is named."""
    Path("lines.jsonl").write_text('{"prompt": "a", "image_urls": ["portrait.jpg"]}\n', encoding="utf-8")
    result = call(server, "batch", "lines.jsonl", "--out", "out", token=None)
    assert 2 == result.status
    assert "line 1: image_urls: portrait.jpg is a file on this machine" in result.err

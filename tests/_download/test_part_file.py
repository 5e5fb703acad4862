"""
The file that a download is gathered in, and its lock.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from veo_async._download.part_file import Part, PartInfo
from veo_async.errors import DownloadError

from .origin import names

INFO = PartInfo(task_id="t1", video_id="v1", link="http://127.0.0.1/", etag='"one"', total=10)


def claimed(target: Path) -> Part:
    part = Part(target)
    part.claim()
    return part


def test_who_comes_second_writes_apart(tmp_path: Path) -> None:
    """A second claim on one target gets a file of its own, which is not kept for another time."""
    first, second = claimed(tmp_path / "a"), claimed(tmp_path / "a")
    for part in (first, second):
        part.restart(INFO)
        part.append([b"12345"])
    assert 3 == len(names(tmp_path))
    second.close()
    assert ["a.part", "a.part.json"] == names(tmp_path)
    first.close()
    assert ["a.part", "a.part.json"] == names(tmp_path)
    third = claimed(tmp_path / "a")
    assert (5, INFO) == (third.size, third.info)
    third.close()


def test_a_part_that_was_renamed_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between opening and locking another process may finish: its file is not written to."""
    target, flock = tmp_path / "a", fcntl.flock

    def late(*arguments: Any) -> None:
        if (tmp_path / "a.part").exists():
            (tmp_path / "a.part").rename(target)
            (tmp_path / "a.part").touch()
        flock(*arguments)

    monkeypatch.setattr(fcntl, "flock", late)
    part = claimed(target)
    part.restart(INFO)
    part.append([b"12345"])
    assert b"" == target.read_bytes()
    part.finish(target)
    assert b"12345" == target.read_bytes()


def test_a_file_system_without_locks_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no lock is to be had each download writes apart, and nothing is resumed."""

    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    part = claimed(tmp_path / "b")
    part.restart(INFO)
    part.append([b"1234567890"])
    part.finish(tmp_path / "b")
    part.close()
    assert b"1234567890" == (tmp_path / "b").read_bytes()


def test_a_part_without_a_claim_closes(tmp_path: Path) -> None:
    """A claim that failed leaves nothing to let go of."""
    part = Part(tmp_path / "missing" / "a")
    with pytest.raises(DownloadError, match="cannot write"):
        part.claim()
    part.close()
    assert [] == names(tmp_path)

"""
The file that a download is gathered in: its name, its lock, and the threads that write it.
"""

from __future__ import annotations

import asyncio
import fcntl
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veo_async._api.records import Video
from veo_async._download.part_file import Mark, Part, on_disk, place_for
from veo_async.errors import DownloadError

MARK = Mark(task_id="t1", video_id="v1", link="http://127.0.0.1/", etag='"one"', total=10)


def video(task_id: str = "t1", video_id: str = "v1") -> Video:
    return Video(id=video_id, task_id=task_id, url="http://127.0.0.1/")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# --- names -----------------------------------------------------------------------------------------------

ID = "2ff7ab2e-0f4d-4b80-a4a5-1f2b7c1d9e3f"
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))}
IDS = st.text(max_size=80) | st.sampled_from(
    ["", ".", "..", "a/b", "a\\b", "con", "NUL", "~", "-rf", "a b", "A", "a"]
)


def test_ordinary_ids_stay_readable(tmp_path: Path) -> None:
    """A name made of documented ids is those ids."""
    assert tmp_path / f"{ID}_{'0' * 32}.mp4" == place_for(tmp_path, video(ID, "0" * 32)).final(b"", "")


@given(task_id=IDS, video_id=IDS)
def test_no_name_leaves_the_directory(task_id: str, video_id: str) -> None:
    """Whatever a server calls its tasks, the name is short, plain, visible, and of no device."""
    directory = Path.cwd()
    path = place_for(directory, video(task_id, video_id)).final(b"", "")
    assert directory == path.parent
    assert re.fullmatch(r"[0-9a-z][0-9a-z_-]*\.(mp4|gif)", path.name)
    assert len(path.name) < 140
    assert path.stem not in RESERVED


@given(one=st.tuples(IDS, IDS), other=st.tuples(IDS, IDS))
def test_no_two_videos_share_a_name(one: tuple[str, str], other: tuple[str, str]) -> None:
    """Different ids give different names, also where capitals count for nothing."""
    first, second = (str(place_for(Path.cwd(), video(*ids)).path).lower() for ids in (one, other))
    assert (one == other) == (first == second)


def test_an_id_that_is_no_text_of_any_file_system_gets_a_name(tmp_path: Path) -> None:
    """A lone surrogate, as JSON may hold it, is no obstacle."""
    assert place_for(tmp_path, video("\ud800")).path.name.startswith("x-")


# --- threads ---------------------------------------------------------------------------------------------


async def test_the_loop_goes_on_while_the_disk_is_busy() -> None:
    """A call that blocks holds only its own coroutine."""
    go = threading.Event()
    task = asyncio.create_task(on_disk(go.wait, 10))
    await asyncio.sleep(0)
    go.set()  # which could not happen if the loop were held
    assert await task


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_to_the_disk_is_seen_through(fails: bool) -> None:
    """However often it is cancelled, it returns only when the thread is done, and then as cancelled."""
    started, go, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        go.wait(10)
        ended.set()
        if fails:
            raise OSError("of no interest any more")

    task = asyncio.create_task(on_disk(call))
    await asyncio.to_thread(started.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


# --- the lock --------------------------------------------------------------------------------------------


def claimed(target: Path) -> Part:
    part = Part(target)
    part.claim()
    return part


def test_who_comes_second_writes_apart(tmp_path: Path) -> None:
    """A second claim on one target gets a file of its own, which is not kept for another time."""
    first, second = claimed(tmp_path / "a"), claimed(tmp_path / "a")
    for part in (first, second):
        part.restart(MARK)
        part.append([b"12345"])
    assert 3 == len(names(tmp_path))
    second.close()
    assert ["a.part", "a.part.json"] == names(tmp_path)
    first.close()
    assert ["a.part", "a.part.json"] == names(tmp_path)
    third = claimed(tmp_path / "a")
    assert (5, MARK) == (third.size, third.mark)
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
    part.restart(MARK)
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
    part.restart(MARK)
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

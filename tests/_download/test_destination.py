"""
Where a file goes, and what it is called in a directory.
"""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from veo_async._api.records import Video
from veo_async._download.destination import place_for


def video(task_id: str = "t1", video_id: str = "v1") -> Video:
    return Video(id=video_id, task_id=task_id, url="http://127.0.0.1/")


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

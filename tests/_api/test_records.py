"""
What comes back: values that nobody can change.
"""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime
from typing import Any, Final

import attrs
import pytest

from veo_async._api.records import TaskError, TaskRecord, TaskState, Video, VideoResult
from veo_async._api.requests import Request, TextToVideo, Upsample

from .barest import A

AT: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
VIDEO: Final = Video(
    id="video-1", task_id="task-1", url=A, state="succeeded", created_at=AT, raw={"id": "video-1"}
)
RECORD: Final = TaskRecord(
    id="task-1", state=TaskState.SUCCEEDED, videos=(VIDEO,), request={"prompt": "a whale"}
)
RESULT: Final = VideoResult(
    task_id="task-1", request=TextToVideo("a whale"), videos=(VIDEO,), raw={"success": True}
)


def test_the_only_video_is_at_hand() -> None:
    """`video` is the one there is."""
    assert VIDEO is RESULT.video


@pytest.mark.parametrize("count", [0, 2, 3])
def test_several_videos_are_no_one_video(count: int) -> None:
    """`video` refuses to choose, and says how many there are and of which task."""
    result = VideoResult(task_id="task-1", videos=(VIDEO,) * count)
    with pytest.raises(ValueError, match=f"task task-1 has {count} videos"):
        _ = result.video


@pytest.mark.parametrize(
    "record", [VIDEO, RECORD, RESULT, TaskError(code="api_error", message="no luck")], ids=repr
)
def test_what_comes_back_cannot_be_changed(record: Any) -> None:
    """Results are shared by all awaiters, so nobody may alter them; they hash, copy and pickle."""
    for field in attrs.fields_dict(type(record)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, field, None)
    assert record == copy.deepcopy(record) == pickle.loads(pickle.dumps(record))
    assert 1 == len({record, copy.deepcopy(record)})


@pytest.mark.parametrize("record", [VIDEO, RECORD, RESULT], ids=repr)
def test_the_raw_answer_is_evidence_only(record: Any) -> None:
    """What the server sent is kept, but two results are told apart by what they mean, and shown without it."""
    other = attrs.evolve(record, raw={"another": "key"})
    assert record == other
    assert hash(record) == hash(other)
    assert "another" not in repr(other)
    assert {"another": "key"} == other.raw


def test_a_state_is_its_word() -> None:
    """States compare and print as the words of the API's documents."""
    assert ["pending", "succeeded", "failed"] == [str(state) for state in TaskState]
    assert "failed" == TaskState("failed")


def test_a_record_may_know_little() -> None:
    """All that a record needs is an id and a state; a result needs its videos as well."""
    bare = TaskRecord(id="task-1", state=TaskState.PENDING)
    assert (None, None, {}, (), None) == (bare.trace_id, bare.type, bare.request, bare.videos, bare.error)
    assert (None, None, None) == (bare.created_at, bare.started_at, bare.finished_at)
    assert (None, "") == (TaskError().code, TaskError().message)


# --- in a notebook ---------------------------------------------------------------------------------------


def shown(*urls: str, request: Request | None = None) -> str | None:
    videos = tuple(Video(id="v", task_id="t", url=url) for url in urls)
    return VideoResult(task_id="t", request=request, videos=videos)._repr_html_()


def test_a_notebook_plays_each_video() -> None:
    """Each link has a player, and a GIF is a picture."""
    assert '<video controls preload="metadata" src="https://a/1"></video>' == shown("https://a/1")
    assert 2 == (shown("https://a/1", "http://a/2") or "").count("<video")
    for request in (TextToVideo("a whale", resolution="gif"), Upsample("v", target="gif")):
        assert '<img src="https://a/1">' == shown("https://a/1", request=request)


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "java\nscript:alert(1)",
        "data:text/html,x",
        "file:///etc",
        "//a/1",
        "",
        "https://[a",
    ],
)
def test_a_notebook_shows_no_other_scheme(url: str) -> None:
    """A hostile link is left out; with nothing to show, the notebook falls back on the repr."""
    assert shown(url) is None
    assert shown("https://a/1") == shown(url, "https://a/1")


def test_a_link_cannot_leave_its_attribute() -> None:
    """What HTML would read is escaped."""
    html = shown("https://a/\"><script>alert(1)</script>&x='")
    assert html is not None
    assert "<script" not in html
    assert 'src="https://a/&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;x=&#x27;"' in html

"""
What raw records say, and the answers that hold them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from veo_async import ProtocolError, TaskState
from veo_async._api.records import is_id
from veo_async._api.states import classify
from veo_async._api.tasks import (
    BatchStates,
    batch_states,
    failure_of,
    read_batch,
    read_record,
    task_id_of,
    task_record,
    video_result,
)
from veo_async._api.wire import MAX_DEPTH

from .bodies import LINKLESS, sample, with_item, with_response


def test_a_record_is_read_whole() -> None:
    """
    The documented record gives its ids, times with their zone, the echoed request and the video.
    """
    record = task_record(sample("task_succeeded_newest"))
    beijing = timezone(timedelta(hours=8))
    assert "1ebe4f2b-59ba-4385-a4ea-0ce8a3fe12ed" == record.id
    assert "d1d53c04-58c5-4c40-bb63-f00188540e56" == record.trace_id
    assert "videos" == record.type
    assert TaskState.SUCCEEDED is record.state
    assert record.error is None
    assert "veo2" == record.request["model"]
    assert datetime.fromtimestamp(1753435158.509, UTC) == record.created_at
    assert datetime.fromtimestamp(1753435158.569, UTC) == record.started_at
    assert datetime.fromtimestamp(1753435250.969, UTC) == record.finished_at
    (video,) = record.videos
    assert "2f43ceed37944b4d836e1a1899dad0a1" == video.id
    assert record.id == video.task_id
    assert "succeeded" == video.state
    assert datetime(2025, 7, 25, 17, 19, 20, tzinfo=beijing) == video.created_at
    assert datetime(2025, 7, 25, 17, 21, 45, tzinfo=beijing) == video.completed_at
    assert sample("task_succeeded_newest") == record.raw


def test_a_failed_record_says_why() -> None:
    """
    The structured error becomes the record's, and the job's, code and message.
    """
    raw = sample("task_failed_inferred")
    record = task_record(raw)
    assert TaskState.FAILED is record.state
    assert record.error is not None
    assert ("api_error", "fetch failed") == (record.error.code, record.error.message)
    failure = failure_of(record.id, raw)
    assert ("api_error", "fetch failed") == (failure.code, failure.message)
    assert (record.trace_id, record.id) == (failure.trace_id, failure.task_id)


def test_an_empty_success_says_so() -> None:
    """
    A task that ended without a video fails with words of our own, since the server has none.
    """
    failure = failure_of("1", with_response({"success": True, "data": []}, finished_at=1.0))
    assert "the task ended without a video" == failure.message


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-06-30T04:01:50.364Z", datetime(2026, 6, 30, 4, 1, 50, 364000, UTC)),
        ("2025-07-25 17:19:20", datetime(2025, 7, 25, 9, 19, 20, tzinfo=UTC)),
        (1753435158, datetime(2025, 7, 25, 9, 19, 18, tzinfo=UTC)),
        ("yesterday", None),
        (True, None),
        (1e300, None),
        (float("nan"), None),
        ([], None),
        (None, None),
    ],
)
def test_times_are_read_in_every_form(written: object, read: datetime | None) -> None:
    """
    Documented forms are aware datetimes; what cannot be read is None, since no video depends on it.
    """
    record = with_response(with_item())
    record["response"]["data"][0]["created_at"] = written
    assert read == video_result("1", record, None).video.created_at


def test_the_iso_sample_gives_its_video() -> None:
    """
    The documented reply with ISO times and a dashed video id is read like the others.
    """
    (video,) = video_result("1", {"response": sample("submit_iso_times")}, None).videos
    assert "24ac06a5-9cc7-448f-802e-0b4db19f6e96" == video.id
    assert datetime(2026, 6, 30, 4, 3, 20, 495000, UTC) == video.completed_at


def test_fields_that_nobody_knows_yet_do_no_harm() -> None:
    """
    A record with more in it than today is read, and keeps all of it in `raw`.
    """
    raw = {**sample("task_succeeded"), "tomorrow": {"more": 1}}
    assert {"more": 1} == task_record(raw).raw["tomorrow"]


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"id": 7},
        {"id": "1", "trace_id": 7},
        {"id": "1", "type": ["videos"]},
        {"id": "\ud800"},
    ],
)
def test_wrong_types_are_refused_not_coerced(raw: dict[str, Any]) -> None:
    """
    A field that matters and has the wrong type is a protocol error.
    """
    with pytest.raises(ProtocolError, match="cannot be read"):
        task_record(raw)


def test_a_missing_echo_and_a_missing_video_id_are_no_obstacle() -> None:
    """
    The link is what was paid for: the echo of the request and the video's id may be missing.
    """
    raw = {**with_response(with_item(id=None)), "request": None}
    record = task_record(raw)
    assert {} == record.request
    assert "" == record.videos[0].id


@pytest.mark.parametrize(
    ("value", "usable"),
    [
        ("1", True),
        ("", False),
        ("x" * 257, False),
        ("a\nb", False),
        ("\ud800", False),
        (1, False),
        (None, False),
    ],
)
def test_ids_are_short_printable_strings(value: object, usable: bool) -> None:
    """
    An id that could break a log line or a query is none.
    """
    assert usable is is_id(value)
    assert (value if usable else None) == task_id_of({"id": value})


def test_a_batch_is_read() -> None:
    """
    The documented batch gives its records, the one that comes twice included.
    """
    records = read_batch(sample("task_batch"))
    assert ["1ebe4f2b-59ba-4385-a4ea-0ce8a3fe12ed"] * 2 == [task_id_of(record) for record in records]


def test_a_batch_drops_what_is_no_record() -> None:
    """
    Items without a usable id are nobody's; a bare list is a batch too.
    """
    record = {"id": "1"}
    assert [record] == read_batch({"items": [None, 7, "x", {}, {"id": ""}, record], "count": 6})
    assert [record] == read_batch([record])


@pytest.mark.parametrize("data", [None, {}, {"items": None}, {"items": {"id": "1"}}, "items"])
def test_a_batch_without_items_is_a_protocol_error(data: object) -> None:
    """
    What has no list of items says nothing about anybody.
    """
    with pytest.raises(ProtocolError, match="no list of items"):
        read_batch(data)


def ended(task_id: str, note: object = None) -> dict[str, Any]:
    return {"id": task_id, "response": {"success": False, "error": {"code": "api_error"}, "note": note}}


@pytest.mark.parametrize(
    "item", [None, 7, "1", ["1"], {}, {"id": None}, {"id": 1}, {"id": ["1"]}, {"id": "2"}]
)
def test_what_is_no_record_of_a_task_asked_about_says_nothing_of_it(item: object) -> None:
    """
    Neither an item that is no object, nor one without a usable id, nor another task's.
    """
    assert BatchStates([], {}, []) == batch_states([item], ["1"])
    assert BatchStates(["1"], {}, []) == batch_states([item, {"id": "1", "response": None}, item], ["1"])


@pytest.mark.parametrize("response", [None, {}, {"success": None}])
def test_a_record_without_an_answer_is_of_a_pending_task(response: object) -> None:
    """
    Neither the shape known for it, nor an answer with nothing in it, is an end; twice is once.
    """
    record = {"id": "1", "response": response}
    assert classify(record) is TaskState.PENDING
    assert BatchStates(["1"], {}, []) == batch_states([record, record], ["1"])


def test_an_end_outranks_a_pending_record_of_the_same_task() -> None:
    """
    Whichever comes first: a task does not come back from its end.
    """
    pending, record = {"id": "1", "response": None}, ended("1")
    for items in [pending, record], [record, pending]:
        assert BatchStates([], {"1": record}, []) == batch_states(items, ["1"])


def test_a_response_that_names_another_task_is_not_believed() -> None:
    """
    Neither its video nor its failure is this task's: it is looked at on.
    """
    for name in ("task_succeeded", "task_failed_inferred"):
        response = sample(name)["response"]
        assert TaskState.PENDING is classify({"id": "another", "finished_at": 1.0, "response": response})


def test_a_video_outranks_a_failure_of_the_same_task() -> None:
    """
    Whichever comes first: the video is there, and was paid for.
    """
    failed = ended("1")
    video = {"id": "1", "response": sample("task_succeeded")["response"] | {"task_id": "1"}}
    assert classify(video) is TaskState.SUCCEEDED
    for items in [failed, video], [video, failed]:
        assert BatchStates([], {"1": video}, []) == batch_states(items, ["1"])


@pytest.mark.parametrize(
    ("response", "linkless"),
    [
        (LINKLESS, ["t"]),
        (LINKLESS | {"success": False, "error": "temporary"}, []),
        ({"success": True, "data": [{"state": "running", "video_url": None}, *LINKLESS["data"]]}, []),
        ({"success": True, "data": []}, []),
        (with_item(), []),
    ],
)
def test_who_has_succeeded_without_a_link_is_told(response: dict[str, Any], linkless: list[str]) -> None:
    """
    Of the pending, those are named whose record says that nothing but the link is missing.
    """
    assert linkless == [*batch_states([{"id": "t", "response": response}], ["t"]).linkless]


def test_an_end_nested_too_deep_cannot_be_read() -> None:
    """
    It could not be kept in a journal. Its task is known all the same, and the records of others still count.
    """
    note: object = None
    for _ in range(MAX_DEPTH):
        note = [note]
    deep, pending = ended("1", note), {"id": "1"}
    known = BatchStates(["2"], {"3": ended("3")}, ["1"])
    for about_it in [deep], [deep, pending], [pending, deep]:
        assert known == batch_states([*about_it, {"id": "2"}, ended("3")], ["1", "2", "3"])
    assert BatchStates([], {"1": ended("1")}, []) == batch_states([deep, ended("1")], ["1"])


def test_a_single_record_is_read_or_unknown() -> None:
    """
    An unknown id is answered with `{}` or `null`.
    """
    assert sample("task_succeeded") == read_record(sample("task_succeeded"))
    assert read_record({}) is None
    assert read_record(None) is None


@pytest.mark.parametrize("data", [[], "x", {"items": []}, {"id": 1}])
def test_a_single_answer_that_is_no_record_is_a_protocol_error(data: object) -> None:
    """
    Anything else is not taken for "unknown".
    """
    with pytest.raises(ProtocolError, match="not a task record"):
        read_record(data)


@pytest.mark.parametrize("odd", [123, ["x"], {"a": 1}, "\ud800", True])
@pytest.mark.parametrize("name", ["id", "state"])
def test_an_ornament_of_the_wrong_type_does_not_withhold_the_video(name: str, odd: object) -> None:
    """
    The link is what was paid for: an id or a word that is no text is left out, and the video is handed over.
    """
    raw = with_response(with_item(**{name: odd}))
    (video,) = video_result("1", raw, None).videos
    assert video.url.startswith("https://")
    assert ("" if name == "id" else None) == getattr(video, name)

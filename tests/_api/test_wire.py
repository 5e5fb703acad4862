"""
Bytes to records and back, fed from the documented bodies in `tests/samples/`.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
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
    JobFailed,
    ProtocolError,
    RemoveObject,
    Request,
    Reshoot,
    TaskState,
    TextToVideo,
    Upsample,
    VideoResult,
)
from veo_async._api.records import is_id
from veo_async._api.states import classify
from veo_async._api.stored import dump_outcome, dump_request, load_outcome, load_request
from veo_async._api.tasks import (
    Standings,
    failure_of,
    read_batch,
    read_record,
    standings,
    task_id_of,
    task_record,
    video_result,
)
from veo_async._api.wire import MAX_DEPTH, code_and_message, decode, encode

SAMPLES = Path(__file__).parent.parent / "samples"
IMAGE = "https://example.com/a.png"
PENDING, SUCCEEDED, FAILED = TaskState.PENDING, TaskState.SUCCEEDED, TaskState.FAILED


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_bytes())


def with_response(response: object, **fields: object) -> dict[str, Any]:
    """
    The documented record with another response.
    """
    return {**sample("task_succeeded"), "response": response, **fields}


def with_item(**fields: object) -> dict[str, Any]:
    """
    The documented response with another item; a field that is None is left out.
    """
    response = sample("task_succeeded")["response"]
    item = {name: value for name, value in {**response["data"][0], **fields}.items() if value is not None}
    return {**response, "data": [item]}


# --- bytes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(SAMPLES.glob("*.json")), ids=lambda path: path.stem)
def test_documented_bodies_are_read(path: Path) -> None:
    """
    Every documented body is JSON that is read as it stands.
    """
    assert json.loads(path.read_text()) == decode(path.read_bytes())


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<html><head><TITLE>502 Bad\nGateway</TITLE></head></html>", "'502 Bad Gateway'"),
        (b"oops", "'oops'"),
        (b'{"task_id": "1', "not JSON"),
        (b'\xff\xfe{"a": 1}', "not JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", "not JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deep"),
        (b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nested too deep"),
    ],
)
def test_what_is_not_the_apis_json_is_a_protocol_error(body: bytes, words: str) -> None:
    """
    Empty, cut-off, wrongly encoded, foreign and deep bodies are refused with words that show what came.
    """
    with pytest.raises(ProtocolError, match=words):
        decode(body)


def test_what_nests_as_deep_as_allowed_is_read() -> None:
    """
    The bound on depth lets through what just keeps it, and a byte order mark does no harm.
    """
    body = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert json.loads(body) == decode(b"\xef\xbb\xbf" + body)


@given(
    st.recursive(st.none() | st.booleans() | st.text(), lambda t: st.lists(t) | st.dictionaries(st.text(), t))
)
def test_any_json_is_read_as_it_is(data: object) -> None:
    """
    Whatever a server may write comes out as the same data.
    """
    assert data == decode(json.dumps(data).encode())


# --- requests --------------------------------------------------------------------------------------------

REQUESTS: list[tuple[Request, dict[str, Any]]] = [
    (
        TextToVideo("a whale"),
        {"action": "text2video", "prompt": "a whale", "model": "veo31-fast"},
    ),
    (
        TextToVideo("a", model="veo31", resolution="4k", aspect_ratio="9:16", translation=True),
        {
            "action": "text2video",
            "prompt": "a",
            "model": "veo31",
            "resolution": "4k",
            "aspect_ratio": "9:16",
            "translation": True,
        },
    ),
    (
        ImageToVideo("a", [IMAGE], callback_url="https://example.com/hook"),
        {
            "action": "image2video",
            "prompt": "a",
            "image_urls": [IMAGE],
            "model": "veo31-fast",
            "callback_url": "https://example.com/hook",
        },
    ),
    (
        IngredientsToVideo([IMAGE]),
        {"action": "ingredients2video", "image_urls": [IMAGE], "model": "veo31-fast-ingredients"},
    ),
    (Get1080p("v"), {"action": "get1080p", "video_id": "v", "model": "veo31-fast"}),
    (Upsample("v", "4k"), {"video_id": "v", "action": "4k"}),
    (
        Extend("v", resolution="720p"),
        {"video_id": "v", "model": "veo31-fast", "resolution": "720p"},
    ),
    (Reshoot("v", "FORWARD"), {"video_id": "v", "motion_type": "FORWARD"}),
    (InsertObject("v", "a hat"), {"video_id": "v", "prompt": "a hat", "action": "insert"}),
    (RemoveObject("v", IMAGE), {"video_id": "v", "image_mask": IMAGE, "action": "remove"}),
]
KINDS = [type(request).__name__ for request, _ in REQUESTS]


@pytest.mark.parametrize(("request_", "body"), REQUESTS, ids=KINDS)
def test_a_request_becomes_its_documented_body(request_: Request, body: dict[str, Any]) -> None:
    """
    What was set is sent, always asynchronously, and nothing else.
    """
    assert {**body, "async": True} == encode(request_)


def test_the_smallest_resolution_is_said_by_saying_nothing() -> None:
    """
    `/veo/videos` lists no `720p`: it is what leaving the field out gives.
    """
    assert "resolution" not in encode(TextToVideo("a", resolution="720p"))


@pytest.mark.parametrize(("request_", "body"), REQUESTS, ids=KINDS)
def test_a_request_survives_being_kept(request_: Request, body: dict[str, Any]) -> None:
    """
    A request that was written as text is read as an equal one, and writes the same text.
    """
    text = dump_request(request_)
    assert request_ == load_request(text)
    assert text == dump_request(load_request(text))


# --- what a record says ----------------------------------------------------------------------------------

ERROR = {"code": "api_error", "message": "fetch failed"}
LINKLESS: dict[str, Any] = {"success": True, "data": [{"id": "v", "state": "succeeded", "video_url": None}]}
BAD_LINKS = (
    None,
    "",
    7,
    ["https://cdn.example/v"],
    "/v.mp4",
    "cdn.example/v",
    "file:///etc/passwd",
    "https://",
    "https://[cdn/v",
    "https://cdn.example/\ud800",
)
RECORDS: list[tuple[str, dict[str, Any], TaskState]] = [
    ("documented pending", sample("task_pending_inferred"), PENDING),
    ("documented success", sample("task_succeeded"), SUCCEEDED),
    ("newest success", sample("task_succeeded_newest"), SUCCEEDED),
    ("documented failure", sample("task_failed_inferred"), FAILED),
    ("response null", with_response(None), PENDING),
    ("response empty", with_response({}), PENDING),
    ("response text", with_response("soon"), PENDING),
    ("response null although finished", with_response(None, finished_at=1.0), PENDING),
    ("success without data", with_response({"success": True, "task_id": "1"}), PENDING),
    ("data empty", with_response({"success": True, "data": []}), PENDING),
    ("data null", with_response({"success": True, "data": None}), PENDING),
    ("data null, finished null", with_response({"success": True, "data": None}, finished_at=None), PENDING),
    ("data empty, finished", with_response({"success": True, "data": []}, finished_at=1.0), FAILED),
    *(
        (f"data empty, finished {never!r}", with_response({"success": True, "data": []}, finished_at=never), PENDING)
        for never in (0, 0.0, "", False)
    ),
    ("data not items", with_response({"success": True, "data": ["x"]}), PENDING),
    ("data one object", with_response({"success": True, "data": with_item()["data"][0]}), SUCCEEDED),
    ("no success flag", with_response({"data": with_item()["data"]}), SUCCEEDED),
    *((f"item {word}", with_response(with_item(state=word)), PENDING) for word in ("running", "processing", "pending", "queued", "Queued")),
    *((f"item {word}", with_response(with_item(state=word)), SUCCEEDED) for word in ("succeeded", "succeed", "success", "completed", "complete", "finished", "SUCCEEDED")),
    *((f"item {word}", with_response(with_item(state=word)), FAILED) for word in ("failed", "failure", "error", "cancelled", "canceled", "rejected")),
    ("success word without video", with_response(with_item(video_url=None)), FAILED),
    *((f"success word, video {url!r}", with_response({"success": True, "data": [{"state": "succeeded", "video_url": url}]}), PENDING) for url in BAD_LINKS),
    ("success word above, video null", with_response({"success": True, "state": "succeeded", "data": [{"video_url": None}]}), PENDING),
    ("success word above, video", with_response({"state": "succeeded", "data": with_item(state=None)["data"]}), SUCCEEDED),
    ("video null, finished", with_response(LINKLESS, finished_at=1.0), PENDING),
    ("video null, no word, finished", with_response({"success": True, "data": [{"video_url": None}]}, finished_at=1.0), PENDING),
    ("video null, error code", with_response(LINKLESS | {"success": False, "error": ERROR}), FAILED),
    ("video null, failure word", with_response({"success": True, "data": [{"state": "failed", "video_url": None}]}), FAILED),
    ("one has a link, one has none yet", with_response({"success": True, "data": [*with_item()["data"], *LINKLESS["data"]]}), SUCCEEDED),
    ("one failed, one has no link yet", with_response({"success": True, "data": [*with_item(state="failed")["data"], *LINKLESS["data"]]}), PENDING),
    ("a link in capitals", with_response(with_item(video_url="HTTPS://CDN.EXAMPLE/V.MP4")), SUCCEEDED),
    ("top word without data", with_response({"success": True, "state": "succeeded"}), FAILED),
    ("no word, video", with_response(with_item(state=None)), SUCCEEDED),
    ("no word, no video", with_response(with_item(state=None, video_url=None)), PENDING),
    ("no word, no video, finished", with_response(with_item(state=None, video_url=None), finished_at=1.0), FAILED),
    ("unknown word, video", with_response(with_item(state="rendered")), SUCCEEDED),
    ("unknown word, no video", with_response(with_item(state="rendering", video_url=None)), PENDING),
    ("word not a string", with_response(with_item(state=1)), SUCCEEDED),
    ("one runs, one is done", with_response({"success": True, "data": [*with_item()["data"], *with_item(state="running")["data"]]}), PENDING),
    ("one failed, one is done", with_response({"success": True, "data": [*with_item()["data"], *with_item(state="failed")["data"]]}), SUCCEEDED),
    ("structured error", with_response({"success": False, "error": ERROR}), FAILED),
    ("structured error, finished", with_response({"success": False, "error": ERROR}, finished_at=1.0), FAILED),
    ("error text", with_response({"success": False, "error": "fetch failed"}), PENDING),
    ("error null", with_response({"success": False, "error": None}), PENDING),
    ("error without code", with_response({"success": False, "error": {"message": "x"}}), PENDING),
    ("no error", with_response({"success": False}), PENDING),
    ("error text, finished", with_response({"success": False, "error": "fetch failed"}, finished_at=1.0), FAILED),
    ("error null, finished", with_response({"success": False, "error": None}, finished_at=1.0), FAILED),
    ("the callback of a failure", with_response(sample("callback_failed")), FAILED),
    ("the callback of a success", with_response(sample("callback_succeeded")), SUCCEEDED),
]  # fmt: skip


@pytest.mark.parametrize(("record", "state"), [row[1:] for row in RECORDS], ids=[row[0] for row in RECORDS])
def test_records_are_told_apart(record: dict[str, Any], state: TaskState) -> None:
    """
    Every documented, seen or inferred shape of a record is pending, succeeded or failed.
    """
    assert state is classify(record)


def test_a_record_is_read_whole() -> None:
    """
    The documented record gives its ids, times with their zone, the echoed request and the video.
    """
    record = task_record(sample("task_succeeded_newest"))
    beijing = timezone(timedelta(hours=8))
    assert "1ebe4f2b-59ba-4385-a4ea-0ce8a3fe12ed" == record.id
    assert "d1d53c04-58c5-4c40-bb63-f00188540e56" == record.trace_id
    assert "videos" == record.type
    assert SUCCEEDED is record.state
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
    assert FAILED is record.state
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
    assert Standings([], {}, []) == standings([item], ["1"])
    assert Standings(["1"], {}, []) == standings([item, {"id": "1", "response": None}, item], ["1"])


@pytest.mark.parametrize("response", [None, {}, {"success": None}])
def test_a_record_without_an_answer_is_of_a_pending_task(response: object) -> None:
    """
    Neither the shape known for it, nor an answer with nothing in it, is an end; twice is once.
    """
    record = {"id": "1", "response": response}
    assert classify(record) is PENDING
    assert Standings(["1"], {}, []) == standings([record, record], ["1"])


def test_an_end_outranks_a_pending_record_of_the_same_task() -> None:
    """
    Whichever comes first: a task does not come back from its end.
    """
    pending, record = {"id": "1", "response": None}, ended("1")
    for items in [pending, record], [record, pending]:
        assert Standings([], {"1": record}, []) == standings(items, ["1"])


def test_a_response_that_names_another_task_is_not_believed() -> None:
    """
    Neither its video nor its failure is this task's: it is looked at on.
    """
    for name in ("task_succeeded", "task_failed_inferred"):
        response = sample(name)["response"]
        assert PENDING is classify({"id": "another", "finished_at": 1.0, "response": response})


def test_a_video_outranks_a_failure_of_the_same_task() -> None:
    """
    Whichever comes first: the video is there, and was paid for.
    """
    failed = ended("1")
    video = {"id": "1", "response": sample("task_succeeded")["response"] | {"task_id": "1"}}
    assert classify(video) is SUCCEEDED
    for items in [failed, video], [video, failed]:
        assert Standings([], {"1": video}, []) == standings(items, ["1"])


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
    assert linkless == [*standings([{"id": "t", "response": response}], ["t"]).linkless]


def test_an_end_nested_too_deep_cannot_be_read() -> None:
    """
    It could not be kept in a journal. Its task is known all the same, and the records of others still count.
    """
    note: object = None
    for _ in range(MAX_DEPTH):
        note = [note]
    deep, pending = ended("1", note), {"id": "1"}
    known = Standings(["2"], {"3": ended("3")}, ["1"])
    for about_it in [deep], [deep, pending], [pending, deep]:
        assert known == standings([*about_it, {"id": "2"}, ended("3")], ["1", "2", "3"])
    assert Standings([], {"1": ended("1")}, []) == standings([deep, ended("1")], ["1"])


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


# --- outcomes --------------------------------------------------------------------------------------------


def test_a_result_survives_being_kept() -> None:
    """
    A result that was written as text is read as an equal one.
    """
    request = TextToVideo("a")
    result = video_result("1", sample("task_succeeded"), request)
    kept = load_outcome(dump_outcome(result), request)
    assert isinstance(kept, VideoResult)
    assert result == kept
    assert result.raw == kept.raw


def test_a_failure_survives_being_kept() -> None:
    """
    A failure that was written as text keeps its code, its words and its ids.
    """
    failure = failure_of("1", sample("task_failed_inferred"))
    kept = load_outcome(dump_outcome(failure), None)
    assert isinstance(kept, JobFailed)
    assert (failure.args, failure.code, failure.trace_id, failure.task_id) == (
        kept.args,
        kept.code,
        kept.trace_id,
        kept.task_id,
    )


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (sample("error_api_error"), "api_error", "fetch failed"),
        (sample("error_invalid_token"), "invalid_token", "The specified token is invalid or wrong."),
        ({"error": "out\nof order"}, None, "out of order"),
        ({"error": ["a", {"msg": "b"}, None]}, None, "a; b"),
        ({"error": None, "detail": "no"}, None, "no"),
        ({"error": None}, None, ""),
        ({"detail": [{"loc": ["body"], "msg": "field required"}]}, None, "field required"),
        ({"detail": {"why": 1}}, None, '{"why": 1}'),
        ({"message": "no"}, None, "no"),
        ({"error": {"code": 7, "detail": "no"}}, None, "no"),
        ({"error": {"code": "", "message": "no"}}, None, "no"),
        ("plain", None, "plain"),
        (None, None, ""),
        ({"error": "x" * 10_000}, None, "x" * 500),
        ({"error": "\ud800"}, None, "?"),
    ],
)
def test_error_bodies_of_every_shape_give_code_and_message(
    body: object, code: str | None, message: str
) -> None:
    """
    Objects, strings, lists, null, `detail` and plain text are understood, on one line of bounded length.
    """
    assert (code, message) == code_and_message(body)


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

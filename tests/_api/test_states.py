"""
What a raw record says of its task: pending, succeeded or failed.
"""

from __future__ import annotations

from typing import Any

import pytest

from veo_async._api.records import TaskState
from veo_async._api.states import classify

from .bodies import LINKLESS, sample, with_item, with_response

PENDING, SUCCEEDED, FAILED = TaskState.PENDING, TaskState.SUCCEEDED, TaskState.FAILED
ERROR = {"code": "api_error", "message": "fetch failed"}
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

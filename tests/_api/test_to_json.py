"""
Records as plain values: what an application sends on as JSON.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.virtual import VirtualLoop, World
from tests.virtual.scripted import in_virtual_time, whale, whales
from veo_async import ImageToVideo, Job, JobState, JobUpdate, PollPolicy, TaskRecord, Video, VideoResult
from veo_async._api.tasks import task_record
from veo_async.simulator import Settings

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
VIDEO = Video(id="v", task_id="t", url="https://cdn.example/v.mp4", created_at=AT, raw={"id": "v"})


def test_an_update_is_plain() -> None:
    """
    States are words, times are ISO 8601, and what is not known is null.
    """
    update = JobUpdate(
        state=JobState.PENDING, at=AT, task_id="t", looks=3, expected_at=AT + timedelta(minutes=1)
    )
    told = {
        "state": "pending",
        "at": "2026-01-02T03:04:05+00:00",
        "task_id": "t",
        "looks": 3,
        "expected_at": "2026-01-02T03:05:05+00:00",
    }
    assert told == json.loads(json.dumps(update.to_dict()))
    assert {str} == {type(value) for value in update.to_dict().values() if isinstance(value, str)}


def test_a_result_is_plain() -> None:
    """
    With its request, by the name of its class, and its videos; the server's answer only where it is asked for.
    """
    request = ImageToVideo("a whale", ["https://example.com/a.jpg"])
    result = VideoResult(task_id="t", trace_id="x", request=request, videos=(VIDEO,), raw={"id": "t"})
    told = json.loads(json.dumps(result.to_dict()))
    asked, [video] = told.pop("request"), told.pop("videos")
    assert {"task_id": "t", "trace_id": "x"} == told
    assert ("ImageToVideo", "a whale") == (asked["kind"], asked["prompt"])
    assert (["https://example.com/a.jpg"], None) == (asked["image_urls"], asked["resolution"])
    assert ("v", "2026-01-02T03:04:05+00:00", None) == (
        video["id"],
        video["created_at"],
        video["completed_at"],
    )
    assert "raw" not in video
    assert {"id": "t"} == result.to_dict(raw=True)["raw"]
    assert VideoResult(task_id="t", videos=()).to_dict()["request"] is None


def test_a_record_is_plain() -> None:
    """
    A failed task tells its code and message; the echo of the request is as the server sent it.
    """
    raw: dict[str, Any] = {
        "id": "t",
        "created_at": AT.timestamp(),
        "request": {"prompt": "a whale", "image_urls": ["https://example.com/a.jpg"]},
        "response": {"success": False, "error": {"code": "api_error", "message": "fetch failed"}},
    }
    record = task_record(raw)
    told = json.loads(json.dumps(record.to_dict()))
    assert ("failed", "2026-01-02T03:04:05+00:00") == (told["state"], told["created_at"])
    assert {"code": "api_error", "message": "fetch failed"} == told["error"]
    assert (raw["request"], []) == (told["request"], told["videos"])
    assert "raw" not in told
    assert raw == record.to_dict(raw=True)["raw"]
    assert TaskRecord(id="t", state=record.state).to_dict()["finished_at"] is None


@in_virtual_time
async def test_the_counts_of_a_session_are_plain() -> None:
    """
    Each state is a word, and counts are numbers.
    """
    async with World(Settings(duration=lambda body: 10.0)).session() as veo:
        await veo.submit(whale())
        told = json.loads(json.dumps(veo.stats.to_dict()))
    assert {state.value: int(state is JobState.SUCCEEDED) for state in JobState} == told["jobs"]
    assert (1, 0) == (told["requests"]["submit"], told["retries"])


# --- when a task will probably have ended ----------------------------------------------------------------


async def expectations(updates: Any) -> list[tuple[JobState, float | None]]:
    """
    For each update its state, and how many seconds after the first one the end is expected.
    """
    seen: list[tuple[JobState, float | None]] = []
    begun: float | None = None
    async for update in updates:
        expected = update.expected_at and update.expected_at.timestamp()
        begun = begun or expected
        seen.append((update.state, expected and expected - (begun or 0.0)))
    return seen


@in_virtual_time
async def test_an_end_is_expected_while_a_task_is_pending() -> None:
    """
    Nothing is expected before its acceptance, nor once it has ended; in between, it is what the documents say.
    """
    world = World(Settings(duration=lambda body: 100.0))
    async with world.session() as veo:
        job = veo.submit(whale())
        seen = await expectations(job.updates())
    assert {True} == {(expected is not None) == (state is JobState.PENDING) for state, expected in seen}
    assert len(seen) > 3


async def expected_for(job: Job) -> float | None:
    """
    In how many seconds the end of a job that was just accepted is expected.
    """
    await job.accepted()
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    expected_at = job._update().expected_at
    return None if expected_at is None else expected_at.timestamp() - loop.unix_time()


@in_virtual_time
async def test_what_was_learned_is_expected() -> None:
    """
    After two hundred tasks of a minute the next is expected soon after a minute; another scale scales that.
    """
    for scale in (1.0, 0.1):
        world = World(Settings(duration=lambda body, scale=scale: 60.0 * scale))  # type: ignore[misc]
        async with world.session(polling=PollPolicy().scaled(scale)) as veo:
            before = await expected_for(veo.submit(whale()))
            async for _ in veo.as_completed(veo.submit_many(whales(200))):
                pass
            after = await expected_for(veo.submit(whale(201)))
        assert before is not None
        assert after is not None
        assert 150.0 < before / scale < 200.0
        assert 60.0 < after / scale < 80.0


@in_virtual_time
async def test_nothing_is_expected_of_a_task_that_nobody_here_saw_begin() -> None:
    """
    How old it is when it is attached is not known.
    """
    world = World(Settings(duration=lambda body: 100.0))
    async with world.session() as veo:
        task_id = await veo.submit(whale()).accepted()
    async with world.session() as veo:
        assert await expected_for(veo.attach(task_id)) is None

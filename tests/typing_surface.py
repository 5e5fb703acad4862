"""
The public surface as a type checker sees it: nothing here runs, mypy and pyright read it.

`assert_type` holds what a caller gets; an ignored error, which both checkers demand to be one, what he may not do.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, assert_type

import aiohttp

from veo_async import (
    MODELS,
    AccountLimits,
    ApiError,
    Event,
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    InvalidRequest,
    Job,
    JobFailed,
    JobState,
    JobUpdate,
    Limits,
    LocalImage,
    Model,
    Observer,
    PollPolicy,
    PostgresJournal,
    RateLimited,
    RemoveObject,
    Request,
    Reshoot,
    RetryPolicy,
    SessionStats,
    SubmissionUnknown,
    TaskError,
    TaskRecord,
    TaskState,
    TextToVideo,
    Upsample,
    VeoError,
    VeoSession,
    Video,
    VideoResult,
)
from veo_async.events import Accepted, Looked, Settled
from veo_async.telemetry import LogObserver, OpenTelemetryObserver
from veo_async.testing import Purchase, VeoClock, VeoSimulator


def observers(event: Event) -> None:
    """
    Watch a session, by an observer of one's own and by those of the package.
    """
    one: Observer = observers
    VeoSession(observers=[one, observers, LogObserver(), OpenTelemetryObserver(), print])
    assert_type(event.at, float)
    if isinstance(event, Accepted):
        assert_type((event.key, event.task_id, event.found), tuple[str, str, bool])
    elif isinstance(event, Looked):
        assert_type((event.task_ids, event.seconds), tuple[tuple[str, ...], float])
    elif isinstance(event, Settled):
        assert_type((event.task_id, event.error, event.videos), tuple[str | None, str | None, int])
    VeoSession(observers=["print"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]


async def sessions(http: aiohttp.ClientSession) -> None:
    """
    Make sessions from nothing, from one token, and from everything.
    """
    async with VeoSession() as veo:
        assert_type(veo, VeoSession)
        assert_type(veo.stats, SessionStats)
        assert_type(veo.stats.to_dict(), dict[str, Any])
    VeoSession("token")
    VeoSession(
        token="token",
        base_url="https://api.example",
        http=http,
        polling=PollPolicy(
            mode="fixed", interval=3, first_look=None, max_gap=30.0, batch_size=50, budget=10.0
        ),
        retry=RetryPolicy(first=1.0, factor=2.0, max_delay=30.0, max_pause=300.0, grace=60.0, drain=5.0),
        limits=Limits(max_in_flight=5, submits_per_second=0.5, connections=100, connect=10.0, read=60.0),
    )
    Limits(max_reply=1 << 24, max_queue_wait=60.0, max_videos=100, max_credits=50.0)
    assert_type(PollPolicy(deadline=1800.0).scaled(0.1), PollPolicy)
    assert_type(RetryPolicy().scaled(0.1), RetryPolicy)
    VeoSession("token", "https://api.example")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    PollPolicy(mode="sometimes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def shared_limits(journal: PostgresJournal) -> None:
    """
    Set limits for all sessions of an account.
    """
    await journal.set_limits(AccountLimits(submits_per_second=2, burst=5, max_in_flight=None))
    assert_type(await journal.limits(), AccountLimits)
    AccountLimits(burst=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def requests(video: Video) -> list[Request]:
    """
    Make a request of every kind, with every field.
    """
    hook = "https://example.com/hook"
    TextToVideo("a whale")
    ImageToVideo("a whale", ["https://example.com/a.jpg"])
    IngredientsToVideo(("https://example.com/a.jpg",))
    Upsample(video, "4k")
    InsertObject("video-id", "a hat")
    RemoveObject(video, "https://example.com/mask.jpg", callback_url=hook)
    TextToVideo()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    TextToVideo(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ImageToVideo("a whale", [Path("a.jpg"), b"\xff\xd8\xff", "https://example.com/a.jpg"])
    RemoveObject(video, Path("mask.jpg"))
    InsertObject(video, "a hat", image_mask=b"\xff\xd8\xff")
    assert_type(LocalImage("sha256:").path, str | None)
    ImageToVideo("a whale", 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Get1080p(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return [
        TextToVideo(
            "a whale",
            model="veo31",
            resolution="4k",
            aspect_ratio="9:16",
            translation=True,
            callback_url=hook,
        ),
        ImageToVideo(
            "a whale", (url for url in ("https://example.com/a.jpg",)), model="veo31", aspect_ratio="16:9"
        ),
        IngredientsToVideo(["https://example.com/a.jpg"], "a whale", resolution="1080p"),
        Get1080p(video, model="veo31"),
        Upsample("video-id", target="4k"),
        Extend(video, "it dives", model="veo31", resolution="720p", aspect_ratio="16:9"),
        Reshoot("video-id", motion_type="FORWARD"),
        InsertObject(video, prompt="a hat", image_mask="https://example.com/mask.jpg"),
        RemoveObject(video_id=video, image_mask="https://example.com/mask.jpg"),
    ]


async def submitting(veo: VeoSession, video: Video) -> None:
    """
    Submit in every way there is.
    """
    assert_type(veo.submit(TextToVideo("a whale"), key="order-7", timeout=600.0, retry_failed=True), Job)
    assert_type(veo.submit_many(requests(video)), list[Job])
    assert_type(veo.submit_many([("order-7", TextToVideo("a whale"))]), list[Job])
    assert_type(veo.text_to_video("a whale", model="veo31"), Job)
    assert_type(veo.image_to_video("a whale", ["https://example.com/a.jpg"], resolution="gif"), Job)
    assert_type(veo.ingredients_to_video(["https://example.com/a.jpg"], "a whale"), Job)
    assert_type(veo.get_1080p(video, model="veo31"), Job)
    assert_type(veo.upsample("video-id", "4k"), Job)
    assert_type(veo.extend(video, "it dives", model="veo31"), Job)
    assert_type(veo.reshoot(video, "FORWARD"), Job)
    assert_type(veo.insert_object(video, "a hat"), Job)
    assert_type(veo.remove_object("video-id", "https://example.com/mask.jpg"), Job)
    assert_type(await veo.price(TextToVideo("a whale")), float | None)
    veo.image_to_video("a whale", [Path("a.jpg")])
    assert_type(veo.attach("task-id", timeout=600.0), Job)
    veo.text_to_video("a whale", resolution=None, key="order-7", timeout=600, retry_failed=True)
    veo.insert_object(video, "a hat", image_mask="https://example.com/mask.jpg", callback_url=None)
    veo.text_to_video("a whale", modell="veo31")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    veo.text_to_video("a whale", model=31)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    veo.upsample(video, "4k", model="veo31")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    veo.submit("a whale")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def _endless() -> AsyncIterator[tuple[str, TextToVideo]]:
    while True:
        yield "order-7", TextToVideo("a whale")


async def many(veo: VeoSession, prompts: list[str]) -> None:
    """
    Go through settled jobs as they come, also from an endless source.
    """
    async for job in veo.as_completed(veo.submit_many(TextToVideo(prompt) for prompt in prompts)):
        assert_type(job, Job)
    async for job in veo.map((TextToVideo(prompt) for prompt in prompts), window=10, ordered=True):
        assert_type(job, Job)
    async for job in veo.map(_endless()):
        assert_type(job, Job)


async def jobs(job: Job) -> None:
    """
    Ask a job for everything it knows.
    """
    assert_type(await job, VideoResult)
    assert_type(await job.accepted(), str)
    assert_type(job.key, str)
    assert_type(job.request, Request | None)
    assert_type(job.task_id, str | None)
    assert_type(job.trace_id, str | None)
    assert_type(job.state, JobState)
    assert_type(job.done(), bool)
    assert_type(job.result(), VideoResult)
    assert_type(job.exception(), VeoError | None)
    async for update in job.updates():
        assert_type(update, JobUpdate)
        assert_type(
            (update.state, update.at, update.task_id, update.looks, update.expected_at),
            tuple[JobState, datetime, str | None, int, datetime | None],
        )
        assert_type(update.to_dict(), dict[str, Any])
    job.add_done_callback(lambda settled: print(settled.key))
    job.abandon()
    async with asyncio.timeout(60):
        await job
    both = await asyncio.gather(job, job)
    assert_type(both, tuple[VideoResult, VideoResult])


async def asking(veo: VeoSession, at: datetime) -> None:
    """
    Look tasks up.
    """
    assert_type(await veo.retrieve("task-id"), TaskRecord)
    assert_type(await veo.retrieve(trace_id="trace-id"), TaskRecord)
    assert_type(await veo.retrieve_many(["task-id"]), dict[str, TaskRecord])
    async for record in veo.list_tasks(created_from=at, created_to=at, type="videos", limit=100):
        assert_type(record, TaskRecord)
        assert_type(record.state, TaskState)
        assert_type(record.videos, tuple[Video, ...])
        assert_type(record.error, TaskError | None)
        assert_type(record.request, Mapping[str, Any])
        assert_type(record.finished_at, datetime | None)
        assert_type(record.to_dict(raw=True), dict[str, Any])


async def results(veo: VeoSession, result: VideoResult, progress: list[tuple[int, int | None]]) -> None:
    """
    Take the video, and the file.
    """
    assert_type(result.video, Video)
    assert_type(result.videos, tuple[Video, ...])
    assert_type((result.task_id, result.trace_id), tuple[str, str | None])
    assert_type(result.request, Request | None)
    assert_type((result.video.id, result.video.url), tuple[str, str])
    assert_type(result.video.completed_at, datetime | None)
    assert_type(result.raw, Mapping[str, Any])
    assert_type(result.to_dict(raw=True), dict[str, Any])
    assert_type(await veo.download(result.video, "whale.mp4"), Path)
    await veo.download(
        result.video, Path("videos"), progress=lambda done, total: progress.append((done, total))
    )
    result.task_id = "another"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def tables() -> None:
    """
    Read the table of models.
    """
    assert_type(MODELS["veo31"], Model)
    assert_type(MODELS["veo31"].images, Mapping[int, str])
    assert_type(MODELS["veo31"].resolutions, tuple[str, ...])


def errors(error: VeoError) -> None:
    """
    Read the evidence that an error carries.
    """
    assert_type((error.key, error.task_id), tuple[str | None, str | None])
    if isinstance(error, InvalidRequest):
        assert_type(error.violations, tuple[str, ...])
    elif isinstance(error, RateLimited):
        assert_type(error.retry_after, float | None)
    elif isinstance(error, ApiError):
        assert_type((error.status, error.code), tuple[int | None, str | None])
        assert_type((error.message, error.trace_id), tuple[str, str | None])
    elif isinstance(error, SubmissionUnknown):
        assert_type((error.sent_at, error.candidates), tuple[float | None, tuple[str, ...]])
    elif isinstance(error, JobFailed):
        assert_type((error.code, error.message, error.trace_id), tuple[str | None, str, str | None])


def fixtures(veo_simulator: VeoSimulator, veo_clock: VeoClock) -> None:
    """
    Test a program with the fixtures of the pytest plugin.
    """
    script = veo_simulator.script(
        prompt="*storm*", type="text2video", model="veo31*", times=1, fails="forbidden"
    )
    assert_type(script.matched, int)
    veo_simulator.script(refused="used_up", message="no money")
    veo_simulator.script(takes=120.0, videos=2)
    assert_type(len(veo_simulator.unused_scripts), int)
    assert_type(veo_simulator.fault("drop_after@submit", share=0.1).seed, int)
    assert_type(veo_simulator.bought, list[Purchase])
    assert_type([purchase.prompt for purchase in veo_simulator.bought], list[str | None])
    assert_type(veo_simulator.requests, Counter[str])
    veo_simulator.assert_bought_once()
    veo_simulator.assert_bought_once(by="key")
    assert_type((veo_clock.elapsed, veo_clock.unix_time()), tuple[float, float])
    with veo_clock.held():
        pass
    veo_simulator.script(promt="*storm*")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

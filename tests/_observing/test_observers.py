"""
Observers: what they are told of a job, in which order, and what becomes of one that raises.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.virtual import World
from tests.virtual.chaos import play
from tests.virtual.scripted import Options, answer, ended, in_virtual_time, scripted, whale
from veo_async import ConfigurationError, Event, JobState, PollPolicy, RetryPolicy, VeoSession
from veo_async import events as events_room
from veo_async._http.transport import Reply
from veo_async._observing.observers import Observers
from veo_async.events import (
    Accepted,
    Attached,
    Downloaded,
    DownloadRetried,
    LimitsReached,
    Looked,
    LookFailed,
    Looking,
    LookRefused,
    Misnamed,
    Orphaned,
    OutageBegan,
    OutageEnded,
    Paused,
    Reconciled,
    Refused,
    Resumed,
    Retried,
    Sending,
    Settled,
    Submitted,
    Unanswered,
)
from veo_async.simulator import TOKEN, Faults, Settings, Simulator
from veo_async.telemetry import LogObserver


def ten_seconds(faults: Faults | None = None, **changes: Any) -> World:
    return World(Settings(duration=lambda body: 10.0, **changes), faults=faults)


def story(told: Sequence[Event], *left_out: type[Event]) -> str:
    """
    The names of the events in order, repetitions of looks as one.
    """
    names = " ".join(type(event).__name__ for event in told if not isinstance(event, left_out))
    return re.sub(r"(Looking Looked)( \1)*", "Looks", names)


@in_virtual_time
async def test_a_job_that_succeeds(options: Options) -> None:
    """Each event comes once, with the job's key, the task's id, and times that do not fall."""
    told: list[Event] = []
    async with ten_seconds().session(observers=[told.append], **options()) as veo:
        job = veo.submit(whale(), key="k")
        result = await job
    assert "Submitted Sending Accepted Looks Settled" == story(told)
    assert Submitted(told[0].at, "k", "TextToVideo", "veo31-fast") == told[0]
    assert Sending(told[1].at, "k", 1) == told[1]
    assert Accepted(told[2].at, "k", result.task_id, job.trace_id, found=False) == told[2]
    assert Looking(told[3].at, (result.task_id,)) == told[3]
    settled = {"state": "succeeded", "videos": 1, "error": None, "reason": None}
    task = {"task_id": result.task_id, "trace_id": job.trace_id}
    assert Settled(told[-1].at, key="k", **task, **settled) == told[-1]  # type: ignore[arg-type]
    assert sorted(event.at for event in told) == [event.at for event in told]
    assert told[-1].at - told[0].at >= 10.0


@in_virtual_time
async def test_a_job_that_fails(options: Options) -> None:
    """The end names the error."""
    told: list[Event] = []
    async with ten_seconds(failure_share=1.0).session(observers=[told.append], **options()) as veo:
        await ended(veo.submit(whale()))
    assert "Submitted Sending Accepted Looks Settled" == story(told)
    assert isinstance(told[-1], Settled)
    assert ("failed", "JobFailed", 0) == (told[-1].state, told[-1].error, told[-1].videos)


@in_virtual_time
async def test_a_job_that_is_refused(options: Options) -> None:
    """A refusal is told of when it comes, and the end when no listing has shown a task."""
    told: list[Event] = []
    session, transport = scripted(ten_seconds(), observers=[told.append], **options())
    transport.submits.append(answer(403, {"error": {"code": "used_up", "message": "no money"}}))
    async with session as veo:
        await ended(veo.submit(whale(), key="k"))
    assert "Submitted Sending Refused Settled" == story(told)
    assert Refused(told[2].at, "k", 1, "InsufficientBalance", told[2].reason) == told[2]  # type: ignore[attr-defined]
    assert told[2].at < told[3].at
    assert isinstance(told[3], Settled)
    assert ("stopped", "InsufficientBalance", None) == (told[3].state, told[3].error, told[3].task_id)


@in_virtual_time
async def test_a_job_that_is_retried_after_429(options: Options) -> None:
    """The submits pause, the job goes back, is sent again as a second attempt, and its answer ends the pause."""
    told: list[Event] = []
    session, transport = scripted(ten_seconds(), observers=[told.append], **options())
    transport.submits.append(answer(429, {"error": {"code": "too_many_requests"}}, retry_after="7"))
    async with session as veo:
        await veo.submit(whale(), key="k")
    assert "Submitted Sending Paused Retried Sending Resumed Accepted Looks Settled" == story(told)
    paused, retried, again, resumed = told[2:6]
    assert isinstance(paused, Paused)
    assert isinstance(resumed, Resumed)
    assert ("submits", "submits") == (paused.lane, resumed.lane)
    assert 7.0 <= paused.seconds <= resumed.seconds == pytest.approx(resumed.at - paused.at)
    assert paused.reason == retried.reason  # type: ignore[attr-defined]
    assert Retried(retried.at, "k", 1, paused.reason or "") == retried
    assert Sending(again.at, "k", 2) == again


@in_virtual_time
async def test_an_outage_pauses_until_a_probe_gets_through(options: Options) -> None:
    """Each failed probe pauses longer; the outage, and then the pauses, end once."""
    told: list[Event] = []
    world = ten_seconds()
    async with world.session(observers=[told.append], **options()) as veo:
        transport: Any = veo._transport
        transport.cut_off = True
        job = veo.submit(whale())
        await asyncio.sleep(60.0)
        transport.cut_off = False
        await job
    seen = Counter(type(event) for event in told if getattr(event, "lane", "submits") == "submits")
    assert 3 < seen[Paused]
    assert (1, 1, 1) == (seen[Resumed], seen[OutageBegan], seen[OutageEnded])
    assert story(told, Paused).endswith("OutageEnded Resumed Resumed Sending Accepted Looks Settled")


@in_virtual_time
async def test_a_job_that_is_reconciled(options: Options) -> None:
    """The answer is lost: the listing shows the task, which was found."""
    told: list[Event] = []
    world = ten_seconds(Faults().add("drop_after", on="submit", times=1))
    async with world.session(observers=[told.append], **options()) as veo:
        result = await veo.submit(whale(), key="k")
    assert "Submitted Sending Unanswered Accepted Reconciled Looks Settled" == story(told)
    assert Unanswered(told[2].at, "k", 1, "ConnectionFailed", told[2].reason) == told[2]  # type: ignore[attr-defined]
    assert Accepted(told[3].at, "k", result.task_id, None, found=True) == told[3]
    assert Reconciled(told[4].at, "k", result.task_id, refused=False) == told[4]


@in_virtual_time
async def test_a_refusal_that_is_not_true() -> None:
    """The server refuses what it has accepted: the listing shows it."""
    told: list[Event] = []
    world = ten_seconds()
    session, transport = scripted(world, observers=[told.append])

    async def accepted_and_refused(body: bytes) -> Reply:
        world.core.post("/veo/videos", json.loads(body))
        return answer(400, {"error": {"code": "bad_request"}})

    transport.submits.append(accepted_and_refused)
    async with session as veo:
        result = await veo.submit(whale(), key="k")
    assert "Submitted Sending Refused Accepted Reconciled Looks Settled" == story(told)
    assert Reconciled(told[4].at, "k", result.task_id, refused=True) == told[4]


@in_virtual_time
async def test_an_answer_that_names_another_jobs_task() -> None:
    """It is told of when a record shows it."""
    told: list[Event] = []
    world = ten_seconds()
    session, transport = scripted(world, observers=[told.append])

    async def names_a_stranger(body: bytes) -> Reply:
        mine = json.loads(body)
        world.core.post("/veo/videos", mine | {"callback_url": mine["callback_url"].replace("?", "?x")})
        return answer(200, {"task_id": next(iter(world.core.tasks))})

    async with session as veo:
        first = veo.submit(whale(), key="first")
        await first.accepted()
        transport.submits.append(names_a_stranger)
        second = veo.submit(whale(), key="second")
        await asyncio.gather(ended(first), ended(second))
    doubts = [event for event in told if isinstance(event, Unanswered | Misnamed)]
    assert [("second", "Unanswered")] == [(event.key, type(event).__name__) for event in doubts]
    assert doubts[0].error is None  # type: ignore[union-attr]


@in_virtual_time
async def test_attached_and_abandoned_jobs() -> None:
    """A job that only waits is attached; a task that comes too late for its job is an orphan."""
    told: list[Event] = []
    session, transport = scripted(ten_seconds(), observers=[told.append])
    async with session as veo:
        task_id = (await veo.submit(whale())).task_id
        told.clear()
        waiting = veo.attach("another-task")
        assert "Attached Accepted" == story(told)
        waiting.abandon()
        told.clear()
        transport.open.clear()
        job = veo.submit(whale(1), key="late")
        await asyncio.sleep(0.1)
        assert 2 == transport.arrived
        job.abandon()
        transport.open.set()
        await asyncio.sleep(1.0)
    assert "Submitted Sending Settled Orphaned" == story(told)
    assert isinstance(told[3], Orphaned)
    assert ("late", True) == (told[3].key, told[3].task_id != task_id)


@in_virtual_time
async def test_looks_that_fail_and_are_refused() -> None:
    """Each failed look is told of, and a refusal of such requests once more, but only the first one."""
    told: list[Event] = []
    session, transport = scripted(ten_seconds(), observers=[told.append])
    bad = answer(400, {"error": {"code": "bad_request", "message": "what is that?"}})
    transport.asks.extend([bad, answer(500), bad])
    async with session as veo:
        await veo.submit(whale())
    failures = story([event for event in told if isinstance(event, LookFailed | LookRefused)])
    assert "LookFailed LookRefused LookFailed LookFailed" == failures
    looks = Counter(type(event) for event in told)
    assert looks[Looking] == looks[Looked] + looks[LookFailed]


async def test_downloads(tmp_path: Path) -> None:
    """A download that breaks off is told of, and the file when it is complete."""
    told: list[Event] = []
    faults = Faults().add("drop_mid", on="download", times=1)
    async with (
        Simulator(Settings(speed=1000.0), faults=faults) as sim,
        VeoSession(
            sim.token,
            base_url=sim.url,
            polling=PollPolicy().scaled(0.001),
            retry=RetryPolicy().scaled(0.001),
            observers=[told.append],
        ) as veo,
    ):
        result = await veo.submit(whale())
        told.clear()
        path = await veo.download(result.video, tmp_path / "whale.mp4")
    assert "DownloadRetried Downloaded" == story(told)
    broken, whole = told
    assert isinstance(broken, DownloadRetried)
    assert isinstance(whole, Downloaded)
    assert (result.task_id, result.video.id) == (broken.task_id, broken.video_id)
    assert (str(path), path.stat().st_size) == (whole.path, whole.size)


# --- observers themselves --------------------------------------------------------------------------------


@in_virtual_time
async def test_one_that_raises_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    """The log names it, once; the job, and the other observers, do not notice."""
    told: list[Event] = []
    calls: list[Event] = []

    def raises(event: Event) -> None:
        calls.append(event)
        raise asyncio.CancelledError if len(caplog.records) else LookupError("mine")

    async with ten_seconds().session(observers=[raises, told.append]) as veo:
        await veo.submit(whale())
    assert "Submitted Sending Accepted Looks Settled" == story(told)
    assert told[:1] == calls
    [record] = caplog.records
    assert "ERROR" == record.levelname
    assert "raises raised, and is told nothing more" in record.getMessage()
    assert record.exc_info is not None


@in_virtual_time
async def test_a_cancellation_from_an_observer_cancels_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An observer cannot cancel the task that it is called in."""

    def cancels(event: Event) -> None:
        if isinstance(event, Sending):
            raise asyncio.CancelledError

    async with ten_seconds().session(observers=[cancels]) as veo:
        assert JobState.SUCCEEDED is await ended(veo.submit(whale()))
    assert 1 == len(caplog.records)


@in_virtual_time
async def test_the_order_holds_for_all() -> None:
    """What an observer causes is told after what it was told."""
    told: list[Event] = []

    def submits_another(event: Event) -> None:
        if isinstance(event, Settled) and event.key == "first":
            veo.submit(whale(), key="second")

    async with ten_seconds().session(observers=[submits_another, told.append]) as veo:
        await veo.submit(whale(), key="first")
        await veo.submit(whale(), key="second")
    assert "Submitted Sending Accepted Looks Settled " * 2 == story(told) + " "


@pytest.mark.parametrize("observers", [print, [print, "print"], None, 3])
def test_what_cannot_be_called_is_no_observer(observers: Any) -> None:
    """It is a mistake of the program, found before anything is sent."""
    with pytest.raises(ConfigurationError, match="observers must be a list of callables"):
        VeoSession(TOKEN, observers=observers)


def test_each_event_is_public() -> None:
    """The room names all its classes."""
    kinds = {
        name for name, kind in vars(events_room).items() if isinstance(kind, type) and issubclass(kind, Event)
    }
    assert {*events_room.__all__} == kinds | {"Observer"}
    assert Attached in events_room.Event.__subclasses__()
    assert LimitsReached in events_room.Event.__subclasses__()


@pytest.mark.parametrize("seed", range(3))
def test_no_event_holds_the_token_whatever_happens(seed: int) -> None:
    """Under faults and kills, no event shows the token; and each job of a life begins once before it ends once."""
    told: list[Event] = []
    assert not play(seed, observers=[told.append]).problems
    assert 20 < len(told)
    assert TOKEN not in repr(told)
    open_keys: Counter[str] = Counter()
    for event in told:
        if isinstance(event, Submitted):
            open_keys[event.key] += 1
        elif isinstance(event, Settled):
            assert open_keys[event.key] > 0


def test_others_are_told_without_the_log() -> None:
    """A log observer that raises is left out like any other."""

    class Broken(LogObserver):
        def __call__(self, event: Event) -> None:
            raise LookupError

    told: list[Event] = []
    observers = Observers([told.append, Broken()])
    observers.tell(Attached, key="a")
    observers.tell(Attached, key="b")
    assert ["a", "b"] == [event.key for event in told]  # type: ignore[attr-defined]


def test_an_event_that_nobody_hears_is_not_made() -> None:
    """Without observers, and with the log quiet, telling makes nothing."""
    made: list[float] = []

    def make(at: float) -> Event:
        made.append(at)
        return Event(at)

    Observers().tell(make)
    assert [] == made
    Observers([print]).tell(make)
    assert 1 == len(made)

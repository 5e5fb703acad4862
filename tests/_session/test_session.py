"""
`VeoSession` over real loopback sockets: who may use it and where, what it does to a caller's aiohttp session,
what it counts, and what it never tells.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import linecache
import logging
import pickle
import re
import socket
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import aiohttp
import attrs
import pytest
from aiohttp import web

from tests.virtual import EPOCH, World
from tests.virtual.scripted import answer, ended, in_virtual_time, scripted, whale, whales
from veo_async import (
    BadRequest,
    ConfigurationError,
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    InvalidRequest,
    JobState,
    KeyConflict,
    Limits,
    PollPolicy,
    RemoveObject,
    Request,
    Reshoot,
    RetryPolicy,
    SessionClosed,
    TaskNotFound,
    TaskState,
    TextToVideo,
    Upsample,
    UsageError,
    VeoError,
    VeoSession,
)
from veo_async._api.fields import CommonFields, ExtendFields, Get1080pFields, InsertFields, MakeFields
from veo_async.simulator import TOKEN, Faults, Settings, Simulator

SPEED = 200.0
QUICK: dict[str, Any] = {
    "polling": PollPolicy().scaled(1 / SPEED),
    "retry": RetryPolicy().scaled(1 / SPEED),
}
SECRET = "s3cr3t-t0ken-0123456789abcdef"


@asynccontextmanager
async def simulator(faults: Faults | None = None, **changes: Any) -> AsyncIterator[Simulator]:
    async with Simulator(Settings(speed=SPEED, **changes), faults=faults) as sim:
        yield sim


def session(sim: Simulator, **options: Any) -> VeoSession:
    return VeoSession(sim.token, base_url=sim.url, **{**QUICK, **options})


# --- where a session may be used -------------------------------------------------------------------------

USES: list[Callable[[VeoSession], Any]] = [
    lambda veo: veo.submit(whale()),
    lambda veo: veo.submit_many([]),
    lambda veo: veo.map([]),
    lambda veo: veo.text_to_video("a whale"),
    lambda veo: veo.attach("task"),
    lambda veo: veo.list_tasks(),
    lambda veo: veo.resume().send(None),
    lambda veo: veo.retrieve("task").send(None),
    lambda veo: veo.retrieve_many(["task"]).send(None),
]


@pytest.mark.parametrize("use", USES)
def test_a_session_is_used_inside_async_with(use: Callable[[VeoSession], Any]) -> None:
    """
    Before it is entered, after it was left, without a loop and in another one: a `UsageError`.
    """
    veo = VeoSession(TOKEN, base_url="http://127.0.0.1:1")
    with pytest.raises(UsageError, match="async with"):
        use(veo)

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="loop"):
            use(veo)

    async def main() -> None:
        async with veo:
            caught: list[BaseException] = []

            def without_a_loop() -> None:
                try:
                    with pytest.raises(UsageError, match="loop"):
                        use(veo)
                    asyncio.run(elsewhere())
                except BaseException as error:
                    caught.append(error)

            thread = threading.Thread(target=without_a_loop)
            thread.start()
            thread.join()
            assert [] == caught
        with pytest.raises(UsageError, match="async with"):
            use(veo)

    asyncio.run(main())


def test_misuse_is_told_with_what_to_do() -> None:
    """
    Whoever forgets `async with`, comes too late, or uses two event loops, reads what to write instead.
    """
    veo = VeoSession(TOKEN, base_url="http://127.0.0.1:1")
    with pytest.raises(UsageError, match=r"is used inside `async with VeoSession\(\) as veo:`"):
        veo.text_to_video("a whale")

    async def main() -> None:
        async with veo:
            pass
        with pytest.raises(UsageError, match="is closed: make a new one"):
            veo.text_to_video("a whale")

    asyncio.run(main())


async def test_a_download_of_something_else_says_where_the_video_is() -> None:
    """
    A job, a result and an id are no video; each error says how to get at it.
    """
    async with simulator() as sim, session(sim) as veo:
        job = veo.submit(whale())
        for wrong, words in (
            (job, r"not Job: that is \(await job\)\.video"),
            (await job, r"not VideoResult: that is result\.video"),
            ("id", r"not str: that is \(await veo\.attach\(task_id\)\)\.video"),
            (None, "not NoneType$"),
        ):
            with pytest.raises(InvalidRequest, match=words):
                await veo.download(wrong, "whale.mp4")  # type: ignore[arg-type]


async def test_a_session_is_entered_once() -> None:
    """
    Entering again, inside or afterwards, is a `UsageError` that does the first entering no harm.
    """
    async with simulator() as sim:
        veo = session(sim)
        async with veo:
            with pytest.raises(UsageError, match="once"):
                await veo.__aenter__()
            await veo.submit(whale())
        with pytest.raises(UsageError, match="once"):
            await veo.__aenter__()


def test_two_sessions_in_two_successive_runs() -> None:
    """
    Each `asyncio.run` gets its own session; nothing is left over from the first one.
    """

    async def main() -> str:
        async with simulator() as sim, session(sim) as veo:
            return (await veo.submit(whale())).video.url

    urls = [asyncio.run(main()) for _ in range(2)]
    assert 2 == len(urls)


async def test_resuming_takes_a_journal() -> None:
    """
    A session without a journal has nothing to resume from, and says so.
    """
    async with simulator() as sim, session(sim) as veo:
        with pytest.raises(UsageError, match="journal"):
            await veo.resume()


def test_the_repr_counts() -> None:
    """
    The repr shows address, state and counts.
    """
    veo = VeoSession(TOKEN, base_url="http://127.0.0.1:1")
    assert "<VeoSession http://127.0.0.1:1 closed>" == repr(veo)

    async def main() -> None:
        async with veo:
            veo.submit(whale())
            assert "<VeoSession http://127.0.0.1:1 open queued=1>" == repr(veo)

    asyncio.run(main())
    assert "<VeoSession http://127.0.0.1:1 closed stopped=1>" == repr(veo)


# --- the token and the address ---------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", " ", "a b", "a\n", "a\r\nx: y", "\tx", "ä", "a\0b", "\x7f"])
def test_a_token_that_no_header_can_hold_is_refused(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whether it was passed or set, a broken token is a `ConfigurationError` that does not repeat it.
    """
    with pytest.raises(ConfigurationError) as caught:
        VeoSession(token, base_url="http://127.0.0.1:1")
    if token.strip():
        assert token not in str(caught.value)
    if "\0" not in token:
        monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", token)
        with pytest.raises(ConfigurationError, match="ACEDATACLOUD_API_TOKEN"):
            VeoSession(base_url="http://127.0.0.1:1")


def test_no_token_at_all_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing passed and nothing set: the error names the variable, and is a `ValueError` too.
    """
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="ACEDATACLOUD_API_TOKEN") as caught:
        VeoSession()
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    "address",
    [
        "http://api.acedata.cloud",
        "http://127.0.0.1.example.com",
        "ftp://127.0.0.1",
        "api.acedata.cloud",
        "https://",
        "https://user:pass@example.com",
        "https://example.com/?a=b",
        "https://example.com/#x",
        "http://[::1",
        "https://example.com:port",
        "http://localhost.example.com",
        "http://0.0.0.0",
    ],
)
def test_an_address_that_is_not_safe_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Only https, or http on this machine, and nothing but a host and a path.
    """
    with pytest.raises(ConfigurationError) as caught:
        VeoSession(TOKEN, base_url=address)
    assert "pass" not in str(caught.value)
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", address)
    with pytest.raises(ConfigurationError):
        VeoSession(TOKEN)


async def test_token_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With both variables set nothing need be passed, and a trailing slash does no harm.
    """
    async with simulator() as sim:
        monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", sim.token)
        monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", sim.url + "/")
        async with VeoSession(**QUICK) as veo:
            await veo.submit(whale())


# --- the caller's own aiohttp session ----------------------------------------------------------------------


async def test_a_callers_http_session_stays_open() -> None:
    """
    What the session did not open it does not close, not even after a failure.
    """
    async with simulator() as sim, aiohttp.ClientSession() as http:
        async with session(sim, http=http) as veo:
            await veo.submit(whale())
        with pytest.raises(LookupError):
            async with session(sim, http=http):
                raise LookupError
        assert not http.closed
        async with http.post(sim.url + "/veo/tasks", json={}) as response:
            assert 400 <= response.status < 500


async def _loud(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> Any:
    raise AssertionError("a middleware of the caller's was asked")


CALLERS: list[dict[str, Any]] = [
    {"headers": {"Authorization": "Bearer somebody-else", "Accept": "text/html"}},
    {"headers": {"Content-Type": "text/plain"}},
    {"headers": {"Accept-Encoding": "gzip, br", "X-Mine": "yes"}},
    {"skip_auto_headers": ["Content-Type", "User-Agent"]},
    {"cookies": {"session": "1"}},
    {"raise_for_status": True},
    {"timeout": aiohttp.ClientTimeout(total=1e-6)},
    {"auto_decompress": False},
    {"middlewares": (_loud,)},
    {"base_url": "http://127.0.0.1:1/"},
    {"version": aiohttp.HttpVersion10},
    {"json_serialize": lambda value: 1 / 0},
    {"read_bufsize": 1},
    {"requote_redirect_url": False},
]


@pytest.mark.parametrize("options", CALLERS, ids=lambda options: next(iter(options)))
async def test_a_callers_habits_do_no_harm(options: dict[str, Any], tmp_path: Path) -> None:
    """
    Whatever defaults the caller's aiohttp session has, submits, looks, refusals and downloads work.
    """
    async with (
        simulator() as sim,
        aiohttp.ClientSession(**options) as http,
        session(sim, http=http) as veo,
    ):
        result = await veo.submit(whale())
        assert (await veo.retrieve(result.task_id)).videos == result.videos
        with pytest.raises(TaskNotFound):
            await veo.retrieve("unknown")
        with pytest.raises(BadRequest):
            await veo.get_1080p("unknown")
        path = await veo.download(result.video, tmp_path / "v.mp4")
        assert b"ftyp" == path.read_bytes()[4:8]


async def test_a_callers_default_auth_is_refused() -> None:
    """
    Default `auth` would take our token's place, so it is a `ConfigurationError` before any traffic.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # aiohttp will give it up, and has not yet
        http = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
    async with simulator() as sim, http:
        with pytest.raises(ConfigurationError, match="auth"):
            async with session(sim, http=http):
                raise AssertionError
        assert 0 == sum(sim.core.requests.values())


async def test_a_callers_closed_session_is_said_to_be_closed() -> None:
    """
    A session that is closed already is a `UsageError` on entering.
    """
    async with simulator() as sim:
        http = aiohttp.ClientSession()
        await http.close()
        with pytest.raises(UsageError, match="closed"):
            async with session(sim, http=http):
                raise AssertionError


@pytest.mark.parametrize("submitting", [True, False])
async def test_a_callers_session_that_is_closed_too_early_is_blamed(
    caplog: pytest.LogCaptureFixture, *, submitting: bool
) -> None:
    """
    Closed while jobs are open: they all end and say why, and no fault of our own is claimed.
    """
    async with simulator() as sim:
        http = aiohttp.ClientSession()
        async with session(sim, http=http) as veo:
            first = veo.submit(whale())
            task_id = await first.accepted()
            await http.close()
            jobs = [first, veo.submit(whale())] if submitting else [first]
            for job in jobs:
                async with asyncio.timeout(10):
                    with pytest.raises(SessionClosed, match="the aiohttp session is closed") as caught:
                        await job
                assert isinstance(caught.value.__cause__, UsageError)
            assert task_id in str(first.exception())
    assert "fault" not in caplog.text


async def test_jobs_that_wait_for_a_connection_of_a_callers_session_end_with_it() -> None:
    """
    Closed while its every connection is in other use: queued jobs end and say why, and none waits for ever.
    """
    async with simulator() as sim:
        http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1))
        assert http.connector is not None
        silent = socket.create_server(("127.0.0.1", 0))
        other_use = asyncio.create_task(http.get(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        while not http.connector._acquired:  # noqa: ASYNC110 - aiohttp tells nobody
            await asyncio.sleep(0)
        async with session(sim, http=http) as veo:
            jobs = veo.submit_many([whale()] * 200)
            while not http.connector._waiters:  # noqa: ASYNC110 - aiohttp tells nobody
                await asyncio.sleep(0)
            await http.close()
            async with asyncio.timeout(10):
                ends = await asyncio.gather(*jobs, return_exceptions=True)
        with pytest.raises(aiohttp.ClientError):
            await other_use
        silent.close()
        assert {SessionClosed} == {type(end) for end in ends}
        assert not sim.core.accepted


# --- a thousand jobs -------------------------------------------------------------------------------------


async def test_a_thousand_jobs_at_once_settle_right() -> None:
    """
    A thousand jobs over real sockets: each has its own prompt's video, with no warning and nothing left open.
    """
    before = asyncio.all_tasks()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with simulator() as sim:
            async with session(sim) as veo:
                jobs = veo.submit_many(whales(1000))
                async with asyncio.timeout(60):
                    settled = [job async for job in veo.as_completed(jobs)]
            assert 1000 == len(settled) == sim.core.accepted == sim.core.billed
            for job in jobs:
                task = sim.core.tasks[job.result().task_id]
                assert TextToVideo(task.body["prompt"]) == job.request
            assert sim.core.requests["retrieve_batch"] + sim.core.requests["retrieve"] < 1000
        del veo, sim
        gc.collect()
    assert [] == [str(warning.message) for warning in caught]
    assert before == asyncio.all_tasks()


async def test_a_thousand_jobs_side_by_side_of_all_outcomes() -> None:
    """
    Failures, refusals for the moment and dropped answers among hundreds of jobs: one task each, all settled.
    """
    faults = Faults(seed=3)
    faults.add("drop_after", on="submit", share=0.05)
    faults.add("status_before", on="submit", share=0.05, status=429)
    faults.add("status_before", on=("retrieve", "retrieve_batch"), share=0.2, status=502)
    async with simulator(faults, failure_share=0.2) as sim:
        async with session(sim) as veo:
            jobs = veo.submit_many(whales(300))
            async with asyncio.timeout(60):
                states = [job.state async for job in veo.as_completed(jobs)]
        assert {JobState.SUCCEEDED, JobState.FAILED} == set(states)
        assert 300 == sim.core.accepted
        assert sim.core.billed == states.count(JobState.SUCCEEDED)


# --- asking ----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_task_can_be_retrieved_by_either_id() -> None:
    """
    By its id or its trace id; by both or none is refused, and an unknown one is `TaskNotFound`.
    """
    for unknown in ("{}", "null", "404"):
        world = World(Settings(unknown=unknown))
        async with world.session() as veo:
            task_id = await veo.submit(whale()).accepted()
            record = await veo.retrieve(task_id)
            assert (task_id, TaskState.PENDING, ()) == (record.id, record.state, record.videos)
            assert record.trace_id is not None
            assert task_id == (await veo.retrieve(trace_id=record.trace_id)).id
            for ids in ({}, {"task_id": "a", "trace_id": "b"}):
                with pytest.raises(InvalidRequest):
                    await veo.retrieve(**ids)
            with pytest.raises(TaskNotFound) as caught:
                await veo.retrieve("nobody")
            assert isinstance(caught.value, LookupError)
            with pytest.raises(TaskNotFound):
                await veo.retrieve(trace_id="nobody")


@in_virtual_time
async def test_many_tasks_are_retrieved_in_batches() -> None:
    """
    More ids than a batch holds are asked for in several; unknown ones are absent, doubled ones come once.
    """
    world = World(Settings(duration=lambda body: 10.0))
    async with world.session(polling=PollPolicy(batch_size=7)) as veo:
        jobs = veo.submit_many(whales(20))
        ids = [await job.accepted() for job in jobs]
        asked = world.core.requests["retrieve_batch"]
        records = await veo.retrieve_many([*ids, "nobody", *ids])
        assert set(ids) == set(records)
        assert 3 == world.core.requests["retrieve_batch"] - asked
        assert {} == await veo.retrieve_many([])
        assert {} == await veo.retrieve_many(["nobody"])


@in_virtual_time
async def test_a_listing_is_read_to_its_end() -> None:
    """
    All pages are read, each task comes once; the filters choose, and the limit ends it.
    """
    world = World(Settings(duration=lambda body: 10.0))
    async with world.session() as veo:
        assert [] == [record async for record in veo.list_tasks()]
        old = [await job.accepted() for job in veo.submit_many(whales(120))]
        await asyncio.sleep(3600)
        new = [await job.accepted() for job in veo.submit_many(whales(3))]
        assert {*old, *new} == {record.id async for record in veo.list_tasks()}
        assert 123 == len([record async for record in veo.list_tasks()])
        recent = datetime.fromtimestamp(EPOCH + 1800, UTC)
        assert set(new) == {record.id async for record in veo.list_tasks(created_from=recent)}
        assert set(old) == {record.id async for record in veo.list_tasks(created_to=EPOCH + 1800)}
        assert 7 == len([record async for record in veo.list_tasks(limit=7)])
        assert 0 == len([record async for record in veo.list_tasks(limit=0)])
        assert 123 == len([record async for record in veo.list_tasks(type="videos")])
        assert 0 == len([record async for record in veo.list_tasks(type="songs")])
        with pytest.raises(InvalidRequest, match="aware"):
            await anext(veo.list_tasks(created_from=datetime(2026, 1, 1)))
        zone = datetime.fromtimestamp(EPOCH + 1800, UTC) + timedelta(0)
        assert set(new) == {record.id async for record in veo.list_tasks(created_from=zone.astimezone())}


@in_virtual_time
async def test_questions_are_asked_again_through_trouble() -> None:
    """
    A question survives drops, 429s and 5xx in a row, and gives up with the last error when they do not end.
    """
    faults = Faults(seed=1).add("drop_after", on="retrieve", nth=[1, 2])
    faults.add("status_before", on="retrieve", nth=[3], status=429, retry_after=7)
    faults.add("status_before", on="retrieve", nth=[4], status=503)
    faults.add("status_before", on="list", status=503)
    world = World(Settings(), faults=faults)
    async with world.session() as veo:
        task_id = await veo.submit(whale()).accepted()
        assert task_id == (await veo.retrieve(task_id)).id
        assert veo.stats.retries >= 4
        with pytest.raises(VeoError):
            await anext(veo.list_tasks())


# --- attach, notify, stats -------------------------------------------------------------------------------


@in_virtual_time
async def test_a_task_that_exists_can_be_attached() -> None:
    """
    Attached to a running, an ended or an unknown task, a job gets what becomes of it; twice is one job.
    """
    world = World(Settings(duration=lambda body: 50.0))
    async with world.session() as veo:
        task_id = await veo.submit(whale()).accepted()
    async with world.session() as veo:
        job = veo.attach(task_id)
        assert (None, task_id, JobState.PENDING) == (job.request, job.task_id, job.state)
        assert job is veo.attach(task_id)
        first = await job
        assert first.videos == (await veo.attach(task_id)).videos
        assert (None, True) == (first.request, job.trace_id is not None)
        assert JobState.STOPPED is await ended(veo.attach("nobody"))
    assert 1 == world.core.accepted


@pytest.mark.parametrize("task_id", ["", 7, None, "a\tb", "x" * 10_000, "a\n"])
@in_virtual_time
async def test_what_is_no_id_cannot_be_attached(task_id: Any) -> None:
    """
    An id that could not be one is refused at once.
    """
    async with World().session() as veo:
        with pytest.raises(InvalidRequest):
            veo.attach(task_id)


_ODD: list[Any] = [None, 7, "nobody", [], "x" * 10**6, "\ud800"]
PAYLOADS: list[Any] = [
    *(None, 7, "x", b"x", [], {}, object(), [{"task_id": "a"}]),
    *({"task_id": odd} for odd in _ODD),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: str(payload)[:20].encode("unicode_escape"))
@in_virtual_time
async def test_notify_takes_anything(payload: Any) -> None:
    """
    A callback's body may be anything: it never raises, and what nobody waits for is False.
    """
    world = World()
    veo = world.session()
    assert not veo.notify(payload)
    async with veo:
        job = veo.submit(whale())
        await job.accepted()
        assert not veo.notify(payload)
    assert not veo.notify({"task_id": job.task_id})


@in_virtual_time
async def test_a_forged_callback_settles_nothing() -> None:
    """
    A callback that claims a video, or a failure, brings a look and no more.
    """
    world = World(Settings(duration=lambda body: 50.0))
    async with world.session() as veo:
        job = veo.submit(whale())
        task_id = await job.accepted()
        video = {"id": "v", "video_url": "https://evil.example/v.mp4", "state": "succeeded"}
        assert veo.notify({"success": True, "task_id": task_id, "data": [video]})
        assert veo.notify({"success": False, "task_id": task_id, "error": {"code": "x", "message": "y"}})
        await asyncio.sleep(2)
        assert JobState.PENDING is job.state
        assert veo.stats.looks >= 1
        assert "evil" not in (await job).video.url


@in_virtual_time
async def test_stats_count_what_was_done() -> None:
    """
    Jobs by state, requests by kind, retries, looks and the lag: all begin at nothing and agree with the server.
    """
    world = World(Settings(duration=lambda body: 20.0))
    veo = world.session()
    assert dict.fromkeys(JobState, 0) == veo.stats.jobs
    assert ({}, 0, 0, None) == (
        veo.stats.requests,
        veo.stats.retries,
        veo.stats.looks,
        veo.stats.notice_lag,
    )
    async with veo:
        jobs = veo.submit_many(whales(5))
        assert 5 == veo.stats.jobs[JobState.QUEUED]
        await asyncio.gather(*(job.accepted() for job in jobs))
        assert 5 == veo.stats.jobs[JobState.PENDING]
        world.core.fail(jobs[0].task_id or "")
        jobs[1].abandon()
        await asyncio.gather(*(ended(job) for job in jobs))
        await veo.retrieve(jobs[0].task_id)
        await anext(veo.list_tasks())
        stats = veo.stats
        assert (0, 1, 1, 3) == tuple(
            stats.jobs[state]
            for state in (JobState.PENDING, JobState.FAILED, JobState.STOPPED, JobState.SUCCEEDED)
        )
        assert dict(world.core.requests) == stats.requests
        assert 5 == stats.requests["submit"]
        assert 1 == stats.requests["list"]
        assert stats.looks >= 4
        assert 0 <= (stats.notice_lag or -1) < 60
    assert stats == veo.stats


# --- secrets ---------------------------------------------------------------------------------------------


async def _echoing(request: web.Request) -> web.Response:
    """
    A server that repeats the token wherever it can.
    """
    token = request.headers["Authorization"]
    body = await request.json()
    say = str(body.get("prompt") or body.get("id") or "batch")
    headers = {"X-Trace-Id": token, "X-Echo": token}
    message = {"error": {"code": "bad_request", "message": f"bad {token}"}, "trace_id": token}
    answers = {
        "plain": web.Response(status=400, text=f"what is {token}?", headers=headers),
        "json": web.json_response(message, status=400, headers=headers),
        "auth": web.json_response(
            {"error": {"code": "invalid_token", "message": token}}, status=401, headers=headers
        ),
        "html": web.Response(status=200, text=f"<html>{token}</html>", headers=headers),
        "server": web.json_response({"error": {"code": "api_error", "message": token}}, status=500),
        "task": web.json_response({"task_id": "t-1", "trace_id": token}, headers=headers),
        "reason": web.Response(status=400, reason=f"no {token}", headers=headers),
    }
    failed = {"id": "t-1", "response": {"success": False, "error": {"code": "x", "message": token}}}
    return answers.get(say) or web.json_response(failed, headers=headers)


@asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", _echoing)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def everything_said(error: BaseException | None) -> str:
    """
    An error with its causes, as a log, a debugger and another process would see it.
    """
    words = ""
    while error is not None:
        words += f"{error} {error!r} {vars(error)}"
        if isinstance(error, VeoError):
            words += repr(pickle.dumps(error))
        error = error.__cause__ or error.__context__
    return words


@pytest.mark.parametrize("prompt", ["plain", "json", "auth", "html", "server", "task", "reason"])
async def test_a_server_that_repeats_the_token_does_not_spread_it(
    prompt: str, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """
    Neither errors nor logs nor reprs nor the journal ever hold the token, also where the server echoes it.
    """
    caplog.set_level(logging.DEBUG)
    path = tmp_path / "batch.db"
    async with echoing() as url:
        options = {**QUICK, "retry": RetryPolicy().scaled(1 / 1000)}
        async with VeoSession(SECRET, base_url=url, journal=path, **options) as veo:
            job = veo.submit(TextToVideo(prompt), key="k")
            await ended(job)
            error = job.exception()
            said = [everything_said(error), repr(veo), repr(job), repr(veo.stats), repr(veo._engine)]
            said += [repr(veo._transport), repr(veo._journal), str(job.trace_id)]
            for question in (veo.retrieve("json"), veo.retrieve("plain")):
                try:
                    await question
                except VeoError as raised:
                    said.append(everything_said(raised))
        said.append(str(vars(job) if hasattr(job, "__dict__") else ""))
    assert job.exception() is not None
    assert SECRET not in "".join(said)
    assert SECRET not in caplog.text
    for file in tmp_path.iterdir():  # noqa: ASYNC240 - a few small files
        assert SECRET.encode() not in file.read_bytes()


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.9\r\n\r\n", b"", b"HTTP/1.1 400 Bad\r\n"])
async def test_a_server_that_speaks_no_http_does_not_spread_the_token(
    greeting: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """
    What aiohttp raises about a reply that is no HTTP holds the request's headers: they are not passed on.
    """
    caplog.set_level(logging.DEBUG)

    async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            writer.write(greeting + request)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # who was refused in the middle of it leaves
        finally:
            writer.close()

    server = await asyncio.start_server(garbage, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, VeoSession(SECRET, base_url=f"http://127.0.0.1:{port}", **QUICK) as veo:
        with pytest.raises(VeoError) as caught:
            await veo.retrieve("t")
    assert SECRET not in everything_said(caught.value)
    assert SECRET not in caplog.text


async def test_the_token_is_in_the_header_and_nowhere_else(tmp_path: Path) -> None:
    """
    API calls carry the token in `Authorization` alone; downloads carry neither token nor cookies.
    """
    seen: list[tuple[str, dict[str, str], str]] = []

    async def record(request: web.Request) -> web.Response:
        body = await request.text()
        seen.append((str(request.rel_url), dict(request.headers), body))
        if request.method == "GET":
            return web.Response(body=b"\0\0\0\x18ftypmp42" + bytes(100), content_type="video/mp4")
        video = {"id": "v", "video_url": f"{request.url.origin()}/v.mp4", "state": "succeeded"}
        answered = web.json_response({"task_id": "t", "data": [video]})
        answered.set_cookie("tracking", "me")
        return answered

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", record)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with VeoSession(SECRET, base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/api") as veo:
            result = await veo.submit(whale())
            await veo.download(result.video, tmp_path)
    finally:
        await runner.cleanup()
    (post, sent, body), (get, headers, _) = seen
    assert ("/api/veo/videos", "/v.mp4") == (post, get)
    assert f"Bearer {SECRET}" == sent.pop("Authorization")
    assert SECRET not in f"{post}{sent}{body}{get}{headers}"
    assert not {"Cookie", "Authorization"} & headers.keys()


# --- the short methods -----------------------------------------------------------------------------------

SHORT: dict[str, tuple[type[Request], type[Any]]] = {
    "text_to_video": (TextToVideo, MakeFields),
    "image_to_video": (ImageToVideo, MakeFields),
    "ingredients_to_video": (IngredientsToVideo, MakeFields),
    "get_1080p": (Get1080p, Get1080pFields),
    "upsample": (Upsample, CommonFields),
    "extend": (Extend, ExtendFields),
    "reshoot": (Reshoot, CommonFields),
    "insert_object": (InsertObject, InsertFields),
    "remove_object": (RemoveObject, CommonFields),
}


@pytest.mark.parametrize("name", SHORT)
def test_a_short_method_tells_all_its_fields(name: str) -> None:
    """
    Types and docstring name exactly the request's fields that are no parameters, and what `submit` takes.
    """
    kind, typed = SHORT[name]
    method = getattr(VeoSession, name)
    parameters = list(inspect.signature(method).parameters)[1:]
    named = {"video": "video_id"}
    places = {named.get(parameter, parameter) for parameter in parameters}
    fields = [field.name for field in attrs.fields(kind) if field.name not in places]
    options = ["key", "timeout", "retry_failed"]
    assert {*fields, *options} == set(get_type_hints(typed))
    told = re.findall(r"`(\w+)`", inspect.getdoc(method).partition("Fields: ")[2])  # type: ignore[union-attr]
    assert {*fields, *options} == set(told)
    assert typed.__name__ in method.__annotations__["fields"]


def lines_named(caught: list[warnings.WarningMessage]) -> list[tuple[str, str]]:
    """
    The file and the text of the line that each warning points at.
    """
    return [(one.filename, linecache.getline(one.filename, one.lineno).strip()) for one in caught]


async def test_a_warning_points_at_the_callers_line() -> None:
    """
    Whichever way a doubtful request is made, the line named is the caller's own.
    """
    async with simulator() as sim, session(sim) as veo:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            jobs = [veo.text_to_video("a whale", model="veo0")]
            jobs += [veo.extend("v" * 32, model="veo0")]
            jobs += veo.submit_many(TextToVideo(prompt, model="veo0") for prompt in "a")
            jobs += veo.submit_many(map(partial(TextToVideo, model="veo0"), "a"))
            async for job in veo.map(TextToVideo(prompt, model="veo0") for prompt in "a"):
                jobs.append(job)
        for job in jobs:
            await ended(job)
    assert [
        (__file__, 'jobs = [veo.text_to_video("a whale", model="veo0")]'),
        (__file__, 'jobs += [veo.extend("v" * 32, model="veo0")]'),
        (__file__, 'jobs += veo.submit_many(TextToVideo(prompt, model="veo0") for prompt in "a")'),
        (__file__, 'jobs += veo.submit_many(map(partial(TextToVideo, model="veo0"), "a"))'),
        (__file__, 'async for job in veo.map(TextToVideo(prompt, model="veo0") for prompt in "a"):'),
    ] == lines_named(caught)


async def test_a_key_that_comes_twice_is_told_with_both_requests() -> None:
    """
    A batch in which two requests have one key says which they are; one that comes twice alike is one job.
    """
    async with simulator() as sim, session(sim) as veo:
        words = (
            r"the key 'k' comes twice, for TextToVideo\(prompt='a whale'\),"
            r" then TextToVideo\(prompt='a whale', model='veo31'\) \(key k\)"
        )
        with pytest.raises(KeyConflict, match=words):
            veo.submit_many([("k", TextToVideo("a whale")), ("k", TextToVideo("a whale", model="veo31"))])
        assert 0 == sim.core.requests["submit"]


async def test_a_key_that_nobody_chose_is_not_told() -> None:
    """
    An error names the task, and not a key that was made up.
    """
    async with simulator(failure_share=1.0) as sim, session(sim) as veo:
        job = veo.submit(whale())
        await ended(job)
        assert job.key not in str(job.exception())
        assert f"task {job.task_id}" in str(job.exception())


# --- outages ---------------------------------------------------------------------------------------------


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [one.getMessage() for one in caplog.records if "answer" in one.getMessage()]


@in_virtual_time
async def test_an_outage_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """
    Where nothing comes through for some seconds the log says since when and why, once; then that it is over.
    """
    caplog.set_level(logging.INFO, "veo_async")
    world = World()
    async with world.session() as veo:
        transport: Any = veo._transport
        transport.cut_off = True
        job = veo.submit(whale())
        await asyncio.sleep(1.0)
        assert [] == told(caplog)
        await asyncio.sleep(60.0)
        transport.cut_off = False
        assert JobState.SUCCEEDED is await ended(job)
    begun, over = told(caplog)
    assert re.fullmatch(
        r"no answer from the API for \d s, still trying; check the network and the base URL: the network is gone",
        begun,
    )
    assert re.fullmatch(r"the API answers again, after \d\d s", over)


@in_virtual_time
async def test_a_gateway_without_a_server_is_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """
    A 5xx is an answer, and none of the API's.
    """
    world = World(faults=Faults().add("status_before", on="retrieve", times=5, status=503))
    async with world.session() as veo:
        with suppress(VeoError):
            await veo.retrieve("t")
    [words] = told(caplog)
    assert words.endswith("http://127.0.0.1/veo/tasks answers 503")


@in_virtual_time
async def test_a_question_that_hangs_among_answers_is_no_outage(caplog: pytest.LogCaptureFixture) -> None:
    """
    One request that gets no answer for a minute, while others do, is nothing to tell.
    """
    world = World(faults=Faults().add("stall_before", on="retrieve", times=1))
    async with world.session() as veo:
        hanging = asyncio.create_task(veo.retrieve("t"))
        for _ in range(70):
            await veo.retrieve_many(["a", "b"])
            await asyncio.sleep(1.0)
        with pytest.raises(TaskNotFound):
            await hanging
    assert [] == told(caplog)


# --- hostile replies ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_record_of_rubbish_is_no_crash() -> None:
    """
    Replies to polls that are JSON and nonsense are looked past; the job ends by its deadline or its real record.
    """
    rubbish: list[Any] = [
        [],
        {"items": None},
        {"items": [None, 7, "x", [], {}]},
        {"id": 7},
        {"id": "x", "response": 7},
        "text",
        7,
        True,
        {"items": {"a": 1}},
        {"success": True},
        {"id": ["x"]},
    ]
    world = World(Settings(duration=lambda body: 20.0))
    veo, transport = scripted(world)
    transport.asks.extend(answer(200, json.loads(json.dumps(body))) for body in rubbish)
    async with veo:
        assert JobState.SUCCEEDED is await ended(veo.submit(whale()))


async def test_replies_are_bounded(tmp_path: Path) -> None:
    """
    A reply of 100 MB or nested 100,000 deep is an error of the question, not of the machine.
    """
    for kind in ("oversized", "deep", "html", "empty", "cut_off"):
        faults = Faults().add(kind, on="retrieve")
        retry = RetryPolicy().scaled(1 / 5000)
        async with (
            simulator(faults) as sim,
            session(sim, retry=retry, limits=Limits(max_reply=1 << 16)) as veo,
        ):
            with pytest.raises(VeoError):
                await veo.retrieve("t")

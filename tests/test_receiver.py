"""
Callbacks over real loopback sockets: the good ones, and everything that a stranger may send instead.
What takes a crash or a long time is played in virtual time, in `test_callbacks_virtual`.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from attrs import define

from veo_async import (
    ConfigurationError,
    JobFailed,
    JobState,
    PollPolicy,
    RetryPolicy,
    SessionClosed,
    TextToVideo,
    UsageError,
    VeoSession,
)
from veo_async import receiver as module
from veo_async._api.marks import label
from veo_async.receiver import MAX_BODY, CallbackReceiver
from veo_async.simulator import TOKEN, Faults, Settings, Simulator

# Whoever looks at a task was told to: by itself, the session would do so after a quarter of an hour.
QUIET = PollPolicy(mode="fixed", interval=1000.0, first_look=1000.0, deadline=None)
RETRY = RetryPolicy(first=0.05, grace=1.0, drain=0.1)
ENDLESS = 1e9  # seconds; tasks end when a test says so
HANGING = 30.0  # seconds; nothing here takes so long
PIPELINED = 500  # requests written before any answer is read


@define(eq=False)
class Stage:
    """
    A server, a session, and a receiver on a port of its own, with somebody who posts to it.
    """

    sim: Simulator
    veo: VeoSession
    receiver: CallbackReceiver
    http: aiohttp.ClientSession

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.receiver.url.split("/")[2].rpartition(":")
        return host, int(port)

    @property
    def asked(self) -> int:
        """
        How many requests the session has sent beside its submits.
        """
        requests = self.veo.stats.requests
        return sum(requests.values()) - requests.get("submit", 0)

    async def post(self, body: object, path: str = "/mark") -> int:
        """
        Send a callback, as bytes or as JSON; returns the status.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.http.post(self.receiver.url + path, data=data) as answer:
            assert b"" == await answer.read()
            return answer.status

    async def request(self, method: str, path: str) -> aiohttp.ClientResponse:
        host, port = self.address
        async with self.http.request(method, f"http://{host}:{port}{path}", data=b"{}") as answer:
            return answer

    async def pending(self, prompt: str = "a whale") -> tuple[Any, str]:
        """
        Submit a job; returns it with its task's id.
        """
        job = self.veo.submit(TextToVideo(prompt))
        return job, await asyncio.wait_for(job.accepted(), HANGING)

    async def result(self, job: Any) -> Any:
        return await asyncio.wait_for(job, HANGING)


@asynccontextmanager
async def stage(
    faults: Faults | None = None, *, window: float = 0.0, secret: str | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    settings = {"mean": ENDLESS, "sigma": 0.0, **settings}
    async with (
        aiohttp.ClientSession() as http,
        Simulator(Settings(**settings), faults=faults) as sim,
        VeoSession(sim.token, base_url=sim.url, polling=QUIET, retry=RETRY) as veo,
        CallbackReceiver(veo, public_url=None, window=window, secret=secret) as receiver,
    ):
        await receiver.start(port=0)
        yield Stage(sim, veo, receiver, http)


@pytest.fixture(autouse=True)
def _nothing_goes_wrong(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """
    Whatever arrives, the server that the receiver lives in has nothing to complain of.
    """
    yield
    complaints = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [] == [record.getMessage() for record in complaints]


# --- settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "example.com", "ftp://example.com", "https://", "https://me:pw@example.com", "https://a.example?q",
     "https://a.example#f", "https://a.example:x", "https://a.example/a b", "https://a.example/\n", 7],
)  # fmt: skip
def test_an_address_that_nobody_could_call_is_refused(url: Any) -> None:
    """A public address is http or https, and carries nothing beside host, port and path."""
    with pytest.raises(ConfigurationError, match="public_url must be"):
        CallbackReceiver(VeoSession(TOKEN), public_url=url)


@pytest.mark.parametrize("secret", ["", "short", "x" * 15, "with/a/slash/in/it", "a" * 20 + "\n", 7])
def test_a_secret_that_is_none_is_refused(secret: Any) -> None:
    """A secret is long, fits into a path, and is not repeated in the error."""
    with pytest.raises(ConfigurationError, match="secret must be") as caught:
        CallbackReceiver(VeoSession(TOKEN), public_url=None, secret=secret)
    assert not secret or str(secret) not in str(caught.value)


@pytest.mark.parametrize("window", [-0.1, float("nan"), float("inf"), "1", None, True])
def test_a_window_is_a_number_of_seconds(window: Any) -> None:
    """Zero will do, a negative or endless one will not."""
    with pytest.raises(ConfigurationError, match="window must be"):
        CallbackReceiver(VeoSession(TOKEN), public_url=None, window=window)


def test_each_receiver_has_its_own_secret() -> None:
    """A secret is made anew for each, unless it is given, and its repr does not show it."""
    one, two = (CallbackReceiver(VeoSession(TOKEN), public_url="https://a.example/veo/") for _ in range(2))
    assert one.url != two.url
    assert "https://a.example/veo" == one.url.rpartition("/")[0]
    assert len(one.url.rpartition("/")[2]) > 40
    assert "<CallbackReceiver https://a.example/veo: 0 heard, 0 ignored>" == repr(one)


def test_without_any_address_there_is_no_url() -> None:
    """Before it is started, a receiver without a public address has no URL to give."""
    with pytest.raises(UsageError, match="until it is started"):
        _ = CallbackReceiver(VeoSession(TOKEN), public_url=None).url


# --- what it is for --------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [0.0, 0.05])
async def test_the_result_is_there_once_its_callback_comes(window: float) -> None:
    """One submit, one look right after the callback, and the job has its video."""
    async with stage(window=window) as it:
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)
        assert task_id == (await it.result(job)).task_id
        assert (1, 1, 0) == (it.asked, it.receiver.heard, it.receiver.ignored)
        assert "1 heard" in repr(it.receiver)


async def test_a_failure_is_there_once_its_callback_comes() -> None:
    """The failure is that of the API's record, too."""
    async with stage() as it:
        job, task_id = await it.pending()
        it.sim.core.fail(task_id, "forbidden", "not that one")
        with pytest.raises(JobFailed, match="not that one"):
            await it.result(job)


async def test_callbacks_within_the_window_share_a_request() -> None:
    """Twenty tasks that end together are asked about in one batch."""
    async with stage(window=1.0) as it:
        jobs = it.veo.submit_many([TextToVideo(f"whale {number}") for number in range(20)])
        ids = await asyncio.wait_for(asyncio.gather(*(job.accepted() for job in jobs)), HANGING)
        for task_id in ids:
            it.sim.core.finish(task_id)
        await it.result(asyncio.gather(*jobs))
        assert 20 == it.receiver.heard
        assert it.asked <= 2


def calls(sim: Simulator, receiver: CallbackReceiver, task_id: str) -> bool:
    """
    Tell whether the task's callback URL is the receiver's.
    """
    return receiver._secret in sim.core.tasks[task_id].body["callback_url"]


async def test_each_submit_carries_a_callback_url_of_its_own() -> None:
    """The secret is the receiver's, the mark the attempt's; a request with a URL of its own keeps that."""
    async with stage() as it:
        mine = TextToVideo("a whale", callback_url="http://127.0.0.1:9/mine")
        jobs = it.veo.submit_many([TextToVideo("a whale"), TextToVideo("a whale"), mine])
        bodies = [it.sim.core.tasks[await job.accepted()].body for job in jobs]
        first, second, own = (body["callback_url"] for body in bodies)
        assert it.receiver.url == first.rpartition("/")[0] == second.rpartition("/")[0]
        assert first != second
        assert f"http://127.0.0.1:9/mine#{label(jobs[2].key, 1)}" == own
        assert all(body["async"] for body in bodies)


async def test_what_is_submitted_while_a_receiver_stops_does_not_ask_for_a_call() -> None:
    """
    While a half-sent callback holds the end of a receiver up, the session submits on, with its placeholder.
    """
    async with stage() as it:
        _, writer = await asyncio.open_connection(*it.address)
        try:
            path = it.receiver.url.split("/", 3)[3]
            writer.write(f"POST /{path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1".encode())
            await writer.drain()
            stopping = asyncio.create_task(it.receiver.stop())
            await asyncio.sleep(0)
            jobs = [await it.pending(f"whale {number}") for number in range(3)]
            await stopping
            assert [JobState.PENDING] * 3 == [job.state for job, _ in jobs]
            assert not any(calls(it.sim, it.receiver, task_id) for _, task_id in jobs)
        finally:
            writer.close()


async def test_a_receiver_that_was_stopped_is_not_called() -> None:
    """After `stop()` submits carry another callback URL, and after another `start()` the receiver's."""
    async with stage() as it:
        for running in (True, False, True):
            _, task_id = await it.pending()
            assert running is calls(it.sim, it.receiver, task_id)
            if running:
                await it.receiver.stop()
            else:
                await it.receiver.start(port=0)


async def test_it_may_be_started_before_the_session_is_entered() -> None:
    """Then nothing is heard yet, and what is submitted later carries the URL."""
    async with Simulator(Settings(mean=ENDLESS)) as sim:
        veo = VeoSession(sim.token, base_url=sim.url, polling=QUIET, retry=RETRY)
        async with CallbackReceiver(veo, public_url=None) as receiver, aiohttp.ClientSession() as http:
            await receiver.start(port=0)
            async with http.post(receiver.url, json={"task_id": "t"}) as answer:
                assert 204 == answer.status
            async with veo:
                task_id = await asyncio.wait_for(veo.text_to_video("a whale").accepted(), HANGING)
                assert sim.core.tasks[task_id].body["callback_url"].startswith(receiver.url)


async def test_a_port_that_is_taken_leaves_it_as_it_was() -> None:
    """It can be started on another port then, but not twice."""
    async with stage() as it:
        another = CallbackReceiver(VeoSession(TOKEN), public_url=None)
        with pytest.raises(OSError, match="address already in use"):
            await another.start(port=it.address[1])
        with pytest.raises(UsageError):
            _ = another.url
        with pytest.raises(UsageError, match="already"):
            await it.receiver.start(port=0)


async def test_it_listens_on_ipv6_too() -> None:
    """An address of version 6 stands in brackets in the URL."""
    async with CallbackReceiver(VeoSession(TOKEN), public_url=None) as receiver:
        port = await receiver.start(port=0, host="::1")
        assert receiver.url.startswith(f"http://[::1]:{port}/")


@asynccontextmanager
async def mounted(
    sim: Simulator, **options: Any
) -> AsyncIterator[tuple[VeoSession, CallbackReceiver, web.Application]]:
    """
    A receiver under `/veo` of another application, whose own limits are wide.
    """
    async with VeoSession(sim.token, base_url=sim.url, polling=QUIET, retry=RETRY) as veo:
        receiver = CallbackReceiver(veo, public_url="http://127.0.0.1/veo", window=0.0, **options)
        app = web.Application(client_max_size=1 << 30)
        app.add_subapp("/veo", receiver.app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        receiver.public_url = f"http://127.0.0.1:{runner.addresses[0][1]}/veo"
        try:
            yield veo, receiver, app
        finally:
            await runner.cleanup()


async def test_it_is_mounted_into_another_application() -> None:
    """As a sub-application it works as long as that application runs."""
    async with Simulator(Settings(mean=ENDLESS)) as sim, mounted(sim) as (veo, receiver, app):
        job = veo.text_to_video("a whale")
        task_id = await asyncio.wait_for(job.accepted(), HANGING)
        sim.core.finish(task_id)
        assert task_id == (await asyncio.wait_for(job, HANGING)).task_id
        assert 1 == receiver.heard
        await app.cleanup()
        task_id = await asyncio.wait_for(veo.text_to_video("another").accepted(), HANGING)
        assert not calls(sim, receiver, task_id)


async def test_a_secret_that_is_kept_hears_of_tasks_from_before() -> None:
    """A process that takes over the port and the secret hears the callbacks of its predecessor's tasks."""
    secret = secrets.token_urlsafe()
    async with Simulator(Settings(mean=ENDLESS)) as sim:
        port, task_id = 0, ""
        for life in (1, 2):
            async with (
                VeoSession(sim.token, base_url=sim.url, polling=QUIET, retry=RETRY) as veo,
                CallbackReceiver(veo, public_url=None, secret=secret, window=0.0) as receiver,
            ):
                port = await receiver.start(port=port)
                if life == 1:
                    task_id = await asyncio.wait_for(veo.text_to_video("a whale").accepted(), HANGING)
                    continue
                job = veo.attach(task_id)
                async for update in job.updates():
                    if update.looks:  # the look of attaching found it pending
                        break
                sim.core.finish(task_id)
                assert task_id == (await asyncio.wait_for(job, HANGING)).task_id
                assert 1 == receiver.heard


# --- any framework ---------------------------------------------------------------------------------------


async def test_any_framework_may_notify() -> None:
    """The parsed body is enough; whether anybody waits for its task is the answer."""
    async with stage() as it:
        await it.receiver.stop()
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)
        assert it.veo.notify({"task_id": task_id, "success": True, "data": []})
        assert task_id == (await it.result(job)).task_id
        assert not it.veo.notify({"task_id": task_id})
    assert not it.veo.notify({"task_id": task_id})


@pytest.mark.parametrize("with_a_loop", [False, True])
async def test_a_thread_may_notify(with_a_loop: bool) -> None:
    """A synchronous view lives in a thread of its own, perhaps with an event loop there."""
    async with stage() as it:
        await it.receiver.stop()
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)

        async def in_a_loop() -> bool:
            return it.veo.notify({"task_id": task_id})

        def in_a_thread() -> bool:
            return asyncio.run(in_a_loop()) if with_a_loop else it.veo.notify({"task_id": task_id})

        assert await asyncio.to_thread(in_a_thread)
        assert task_id == (await it.result(job)).task_id


# --- abuse -----------------------------------------------------------------------------------------------

METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS")


@pytest.mark.parametrize("method", ["POST", *METHODS])
async def test_a_wrong_path_is_not_found(method: str) -> None:
    """Without the secret there is nothing here, whatever the method; nearly right is wrong."""
    async with stage() as it:
        secret = it.receiver.url.rpartition("/")[2]
        wrong = ["", "wrong", "wrong/mark", secret[:-1], f"{secret}x/mark", f"{secret}/mark/more",
                 secret.swapcase(), "%00", "%ff%fe", "%C3%A9/%C3%A9", f"x/{secret}", "x" * 4000]  # fmt: skip
        answers = [await it.request(method, f"/{path}") for path in wrong]
        assert {404} == {answer.status for answer in answers}
        assert (0, 0) == (it.receiver.heard, it.receiver.ignored)


@pytest.mark.parametrize("method", METHODS)
async def test_a_wrong_method_is_not_allowed(method: str) -> None:
    """With the secret, everything but a POST is refused, and says what would do."""
    async with stage() as it:
        secret = it.receiver.url.rpartition("/")[2]
        for path in (f"/{secret}", f"/{secret}/mark"):
            answer = await it.request(method, path)
            assert (405, "POST") == (answer.status, answer.headers["Allow"])
        assert (0, 0) == (it.receiver.heard, it.receiver.ignored)


DEEP = 30_000
BODIES: dict[str, bytes] = {
    "no body": b"",
    "white space": b" \r\n ",
    "no JSON": b"hello",
    "cut off": b'{"task_id": "',
    "a deep list": b"[" * DEEP + b"]" * DEEP,
    "a deep list, open": b"[" * (2 * DEEP),
    "a deep object": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "a deep task id": b'{"task_id":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "null": b"null",
    "a number": b"1",
    "an endless number": b'{"task_id": 1e999}',
    "a long number": b"1" * 60_000,
    "not a number": b'{"task_id": NaN}',
    "a string": b'"task_id"',
    "a list": b'[{"task_id": "t"}]',
    "an empty object": b"{}",
    "no task": b'{"task_id": null}',
    "a list for a task": b'{"task_id": ["t"]}',
    "an object for a task": b'{"task_id": {"t": 1}}',
    "an empty task": b'{"task_id": ""}',
    "a long task": b'{"task_id": "' + b"t" * 60_000 + b'"}',
    "half a character": b'{"task_id": "\\ud800"}',
    "a line break": b'{"task_id": "a\\nb"}',
    "a null byte": b'{"task_id": "\\u0000"}',
    "not UTF-8": b'{"task_id": "\xff\xfe"}',
    "UTF-16": '{"task_id": "t"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + b'{"task_id": "t"}',
    "compressed": gzip.compress(b'{"task_id": "t"}'),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_body_of_any_form_is_answered_and_ignored(name: str) -> None:
    """What is no callback gets the answer of one, so that it is not sent again, and changes nothing."""
    async with stage() as it:
        job, _ = await it.pending()
        assert 204 == await it.post(BODIES[name])
        assert 204 == await it.post(BODIES[name], path="")
        assert (0, 2) == (it.receiver.heard, it.receiver.ignored)
        assert (0, JobState.PENDING) == (it.asked, job.state)


async def test_a_body_that_says_it_is_compressed_is_not_unpacked() -> None:
    """A few bytes that would become a hundred megabytes stay a few bytes."""
    async with stage() as it:
        bomb = gzip.compress(bytes(100 << 20), compresslevel=9)[: MAX_BODY - 1]
        headers = {"Content-Encoding": "gzip"}
        async with it.http.post(it.receiver.url, data=bomb, headers=headers) as answer:
            assert 204 == answer.status


def _head(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: here", *headers, "", ""]).encode()


@asynccontextmanager
async def connected(it: Stage) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(*it.address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def _status(reader: asyncio.StreamReader) -> int:
    """
    Read the head of an answer.
    """
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), HANGING)
    return int(head.split()[1])


async def test_a_hundred_megabytes_are_refused_unread() -> None:
    """Where the length is announced, the answer comes before the body."""
    async with stage() as it, connected(it) as (reader, writer):
        path = it.receiver.url.split("/", 3)[3]
        writer.write(_head(f"/{path}", f"Content-Length: {100 << 20}"))
        assert 413 == await _status(reader)


async def test_a_body_without_end_is_refused_when_it_is_too_large() -> None:
    """Where it is not, the answer comes soon after the limit; nobody waits for the rest."""
    async with stage() as it, connected(it) as (reader, writer):
        path = it.receiver.url.split("/", 3)[3]
        writer.write(_head(f"/{path}", "Transfer-Encoding: chunked"))
        for _ in range(2 * MAX_BODY // 0x1000):
            writer.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        assert 413 == await _status(reader)


async def test_a_large_body_is_refused_under_another_applications_limit() -> None:
    """Mounted, it keeps to its own limit, not to the gigabyte that the application around it allows."""
    async with (
        Simulator(Settings()) as sim,
        mounted(sim) as (_, receiver, _),
        aiohttp.ClientSession() as http,
    ):
        async with http.post(receiver.url, data=bytes(MAX_BODY + 1)) as answer:
            assert 413 == answer.status
        async with http.post(receiver.url, data=b" " * MAX_BODY) as answer:
            assert 204 == answer.status


async def test_a_body_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who announces a body and does not send it is not waited for longer than the patience."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    async with stage() as it, connected(it) as (reader, writer):
        path = it.receiver.url.split("/", 3)[3]
        writer.write(_head(f"/{path}", "Content-Length: 100") + b"{")
        assert 408 == await _status(reader)


async def test_a_sender_that_leaves_disturbs_nobody() -> None:
    """A connection that breaks off in the middle of a body is forgotten; the next callback is heard."""
    async with stage() as it:
        path = it.receiver.url.split("/", 3)[3]
        for cut in (_head(f"/{path}", "Content-Length: 100") + b"{", b"POST /", b"\x16\x03\x01", b""):
            async with connected(it) as (_, writer):
                writer.write(cut)
                await writer.drain()
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)
        await it.result(job)


async def test_an_unknown_task_is_ignored() -> None:
    """A callback about a task that no job waits for asks nobody anything."""
    async with stage() as it:
        assert 204 == await it.post({"task_id": "0b9c7a1e-0000-4000-8000-000000000000", "success": True})
        assert (0, 0, 1) == (it.asked, it.receiver.heard, it.receiver.ignored)


async def test_someone_elses_task_is_ignored() -> None:
    """A task that exists, and ended well, is nobody's here, though one of ours has just the same prompt."""
    async with stage() as it:
        other = json.loads(it.sim.core.post("/veo/videos", {**BODY, "prompt": "a whale"}).body)["task_id"]
        job, _ = await it.pending("a whale")
        it.sim.core.finish(other)
        mark = it.sim.core.tasks[job.task_id].body["callback_url"].rpartition("/")[2]
        assert 204 == await it.post({"task_id": other, "success": True}, f"/{mark}")
        assert (0, JobState.PENDING) == (it.asked, job.state)


BODY = {"action": "text2video", "model": "veo31-fast", "async": True}
FORGED = {"id": "v", "video_url": "http://127.0.0.1:9/forged.mp4", "state": "succeeded"}


async def test_a_forged_success_settles_nothing() -> None:
    """The job looks, finds its task pending, and later has the video that the API tells of."""
    async with stage() as it:
        job, task_id = await it.pending()
        assert 204 == await it.post({"task_id": task_id, "success": True, "data": [FORGED]})
        async for update in job.updates():
            if update.looks:
                break
        assert JobState.PENDING is job.state
        it.sim.core.finish(task_id)
        assert it.sim.url == (await it.result(job)).video.url.rpartition("/files/")[0]


async def test_a_forged_failure_settles_nothing() -> None:
    """A task that is said to have failed, and has not, succeeds all the same."""
    async with stage() as it:
        job, task_id = await it.pending()
        error = {"code": "forbidden", "message": "made up"}
        assert 204 == await it.post({"task_id": task_id, "success": False, "error": error})
        it.sim.core.finish(task_id)
        assert task_id == (await it.result(job)).task_id


async def test_the_same_callback_ten_times_is_one_look() -> None:
    """Those that come before the look share it, those that come after the end find nobody waiting."""
    async with stage(window=0.2, callbacks="off") as it:
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)
        callback = {"task_id": task_id, "success": True}
        assert {204} == set(await asyncio.gather(*(it.post(callback) for _ in range(10))))
        await it.result(job)
        assert 1 == it.asked
        assert 10 == it.receiver.heard + it.receiver.ignored


async def test_a_callback_before_the_submits_own_answer_is_remembered() -> None:
    """The task ends and calls back while its submit is still being answered: the look comes right after that."""
    faults = Faults().add("slow", on="submit", seconds=1.0)
    async with stage(faults, mean=0.05) as it:
        job = it.veo.text_to_video("a whale")
        result = await it.result(job)
        assert (1, 1) == (it.asked, it.sim.core.accepted)
        assert (0, 1) == (it.receiver.heard, it.receiver.ignored), "nobody waited for that task yet"
        assert [result.task_id] == list(it.sim.core.tasks)


async def test_an_early_callback_settles_nothing() -> None:
    """One that comes before the submit's answer and lies about the end leads to a look, and no more."""
    faults = Faults().add("early", on="callback")
    async with stage(faults) as it:
        job, task_id = await it.pending()
        async for update in job.updates():
            if update.looks:
                break
        assert JobState.PENDING is job.state
        it.sim.core.finish(task_id)
        assert task_id == (await it.result(job)).task_id


async def test_a_callback_after_the_job_settled_is_ignored() -> None:
    """Nobody is asked about a task that has its outcome, whatever is said of it now."""
    async with stage() as it:
        job, task_id = await it.pending()
        it.sim.core.finish(task_id)
        result = await it.result(job)
        before = it.asked
        assert 204 == await it.post({"task_id": task_id, "success": False, "error": {"code": "x"}})
        assert result is job.result()
        assert before == it.asked


async def test_a_callback_after_the_session_closed_is_ignored() -> None:
    """The receiver may outlive its session: it answers, and nothing happens."""
    async with Simulator(Settings(mean=ENDLESS)) as sim, aiohttp.ClientSession() as http:
        veo = VeoSession(sim.token, base_url=sim.url, polling=QUIET, retry=RETRY)
        async with CallbackReceiver(veo, public_url=None) as receiver:
            await receiver.start(port=0)
            async with veo:
                job = veo.text_to_video("a whale")
                task_id = await asyncio.wait_for(job.accepted(), HANGING)
            async with http.post(receiver.url, json={"task_id": task_id, "success": True}) as answer:
                assert 204 == answer.status
            assert (0, 1) == (receiver.heard, receiver.ignored)
            assert isinstance(job.exception(), SessionClosed)
            assert ["submit"] == list(veo.stats.requests)


async def flood(it: Stage, bodies: list[bytes]) -> None:
    """
    Send callbacks as fast as the receiver answers them.
    """
    path = it.receiver.url.split("/", 3)[3]
    async with connected(it) as (reader, writer):
        for first in range(0, len(bodies), PIPELINED):
            some = bodies[first : first + PIPELINED]
            writer.write(
                b"".join(_head(f"/{path}/n", f"Content-Length: {len(body)}") + body for body in some)
            )
            assert {204} == {await _status(reader) for _ in some}


async def test_ten_thousand_forged_callbacks_are_answered_and_cost_nothing() -> None:
    """A flood of strangers' tasks is answered, nobody is asked, and a real callback still comes through."""
    async with stage() as it:
        job, task_id = await it.pending()
        forged = [b'{"task_id": "%08d-0000-4000-8000-000000000000"}' % number for number in range(2500)]
        await asyncio.gather(*(flood(it, forged) for _ in range(4)))
        assert (0, 0, 10_000) == (it.asked, it.receiver.heard, it.receiver.ignored)
        it.sim.core.finish(task_id)
        assert task_id == (await it.result(job)).task_id


async def test_a_flood_about_a_pending_task_costs_a_few_looks() -> None:
    """Who knows the secret and a task can make the session look, but only so often."""
    async with stage() as it:
        job, task_id = await it.pending()
        forged = [json.dumps({"task_id": task_id, "data": [FORGED]}).encode()] * 1000
        await asyncio.gather(*(flood(it, forged) for _ in range(2)))
        assert 2000 == it.receiver.heard
        assert it.asked <= 5
        assert JobState.PENDING is job.state

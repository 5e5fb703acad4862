"""
The simulator on a port: what its replies do to real connections.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from veo_async.simulator import Core, Faults, Settings, Simulator, create_app

WHALE: Final = {"action": "text2video", "prompt": "a whale", "async": True}
SECONDS: Final = 10.0  # no test takes that long: a bound, not a measure


@asynccontextmanager
async def running(
    faults: Faults | None = None, **choices: Any
) -> AsyncIterator[tuple[Simulator, aiohttp.ClientSession]]:
    """A simulator whose tasks end at once, and a client."""
    settings = Settings(**({"duration": lambda body: 0.0} | choices))
    async with Simulator(settings, faults=faults) as sim:
        headers = {"Authorization": f"Bearer {sim.token}"}
        async with aiohttp.ClientSession(sim.url, headers=headers) as http, asyncio.timeout(SECONDS):
            yield sim, http


async def post(http: aiohttp.ClientSession, path: str, body: object) -> Any:
    async with http.post(path, json=body) as response:
        return json.loads(await response.read())


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until it is so."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0)


@asynccontextmanager
async def listening(status: int = 200) -> AsyncIterator[tuple[str, asyncio.Queue[Any]]]:
    """A receiver of callbacks on this machine."""
    received: asyncio.Queue[Any] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        received.put_nowait(await request.json())
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/hook", take)
    runner = web.AppRunner(app, shutdown_timeout=0.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", received
    finally:
        await runner.cleanup()


# --- without faults ------------------------------------------------------------------------------------


async def test_from_a_prompt_to_a_file() -> None:
    """Submit, look up, download: the address in the record works, also with HEAD and for a part."""
    async with running() as (sim, http):
        task_id = (await post(http, "/veo/videos", WHALE))["task_id"]
        record = await post(http, "/veo/tasks", {"id": task_id})
        url = record["response"]["data"][0]["video_url"]
        assert url.startswith(f"{sim.url}/files/")
        whole = sim.core.files.contents(sim.core.tasks[task_id])

        async with http.get(url) as response:
            assert whole == await response.read()
        async with http.get(url, headers={"Range": "bytes=100-"}) as response:
            assert (206, whole[100:]) == (response.status, await response.read())
        async with http.head(url) as response:
            assert (len(whole), b"") == (response.content_length, await response.read())


async def test_a_large_file_is_streamed() -> None:
    """A padded file arrives whole."""
    async with running(file_size=5_000_000) as (sim, http):
        answer = await post(http, "/veo/videos", WHALE | {"async": False})
        async with http.get(answer["data"][0]["video_url"]) as response:
            data = await response.read()

        assert sim.core.files.contents(sim.core.tasks[answer["task_id"]]) == data


async def test_a_synchronous_submit_waits_for_the_end() -> None:
    """The connection stays open until the task ends, by its time or by hand."""
    async with running(duration=lambda body: (body.get("translation", False) and 0.01) or 3600.0) as (
        sim,
        http,
    ):
        quick = await post(http, "/veo/videos", {"action": "text2video", "prompt": "x", "translation": True})
        slow = asyncio.create_task(post(http, "/veo/videos", {"action": "text2video", "prompt": "x"}))
        await until(lambda: sim.core.accepted == 2)
        sim.core.finish([*sim.core.tasks][1])

        assert [True, True] == [quick["success"], (await slow)["success"]]


async def test_errors_keep_their_status_and_headers() -> None:
    """What the core refuses is refused on the wire."""
    async with running(submits_per_second=1.0, retry_after="seconds") as (_, http):
        await post(http, "/veo/videos", WHALE)
        async with http.post("/veo/videos", json=WHALE) as response:
            assert (429, "1") == (response.status, response.headers["Retry-After"])
        async with http.get("/anything") as response:
            assert (404, "no_api") == (response.status, (await response.json())["error"]["code"])


async def test_an_ipv6_address_is_written_with_brackets() -> None:
    """The base URL is one, whatever the host."""
    assert "http://[::1]:80" == Simulator(host="::1", port=80).url
    assert "http://127.0.0.1:0" == Simulator().url


async def test_a_core_with_a_past_can_be_served() -> None:
    """A simulator takes a core, its settings and its faults as they are."""
    core = Core(Settings(tokens="mine"), faults=Faults())
    core.post("/veo/videos", WHALE)
    async with Simulator(core=core) as sim:
        assert (core.settings, core.faults, "mine") == (sim.settings, sim.faults, sim.token)
        assert 1 == sim.core.accepted


async def test_the_application_can_be_mounted_by_hand() -> None:
    """`create_app` is enough for those who have a server of their own."""
    core = Core(
        Settings(duration=lambda body: 0.0), faults=Faults().add("restart_before", on="submit", nth=[1])
    )
    runner = web.AppRunner(create_app(core), shutdown_timeout=0.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/veo/videos"
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {next(iter(core.tokens))}"}
        ) as http:
            for error in (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):  # dropped, then refused
                with pytest.raises(error):
                    await http.post(url, json=WHALE)
    finally:
        await runner.cleanup()


# --- restarts ------------------------------------------------------------------------------------------


async def test_a_restart_keeps_the_port_and_the_memory() -> None:
    """After a restart the same address knows the same tasks."""
    async with running() as (sim, http):
        url = sim.url
        task_id = (await post(http, "/veo/videos", WHALE))["task_id"]
        await sim.restart()

        assert url == sim.url
        assert task_id == (await post(http, "/veo/tasks", {"id": task_id}))["id"]


async def test_an_injected_restart_closes_the_port_for_a_while() -> None:
    """The struck request is accepted and dropped; then nobody listens; then the server is back."""
    faults = Faults().add("restart_after", on="submit", nth=[1], seconds=0.2)
    async with running(faults) as (sim, http):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(http, "/veo/videos", WHALE)
        while not await _refused(http):
            pass
        while not await _answers(http):
            pass

        assert [*sim.core.tasks] == [item["id"] for item in (await _list(http))["items"]]


async def test_stopping_ends_a_restart_under_way() -> None:
    """A simulator that is to come back much later can still be stopped."""
    faults = Faults().add("restart_before", on="submit", seconds=3600.0)
    async with running(faults) as (_, http):
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await post(http, "/veo/videos", WHALE)


async def _list(http: aiohttp.ClientSession) -> Any:
    return await post(http, "/veo/tasks", {"action": "retrieve_batch"})


async def _refused(http: aiohttp.ClientSession) -> bool:
    try:
        await _list(http)
    except aiohttp.ClientConnectorError:
        return True
    except aiohttp.ClientError:
        pass
    return False


async def _answers(http: aiohttp.ClientSession) -> bool:
    try:
        await _list(http)
    except aiohttp.ClientError:
        return False
    return True


# --- faults --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "error", "accepted"),
    [
        ("drop_before", aiohttp.ServerDisconnectedError, 0),
        ("drop_after", aiohttp.ServerDisconnectedError, 1),
        ("drop_mid", aiohttp.ClientPayloadError, 1),
        ("reset_before", aiohttp.ClientOSError, 0),
        ("reset_after", aiohttp.ClientOSError, 1),
        ("bad_json", json.JSONDecodeError, 1),
        ("bad_text", UnicodeDecodeError, 1),
        ("cut_off", json.JSONDecodeError, 1),
        ("deep", RecursionError, 1),
        ("empty", json.JSONDecodeError, 1),
        ("html", json.JSONDecodeError, 1),
    ],
)
async def test_a_submit_goes_wrong_and_the_next_does_not(
    kind: str, error: type[Exception], accepted: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Each fault reaches the client as what it is, quietly, and leaves the server in order."""
    async with running(Faults().add(kind, on="submit", nth=[1])) as (sim, http):
        with pytest.raises(error) as caught:
            await post(http, "/veo/videos", WHALE)
        assert error is type(caught.value)
        assert accepted == sim.core.accepted

        assert {"task_id"} == (await post(http, "/veo/videos", WHALE)).keys()
    assert [] == [line for line in caplog.records if line.levelname in {"WARNING", "ERROR"}]


@pytest.mark.parametrize("kind", ["stall_before", "stall_after"])
async def test_a_stalled_request_ends_when_the_client_leaves(kind: str) -> None:
    """Nothing comes until the client gives up."""
    faults = Faults().add(kind, on="submit", nth=[1])
    async with running(faults) as (sim, http):
        call = asyncio.create_task(post(http, "/veo/videos", WHALE))
        await until(lambda: sim.core.requests["submit"])
        assert not call.done()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

        assert (kind == "stall_after") == bool(sim.core.accepted)
        assert {"task_id"} == (await post(http, "/veo/videos", WHALE)).keys()


async def test_a_stall_ends_without_the_help_of_the_server() -> None:
    """Also where handlers are not cancelled with their connection, nothing is left behind."""
    core = Core(faults=Faults().add("stall_before", on="submit"))
    runner = web.AppRunner(create_app(core), shutdown_timeout=SECONDS)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/veo/videos"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {next(iter(core.tokens))}"}) as http:
        call = asyncio.create_task(post(http, url, WHALE))
        await until(lambda: core.requests["submit"])
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
    async with asyncio.timeout(SECONDS / 2):
        await runner.cleanup()


@pytest.mark.parametrize("size", [None, 2_000_000])
async def test_a_slow_download_arrives(size: int | None) -> None:
    """The bytes come in small pieces, and all of them."""
    faults = Faults().add("slow", on="download", seconds=0.05)
    async with running(faults, file_size=size) as (sim, http):
        answer = await post(http, "/veo/videos", WHALE | {"async": False})
        async with http.get(answer["data"][0]["video_url"]) as response:
            data = await response.read()

        assert sim.core.files.contents(sim.core.tasks[answer["task_id"]]) == data


async def test_a_download_breaks_off_in_the_middle() -> None:
    """Half of the file comes, then the connection closes."""
    faults = Faults().add("drop_mid", on="download")
    async with running(faults, file_size=3_000_000) as (_, http):
        answer = await post(http, "/veo/videos", WHALE | {"async": False})
        received = bytearray()
        async with http.get(answer["data"][0]["video_url"]) as response:
            with pytest.raises(aiohttp.ClientPayloadError):
                await _read_into(received, response)

        assert 1_500_000 == len(received)


async def _read_into(received: bytearray, response: aiohttp.ClientResponse) -> None:
    async for piece in response.content.iter_any():
        received += piece


async def test_an_answer_can_be_huge() -> None:
    """White space without end follows the JSON; the size is not announced."""
    faults = Faults().add("oversized", on="submit", size=20 << 20)
    async with running(faults) as (_, http):
        length = 0
        async with http.post("/veo/videos", json=WHALE) as response:
            assert None is response.content_length
            async for piece in response.content.iter_any():
                length += len(piece)

        assert 20 << 20 <= length


# --- callbacks -----------------------------------------------------------------------------------------


async def test_a_callback_is_delivered() -> None:
    """The result is POSTed to the callback URL when the task ends."""
    async with listening() as (hook, received), running(duration=lambda body: 3600.0) as (sim, http):
        task_id = (await post(http, "/veo/videos", WHALE | {"callback_url": hook}))["task_id"]
        sim.core.finish(task_id)

        body = await received.get()
        assert (task_id, True) == (body["task_id"], body["success"])


async def test_health_takes_whatever_comes() -> None:
    """The health answers any method over a socket, without a token, and takes a callback's body."""
    async with running() as (sim, _), aiohttp.ClientSession() as stranger:
        for method, body in (("GET", b""), ("POST", b'{"success": true}'), ("HEAD", b"")):
            async with stranger.request(method, f"{sim.url}/health?veo_async=a.1", data=body) as answer:
                assert (200, "application/json") == (answer.status, answer.content_type)
                assert method == "HEAD" or {"status": "ok"} == await answer.json()
        assert 0 == sim.core.requests.total()


async def test_a_callback_to_the_health_does_no_harm(caplog: pytest.LogCaptureFixture) -> None:
    """A task whose callback goes to a `/health` ends as any other, and nothing is told or asked of it."""
    async with running() as (sim, http):
        for host in (sim.url, "https://api.acedata.cloud"):
            answer = await post(http, "/veo/videos", WHALE | {"callback_url": f"{host}/health"})
            record = await post(http, "/veo/tasks", {"id": answer["task_id"]})
            assert record["response"]["success"]
        assert {"submit": 2, "retrieve": 2} == sim.core.requests
    assert [] == caplog.messages


async def test_a_callback_arrives_without_the_fragment() -> None:
    """The receiver is asked for the address without its fragment."""
    async with listening() as (hook, received), running() as (_, http):
        answer = await post(http, "/veo/videos", WHALE | {"callback_url": f"{hook}#veo_async=a.1"})

        assert answer["task_id"] == (await received.get())["task_id"]


async def test_an_early_callback_comes_before_the_answer() -> None:
    """The submit is answered only when the receiver has had the callback."""
    faults = Faults().add("early", on="callback")
    async with listening() as (hook, received), running(faults, duration=lambda body: 3600.0) as (_, http):
        answer = await post(http, "/veo/videos", WHALE | {"callback_url": hook})

        assert answer["task_id"] == received.get_nowait()["task_id"]


async def test_a_refused_callback_is_tried_again() -> None:
    """A receiver that answers with an error hears of it as often as the settings say."""
    async with listening(status=500) as (hook, received), running(callback_attempts=3) as (_, http):
        await post(http, "/veo/videos", WHALE | {"callback_url": hook})

        assert 1 == len({(await received.get())["task_id"] for _ in range(3)})


@pytest.mark.parametrize("url", ["https://example.com/hook", "http://192.0.2.1/hook", "http://[/hook"])
async def test_no_callback_leaves_this_machine(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """A callback to another host is not sent, and that is said once."""
    async with running() as (sim, http):
        await post(http, "/veo/videos", WHALE | {"callback_url": url})
        await until(lambda: sim.core.next_callback_at() is None and caplog.messages)

    assert [f"no callback to {url}: it is not this machine"] == caplog.messages


async def test_a_receiver_that_is_gone_does_no_harm() -> None:
    """A callback that nobody takes is given up, as is one under way when the simulator stops."""
    async with listening() as (hook, _):
        pass
    async with running() as (sim, http):
        answer = await post(http, "/veo/videos", WHALE | {"callback_url": hook})
        await post(http, "/veo/videos", WHALE | {"callback_url": "http://localhost:1/hook"})

        assert answer["task_id"] == (await post(http, "/veo/tasks", {"id": answer["task_id"]}))["id"]
        assert 2 == sim.core.accepted


async def test_two_simulators_in_a_row() -> None:
    """One simulator after another, and two at once, do not disturb each other."""
    async with running() as (first, http), running() as (second, _):
        await post(http, "/veo/videos", WHALE)
        assert (1, 0) == (first.core.accepted, second.core.accepted)
    async with running() as (third, http):
        await post(http, "/veo/videos", WHALE)
        assert 1 == third.core.accepted

"""
The token in what the server says: taken out of what is kept, and never in the way of what is meant.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from veo_async import Event, PollPolicy, RetryPolicy, TaskRecord, TextToVideo, VeoSession
from veo_async._http.failures import WITHHELD, translated
from veo_async._http.redaction import Secret
from veo_async.simulator import Faults, Settings, Simulator

SPEED = 200.0
QUICK: dict[str, Any] = {
    "polling": PollPolicy().scaled(1 / SPEED),
    "retry": RetryPolicy().scaled(1 / SPEED),
}
TOKEN = "s3cr3t-t0ken-0123456789abcdef"


@pytest.mark.parametrize("token", ["t", "id", "test", "succeeded", "simulator-token"])
async def test_whatever_the_token_is_everything_works(token: str, tmp_path: Path) -> None:
    """
    Answers are read, echoes are recognised, and results come out of the journal, though all of them hold the token.
    """
    faults = Faults().add("drop_after", on="submit", first=True)
    prompts = ["a test of ids", "succeeded at last", f"the {token} itself"]
    wishes = [(prompt, TextToVideo(prompt)) for prompt in prompts]
    journal = tmp_path / "batch.db"
    async with Simulator(Settings(tokens=token, speed=SPEED), faults=faults) as sim:
        async with VeoSession(token, base_url=sim.url, journal=journal, **QUICK) as veo:
            results = [await job for job in veo.submit_many(wishes)]
            record = await veo.retrieve(results[0].task_id)
            listed = [each.id async for each in veo.list_tasks()]
            path = await veo.download(results[0].video, tmp_path)
        async with VeoSession(token, base_url=sim.url, journal=journal, **QUICK) as veo:
            again = [await job for job in veo.submit_many(wishes)]
    assert [result.video.url for result in results] == [result.video.url for result in again]
    assert ("a test of ids", "succeeded") == (record.request["prompt"], record.state)
    assert {result.task_id for result in results} == set(listed)
    assert path.stat().st_size > 0
    assert len(prompts) == sim.core.accepted


async def _repeating(request: web.Request) -> web.Response:
    """
    A server that has the token in every text of a task that succeeds.
    """
    token = request.headers["Authorization"].split()[1]
    if not request.path.endswith("tasks"):
        return web.json_response({"task_id": "t-1", "trace_id": f"of {token}"}, headers={"X-Trace-Id": token})
    video = {"id": f"v-{token}", "video_url": f"https://cdn.example/{token}/v.mp4", "state": "succeeded"}
    response = {"success": True, "trace_id": token, "data": [video], token: [token, 1, None]}
    sent = {"headers": {"Authorization": f"Bearer {token}"}, "prompt": "a whale"}
    record = {"id": "t-1", "trace_id": token, "type": token, "request": sent, "response": response}
    asked = await request.json()
    return web.json_response({"items": [record]} if "ids" in asked else record)


@asynccontextmanager
async def repeating() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", _repeating)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _texts(record: TaskRecord) -> str:
    return f"{record} {record.raw} {record.request} {[video.raw for video in record.videos]}"


async def test_what_is_kept_raw_is_without_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    Results, records, ids of traces, events and the journal keep what the server said, except for the token.
    """
    caplog.set_level(logging.DEBUG)
    told: list[Event] = []
    async with (
        repeating() as url,
        VeoSession(
            TOKEN, base_url=url, journal=tmp_path / "batch.db", observers=[told.append], **QUICK
        ) as veo,
    ):
        job = veo.submit(TextToVideo("a whale"), key="k")
        result = await job
        records = [await veo.retrieve("t-1"), *(await veo.retrieve_many(["t-1"])).values()]
        again = await veo.submit(TextToVideo("a whale"), key="k")
    kept = [
        repr(result),
        repr(result.raw),
        repr(result.video.raw),
        str(job.trace_id),
        repr(again.raw),
        repr(told),
    ]
    said = "".join([*kept, *map(_texts, records), caplog.text])
    assert TOKEN not in said
    assert "Bearer [token]" in said
    assert "https://cdn.example/[token]/v.mp4" == result.video.url
    for file in tmp_path.iterdir():  # noqa: ASYNC240 - a few small files
        assert TOKEN.encode() not in file.read_bytes()


def test_the_echo_of_what_was_sent_is_left_as_it_is() -> None:
    """
    A task is known by it; all else that a server says of the request is searched.
    """
    sent = {"prompt": f"why {TOKEN}?", "callback_url": f"https://my.host/{TOKEN}", "action": TOKEN}
    body = json.dumps({"request": sent, "more": {"request": TOKEN}}).encode()
    told = {"request": sent | {"action": "[token]"}, "more": {"request": "[token]"}}
    assert told == json.loads(Secret(TOKEN).redact_body(body))


def test_only_texts_are_searched() -> None:
    """
    A number that reads like the token is a number, and what has been taken apart is put together as it was.
    """
    body = b'{"at": 1234567890123, "note": "1234567890123", "more": [true, null, {"1234567890123": 1.5}]}'
    told = {"at": 1234567890123, "note": "[token]", "more": [True, None, {"[token]": 1.5}]}
    assert told == json.loads(Secret("1234567890123").redact_body(body))


@pytest.mark.parametrize(
    "body", [f"<html>{TOKEN}</html>", f'{{"a": "{TOKEN}', "[" * 100 + f'"{TOKEN}"' + "]" * 100]
)
def test_what_cannot_be_read_and_repeats_the_token_is_not_shown(body: str) -> None:
    """
    A page or a torn answer with the token in it becomes words that say so.
    """
    assert WITHHELD == Secret(TOKEN).redact_body(body.encode()).decode()


def test_a_short_token_hides_nothing() -> None:
    """
    An answer or a failure that holds a token of a few letters is what it was.
    """
    secret = Secret("test")
    assert (b"a test", "a test") == (secret.redact_body(b"a test"), secret.redact("a test"))
    assert str(translated(OSError("a test"), "http://x", token="test")).endswith("failed: a test")


def test_a_short_token_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """
    The log says once a session that a short token cannot be kept out of what is shown, and does not repeat it.
    """
    VeoSession(TOKEN)
    VeoSession("twelve-chars")
    assert [] == caplog.records
    VeoSession("sesame")
    assert ["WARNING"] == [record.levelname for record in caplog.records]
    assert "the token has less than 12 characters" in caplog.text
    assert "sesame" not in caplog.text

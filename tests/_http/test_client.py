"""
The API's HTTP: which questions are asked again, and what they count as.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from veo_async import AuthenticationError, Limits, RateLimited, ServerError
from veo_async._http.client import READ_TRIES, Http

from .peers import api_at, hang, raw_server, transport


@asynccontextmanager
async def asked(*answers: web.Response) -> AsyncIterator[tuple[Http, list[object]]]:
    """
    An API that gives these answers in turn, and then the last for ever.
    """
    bodies: list[object] = []

    async def handler(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        answer = answers[min(len(bodies), len(answers)) - 1]
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    app = web.Application()
    app.router.add_post("/veo/tasks", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    async with transport(Limits()) as link:
        yield api_at(link, f"http://{host}:{port}"), bodies
    await runner.cleanup()


GOOD = web.json_response({"items": []})
BAD = web.Response(status=502, text="<html>")
BUSY = web.Response(status=429, headers={"Retry-After": "1"})
FORBIDDEN = web.json_response({"error": {"code": "invalid_token", "message": "no"}}, status=401)
QUESTION = {"action": "retrieve_batch", "ids": ["1"]}


async def test_a_question_is_repeated_until_it_is_answered() -> None:
    """
    A gateway's 502 and a 429 are asked again; the question itself stays the same.
    """
    async with asked(BAD, BUSY, GOOD) as (http, bodies):
        assert {"items": []} == await http.read(QUESTION)
    assert [QUESTION] * 3 == bodies
    assert 2 == http.retries
    assert {"retrieve_batch": 3} == dict(http.requests)


async def test_a_question_is_not_repeated_for_ever() -> None:
    """
    After a bounded number of tries the last error comes out.
    """
    async with asked(BAD) as (http, bodies):
        with pytest.raises(ServerError):
            await http.read(QUESTION)
    assert READ_TRIES == len(bodies)


async def test_a_refused_question_is_not_repeated() -> None:
    """
    A dead token is said at once.
    """
    async with asked(FORBIDDEN) as (http, bodies):
        with pytest.raises(AuthenticationError):
            await http.read(QUESTION)
    assert 1 == len(bodies)


async def test_a_question_is_asked_once_where_that_is_wanted() -> None:
    """
    `ask` leaves the repeating to its caller, and tells the gate.
    """
    async with asked(BUSY, GOOD) as (http, _):
        with pytest.raises(RateLimited) as caught:
            await http.ask(QUESTION)
        assert 1.0 == caught.value.retry_after
        assert 1 == http.polls.gate.pauses
        assert {"items": []} == await http.ask(QUESTION)


async def test_a_cancelled_question_gives_its_place_back() -> None:
    """
    Who stops waiting for an answer does not block the gate.
    """
    async with raw_server(hang) as url, transport(Limits()) as link:
        http = api_at(link, url)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await http.ask(QUESTION)
        assert 0 == http.polls.gate.requests_out


async def test_questions_are_counted_by_kind() -> None:
    """
    One task, a batch of ids, and a listing are told apart.
    """
    async with asked(GOOD) as (http, _):
        for question in ({"action": "retrieve", "id": "1"}, QUESTION, {"action": "retrieve_batch"}):
            await http.ask(question)
    assert {"retrieve": 1, "retrieve_batch": 1, "list": 1} == dict(http.requests)

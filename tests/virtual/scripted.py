"""
What tests of single behaviours need besides a world: a mark for virtual time, and answers of one's own making.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, ParamSpec

from attrs import define, field

from veo_async import Job, JobState, TextToVideo, VeoError, VeoSession, VideoResult
from veo_async._http.transport import Outgoing, Reply
from veo_async.simulator import TOKEN
from veo_async.testing.in_memory import InMemoryTransport

from .loop import run
from .world import World

__all__ = [
    "Options",
    "ScriptedTransport",
    "answer",
    "ended",
    "in_virtual_time",
    "result_of",
    "scripted",
    "whale",
    "whales",
]

_P = ParamSpec("_P")

Options = Callable[[], dict[str, Any]]
Answer = Reply | BaseException | Callable[[bytes], Awaitable[Reply]]


def in_virtual_time(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """
    Run a test's coroutine to its end on a clock that jumps.
    """

    @functools.wraps(test)
    def play(*args: _P.args, **kwargs: _P.kwargs) -> None:
        run(test(*args, **kwargs))

    return play


async def ended(job: Job) -> JobState:
    """
    Wait until a job is settled, and say as what.
    """
    with suppress(VeoError):
        await job
    return job.state


async def result_of(job: Job) -> VideoResult:
    """
    Await a job, for a task of its own.
    """
    return await job


def whale(number: int = 0) -> TextToVideo:
    """
    One request out of many.
    """
    return TextToVideo(f"whale {number}")


def whales(count: int) -> list[TextToVideo]:
    """
    Requests that differ.
    """
    return [whale(number) for number in range(count)]


def answer(status: int, body: object = None, **headers: str) -> Reply:
    """
    An answer with a JSON body, or with these very bytes.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, data)


@define(eq=False)
class ScriptedTransport(InMemoryTransport):
    """
    Answers submits by a script before the server ever sees them, and holds requests back while told to.

    Attributes:
        submits: the answers to the next submits; once used up, the server answers.
        asks: likewise for questions.
        open: while it is clear, submits wait with their body on the way.
        arrived: how many submits have begun to leave.
    """

    submits: deque[Answer] = field(init=False, factory=deque)
    asks: deque[Answer] = field(init=False, factory=deque)
    open: asyncio.Event = field(init=False, factory=asyncio.Event)
    arrived: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self.open.set()

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        asking = url.endswith("/veo/tasks")
        if not asking:
            self.arrived += 1
            if not self.open.is_set():
                outgoing.left = True
                await self.open.wait()
        script = self.asks if asking else self.submits
        if not script:
            return await super().send(method, url, outgoing)
        outgoing.left = True
        return await self._said(script.popleft(), outgoing)

    async def _said(self, answer: Answer, outgoing: Outgoing) -> Reply:
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        return await answer(outgoing.data)


def scripted(world: World, **options: Any) -> tuple[VeoSession, ScriptedTransport]:
    """
    Make a session whose transport follows a script.
    """
    session = world.session(**options)
    transport = ScriptedTransport(world.core, TOKEN)
    session._transport = transport
    return session, transport

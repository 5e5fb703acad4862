"""
What is done to sessions, and around a test, while the fixtures are in use.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from .. import Journal, UsageError, VeoSession
from .._session.session import is_about_to_use, replace_clock, scale_policies
from ..simulator import Core, Faults, Settings
from .clock import VeoClock
from .in_memory import WithFiles
from .simulated import VeoSimulator, served

__all__ = ["enter_around", "jump_around", "serve"]


def serve(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[VeoSimulator]:
    """
    Serve a simulator that every session finds by itself, at its speed.
    """
    with served(Core(settings, faults=Faults(settings.seed))) as simulator:
        monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", simulator.token)
        monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", simulator.url)
        monkeypatch.setenv("VEO_ASYNC_SPEED", f"{settings.speed:g}")  # for the command `veo-async`
        when_entered(monkeypatch, simulator, lambda session: scale_policies(session, 1 / settings.speed))
        yield simulator


def when_entered(
    monkeypatch: pytest.MonkeyPatch, simulator: VeoSimulator, prepare: Callable[[VeoSession], None]
) -> None:
    """
    Prepare each session that talks to this simulator when it is entered.
    """
    enter = VeoSession.__aenter__

    async def prepared(session: VeoSession) -> VeoSession:
        if is_about_to_use(session, simulator.url):
            prepare(session)
        return await enter(session)

    monkeypatch.setattr(VeoSession, "__aenter__", prepared)


def enter_around(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> VeoSession:
    """
    Return a session that is entered for as long as the test runs.
    """
    session = VeoSession()
    wrap(request, monkeypatch, lambda: session)
    return session


def jump_around(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, simulator: VeoSimulator
) -> VeoClock:
    """
    Return a clock that is the loop's, the simulator's and every session's for as long as the test runs.
    """
    clock = VeoClock()
    simulator.core.clock = clock.unix_time
    in_memory = functools.partial(WithFiles, simulator.core, clock=clock)

    def prepare(session: VeoSession) -> None:
        replace_clock(
            session,
            clock.unix_time,
            transport=lambda network, token: in_memory(token=token, network=network),
            journal=_inline,
        )

    when_entered(monkeypatch, simulator, prepare)
    wrap(request, monkeypatch, lambda: _jumping(clock))
    return clock


@asynccontextmanager
async def _jumping(clock: VeoClock) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    clock.start(loop)
    try:
        yield
    finally:
        clock.stop(loop)


def _inline(journal: object) -> Journal:
    if not isinstance(journal, Journal):
        raise UsageError(
            "a clock that jumps cannot see a database's socket: use veo_simulator without veo_clock"
        )
    return journal if journal.inline else Journal(journal.path, inline=True)


def wrap(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    entered: Callable[[], AbstractAsyncContextManager[object]],
) -> None:
    """
    Run a test inside a context, in whatever loop its own plugin runs it.

    An async fixture would have to be another one for each plugin, and may have another loop than the test.
    """
    test, name = request.node.obj, request.fixturename
    if not inspect.iscoroutinefunction(test):
        raise UsageError(f"{name} is for tests that are `async def`; others have veo_simulator")

    @functools.wraps(test)
    async def inside(*arguments: Any, **named: Any) -> object:
        _need_asyncio(name)
        async with entered():
            return await test(*arguments, **named)

    monkeypatch.setattr(request.node, "obj", inside)


def _need_asyncio(name: str | None) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            f"{name} needs asyncio, and this test runs on something else. With anyio's plugin, define a fixture"
            " anyio_backend that returns 'asyncio'."
        ) from None

"""
What is done to sessions, and around a test, while the fixtures are in use.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from .. import Journal, UsageError, VeoSession
from .._session.session import next_address, replace_clock, scale_policies
from ..platform.connection import Connection
from ..simulator import Core, Faults, Settings
from .clock import VeoClock
from .in_memory import WithFiles
from .simulated import VeoSimulator, served

__all__ = ["enter_around", "jump_around", "serve"]

_Enter = Callable[[VeoSession], Awaitable[VeoSession]]


def serve(settings: Settings, patches: pytest.MonkeyPatch, clock: VeoClock | None) -> Iterator[VeoSimulator]:
    """
    Serve a simulator that every session finds by itself, at its speed, and on its clock if it has one.
    """
    core = Core(settings, faults=Faults(settings.seed), clock=clock.unix_time if clock else time.time)
    with served(core, clock) as simulator:
        patches.setenv("ACEDATACLOUD_API_TOKEN", simulator.token)
        patches.setenv("ACEDATACLOUD_API_BASE_URL", simulator.url)
        patches.setenv("ACEDATACLOUD_PLATFORM_BASE_URL", simulator.url)
        patches.setenv("ACEDATACLOUD_PLATFORM_TOKEN", simulator.account_token)
        patches.setenv("VEO_ASYNC_SPEED", f"{settings.speed:g}")  # for the command `veo-async`
        patches.setattr(VeoSession, "__aenter__", _enter(VeoSession.__aenter__, simulator))
        for name in ("get", "upload"):
            patches.setattr(Connection, name, _checked(getattr(Connection, name)))
        yield simulator


def _enter(enter: _Enter, simulator: VeoSimulator) -> _Enter:
    async def prepared(session: VeoSession) -> VeoSession:
        address = next_address(session) or ""
        if address.startswith("https://"):
            raise UsageError(
                f"this test has veo_simulator, and may not spend money at {address}: leave base_url out"
            )
        if address == simulator.url:
            scale_policies(session, 1 / simulator.core.settings.speed)
            if simulator.clock is not None:
                _move(session, simulator.core, simulator.clock)
        return await enter(session)

    return prepared


def _checked(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def checked(connection: Connection, *values: Any, **options: Any) -> Any:
        if connection.base_url.startswith("https://"):
            raise UsageError(
                f"this test has veo_simulator, and may not upload to {connection.base_url}: leave base_url out"
            )
        return await ask(connection, *values, **options)

    return checked


def _move(session: VeoSession, core: Core, clock: VeoClock) -> None:
    replace_clock(
        session,
        clock.unix_time,
        transport=lambda network, token: WithFiles(core, token, network=network, clock=clock),
        journal=_inline,
    )


def _inline(journal: object) -> Journal:
    if not isinstance(journal, Journal):
        raise UsageError(
            "a clock that jumps cannot see a database's socket: use veo_simulator without veo_clock"
        )
    return journal if journal.inline else Journal(journal.path, inline=True)


# --- around a test ---------------------------------------------------------------------------------------


def enter_around(request: pytest.FixtureRequest, patches: pytest.MonkeyPatch) -> VeoSession:
    """
    Return a session that is entered for as long as the test runs.
    """
    session = VeoSession()
    _wrap(request, patches, lambda: session)
    return session


def jump_around(
    request: pytest.FixtureRequest, patches: pytest.MonkeyPatch, simulator: VeoSimulator
) -> VeoClock:
    """
    Return the simulator's clock, which is the loop's for as long as the test runs.
    """
    clock = simulator.clock
    if clock is None:
        raise UsageError("veo_clock must be an argument of the test, or of a fixture that is one")
    _wrap(request, patches, lambda: _jumping(clock))
    return clock


@asynccontextmanager
async def _jumping(clock: VeoClock) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    clock.start(loop)
    try:
        yield
    finally:
        clock.stop(loop)


def _wrap(
    request: pytest.FixtureRequest,
    patches: pytest.MonkeyPatch,
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

    patches.setattr(request.node, "obj", inside)


def _need_asyncio(name: str | None) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise UsageError(
            f"{name} needs asyncio, and this test runs on something else. With anyio's plugin, define a fixture"
            " anyio_backend that returns 'asyncio'."
        ) from None

"""
What the examples use: with a token, real videos; without one, a simulator inside this process.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from veo_async import PollPolicy, RetryPolicy, VeoSession
from veo_async.simulator import Settings, Simulator

__all__ = ["open_session", "open_worker", "pace"]

SPEED = 100.0  # times faster than life


def pace() -> dict[str, Any]:
    """
    Return the options of a session for the simulator of `open_worker`; your own program needs none of them.
    """
    if os.environ.get("ACEDATACLOUD_API_BASE_URL", "").startswith("http://127.0.0.1"):
        return {"polling": PollPolicy().scaled(1 / SPEED), "retry": RetryPolicy().scaled(1 / SPEED)}
    return {}


@asynccontextmanager
async def open_session(*, speed: float = SPEED, **options: Any) -> AsyncIterator[VeoSession]:
    """
    Enter a session; your own program needs only `VeoSession()`.

    Args:
        speed: how many times faster than life a simulated task runs.
        options: of `VeoSession`.
    """
    if "ACEDATACLOUD_API_TOKEN" in os.environ:
        async with VeoSession(**options) as veo:
            yield veo
        return
    async with Simulator(Settings(speed=speed)) as simulator:
        options["polling"] = PollPolicy().scaled(1 / speed)
        options["retry"] = RetryPolicy().scaled(1 / speed)
        async with VeoSession(simulator.token, base_url=simulator.url, **options) as veo:
            yield veo


@asynccontextmanager
async def open_worker() -> AsyncIterator[None]:
    """
    Have a worker work in this process; in your own programs it is `veo-async worker`, in one of its own.

    VEO_ASYNC_DATABASE names its database, or it is in a temporary directory.
    """
    from veo_async import PostgresJournal  # noqa: PLC0415 - most examples need no database
    from veo_async.worker import Worker  # noqa: PLC0415
    from veo_async.worker.database import install  # noqa: PLC0415
    from veo_async.worker.local_server import local_server  # noqa: PLC0415

    def session(journal: PostgresJournal) -> VeoSession:
        return VeoSession(journal=journal, **pace())

    async with AsyncExitStack() as stack:
        if "ACEDATACLOUD_API_TOKEN" not in os.environ:
            simulator = await stack.enter_async_context(Simulator(Settings(speed=SPEED)))
            os.environ["ACEDATACLOUD_API_TOKEN"] = simulator.token
            os.environ["ACEDATACLOUD_API_BASE_URL"] = simulator.url
        if "VEO_ASYNC_DATABASE" not in os.environ:
            place = stack.enter_context(tempfile.TemporaryDirectory())
            os.chmod(place, 0o711)  # a server that root starts runs as another user
            os.environ["VEO_ASYNC_DATABASE"] = stack.enter_context(local_server(place))
        await install()
        worker = Worker(session=session, lease=5.0)
        working = asyncio.create_task(worker.run(signals=False))
        try:
            yield
        finally:
            worker.stop()
            await working

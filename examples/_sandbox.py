"""
The session that the examples use: with a token, real videos; without one, a simulator inside this process.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from veo_async import PollPolicy, RetryPolicy, VeoSession
from veo_async.simulator import Settings, Simulator

__all__ = ["open_session"]


@asynccontextmanager
async def open_session(*, speed: float = 100.0, **options: Any) -> AsyncIterator[VeoSession]:
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

"""
Waiting for a gate to open.
"""

from __future__ import annotations

import asyncio

from tests.virtual.scripted import in_virtual_time
from veo_async import RetryPolicy
from veo_async._http.gate import Gate
from veo_async._http.limiter import Limiter


@in_virtual_time
async def test_a_limiter_lets_in_at_once_or_in_order() -> None:
    """
    Whoever may go at once goes without waiting, and nobody passes those who wait already.
    """
    limiter = Limiter(Gate(retry=RetryPolicy(), rate=1.0, burst=1))
    assert 0.0 == limiter.try_enter()
    assert limiter.try_enter() is None
    waiting = asyncio.create_task(limiter.enter())
    await asyncio.sleep(0)
    assert limiter.try_enter() is None
    assert 1.0 == await waiting
    await asyncio.sleep(1.0)
    assert 2.0 == limiter.try_enter()

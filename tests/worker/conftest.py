"""
What the tests of workers act on.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.worker.stage import Stage, staged


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    """
    A queue, and a simulated server.
    """
    async with staged(database) as stage:
        yield stage

"""
One call, a server that reads the POST and does not answer as it should: how many videos are paid for.

`benchmarks/paid_twice.py` shows the same for other clients.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

import pytest
from acedatacloud import AsyncAceDataCloud
from acedatacloud._runtime.errors import AceDataCloudError

from veo_async import Limits, TextToVideo, VeoSession
from veo_async.simulator import Faults, Simulator

PROMPT: Final = "a whale breaching at golden hour"
TIMEOUT: Final = 0.5  # seconds
MISHAPS: Final[dict[str, dict[str, Any]]] = {
    "drops the connection": {"kind": "drop_after"},
    "answers 502": {"kind": "status_after", "status": 502},
    "hangs past the time-out": {"kind": "stall_after"},
}


def server(mishap: str) -> Simulator:
    return Simulator(faults=Faults().add(on="submit", **MISHAPS[mishap]))


@pytest.mark.parametrize("mishap", MISHAPS)
async def test_one_call_pays_once_and_keeps_the_id(mishap: str) -> None:
    """
    With default settings, save for a shorter time-out, one submit reaches the server, and its task is the job's.
    """
    async with server(mishap) as sim:
        async with VeoSession(sim.token, base_url=sim.url, limits=Limits(read=TIMEOUT)) as veo:
            job = veo.submit(TextToVideo(PROMPT))
            task_id = await job.accepted()
        assert 1 == sim.core.requests["submit"]
        assert [task_id] == list(sim.core.tasks)
        assert task_id == job.task_id


async def test_what_the_vendors_client_pays_is_on_record(
    record_property: Callable[[str, object], None],
) -> None:
    """
    The vendor's client is measured the same way; its figures are reported (`pytest -rP`), and not judged.
    """

    async def paid(mishap: str) -> int:
        async with (
            server(mishap) as sim,
            AsyncAceDataCloud(sim.token, base_url=sim.url, timeout=TIMEOUT) as client,
        ):
            with contextlib.suppress(AceDataCloudError):
                await client.veo.generate(action="text2video", prompt=PROMPT, async_=True)
            return sim.core.accepted

    counts = dict(zip(MISHAPS, await asyncio.gather(*map(paid, MISHAPS)), strict=True))
    record_property("paid submits of acedatacloud", counts)
    print(f"paid submits of one call of acedatacloud: {counts}")
    assert all(counts.values()), "the measurement itself reached the server"

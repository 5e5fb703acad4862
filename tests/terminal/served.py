"""
A simulator in a thread of its own, since the command runs an event loop itself.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define

from veo_async.simulator import Core, Faults, Settings, Simulator

__all__ = ["SPEED", "Served", "served", "wait_for"]

SPEED = 400.0  # a task then takes a quarter of a second


def wait_for(condition: Callable[[], object]) -> None:
    """
    Wait until something has happened in another thread or process.
    """
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.005)


@define
class Served:
    """
    A running simulator: its memory, its address, and what a command finds in its environment.
    """

    core: Core
    url: str

    @property
    def environment(self) -> dict[str, str]:
        return {
            "ACEDATACLOUD_API_TOKEN": next(iter(self.core.tokens)),
            "ACEDATACLOUD_API_BASE_URL": self.url,
            "ACEDATACLOUD_PLATFORM_BASE_URL": self.url,
            "VEO_ASYNC_SPEED": str(self.core.settings.speed),
        }

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """
        What the accepted tasks were asked for with.
        """
        return [dict(task.body) for task in self.core.tasks.values()]


@contextmanager
def served(*, faults: Faults | None = None, **settings: Any) -> Iterator[Served]:
    """
    Serve a simulator until the end of the block.

    After Ctrl-C, a command waits five seconds for the answers to its submits, divided by the speed. So a test that
    counts those answers takes a server that is slow.
    """
    simulator = Simulator(Settings(**({"speed": SPEED} | settings)), faults=faults)
    started, stopping = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with simulator:
            started.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert started.wait(20), "the simulator did not start"
        yield Served(simulator.core, simulator.url)
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join()
        loop.close()

"""
A queue, a simulated server, and workers in this process or in others.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field

from tests.postgres.server import do
from veo_async import PollPolicy, PostgresJournal, RetryPolicy, TextToVideo, VeoSession
from veo_async._api.marks import mark_of
from veo_async.simulator import TOKEN, Faults, Settings, Simulator
from veo_async.worker import Worker

SPEED = 100
ROOT = Path(__file__).parent.parent.parent
HANGING = 60.0  # seconds after which a test is taken to hang
PROGRAM = """
import asyncio, sys
from tests.worker.stage import worker

asyncio.run(worker(*sys.argv[1:3], lease=float(sys.argv[3]), speed=float(sys.argv[4])).run())
"""


def worker(
    url: str, dsn: str, *, lease: float = 1.0, speed: float = SPEED, token: str = TOKEN, **options: Any
) -> Worker:
    """
    Make a worker that is as fast as the simulator.
    """

    def session(journal: PostgresJournal) -> VeoSession:
        retry = RetryPolicy(first=0.02, max_delay=0.2, grace=1.0, drain=0.5)
        polling = PollPolicy().scaled(1 / speed)
        return VeoSession(token, base_url=url, journal=journal, polling=polling, retry=retry)

    return Worker(dsn, session=session, lease=lease, **options)


@define(eq=False)
class Stage:
    """
    What the tests of workers act on.
    """

    simulator: Simulator
    dsn: str
    children: list[asyncio.subprocess.Process] = field(factory=list)

    def worker(self, **options: Any) -> Worker:
        """
        Make a worker in this process.
        """
        return worker(self.simulator.url, self.dsn, **options)

    @asynccontextmanager
    async def working(self, **options: Any) -> AsyncIterator[Worker]:
        """
        Have a worker in this process work during the block.
        """
        made = self.worker(**options)
        running = asyncio.create_task(made.run(signals=False))
        try:
            yield made
        finally:
            made.stop()
            await asyncio.wait_for(running, HANGING)

    async def child(self, lease: float = 1.0) -> asyncio.subprocess.Process:
        """
        Start a worker in a process of its own.
        """
        speed = self.simulator.settings.speed
        return await self.start(PROGRAM, self.simulator.url, self.dsn, str(lease), str(speed))

    async def start(self, program: str, *arguments: str) -> asyncio.subprocess.Process:
        """
        Run a program in a process of its own.
        """
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", program, *arguments, cwd=ROOT)
        self.children.append(child)
        return child

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        """
        Ask the database itself.
        """
        return do(self.dsn, statement)

    async def delivered(self) -> list[str]:
        """
        Wait until nothing is left to deliver; returns how the deliveries have ended, in their order.
        """
        unfinished = "SELECT 1 FROM procrastinate_jobs WHERE status IN ('todo', 'doing') LIMIT 1"
        await until(lambda: not self.sql(unfinished))
        return [status for (status,) in self.sql("SELECT status::text FROM procrastinate_jobs ORDER BY id")]

    def check(self, delivered: dict[str, str]) -> None:
        """
        Each key has a task of its own, and no other was bought.
        """
        assert len(delivered) == self.simulator.core.accepted == len(set(delivered.values()))
        for key, task_id in delivered.items():
            assert mark_of(key) in self.simulator.core.tasks[task_id].body["callback_url"]


@asynccontextmanager
async def staged(dsn: str, faults: Faults | None = None, **settings: Any) -> AsyncIterator[Stage]:
    async with Simulator(Settings(**{"speed": SPEED, **settings}), faults=faults) as simulator:
        stage = Stage(simulator, dsn)
        try:
            yield stage
        finally:
            for child in stage.children:
                if child.returncode is None:
                    child.kill()
                await child.wait()


async def until(condition: Callable[[], object]) -> None:
    """
    Wait until a condition holds that nothing tells of.
    """
    async with asyncio.timeout(HANGING):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def requests(count: int) -> list[tuple[str, TextToVideo]]:
    """
    Requests with keys; each prompt comes twice.
    """
    return [(f"key {number}", TextToVideo(f"prompt {number // 2}")) for number in range(count)]

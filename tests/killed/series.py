"""
A server, a journal, and one process after the other.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from veo_async import Journal
from veo_async._api.marks import mark_of
from veo_async.simulator import Faults, Settings, Simulator

__all__ = ["Kill", "Series"]

ROOT = Path(__file__).parent.parent.parent
SPEED = 100  # times life, for the tasks' durations and the polling


@frozen
class Kill:
    """
    When a process dies: at a named step of the journal, once the server has accepted so many, or so many lines on.
    """

    fact: str = ""
    when: str = "after"
    number: int = 1
    accepted: int | None = None
    lines: int | None = None


@define(eq=False)
class Series:
    """
    One batch, against a simulator in this process.

    Attributes:
        folder: where the journal lies.
        forgetful: whether there is no journal, so that each process looks first.
        jobs: how many videos are wanted.
        kills: how many processes died so far.
    """

    folder: Path
    jobs: int = 12
    seed: int = 0
    forgetful: bool = False
    kills: int = field(init=False, default=0)
    simulator: Simulator = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Answers to submits take their time, so that a kill finds them under way.
        faults = Faults(seed=self.seed).add("slow", on="submit", share=0.5, seconds=0.1)
        self.simulator = Simulator(Settings(speed=SPEED, seed=self.seed), faults=faults)

    async def __aenter__(self) -> Series:
        await self.simulator.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.simulator.stop()

    async def die(self, kill: Kill) -> None:
        """
        Run one process and kill it at that moment; one that is done before ends well.
        """
        process = await self._start(*([kill.fact, kill.when, str(kill.number)] if kill.fact else []))
        watcher = asyncio.create_task(self._kill(process, kill))
        status = await process.wait()
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        assert status in (0, -signal.SIGKILL), f"the process ended with {status}"
        self.kills += status == -signal.SIGKILL

    async def live(self) -> dict[str, str]:
        """
        Run one process to its end; returns the keys and task ids that it says are settled.
        """
        process = await self._start()
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        settled = (line.split("\t") for line in said.decode().splitlines() if line.startswith("settled"))
        return {key: task_id for _, key, task_id in settled}

    async def verdict(self) -> dict[str, object]:
        """
        Compare the journal with what the server accepted: what is lost, bought twice, unsettled or made up.
        """
        journal = Journal(self.folder / "batch.db")
        await journal.open(self.simulator.token)
        known = await journal.find_many(f"key {n}" for n in range(self.jobs))
        await journal.close()
        claimed = [entry.task_id for entry in known.values()]
        accepted = self.simulator.core.tasks
        wanted = Counter(f"prompt {n // 2}" for n in range(self.jobs))
        bought = Counter(task.body["prompt"] for task in accepted.values())
        return {
            "lost": sorted(accepted.keys() - set(claimed)),
            "made up": sorted({str(task_id) for task_id in claimed} - accepted.keys()),
            "twice": dict(bought - wanted),
            "never": dict(wanted - bought),
            "unsettled": sorted(key for key, entry in known.items() if entry.outcome is None),
        }

    def swapped(self, settled: Mapping[str, str]) -> dict[str, str]:
        """
        Find the keys that have another key's task, by the marks that the server holds.
        """
        urls = {task_id: task.body["callback_url"] for task_id, task in self.simulator.core.tasks.items()}
        return {key: task_id for key, task_id in settled.items() if mark_of(key) not in urls[task_id]}

    async def _start(self, *step: str) -> asyncio.subprocess.Process:
        environment = {
            **os.environ,
            "ACEDATACLOUD_API_TOKEN": self.simulator.token,
            "ACEDATACLOUD_API_BASE_URL": self.simulator.url,
        }
        journal = "-" if self.forgetful else str(self.folder / "batch.db")
        return await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.killed.child", journal, str(self.jobs), str(SPEED), *step),
            cwd=ROOT,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
        )

    async def _kill(self, process: asyncio.subprocess.Process, kill: Kill) -> None:
        assert process.stdout is not None
        if kill.accepted is not None:
            core = self.simulator.core
            wanted = core.accepted + kill.accepted
            await self._until(lambda: core.accepted >= wanted)
            process.kill()
        lines = 0
        while await process.stdout.readline():
            lines += 1
            if lines == kill.lines:
                process.kill()

    async def _until(self, condition: Callable[[], bool]) -> None:
        """
        Wait until the server's state says so; it tells of every change.
        """
        change = asyncio.Event()
        self.simulator.core.listeners.append(change.set)
        try:
            while not condition():
                change.clear()
                await change.wait()
        finally:
            self.simulator.core.listeners.remove(change.set)

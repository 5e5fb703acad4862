"""
Several batches on one account, decided by one seed: faults, one prompt for all, and clients that are killed,
and resume from their journals, or lose them and look first.

    python -m tests.virtual.chaos 1234          plays the seed 1234 and says what it did
    python -m tests.virtual.chaos 0 5000        plays five thousand, and names those that fail

What must hold at the end, whatever happened, is in `_verdict`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field

from veo_async import Job, JobState, Journal, Observer, TextToVideo, VeoSession
from veo_async._api.marks import mark_of
from veo_async._http.transport import Outgoing, Reply
from veo_async._journal.batching import Work
from veo_async._journal.sqlite_store import Store
from veo_async.simulator import TOKEN, Faults, Settings
from veo_async.testing.in_memory import InMemoryTransport

from .loop import VirtualLoop, run
from .world import World

__all__ = ["Outcome", "play"]

MEMORY = Path("/dev/shm")  # processes die here, and no machine: the journals need no disk
MOST_LIVES = 5
FORGETFUL = 0.25  # of the processes lose their journal whenever they are killed
SUBMIT_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drop_before", {}),
    ("drop_after", {}),
    ("drop_mid", {}),
    ("reset_after", {}),
    ("stall_before", {}),
    ("stall_after", {}),
    ("status_before", {"status": 429, "retry_after": 3.0}),
    ("status_before", {"status": 503}),
    ("status_after", {"status": 502}),
    ("status_after", {"status": 504}),
    ("bad_json", {}),
    ("html", {}),
    ("empty", {}),
    ("late", {"seconds": 30.0}),
    ("restart_after", {"seconds": 20.0}),
)
ASK_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("drop_after", {}),
    ("stall_after", {}),
    ("status_before", {"status": 429}),
    ("status_before", {"status": 500}),
    ("bad_json", {}),
    ("missing", {}),
    ("doubled", {}),
    ("shuffled", {}),
    ("strangers", {}),
    ("flipped", {}),
)


class MortalJournal(Journal):
    """
    A journal whose process can die: from then on nothing reaches the file, and nobody is answered.
    """

    dead = False

    def _begin(self, batch: list[Work[Store]]) -> None:
        if not self.dead:
            super()._begin(batch)


class MortalTransport(InMemoryTransport):
    """
    A network connection whose process can die: from then on nothing reaches the server, and nobody is answered.
    """

    dead = False

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        if self.dead:
            await asyncio.Event().wait()
        return await super().send(method, url, outgoing)


@define
class Outcome:
    """
    What a seed came to.
    """

    seed: int
    processes: int = 0
    lives: int = 0
    jobs: int = 0
    bought: int = 0
    states: Counter[str] = field(factory=Counter)
    struck: Counter[tuple[str, str]] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    requests: Counter[str] = field(factory=Counter)
    lasted: float = 0.0


@define(eq=False)
class _Process:
    """
    A program that is killed and started again, with a batch of its own on the account that it shares.

    Attributes:
        forgetful: whether each life loses the journal of the one before, and so looks first.
    """

    world: World
    folder: Path
    name: str
    requests: dict[str, TextToVideo]
    forgetful: bool
    observers: Sequence[Observer]
    lives: int = field(init=False, default=0)
    jobs: list[Job] = field(init=False, factory=list)
    journal: MortalJournal = field(init=False)
    transport: MortalTransport = field(init=False)

    async def _live(self, *, resume: bool) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        session = VeoSession(
            TOKEN, base_url="http://127.0.0.1", journal=self.journal, observers=self.observers
        )
        session._transport, session._clock.wall = self.transport, loop.unix_time
        session._random = random.Random(self.world.settings.seed)
        async with session as veo:
            if resume:
                await veo.resume()
            look_first = self.forgetful and self.lives > 1
            self.jobs = veo.submit_many(self.requests.items(), look_first=look_first)
            async for _ in veo.as_completed(self.jobs):
                pass

    async def live_until(self, end: float, *, resume: bool) -> None:
        """
        Live, and be killed at that moment unless all is done by then.
        """
        self.lives += 1
        life = self.lives if self.forgetful else 1
        self.journal = MortalJournal(self.folder / f"{self.name} {life}.db", inline=True)
        self.transport = MortalTransport(self.world.core, TOKEN, latency=0.05)
        living = asyncio.create_task(self._live(resume=resume))
        await asyncio.wait([living], timeout=end)
        if not living.done():
            self.journal.dead = self.transport.dead = True
        living.cancel()
        await asyncio.gather(living, return_exceptions=True)

    async def run(self, rng: random.Random) -> None:
        """
        Be killed a few times, and live to the end at last.
        """
        await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 5)]))
        for _ in range(rng.randrange(MOST_LIVES)):
            # Most kills fall into the seconds in which requests are under way.
            end = rng.choice([rng.uniform(0, 0.3), rng.uniform(0, 20), rng.uniform(0, 400)])
            await self.live_until(end, resume=rng.random() < 0.5)
            await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 30), rng.uniform(0, 3600)]))
        await self.live_until(100_000.0, resume=rng.random() < 0.5)


def _faults(rng: random.Random) -> Faults:
    faults = Faults(seed=rng.randrange(1 << 30))
    for kind, details in rng.sample(SUBMIT_FAULTS, rng.randint(1, 4)):
        faults.add(kind, on="submit", share=rng.uniform(0.02, 0.3), **details)
    for kind, details in rng.sample(ASK_FAULTS, rng.randint(0, 3)):
        batches = kind in ("missing", "doubled", "shuffled", "flipped")
        on: Any = ("retrieve_batch",) if batches else ("retrieve", "retrieve_batch")
        faults.add(kind, on=on, share=rng.uniform(0.02, 0.3), **details)
    if rng.random() < 0.3:
        kind, details = rng.choice(ASK_FAULTS[:5])
        faults.add(kind, on="list", share=rng.uniform(0.05, 0.4), **details)
    return faults


async def _play(seed: int, folder: Path, observers: Sequence[Observer]) -> Outcome:
    rng = random.Random(seed)
    world = World(Settings(seed=seed), faults=_faults(rng))
    processes = []
    for number in range(rng.choice([1, 2, 2, 3])):
        jobs = rng.randint(4, 12)
        requests = {f"{number} key {n}": TextToVideo("a whale") for n in range(jobs)}
        forgetful = rng.random() < FORGETFUL
        processes.append(_Process(world, folder, f"{seed} {number}", requests, forgetful, observers))
    await asyncio.gather(*(process.run(random.Random(rng.random())) for process in processes))
    return await _verdict(Outcome(seed, len(processes)), world, processes)


async def _verdict(outcome: Outcome, world: World, processes: list[_Process]) -> Outcome:
    assert world.faults is not None
    jobs = [job for process in processes for job in process.jobs]
    outcome.lives = sum(process.lives for process in processes)
    outcome.jobs, outcome.bought = sum(len(process.requests) for process in processes), world.core.accepted
    outcome.states = Counter(job.state.value for job in jobs)
    outcome.struck, outcome.requests = world.faults.struck, world.core.requests
    outcome.lasted = asyncio.get_running_loop().time()
    complain = outcome.problems.append
    if outcome.jobs != outcome.bought:
        complain(f"{outcome.bought} were bought for {outcome.jobs} keys")
    if outcome.jobs != len(jobs):
        complain(f"{outcome.jobs - len(jobs)} jobs were never made")
    for job in jobs:
        if not job.done():
            complain(f"{job!r} never settled")
        elif job.state is not JobState.SUCCEEDED:
            complain(f"{job!r} ended with {job.exception()!r}")
        elif mark_of(job.key) not in world.core.tasks[job.result().task_id].body["callback_url"]:
            complain(f"{job!r} has another job's video")
    for process in processes:
        await _audit(process, complain)
    return outcome


async def _audit(process: _Process, complain: Callable[[str], None]) -> None:
    """
    Compare the last journal with the tasks that the jobs had.
    """
    journal = Journal(process.journal.path, inline=True)
    await journal.open(TOKEN)
    known = await journal.find_many(process.requests)
    await journal.close()
    for job in process.jobs:
        entry = known.get(job.key)
        if entry is None or entry.task_id != job.task_id or (job.done() and entry.outcome is None):
            complain(f"the journal does not hold what became of {job!r}")


def play(seed: int, observers: Sequence[Observer] = ()) -> Outcome:
    """
    Play one seed.
    """
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        return run(_play(seed, Path(folder), observers))


def main(arguments: list[str]) -> int:
    if len(arguments) == 1:
        logging.basicConfig(level=logging.INFO)
        outcome = play(int(arguments[0]))
        print(outcome)
        return bool(outcome.problems)
    failed = 0
    for seed in range(int(arguments[0]), int(arguments[1])):
        outcome = play(seed)
        if outcome.problems:
            failed += 1
            print(seed, *outcome.problems, sep="\n  ")
    print(f"{failed} of {int(arguments[1]) - int(arguments[0])} seeds failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

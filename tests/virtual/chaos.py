"""
A whole life of a batch, decided by one seed: faults, identical prompts, and a client that is killed and resumed.

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
from pathlib import Path
from typing import Any

from attrs import define, field

from veo_async import Job, JobState, Journal, SubmissionUnknown, TextToVideo, VeoSession
from veo_async._http import Outgoing, Reply
from veo_async.simulator import TOKEN, Faults, Settings

from .loop import VirtualLoop, run
from .transport import InMemoryTransport
from .world import World

__all__ = ["Outcome", "play"]

MOST_LIVES = 5
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

    def _add(self, work: Any) -> None:
        if not self.dead:
            super()._add(work)


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
    lives: int = 0
    prompts: Counter[str] = field(factory=Counter)
    states: Counter[str] = field(factory=Counter)
    accepted: Counter[str] = field(factory=Counter)
    struck: Counter[tuple[str, str]] = field(factory=Counter)
    problems: list[str] = field(factory=list)
    requests: Counter[str] = field(factory=Counter)
    lasted: float = 0.0


@define(eq=False)
class _Life:
    """
    One process: a session that takes up the whole batch, until it ends or is killed.
    """

    world: World
    path: Path
    requests: dict[str, TextToVideo]
    resume: bool
    jobs: list[Job] = field(init=False, factory=list)
    journal: MortalJournal = field(init=False)
    transport: MortalTransport = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.journal = MortalJournal(self.path, inline=True)
        self.transport = MortalTransport(self.world.core, TOKEN, latency=0.05)

    async def live(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        session = VeoSession(TOKEN, base_url="http://127.0.0.1", journal=self.journal)
        session._transport, session._clock.wall = self.transport, loop.unix_time
        session._random = random.Random(self.world.settings.seed)
        async with session as veo:
            if self.resume:
                await veo.resume()
            self.jobs = veo.submit_many(self.requests.items())
            async for _ in veo.as_completed(self.jobs):
                pass

    async def live_until(self, end: float) -> None:
        """
        Live, and be killed at that moment unless all is done by then.
        """
        life = asyncio.create_task(self.live())
        await asyncio.wait([life], timeout=end)
        if not life.done():
            self.journal.dead = self.transport.dead = True
        life.cancel()
        await asyncio.gather(life, return_exceptions=True)


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


async def _play(seed: int, folder: Path) -> Outcome:
    rng = random.Random(seed)
    outcome = Outcome(seed)
    jobs = rng.randint(20, 50)
    variety = rng.choice([jobs, jobs, jobs // 2, jobs // 5])
    requests = {f"key {n}": TextToVideo(f"prompt {n % variety}") for n in range(jobs)}
    outcome.prompts = Counter(request.prompt for request in requests.values())
    world = World(Settings(seed=seed), faults=_faults(rng))
    lives = rng.randint(1, MOST_LIVES)
    for number in range(lives):
        life = _Life(world, folder / f"{seed}.db", requests, resume=rng.random() < 0.5)
        last = number == lives - 1
        # Most kills fall into the seconds in which requests are under way.
        end = (
            100_000.0 if last else rng.choice([rng.uniform(0, 0.3), rng.uniform(0, 20), rng.uniform(0, 400)])
        )
        await life.live_until(end)
        outcome.lives += 1
        await asyncio.sleep(rng.choice([0.0, rng.uniform(0, 30), rng.uniform(0, 3600)]))
    await _verdict(outcome, world, life, requests)
    return outcome


async def _verdict(outcome: Outcome, world: World, life: _Life, requests: dict[str, TextToVideo]) -> None:
    tasks = world.core.tasks
    outcome.states = Counter(job.state.value for job in life.jobs)
    outcome.accepted = Counter(task.body["prompt"] for task in tasks.values())
    assert world.faults is not None
    outcome.struck = world.faults.struck
    outcome.requests = world.core.requests
    outcome.lasted = asyncio.get_running_loop().time()
    complain = outcome.problems.append
    if len(life.jobs) != len(requests):
        complain(f"{len(requests) - len(life.jobs)} jobs were never made")
    for prompt, accepted in outcome.accepted.items():
        if accepted > outcome.prompts[prompt]:
            complain(f"{prompt!r} was bought {accepted} times for {outcome.prompts[prompt]} keys")
    for job in life.jobs:
        if not job.done():
            complain(f"{job!r} never settled")
        elif job.state is not JobState.SUCCEEDED and not isinstance(job.exception(), SubmissionUnknown):
            complain(f"{job!r} ended with {job.exception()!r}")
        elif job.state is JobState.SUCCEEDED:
            if tasks[job.result().task_id].body["prompt"] != requests[job.key].prompt:
                complain(f"{job!r} has another prompt's video")
        else:
            complain(f"{job!r} could not be reconciled: {job.exception()}")
    await _audit(outcome, world, life, complain)


async def _audit(outcome: Outcome, world: World, life: _Life, complain: Any) -> None:
    """
    Compare the journal with what the server holds.
    """
    journal = Journal(life.path, inline=True)
    await journal.open(TOKEN)
    known = await journal.find_many([job.key for job in life.jobs])
    await journal.close()
    claimed = [entry.task_id for entry in known.values() if entry.task_id is not None]
    if len(claimed) != len(set(claimed)):
        complain("the journal gives one task to two keys")
    if strangers := set(claimed) - world.core.tasks.keys():
        complain(f"the journal claims {len(strangers)} tasks that the server denies")
    if lost := world.core.tasks.keys() - set(claimed):
        complain(f"the server has {len(lost)} tasks that the journal lost")


def play(seed: int) -> Outcome:
    """
    Play one seed.
    """
    with tempfile.TemporaryDirectory() as folder:
        return run(_play(seed, Path(folder)))


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

"""
The process that is killed: submits the whole batch under its keys, and waits for it.

    python -m tests.killed.child JOURNAL JOBS SPEED [FACT WHEN NUMBER]

With the last three it kills itself `before` or `after` the NUMBER-th FACT (such as `Accepted`) is durable.
A JOURNAL of `-` is none: then it looks first for what another process has bought.
It says each settled key, and its task, on a line of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from veo_async import Journal, Limits, PollPolicy, RetryPolicy, TextToVideo, VeoSession
from veo_async._journal.facts import Standing, TakeIn


class SuicidalJournal(Journal):
    """
    Ends the process at a named step, as the power cut would.
    """

    fact: str = ""
    when: str = ""
    countdown: int = 0

    def _is_the_moment(self, facts: tuple[Any, ...]) -> bool:
        hits = sum(type(fact).__name__ == self.fact for fact in facts)
        self.countdown -= hits
        return bool(hits) and self.countdown <= 0

    async def write(self, *facts: Any) -> None:
        now = self._is_the_moment(facts)
        if now and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        await super().write(*facts)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        if self.fact == "Intended" and self.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        standings = await super().take_in(items)
        if self.fact == "Intended":
            os.kill(os.getpid(), signal.SIGKILL)
        return standings


async def main(path: str, count: int, speed: float, *step: str) -> None:
    """
    Live until all is done, or until the step comes.
    """
    journal = None if path == "-" else SuicidalJournal(path)
    if step and journal is not None:
        journal.fact, journal.when, journal.countdown = step[0], step[1], int(step[2])
    session = VeoSession(
        journal=journal,
        polling=PollPolicy().scaled(1 / speed),
        # The grace is for the server, which does not run faster than life where it takes in a request.
        retry=RetryPolicy(first=0.02, max_delay=0.3, max_pause=3.0, grace=1.5 if journal else 0.5, drain=0.1),
        # With no journal one submit goes at a time, so that there is something left to buy after a kill.
        limits=Limits() if journal else Limits(connections=2),
    )
    async with session as veo:
        requests = ((f"key {n}", TextToVideo(f"prompt {n // 2}")) for n in range(count))
        jobs = veo.submit_many(requests, look_first=journal is None)
        print("begun", flush=True)
        async for job in veo.as_completed(jobs):
            print("settled", job.key, job.result().task_id, sep="\t", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))

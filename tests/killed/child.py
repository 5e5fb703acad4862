"""
The process that is killed: submits the whole batch under its keys, and waits for it.

    python -m tests.killed.child JOURNAL JOBS SPEED [FACT WHEN NUMBER]

With the last three it kills itself `before` or `after` the NUMBER-th FACT (such as `Accepted`) is durable.
It says each settled key on a line of its own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import Any

from veo_async import Journal, PollPolicy, RetryPolicy, TextToVideo, VeoSession


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


async def main(path: str, count: int, speed: float, *step: str) -> None:
    """
    Live until all is done, or until the step comes.
    """
    journal = SuicidalJournal(path)
    if step:
        journal.fact, journal.when, journal.countdown = step[0], step[1], int(step[2])
    session = VeoSession(
        journal=journal,
        polling=PollPolicy().scaled(1 / speed),
        # The grace is for the server, which does not run faster than life where it takes in a request.
        retry=RetryPolicy(first=0.02, max_delay=0.3, max_pause=3.0, grace=1.5, drain=0.1),
    )
    async with session as veo:
        jobs = veo.submit_many((f"key {n}", TextToVideo(f"prompt {n // 2}")) for n in range(count))
        print("begun", flush=True)
        async for job in veo.as_completed(jobs):
            job.result()
            print("settled", job.key, flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), *sys.argv[4:]))

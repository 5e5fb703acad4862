"""
As many prompts as you like, in constant memory: `map` reads them only as fast as videos come out; when the prompts
come from a file or a database that is too large to hold.

    python examples/million_prompts.py 1000000

Without a number it makes five hundred, which against the simulator takes a few seconds.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator

from _sandbox import open_session

from veo_async import JobState, TextToVideo

WINDOW = 100


async def requests(count: int) -> AsyncIterator[TextToVideo]:
    """
    Make up requests; yours may come from a database or a message queue, and may never end.
    """
    for number in range(count):
        yield TextToVideo(f"a kaleidoscope, variation {number}")


async def main(count: int) -> None:
    states: Counter[JobState] = Counter()
    waiting = 0
    async with open_session(speed=1000.0) as veo:
        async for job in veo.map(requests(count), window=WINDOW):
            states[job.state] += 1  # store job.result() where it belongs, and let go of it
            now = veo.stats.jobs
            waiting = max(waiting, now[JobState.QUEUED] + now[JobState.SUBMITTING] + now[JobState.PENDING])
        polls = veo.stats.requests.get("retrieve_batch", 0) + veo.stats.requests.get("retrieve", 0)
    print(", ".join(f"{number} {state}" for state, number in states.items()))
    print(f"never more than {waiting} at once, {polls} questions to the server")


if __name__ == "__main__":
    asyncio.run(main(int((sys.argv[1:] or ["500"])[0])))

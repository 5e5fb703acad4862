"""
A worker, and a program that has it make videos: when the one that asks may end before its videos do.

    pip install 'veo-async[local]'
    python examples/workers.py

Here both run in one process, so that you see all of it. In life a worker is `veo-async worker`, on any machine, and
whoever enqueues needs the database alone: neither the token nor a session.
Without VEO_ASYNC_DATABASE it starts a PostgreSQL in a temporary directory.
"""

from __future__ import annotations

import asyncio

from _sandbox import open_worker

from veo_async import TextToVideo
from veo_async.worker import ended, enqueue_many, wait_for

SUBJECTS = ("heron", "steam train", "paper boat", "owl")


async def follow() -> None:
    """
    Tell of every video that is done, whoever has asked for it.
    """
    async for key, outcome in ended():
        print(f"{key}: {outcome!r:.80}")


async def main() -> None:
    async with open_worker():
        following = asyncio.create_task(follow())
        # A key makes this safe to repeat: enqueue the same again tomorrow, and nothing is bought twice.
        requests = {f"demo/{subject}": TextToVideo(f"a {subject} at first light") for subject in SUBJECTS}
        added = await enqueue_many(requests.items())  # what waits already is not added again
        print(f"{added} of {len(requests)} enqueued")
        results = await asyncio.gather(*(wait_for(key, timeout=600) for key in requests))
        print(f"{len({result.task_id for result in results})} videos, each bought once")
        following.cancel()


if __name__ == "__main__":
    asyncio.run(main())

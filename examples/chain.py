"""
A chain: takes of one prompt, the best one extended, then fetched in 1080p; when a video is made in several steps that
each cost money. Many chains run at once, but only as many as you allow.

    python examples/chain.py DIRECTORY

Each step has a key, so a chain that is run again after a crash goes on where it was.
Without a directory it writes to a temporary one, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from _sandbox import open_session

from veo_async import Extend, Get1080p, TextToVideo, VeoError, VeoSession, Video

SUBJECTS = ("heron", "steam train", "paper boat", "owl", "glacier")
TAKES = 2
AT_ONCE = 2  # chains under way: a chain that waits holds nothing but its place here


def best(takes: list[Video]) -> Video:
    """
    Choose a take; yours looks at the files.
    """
    return min(takes, key=lambda video: video.id)


async def chain(veo: VeoSession, subject: str, directory: Path) -> Path:
    wish = TextToVideo(f"a {subject} at first light, in one slow shot")
    jobs = [veo.submit(wish, key=f"{subject}/take/{number}") for number in range(TAKES)]
    await asyncio.wait([asyncio.ensure_future(job) for job in jobs])
    takes = [job.result().video for job in jobs if job.exception() is None]
    if not takes:
        raise jobs[0].exception() or RuntimeError("no take")
    longer = await veo.submit(Extend(best(takes), "and then it rains"), key=f"{subject}/longer")
    sharp = await veo.submit(Get1080p(longer.video), key=f"{subject}/1080p")
    return await veo.download(sharp.video, directory / f"{subject}.mp4")


async def main(directory: Path) -> None:
    places = asyncio.Semaphore(AT_ONCE)

    async def in_turn(veo: VeoSession, subject: str) -> None:
        async with places:
            try:
                path = await chain(veo, subject, directory)
            except VeoError as error:
                print(f"{subject}: {error}")
            else:
                print(f"{path.name}: {path.stat().st_size} bytes")

    async with open_session(journal=directory / "chain.db") as veo, asyncio.TaskGroup() as group:
        for subject in SUBJECTS:
            group.create_task(in_turn(veo, subject))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        where = Path((sys.argv[1:] or [temporary])[0])
        where.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(where))

"""
A pipeline of workers connected by queues: write a prompt, make the video, save it, fetch it again in 1080p; when one
process does several kinds of work, and a slow kind should hold back the others.

    python examples/pipeline_workers.py DIRECTORY

The queues are short, so that a slow stage holds back the stages before it.
Without a directory it writes to a temporary one, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from _sandbox import open_session

from veo_async import VeoError, Video

SUBJECTS = ("heron", "steam train", "paper boat", "owl", "glacier", "carousel")


@dataclass
class Clip:
    subject: str
    prompt: str = ""
    video: Video | None = None
    quality: str = "720p"


Clips = asyncio.Queue[Clip | None]  # None: there will be no more
Step = Callable[[Clip], Awaitable[None]]


async def stage(step: Step, source: Clips, target: Clips, *, workers: int) -> None:
    async def worker() -> None:
        while clip := await source.get():
            try:
                await step(clip)
            except VeoError as error:
                print(f"{clip.subject}: {error}")  # it goes no further, and holds nobody up
            else:
                await target.put(clip)
        await source.put(None)  # for the next worker of this stage

    await asyncio.gather(*(worker() for _ in range(workers)))
    await target.put(None)


async def feed(first: Clips) -> None:
    for subject in SUBJECTS:
        await first.put(Clip(subject))
    await first.put(None)


async def main(directory: Path) -> None:
    async with open_session() as veo:

        async def write(clip: Clip) -> None:
            clip.prompt = f"a {clip.subject} at first light, in one slow shot"

        async def generate(clip: Clip) -> None:
            clip.video = (await veo.text_to_video(clip.prompt)).video

        async def save(clip: Clip) -> None:
            assert clip.video is not None
            path = await veo.download(clip.video, directory / f"{clip.subject}, {clip.quality}.mp4")
            print(f"{path.name}: {path.stat().st_size} bytes")

        async def sharpen(clip: Clip) -> None:
            assert clip.video is not None
            clip.video, clip.quality = (await veo.get_1080p(clip.video)).video, "1080p"

        # A worker of `generate` waits for its video, so their number is how many are made at once.
        steps = [(write, 1), (generate, 4), (save, 2), (sharpen, 4), (save, 2)]
        queues = [Clips(maxsize=2) for _ in steps] + [Clips()]
        async with asyncio.TaskGroup() as group:
            group.create_task(feed(queues[0]))
            for (step, workers), source, target in zip(steps, queues, queues[1:], strict=False):
                group.create_task(stage(step, source, target, workers=workers))
    print(f"{queues[-1].qsize() - 1} of {len(SUBJECTS)} clips went all the way")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        where = Path((sys.argv[1:] or [temporary])[0])
        where.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(where))

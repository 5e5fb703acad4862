"""
A batch: prompts from a list, a key for each, a journal, and the files in one directory; when a script makes many
videos, and a crash in the middle may not cost any.

    python examples/batch_script.py DIRECTORY

Run it again, after a crash or after the last file: what was bought is never bought again.
Without a directory it writes to a temporary one, and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from _sandbox import open_session

from veo_async import Job, TextToVideo, VeoError, VeoSession

PROMPTS = {  # the key names the file, too
    "whale": "a humpback whale breaching at golden hour",
    "kettle": "a kettle comes to the boil and whistles",
    "dunes": "wind draws lines over endless dunes, from the air",
    "lighthouse": "a lighthouse in a storm, seen from far below",
    "tram": "a yellow tram climbs a hill in Lisbon at dawn",
    "orchard": "an orchard goes from blossom to snow",
}


async def save(veo: VeoSession, job: Job, directory: Path) -> bool:
    """
    Write the job's file, unless an earlier run has; tells whether it is there.
    """
    target = directory / f"{job.key}.mp4"
    try:
        if not target.exists():  # under its final name a file is whole, or it is not there
            await veo.download(job.result().video, target)
    except VeoError as error:
        print(f"{job.key}: {error}")
        return False
    print(f"{job.key}: {target.name}, {target.stat().st_size} bytes, task {job.task_id}")
    return True


async def main(directory: Path) -> int:
    requests = [(key, TextToVideo(prompt)) for key, prompt in PROMPTS.items()]
    async with open_session(journal=directory / "batch.db") as veo:
        jobs = veo.submit_many(requests)
        saved = [await save(veo, job, directory) async for job in veo.as_completed(jobs)]
        sent = veo.stats.requests.get("submit", 0)
    print(f"{sum(saved)} of {len(jobs)} videos saved, {sent} submits sent")
    return 0 if all(saved) else 1


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        where = Path((sys.argv[1:] or [temporary])[0])
        where.mkdir(parents=True, exist_ok=True)
        sys.exit(asyncio.run(main(where)))

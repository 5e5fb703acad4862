"""
The clients that are measured side by side, each in a process of its own.

    python benchmarks/_clients.py ours --url http://127.0.0.1:8080 --token t --jobs 1000

Prints what it took as JSON: CPU seconds of this process, wall seconds, and each job's lag in seconds, from the
end that the task's record tells to the moment at which the caller has its result.
Importing is not counted, and neither is the one request that warms the vendor's client.
"""

# ruff: noqa: PLC0415 - a client loads what it needs, and not what the others need
from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

from _workload import AT_ONCE, BATCH, FASTER, TICK, prompts

Lags = list[float]

CONNECTIONS: Final = 100
MODEL: Final = "veo31-fast"
VENDOR_INTERVAL: Final = 3.0  # seconds, the default of its `wait`


def lag_of(record: Any) -> float:
    return time.time() - float(record["finished_at"])


# --- this package ----------------------------------------------------------------------------------------


@asynccontextmanager
async def ours(url: str, token: str, jobs: int) -> AsyncIterator[Callable[[], Awaitable[Lags]]]:
    from veo_async import PollPolicy, RetryPolicy, TextToVideo, VeoSession

    policies: Any = {
        "polling": PollPolicy(batch_size=BATCH).scaled(1 / FASTER),
        "retry": RetryPolicy().scaled(1 / FASTER),
    }
    async with VeoSession(token, base_url=url, **policies):
        pass  # what runs is loaded by the first session, and importing is not counted

    async def run() -> Lags:
        async with VeoSession(token, base_url=url, **policies) as veo:
            submitted = veo.submit_many(TextToVideo(prompt) for prompt in prompts(jobs))
            return [lag_of(job.result().raw) async for job in veo.as_completed(submitted)]

    yield run


@asynccontextmanager
async def our_submits(url: str, token: str, jobs: int) -> AsyncIterator[Callable[[], Awaitable[Lags]]]:
    from veo_async import TextToVideo, VeoSession

    async with VeoSession(token, base_url=url) as veo:

        async def run() -> Lags:
            for job in veo.submit_many(TextToVideo(prompt) for prompt in prompts(jobs)):
                await job.accepted()
            return []

        yield run


# --- the floor: nothing but what it takes ------------------------------------------------------------------


class Floor:
    """
    Submits as fast as it goes, and asks about everything in batches, every tick.
    """

    def __init__(self, http: Any, url: str, token: str) -> None:
        self.http, self.url = http, url
        self.headers = {"authorization": f"Bearer {token}"}
        self.waiting: dict[str, None] = {}
        self.submitted = False
        self.lags: Lags = []

    async def post(self, path: str, body: Any) -> Any:
        async with self.http.post(self.url + path, json=body, headers=self.headers) as response:
            response.raise_for_status()
            return await response.json()

    async def submit_all(self, remaining: Iterator[str]) -> None:
        for prompt in remaining:
            body = {"action": "text2video", "model": MODEL, "prompt": prompt, "async": True}
            answer = await self.post("/veo/videos", body)
            self.waiting[answer["task_id"]] = None

    async def submit(self, jobs: int) -> None:
        remaining = iter(prompts(jobs))
        await asyncio.gather(*(self.submit_all(remaining) for _ in range(CONNECTIONS - AT_ONCE)))
        self.submitted = True

    async def ask(self, ids: list[str]) -> None:
        body = {"action": "retrieve_batch", "ids": ids, "offset": 0, "limit": len(ids)}
        for record in (await self.post("/veo/tasks", body))["items"]:
            if record.get("finished_at") is not None:
                assert record["response"]["data"][0]["video_url"]
                del self.waiting[record["id"]]
                self.lags.append(lag_of(record))

    async def poll(self) -> None:
        loop = asyncio.get_running_loop()
        while self.waiting or not self.submitted:
            next_at = loop.time() + TICK
            ids = list(self.waiting)
            batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
            await asyncio.gather(*(self.ask(batch) for batch in batches))
            await asyncio.sleep(max(0.0, next_at - loop.time()))

    async def run(self, jobs: int) -> Lags:
        await asyncio.gather(self.submit(jobs), self.poll())
        return self.lags


@asynccontextmanager
async def floor(
    url: str, token: str, jobs: int, *, only_submits: bool = False
) -> AsyncIterator[Callable[[], Awaitable[Lags]]]:
    import aiohttp

    async def run() -> Lags:
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector) as http:
            loop = Floor(http, url, token)
            if only_submits:
                await loop.submit(jobs)
                return []
            return await loop.run(jobs)

    yield run


def floor_submits(url: str, token: str, jobs: int) -> Any:
    return floor(url, token, jobs, only_submits=True)


# --- the vendor's ------------------------------------------------------------------------------------------


@asynccontextmanager
async def vendor(
    url: str, token: str, jobs: int, *, warm: bool = False
) -> AsyncIterator[Callable[[], Awaitable[Lags]]]:
    from acedatacloud import AsyncAceDataCloud

    async with AsyncAceDataCloud(token, base_url=url) as client:

        async def one(prompt: str) -> float:
            answer = await client.veo.generate(action="text2video", model=MODEL, prompt=prompt, async_=True)
            record = await client.tasks.wait(
                answer["task_id"], service="veo", poll_interval=VENDOR_INTERVAL / FASTER
            )
            return lag_of(record)

        async def run() -> Lags:
            return list(await asyncio.gather(*map(one, prompts(jobs))))

        if warm:
            await client.tasks.get("00000000-0000-4000-8000-000000000000", service="veo")
        yield run


def warmed_vendor(url: str, token: str, jobs: int) -> Any:
    return vendor(url, token, jobs, warm=True)


CLIENTS: Final[dict[str, Any]] = {
    "ours": ours,
    "floor": floor,
    "vendor, cold": vendor,
    "vendor, warm": warmed_vendor,
    "our submits": our_submits,
    "bare submits": floor_submits,
}


async def measure(client: Any, url: str, token: str, jobs: int) -> dict[str, Any]:
    """
    Run one client, and tell what it took.
    """
    async with client(url, token, jobs) as run:
        cpu, began = time.process_time(), time.perf_counter()
        lags = await run()
        return {"CPU": time.process_time() - cpu, "wall": time.perf_counter() - began, "lags": lags}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", required=True)
    parser.add_argument("--jobs", type=int, required=True)
    parser.add_argument("--profile", metavar="FILE", help="write a profile of this process there")
    chosen = parser.parse_args()
    work = measure(CLIENTS[chosen.client], chosen.url, chosen.token, chosen.jobs)
    if chosen.profile:
        import cProfile

        with cProfile.Profile() as profile:
            found = asyncio.run(work)
        profile.dump_stats(chosen.profile)
    else:
        found = asyncio.run(work)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

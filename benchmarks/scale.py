"""
What a hundred thousand waiting jobs cost, and a million that come and go.

    python benchmarks/scale.py [--waiting 100000] [--jobs 1000000] [--runs 5] [--quick] [--json] [--out DIRECTORY]

Three measurements, each in a process of its own.
*Memory*: the jobs are submitted and accepted, and wait; what Python has allocated since before the first prompt
was made is shared out among them, the caller's list of jobs included, tasks of the caller's own not.
*Event loop*: the same jobs wait in real time, 15 times faster than life; from the moment when all are accepted,
they are taken through `as_completed`, and each turn of the loop is timed, the collector's work apart.
*A million*: a whole session in virtual time over the simulator's core, with as many jobs in flight at a time as
there are in the smaller run that it is compared with.
Exit status 1 where a figure is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Final

from _report import Row, judged, options, report
from _workload import FASTER, prompts
from attrs import define, field

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.virtual import InMemoryTransport, World, run  # noqa: E402
from veo_async import Job, PollPolicy, RetryPolicy, TextToVideo, VeoSession  # noqa: E402
from veo_async.simulator import TOKEN, Reply, Settings  # noqa: E402

MOST_BYTES: Final = 1.25 * 1024  # of a waiting job
MOST_HELD: Final = 0.050  # seconds, without the collector's work
MOST_GROWTH: Final = 1.5  # of the cost of a job
WINDOW: Final = 10_000  # jobs in flight of the million; so many make the smaller run
FORGET: Final = 60.0  # seconds until the simulator forgets an ended task: it must not be what grows
ENDS_AFTER: Final = 90.0 / FASTER  # seconds after the last submit


# --- a server that keeps nothing -------------------------------------------------------------------------


@define(eq=False)
class Emptyhanded:
    """
    Accepts everything and remembers nothing: all tasks end at one moment, so an answer needs no record.

    It has the face of the simulator's core, whose tasks would be weighed with the jobs.
    """

    ends_at: float | None = None  # Unix seconds
    clock: Callable[[], float] = time.time
    requests: Counter[str] = field(init=False, factory=Counter)

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        asked = json.loads(body)
        ids = asked.get("ids") or ([asked["id"]] if "id" in asked else None)
        self.requests["submit" if ids is None else "poll"] += 1
        if ids is None:
            return _reply({"task_id": str(uuid.uuid4()), "trace_id": str(uuid.uuid4())})
        records = [self._record(task_id) for task_id in ids]
        return _reply({"items": records, "count": len(records)} if "ids" in asked else records[0])

    def _record(self, task_id: str) -> dict[str, Any]:
        record: dict[str, Any] = {"id": task_id, "created_at": (self.ends_at or 0.0) - ENDS_AFTER}
        if self.ends_at is None or self.clock() < self.ends_at:
            return record
        video = {"id": task_id, "video_url": f"https://cdn.example/{task_id}.mp4", "state": "succeeded"}
        return record | {"finished_at": self.ends_at, "response": {"success": True, "data": [video]}}


def _reply(body: object) -> Reply:
    return Reply(headers={"Content-Type": "application/json"}, body=json.dumps(body).encode())


def session(server: Emptyhanded) -> VeoSession:
    """
    Make a session that talks to this server, without sockets.
    """
    veo = VeoSession(
        TOKEN,
        base_url="http://127.0.0.1",
        polling=PollPolicy(deadline=None).scaled(1 / FASTER),
        retry=RetryPolicy().scaled(1 / FASTER),
    )
    veo._transport = InMemoryTransport(server, TOKEN, latency=0.0)  # type: ignore[arg-type]
    return veo


async def all_accepted(jobs: Sequence[Job]) -> None:
    for job in jobs:
        await job.accepted()


# --- memory ----------------------------------------------------------------------------------------------


def resident() -> float:
    """
    Bytes of this process that are in memory.
    """
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def weigh(waiting: int, *, traced: bool) -> float:
    """
    Return the bytes that each waiting job takes, as Python counts them or as the system does.
    """
    async with session(Emptyhanded()) as veo:
        await veo.submit(TextToVideo("the first one loads what is loaded late")).accepted()
        gc.collect()
        if traced:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if traced else resident()
        jobs = veo.submit_many(TextToVideo(prompt) for prompt in prompts(waiting))
        await all_accepted(jobs)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0] if traced else resident()
        return (after - before) / waiting


# --- the event loop --------------------------------------------------------------------------------------


class Watch(selectors.DefaultSelector):
    """
    Times each turn of the loop: from when it has heard of events until it asks for more.

    What the thread has worked is judged, and not what the clock says: another process may have had the processor.

    Attributes:
        turns: the seconds of each turn, by the thread's work, of that the collector's, and by the clock.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[tuple[float, float, float]] = []
        self.collecting = self.began = self.worked = self.busy_since = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, _: Mapping[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self.began = now
        else:
            self.collecting += now - self.began

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.busy_since:
            clock, worked = time.perf_counter() - self.busy_since, time.thread_time() - self.worked
            self.turns.append((worked, self.collecting, clock))
        events = super().select(timeout)
        self.busy_since, self.worked, self.collecting = time.perf_counter(), time.thread_time(), 0.0
        return events

    def longest(self) -> dict[str, float]:
        """
        Say how long the loop was held since this was last asked, and begin anew; in milliseconds.
        """
        turns, self.turns = self.turns or [(0.0, 0.0, 0.0)], []
        return {
            "held ms": 1e3 * max(worked - collecting for worked, collecting, _ in turns),
            "collector ms": 1e3 * max(collecting for _, collecting, _ in turns),
            "both by the clock ms": 1e3 * max(clock for _, _, clock in turns),
        }


async def take(waiting: int, watch: Watch, *, ends_after: float = ENDS_AFTER) -> dict[str, Any]:
    """
    Take so many waiting jobs through `as_completed`; their tasks end so many seconds after the last submit.
    """
    server = Emptyhanded()
    async with session(server) as veo:
        jobs = veo.submit_many(TextToVideo(prompt) for prompt in prompts(waiting))
        await all_accepted(jobs)
        entering = watch.longest()
        server.ends_at = time.time() + ends_after
        settled = [job async for job in veo.as_completed(jobs)]
        taking = watch.longest()
        assert waiting == len({*settled})
        del settled, jobs
        looks = veo.stats.looks / waiting
    return {"entering": entering, "taking": taking, "leaving": watch.longest(), "looks": looks}


def held(waiting: int, *, ends_after: float = ENDS_AFTER) -> dict[str, Any]:
    watch = Watch()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch), debug=False) as runner:
        return runner.run(take(waiting, watch, ends_after=ends_after))


# --- a million -------------------------------------------------------------------------------------------


async def live(jobs: int, seed: int) -> dict[str, Any]:
    """
    Let so many jobs come and go, and count.
    """
    world = World(Settings(seed=seed, forget_after=FORGET))
    numbers, settled = count(), 0

    def wishes() -> Iterator[TextToVideo]:
        for _ in range(jobs):
            yield TextToVideo(f"a whale, take {next(numbers)}")

    began = time.process_time()
    async with world.session() as veo:
        async for job in veo.map(wishes(), window=WINDOW):
            assert job.result().task_id
            settled += 1
        spent = time.process_time() - began
        stats = veo.stats
    assert jobs == settled == world.core.accepted == stats.jobs["succeeded"]  # type: ignore[index]
    return {
        "jobs": jobs,
        "requests per job": sum(stats.requests.values()) / jobs,
        "looks per job": stats.looks / jobs,
        "virtual hours": asyncio.get_running_loop().time() / 3600,
        "CPU us per job": 1e6 * spent / jobs,
        "MiB at the end": resident() / 2**20,
    }


# --- the program -----------------------------------------------------------------------------------------

PARTS: Final[Mapping[str, Callable[[int, int], Any]]] = {
    "traced": lambda waiting, _: asyncio.run(weigh(waiting, traced=True)),
    "resident": lambda waiting, _: asyncio.run(weigh(waiting, traced=False)),
    "held": lambda waiting, _: held(waiting),
    "lived": lambda jobs, seed: run(live(jobs, seed)),
}


def apart(part: str, jobs: int, seed: int) -> Any:
    """
    Measure in a process of its own.
    """
    print(f"{part}, {jobs:,} jobs", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--part", part, "--jobs", str(jobs), "--seed", str(seed)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def held_rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """
    The medians of the runs.
    """
    return [
        {"while": name}
        | {column: statistics.median(one[name][column] for one in found) for column in found[0][name]}
        for name in ("entering", "taking", "leaving")
    ]


def measure(chosen: argparse.Namespace) -> int:
    waiting, most, runs = chosen.waiting, chosen.jobs, chosen.runs
    few = WINDOW
    if chosen.quick:
        waiting, few, most, runs = 1000, 200, 1000, 1
    weights = [
        {"waiting jobs": waiting, "counted by": whose, "bytes per job": apart(part, waiting, chosen.seed)}
        for whose, part in (("Python", "traced"), ("the system", "resident"))
    ]
    turns = held_rows([apart("held", waiting, chosen.seed) for _ in range(runs)])
    lived = [apart("lived", jobs, chosen.seed) for jobs in (few, most)]
    growth = lived[1]["CPU us per job"] / lived[0]["CPU us per job"]
    tables = {
        "Memory of a waiting job, its prompt included": weights,
        f"The longest turn of the event loop, {waiting:,} jobs (medians of {runs})": turns,
        f"Jobs that come and go in virtual time, {few:,} in flight": lived,
    }
    wanted = [
        judged(f"bytes per waiting job, {waiting:,} jobs", weights[0]["bytes per job"], most=MOST_BYTES),
        judged(f"event loop held, {waiting:,} jobs taken (ms)", turns[1]["held ms"], most=1e3 * MOST_HELD),
        judged(f"CPU per job, {most:,} jobs / {few:,}", growth, most=MOST_GROWTH),
    ]
    drawn = {
        "longest turn of the loop": (
            "milliseconds",
            {f"our {row['while']}": float(row["held ms"]) for row in turns},
        )
    }
    return report(chosen, tables, wanted, drawn)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, quick="a thousand jobs, to see that it works")
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=5, help="how often the event loop is watched")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.part:
        print(json.dumps(PARTS[chosen.part](chosen.jobs, chosen.seed)))
        return 0
    return measure(chosen)


if __name__ == "__main__":
    sys.exit(main())

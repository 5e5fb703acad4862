"""
What workers on a shared queue promise: nothing lost or bought twice, quick hand-overs, and what they cost.

    python benchmarks/workers.py                    # a few minutes; it starts a PostgreSQL of its own
    python benchmarks/workers.py --quick
    python benchmarks/workers.py --only deaths      # one part: deaths, restarts, handovers, crowd, idle

Workers are processes; the simulated server and the one that waits are this process. Tasks are a hundred times
quicker than in life, and fifteen times where requests are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
from _report import Row, judged, options, report
from _workload import FASTER, MEAN, SIGMA

from veo_async import Journal, PollPolicy, TextToVideo, VeoSession
from veo_async.simulator import TOKEN, Faults
from veo_async.worker import enqueue_many, wait_for
from veo_async.worker.database import install

ROOT: Final = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # the tests are no part of what is installed

from tests.killed.workers import Plan, deaths  # noqa: E402
from tests.postgres.server import SETTINGS, Server, do, programs  # noqa: E402
from tests.worker.stage import Stage, staged, until  # noqa: E402

PARTS: Final = ("deaths", "restarts", "handovers", "crowd", "idle")
LEASE: Final = 2.0  # seconds
SETTLED: Final = "SELECT key, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM veo.job"
WORKERS: Final = "SELECT count(*) FROM procrastinate_workers"
CHILD: Final = """
import asyncio, sys
sys.path.insert(0, "benchmarks")
import workers
asyncio.run(getattr(workers, sys.argv[1])(*sys.argv[2:]))
"""


@asynccontextmanager
async def queue(server: Server, **settings: Any) -> AsyncIterator[Stage]:
    """
    Make a database with a queue, and a simulated server.
    """
    name = f"veo_{uuid4().hex[:12]}"
    do(server.dsn, f"CREATE DATABASE {name}")
    dsn = server.dsn.replace("/postgres?", f"/{name}?")
    await install(dsn)
    faults = settings.pop("faults", None)
    async with staged(dsn, faults, **settings) as stage:
        yield stage
    do(server.dsn, f"DROP DATABASE {name} WITH (FORCE)")


# --- deaths ------------------------------------------------------------------------------------------------


async def killed(server: Server, jobs: int, *, restart: bool, seed: int, every: float | None = 2.0) -> Row:
    """
    Kill a random one of four workers every so many seconds; with `restart` the database, too.
    """
    faults = Faults(seed=seed).add("drop_after", on="submit", share=0.2)
    faults.add("status_before", on="retrieve_batch", share=0.1)
    async with queue(server, faults=faults) as stage:
        plan = Plan(jobs=jobs, seed=seed, every=every, restart=server if restart else None)
        found = await deaths(stage, plan)
        return {
            "jobs": jobs,
            "kills": found.kills,
            "restarts": found.restarts,
            "lost": jobs - len(set(found.delivered.values())),
            "twice": found.bought - jobs,
            "pages listed": stage.simulator.core.requests["list"],
            "seconds": found.seconds,
        }


# --- hand-overs --------------------------------------------------------------------------------------------


async def handed_over(server: Server, jobs: int, *, kill: bool) -> dict[str, float]:
    """
    End one of two workers while its tasks run; measures until another session holds each key, and until it is gone.
    """
    async with queue(server, mean=1e6) as stage:
        leaving = await stage.child(LEASE)
        await enqueue_many(numbered(jobs), database=stage.dsn)
        await until(lambda: stage.simulator.core.accepted == jobs)
        await asyncio.sleep(LEASE)  # so that the acceptances are written down
        await stage.child(LEASE)
        await until(lambda: stage.sql(WORKERS) == [(2,)])
        [(session,)] = stage.sql("SELECT DISTINCT session FROM veo.job")
        at, seen = time.monotonic(), dict[int, float]()
        leaving.kill() if kill else leaving.terminate()
        gone = asyncio.create_task(until_gone(leaving, at))
        while len(seen) < jobs:
            for (job,) in stage.sql(f"SELECT id FROM veo.job WHERE session <> {session}"):
                seen.setdefault(job, time.monotonic() - at)
            await asyncio.sleep(0.02)
        times = sorted(seen.values())
        return {"95 %": times[int(0.95 * len(times))], "last": times[-1], "gone": await gone}


async def until_gone(process: asyncio.subprocess.Process, at: float) -> float:
    await process.wait()
    return time.monotonic() - at


# --- a crowd -----------------------------------------------------------------------------------------------


def numbered(jobs: int) -> list[tuple[str, TextToVideo]]:
    return [(f"key {number}", TextToVideo(f"prompt {number}")) for number in range(jobs)]


async def crowd(server: Server, jobs: int, workers: int) -> dict[str, float]:
    """
    Have workers make many videos; counts requests, and measures their CPU and how late the one who waits wakes.
    """
    async with queue(server, speed=FASTER, mean=MEAN, sigma=SIGMA) as stage:
        children = [await stage.child(30.0) for _ in range(workers)]
        await until(lambda: stage.sql(WORKERS) == [(workers,)])
        before = sum(cpu_of(child.pid) for child in children)
        waiting = asyncio.create_task(child("waiter", stage.dsn, str(jobs)))
        await enqueue_many(numbered(jobs), database=stage.dsn)
        woken = dict[str, float](await waiting)
        await stage.delivered()
        cpu = sum(cpu_of(child.pid) for child in children) - before
        settled = dict(stage.sql(SETTLED))
        counts = stage.simulator.core.requests
        return {
            "requests per job": (counts["submit"] + counts["retrieve"] + counts["retrieve_batch"]) / jobs,
            "CPU ms per job": 1000 * cpu / jobs,
            "ms to wake, median": 1000 * statistics.median(woken[key] - settled[key] for key in woken),
        }


async def child(part: str, *arguments: str) -> Any:
    """
    Run a coroutine of this file in a process of its own; returns what it prints.
    """
    command = (sys.executable, "-c", CHILD, part, *arguments)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    return json.loads(printed)


async def waiter(dsn: str, jobs: str) -> None:
    """
    Wait for all keys; prints when each woke up.
    """
    woken = dict[str, float]()

    async def wait(key: str) -> None:
        await wait_for(key, database=dsn)
        woken[key] = time.time()

    await asyncio.gather(*(wait(key) for key, _ in numbered(int(jobs))))
    print(json.dumps(woken))


def cpu_of(pid: int) -> float:
    """
    Return the seconds of CPU that a process has used.
    """
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def alone(url: str, count: str) -> None:
    """
    Make as many videos in this process, with a journal in SQLite; prints the milliseconds of CPU per job.
    """
    jobs = int(count)
    with tempfile.TemporaryDirectory() as place:
        journal, polling = Journal(Path(place) / "journal.db"), PollPolicy().scaled(1 / FASTER)
        async with VeoSession(TOKEN, base_url=url, journal=journal, polling=polling) as veo:
            before = resource.getrusage(resource.RUSAGE_SELF)
            async for job in veo.as_completed(veo.submit_many(numbered(jobs))):
                job.result()
            after = resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps(1000 * spent / jobs))


async def sqlite_session(server: Server, jobs: int) -> float:
    async with queue(server, speed=FASTER, mean=MEAN, sigma=SIGMA) as stage:
        return float(await child("alone", stage.simulator.url, str(jobs)))


# --- idle --------------------------------------------------------------------------------------------------


async def idle(server: Server, seconds: float) -> dict[str, float]:
    """
    Leave a worker alone that has nothing to do.
    """
    async with queue(server) as stage:
        child = await stage.child(30.0)
        await until(lambda: stage.sql(WORKERS) == [(1,)])
        await asyncio.sleep(2.0)
        commits, cpu = commits_of(stage), cpu_of(child.pid)
        await asyncio.sleep(seconds)
        spent = cpu_of(child.pid) - cpu
        return {
            "% of a core": 100 * spent / seconds,
            "commits a second": (commits_of(stage) - commits - 1) / seconds,
            "requests to the API": float(sum(stage.simulator.core.requests.values())),
        }


def commits_of(stage: Stage) -> int:
    count = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        row = connection.execute(count).fetchone()
        assert row is not None
        return int(row[0])


# --- all of it ---------------------------------------------------------------------------------------------


async def measure(server: Server, chosen: argparse.Namespace) -> tuple[dict[str, list[Row]], list[Row]]:
    tables, wanted = dict[str, list[Row]](), list[Row]()
    for part in chosen.only or PARTS:
        print(f"--- {part}", file=sys.stderr, flush=True)
        rows, verdicts = await MEASURES[part](server, chosen)
        tables[part], wanted = rows, wanted + verdicts
    return tables, wanted


async def of_deaths(server: Server, chosen: argparse.Namespace, *, restart: bool = False) -> Any:
    jobs, seed = 60 if chosen.quick else 2000, chosen.seed
    spared = await killed(server, jobs, restart=False, seed=seed, every=None)
    row = await killed(server, jobs, restart=restart, seed=seed)
    words = "killed workers and database" if restart else "killed workers"
    wanted = [
        judged(f"{words}: lost", row["lost"], most=0),
        judged(f"{words}: twice", row["twice"], most=0),
        judged(f"{words}: seconds", row["seconds"], most=120),
    ]
    if not restart:
        pages = (row["pages listed"] - spared["pages listed"]) / max(1, row["kills"])
        wanted.append(judged("listing pages per kill, beyond those without kills", pages, most=10))
    return [spared, row], wanted


async def of_restarts(server: Server, chosen: argparse.Namespace) -> Any:
    return await of_deaths(server, chosen, restart=True)


async def of_handovers(server: Server, chosen: argparse.Namespace) -> Any:
    jobs = 8 if chosen.quick else 24
    killed_by_9, terminated = (
        await handed_over(server, jobs, kill=True),
        await handed_over(server, jobs, kill=False),
    )
    rows = [{"ended by": "kill -9"} | killed_by_9, {"ended by": "SIGTERM"} | terminated]
    return rows, [
        judged("taken over after kill -9: 95 %, seconds", killed_by_9["95 %"], most=1.5 * LEASE + 2),
        judged("handed over after SIGTERM: last, seconds", terminated["last"], most=2.5),
        judged("after SIGTERM: gone, seconds", terminated["gone"], most=1),
    ]


async def of_crowd(server: Server, chosen: argparse.Namespace) -> Any:
    jobs = 50 if chosen.quick else 1000
    one, four = await crowd(server, jobs, 1), await crowd(server, jobs, 4)
    sqlite = await sqlite_session(server, jobs)
    rows = [{"workers": 1} | one, {"workers": 4} | four]
    return rows, [
        judged(
            "requests per job, 4 workers / 1 worker",
            four["requests per job"] / one["requests per job"],
            most=1.1,
        ),
        judged("settled to awake in another process, median ms", one["ms to wake, median"], most=10),
        judged("worker CPU per job beyond a SQLite session's, ms", one["CPU ms per job"] - sqlite, most=6),
    ]


async def of_idle(server: Server, chosen: argparse.Namespace) -> Any:
    found = await idle(server, 2.0 if chosen.quick else 30.0)
    most = {"% of a core": 1.5, "commits a second": 4, "requests to the API": 0}
    return [found], [judged(f"idle worker: {name}", found[name], most=bound) for name, bound in most.items()]


MEASURES: Final[dict[str, Callable[..., Any]]] = {
    "deaths": of_deaths,
    "restarts": of_restarts,
    "handovers": of_handovers,
    "crowd": of_crowd,
    "idle": of_idle,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, quick="few jobs, to see that it works")
    parser.add_argument("--only", nargs="*", choices=PARTS, help="only these parts")
    chosen = parser.parse_args(arguments)
    place = programs()
    if place is None:
        parser.error("there is no PostgreSQL here: install one, or the extra `local`")
    SETTINGS["track_commit_timestamp"] = "on"
    server = Server(place)
    server.create()
    try:
        tables, wanted = asyncio.run(measure(server, chosen))
    finally:
        server.remove()
    return report(chosen, tables, wanted, {})


if __name__ == "__main__":
    sys.exit(main())

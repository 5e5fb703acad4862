"""
What the journal costs a session: CPU of the client's process with a journal, beside the same without.

    python benchmarks/journalled.py [--jobs 1000] [--runs 5] [--directory .] [--json]
    python benchmarks/journalled.py --profile FILE       # of one journalled run, in place of measuring

The simulator and each run have a process of their own, and each run has its own server and its own new file.
Each round meets tasks of the very same durations, 15 times faster than life; which way goes first alternates.
CPU is user and system time of the whole process, the journal's thread included, from entering the session to
having left it. Exit status 1 where the target is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from _report import show
from _server import server
from _workload import BATCH, FASTER, prompts
from journal import sync_ms

from veo_async import PollPolicy, RetryPolicy, TextToVideo, VeoSession

MOST_RATIO: Final = 1.5  # of the CPU without a journal
FACTS: Final = 4  # of a job's life: intended, sending, accepted, settled
WAYS: Final = ("without", "with")
Found = dict[str, Any]


# --- one run, in a process of its own --------------------------------------------------------------------


async def buy(url: str, token: str, jobs: int, journal: str | None) -> Found:
    """
    Buy a batch, and tell what it took.
    """
    session = VeoSession(
        token,
        base_url=url,
        polling=PollPolicy(batch_size=BATCH).scaled(1 / FASTER),
        retry=RetryPolicy().scaled(1 / FASTER),
        journal=journal,
    )
    requests = [(f"key {number}", TextToVideo(prompt)) for number, prompt in enumerate(prompts(jobs))]
    cpu, began = time.process_time(), time.perf_counter()
    async with session as veo:
        for_all = veo.submit_many(requests)
        videos = [job.result().video async for job in veo.as_completed(for_all)]
    assert jobs == len(videos)
    return {"CPU": time.process_time() - cpu, "wall": time.perf_counter() - began}


def run_here(options: argparse.Namespace) -> None:
    """
    Be the client.
    """
    work = buy(options.url, options.token, options.jobs, options.journal)
    if options.profile:
        with cProfile.Profile() as profile:
            found = asyncio.run(work)
        profile.dump_stats(options.profile)
    else:
        found = asyncio.run(work)
    print(json.dumps(found))


# --- measuring -------------------------------------------------------------------------------------------


def run(way: str, seed: int, options: argparse.Namespace) -> Found:
    """
    Run a client against a server of its own, and check that it bought no more than it should.
    """
    with (
        tempfile.TemporaryDirectory(dir=options.directory) as folder,
        server(seed=seed, jobs=options.jobs) as (at, end),
    ):
        command = [sys.executable, __file__, "--url", at["url"], "--token", at["token"]]
        command += ["--jobs", str(options.jobs)]
        command += ["--journal", str(Path(folder) / "batch.db")] if way == "with" else []
        command += ["--profile", options.profile] if options.profile else []
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        requests = end()["requests"]
    assert options.jobs == requests["submit"], f"{requests['submit']} submits for {options.jobs} jobs"
    found: Found = json.loads(printed)
    return found | {"requests": sum(requests.values())}


def summary(way: str, runs: Sequence[Found], jobs: int) -> Found:
    """
    The medians, and the extremes of the CPU.
    """
    cpu = [1e3 * one["CPU"] / jobs for one in runs]
    return {
        "journal": way,
        "CPU ms per job": statistics.median(cpu),
        "least": min(cpu),
        "most": max(cpu),
        "wall s": statistics.median(one["wall"] for one in runs),
        "requests per job": statistics.median(one["requests"] for one in runs) / jobs,
    }


def measure(options: argparse.Namespace) -> Found:
    """
    Both ways in each round, so that a busy minute of the machine meets both.
    """
    runs: dict[str, list[Found]] = {way: [] for way in WAYS}
    for seed in range(options.runs):
        for way in WAYS if seed % 2 else reversed(WAYS):
            runs[way].append(run(way, seed, options))
    rows = [summary(way, found, options.jobs) for way, found in runs.items()]
    pairs = [late["CPU"] / early["CPU"] for early, late in zip(*runs.values(), strict=True)]
    ratio = rows[1]["CPU ms per job"] / rows[0]["CPU ms per job"]
    extra = rows[1]["CPU ms per job"] - rows[0]["CPU ms per job"]
    return {
        "jobs": options.jobs,
        "runs": options.runs,
        "sync_ms": sync_ms(options.directory),
        "rows": rows,
        "ratio": ratio,
        "pairs": pairs,
        "us_per_fact": 1e3 * extra / FACTS,
        "met": ratio <= MOST_RATIO,
    }


def report(found: Found) -> None:
    """
    Print the table.
    """
    title = (
        f"{found['jobs']} jobs, medians of {found['runs']} runs; the disk syncs in {found['sync_ms']:.2f} ms"
    )
    show(title, found["rows"])
    pairs = " ".join(f"{ratio:.2f}" for ratio in found["pairs"])
    verdict = "met" if found["met"] else "MISSED"
    print(f"\nratio {found['ratio']:.2f} (round by round: {pairs}), {found['us_per_fact']:.0f} us a fact")
    print(f"wanted: at most {MOST_RATIO} x the CPU without a journal: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=Path(), help="on the disk to be measured")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--profile", metavar="FILE", help="write a profile of one journalled run there")
    for hidden in ("--url", "--token", "--journal"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        run_here(options)
        return 0
    if options.profile:
        print(json.dumps(run("with", 0, options)))
        return 0
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        report(found)
    return 0 if found["met"] else 1


if __name__ == "__main__":
    sys.exit(main())

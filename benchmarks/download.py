"""
How fast and how lean `VeoSession.download` is, beside a bare aiohttp loop that writes what it reads.

    python benchmarks/download.py                        # 20 files of 100 MiB, five times each way
    python benchmarks/download.py --files 4 --size 10 --repeats 1 --json

The server, and each run, is a process of its own: a run's memory is its own peak, and no run pays for another.
The bare loop writes synchronously, checks nothing, and leaves a broken file where a connection breaks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
from aiohttp import web

from veo_async import VeoSession, Video

MIB: Final = 1 << 20
LEAST_RATIO: Final = 0.8  # of the bare loop's rate
MOST_MEMORY: Final = 150.0  # MiB
RUN_LIMIT: Final = 300.0  # seconds, after which a run counts as hung


# --- the server ------------------------------------------------------------------------------------------


def block() -> bytes:
    """
    A mebibyte that no file system can compress.
    """
    return Random(7).randbytes(MIB)


async def serve(size: int) -> None:
    """
    Serve files of so many mebibytes under any path, until the standard input ends.
    """
    content = block()

    async def get(request: web.Request) -> web.StreamResponse:
        headers = {"Content-Length": str(size * MIB), "Content-Type": "video/mp4", "ETag": '"one"'}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for _ in range(size):
            await response.write(content)
        return response

    app = web.Application()
    app.router.add_get("/{name}", get)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()


@contextmanager
def server(size: int) -> Iterator[str]:
    """
    A server process, and its address.
    """
    command = [sys.executable, __file__, "--role", "server", "--size", str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.stdin.close()


# --- the two ways ----------------------------------------------------------------------------------------


async def bare(base: str, directory: Path, files: int) -> None:
    """
    What one would write in ten lines.
    """
    async with aiohttp.ClientSession() as http:

        async def fetch(number: int) -> None:
            async with http.get(f"{base}/{number}") as response:
                with (directory / f"{number}.mp4").open("wb") as file:
                    async for chunk in response.content.iter_any():
                        file.write(chunk)

        await asyncio.gather(*map(fetch, range(files)))


async def ours(base: str, directory: Path, files: int) -> None:
    """
    The same files through a session, all asked for at once.
    """
    async with VeoSession("no-token-is-needed", base_url=base) as veo:
        videos = [Video(id=str(n), task_id="task", url=f"{base}/{n}") for n in range(files)]
        await asyncio.gather(*(veo.download(video, directory / f"{video.id}.mp4") for video in videos))


WAYS: Final = {"bare": bare, "ours": ours}


def run(way: str, base: str, *, files: int, size: int, directory: Path) -> None:
    """
    Fetch everything one way, and print the rate in MiB/s and the peak memory in MiB.
    """
    began = time.perf_counter()
    asyncio.run(WAYS[way](base, directory, files))
    took = time.perf_counter() - began
    check(directory, files=files, size=size)
    print(json.dumps({"rate": files * size / took, "memory": peak_memory()}))


def check(directory: Path, *, files: int, size: int) -> None:
    """
    Look whether the files are there, and each ends as it should.
    """
    tail = block()[-4096:]
    paths = sorted(directory.iterdir())
    assert files == len(paths), [path.name for path in paths]
    for path in paths:
        with path.open("rb") as file:
            assert size * MIB == file.seek(0, 2)
            file.seek(-len(tail), 2)
            assert tail == file.read()


def peak_memory() -> float:
    """
    The most that this process ever had in memory, in MiB.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024  # bytes there, kilobytes elsewhere


# --- measuring -------------------------------------------------------------------------------------------


def measure_once(way: str, base: str, options: argparse.Namespace) -> dict[str, float]:
    """
    One run in a process and a directory of its own.
    """
    directory = tempfile.mkdtemp(prefix="veo-download-", dir=options.directory)
    command = [sys.executable, __file__, "--role", way, "--base", base, "--directory", directory]
    command += ["--files", str(options.files), "--size", str(options.size)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=RUN_LIMIT)
    finally:
        shutil.rmtree(directory)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """
    Both ways in turn, so that a busy minute of the machine meets both.
    """
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with server(options.size) as base:
        for _ in range(options.repeats):
            for way, results in runs.items():
                results.append(measure_once(way, base, options))
    report: dict[str, Any] = {way: summary(results) for way, results in runs.items()}
    ratio = report["ours"]["rate"] / report["bare"]["rate"]
    memory = report["ours"]["memory"]
    return report | {
        "files": options.files,
        "size": options.size,
        "repeats": options.repeats,
        "python": platform.python_version(),
        "aiohttp": aiohttp.__version__,
        "ratio": ratio,
        "met": ratio >= LEAST_RATIO and memory < MOST_MEMORY,
    }


def summary(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """
    The median rate with its extremes, and the worst memory.
    """
    rates = [result["rate"] for result in results]
    return {
        "rate": statistics.median(rates),
        "slowest": min(rates),
        "fastest": max(rates),
        "memory": max(result["memory"] for result in results),
    }


def table(report: Mapping[str, Any]) -> str:
    """
    The report for people.
    """
    lines = [
        f"{report['files']} files of {report['size']} MiB at once, median of {report['repeats']} runs"
        f" (Python {report['python']}, aiohttp {report['aiohttp']})",
        "",
        f"{'':20}{'MiB/s':>8}{'slowest':>10}{'fastest':>10}{'peak MiB':>10}",
    ]
    for way, label in (("bare", "bare aiohttp loop"), ("ours", "VeoSession.download")):
        row = report[way]
        numbers = f"{row['rate']:8.0f}{row['slowest']:10.0f}{row['fastest']:10.0f}{row['memory']:10.0f}"
        lines.append(f"{label:20}{numbers}")
    verdict = "met" if report["met"] else "MISSED"
    wanted = f"at least {LEAST_RATIO} x the bare rate, below {MOST_MEMORY:.0f} MiB"
    return "\n".join([*lines, "", f"{report['ratio']:.2f} x the bare rate; wanted: {wanted}: {verdict}"])


def options_from(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Read the command line.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().partition("\n")[0])
    parser.add_argument("--files", type=int, default=20, help="how many files (20)")
    parser.add_argument("--size", type=int, default=100, help="MiB per file (100)")
    parser.add_argument("--repeats", type=int, default=5, help="runs each way (5)")
    parser.add_argument("--directory", help="where to write the files, which are removed (the temporary one)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--role", choices=["server", *WAYS], help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> int:
    """
    Measure and print; the exit status is 1 where a target is missed.
    """
    options = options_from()
    if options.role == "server":
        asyncio.run(serve(options.size))
    elif options.role is not None:
        directory = Path(options.directory)
        run(options.role, options.base, files=options.files, size=options.size, directory=directory)
    else:
        report = measure(options)
        print(json.dumps(report, indent=2) if options.json else table(report))
        return 0 if report["met"] else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

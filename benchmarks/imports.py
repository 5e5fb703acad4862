"""
What importing `VeoSession` costs, beside importing the four packages that it needs.

    python benchmarks/imports.py [--runs 51] [--quick] [--json] [--out DIRECTORY]

Each import has a fresh process, which times nothing but the import statement; the ways take turns.
The first of each way is not counted: it may have to write byte code.
Exit status 1 where the figure is missed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from _report import Row, judged, options, report

MOST_RATIO: Final = 1.2  # of importing the four
FOUR, OURS = "its four dependencies", "our package"
WAYS: Final = {FOUR: "aiohttp, attrs, cattrs, backoff", OURS: "veo_async; veo_async.VeoSession"}
PROGRAM: Final = """
import sys, time
began = time.perf_counter()
import {}
took = time.perf_counter() - began
print(took, len(sys.modules))
"""


def run(what: str) -> tuple[float, int]:
    """
    Import in a fresh process; return the milliseconds, and how many modules there are then.
    """
    command = [sys.executable, "-c", PROGRAM.format(what)]
    # Byte code is there in an installed package; who forbids writing it would measure the compiler.
    around = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=around).stdout
    took, modules = printed.split()
    return 1e3 * float(took), int(modules)


def row(name: str, found: Sequence[tuple[float, int]]) -> Row:
    times = [took for took, _ in found]
    return {
        "imported": name,
        "modules": found[0][1],
        "median ms": statistics.median(times),
        "least ms": min(times),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = options(__doc__, quick="one process each, to see that it works")
    parser.add_argument("--runs", type=int, default=51, help="processes for each way")
    chosen = parser.parse_args(arguments)
    runs = 1 if chosen.quick else chosen.runs
    found: dict[str, list[tuple[float, int]]] = {name: [] for name in WAYS}
    for number in range(runs + 1):
        for name in [*WAYS] if number % 2 else [*reversed(WAYS)]:
            found[name].append(run(WAYS[name]))
    rows = {name: row(name, runs_of[1:]) for name, runs_of in found.items()}
    ratio = rows[OURS]["median ms"] / rows[FOUR]["median ms"]
    drawn = {"import": ("milliseconds", {name: float(line["median ms"]) for name, line in rows.items()})}
    title = f"Imports in fresh processes, medians of {runs}"
    wanted = [judged("importing VeoSession / importing its four dependencies", ratio, most=MOST_RATIO)]
    return report(chosen, {title: [*rows.values()]}, wanted, drawn)


if __name__ == "__main__":
    sys.exit(main())

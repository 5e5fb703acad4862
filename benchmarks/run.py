"""
Run all benchmarks, one after the other, and write down what they found.

    python benchmarks/run.py [--quick] [--out benchmarks/results] [side_by_side scale ...]

Each program leaves a JSON file in the folder, and its figures as SVG where it draws any; `wanted.json` holds every
figure that was wanted, beside the one that was reached. A whole run takes about an hour, a quick one about three
minutes; its figures are too small to judge.
Exit status 1 where a program failed, or a figure was missed in a whole run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from _report import Row, show
from attrs import frozen

HERE: Final = Path(__file__).parent


@frozen
class Program:
    """
    How to run one benchmark.

    Attributes:
        whole, quick: its arguments.
        draws: whether it has figures, and tells what was wanted of it.
    """

    whole: Sequence[str] = ()
    quick: Sequence[str] = ("--quick",)
    draws: bool = True


PROGRAMS: Final[Mapping[str, Program]] = {
    "imports": Program(),
    "schedule": Program(),
    "side_by_side": Program(),
    "scale": Program(),
    "throttled": Program(),
    "callbacks": Program(),
    "journalled": Program(quick=("--jobs", "50", "--runs", "1"), draws=False),
    "journal": Program(quick=("--jobs", "10", "--runs", "1", "--seconds", "0.2"), draws=False),
    "workers": Program(),
    "sessions": Program(),
    "paid_twice": Program(quick=(), draws=False),
    "kills": Program(whole=("200",), quick=("3",), draws=False),
    "chaos": Program(whole=("1000", "20000"), quick=("5", "20000"), draws=False),
    "download": Program(
        whole=("--files", "5", "--repeats", "3"),
        quick=("--files", "2", "--size", "2", "--repeats", "1"),
        draws=False,
    ),
}


def play(name: str, out: Path, *, quick: bool) -> tuple[Row, list[Row]]:
    """
    Run one program, keep what it printed, and return how it went and what was wanted of it.
    """
    program, file = PROGRAMS[name], out / f"{name}.json"
    command = [sys.executable, str(HERE / f"{name}.py"), "--json"]
    command += [*(program.quick if quick else program.whole), *(("--out", str(out)) if program.draws else ())]
    began = time.perf_counter()
    with file.open("wb") as printed:
        status = subprocess.run(command, stdout=printed, check=False).returncode
    took = time.perf_counter() - began
    found = read(file)
    row = {"program": name, "seconds": round(took), "status": status, "wrote": "JSON" if found else "none"}
    wanted = found["wanted"] if found and program.draws else []
    return row, [{"program": name} | line for line in wanted]


def read(file: Path) -> dict[str, Any] | None:
    """
    Read what a program printed; None where it is no JSON, since the program failed.
    """
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", help=f"only these, of {', '.join(PROGRAMS)}")
    parser.add_argument("--quick", action="store_true", help="tiny runs, to see that everything works")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="where the results go")
    chosen = parser.parse_args(arguments)
    if strangers := {*chosen.programs} - PROGRAMS.keys():
        parser.error(f"no such benchmark: {', '.join(strangers)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows, wanted = [], []
    for name in chosen.programs or PROGRAMS:
        print(f"--- {name}", file=sys.stderr, flush=True)
        row, verdicts = play(name, chosen.out, quick=chosen.quick)
        rows.append(row)
        wanted += verdicts
    (chosen.out / "wanted.json").write_text(json.dumps(wanted, indent=2), encoding="utf-8")
    show("Programs", rows)
    if wanted:
        show(
            "Wanted, and reached in runs too small to judge" if chosen.quick else "Wanted and reached", wanted
        )
    failed = [row for row in rows if row["wrote"] == "none" or (row["status"] and not chosen.quick)]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

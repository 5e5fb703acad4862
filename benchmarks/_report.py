"""
What every benchmark prints: tables, and beside each figure that was wanted the one that was reached.

Counts come first in each table, since they repeat exactly, and times after them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from _draw import bars

__all__ = ["Row", "Tables", "judged", "options", "options_of_runs", "report", "show"]

Row = dict[str, Any]
Tables = Mapping[str, Sequence[Row]]
Figures = Mapping[str, tuple[str, Mapping[str, float]]]  # title -> unit, a bar for each name

WANTED: Final = "Wanted and reached"
QUICK: Final = "Wanted, and reached in a run too small to judge"


def judged(figure: str, reached: float, *, most: float | None = None, least: float | None = None) -> Row:
    """
    Hold a figure against its bound.
    """
    bounds = [f"<= {most:g}"] if most is not None else []
    bounds += [f">= {least:g}"] if least is not None else []
    met = (most is None or reached <= most) and (least is None or reached >= least)
    return {"figure": figure, "wanted": " and ".join(bounds), "reached": reached, "met": met}


def cell(value: object) -> str:
    if isinstance(value, bool):
        return "met" if value else "MISSED"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def show(title: str, rows: Sequence[Row]) -> None:
    """
    Print rows as a table, words to the left and numbers to the right.
    """
    table = [list(rows[0]), *([cell(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    words = [isinstance(value, str) for value in rows[0].values()]
    print(f"\n{title}\n")
    for line in table:
        cells = [
            text.ljust(width) if word else text.rjust(width)
            for text, width, word in zip(line, widths, words, strict=True)
        ]
        print("  ".join(cells).rstrip())


def options(words: str | None, *, quick: str) -> argparse.ArgumentParser:
    """
    Begin a command line with what all benchmarks have.

    Args:
        words: what the program does.
        quick: what `--quick` leaves out.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="draw the figures into it, as SVG")
    return parser


def options_of_runs(words: str | None, arguments: Sequence[str] | None) -> argparse.Namespace:
    """
    Read the command line of a program that plays a number of jobs a number of times.
    """
    parser = options(words, quick="one run of fifty jobs, to see that it works")
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args(arguments)
    if chosen.quick:
        chosen.jobs, chosen.runs = 50, 1
    return chosen


def report(chosen: argparse.Namespace, tables: Tables, wanted: Sequence[Row], drawn: Figures) -> int:
    """
    Print and draw what was found; returns the exit status, 1 where a figure is missed in a run of full size.
    """
    title_of_wanted = QUICK if chosen.quick else WANTED
    if chosen.out:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for title, (unit, values) in drawn.items():
            file = chosen.out / f"{title.replace(' %', '').replace(' ', '-')}.svg"
            file.write_text(bars(title, unit, values), encoding="utf-8")
    if chosen.json:
        print(json.dumps({"tables": tables, "wanted": wanted}, indent=2))
    else:
        for title, rows in {**tables, title_of_wanted: wanted}.items():
            if rows:
                show(title, rows)
    return 0 if chosen.quick or all(row["met"] for row in wanted) else 1

"""
`veo-async models`: the table of models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import MODELS, Model

__all__ = ["models"]

WIDEST: Final = 100  # columns: what is wider is harder to read, not easier


@click.command(short_help="Show the table of models.")
def models() -> None:
    """
    Show the models: what each takes, and which may be refused today.
    """
    console = Console(highlight=False)
    console.print(_table(), width=min(console.width, WIDEST))
    for model in MODELS.values():
        if model.retired:
            console.print(
                f"{model.name}: retired; {model.retired}", style="dim", width=min(console.width, WIDEST)
            )


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "tier", "text alone", "images", "resolutions"):
        table.add_column(heading, no_wrap=heading == "model")
    for model in MODELS.values():
        table.add_row(*_cells(model), style="dim" if model.retired else None)
    return table


def _cells(model: Model) -> tuple[Text, ...]:
    return (
        Text(model.name + (" (retired)" if model.retired else "")),
        Text(model.tier),
        Text("yes" if model.text else "no"),
        Text(_images(model.images)),
        Text(", ".join(("720p", *model.resolutions))),
    )


def _images(images: Mapping[int, str]) -> str:
    """
    Read `{1: a, 2: b, 3: b}` as `1: a; 2-3: b`.
    """
    counts: dict[str, list[int]] = {}
    for count, meaning in images.items():
        counts.setdefault(meaning, []).append(count)
    return "; ".join(f"{_range(found)}: {meaning}" for meaning, found in counts.items())


def _range(counts: list[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{min(counts)}-{max(counts)}"

"""
`veo-async models`: the table of models.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ... import MODELS, Model

__all__ = ["models"]

WIDEST: Final = 80  # columns; wider tables are harder to read
MEANINGS: Final = tuple(dict.fromkeys(word for model in MODELS.values() for word in model.images.values()))


@click.command(short_help="Show the table of models.")
def models() -> None:
    """
    Show the models: what each takes, and which may be refused today.
    """
    console = Console(highlight=False)
    width = min(console.width, WIDEST)
    console.print(_table(), width=width)
    for line in _remarks():
        console.print(Text(line), width=width)


def _table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in ("tier", "text"):
        table.add_column(heading, vertical="bottom")
    for meaning in MEANINGS:
        table.add_column(meaning, max_width=10, vertical="bottom")
    table.add_column("resolutions", no_wrap=True)
    for model in MODELS.values():
        table.add_row(*map(Text, _cells(model)), style="dim" if model.retired else None)
    return table


def _cells(model: Model) -> Iterator[str]:
    yield model.name + (" (retired)" if model.retired else "")
    yield model.tier
    yield "yes" if model.text else "no"
    for meaning in MEANINGS:
        yield _range([count for count, meant in model.images.items() if meant == meaning])
    yield " ".join(model.resolutions)


def _range(counts: Sequence[int]) -> str:
    """
    Write neighbouring counts as a range: `2-3`.
    """
    return "-".join(dict.fromkeys(map(str, (min(counts), max(counts))))) if counts else "-"


def _remarks() -> Iterator[str]:
    meanings = ", ".join(MEANINGS)
    yield f"{meanings}: how many images mean that."
    yield "text: whether a prompt alone is enough. Every model makes 720p unless told otherwise."
    reasons: dict[str, list[str]] = {}
    for model in MODELS.values():
        if model.retired:
            reasons.setdefault(model.retired, []).append(model.name)
    for reason, names in reasons.items():
        each = names[0] if len(names) == 1 else f"Each of {', '.join(names)}"
        yield f"{each} may be refused: {reason}."

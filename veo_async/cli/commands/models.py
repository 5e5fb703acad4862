"""
`veo-async models`: the table of models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from textwrap import fill, wrap
from typing import Final

import click
from attrs import asdict

from ..._api.models import MODELS, Model  # not from the package, whose first name loads all of it

__all__ = ["models"]

WIDEST: Final = 80  # columns; wider tables are harder to read
HEADING: Final = 10  # columns of a heading, which may have several lines
MEANINGS: Final = tuple(dict.fromkeys(word for model in MODELS.values() for word in model.images.values()))
HEADINGS: Final = ("model", "tier", "text", *MEANINGS, "resolutions")


@click.command(short_help="Show the table of models.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per model.")
def models(*, as_json: bool) -> None:
    """
    Show the models: what each takes, and which may be refused today.
    """
    lines = map(_as_json, MODELS.values()) if as_json else (*_table(), "", *_remarks())
    for line in lines:
        click.echo(line)


def _as_json(model: Model) -> str:
    return json.dumps(asdict(model))


def _table() -> Iterator[str]:
    rows = [tuple(_cells(model)) for model in MODELS.values()]
    widths = [max(map(len, (*column, *heading))) for *column, heading in zip(*rows, _headings(), strict=True)]
    lines = zip_longest(*(reversed(heading) for heading in _headings()), fillvalue="")
    for cells in (*reversed([*lines]), ["-" * width for width in widths], *rows):
        yield "  ".join(map(str.ljust, cells, widths)).rstrip()


def _headings() -> list[list[str]]:
    return [wrap(heading, HEADING, break_long_words=False) for heading in HEADINGS]


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
    yield fill(
        "text: whether a prompt alone is enough. Every model makes 720p unless told otherwise.", WIDEST
    )
    reasons: dict[str, list[str]] = {}
    for model in MODELS.values():
        if model.retired:
            reasons.setdefault(model.retired, []).append(model.name)
    for reason, names in reasons.items():
        each = names[0] if len(names) == 1 else f"Each of {', '.join(names)}"
        yield fill(f"{each} may be refused: {reason}.", WIDEST)

"""
Figures as SVG, without a library: a bar for each value, the value beside it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from typing import Final

__all__ = ["bars"]

WIDTH: Final = 720  # pixels
LABELS: Final = 190
LINE: Final = 26
OURS: Final = "#2563eb"
OTHERS: Final = "#94a3b8"


def bars(title: str, unit: str, values: Mapping[str, float], *, bound: float | None = None) -> str:
    """
    Draw one bar for each value; ours stand out. Where the largest dwarfs the rest, the scale is logarithmic.

    Args:
        bound: drawn as a line across all bars.
    """
    least, most = min(values.values()), max([*values.values(), bound or 0.0])
    wide = least > 0 and most > 30 * least
    start = 10 ** math.floor(math.log10(least)) if wide else 0.0

    def reach(value: float) -> float:
        share = math.log(value / start) / math.log(most / start) if wide else value / (most or 1.0)
        return max(1.0, share * (WIDTH - LABELS - 80))

    height = LINE * (len(values) + 2)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"'
        ' font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="8" y="18" font-weight="bold">{escape(title)} ({escape(unit)}'
        f"{', logarithmic' if wide else ''})</text>",
    ]
    for number, (name, value) in enumerate(values.items(), 1):
        y = number * LINE + 8
        colour = OURS if "our" in name else OTHERS
        lines += [
            f'<text x="{LABELS - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{LABELS}" y="{y}" width="{reach(value):.1f}" height="{LINE - 8}" fill="{colour}"/>',
            f'<text x="{LABELS + reach(value) + 6:.1f}" y="{y + 13}">{value:.4g}</text>',
        ]
    if bound is not None:
        x = LABELS + reach(bound)
        lines.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{LINE}" y2="{height - LINE / 2}" stroke="#dc2626"/>'
        )
    return "\n".join([*lines, "</svg>\n"])

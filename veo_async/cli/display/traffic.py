"""
The display of a worker: how many deliveries wait, are being made, and have ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from attrs import define, field
from rich.console import Group, RenderableType
from rich.text import Text

from ..words import duration
from .board import Board

__all__ = ["Count", "Traffic"]

Count = tuple[str, int | None]  # a word, and a number that belongs to it; None if it is not known yet

_MEASURABLE: Final = 10.0  # seconds after which a rate is meaningful


@define(eq=False)
class Traffic(Board):
    """
    A board of counts, for work that has no end.

    Attributes:
        counts: gives the counts to show.
        ended: gives how many have ended.
    """

    counts: Callable[[], list[Count]] = field(kw_only=True)
    ended: Callable[[], int] = field(kw_only=True)
    _told: str = field(default="", init=False)

    def _standing(self) -> str:
        """
        Summarise the state in one line; empty if the last line said the same.
        """
        words = self._words()
        if words == self._told:
            return ""
        self._told = words
        return words

    def _words(self) -> str:
        return ", ".join(f"{number:,} {word}" for word, number in self.counts() if number is not None)

    def _picture(self) -> RenderableType:
        line = Text(self._words() or "starting", style="bold")
        line.append(f"  {self._rate()}{duration(self.elapsed)}", style="dim")
        return Group(line)

    def _rate(self) -> str:
        if self.elapsed < _MEASURABLE or not self.ended():
            return ""
        return f"{self.ended() / self.elapsed * 60:.0f} a minute, "

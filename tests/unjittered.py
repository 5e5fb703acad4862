"""
Chance left out of delays.
"""

from __future__ import annotations

from random import Random

__all__ = ["Unjittered"]


class Unjittered(Random):
    """
    Leaves back-off delays whole: 1, 2, 4, 8, 16, 30, 30, ... seconds.
    """

    def uniform(self, a: float, b: float) -> float:
        return b

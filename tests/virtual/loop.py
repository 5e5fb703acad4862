"""
An event loop that never waits: where others sleep, its clock jumps.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["EPOCH", "Deadlock", "VirtualLoop", "run"]

EPOCH = 1_767_225_600.0  # Unix seconds: what the virtual clock's zero stands for, 2026-01-01
TURNS = 1000  # in one instant, after which a tick passes
TICK = 1e-9  # seconds: the resolution of asyncio's clock
_T = TypeVar("_T")


class Deadlock(RuntimeError):
    """
    Nothing is ready, no timer is set: nothing would ever happen again.
    """


class _JumpingSelector(selectors.DefaultSelector):
    """
    Looks at its files without waiting, and moves the clock instead.
    """

    elapsed = 0.0
    turns = 0  # since the clock last moved

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise Deadlock("every coroutine waits, and none for a timer")
            # The loop fires a timer up to its clock's resolution early. Who then waits for the rest would do so
            # for ever, in an instant that does not pass: real clocks go on meanwhile.
            self.turns = 0 if timeout > 0 else self.turns + 1
            self.elapsed += max(0.0, timeout) if self.turns < TURNS else TICK
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    Its `time()` begins at zero and advances only when there is nothing else to do.

    Sockets and threads are invisible to such a clock: it would run past them.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.elapsed

    def unix_time(self) -> float:
        """
        The wall clock that goes with it.
        """
        return EPOCH + self.time()


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """
    Run a coroutine to its end in virtual time.
    """
    # Without asyncio's debug mode, whose book-keeping would double the time of the thousands of runs made here;
    # the tests over sockets have it.
    with asyncio.Runner(loop_factory=VirtualLoop, debug=False) as runner:
        return runner.run(main)

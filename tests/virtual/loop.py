"""
Runs a coroutine on a clock that jumps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from veo_async.testing.clock import EPOCH, Deadlock, VirtualLoop

__all__ = ["EPOCH", "Deadlock", "VirtualLoop", "run"]

_T = TypeVar("_T")


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """
    Run a coroutine to its end in virtual time.
    """
    # Without asyncio's debug mode, whose book-keeping would double the time of the thousands of runs made here;
    # the tests over sockets have it.
    with asyncio.Runner(loop_factory=VirtualLoop, debug=False) as runner:
        return runner.run(main)

"""
A clock that jumps: where an event loop would sleep, its time moves on instead.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from attrs import define, field

from .. import UsageError

__all__ = ["EPOCH", "Deadlock", "VeoClock", "VirtualLoop"]

EPOCH: Final = 1_767_225_600.0  # Unix seconds: 2026-01-01
TURNS: Final = 1000  # in one instant, after which a tick passes
TICK: Final = 1e-9  # seconds: the resolution of asyncio's clock
PATIENCE: Final = 1.0  # real seconds for what the clock cannot see, once there is nothing else to wait for

_Select = Callable[[float | None], list[Any]]


class Deadlock(RuntimeError):
    """
    Nothing is ready, no timer is set: nothing would ever happen again.
    """


@define(eq=False)
class VeoClock:
    """
    The time of an event loop that does not wait.

    It sees what the loop's executors and the downloads of `VeoSession` do, and waits for those in real time.
    Other sockets and threads are invisible to it: it runs past them.

    Attributes:
        elapsed: seconds since it was started.
    """

    elapsed: float = field(default=0.0, init=False)
    _began: float = field(default=0.0, init=False)  # on the loop's own clock
    _held: int = field(default=0, init=False)
    _turns: int = field(default=0, init=False)  # since the clock last moved

    def time(self) -> float:
        """
        Return the time of the loop's clock.
        """
        return self._began + self.elapsed

    def unix_time(self) -> float:
        """
        Return the wall clock's time, in Unix seconds: each test begins on the same day.
        """
        return EPOCH + self.elapsed

    @contextmanager
    def held(self) -> Iterator[None]:
        """
        Let time pass as it does in life, for what happens outside of the loop.
        """
        self._held += 1
        try:
            yield
        finally:
            self._release()

    def start(self, loop: asyncio.AbstractEventLoop, *, at: float | None = None) -> None:
        """
        Become the clock of a loop, which goes on from its own time, or begins anew at this one.

        Raises:
            UsageError: the loop is not asyncio's own.
        """
        selector = getattr(loop, "_selector", None)  # asyncio has no public name for what its loop waits with
        if selector is None:
            raise UsageError(f"a clock that jumps needs asyncio's own event loop, not {type(loop).__name__}")
        self._began = (loop.time() if at is None else at) - self.elapsed
        vars(selector)["select"] = partial(self._select, selector.select)
        vars(loop)["run_in_executor"] = partial(self._run_in_executor, loop.run_in_executor)
        vars(loop)["time"] = self.time

    def stop(self, loop: asyncio.AbstractEventLoop) -> None:
        """
        Give a loop its own clock back.
        """
        del vars(getattr(loop, "_selector"))["select"]  # noqa: B009
        del vars(loop)["run_in_executor"], vars(loop)["time"]

    def _run_in_executor(
        self, run: Callable[..., asyncio.Future[Any]], executor: Executor | None, call: Any, *arguments: Any
    ) -> asyncio.Future[Any]:
        future = run(executor, call, *arguments)
        self._held += 1
        future.add_done_callback(self._release)
        return future

    def _release(self, _: object = None) -> None:
        self._held -= 1

    def _select(self, select: _Select, timeout: float | None = None) -> list[Any]:
        """
        Look at the loop's files without waiting, and move the clock instead.
        """
        ready = select(0)
        if ready or timeout == 0:
            return self._turned(ready)
        if self._held or timeout is None:
            return self._wait(select, timeout)
        self._turns, self.elapsed = 0, self.elapsed + timeout
        return ready

    def _turned(self, ready: list[Any]) -> list[Any]:
        # The loop fires a timer up to its clock's resolution early. Who then waits for the rest would do so
        # for ever, in an instant that does not pass: real clocks go on meanwhile.
        self._turns += 1
        if self._turns >= TURNS:
            self.elapsed += TICK
        return ready

    def _wait(self, select: _Select, timeout: float | None) -> list[Any]:
        began = time.monotonic()
        ready = select(timeout if self._held else PATIENCE)
        if not ready and timeout is None and not self._held:
            raise Deadlock(
                "every coroutine waits, and none for a timer, or for what a clock that jumps can see"
            )
        self.elapsed += time.monotonic() - began
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """
    An event loop with such a clock from its beginning, at which its `time()` is zero.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock = VeoClock()
        self.clock.start(self, at=0.0)

    def unix_time(self) -> float:
        """
        The wall clock that goes with it.
        """
        return self.clock.unix_time()

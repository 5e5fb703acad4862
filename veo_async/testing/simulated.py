"""
The simulator as a test holds it: served from a thread, so that it serves a program in any event loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final, Literal

from attrs import define, field

from ..simulator import Core, Faults, Script, Simulator
from .clock import VeoClock
from .purchases import Purchase, bought, bought_twice

__all__ = ["SPEED", "VeoSimulator", "served"]

SPEED: Final = 1000.0  # a task takes about a tenth of a second

_WHICH: Final = ("first", "share", "nth", "times", "match")  # requests are struck


@define(eq=False)
class VeoSimulator:
    """
    The Veo API on this machine; what it does is decided by scripts and faults, what it saw can be asked.

    Attributes:
        url: its address.
        token: a valid token.
        clock: the clock that jumps, or None.
        core: the in-memory server, for what this class has no word for; see `veo_async.simulator.Core`.
    """

    url: str
    token: str = field(repr=False)
    core: Core = field(repr=False)
    clock: VeoClock | None = field(default=None, repr=False)

    @property
    def account_token(self) -> str:
        """
        A valid account token, which the platform takes.
        """
        return next(iter(self.core.platform.tokens))

    def script(
        self,
        *,
        prompt: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        model: str | None = None,
        times: int | None = None,
        fails: str | None = None,
        refused: str | None = None,
        message: str = "the script says so",
        takes: float | None = None,
        videos: int | None = None,
    ) -> Script:
        """
        Decide what becomes of the submits that match; of several scripts, the first that matches is used.

            veo_simulator.script(prompt="*storm*", fails="forbidden")

        Args:
            prompt: a pattern of `fnmatch` for the prompt, such as `*storm*`; case matters.
            type: `text2video`, `image2video`, `ingredients2video`, `get1080p`, `upsample`, `extend`, `reshoot` or
                `objects`.
            model: a pattern for the model's name.
            times: how many submits it is for; the next ones are for later scripts.
            fails: the error code of the tasks, which are accepted, and fail when they end.
            refused: the error code with which the submits are refused.
            message: what comes with either code.
            takes: how long the tasks take in life, in seconds; the simulator's speed divides it.
            videos: how many videos a task makes.

        Raises:
            ValueError: there is no such type or code, or `refused` comes with what only a task has.
        """
        script = Script(
            prompt=prompt,
            type=type,
            model=model,
            times=times,
            fails=fails,
            refused=refused,
            message=message,
            takes=takes,
            videos=videos,
        )
        self.core.scripts.append(script)
        return script

    @property
    def unused_scripts(self) -> list[Script]:
        """
        The scripts that no submit has matched.
        """
        return [script for script in self.core.scripts if not script.matched]

    def fault(self, word: str, **choices: Any) -> Faults:
        """
        Break what is sent or answered: `drop_after`, or with its endpoint `drop_after@submit`.

        Args:
            word: as for `veo-async simulate --fault`; see `veo_async.simulator.Fault`.
            choices: as for `veo_async.simulator.Faults.add`; if none of them says which requests it strikes, it is the
                first one of each job.

        Raises:
            TypeError: there is no such choice.
            ValueError: there is no such fault.
        """
        assert self.core.faults is not None
        kind, *on = word.split("@", 1)
        if choices.keys().isdisjoint(_WHICH):
            choices["first"] = True
        return self.core.faults.add(kind, **{"on": on, **choices})

    @property
    def requests(self) -> Counter[str]:
        """
        How many requests came, by kind: `submit`, `retrieve`, `retrieve_batch`, `list`, `download`, `refused`.
        """
        return Counter(self.core.requests)

    @property
    def bought(self) -> list[Purchase]:
        """
        The tasks that the account pays for, in the order of acceptance; failed ones cost nothing.
        """
        return bought(list(self.core.tasks.values()))

    def assert_bought_once(self, *, by: Literal["request", "key"] = "request") -> None:
        """
        Fail if anything was bought twice.

        Args:
            by: what must not come twice. `request`: not even under two keys, as happens where a program repeats a
                call that failed. `key`: a program that wants several videos of one prompt may have them.

        Raises:
            AssertionError: it names what was bought twice.
        """
        __tracebackhide__ = True
        twice = bought_twice(self.bought, by)
        lines = [f"  {len(group)} times: {group[0]} (tasks {_ids(group)})" for group in twice]
        if lines:
            raise AssertionError("\n".join(["bought more than once:", *lines]))


def _ids(purchases: list[Purchase]) -> str:
    return ", ".join(purchase.task_id for purchase in purchases)


@contextmanager
def served(core: Core, clock: VeoClock | None = None) -> Iterator[VeoSimulator]:
    """
    Serve a core at a free port of loopback until the block is left.
    """
    started: Future[tuple[Simulator, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def serve() -> None:
        leave = asyncio.Event()
        async with Simulator(core=core) as simulator:
            started.set_result((simulator, asyncio.get_running_loop(), leave))
            await leave.wait()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            started.set_exception(error)

    thread = threading.Thread(target=run, name="veo_async simulator", daemon=True)
    thread.start()
    simulator, loop, leave = started.result()
    try:
        yield VeoSimulator(simulator.url, simulator.token, core, clock)
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join()

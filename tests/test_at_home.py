"""
At home in other people's programs: on uvloop, in a notebook, in several threads, on IPv6.
"""

from __future__ import annotations

import ast
import asyncio
import threading
from collections.abc import Coroutine
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any, Final

import pytest

from veo_async import RetryPolicy, TextToVideo, VeoSession
from veo_async.receiver import CallbackReceiver
from veo_async.simulator import Settings, Simulator
from veo_async.testing import VeoSimulator

SPEED: Final = 200.0


async def _buy(folder: Path, *prompts: str) -> list[str]:
    """
    Buy videos under keys in a journal, and return the names of the files that are there then.
    """
    async with VeoSession(journal=folder / "batch.db") as veo:
        async for job in veo.as_completed(veo.submit_many((text, TextToVideo(text)) for text in prompts)):
            await veo.download(job.result().video, folder / f"{job.key}.mp4")
    return _names_in(folder)


def _names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.mp4"))


# --- other loops -----------------------------------------------------------------------------------------


def test_uvloop_runs_a_session(veo_simulator: VeoSimulator, tmp_path: Path) -> None:
    """Sockets, threads and timers of uvloop serve as well, also where an answer is lost."""
    uvloop = pytest.importorskip("uvloop")
    veo_simulator.fault("drop_after@submit")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert ["heron.mp4", "owl.mp4"] == runner.run(_buy(tmp_path, "owl", "heron"))
    assert 2 == len(veo_simulator.bought)
    veo_simulator.assert_bought_once()


def test_uvloop_serves_the_simulator_and_a_receiver(tmp_path: Path) -> None:
    """What listens also listens on uvloop, and callbacks arrive there."""
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_called_back("127.0.0.1", tmp_path))


CELLS: Final = (
    "from veo_async import TextToVideo, VeoSession",
    "veo = VeoSession(); await veo.__aenter__()",
    "job = veo.submit(TextToVideo('an owl'))",
    "await job.accepted()",
    "path = await veo.download((await job).video, folder / 'owl.mp4')",
    "await veo.__aexit__(None, None, None)",
)


async def test_a_notebook_keeps_a_session_over_many_cells(
    veo_simulator: VeoSimulator, tmp_path: Path
) -> None:
    """In Jupyter each cell is a task of its own, in a loop that goes on running between them."""
    names: dict[str, Any] = {"folder": tmp_path}
    for cell in CELLS:
        code = compile(cell, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        outcome = eval(code, names)
        if code.co_flags & CO_COROUTINE:
            await asyncio.create_task(outcome)
    assert names["path"].stat().st_size > 0
    assert 1 == len(veo_simulator.bought)


# --- several loops ---------------------------------------------------------------------------------------


def _in_threads(*programs: Coroutine[Any, Any, Any]) -> list[Any]:
    """
    Run each program in a thread and a loop of its own, and return what they return.
    """
    returned: dict[int, Any] = {}

    def run(number: int, program: Coroutine[Any, Any, Any]) -> None:
        returned[number] = asyncio.run(program)

    threads = [threading.Thread(target=run, args=numbered) for numbered in enumerate(programs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [returned.get(number) for number in range(len(programs))]


def test_two_loops_in_two_threads(veo_simulator: VeoSimulator, tmp_path: Path) -> None:
    """Sessions that live at the same time in two threads share nothing, and wait for each other's videos only."""
    meeting = threading.Barrier(2, timeout=60)

    async def program(folder: Path, *prompts: str) -> list[str]:
        async with VeoSession() as veo:
            meeting.wait()  # both are open: from here on, nothing orders the two threads
            job = veo.submit(TextToVideo(f"{folder.name}'s own"))
            files = await _buy(folder, *prompts)
            assert job.request == (await job).request
            return files

    first = [f"a{number}" for number in range(20)]
    second = [f"b{number}" for number in range(20)]
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    both = _in_threads(program(folders[0], *first), program(folders[1], *second))
    assert [sorted(f"{text}.mp4" for text in prompts) for prompts in (first, second)] == both
    assert 42 == len(veo_simulator.bought)
    veo_simulator.assert_bought_once()


# --- IPv6 ------------------------------------------------------------------------------------------------


async def _called_back(host: str, folder: Path) -> None:
    """
    Buy, hear and fetch a video, all on this host; polls come too late to be what tells of it.
    """
    async with (
        Simulator(Settings(speed=SPEED), host=host) as sim,
        VeoSession(sim.token, base_url=sim.url, retry=RetryPolicy().scaled(1 / SPEED)) as veo,
        CallbackReceiver(veo, public_url=None) as receiver,
    ):
        await receiver.start(port=0, host=host)
        result = await veo.text_to_video("an owl")
        assert 1 == receiver.heard
        assert result.video.url.startswith(f"{sim.url}/")
        assert (await veo.download(result.video, folder / "owl.mp4")).stat().st_size > 0


async def test_everything_speaks_ipv6(tmp_path: Path) -> None:
    """Plain http is taken for `[::1]` as for 127.0.0.1: submits, polls, callbacks and downloads."""
    await _called_back("::1", tmp_path)

"""
A clock that jumps: hours take milliseconds, and what is outside of the loop is waited for.
"""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import Mock

import pytest

from veo_async import JobTimedOut, Journal, PostgresJournal, TextToVideo, UsageError, VeoSession
from veo_async.testing import VeoClock, VeoSimulator, clock
from veo_async.testing.clock import EPOCH, Deadlock, VirtualLoop


async def test_hours_pass_in_no_time(veo_clock: VeoClock) -> None:
    """The loop's time moves by what is slept, as far as the loop's clock can tell, and begins on one day."""
    loop = asyncio.get_running_loop()
    began, really = loop.time(), time.monotonic()
    assert EPOCH == veo_clock.unix_time()
    await asyncio.gather(asyncio.sleep(3600.0), asyncio.sleep(7200.0))
    assert pytest.approx(7200.0) == veo_clock.elapsed == loop.time() - began
    assert EPOCH + veo_clock.elapsed == veo_clock.unix_time()
    assert time.monotonic() - really < 3600.0


async def test_a_task_takes_as_long_as_in_life(
    veo_simulator: VeoSimulator, veo_session: VeoSession, veo_clock: VeoClock
) -> None:
    """The records, the session and the loop agree on how long it took."""
    veo_simulator.script(takes=120.0)
    result = await veo_session.text_to_video("a whale")
    assert 120.0 <= veo_clock.elapsed < 150.0
    assert datetime.fromtimestamp(EPOCH + 120.0, UTC) == pytest.approx(result.video.completed_at, abs=_SECOND)


_SECOND = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC) - datetime(2026, 1, 1, tzinfo=UTC)


async def test_the_session_is_on_the_clock_in_any_order(
    veo_clock: VeoClock, veo_simulator: VeoSimulator, veo_session: VeoSession
) -> None:
    """It is entered after the clock has begun; a deadline of half an hour passes."""
    veo_simulator.script(takes=7200.0)
    with pytest.raises(JobTimedOut):
        await veo_session.text_to_video("a whale")
    assert 1800.0 <= veo_clock.elapsed < 1900.0


async def test_a_server_that_says_nothing_costs_a_minute_of_no_time(
    veo_simulator: VeoSimulator, veo_session: VeoSession, veo_clock: VeoClock
) -> None:
    """The answer is waited for as long as in life, then the task is looked for, and found."""
    veo_simulator.fault("stall_after@submit")
    await veo_session.text_to_video("a whale")
    assert veo_clock.elapsed > 60.0
    veo_simulator.assert_bought_once()


async def test_a_program_with_a_journal_and_files_runs_on_the_clock(
    veo_simulator: VeoSimulator, veo_clock: VeoClock, tmp_path: Path
) -> None:
    """The journal needs no thread, and a file comes over a socket while the clock goes as in life."""
    for _ in range(2):
        async with VeoSession(journal=tmp_path / "journal.db") as veo:
            result = await veo.submit(TextToVideo("a whale"), key="whale")
            path = await veo.download(result.video, tmp_path / "whale.mp4")
    assert path.stat().st_size > 0
    assert 30.0 < veo_clock.elapsed < 600.0
    veo_simulator.assert_bought_once()


@pytest.mark.usefixtures("veo_clock")
async def test_an_inline_journal_is_kept(tmp_path: Path) -> None:
    """What can live with the clock is used as it is."""
    journal = Journal(tmp_path / "journal.db", inline=True)
    async with VeoSession(journal=journal):
        assert " open" in repr(journal)


@pytest.mark.usefixtures("veo_clock")
async def test_a_database_is_refused() -> None:
    """Its sockets are nothing that the clock can see."""
    with pytest.raises(UsageError, match="cannot see a database"):
        await VeoSession(journal=PostgresJournal("postgresql://nowhere")).__aenter__()


async def test_a_thread_of_the_loop_is_waited_for(veo_clock: VeoClock) -> None:
    """The clock does not jump to the end of a time-out while a thread works, and jumps again after."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        assert leave.wait(timeout=60)
        return "done"

    async with asyncio.timeout(1000.0):
        working = asyncio.create_task(asyncio.to_thread(work))
        asyncio.get_running_loop().call_later(0.01, leave.set)
        assert "done" == await working
    assert entered.is_set()
    assert veo_clock.elapsed < 1000.0
    await asyncio.sleep(5000.0)
    assert veo_clock.elapsed > 5000.0


async def test_what_the_clock_cannot_see_may_be_held(veo_clock: VeoClock) -> None:
    """A program's own thread is waited for inside `held`."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    with veo_clock.held():
        threading.Timer(0.01, loop.call_soon_threadsafe, [done.set]).start()
        async with asyncio.timeout(1000.0):
            await done.wait()
    assert veo_clock.elapsed < 1000.0


def test_waiting_for_nothing_is_a_deadlock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no timer is set and nothing comes, the test ends instead of hanging."""
    monkeypatch.setattr(clock, "PATIENCE", 0.0)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner, pytest.raises(Deadlock):
        runner.run(asyncio.Event().wait())


def test_with_no_timer_a_thread_is_waited_for_a_little() -> None:
    """What wakes the loop from outside, in real time, is no deadlock."""

    async def wait() -> None:
        done = asyncio.Event()
        threading.Timer(0.01, asyncio.get_running_loop().call_soon_threadsafe, [done.set]).start()
        await done.wait()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(wait())


async def test_an_instant_does_not_last_for_ever(veo_clock: VeoClock) -> None:
    """Who waits for the last part of a timer's resolution in a loop gets there."""
    end = asyncio.get_running_loop().time() + 1e-8
    while asyncio.get_running_loop().time() < end:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert 0.0 < veo_clock.elapsed < 1e-6


async def test_the_loop_gets_its_own_clock_back() -> None:
    """After the clock is stopped, the loop waits again."""
    loop, jumping = asyncio.get_running_loop(), VeoClock()
    jumping.start(loop)
    await asyncio.sleep(3600.0)
    jumping.stop(loop)
    began = time.monotonic()
    await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 0.009
    assert 3600.0 == pytest.approx(jumping.elapsed)
    assert loop.time() == pytest.approx(time.monotonic(), abs=60.0)


def test_another_kind_of_loop_is_refused() -> None:
    """A loop without asyncio's selector, such as uvloop's, cannot be made to jump."""
    with pytest.raises(UsageError, match="needs asyncio's own event loop, not Mock"):
        VeoClock().start(Mock(asyncio.AbstractEventLoop))

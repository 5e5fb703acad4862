"""
Submits that the limits of the account hold back, by a journal that tells when each may go.
"""

from __future__ import annotations

import asyncio
import logging
from itertools import pairwise
from pathlib import Path

import pytest

from tests.virtual import World
from tests.virtual.scripted import ended, in_virtual_time, whale, whales
from veo_async import JobAbandoned, JobState, Journal, Limits, SessionClosed, SubmitTimedOut
from veo_async._api.marks import label
from veo_async._journal.facts import Fact, HeldBack, Sending, Settled
from veo_async.simulator import Settings


class Limited(Journal):
    """
    A journal whose account may send one submit every `slot` seconds, or has `places` for tasks in flight.

    Attributes:
        asked: the keys that asked, in order.
        most: how many have asked at once since the first was held back.
        began, held: set once a submit has asked, and once one was held back.
    """

    def __init__(self, path: Path, *, slot: float = 0.0, places: int | None = None) -> None:
        super().__init__(path, inline=True)
        self.slot, self.places = slot, places
        self.next_at, self.asking, self.most = 0.0, 0, 0
        self.asked: list[str] = []
        self.began, self.held = asyncio.Event(), asyncio.Event()

    async def write(self, *facts: Fact) -> None:
        if isinstance(facts[0], Sending):
            await self.ask(facts[0].key)
        await super().write(*facts)
        if self.places is not None and isinstance(facts[0], Settled):
            self.places += 1

    async def ask(self, key: str) -> None:
        self.asked.append(key)
        self.asking += 1
        self.began.set()
        self.most = max(self.most, self.asking) if self.held.is_set() else 0
        try:
            await asyncio.sleep(0.01)  # as long as a server takes
            self.answer()
        finally:
            self.asking -= 1

    def answer(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.places == 0 or now < self.next_at:
            self.held.set()
            seconds = None if self.places == 0 else self.next_at - now
            raise HeldBack("the account's limits", seconds=seconds)
        self.next_at = now + self.slot
        self.places = None if self.places is None else self.places - 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batch.db"


def ten_seconds() -> World:
    return World(Settings(duration=lambda body: 10.0))


@in_virtual_time
async def test_jobs_go_in_order_as_the_rate_allows(path: Path) -> None:
    """All ask at once; from then on hardly more than one at a time, and the first is always the first to go."""
    world, journal = ten_seconds(), Limited(path, slot=2.0)
    async with world.session(journal=journal) as veo:
        jobs = veo.submit_many(whales(6))
        await asyncio.gather(*jobs)
        assert 0 == veo.stats.retries
    tasks = [*world.core.tasks.values()]
    assert [f"whale {number}" for number in range(6)] == [task.body["prompt"] for task in tasks]
    assert all(later.created_at - task.created_at >= 2.0 for task, later in pairwise(tasks))
    assert 2 == journal.most
    assert len(journal.asked) <= 6 + 3 * 5


@in_virtual_time
async def test_a_job_goes_once_another_has_settled(path: Path) -> None:
    """With one place, the next submit is sent as soon as its predecessor's end is written down."""
    world, journal = ten_seconds(), Limited(path, places=1)
    async with world.session(journal=journal) as veo:
        first, second = veo.submit_many(whales(2))
        await first
        settled_at = asyncio.get_running_loop().time()
        await second.accepted()
        assert asyncio.get_running_loop().time() < settled_at + 0.1
    *_, task = world.core.tasks.values()
    assert label(second.key, 1) in task.body["callback_url"]  # what was held back was no attempt


@in_virtual_time
async def test_a_place_that_nobody_tells_of_is_found(path: Path) -> None:
    """Another session's task ends unnoticed: a job asks again after a second."""
    world, journal = ten_seconds(), Limited(path, places=0)
    async with world.session(journal=journal) as veo:
        job = veo.submit(whale())
        await journal.held.wait()
        journal.places = 1
        await job.accepted()
        assert 1 < asyncio.get_running_loop().time() < 1.1
    assert 2 == len(journal.asked)


@pytest.mark.parametrize("connections", [1, 100])
@in_virtual_time
async def test_waiting_is_told_once(path: Path, caplog: pytest.LogCaptureFixture, connections: int) -> None:
    """However often submits are held back in one stretch, the log says so once, and warns of nothing."""
    caplog.set_level(logging.INFO, "veo_async")
    world, journal = ten_seconds(), Limited(path, slot=2.0)
    async with world.session(journal=journal, limits=Limits(connections=connections)) as veo:
        await asyncio.gather(*veo.submit_many(whales(4)))
    assert ["submits wait: the account's limits"] == caplog.messages
    assert "INFO" == caplog.records[0].levelname


@pytest.mark.parametrize("moment", ["began", "held"])
@in_virtual_time
async def test_a_session_can_be_left_while_a_job_is_held_back(path: Path, moment: str) -> None:
    """It waits for an answer of the journal at most, which then holds an intention that was never sent."""
    world, journal = ten_seconds(), Limited(path, places=0)
    async with world.session(journal=journal) as veo:
        job = veo.submit(whale(), key="k")
        await getattr(journal, moment).wait()
        left_at = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() <= left_at + 0.01
    assert isinstance(job.exception(), SessionClosed)
    assert journal.failure is None
    async with world.session(journal=Journal(path, inline=True)) as veo:
        (resumed,) = await veo.resume()
        assert JobState.SUCCEEDED is await ended(resumed)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_job_that_is_abandoned_while_it_asks_leaves_nothing(path: Path) -> None:
    """Its key is free, and the next job goes."""
    world, journal = ten_seconds(), Limited(path, places=0)
    async with world.session(journal=journal) as veo:
        job = veo.submit(whale(), key="k")
        await journal.began.wait()
        job.abandon()
        await journal.held.wait()
        journal.places = 1
        await veo.submit(whale(1)).accepted()
        assert isinstance(job.exception(), JobAbandoned)
        assert await journal.find("k") is None
    assert 1 == world.core.accepted


@in_virtual_time
async def test_a_job_that_waits_too_long_is_told_why(path: Path) -> None:
    """Waiting for the account counts as waiting at the gate."""
    world, journal = ten_seconds(), Limited(path, places=0)
    async with world.session(journal=journal, limits=Limits(max_queue_wait=5.0)) as veo:
        with pytest.raises(SubmitTimedOut, match="the account's limits"):
            await veo.submit(whale())
    assert 0 == world.core.accepted

"""
Callbacks in virtual time: crashes, lost answers, floods, and hours of callbacks that get lost.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

import pytest

from tests.virtual import World, run
from tests.virtual.chaos import SUBMIT_FAULTS, MortalJournal, MortalTransport
from tests.virtual.postman import attached, delivering
from tests.virtual.scripted import in_virtual_time
from veo_async import (
    Job,
    JobState,
    Journal,
    Limits,
    PollPolicy,
    SubmissionUnknown,
    TextToVideo,
    VeoSession,
)
from veo_async._policies import at_once
from veo_async._session.session import call_back_at, called_back
from veo_async.receiver import CallbackReceiver
from veo_async.simulator import TOKEN, Faults, Settings

SECRET = "a-secret-that-outlives-a-process"


def stranger(number: int) -> dict[str, Any]:
    """
    The same wish of somebody else under the same token, with a receiver or without.
    """
    body: dict[str, Any] = {"action": "text2video", "model": "veo31-fast", "prompt": "a whale", "async": True}
    return body | ({"callback_url": f"http://127.0.0.1:2/{number}"} if number % 2 else {})


def echoing(**fields: Any) -> World:
    """
    A server whose records repeat what was submitted, `without` some fields.
    """
    return World(Settings(echo_omits=fields["without"]))


# --- after a crash ---------------------------------------------------------------------------------------


async def be_killed(world: World, path: Path) -> None:
    """
    Submit with a receiver, and be killed after the server has accepted and before its answer is there.
    """
    journal = MortalJournal(path, inline=True)
    session = world.session(journal=journal)
    transport = session._transport = MortalTransport(world.core, TOKEN, latency=0.05)

    async def live() -> None:
        async with session as veo, attached(veo, secret=SECRET):
            await veo.submit(TextToVideo("a whale"), key="k")

    promised = asyncio.Event()
    world.core.listeners.append(promised.set)
    life = asyncio.create_task(live())
    await promised.wait()  # a callback is owed: the server has accepted
    journal.dead = transport.dead = True
    life.cancel()
    await asyncio.gather(life, return_exceptions=True)


@asynccontextmanager
async def successor(world: World, path: Path, kind: str) -> AsyncIterator[VeoSession]:
    """
    The next process, with one receiver or another.
    """
    receivers: list[CallbackReceiver] = []
    async with AsyncExitStack() as stack:
        veo = await stack.enter_async_context(world.session(journal=Journal(path, inline=True)))
        if kind != "no receiver":
            secret = SECRET if kind == "the same secret" else None
            receivers.append(await stack.enter_async_context(attached(veo, secret=secret)))
        await stack.enter_async_context(delivering(world.core, receivers))
        yield veo


SUCCESSORS = ["no receiver", "another secret", "the same secret"]


@pytest.mark.parametrize("omitted", [(), ("prompt",)])
@pytest.mark.parametrize("kind", SUCCESSORS)
def test_a_mark_in_the_journal_finds_the_task_after_a_kill(
    kind: str, omitted: tuple[str, ...], tmp_path: Path
) -> None:
    """
    Killed between the POST and its answer, beside strangers with the same prompt: the next process adopts the task
    that echoes its mark, and buys nothing, whatever receiver it has.
    """

    @in_virtual_time
    async def play() -> None:
        world = echoing(without=omitted)
        for number in range(3):
            world.core.post("/veo/videos", stranger(number))
        await be_killed(world, tmp_path / "jobs.db")
        for number in range(3, 5):
            world.core.post("/veo/videos", stranger(number))
        async with successor(world, tmp_path / "jobs.db", kind) as veo:
            [job] = await veo.resume()
            task_id = (await job).task_id
        assert 6 == world.core.accepted
        assert SECRET in world.core.tasks[task_id].body["callback_url"]

    play()


@pytest.mark.parametrize("kind", SUCCESSORS)
def test_a_mark_that_is_not_echoed_leaves_a_doubt(kind: str, tmp_path: Path) -> None:
    """Where records leave the URL out, a stranger's task looks like ours: nothing is adopted, nothing is bought."""

    @in_virtual_time
    async def play() -> None:
        world = echoing(without=["callback_url"])
        world.core.post("/veo/videos", stranger(0))
        await be_killed(world, tmp_path / "jobs.db")
        async with successor(world, tmp_path / "jobs.db", kind) as veo:
            [job] = await veo.resume()
            with pytest.raises(SubmissionUnknown) as caught:
                await job
        assert set(world.core.tasks) == set(caught.value.candidates)
        assert 2 == world.core.accepted

    play()


# --- lost answers ----------------------------------------------------------------------------------------


@asynccontextmanager
async def called(
    settings: Settings | None = None, faults: Faults | None = None, **options: Any
) -> AsyncIterator[tuple[World, VeoSession, CallbackReceiver]]:
    """
    A session with a receiver that hears what the server has to say.
    """
    world = World(settings or Settings(), faults=faults)
    receivers: list[CallbackReceiver] = []
    async with world.session(**options) as veo, attached(veo) as receiver:
        receivers.append(receiver)
        async with delivering(world.core, receivers):
            yield world, veo, receiver


@pytest.mark.parametrize("listing", ["on", "refused", "empty"])
@in_virtual_time
async def test_a_callback_settles_what_became_of_a_lost_answer(listing: Any) -> None:
    """The mark names the attempt, also where the account's listing is of no use at all."""
    faults = Faults().add("drop_after", on="submit")
    async with called(Settings(listing=listing, mean=20.0, sigma=0.0), faults) as (world, veo, _):
        jobs = veo.submit_many([TextToVideo("a whale")] * 5)
        results = await asyncio.gather(*jobs)
        assert 5 == world.core.accepted == len({result.task_id for result in results})


@in_virtual_time
async def test_a_forged_callback_with_the_right_mark_gets_nobody_elses_task() -> None:
    """
    Whoever has seen a whole callback URL, and names a stranger's task that is just like ours, is not believed:
    the job waits for its own.
    """
    faults = Faults().add("drop_after", on="submit")
    async with called(Settings(listing="refused"), faults) as (world, veo, _):
        world.core.faults = None
        other = json.loads(world.core.post("/veo/videos", stranger(1)).body)["task_id"]
        world.core.finish(other)
        world.core.faults = faults
        job = veo.submit(TextToVideo("a whale"))
        async for update in job.updates():
            if update.state is JobState.UNKNOWN:
                break
        [own] = world.core.tasks.keys() - {other}
        path = world.core.tasks[own].body["callback_url"].rpartition("/")[2]
        for task_id in (other, "no-such-task", other):
            called_back(veo, {"task_id": task_id, "success": True}, window=0.0, path=path)
            await asyncio.sleep(1.0)
        assert JobState.UNKNOWN is job.state
        called_back(veo, {"task_id": own}, window=0.0, path=path)
        assert own == (await job).task_id


@in_virtual_time
async def test_a_callback_that_cannot_be_looked_up_now_is_no_loss() -> None:
    """Where the API does not answer the question, the hint is dropped, and the listing finds the task later."""
    faults = Faults().add("drop_after", on="submit").add("status_before", on="retrieve", status=400, times=1)
    async with called(Settings(mean=20.0, sigma=0.0, late=30.0), faults) as (world, veo, _):
        result = await veo.submit(TextToVideo("a whale"))
        assert [result.task_id] == list(world.core.tasks)


@in_virtual_time
async def test_a_key_whose_outcome_is_unknown_remembers_its_attempt() -> None:
    """
    A submit that could not be reconciled is taken up again under its key, without a journal too: once the listing
    works, its task is adopted, and not bought again.
    """
    faults = Faults().add("drop_after", on="submit").add("lost", on="callback")
    async with called(Settings(listing="refused"), faults) as (world, veo, _):
        request = TextToVideo("a whale")
        with pytest.raises(SubmissionUnknown):
            await veo.submit(request, key="k")
        world.core.settings = world.core._lookups.settings = Settings()
        [task_id] = world.core.tasks
        assert task_id == (await veo.submit(request, key="k")).task_id
        assert 1 == world.core.accepted


# --- many, and some of them wrong ------------------------------------------------------------------------

CALLBACK_FAULTS = ("lost", "duplicated", "early", "delayed", "forged")


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_whatever_happens_to_callbacks_each_key_gets_its_one_video(first: int) -> None:
    """Seeded faults of submits and callbacks together: every job has its own task's video, and none is bought twice."""

    async def play(seed: int) -> None:
        rng = random.Random(seed)
        faults = Faults(seed=seed)
        for kind, details in rng.sample(SUBMIT_FAULTS, 3):
            faults.add(kind, on="submit", share=rng.uniform(0.05, 0.3), **details)
        for kind in rng.sample(CALLBACK_FAULTS, 3):
            faults.add(kind, on="callback", share=rng.uniform(0.1, 0.5), seconds=rng.uniform(0.0, 30.0))
        prompts = Counter(f"prompt {rng.randrange(15)}" for _ in range(30))
        async with called(Settings(seed=seed), faults) as (world, veo, _):
            jobs = veo.submit_many([TextToVideo(prompt) for prompt in prompts.elements()])
            async for _ in veo.as_completed(jobs):
                pass
        assert {JobState.SUCCEEDED} == {job.state for job in jobs}
        assert prompts == Counter(task.body["prompt"] for task in world.core.tasks.values())
        wanted = Counter((world.core.tasks[job.result().task_id].body["prompt"]) for job in jobs)
        assert prompts == wanted
        assert 30 == len({job.result().task_id for job in jobs})

    for seed in range(first, first + 10):
        run(play(seed))


@in_virtual_time
async def test_a_flood_does_not_exceed_the_budget_of_polls() -> None:
    """
    Ten thousand forged callbacks a second, about every pending task and as many strangers: the session asks no more
    often than its budget allows, and every job still ends.
    """
    policy, seconds, jobs = PollPolicy(budget=4.0), 5, 500
    async with called(Settings(mean=300.0), polling=policy) as (world, veo, _):
        pending = veo.submit_many([TextToVideo(f"whale {number}") for number in range(jobs)])
        ids = await asyncio.gather(*(job.accepted() for job in pending))
        before = sum(world.core.requests.values())
        forged = [{"task_id": task_id, "data": []} for task_id in (*ids, *map(str, range(jobs)))]
        for _ in range(seconds * 10):
            for payload in forged:
                called_back(veo, payload, window=0.0, path="made up")
            await asyncio.sleep(0.1)
        asked = sum(world.core.requests.values()) - before
        assert asked <= policy.budget * seconds + at_once(policy)
        assert jobs == veo.stats.jobs[JobState.PENDING]
        await asyncio.gather(*pending)


# --- polling as the safety net ---------------------------------------------------------------------------


def lags(jobs: int, seed: int, *, lost: float | None) -> tuple[list[float], float]:
    """
    Return how late each result was, in seconds, and the requests per job; with `lost` None by polling alone.
    """

    async def play() -> tuple[list[float], float]:
        found: list[float] = []

        async def wait(job: Job) -> None:
            result = await job
            found.append(world.core.clock() - float(result.raw["finished_at"]))

        faults = Faults(seed=seed).add("lost", on="callback", share=lost or 0.0)
        async with called(Settings(seed=seed), faults, limits=Limits(submits_per_second=20.0)) as (
            world,
            veo,
            _,
        ):
            if lost is None:
                call_back_at(veo, None)
            requests = [TextToVideo(f"whale {number}") for number in range(jobs)]
            await asyncio.gather(*map(wait, veo.submit_many(requests)))
            return found, sum(veo.stats.requests.values()) / jobs

    return run(play())


@pytest.mark.parametrize("jobs", [5, 50, 300])
def test_with_half_of_the_callbacks_lost_nothing_is_later_than_by_polling(jobs: int) -> None:
    """
    Every job settles; on the average, late, and at the very worst, no later than by polling alone.

    What is worst is chance in one crowd, so there are several.
    """
    alone, lossy = (
        [lag for seed in range(max(3, 150 // jobs)) for lag in lags(jobs, seed, lost=lost)[0]]
        for lost in (None, 0.5)
    )
    assert len(alone) == len(lossy)
    assert fmean(lossy) <= fmean(alone)
    assert max(lossy) <= max(alone)
    for early, late in zip(quantiles(lossy, n=20), quantiles(alone, n=20), strict=True):
        assert early <= late


def test_with_callbacks_a_result_is_there_at_once() -> None:
    """The window and two requests' time are all that lies between the end and the result."""
    found, _ = lags(200, 1, lost=0.0)
    assert max(found) <= 0.1


def test_without_any_callback_polling_is_what_it_was() -> None:
    """If all of them are lost, not a request is saved, and nothing is later."""
    assert lags(100, 1, lost=None) == lags(100, 1, lost=1.0)

"""
Several sessions on one account, each without the others' journal, and one prompt for all.

The server's own count is the judge: as many distinct videos are delivered as were bought, and none twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path

import pytest

from tests.virtual import World, run
from tests.virtual.scripted import answer, in_virtual_time, scripted, whales
from veo_async import (
    AuthenticationError,
    Job,
    JobFailed,
    JobState,
    Journal,
    KeyConflict,
    Limits,
    RetryPolicy,
    TaskNotFound,
    TextToVideo,
)
from veo_async._api.marks import mark_of
from veo_async.errors import ProtocolError
from veo_async.simulator import Faults, Settings, Simulator

JOBS = 30
ONE_PROMPT = [TextToVideo("a whale")] * JOBS
PROGRAM = """
import asyncio, sys
from veo_async import PollPolicy, RetryPolicy, TextToVideo, VeoSession

async def main(url, name):
    retry = RetryPolicy(first=0.02, max_delay=0.2, grace=1.0)
    async with VeoSession("simulator-token", base_url=url, polling=PollPolicy().scaled(1 / 100), retry=retry) as veo:
        jobs = veo.submit_many((f"{name} {n}", TextToVideo("a whale")) for n in range(30))
        async for job in veo.as_completed(jobs):
            print(job.key, job.result().task_id, sep="\\t")

asyncio.run(main(*sys.argv[1:]))
"""


SLOWLY = Limits(submits_per_second=2.0)


def half_lost() -> Faults:
    return Faults(seed=1).add("drop_after", on="submit", share=0.5)


def owners(world: World, jobs: list[Job]) -> list[bool]:
    """
    Tell of each job whether its task carries its mark.
    """
    urls = [world.core.tasks[job.result().task_id].body["callback_url"] for job in jobs]
    return [mark_of(job.key) in url for job, url in zip(jobs, urls, strict=True)]


@pytest.mark.parametrize("placeholder", [None, "https://example.com/hook?a=b"])
@in_virtual_time
async def test_two_sessions_with_one_prompt_share_nothing(placeholder: str | None) -> None:
    """
    Half of the answers are lost, and every job gets its own video, whatever placeholder carries the marks.
    """
    world = World(faults=half_lost())
    options = {"placeholder": placeholder} if placeholder else {}
    async with world.session(**options) as one, world.session() as other:
        jobs = one.submit_many(ONE_PROMPT) + other.submit_many(ONE_PROMPT)
        results = [await job for job in jobs]
    assert [True] * 2 * JOBS == owners(world, jobs)
    assert (2 * JOBS, 2 * JOBS) == (world.core.accepted, len({result.task_id for result in results}))


async def test_two_processes_with_one_prompt_share_nothing() -> None:
    """
    The same over sockets: each line that a process prints names a task with its own key's mark.
    """
    async with Simulator(Settings(speed=100), faults=half_lost()) as sim:
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", PROGRAM, sim.url, name),
                cwd=Path(__file__).parent.parent.parent,
                stdout=asyncio.subprocess.PIPE,
            )
            for name in ("one", "other")
        ]
        said = [(await process.communicate())[0].decode() for process in processes]
    delivered = dict(line.split("\t") for text in said for line in text.splitlines())
    assert (2 * JOBS, 2 * JOBS) == (sim.core.accepted, len(set(delivered.values())))
    for key, task_id in delivered.items():
        assert mark_of(key) in sim.core.tasks[task_id].body["callback_url"]


# --- keys across processes -------------------------------------------------------------------------------


@in_virtual_time
async def test_a_fresh_session_that_looks_first_buys_only_what_is_missing() -> None:
    """
    A thousand keys, of which another session has bought 900: 100 are bought, and all are delivered.
    """
    world = World(Settings(mean=20.0))
    items = [(f"key {n}", TextToVideo("a whale")) for n in range(1000)]
    async with world.session(limits=SLOWLY) as veo:
        bought = veo.submit_many(items[:900])
        [await job.accepted() for job in bought]
    await asyncio.sleep(7200.0)
    listed = world.core.requests["list"]
    async with world.session() as veo:
        jobs = veo.submit_many(items, look_first=True)
        results = [await job for job in jobs]
        await asyncio.sleep(0)
    assert (1000, 1000) == (world.core.accepted, len({result.task_id for result in results}))
    assert [job.task_id for job in bought] == [result.task_id for result in results[:900]]
    # Eighteen pages of 50 show what was bought, and one that follows them that there are no more; what comes new
    # is asked for four times within the grace.
    assert 18 + 1 + 2 * 5 >= world.core.requests["list"] - listed


@in_virtual_time
async def test_what_a_refusal_has_bought_is_delivered() -> None:
    """
    A server that refuses what it has accepted: its task is found by the mark, and delivered all the same.
    """
    world = World(
        Settings(mean=20.0), faults=Faults().add("status_after", on="submit", status=400, first=True)
    )
    async with world.session() as veo:
        result = await veo.submit(TextToVideo("a whale"), key="whale")
        [(key, record)] = (await veo.find(["whale"])).items()
    assert ("whale", record.id) == (key, result.task_id)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_what_a_refusal_has_bought_is_found_by_its_key() -> None:
    """
    A refusal that is believed, for the token has never been good yet: the task is found by the key, and taken up by it.
    """
    world = World(
        Settings(mean=20.0), faults=Faults().add("status_after", on="submit", status=401, first=True)
    )
    async with world.session() as veo:
        with pytest.raises(AuthenticationError):
            await veo.submit(TextToVideo("a whale"), key="whale")
        [(key, record)] = (await veo.find(["whale"])).items()
        result = await veo.submit(TextToVideo("a whale"), key="whale", look_first=True)
    assert ("whale", record.id) == (key, result.task_id)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_looking_first_where_nothing_was_ever_bought_sends_one_job_first() -> None:
    """
    A listing without any mark proves nothing: one job goes alone, and the others once its record shows its mark.
    """
    world = World(Settings(mean=20.0))
    async with world.session() as veo:
        jobs = veo.submit_many([(f"key {n}", TextToVideo("a whale")) for n in range(5)], look_first=True)
        first, _ = await asyncio.wait(
            [asyncio.ensure_future(job.accepted()) for job in jobs], return_when="FIRST_COMPLETED"
        )
        assert (1, 1) == (len(first), world.core.accepted)
        [await job for job in jobs]
    assert 5 == world.core.accepted


@in_virtual_time
async def test_looking_first_goes_on_after_attempts_that_bought_nothing(tmp_path: Path) -> None:
    """
    The journal knows an attempt that was not taken up; the look is one more, and the task of another is found.
    """
    world = World(Settings(mean=20.0), faults=Faults().add("status_before", on="submit", status=429))
    path = tmp_path / "batch.db"
    async with world.session(journal=Journal(path, inline=True), retry=RetryPolicy(first=30.0)) as veo:
        veo.submit(TextToVideo("a whale"), key="k")
        await asyncio.sleep(1.0)
    world.core.faults = None
    async with world.session() as veo:
        task_id = await veo.submit(TextToVideo("a whale"), key="k").accepted()
    async with world.session(journal=Journal(path, inline=True)) as veo:
        assert task_id == (await veo.submit(TextToVideo("a whale"), key="k", look_first=True)).task_id
    assert 1 == world.core.accepted


@in_virtual_time
async def test_attaching_by_key_leaves_the_journal_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """
    A key that the journal does not know is another's purchase: nothing is written down, and nothing is complained of.
    """
    world = World(Settings(mean=20.0))
    async with world.session() as veo:
        task_id = await veo.submit(TextToVideo("a whale"), key="k").accepted()
    async with world.session(journal=Journal(tmp_path / "batch.db", inline=True)) as veo:
        assert task_id == (await veo.attach(key="k")).task_id
        assert [] == await veo.resume()
    assert [] == [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@in_virtual_time
async def test_looking_first_survives_a_crash(tmp_path: Path) -> None:
    """
    What was only looked for when the process ended is looked for again by `resume`, and not simply sent.
    """
    world = World(Settings(mean=20.0))
    async with world.session() as veo:
        task_id = await veo.submit(TextToVideo("a whale"), key="k").accepted()
    journal = Journal(tmp_path / "batch.db", inline=True)
    async with world.session(journal=journal) as veo:
        veo.submit(TextToVideo("a whale"), key="k", look_first=True)
        await asyncio.sleep(0)
    async with world.session(journal=Journal(tmp_path / "batch.db", inline=True)) as veo:
        [job] = await veo.resume()
        assert task_id == (await job).task_id
    assert 1 == world.core.accepted


@pytest.mark.parametrize(("failed", "bought"), [(False, 1), (True, 2)])
@in_virtual_time
async def test_retry_failed_buys_again_what_another_session_saw_fail(*, failed: bool, bought: int) -> None:
    """
    A failed task of that key does not count where a failure is to be bought again; one that succeeded does.
    """
    world = World(Settings(failure_share=float(failed), mean=20.0))
    async with world.session() as veo:
        await veo.submit(TextToVideo("a whale"), key="k").accepted()
        await asyncio.sleep(600.0)
    world.core.settings = Settings(mean=20.0)
    async with world.session() as veo:
        job = veo.submit(TextToVideo("a whale"), key="k", look_first=True, retry_failed=True)
        await job
    assert bought == world.core.accepted


@in_virtual_time
async def test_retry_failed_buys_again_what_was_found_before_it_failed() -> None:
    """
    What another session bought is found while it runs, and fails: the same session buys its key again.
    """
    world = World(Settings(failure_share=1.0, mean=20.0))
    async with world.session() as buyer, world.session() as veo:
        task_id = await buyer.submit(TextToVideo("a whale"), key="k").accepted()
        with pytest.raises(JobFailed) as caught:
            await veo.submit(TextToVideo("a whale"), key="k", look_first=True)
        assert task_id == caught.value.task_id
        world.core.settings = Settings(mean=20.0)
        await veo.submit(TextToVideo("a whale"), key="k", look_first=True, retry_failed=True)
    assert 2 == world.core.accepted


@in_virtual_time
async def test_the_one_that_goes_first_may_be_abandoned() -> None:
    """
    No record has shown a mark yet, and the job that goes first is given up before it is sent: another goes first.
    """
    world = World(Settings(mean=20.0))
    async with world.session(limits=Limits(submits_per_second=0.01)) as veo:
        await veo.submit(TextToVideo("unmarked", callback_url="https://example.com/#own")).accepted()
        jobs = veo.submit_many([(f"key {n}", TextToVideo("a whale")) for n in range(3)], look_first=True)
        await asyncio.sleep(80.0)
        [first] = [job for job in jobs if job.state is JobState.QUEUED]
        first.abandon()
        [await job for job in jobs if job is not first]
    assert 3 == world.core.accepted


@in_virtual_time
async def test_looking_first_is_no_waiting_at_the_gate() -> None:
    """
    The grace is longer than a job may wait for its turn: what is not there is bought all the same.
    """
    world = World(Settings(mean=20.0))
    async with world.session(limits=Limits(max_queue_wait=10.0)) as veo:
        await veo.submit(TextToVideo("a whale"), key="k", look_first=True)
    assert 1 == world.core.accepted


@in_virtual_time
async def test_attaching_by_key_waits_for_the_task_of_another_session() -> None:
    """
    The task is found by its mark; a key that nobody has bought ends with `TaskNotFound`.
    """
    world = World()
    async with world.session() as buyer, world.session() as veo:
        bought = buyer.submit(TextToVideo("a whale"), key="k")
        task_id = await bought.accepted()
        job, none = veo.attach(key="k"), veo.attach(key="nobody's")
        assert task_id == (await job).task_id
        with pytest.raises(TaskNotFound):
            await none
    assert 1 == world.core.accepted


@in_virtual_time
async def test_find_tells_which_keys_have_tasks() -> None:
    """
    Keys without a task are absent; of several tasks of one key, one that has not failed counts.
    """
    world = World()
    async with world.session() as buyer:
        failed = await buyer.submit(TextToVideo("a whale"), key="twice").accepted()
        world.core.fail(failed)
        jobs = buyer.submit_many([("one", whales(1)[0])])
        task_id = await jobs[0].accepted()
        async with world.session() as veo:  # which knows nothing of the failure
            again = await veo.submit(TextToVideo("a whale"), key="twice").accepted()
            found = await veo.find(["one", "twice", "none"])
    assert {"one": task_id, "twice": again} == {key: record.id for key, record in found.items()}


@in_virtual_time
async def test_find_does_not_take_half_a_listing_for_the_whole() -> None:
    """
    A server that shows the same page again and again: keys that are on it are found, others are in doubt.
    """
    world = World(Settings(mean=20.0))
    async with world.session() as buyer:
        keys = {await job.accepted(): job.key for job in buyer.submit_many(whales(60))}
    page = world.core.post("/veo/tasks", {"action": "retrieve_batch", "offset": 0, "limit": 50}).body
    shown = [keys[record["id"]] for record in json.loads(page)["items"]]
    session, transport = scripted(world)
    async with session as veo:
        transport.asks += [answer(200, bytes(page))] * 4
        assert set(shown) == set(await veo.find(shown))
        with pytest.raises(ProtocolError):
            await veo.find(keys.values())


@in_virtual_time
async def test_a_key_that_was_attached_may_be_submitted_later(tmp_path: Path) -> None:
    """
    While a handle waits for the key, the conflict says so; once it has ended, the key is free.
    """
    world = World(Settings(mean=20.0))
    async with world.session(journal=Journal(tmp_path / "batch.db", inline=True)) as veo:
        await veo.submit(whales(1)[0])
        before = [*veo._entered()._tasks]
        handle = veo.attach(key="k")
        await asyncio.sleep(1.0)
        with pytest.raises(KeyConflict, match="attached"):
            veo.submit(whales(1)[0], key="k")
        with pytest.raises(TaskNotFound):
            await handle
        await veo.submit(whales(1)[0], key="k")
        assert before == veo._entered()._tasks  # nothing is left of the handle
    assert 2 == world.core.accepted


def test_looking_far_back_reads_each_page_once() -> None:
    """
    Two hundred keys whose tasks lie hours back among 1,000 others: 24 pages, and a few for what comes new.
    """

    async def play() -> int:
        world = World(Settings(duration=lambda body: 1.0))
        async with world.session(limits=SLOWLY) as veo:
            for batch in range(6):
                jobs = veo.submit_many([(f"{batch} {n}", TextToVideo("a whale")) for n in range(200)])
                [await job for job in jobs]
            await asyncio.sleep(7200.0)
        before = world.core.requests["list"]
        async with world.session() as veo:
            jobs = veo.submit_many(
                [(f"0 {n}", TextToVideo("a whale")) for n in range(100, 300)], look_first=True
            )
            [await job.accepted() for job in jobs]
        assert 1300 == world.core.accepted
        return world.core.requests["list"] - before

    assert 1200 // 50 + 12 >= run(play())

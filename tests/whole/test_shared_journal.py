"""
Sessions that share a journal in PostgreSQL: each key is bought once, whoever asks for it, and whoever dies.

The server's own count of accepted tasks is the judge; processes are killed with -9.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from uuid import uuid4

import pytest
from attrs import define, field

from tests.postgres.server import Postgres, Server, do
from veo_async import (
    AccountLimits,
    Job,
    KeyConflict,
    PollPolicy,
    PostgresJournal,
    RetryPolicy,
    TextToVideo,
    VeoSession,
)
from veo_async._api.marks import mark_of
from veo_async.simulator import TOKEN, Faults, Settings, Simulator
from veo_async.simulator._records import Task

SPEED = 100
LEASE = 1.0
ROOT = Path(__file__).parent.parent.parent
RETRY = RetryPolicy(first=0.02, max_delay=0.2, grace=1.0, drain=0.5)
POLLING = PollPolicy().scaled(1 / SPEED)
PROGRAM = f"""
import asyncio, sys
from veo_async import PollPolicy, PostgresJournal, RetryPolicy, TextToVideo, VeoSession

async def main(url, dsn, schema, count):
    session = VeoSession(
        {TOKEN!r},
        base_url=url,
        journal=PostgresJournal(dsn, schema=schema, lease={LEASE}),
        polling=PollPolicy().scaled(1 / {SPEED}),
        retry=RetryPolicy(first=0.02, max_delay=0.2, grace=1.0, drain=0.5),
    )
    async with session as veo:
        jobs = veo.submit_many((f"key {{n}}", TextToVideo(f"prompt {{n // 2}}")) for n in range(int(count)))
        async for job in veo.as_completed(jobs):
            print(job.key, job.result().task_id, sep="\\t", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def own_schema(postgres: Postgres) -> Iterator[str]:
    """
    A schema of the test's own: the simulator has one account.
    """
    name = f"veo_{uuid4().hex[:12]}"
    asyncio.run(PostgresJournal(postgres.dsn, schema=name).install())
    yield name
    do(postgres.dsn, f"DROP SCHEMA {name} CASCADE")


@define
class Shared:
    """
    A server, and a journal that sessions in any process share.
    """

    simulator: Simulator
    dsn: str
    schema: str
    children: list[asyncio.subprocess.Process] = field(factory=list)

    def session(self) -> VeoSession:
        journal = PostgresJournal(self.dsn, schema=self.schema, lease=LEASE)
        return VeoSession(TOKEN, base_url=self.simulator.url, journal=journal, polling=POLLING, retry=RETRY)

    async def limit(self, limits: AccountLimits) -> None:
        """
        Set the limits of the account.
        """
        journal = PostgresJournal(self.dsn, schema=self.schema)
        await journal.open(TOKEN)
        await journal.set_limits(limits)
        await journal.close()

    async def child(self, count: int) -> asyncio.subprocess.Process:
        """
        Start a process that asks for so many keys, and prints each with its task.
        """
        command = (sys.executable, "-c", PROGRAM, self.simulator.url, self.dsn, self.schema, str(count))
        child = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
        self.children.append(child)
        return child

    def check(self, delivered: dict[str, str]) -> None:
        """
        Each key has a task of its own, and no other was bought.
        """
        assert len(delivered) == self.simulator.core.accepted == len(set(delivered.values()))
        for key, task_id in delivered.items():
            assert mark_of(key) in self.simulator.core.tasks[task_id].body["callback_url"]


@asynccontextmanager
async def sharing(postgres: Postgres, schema: str, faults: Faults | None = None) -> AsyncIterator[Shared]:
    async with Simulator(Settings(speed=SPEED), faults=faults) as simulator:
        shared = Shared(simulator, postgres.dsn, schema)
        try:
            yield shared
        finally:
            for child in shared.children:
                if child.returncode is None:
                    child.kill()
                await child.wait()


def requests(count: int, prefix: str = "") -> list[tuple[str, TextToVideo]]:
    return [(f"{prefix}key {number}", TextToVideo(f"prompt {number // 2}")) for number in range(count)]


def tasks(jobs: list[Job]) -> dict[str, str]:
    return {job.key: job.result().task_id for job in jobs}


def said(text: bytes) -> dict[str, str]:
    return dict(line.split("\t") for line in text.decode().splitlines() if line.count("\t") == 1)


async def test_two_sessions_with_the_same_keys_buy_each_once(postgres: Postgres, own_schema: str) -> None:
    """
    One of the two submits a key, the other one waits for it, and both deliver; a third one later knows it at once.
    """
    async with sharing(postgres, own_schema) as shared:
        async with shared.session() as one, shared.session() as other:
            first, second = one.submit_many(requests(30)), other.submit_many(requests(30))
            await asyncio.gather(*first, *second)
        async with shared.session() as late:
            with pytest.raises(KeyConflict):
                await late.submit(TextToVideo("another"), key="key 1")
            third = late.submit_many(requests(30))
            await asyncio.gather(*third)
        assert tasks(first) == tasks(second) == tasks(third)
        shared.check(tasks(first))


async def test_what_a_session_leaves_another_goes_on_with(postgres: Postgres, own_schema: str) -> None:
    """
    A session that is left hands its keys back at once, and whoever waits for them, or resumes, takes them up.
    """
    async with sharing(postgres, own_schema) as shared, shared.session() as waiting:
        async with shared.session() as leaving:
            left = leaving.submit_many(requests(10))
            await asyncio.gather(*(job.accepted() for job in left))
            jobs = waiting.submit_many(requests(5))
        async with shared.session() as resuming:
            resumed = await resuming.resume()
            await asyncio.gather(*jobs, *resumed)
        shared.check({**tasks(jobs), **tasks(resumed)})


async def test_who_stops_waiting_for_anothers_key_harms_nobody(postgres: Postgres, own_schema: str) -> None:
    """
    A job that waits for another session is abandoned: its own session goes on, and so does the other one.
    """
    async with sharing(postgres, own_schema) as shared, shared.session() as one, shared.session() as other:
        [bought] = one.submit_many(requests(1))
        await bought.accepted()
        [waiting, barrier] = other.submit_many([requests(1)[0], ("own", TextToVideo("an owl"))])
        await barrier.accepted()  # so the other key has been taken in, too
        waiting.abandon()
        later = other.submit(TextToVideo("a later owl"), key="later")
        jobs = [bought, barrier, later]
        await asyncio.gather(*jobs)
        shared.check(tasks(jobs))


async def test_processes_that_are_killed_lose_nothing(postgres: Postgres, own_schema: str) -> None:
    """
    Two processes ask for the same keys while answers are lost, one after the other is killed with -9 and started
    again: each key is bought once, and the last ones deliver all.
    """
    count, rng = 40, Random(1)
    faults = Faults(seed=1).add("drop_after", on="submit", share=0.3).add("slow", on="submit", seconds=0.05)
    async with sharing(postgres, own_schema, faults) as shared:
        children = [await shared.child(count), await shared.child(count)]
        for _ in range(5):
            victim = rng.randrange(2)
            child = children[victim]
            assert child.stdout is not None
            for _ in range(rng.randrange(1, 4)):
                await child.stdout.readline()
            if child.returncode is None:
                child.kill()
            await child.wait()
            children[victim] = await shared.child(count)
        last = await shared.child(count)
        text, _ = await last.communicate()
        assert 0 == last.returncode
        shared.check(said(text))
        assert count == shared.simulator.core.accepted


LIMITS = [AccountLimits(submits_per_second=10.0, burst=2), AccountLimits(max_in_flight=4)]


@pytest.mark.parametrize("limits", LIMITS, ids=["rate", "in flight"])
async def test_the_limits_of_an_account_hold_for_all_its_sessions(
    postgres: Postgres, own_schema: str, limits: AccountLimits
) -> None:
    """
    Four sessions submit at once, answers are lost, one is killed with -9 and another takes over what it has left.
    """
    faults = Faults(seed=1).add("drop_after", on="submit", share=0.2)
    async with sharing(postgres, own_schema, faults) as shared, AsyncExitStack() as stack:
        shared.simulator.core.next_durations.extend([0.1] * 40)
        await shared.limit(limits)
        veos = [await stack.enter_async_context(shared.session()) for _ in range(3)]
        child = await shared.child(8)
        assert child.stdout is not None
        await child.stdout.readline()
        jobs = [job for n, veo in enumerate(veos) for job in veo.submit_many(requests(6, f"{n} "))]
        await child.stdout.readline()
        child.kill()
        await asyncio.gather(*jobs)
        left = veos[0].submit_many(requests(8))  # by now the lease is over, so nobody waits for that
        await asyncio.gather(*left)
        shared.check(tasks(jobs + left))
        check_limits([*shared.simulator.core.tasks.values()], limits)


def check_limits(bought: list[Task], limits: AccountLimits) -> None:
    """
    In ten slots there are at most ten submits and a burst, and at no submit too many tasks in flight.
    """
    if rate := limits.submits_per_second:
        times = [task.created_at for task in bought]
        windows = zip(times, times[10 + limits.burst :], strict=False)
        assert all(last - first >= 10 / rate for first, last in windows)
    for task in bought:
        in_flight = sum(one.created_at <= task.created_at < one.ends_at for one in bought)
        assert in_flight <= (limits.max_in_flight or len(bought))


async def test_an_outage_of_the_database_is_waited_for(own_schema: str, postgres: Postgres) -> None:
    """
    The server is restarted while jobs are under way: they go on, each bought once, and no session fails.
    """
    if not isinstance(postgres, Server):
        pytest.skip("a given server is left alone")
    async with sharing(postgres, own_schema) as shared, shared.session() as veo:
        jobs = veo.submit_many(requests(30))
        await jobs[0].accepted()
        await asyncio.to_thread(postgres.stop)
        await asyncio.to_thread(postgres.start)
        await asyncio.gather(*jobs)
        shared.check(tasks(jobs))

"""
`map`: read only as fast as jobs settle, abandoned by nobody, in constant memory.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Any
from weakref import WeakSet

import pytest

from tests.virtual import World, run
from tests.virtual.scripted import in_virtual_time, whale, whales
from veo_async import (
    Get1080p,
    InvalidRequest,
    Job,
    JobState,
    KeyConflict,
    TextToVideo,
    UsageError,
    VeoSession,
)
from veo_async._jobs.registry import Registry
from veo_async.simulator import Settings


def prompts(count: int, read: list[int] | None = None) -> Iterator[TextToVideo]:
    for number in range(count):
        if read is not None:
            read.append(number)
        yield TextToVideo(f"prompt {number}")


async def arriving(count: int) -> AsyncIterator[tuple[str, TextToVideo]]:
    for number in range(count):
        yield f"key {number}", TextToVideo(f"prompt {number}")


def prompt_of(job: Job) -> str:
    assert isinstance(job.request, TextToVideo)
    return job.request.prompt


@pytest.mark.parametrize("ordered", [False, True])
def test_every_request_becomes_a_settled_job(ordered: bool) -> None:
    """
    All jobs come out, once each and settled; in the order of the requests where that is asked for.
    """

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            jobs = [job async for job in veo.map(prompts(60), window=7, ordered=ordered)]
        assert [JobState.SUCCEEDED] * 60 == [job.state for job in jobs]
        said = [prompt_of(job) for job in jobs]
        expected = [f"prompt {number}" for number in range(60)]
        assert expected == (said if ordered else sorted(said, key=lambda prompt: int(prompt.split()[1])))
        assert 60 == world.core.accepted

    run(main())


def test_no_more_is_read_than_the_window_holds() -> None:
    """
    A slow consumer holds the reading up: never more than `window` requests are read and not yet handed on.
    """

    async def main() -> None:
        read: list[int] = []
        async with World().session() as veo:
            handed = 0
            async for _ in veo.map(prompts(50, read), window=5):
                assert len(read) - handed <= 6, "the window, and the one that is being read"
                handed += 1
        assert 50 == handed

    run(main())


def test_pairs_of_an_async_iterable_give_keys() -> None:
    """
    `(key, request)` pairs from an async iterable become keyed jobs.
    """

    async def main() -> None:
        async with World().session() as veo:
            keys = {job.key async for job in veo.map(arriving(20), window=4)}
        assert {f"key {number}" for number in range(20)} == keys

    run(main())


def test_leaving_the_loop_abandons_nothing() -> None:
    """
    After a `break` the reading has ended, and what was submitted still settles.
    """

    async def main() -> None:
        read: list[int] = []
        world = World()
        async with world.session() as veo:
            feed = veo.map(prompts(1000, read), window=10)
            async for _ in feed:
                break
            await feed.aclose()
            left = [*_registry(veo).unsettled.values()]
            assert left
            async for job in veo.as_completed(left):
                assert JobState.SUCCEEDED is job.state
        assert len(read) < 30

    run(main())


def test_an_iterable_that_raises_is_heard() -> None:
    """
    What the caller's own iterable raises comes out of the loop; the jobs before it are not lost.
    """

    def broken() -> Iterator[TextToVideo]:
        yield TextToVideo("good")
        yield TextToVideo(" ")

    async def main() -> None:
        world = World()
        async with world.session() as veo:
            with pytest.raises(InvalidRequest):
                async for _ in veo.map(broken()):
                    pass
            for job in [*_registry(veo).unsettled.values()]:
                await job
        assert 1 == world.core.accepted

    run(main())


def test_a_conflict_of_keys_is_heard() -> None:
    """
    A key that comes again with a different request ends the loop with the conflict.
    """

    async def main() -> None:
        pairs = [("a", TextToVideo("one")), ("a", TextToVideo("two"))]
        async with World().session() as veo:
            with pytest.raises(KeyConflict):
                async for _ in veo.map(pairs):
                    pass

    run(main())


def test_a_window_holds_something() -> None:
    """
    A window of zero would wait for ever, so it is refused.
    """

    async def main() -> None:
        async with World().session() as veo:
            with pytest.raises(InvalidRequest, match="window"):
                veo.map([], window=0)
            assert [] == [job async for job in veo.map([])]

    run(main())


def test_it_needs_an_entered_session() -> None:
    """
    Outside `async with` there is nothing that could submit.
    """
    with pytest.raises(UsageError):
        VeoSession("token").map([])


# --- endless, slow and failing ------------------------------------------------------------------------------


def _registry(veo: VeoSession) -> Registry:
    assert veo._engine is not None
    return veo._engine.registry


@in_virtual_time
async def test_endless_iterables_are_welcome() -> None:
    """
    An iterable without an end, plain or asynchronous, is read as far as wanted and no further.
    """

    async def endless() -> AsyncIterator[TextToVideo]:
        for number in count():
            yield whale(number)

    for requests in (map(whale, count()), endless()):
        world = World()
        async with world.session() as veo:
            seen = 0
            async for _ in veo.map(requests, window=20):
                seen += 1
                if seen == 100:
                    break
            gc.collect()
            await asyncio.sleep(1)
            submitted = world.core.requests["submit"]
            await asyncio.sleep(1000)
            assert submitted == world.core.requests["submit"]
            assert submitted <= 121


@in_virtual_time
async def test_memory_stays_constant() -> None:
    """
    However many requests come, only about a window's worth of jobs is alive at any time.
    """
    world = World()
    alive: WeakSet[Job] = WeakSet()
    most = 0
    async with world.session() as veo:
        async for job in veo.map(map(whale, range(400)), window=30):
            alive.add(job)
            alive.update(_registry(veo).unsettled.values())
            del job
            most = max(most, len(alive))
        assert veo._engine is not None
        assert 0 == len(_registry(veo).unsettled) + len(_registry(veo).by_task)
    assert most <= 30 + 75 + 2  # a window, and what the submitters hold until they are done with it
    assert 400 == world.core.accepted


@in_virtual_time
async def test_the_first_of_an_ordered_map_holds_the_others_up() -> None:
    """
    In order, a slow job at the head fills the window; afterwards the others come at once.
    """
    world = World()
    world.core.next_durations.extend([1000.0, *[10.0] * 4])
    async with world.session() as veo:
        prompts, times = [], []
        async for job in veo.map(whales(8), window=5, ordered=True):
            prompts.append(prompt_of(job))
            times.append(asyncio.get_running_loop().time())
    assert [f"whale {n}" for n in range(8)] == prompts
    assert times[0] >= 1000
    assert times[0] == times[4]


@in_virtual_time
async def test_a_slow_source_does_not_hold_up_what_is_settled() -> None:
    """
    While the iterable waits for its next request, settled jobs are handed on.
    """
    world = World(settings=Settings(duration=lambda body: 10.0))

    async def slow() -> AsyncIterator[TextToVideo]:
        yield whale(1)
        await asyncio.sleep(5000)
        yield whale(2)

    async with world.session() as veo:
        times = [asyncio.get_running_loop().time() async for _ in veo.map(slow())]
    assert times[0] < 100
    assert times[1] > 5000


@in_virtual_time
async def test_a_source_may_wait_for_what_it_asked_for() -> None:
    """
    A pipeline that asks for the next video only once it has seen the last one goes round.
    """
    seen: asyncio.Queue[Job] = asyncio.Queue()

    async def chain() -> AsyncIterator[Any]:
        yield whale(0)
        for _ in range(5):
            job = await seen.get()
            yield Get1080p(job.result().video)

    async with World().session() as veo:
        jobs = []
        async for job in veo.map(chain(), window=1):
            jobs.append(job)
            seen.put_nowait(job)
    assert [JobState.SUCCEEDED] * 6 == [job.state for job in jobs]


@in_virtual_time
async def test_what_was_settled_before_the_source_failed_is_handed_on_first() -> None:
    """
    An iterable that raises: what has settled comes out, then the exception; what was submitted goes on.
    """
    world = World(settings=Settings(duration=lambda body: 10.0))

    async def failing() -> AsyncIterator[TextToVideo]:
        for number in range(3):
            yield whale(number)
        await asyncio.sleep(100)
        yield whale(3)
        raise LookupError("no more whales")

    handed: list[Job] = []

    async def consume(veo: VeoSession) -> None:
        async for job in veo.map(failing()):
            handed.append(job)
            await asyncio.sleep(200)  # so that the failure comes while there is something to hand on

    async with world.session() as veo:
        with pytest.raises(LookupError, match="no more whales"):
            await consume(veo)
        assert len(handed) >= 3
        await asyncio.sleep(1000)
    assert 4 == world.core.billed


@in_virtual_time
async def test_leaving_closes_the_source() -> None:
    """
    A generator that is left early gets to run its `finally`, also while it waits.
    """
    closed = asyncio.Event()

    async def careful() -> AsyncIterator[TextToVideo]:
        try:
            yield whale(1)
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with World().session() as veo:
        async for _ in veo.map(careful()):
            break
        gc.collect()
        async with asyncio.timeout(10):
            await closed.wait()


@in_virtual_time
async def test_a_cancelled_consumer_stops_the_reading() -> None:
    """
    Cancelling who consumes ends the reading; what was submitted settles.
    """
    world = World()
    async with world.session() as veo:

        async def consume() -> None:
            async for _ in veo.map(map(whale, count()), window=10):
                pass

        consumer = asyncio.create_task(consume())
        await asyncio.sleep(500)
        consumer.cancel()
        await asyncio.gather(consumer, return_exceptions=True)
        await asyncio.sleep(1)
        submitted = world.core.requests["submit"]
        await asyncio.sleep(3000)
        assert submitted == world.core.requests["submit"] == world.core.billed


@in_virtual_time
async def test_two_maps_run_side_by_side() -> None:
    """
    Two maps of one session do not take each other's jobs.
    """
    async with World().session() as veo:

        async def consume(name: str) -> list[str]:
            requests = (TextToVideo(f"{name} {n}") for n in range(20))
            return [prompt_of(job) async for job in veo.map(requests, window=3, ordered=True)]

        one, two = await asyncio.gather(consume("one"), consume("two"))
    assert [f"one {n}" for n in range(20)] == one
    assert [f"two {n}" for n in range(20)] == two


@in_virtual_time
async def test_the_same_key_in_a_map_is_the_same_job() -> None:
    """
    Keys that come twice in a map, or were submitted before, buy nothing twice and still come out each time.
    """
    world = World()
    async with world.session() as veo:
        known = veo.submit(whale(0), key="0")
        pairs = [(str(n % 3), whale(n % 3)) for n in range(9)]
        jobs = [job async for job in veo.map(pairs, window=4)]
        assert 9 == len(jobs)
        assert known in jobs
        assert 3 == len(set(jobs))
    assert 3 == world.core.accepted


@in_virtual_time
async def test_failures_come_out_of_a_map_like_the_rest() -> None:
    """
    A failed or refused job is yielded, never raised.
    """
    world = World(settings=Settings(failure_share=1.0, balance=50))
    async with world.session() as veo:
        jobs = [job async for job in veo.map([*whales(10), Get1080p("no such video")])]
    assert {JobState.FAILED: 10, JobState.STOPPED: 1} == {
        state: sum(job.state is state for job in jobs) for state in {job.state for job in jobs}
    }

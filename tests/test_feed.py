"""
`map`: read only as fast as jobs settle, abandoned by nobody, in constant memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.virtual import World, run
from veo_async import InvalidRequest, Job, JobState, KeyConflict, TextToVideo, UsageError, VeoSession


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
            left = [*veo._registry.unsettled.values()]
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
            for job in [*veo._registry.unsettled.values()]:
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

"""
A part of the fault matrix over real sockets: cuts, resets, stalls and half-closes at chosen bytes, and the
simulator's own faults acted out on connections.

As in `test_fault_matrix`, the server's own count of accepted tasks is the judge.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from tests.proxy import Choice, Cut, Proxy, both, every, first_of_each, on_reused
from veo_async import JobState, Limits, PollPolicy, RetryPolicy, TextToVideo, VeoSession
from veo_async.simulator import Faults, Settings, Simulator

JOBS = 32
SPEED = 200.0  # times life, for the tasks' durations and the polling
# The grace is for the server, which does not run faster than life where it takes in a request.
RETRY = RetryPolicy(first=0.02, max_delay=0.2, max_pause=0.5, grace=1.0, drain=0.1)
POLLING = PollPolicy(deadline=None).scaled(1 / SPEED)
LIMITS = Limits(connect=5.0, read=0.4, max_reply=1 << 20)
SETTINGS = Settings(speed=SPEED, mean=50.0)


async def play(sim: Simulator, url: str) -> None:
    """
    Let a session buy a batch in which some prompts are alike, and hold it to the promise.
    """
    prompts = [f"prompt {number // 2 if number < 8 else number}" for number in range(JOBS)]
    session = VeoSession(sim.token, base_url=url, retry=RETRY, polling=POLLING, limits=LIMITS)
    settlings: Counter[str] = Counter()
    async with session as veo:
        jobs = veo.submit_many([TextToVideo(prompt) for prompt in prompts])
        for job in jobs:
            job.add_done_callback(lambda settled: settlings.update([settled.key]))
        async for _ in veo.as_completed(jobs):
            pass
    assert [] == [(job, job.exception()) for job in jobs if job.state is not JobState.SUCCEEDED]
    assert JOBS == sim.core.accepted
    assert {job.key: 1 for job in jobs} == settlings
    results = [job.result().task_id for job in jobs]
    assert JOBS == len(set(results)), "two jobs share one video"
    assert prompts == [sim.core.tasks[task_id].body["prompt"] for task_id in results]


def submits(step: int = 3) -> Choice:
    return every(step, path="/veo/videos")


def questions(step: int = 3) -> Choice:
    return every(step, path="/veo/tasks")


def once() -> Choice:
    """
    Choose a third of the submits, and let their second sending through.
    """
    return both(first_of_each(), submits())


CUTS: dict[str, list[tuple[Cut, Choice]]] = {
    "closed before the request": [(Cut("close"), once())],
    "reset in the middle of the request": [(Cut("reset", at=0.9), once())],
    "closed as the request has gone": [(Cut("close", at=1.0), submits())],
    "closed before the reply": [(Cut("close", of="reply"), first_of_each())],
    "reset before the reply": [(Cut("reset", of="reply"), submits(2))],
    "closed in the middle of the reply": [(Cut("close", of="reply", at=0.5), submits())],
    "reset at the last byte of the reply": [(Cut("reset", of="reply", at=0.99), submits())],
    "stalled before the request": [(Cut("stall"), once())],
    "stalled in the middle of the reply": [(Cut("stall", of="reply", at=0.8), submits(4))],
    "half closed before the reply": [(Cut("half_close", of="reply"), submits())],
    "reset on a reused connection": [(Cut("reset"), both(on_reused, every(4)))],
    "closed after the reply": [(Cut("close", of="reply", at=1.0), every(2))],
    "delayed past the time-out": [(Cut("delay", of="reply", seconds=0.6), submits(4))],
    "questions cut anywhere": [
        (Cut("stall"), questions(8)),
        (Cut("close", of="reply", at=0.7), questions(4)),
        (Cut("reset", of="reply"), questions(3)),
        (Cut("close", of="reply"), submits()),
    ],
}


@pytest.mark.parametrize("rules", [pytest.param(rules, id=name) for name, rules in CUTS.items()])
async def test_no_cut_loses_a_video_or_buys_one_twice(rules: list[tuple[Cut, Choice]]) -> None:
    """
    Whatever happens to connections, every job settles once with its own video, and each was bought once.
    """
    async with Simulator(SETTINGS) as sim, Proxy(sim.url) as proxy:
        for cut, when in rules:
            proxy.add(cut, when=when)
        await play(sim, proxy.url)
    assert len(rules) == len(proxy.struck), "a rule never struck"


def nth(first: int, step: int = 5) -> range:
    """
    Choose every so-many-th request, so that it is certain which faults strike.
    """
    return range(first, 2 * JOBS, step)


ACTED: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "answers that never come": [
        ("drop_after", {"on": "submit", "nth": nth(1)}),
        ("reset_after", {"on": "submit", "nth": nth(2)}),
        ("stall_after", {"on": "submit", "nth": nth(3, 10)}),
        ("drop_mid", {"on": "submit", "nth": nth(4)}),
        ("drop_before", {"on": "retrieve_batch", "nth": nth(1, 3)}),
        ("reset_before", {"on": "list", "nth": [1]}),
    ],
    "answers that are none": [
        ("status_after", {"on": "submit", "nth": nth(1), "status": 502}),
        ("html", {"on": "submit", "nth": nth(2)}),
        ("cut_off", {"on": "submit", "nth": nth(3)}),
        ("oversized", {"on": "submit", "nth": nth(4), "size": 2 * LIMITS.max_reply}),
        ("bad_json", {"on": "retrieve_batch", "nth": nth(1, 3)}),
        ("empty", {"on": "list", "nth": [1]}),
        ("slow", {"on": "list", "nth": [2], "seconds": 0.2}),
    ],
    "a server that restarts": [
        ("restart_after", {"on": "submit", "nth": [5, 30], "seconds": 0.3}),
        ("late", {"on": "submit", "nth": nth(2, 3), "seconds": RETRY.grace / 2}),
    ],
}


@pytest.mark.parametrize("rules", [pytest.param(rules, id=name) for name, rules in ACTED.items()])
async def test_no_fault_on_a_socket_loses_a_video_or_buys_one_twice(
    rules: list[tuple[str, dict[str, Any]]],
) -> None:
    """
    The simulator's own faults, acted out on connections, come to the same end as in memory.
    """
    faults = Faults(seed=1)
    for kind, details in rules:
        faults.add(kind, **details)
    async with Simulator(SETTINGS, faults=faults) as sim:
        await play(sim, sim.url)
    assert {(details["on"], kind) for kind, details in rules} == faults.struck.keys()

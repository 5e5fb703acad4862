"""
The promise under every fault: no video lost, none bought twice.

The server's own count of accepted tasks is the judge.
The whole matrix runs in memory and virtual time; `test_fault_sockets` takes a part of it to real sockets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from tests.virtual import World, run
from veo_async import JobState, PollPolicy, RetryPolicy, TextToVideo
from veo_async._api.marks import mark_of
from veo_async.simulator import Faults, Settings

JOBS = 20  # of two sessions
LATE = RetryPolicy().grace / 2  # lateness up to half of the grace is promised to do no harm

STATUSES = (408, 429, 500, 502, 503, 504)
PATIENT = (429, 503)  # those that come with a `Retry-After`
CONNECTION: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    (kind, {})
    for kind in (
        "drop_before",
        "drop_after",
        "drop_mid",
        "reset_before",
        "reset_after",
        "stall_before",
        "stall_after",
    )
)
ANSWERS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("slow", {"seconds": 20.0}),
    ("oversized", {"size": 100 << 20}),
    *(
        (kind, {})
        for kind in ("bad_json", "bad_text", "cut_off", "deep", "empty", "html", "null", "wrong_type")
    ),
    *(
        (when, {"status": status, **patience})
        for when in ("status_before", "status_after")
        for status in STATUSES
        for patience in ({}, {"retry_after": 5.0}, {"retry_after": 7.0, "as_date": True})
        if (when == "status_before" or status != 429) and (not patience or status in PATIENT)
    ),
)
RESTARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("restart_before", {"seconds": 30.0}),
    ("restart_after", {"seconds": 30.0}),
)
RECORDS: tuple[tuple[str, dict[str, Any]], ...] = tuple(
    (kind, {}) for kind in ("missing", "shuffled", "doubled", "strangers", "stale", "flipped")
)
SELECTORS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("first", {"first": True}),
    ("10%", {"share": 0.1}),
    ("40%", {"share": 0.4}),
)


def _cells() -> Iterator[Any]:
    submits = (*CONNECTION, *ANSWERS, *RESTARTS)
    # A question changes nothing, so that it cannot be told whether the server had taken it in.
    questions = tuple(row for row in submits if not row[0].endswith("_after"))
    for endpoint, faults in (
        ("submit", (*submits, ("late", {"seconds": LATE}))),
        ("retrieve_batch", (*questions, *RECORDS)),
        ("retrieve", (*questions, ("missing", {}), ("strangers", {}), ("stale", {}))),
        ("list", (*questions, *RECORDS)),
    ):
        for kind, details in faults:
            for name, selector in SELECTORS:
                said = " ".join(str(value) for value in details.values())
                yield pytest.param(endpoint, kind, details, selector, id=f"{endpoint}-{kind}-{said}-{name}")


async def _play(endpoint: Any, kind: str, details: dict[str, Any], selector: dict[str, Any]) -> None:
    faults = Faults(seed=1).add(kind, on=endpoint, **selector, **details)
    if endpoint == "list":  # so that there is something to reconcile
        faults.add("drop_after", on="submit", share=0.2)
    world = World(Settings(), faults=faults)
    # One by one, twenty stalls or restarts take longer than the deadline.
    polling = PollPolicy(batch_size=1, deadline=None) if endpoint == "retrieve" else PollPolicy()
    async with world.session(polling=polling) as one, world.session(polling=polling) as another:
        jobs = [
            job for veo in (one, another) for job in veo.submit_many([TextToVideo("a whale")] * (JOBS // 2))
        ]
        await asyncio.gather(*jobs, return_exceptions=True)
    assert [] == [(job, job.exception()) for job in jobs if job.state is not JobState.SUCCEEDED]
    assert JOBS == world.core.accepted
    tasks = {job.key: world.core.tasks[job.result().task_id] for job in jobs}
    assert [] == [key for key, task in tasks.items() if mark_of(key) not in task.body["callback_url"]]


@pytest.mark.parametrize(("endpoint", "kind", "details", "selector"), list(_cells()))
def test_no_video_is_lost_or_bought_twice(
    endpoint: Any, kind: str, details: dict[str, Any], selector: dict[str, Any]
) -> None:
    """
    Two sessions on one account ask for the same all the time: every job gets a video, and it is its own.
    """
    run(_play(endpoint, kind, details, selector))

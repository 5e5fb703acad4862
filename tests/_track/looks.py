"""
A schedule played through, look by look.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from veo_async._policies import PollPolicy
from veo_async._track.durations import Durations
from veo_async._track.schedule import Schedule

__all__ = ["KIND", "due", "gaps_of", "learned", "look", "look_times", "names", "schedule", "watched"]

KIND = "text2video veo31-fast"


def schedule(durations: Durations | None = None, **policy: Any) -> Schedule:
    return Schedule(PollPolicy(**policy), durations=durations or Durations())


def watched(ids: Iterable[str] = ("a",), *, deadline_at: float | None = None, **policy: Any) -> Schedule:
    """
    A schedule with these tasks, all of them accepted at 0.
    """
    made = schedule(**policy)
    for task_id in ids:
        made.add(task_id, kind=KIND, started_at=0.0, deadline_at=deadline_at)
    return made


def names(count: int) -> list[str]:
    return [f"task-{number}" for number in range(count)]


def due(made: Schedule) -> float:
    at = made.next_due_at()
    assert at is not None
    return at


def look(made: Schedule) -> tuple[float, list[str]]:
    """
    Make the next request at the moment it is due, find all of it pending, and return when and whom.
    """
    at = due(made)
    batch = made.take_batch(at)
    made.looked(batch, at)
    return at, batch


def look_times(made: Schedule, until: float) -> list[float]:
    times = [0.0]
    while times[-1] < until:
        times.append(look(made)[0])
    return times


def gaps_of(times: list[float]) -> list[tuple[float, float]]:
    """
    Return each look's time with the gap that follows it.
    """
    return [(before, after - before) for before, after in pairwise(times)]


def learned(median: float, *, kind: str = KIND, lives: int = 200) -> Durations:
    """
    What a session knows after so many log-normal lives.
    """
    rng = random.Random(7)
    durations = Durations()
    for _ in range(lives):
        durations.observe(kind, median * math.exp(rng.gauss(0, 0.35)))
    return durations

"""
What the schedule alone does, in virtual time: lag against looks, requests per job, and the cost of a job.

Nothing is sent and nobody sleeps; the counts repeat exactly for a seed.

    python benchmarks/schedule.py [--quick] [--json]
"""

from __future__ import annotations

import gc
import math
import random
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator, Sequence
from heapq import heappop, heappush
from itertools import count, islice
from typing import Final

from _report import Row, judged, options, report
from _workload import AT_ONCE, BATCH, FASTER, TICK, lives
from attrs import define, field

from veo_async import PollPolicy
from veo_async._track.durations import Durations
from veo_async._track.schedule import Schedule

KIND: Final = "text2video"

# --- one task at a time ----------------------------------------------------------------------------------

SPREAD: Final = 0.38  # of the logarithm of the durations
HORIZON: Final = 1500.0  # seconds; the share of tasks that lives longer is far below a millionth
WARM: Final = 20  # completions
JUDGED: Final = 105.0  # seconds, the median that is judged; others are reported
LIMITS: Final = {"prior": (0.70, 0.55), "warm": (0.65, 0.48)}  # of fixed, of back-off


def normal(score: float) -> float:
    return math.erfc(-score / math.sqrt(2)) / 2


def judge(looks: Iterable[float], median: float) -> tuple[float, float]:
    """
    Return the mean lag in seconds and the mean number of looks, exactly, for log-normal durations.
    """
    lag = spent = past = share_past = lived_past = 0.0
    for at in looks:
        score = math.log(at / median) / SPREAD
        share = normal(score)
        lived = at * share - median * math.exp(SPREAD**2 / 2) * normal(score - SPREAD)  # the share's integral
        spent += 1 - share_past
        lag += lived - lived_past - share_past * (at - past)
        past, share_past, lived_past = at, share, lived
    return lag, spent


def until_horizon(times: Iterable[float]) -> Iterator[float]:
    for at in times:
        yield at
        if at > HORIZON:
            return


def every(interval: float) -> Iterator[float]:
    return until_horizon(interval * number for number in count(1))


def backing_off(stretch: float) -> Iterator[float]:
    def times() -> Iterator[float]:
        at, gap = 0.0, 2.0
        while True:
            at += gap * stretch
            yield at
            gap = min(gap * 1.3, 10.0)

    return until_horizon(times())


def learned(durations: Durations) -> Iterator[float]:
    """
    The times of the looks at one task that stays pending.
    """
    remembered = Durations()  # the schedule learns from the very looks it is asked for
    remembered.load(durations.dump())
    schedule = Schedule(PollPolicy(), durations=remembered)
    schedule.add("task", kind=KIND, started_at=0.0, deadline_at=None)

    def times() -> Iterator[float]:
        while True:
            at = schedule.next_due_at()
            assert at is not None
            yield at
            schedule.looked(schedule.take_batch(at), at)

    return until_horizon(times())


def lag_at(spent: float, looks: Callable[[float], Iterable[float]], median: float) -> float:
    """
    Return the mean lag of the rival that is stretched until it spends as many looks.
    """
    low, high = 0.05, 100.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        lag, its = judge(looks(middle), median)
        low, high = (middle, high) if its > spent else (low, middle)
    return lag


def experienced(median: float, rng: random.Random, completions: int) -> Durations:
    durations = Durations()
    for _ in range(completions):
        durations.observe(KIND, median * math.exp(rng.gauss(0, SPREAD)))
    return durations


def lone_row(median: float, state: str, seed: int) -> Row:
    rng = random.Random(seed)
    repeats, completions = (1, 0) if state == "prior" else (100, WARM)
    judged = [judge(learned(experienced(median, rng, completions)), median) for _ in range(repeats)]
    lag, spent = (statistics.fmean(column) for column in zip(*judged, strict=True))
    of_fixed, of_backoff = (lag / lag_at(spent, rival, median) for rival in (every, backing_off))
    row: Row = {"knows": state, "median": median, "looks": spent, "lag": lag}
    return row | {"of fixed": of_fixed, "of back-off": of_backoff}


def lone(seed: int) -> list[Row]:
    return [lone_row(median, state, seed) for median in (JUDGED, 83.0, 170.0) for state in ("prior", "warm")]


# --- a crowd ---------------------------------------------------------------------------------------------

SUBMITS: Final = 200.0  # a second
POLL: Final = 0.005  # seconds from a request to its reply; the server looks half-way


def floor(durations: Sequence[float]) -> tuple[int, list[float]]:
    """
    Ask about everything unsettled in batches, every tick; return the requests and the lags.
    """
    ends = [number / SUBMITS + duration for number, duration in enumerate(durations)]
    waiting, requests, lags = set(range(len(ends))), 0, []
    for tick in count():
        now = tick * TICK
        asked = [number for number in waiting if number / SUBMITS <= now]
        requests += math.ceil(len(asked) / BATCH)
        ended = [number for number in asked if ends[number] <= now + POLL / 2]
        lags += [now + POLL - ends[number] for number in ended]
        waiting.difference_update(ended)
        if not waiting:
            return requests, lags
    raise AssertionError


@define
class Play:
    """
    A schedule, a server and a clock: submits come at a steady pace as long as the window has room.
    """

    schedule: Schedule
    budget: float  # requests a second
    durations: Iterator[float]
    pace: float  # seconds between submits
    window: int = 10**9  # tasks in flight at most
    now: float = 0.0
    free_at: float = 0.0  # when the budget allows the next request
    submit_at: float = 0.0
    born: int = 0
    exhausted: bool = False
    requests: int = 0
    looks: int = 0
    ends: dict[str, tuple[float, float]] = field(factory=dict)  # id -> when it ends, how long it took
    flights: list[tuple[float, list[str]]] = field(factory=list)  # a heap of (reply, ids)
    lags: list[float] = field(factory=list)

    def run(self) -> None:
        while (step := self._next()) is not None:
            self.now, act = step
            act()

    def _next(self) -> tuple[float, Callable[[], None]] | None:
        steps: list[tuple[float, Callable[[], None]]] = []
        if not self.exhausted and len(self.ends) < self.window:
            steps.append((max(self.now, self.submit_at), self._submit))
        if self.flights:
            steps.append((self.flights[0][0], self._reply))
        if len(self.flights) < AT_ONCE and (due_at := self.schedule.next_due_at()) is not None:
            steps.append((max(self.now, due_at, self.free_at), self._ask))
        return min(steps, key=lambda step: step[0], default=None)

    def _submit(self) -> None:
        duration = next(self.durations, None)
        if duration is None:
            self.exhausted = True
            return
        task_id = str(self.born)
        self.born += 1
        self.submit_at = self.now + self.pace
        self.ends[task_id] = (self.now + duration, duration)
        self.schedule.add(task_id, kind=KIND, started_at=self.now, deadline_at=self.now + 1800.0)

    def _ask(self) -> None:
        if batch := self.schedule.take_batch(self.now):
            self.requests += 1
            self.looks += len(batch)
            self.free_at = self.now + 1 / self.budget
            heappush(self.flights, (self.now + POLL, batch))

    def _reply(self) -> None:
        _, batch = heappop(self.flights)
        pending = []
        for task_id in batch:
            end, duration = self.ends[task_id]
            if end <= self.now - POLL / 2:
                del self.ends[task_id]
                self.lags.append(self.now - end)
                self.schedule.ended(task_id, self.now, duration=duration)
            else:
                pending.append(task_id)
        self.schedule.looked(pending, self.now)


def crowd_row(name: str, jobs: int, runs: Sequence[tuple[int, list[float]]]) -> Row:
    requests = statistics.fmean(1 + polls / jobs for polls, _ in runs)
    quantiles = [statistics.quantiles(lags, n=20, method="inclusive") for _, lags in runs]
    middle, late = (statistics.fmean(cuts[index] for cuts in quantiles) for index in (9, 18))
    return {"who": name, "jobs": jobs, "requests per job": requests, "median lag": middle, "95 % lag": late}


def play(mode: str, durations: Sequence[float]) -> tuple[int, list[float]]:
    policy = PollPolicy(mode=mode, batch_size=BATCH).scaled(1 / FASTER)  # type: ignore[arg-type]
    schedule = Schedule(policy, durations=Durations())
    played = Play(schedule, policy.budget, iter(durations), 1 / SUBMITS)
    played.run()
    return played.requests, played.lags


def crowd(seed: int, *, repeats: int = 10) -> list[Row]:
    rows: list[Row] = []
    for jobs in (1000, 100):
        crowds = [lives(jobs, random.Random(seed + repeat)) for repeat in range(repeats)]
        rows.append(crowd_row("floor", jobs, [floor(durations) for durations in crowds]))
        rows += [
            crowd_row(mode, jobs, [play(mode, durations) for durations in crowds])
            for mode in ("learned", "fixed", "backoff")
        ]
    return rows


# --- very many -------------------------------------------------------------------------------------------

WINDOW: Final = 1000  # tasks in flight
MOST_GROWTH: Final = 1.5  # of the cost of a job, from ten thousand jobs to a million
MOST_BYTES: Final = 250  # of a waiting task


def endless(rng: random.Random) -> Iterator[float]:
    while True:
        yield lives(1, rng)[0] * FASTER


def many_row(jobs: int, seed: int) -> Row:
    policy = PollPolicy()
    durations = islice(endless(random.Random(seed)), jobs)
    played = Play(Schedule(policy, durations=Durations()), policy.budget, durations, 0.001, window=WINDOW)
    gc.collect()
    began = time.process_time()
    played.run()
    spent = time.process_time() - began
    assert jobs == len(played.lags) == played.born, "every job is noticed once"
    assert not len(played.schedule)
    each = {"requests per job": 1 + played.requests / jobs, "looks per job": played.looks / jobs}
    hours = played.now / 3600
    return {"jobs": jobs, **each, "virtual hours": hours, "CPU us per job": 1e6 * spent / jobs}


def many(seed: int, *, quick: bool) -> list[Row]:
    return [many_row(jobs, seed) for jobs in (10_000, 100_000, *(() if quick else (1_000_000,)))]


def weight(jobs: int = 100_000) -> list[Row]:
    """
    Weigh a waiting task, its id left out, before the first looks and after some.
    """
    ids = [f"{number:036d}" for number in range(jobs)]
    schedule = Schedule(PollPolicy(), durations=Durations())
    gc.collect()
    tracemalloc.start()
    for number, task_id in enumerate(ids):
        schedule.add(task_id, kind=KIND, started_at=number / 1000, deadline_at=1800 + number / 1000)
    rows = [{"after": "add", "bytes per task": tracemalloc.get_traced_memory()[0] / jobs}]
    for second in range(4000):
        now = 200.0 + second / 10
        schedule.looked(schedule.take_batch(now), now)
    rows.append({"after": "200,000 looks", "bytes per task": tracemalloc.get_traced_memory()[0] / jobs})
    tracemalloc.stop()
    return rows


# --- the program -----------------------------------------------------------------------------------------


def wanted(lone_rows: Sequence[Row], weight_rows: Sequence[Row], many_rows: Sequence[Row]) -> list[Row]:
    """
    Hold what was found against what was wanted.
    """
    verdicts = [
        judged(f"mean lag / that of {rival} at as many looks, {row['knows']}", row[f"of {rival}"], most=most)
        for row in lone_rows
        if row["median"] == JUDGED
        for rival, most in zip(("fixed", "back-off"), LIMITS[row["knows"]], strict=True)
    ]
    heaviest = max(float(row["bytes per task"]) for row in weight_rows)
    verdicts.append(judged("bytes per waiting task, in the schedule alone", heaviest, most=MOST_BYTES))
    few, many = many_rows[0], many_rows[-1]
    figure = f"CPU per job, {many['jobs']:,} / {few['jobs']:,}, the schedule alone"
    return [*verdicts, judged(figure, many["CPU us per job"] / few["CPU us per job"], most=MOST_GROWTH)]


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(__doc__, quick="leave the million out").parse_args(arguments)
    lone_rows, weights, crowds = lone(chosen.seed), weight(), many(chosen.seed, quick=chosen.quick)
    tables = {
        "One task at a time: mean lag at an equal number of looks": lone_rows,
        f"A crowd, {FASTER} times faster than life: requests and lag (seconds)": crowd(chosen.seed),
        "Memory of a waiting task": weights,
        f"Very many jobs, {WINDOW} in flight": crowds,
    }
    return report(chosen, tables, wanted(lone_rows, weights, crowds), {})


if __name__ == "__main__":
    sys.exit(main())

"""
The polling policy, and the schedule's answers to whom and when.
"""

from __future__ import annotations

import itertools
import math
import pickle
import random
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from veo_async._policies import MOST_AT_ONCE, PollPolicy
from veo_async._track.durations import BINS, Durations
from veo_async._track.schedule import Schedule
from veo_async.errors import ConfigurationError

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


class TestPolicy:
    @pytest.mark.parametrize("name", ["interval", "max_gap", "budget", "deadline", "first_look"])
    @pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, "3", True])
    def test_refuses_what_is_no_duration_or_rate(self, name: str, value: object) -> None:
        """
        A value that is not a finite number above 0 is refused, by name.
        """
        with pytest.raises(ConfigurationError, match=name):
            PollPolicy(**{name: value})  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", [0, -1, 2.5, None, True, "50"])
    def test_refuses_what_is_no_batch_size(self, value: object) -> None:
        """
        A batch size that is not a whole number above 0 is refused, by name.
        """
        with pytest.raises(ConfigurationError, match="batch_size must be a whole number"):
            PollPolicy(batch_size=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize("value", ["eager", None, []])
    def test_refuses_an_unknown_mode(self, value: object) -> None:
        """
        A mode that does not exist is refused, by name.
        """
        with pytest.raises(ConfigurationError, match="mode must be learned, fixed or backoff"):
            PollPolicy(mode=value)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["interval", "max_gap", "budget", "batch_size"])
    def test_refuses_none_where_a_number_is_needed(self, name: str) -> None:
        """
        None is refused where it has no meaning.
        """
        with pytest.raises(ConfigurationError, match=name):
            PollPolicy(**{name: None})  # type: ignore[arg-type]

    def test_scales_durations_and_rates_and_leaves_counts(self) -> None:
        """
        A scaled policy has its durations multiplied, its rates divided and its counts left alone.
        """
        policy = PollPolicy(interval=4.0, first_look=8.0, max_gap=20.0, budget=10.0, deadline=600.0)
        wanted = (1.0, 2.0, 5.0, 40.0, 150.0, 50)
        scaled = policy.scaled(0.25)
        found = (scaled.interval, scaled.first_look, scaled.max_gap, scaled.budget, scaled.deadline)
        assert wanted == (*found, scaled.batch_size)

    def test_scales_none_to_none(self) -> None:
        """
        Without a deadline or a first look there is none after scaling either.
        """
        scaled = PollPolicy(deadline=None).scaled(2.0)
        assert (None, None) == (scaled.deadline, scaled.first_look)

    def test_scaling_back_gives_an_equal_policy(self) -> None:
        """
        Scaling there and back gives the policy one started from.
        """
        assert PollPolicy() == PollPolicy().scaled(0.25).scaled(4.0)
        assert PollPolicy() != PollPolicy().scaled(0.25)

    @pytest.mark.parametrize("factor", [0, -1.0, math.inf, math.nan])
    def test_refuses_a_senseless_scale(self, factor: float) -> None:
        """
        A factor that is no finite number above 0 is refused.
        """
        with pytest.raises(ConfigurationError, match="factor"):
            PollPolicy().scaled(factor)

    def test_pickles_and_shows_no_private_field(self) -> None:
        """
        A policy survives pickling with its scale, and its repr shows the public fields only.
        """
        policy = PollPolicy().scaled(0.5)
        assert policy == pickle.loads(pickle.dumps(policy))
        assert "scale" not in repr(policy)


class TestModes:
    def test_fixed_looks_every_interval(self) -> None:
        """
        The fixed mode looks an interval after acceptance and every interval from then on.
        """
        assert [0.0, 5.0, 10.0, 15.0, 20.0] == look_times(watched(mode="fixed", interval=5.0), 20.0)

    def test_fixed_starts_at_the_first_look(self) -> None:
        """
        The fixed mode honours a first look.
        """
        made = watched(mode="fixed", interval=5.0, first_look=60.0)
        assert [0.0, 60.0, 65.0, 70.0] == look_times(made, 70.0)

    def test_backoff_grows_to_its_maximum(self) -> None:
        """
        The back-off mode starts at 2 s, grows by 1.3 and stays at 10 s.
        """
        gaps = [round(gap, 3) for _, gap in gaps_of(look_times(watched(mode="backoff"), 60.0))]
        assert [2.0, 2.6, 3.38, 4.394, 5.712, 7.426, 9.654, 10.0] == gaps[:8]
        assert {10.0} == set(gaps[8:])

    def test_backoff_scales(self) -> None:
        """
        A scaled back-off is as much faster.
        """
        scaled = Schedule(PollPolicy(mode="backoff").scaled(0.1), durations=Durations())
        scaled.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        assert [0.0, 0.2, 0.46] == [round(at, 6) for at in look_times(scaled, 0.4)]

    def test_backoff_survives_very_many_looks(self) -> None:
        """
        The back-off neither overflows nor grows past its maximum after thousands of looks.
        """
        times = look_times(watched(mode="backoff"), 30_000.0)
        assert times[-1] - times[-2] == pytest.approx(10.0)


class TestLearnedGaps:
    def test_asks_nothing_before_it_can_be_ready(self) -> None:
        """
        The first look comes late enough to be plausible, and before the shortest documented duration.
        """
        assert 20.0 < due(watched()) < 66.0

    def test_honours_a_first_look(self) -> None:
        """
        A first look that the policy names is kept in the learned mode.
        """
        assert 7.0 == due(watched(first_look=7.0))

    def test_looks_densest_where_most_tasks_end(self) -> None:
        """
        Gaps are shorter around the usual duration than before it.
        """
        gaps = gaps_of(look_times(watched(), 120.0))
        early = next(gap for at, gap in gaps if at > 20.0)
        usual = [gap for at, gap in gaps if at > 100.0]
        assert max(usual) < early

    @pytest.mark.parametrize("median", [20.0, 60.0, 105.0, 170.0, 400.0])
    def test_gaps_stay_even_until_three_medians(self, median: float) -> None:
        """
        After the first look no gap is longer than 10 s until a task is three times the learned median old.
        """
        made = schedule(learned(median))
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        gaps = gaps_of(look_times(made, 2.5 * median))
        assert 10.0 + 1e-9 >= max(gap for at, gap in gaps if at)

    def test_gaps_of_stragglers_grow_to_the_maximum(self) -> None:
        """
        Far past the median the gaps grow, and never past `max_gap`.
        """
        made = schedule(learned(60.0), max_gap=25.0)
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        gaps = gaps_of(look_times(made, 6000.0))
        late = [gap for at, gap in gaps if at > 600.0]
        assert late[0] > 2 * min(gap for _, gap in gaps)
        assert 25.0 == pytest.approx(max(gap for at, gap in gaps if at))
        assert late == sorted(late) or late[-1] > late[0]

    def test_each_straggler_has_a_gap_of_its_own(self) -> None:
        """
        A task of ten days makes the gaps of one that is an hour old no longer, and is asked about no more often.
        """
        now, ages = 1e6, {"of days": 10 * 86400.0, "of an hour": 3600.0}

        def next_looks(*task_ids: str) -> set[float]:
            made = schedule(learned(60.0), max_gap=3600.0)
            for task_id in task_ids:
                made.add(task_id, kind=KIND, started_at=now - ages[task_id], deadline_at=None)
                made.take_batch(now)
            made.looked(task_ids, now)
            return {group.due_at for group in made._groups if group.tasks}

        young, old = next_looks("of an hour"), next_looks("of days")
        assert {3600.0 + now} == old
        for order in itertools.permutations(ages):
            both = next_looks(*order)
            assert old < both
            assert min(young) == pytest.approx(min(both), abs=20.0)

    def test_no_gap_is_longer_than_the_maximum(self) -> None:
        """
        A `max_gap` below the even gap holds everywhere after the first look.
        """
        gaps = gaps_of(look_times(watched(max_gap=4.0), 400.0))
        assert 4.0 + 1e-9 >= max(gap for at, gap in gaps if at)

    def test_a_longer_interval_means_fewer_looks(self) -> None:
        """
        The interval sets how many looks are spent.
        """
        few, many = (len(look_times(watched(interval=interval), 150.0)) for interval in (6.0, 2.0))
        assert few < many / 2

    @pytest.mark.parametrize("interval", [1e-300, 1e-6, 1e6, 1e300])
    def test_absurd_intervals_are_harmless(self, interval: float) -> None:
        """
        An interval at the edge of arithmetic gives looks that move on in time, none further apart than `max_gap`.
        """
        made = watched(interval=interval)
        first = look(made)[0]
        assert math.isfinite(first)
        assert first < due(made) <= first + 30.0

    def test_scales_with_the_policy(self) -> None:
        """
        A scaled policy makes the same looks, as much faster, the prior included.
        """
        slow = watched()
        fast = Schedule(PollPolicy().scaled(1 / 16), durations=Durations())
        fast.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        wanted = [at / 16 for at in look_times(slow, 200.0)]
        assert wanted == pytest.approx(look_times(fast, 200.0 / 16))

    def test_counts_looks(self) -> None:
        """
        Each look that found a task pending is counted, for known tasks only.
        """
        made = watched()
        look(made)
        look(made)
        assert (2, 0) == (made.looks("a"), made.looks("nobody"))


class TestLearning:
    def test_the_first_look_follows_what_was_seen(self) -> None:
        """
        After many short tasks the first look comes early, after many long ones late.
        """
        firsts = []
        for median in (30.0, 105.0, 300.0):
            made = schedule(learned(median))
            made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
            firsts.append(due(made))
        assert sorted(firsts) == firsts
        assert firsts[0] < 20.0
        assert firsts[2] > 100.0

    def test_learns_from_ends(self) -> None:
        """
        The schedule learns from the durations that records tell.
        """
        made = schedule()
        made.add("probe", kind=KIND, started_at=0.0, deadline_at=None)
        before = due(made)
        made.discard("probe")
        for task_id in names(50):
            made.add(task_id, kind=KIND, started_at=0.0, deadline_at=None)
            made.ended(task_id, 320.0, duration=300.0)
        made.add("probe", kind=KIND, started_at=0.0, deadline_at=None)
        assert 1.5 * before < due(made)

    @pytest.mark.parametrize("told", [None, math.nan, math.inf, -1.0])
    def test_takes_the_time_until_now_where_a_record_tells_nothing(self, told: float | None) -> None:
        """
        Without a sensible duration in the record, the time from acceptance to the look counts.
        """
        by_look, by_record = Durations(), Durations()
        made = schedule(by_look)
        made.add("a", kind=KIND, started_at=10.0, deadline_at=None)
        made.ended("a", 110.0, duration=told)
        by_record.observe(KIND, 100.0)
        assert by_record.dump() == by_look.dump()

    @pytest.mark.parametrize("told", [101.0, 3.0e5, 1.8e9])
    def test_no_task_took_longer_than_it_was_watched(self, told: float) -> None:
        """
        A record whose times are in another unit, or begin in 1970, counts for no more than the time since acceptance.
        """
        by_look, by_record = Durations(), Durations()
        made = schedule(by_look)
        made.add("a", kind=KIND, started_at=10.0, deadline_at=None)
        made.ended("a", 110.0, duration=told)
        by_record.observe(KIND, 100.0)
        assert by_record.dump() == by_look.dump()

    @pytest.mark.parametrize(
        ("told", "counts"), [(None, False), (math.nan, False), (3.0e5, False), (300.0, True)]
    )
    def test_a_task_that_was_found_counts_by_its_record_alone(
        self, told: float | None, *, counts: bool
    ) -> None:
        """
        Nobody knows how old a task was when it was attached or resumed: without times in its record it teaches nothing.
        """
        durations = Durations()
        made = schedule(durations)
        made.add("a", kind=KIND, started_at=100.0, deadline_at=None, found=True)
        made.ended("a", 100.1, duration=told)
        assert float(counts) == sum(durations.dump()[KIND][1])

    def test_a_kind_that_ends_at_once_still_has_a_median(self) -> None:
        """
        After many ends within seconds, one that takes longer is looked at all the same, ever more rarely.
        """
        durations = Durations()
        made = schedule(durations)
        for task_id in names(50):
            made.add(task_id, kind=KIND, started_at=0.0, deadline_at=None)
            made.ended(task_id, 1.0)
        made.add("slow", kind=KIND, started_at=0.0, deadline_at=None)
        at = look(made)[0]
        assert 0.0 < durations.outlook(KIND, 0.06).median
        assert at < due(made) < math.inf

    def test_an_end_before_the_last_look_counts_where_the_looks_say(self) -> None:
        """
        A record that claims an end before the task was seen pending cannot count a bin twice.
        """
        durations = Durations()
        made = schedule(durations)
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        look(made)
        made.ended("a", 90.0, duration=1.0)
        entered, ended = durations.dump()[KIND]
        assert (1.0, 1.0) == (max(entered), sum(ended))

    def test_pending_tasks_count_too(self) -> None:
        """
        Quick first ends among many pending tasks do not make the others seem late.
        """
        durations = Durations()
        made = schedule(durations)
        for task_id in names(100):
            made.add(task_id, kind=KIND, started_at=0.0, deadline_at=None)
        made.looked(names(100), 60.0)
        for task_id in names(5):
            made.ended(task_id, 60.0, duration=59.0)
        assert 90.0 < durations.outlook(KIND, 0.06).median

    def test_a_new_kind_borrows_from_the_others(self) -> None:
        """
        A kind never seen starts from what is known of the others, and its own ends outweigh that.
        """
        durations = learned(300.0, kind="other")
        borrowed = durations.outlook("new", 0.06)
        assert Durations().outlook("new", 0.06).first * 1.5 < borrowed.first
        for _ in range(100):
            durations.observe("new", 40.0)
        assert durations.outlook("new", 0.06).first < borrowed.first / 2

    def test_follows_a_server_that_changes(self) -> None:
        """
        Old experience fades: after a lasting change the new durations win.
        """
        durations = learned(60.0, lives=3000)
        for _ in range(1500):
            durations.observe(KIND, 240.0)
        assert 200.0 < durations.outlook(KIND, 0.06).median < 260.0

    def test_the_outlook_follows_the_price(self) -> None:
        """
        Asked with another price, the outlook is worked out again.
        """
        durations = Durations()
        cheap, dear = durations.outlook(KIND, 0.01), durations.outlook(KIND, 1.0)
        assert cheap.first < dear.first
        assert cheap.median == dear.median

    def test_what_was_learned_survives_a_journal(self) -> None:
        """
        What `dump` gave, `load` takes up, and it holds nothing that the dump shares.
        """
        first, second = learned(170.0), Durations()
        second.load(first.dump())
        wanted = first.dump()
        assert wanted == second.dump()
        assert first.outlook(KIND, 0.06) == second.outlook(KIND, 0.06)
        second.observe(KIND, 30.0)
        assert wanted == first.dump()

    @pytest.mark.parametrize(
        "counts",
        [
            None,
            [],
            [[1.0], [1.0]],
            [[1.0] * 48],
            [[1.0] * 48, [2.0] * 48],
            [[1.0] * 48, ["1"] * 48],
            [[math.nan] * 48, [0.0] * 48],
            [[10**400] * 48, [0] * 48],
            [[-1.0] * 48, [-1.0] * 48],
            [5, 5],
        ],
    )
    def test_leaves_out_what_it_cannot_have_dumped(self, counts: object) -> None:
        """
        A journal from another version, or a damaged one, teaches nothing and harms nothing.
        """
        durations = Durations()
        durations.load({KIND: counts})  # type: ignore[dict-item]
        assert {} == durations.dump()

    def test_certain_ends_and_endless_lives_are_harmless(self) -> None:
        """
        Kinds whose tasks all take the same time, no time, or for ever have a sensible outlook.
        """
        instant, steady, endless = Durations(), Durations(), Durations()
        for _ in range(300):
            instant.observe(KIND, 0.0)
            steady.observe(KIND, 90.0)
            endless.survived(KIND, 0, 48)
        assert instant.outlook(KIND, 0.06).first < 3.0
        assert 50.0 < steady.outlook(KIND, 0.06).first < 91.0
        assert all(0 < endless.outlook(KIND, 0.06).gap(index) < math.inf for index in range(BINS))


class TestBatches:
    def test_tasks_accepted_together_share_a_request(self) -> None:
        """
        Tasks due at about the same time are asked about in one request.
        """
        made = schedule()
        for number, task_id in enumerate(names(40)):
            made.add(task_id, kind=KIND, started_at=number * 0.05, deadline_at=None)
        assert sorted(names(40)) == sorted(look(made)[1])

    def test_a_request_waits_a_moment_to_fill(self) -> None:
        """
        A look due first waits for others that are due soon, no longer than an interval.
        """
        made = schedule(mode="fixed", interval=3.0)
        made.add("early", kind="one", started_at=0.0, deadline_at=None)
        for task_id in names(5):
            made.add(task_id, kind="two", started_at=2.0, deadline_at=None)
        at, batch = look(made)
        assert 3.0 < at <= 6.0
        assert sorted(["early", *names(5)]) == sorted(batch)

    def test_a_lone_look_waits_for_nobody(self) -> None:
        """
        A look whose company is due much later goes on time.
        """
        made = schedule(mode="fixed", interval=3.0)
        made.add("early", kind=KIND, started_at=0.0, deadline_at=None)
        made.add("late", kind=KIND, started_at=60.0, deadline_at=None)
        assert (3.0, ["early"]) == look(made)

    def test_waiting_for_company_keeps_the_even_gap(self) -> None:
        """
        A gap of 10 s is not made longer by waiting for others.
        """
        made = schedule(mode="fixed", interval=10.0)
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        look(made)
        made.add("b", kind=KIND, started_at=18.0, deadline_at=None)
        assert 20.0 == due(made)

    def test_batches_are_as_large_as_allowed(self) -> None:
        """
        More due tasks than a batch holds go in several requests, each task once.
        """
        made = watched(names(120), batch_size=50)
        at = due(made)
        batches = [made.take_batch(at) for _ in range(4)]
        assert [50, 50, 20, 0] == [len(batch) for batch in batches]
        assert sorted(names(120)) == sorted(task_id for batch in batches for task_id in batch)

    def test_the_requests_of_a_crowd_go_together(self) -> None:
        """
        Looks that fill several requests within an interval go at one moment, when they are due on average.
        """
        made = schedule(mode="fixed", interval=3.0, batch_size=10)
        for number, task_id in enumerate(names(30)):
            made.add(task_id, kind=f"kind {number}", started_at=number * 0.1, deadline_at=None)
        at = due(made)
        assert 4.45 == pytest.approx(at)
        batches = []
        while (again := made.next_due_at()) is not None and again <= at:
            batches.append(made.take_batch(at))
        assert [10, 10, 10] == [len(batch) for batch in batches]

    def test_a_volley_is_no_larger_than_the_gate_lets_through(self) -> None:
        """
        A second's worth of requests goes together, ten at most, and those of a larger crowd after them.
        """
        for budget, together in ((3.0, 3), (0.1, 1), (50.0, MOST_AT_ONCE)):
            made = schedule(mode="fixed", interval=3.0, batch_size=10, budget=budget)
            for number, task_id in enumerate(names(200)):
                made.add(task_id, kind=f"kind {number}", started_at=number * 0.01, deadline_at=None)
            at = due(made)
            volley = [made.take_batch(at) for _ in range(together)]
            assert names(10 * together) == [task_id for batch in volley for task_id in batch]
            assert due(made) > at

    def test_what_comes_up_during_a_volley_waits_for_none_of_it(self) -> None:
        """
        A task that a callback speaks of while a volley is half sent goes with its next request.
        """
        made = schedule(mode="fixed", interval=3.0, batch_size=10)
        for number, task_id in enumerate(names(30)):
            made.add(task_id, kind=f"kind {number}", started_at=number * 0.1, deadline_at=None)
        made.add("late", kind="late", started_at=60.0, deadline_at=None)
        at = due(made)
        made.take_batch(at)
        made.nudge("late", at)
        assert at == due(made)
        assert "late" in made.take_batch(at)

    def test_a_volley_whose_tasks_are_gone_is_over(self) -> None:
        """
        Where nobody is left to ask about, nothing is asked, and nothing stays due.
        """
        made = schedule(mode="fixed", interval=3.0, batch_size=10)
        for task_id in names(30):
            made.add(task_id, kind=KIND, started_at=0.0, deadline_at=None)
        at = due(made)
        made.take_batch(at)
        for task_id in names(30):
            made.discard(task_id)
        assert [[], [], []] == [made.take_batch(at) for _ in range(3)]
        assert made.next_due_at() is None

    def test_what_is_left_of_a_volley_brings_nothing_forward(self) -> None:
        """
        Where the tasks of a volley are gone, others are asked about when they are due, and not in its place.
        """
        made = watched(names(30), mode="fixed", interval=3.0, batch_size=10)
        at = due(made)
        made.take_batch(at)
        for task_id in names(30):
            made.discard(task_id)
        made.add("new", kind=KIND, started_at=at, deadline_at=None)
        assert at + 3.0 == due(made)

    def test_a_request_is_filled_up_with_the_next_due(self) -> None:
        """
        A request that goes anyway takes along those due next, the earliest first.
        """
        made = schedule(mode="fixed", interval=3.0, batch_size=3)
        for start, task_id in ((9.0, "last"), (7.0, "next"), (0.0, "due"), (8.0, "then")):
            made.add(task_id, kind=task_id, started_at=start, deadline_at=None)
        assert (3.0, ["due", "next", "then"]) == look(made)

    def test_nothing_is_taken_before_it_is_due(self) -> None:
        """
        Before the next due time no batch is given out.
        """
        made = watched()
        assert [] == made.take_batch(due(made) - 0.01)
        assert ["a"] == made.take_batch(due(made))

    def test_nothing_is_taken_twice_until_it_is_told(self) -> None:
        """
        A taken task is due again only once its look was reported.
        """
        made = watched()
        at = due(made)
        made.take_batch(at)
        assert made.next_due_at() is None
        assert [] == made.take_batch(at + 1000.0)
        made.looked(["a"], at)
        assert at < due(made)

    def test_the_longest_overdue_go_first(self) -> None:
        """
        With requests held back for long, the oldest due looks are taken first.
        """
        made = schedule(batch_size=10)
        for number, task_id in enumerate(names(100)):
            made.add(task_id, kind=str(number), started_at=float(number), deadline_at=None)
        order = [task_id for _ in range(10) for task_id in made.take_batch(1000.0)]
        assert names(100) == order

    def test_none_starves_in_a_backlog(self) -> None:
        """
        With a budget far too small, every task is still looked at, none twice before another once.
        """
        made = watched(names(500), batch_size=50)
        seen: list[str] = []
        for request in range(20):
            now = 100.0 + 10.0 * request
            batch = made.take_batch(now)
            made.looked(batch, now)
            seen += batch
        assert set(names(500)) == set(seen[:500])

    def test_forgotten_tasks_are_not_asked_about(self) -> None:
        """
        A discarded task leaves its group: it is neither taken nor waited for.
        """
        made = watched(["a", "b"])
        made.discard("a")
        made.discard("nobody")
        assert ["b"] == look(made)[1]
        made.discard("b")
        assert made.next_due_at() is None
        assert [] == made.take_batch(1e6)

    def test_a_request_for_forgotten_tasks_drags_nobody_along(self) -> None:
        """
        When the tasks that were due first are forgotten, the others are not asked about any earlier.
        """
        made = schedule(mode="fixed", interval=3.0)
        made.add("first", kind=KIND, started_at=0.0, deadline_at=None)
        made.add("second", kind=KIND, started_at=4.0, deadline_at=None)
        assert 3.0 == due(made)
        made.discard("first")
        assert [] == made.take_batch(3.0)
        assert 7.0 == due(made)

    def test_a_task_that_comes_back_is_asked_about_once(self) -> None:
        """
        A task discarded and added again is in one batch, once.
        """
        made = watched(["a"])
        made.discard("a")
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        assert ["a"] == made.take_batch(1000.0)

    def test_an_id_reported_twice_is_asked_about_once(self) -> None:
        """
        Reporting the same id twice in a reply does not double it.
        """
        made = watched(["a"])
        at = due(made)
        made.looked([*made.take_batch(at), "a", "nobody"], at)
        assert ["a"] == look(made)[1]

    def test_a_late_report_on_a_task_that_came_back_is_harmless(self) -> None:
        """
        A reply from before a task was forgotten and added again leaves it in one group, once.
        """
        made = watched(["a"])
        stale = made.take_batch(100.0)
        made.discard("a")
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        made.looked(stale, 101.0)
        made.unanswered(stale, 102.0)
        assert ["a"] == made.take_batch(500.0)
        assert [] == made.take_batch(500.0)

    def test_a_task_that_came_back_is_nudged_once(self) -> None:
        """
        A task that left a group, and comes back to it before the others of it went, stands in it once.
        """
        made = schedule(mode="fixed", interval=3.0, batch_size=3)

        def attach(task_id: str, now: float) -> None:
            made.add(task_id, kind=KIND, started_at=now, deadline_at=None, found=True)
            made.nudge(task_id, now)

        attach("back", 80.0)
        stale = made.take_batch(80.0)
        attach("early", 90.0)
        made.discard("back")
        attach("back", 100.1)
        made.looked(stale, 100.2)
        attach("other", 100.25)
        made.nudge("back", 100.3)
        assert ["early", "other", "back"] == made.take_batch(110.0)
        assert [] == made.take_batch(110.0)

    def test_a_past_start_makes_a_task_due_at_once(self) -> None:
        """
        A task attached long after its acceptance is due at once.
        """
        made = schedule()
        made.add("old", kind=KIND, started_at=0.0, deadline_at=None)
        assert ["old"] == made.take_batch(5000.0)

    def test_an_empty_report_changes_nothing(self) -> None:
        """
        Reports about nobody are harmless.
        """
        made = watched()
        before = due(made)
        made.looked([], 1.0)
        made.unanswered(["nobody"], 1.0)
        made.missing(["nobody"], 1.0)
        made.ended("nobody", 1.0)
        made.nudge("nobody", 1.0)
        assert before == due(made)

    def test_shows_its_counts(self) -> None:
        """
        A schedule knows its tasks, and its repr counts them.
        """
        made = watched(["a", "b"])
        assert (2, ["a", "b"]) == (len(made), list(made))
        assert ("a" in made, "c" in made) == (True, False)
        assert "2 tasks" in repr(made)


class TestNudges:
    def test_a_nudge_makes_a_task_due_now(self) -> None:
        """
        A task that a callback speaks of is asked about at once.
        """
        made = watched(["a", "b"])
        made.nudge("b", 5.0)
        assert due(made) <= 5.0
        assert ["b"] == made.take_batch(5.0)

    def test_a_nudge_passes_the_backlog(self) -> None:
        """
        A nudged task goes before others that are a little overdue.
        """
        made = watched(names(10), batch_size=2)
        made.nudge("task-9", 60.0)
        assert "task-9" in made.take_batch(60.0)

    def test_nudges_share_a_request(self) -> None:
        """
        Tasks nudged one after the other share a batch.
        """
        made = watched(names(10))
        for task_id in names(10):
            made.nudge(task_id, 5.0)
            made.nudge(task_id, 5.1)
        assert sorted(names(10)) == sorted(made.take_batch(5.2))

    def test_a_nudge_during_a_look_asks_again(self) -> None:
        """
        A nudge that comes while the task is asked about leads to another look right after.
        """
        made = watched(["a", "b"])
        at = due(made)
        made.take_batch(at)
        made.nudge("a", at)
        made.looked(["a", "b"], at)
        batch = made.take_batch(at)
        assert "a" == batch[0]
        made.looked(batch, at)
        assert at < due(made)

    def test_a_nudge_during_a_failed_look_asks_again_at_once(self) -> None:
        """
        A nudge outlives a poll that failed.
        """
        made = watched()
        at = due(made)
        made.take_batch(at)
        made.nudge("a", at)
        made.unanswered(["a"], at)
        assert ["a"] == made.take_batch(at)

    def test_a_nudge_speaks_for_a_suspect(self) -> None:
        """
        A nudged suspect is asked alone at once, also when it was being asked about.
        """
        made = watched()
        made.missing(made.take_batch(100.0), 100.0)
        made.nudge("a", 101.0)
        assert ["a"] == made.take_batch(101.0)
        made.nudge("a", 101.0)
        assert [] == made.take_batch(101.0)
        made.missing(["a"], 101.0)
        assert ["a"] == made.take_batch(101.0)

    def test_a_forgotten_nudge_is_forgotten(self) -> None:
        """
        A task discarded while nudged and asked about starts afresh when it comes back.
        """
        made = watched()
        made.take_batch(100.0)
        made.nudge("a", 100.0)
        made.discard("a")
        made.add("a", kind=KIND, started_at=100.0, deadline_at=None)
        assert due(made) > 110.0


class TestFailedPolls:
    def test_asks_again_soon_and_counts_no_look(self) -> None:
        """
        After a failed poll the same tasks are due again within a second or so.
        """
        made = watched(names(3))
        at = due(made)
        batch = made.take_batch(at)
        made.unanswered(batch, at)
        assert 0 == made.looks("task-0")
        assert at < due(made) <= at + 1.0
        assert sorted(batch) == sorted(made.take_batch(at + 1.0))

    def test_who_does_not_want_to_answer_is_asked_ever_more_rarely(self) -> None:
        """
        Refusals that no gate heeds double the delay, up to ten seconds, until there is an answer.
        """
        made = watched(names(3))
        batch, at, delays = names(3), due(made), []
        for _ in range(6):
            made.take_batch(at)
            made.unanswered(batch, at, declined=True)
            delays.append(due(made) - at)
            at = due(made)
        assert [1.0, 2.0, 4.0, 8.0, 10.0, 10.0] == pytest.approx(delays)
        made.answered(3)
        made.unanswered(made.take_batch(at), at, declined=True)
        assert at + 1.0 == pytest.approx(due(made))

    def test_a_refused_batch_is_halved_until_it_fits(self) -> None:
        """
        Each refusal halves the batches, down to a size that surely fits, and what fits is remembered.
        """
        made = watched(names(50), batch_size=50)
        sizes: list[int] = []
        for _ in range(3):
            at = 1000.0 + 20.0 * len(sizes)
            batch = made.take_batch(at)
            sizes.append(len(batch))
            made.refused(batch, at)
        assert [50, 25, 12] == sizes
        assert 12 == made.batch_size

    def test_a_late_refusal_of_a_larger_batch_changes_nothing(self) -> None:
        """
        Refusals of batches sent before the size shrank do not shrink it further.
        """
        made = watched(batch_size=40)
        for _ in range(3):
            made.refused(names(40), 1.0)
        assert 20 == made.batch_size

    def test_a_size_that_was_answered_is_not_what_is_refused(self) -> None:
        """
        Where as many were answered before, one of the tasks is to blame: each is asked alone, and batches stay.
        """
        made = watched(names(50), batch_size=50)
        made.answered(50)
        batch = made.take_batch(1000.0)
        made.refused(batch, 1000.0)
        alone = [made.take_batch(1010.0) for _ in batch]
        assert (50, sorted([task_id] for task_id in batch)) == (made.batch_size, sorted(alone))
        made.refused(["task-0"], 1010.0)
        made.looked(names(50)[1:], 1010.0)
        assert "task-0" not in made.take_batch(1030.0)
        assert ["task-0"] == made.take_batch(1051.0)

    def test_a_refusal_that_was_one_tasks_fault_takes_no_size_away(self) -> None:
        """
        Batches that were halved on account of one task are as large as ever once that is known.
        """
        made = watched(names(50), batch_size=50)
        at = 1000.0
        while made.batch_size > 12 or len(made.take_batch(at)) != 1:
            batch = made.take_batch(at + 1.0)
            made.refused(batch, at + 1.0)
            at += 20.0
        made.refused(["task-0"], at)
        made.refused(["task-0"], at)
        assert 50 == made.batch_size


class TestUnreadableAnswers:
    def spoilt(self, made: Schedule, culprit: str) -> list[list[str]]:
        """
        Ask until no answer is spoilt by the culprit any more, or it is asked about alone; give all questions.
        """
        asked: list[list[str]] = []
        while not asked or asked[-1] != [culprit]:
            at = due(made)
            asked.append(made.take_batch(at))
            if culprit in asked[-1]:
                made.spoilt(asked[-1], at)
            else:
                made.looked(asked[-1], at)
        return asked

    def test_a_spoilt_answer_is_asked_for_by_halves(self) -> None:
        """
        Halves of halves find who spoils the answers; the others are asked about together again.
        """
        made = watched(names(50), mode="fixed", interval=10.0)
        asked = self.spoilt(made, "task-7")
        assert [50, 25, 13, 6, 3, 2, 1] == [len(batch) for batch in asked if "task-7" in batch]
        assert 50 == made.batch_size
        made.discard("task-7")
        assert 49 == max(len(look(made)[1]) for _ in range(20))

    def test_a_half_shares_its_request_with_nobody(self) -> None:
        """
        Else the culprit would spoil the answers about others as well.
        """
        made = watched(names(4), mode="fixed", interval=10.0)
        made.spoilt(made.take_batch(due(made)), 10.0)
        for task_id in ("x", "y"):
            made.add(task_id, kind=KIND, started_at=1.0, deadline_at=None)
        batches = [made.take_batch(11.0) for _ in range(4)]
        assert [[], ["task-0", "task-1"], ["task-2", "task-3"], ["x", "y"]] == sorted(batches)

    def test_an_answer_that_is_long_in_coming_is_asked_for_again_by_halves(self) -> None:
        """
        At once, each half apart, a suspect alone; the first answer still counts when it comes.
        """
        made = watched(names(5), mode="fixed", interval=10.0)
        made.missing(["task-4"], 0.0)
        assert ["task-4"] == made.take_batch(10.0)
        batch = made.take_batch(10.0)
        made.overlong([*batch, "task-4"], 15.0)
        halves = [made.take_batch(15.0) for _ in range(4)]
        assert [[], ["task-0", "task-1", "task-2"], ["task-3"], ["task-4"]] == sorted(halves)
        made.overlong(["task-3"], 20.0)
        assert ["task-3"] == made.waiting([*batch, "unknown"])
        made.looked(batch, 20.0)
        assert [] == made.take_batch(29.0)
        assert batch == made.take_batch(30.0)

    def test_what_is_slow_does_not_scale_below_a_second(self) -> None:
        """
        Five seconds, times the scale of the policy; the network is as fast as ever.
        """
        slow = [
            Schedule(PollPolicy().scaled(by), durations=Durations()).slow_after for by in (1, 2, 0.5, 0.01)
        ]
        assert [5.0, 10.0, 2.5, 1.0] == slow

    def test_an_answer_that_is_too_large_makes_batches_small(self) -> None:
        """
        What fits is remembered, as where the server refuses.
        """
        made = watched(names(50), mode="fixed", interval=10.0)
        made.answered(50)
        at = due(made)
        made.spoilt(made.take_batch(at), at, too_large=True)
        assert 25 == made.batch_size
        made.spoilt(names(40), at, too_large=True)
        assert 20 == made.batch_size

    def test_who_alone_spoils_an_answer_is_asked_about_alone_and_more_rarely(self) -> None:
        """
        Soon at first, then every ten seconds; that is no miss, so it never vanishes.
        """
        made, times = watched(), []
        for _ in range(30):
            times.append(due(made))
            assert ["a"] == made.take_batch(times[-1])
            made.spoilt(["a"], times[-1])
        assert [1.0, *[10.0] * 28] == pytest.approx([gap for _, gap in gaps_of(times)])
        assert [] == made.vanished(times[-1])
        assert "a" in made

    def test_a_suspect_in_a_spoilt_answer_stays_alone(self) -> None:
        """
        It is in nobody else's half.
        """
        made = watched(["a", "b", "c"])
        at = due(made)
        made.missing(["a"], at)
        made.spoilt(["a", "b", "c"], at)
        assert [[], ["a"], ["b", "c"]] == sorted(made.take_batch(at + 60.0) for _ in range(3))

    def test_a_nudge_of_one_that_spoils_answers_is_heeded(self) -> None:
        """
        A callback that speaks of it while it is asked about has it asked about again at once.
        """
        for report in (Schedule.spoilt, Schedule.unreadable):
            made = watched()
            at = due(made)
            batch = made.take_batch(at)
            made.nudge("a", at)
            report(made, batch, at)
            assert ["a"] == made.take_batch(at)


class TestSuspects:
    def lone(self, made: Schedule) -> float:
        """
        Ask about the lone suspect when it is due, and miss it again.
        """
        at = due(made)
        assert ["a"] == made.take_batch(at)
        made.missing(["a"], at)
        return at

    def test_a_missing_id_is_asked_alone_and_later(self) -> None:
        """
        An id that a reply left out comes back as a batch of one, while the others go on together.
        """
        made = watched(["a", "b", "c"])
        at = due(made)
        made.take_batch(at)
        made.missing(["a"], at)
        made.looked(["b", "c"], at)
        assert at + 5.0 < due(made)
        batches = []
        for _ in range(4):
            at = due(made)
            batches.append(sorted(made.take_batch(at)))
            if batches[-1] == ["a"]:
                made.missing(["a"], at)
            else:
                made.looked(batches[-1], at)
        assert [["a"], ["b", "c"], ["b", "c"], ["b", "c"]] == sorted(batches)

    def test_vanishes_after_four_lone_misses_over_two_minutes(self) -> None:
        """
        Only the fourth lone miss, two minutes after the first, makes a task vanish.
        """
        made = watched()
        at = due(made)
        made.missing(made.take_batch(at), at)
        first = self.lone(made)
        for _ in range(2):
            at = self.lone(made)
            assert [] == made.vanished(at)
        at = self.lone(made)
        assert 120.0 <= at - first
        assert ["a"] == made.vanished(at)
        assert ([], 0) == (made.vanished(at), len(made))
        assert made.next_due_at() is None

    def test_four_quick_misses_are_not_enough(self) -> None:
        """
        Lone misses hurried by nudges do not count as two minutes.
        """
        made = watched()
        made.missing(made.take_batch(100.0), 100.0)
        for second in range(6):
            now = 101.0 + second
            made.nudge("a", now)
            assert ["a"] == made.take_batch(now)
            made.missing(["a"], now)
            assert [] == made.vanished(now)
        assert 106.0 < due(made) <= 221.0
        made.take_batch(147.0)
        assert 221.0 == due(made)
        assert [] == made.vanished(220.9)
        assert ["a"] == made.vanished(221.0)

    def test_being_shown_again_clears_the_suspicion(self) -> None:
        """
        A suspect that a reply shows is asked about with the others again, and its misses are forgotten.
        """
        made = watched()
        made.missing(made.take_batch(100.0), 100.0)
        for _ in range(4):
            at = self.lone(made)
        made.looked(["a"], at)
        assert [] == made.vanished(at + 1000.0)
        assert "a" in made

    def test_a_failed_lone_look_is_no_miss(self) -> None:
        """
        A suspect whose lone poll failed is asked alone again, in ten seconds.
        """
        made = watched()
        made.missing(made.take_batch(100.0), 100.0)
        at = due(made)
        made.unanswered(made.take_batch(at), at)
        assert at < due(made) <= at + 10.0
        assert ["a"] == made.take_batch(due(made))

    def test_suspects_scale(self) -> None:
        """
        With a scaled policy the two minutes are as much shorter.
        """
        made = Schedule(PollPolicy().scaled(0.1), durations=Durations())
        made.add("a", kind=KIND, started_at=0.0, deadline_at=None)
        made.missing(made.take_batch(100.0), 100.0)
        for _ in range(4):
            at = self.lone(made)
        assert at < 114.0
        assert ["a"] == made.vanished(at)

    def test_suspects_and_others_take_turns(self) -> None:
        """
        Whatever is due longer goes first, so neither suspects nor others starve.
        """
        made = watched(["a", *names(50)], batch_size=50)
        at = due(made)
        made.missing(["a"], at)
        for task_id in made.take_batch(at):
            made.discard(task_id)
        made.add("new", kind=KIND, started_at=at + 15.0, deadline_at=None)
        assert [["a"], ["new"]] == [made.take_batch(at + 500.0), made.take_batch(at + 500.0)]

    def test_discarded_suspects_are_forgotten(self) -> None:
        """
        A suspect that is discarded is neither asked about nor reported as vanished.
        """
        made = watched()
        made.missing(made.take_batch(100.0), 100.0)
        for _ in range(4):
            at = self.lone(made)
        made.discard("a")
        assert ([], None) == (made.vanished(at + 1.0), made.next_due_at())


class TestDeadlines:
    def test_the_next_deadline_is_a_due_time(self) -> None:
        """
        The schedule wakes for a deadline as for a look.
        """
        made = watched(deadline_at=5.0)
        assert (5.0, 5.0) == (due(made), made.next_deadline_at())

    def test_overdue_tasks_are_removed_and_returned(self) -> None:
        """
        A task is overdue at its deadline, once, whether or not it is being asked about.
        """
        made = schedule()
        for number, task_id in enumerate(names(5)):
            made.add(task_id, kind=KIND, started_at=0.0, deadline_at=100.0 + number)
        made.take_batch(100.0)
        assert [] == made.overdue(99.9)
        assert names(3) == made.overdue(102.0)
        assert ([], 2) == (made.overdue(102.0), len(made))

    def test_tasks_without_a_deadline_are_never_overdue(self) -> None:
        """
        None means to wait for ever.
        """
        made = watched()
        assert ([], None) == (made.overdue(1e12), made.next_deadline_at())

    def test_of_two_deadlines_the_earlier_holds(self) -> None:
        """
        Adding a known task again keeps the earlier deadline, the earlier start and the schedule.
        """
        made = watched(deadline_at=500.0)
        before = made.take_batch(due(made))
        made.looked(before, 50.0)
        planned = due(made)
        for deadline_at in (600.0, None, 300.0, 400.0):
            made.add("a", kind=KIND, started_at=0.0, deadline_at=deadline_at)
        assert (planned, 1, 1) == (due(made), made.looks("a"), len(made))
        assert 300.0 == made.next_deadline_at()
        assert ["a"] == made.overdue(300.0)
        assert [] == made.overdue(1e6)

    def test_a_deadline_can_be_given_later(self) -> None:
        """
        A task without a deadline gets one when it is added with one, also while it is asked about.
        """
        made = watched()
        made.take_batch(100.0)
        made.add("a", kind=KIND, started_at=0.0, deadline_at=300.0)
        assert made.take_batch(200.0) == []
        made.looked(["a"], 100.0)
        assert ["a"] == look(made)[1]
        assert ["a"] == made.overdue(300.0)

    def test_an_ended_task_is_not_overdue(self) -> None:
        """
        The deadline of a task that has ended is forgotten, and no due time.
        """
        made = watched(["a", "b"], deadline_at=400.0)
        made.ended("a", 90.0)
        made.ended("b", 90.0)
        assert ([], None) == (made.overdue(400.0), made.next_due_at())

    def test_old_deadlines_do_not_pile_up(self) -> None:
        """
        Tasks that end long before their deadlines leave the schedule's memory.
        """
        made = schedule()
        for number in range(5_000):
            made.add(str(number), kind=KIND, started_at=float(number), deadline_at=number + 1e6)
            made.ended(str(number), number + 90.0, duration=90.0)
        assert len(made._deadlines) <= 1002


class TestFigures:
    @pytest.mark.parametrize("count", [1, 50, 1000])
    def test_every_task_that_ends_is_noticed_soon(self, count: int) -> None:
        """
        Played through, every task is noticed, and on average within a few seconds.
        """
        rng = random.Random(count)
        ends = {task_id: 100.0 * math.exp(rng.gauss(0, 0.4)) for task_id in names(count)}
        made = watched(ends)
        lags = []
        while len(made):
            now = due(made)
            batch = made.take_batch(now)
            for task_id in batch:
                if ends[task_id] <= now:
                    lags.append(now - ends[task_id])
                    made.ended(task_id, now, duration=ends[task_id])
            made.looked([task_id for task_id in batch if task_id in made], now)
        assert count == len(lags)
        assert sum(lags) / count < 5.0

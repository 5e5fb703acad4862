"""
How long to wait until the next look, in each mode, and what is learned for that.
"""

from __future__ import annotations

import itertools
import math

import pytest

from veo_async._policies import PollPolicy
from veo_async._track.durations import BINS, Durations
from veo_async._track.poll_intervals import Gaps
from veo_async._track.schedule import Schedule
from veo_async._track.waiting_tasks import Task

from .looks import KIND, due, gaps_of, learned, look, look_times, names, schedule, watched


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

        def gaps(*task_ids: str) -> set[float]:
            tasks = [Task(task_id, KIND, now - ages[task_id], None) for task_id in task_ids]
            told = Gaps(PollPolicy(max_gap=3600.0), learned(60.0)).after_look(tasks, now)
            return {gap for gap, _ in told}

        young, old = gaps("of an hour"), gaps("of days")
        assert {3600.0} == old
        for order in itertools.permutations(ages):
            both = gaps(*order)
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

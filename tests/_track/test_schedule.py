"""
What failures, callbacks and deadlines mean for whom to ask about, and when.
"""

from __future__ import annotations

import math
import random

import pytest

from veo_async._policies import PollPolicy
from veo_async._track.durations import Durations
from veo_async._track.schedule import Schedule

from .looks import KIND, due, gaps_of, look, names, schedule, watched


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
                made.answer_unreadable(asked[-1], at)
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
        made.answer_unreadable(made.take_batch(due(made)), 10.0)
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
        made.answer_late([*batch, "task-4"], 15.0)
        halves = [made.take_batch(15.0) for _ in range(4)]
        assert [[], ["task-0", "task-1", "task-2"], ["task-3"], ["task-4"]] == sorted(halves)
        made.answer_late(["task-3"], 20.0)
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
        made.answer_unreadable(made.take_batch(at), at, too_large=True)
        assert 25 == made.batch_size
        made.answer_unreadable(names(40), at, too_large=True)
        assert 20 == made.batch_size

    def test_who_alone_spoils_an_answer_is_asked_about_alone_and_more_rarely(self) -> None:
        """
        Soon at first, then every ten seconds; that is no miss, so it never vanishes.
        """
        made, times = watched(), []
        for _ in range(30):
            times.append(due(made))
            assert ["a"] == made.take_batch(times[-1])
            made.answer_unreadable(["a"], times[-1])
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
        made.answer_unreadable(["a", "b", "c"], at)
        assert [[], ["a"], ["b", "c"]] == sorted(made.take_batch(at + 60.0) for _ in range(3))

    def test_a_nudge_of_one_that_spoils_answers_is_heeded(self) -> None:
        """
        A callback that speaks of it while it is asked about has it asked about again at once.
        """
        for report in (Schedule.answer_unreadable, Schedule.unreadable):
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

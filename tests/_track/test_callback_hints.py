"""
What callbacks do to the schedule: when they are followed, how often, and what they teach.
"""

from __future__ import annotations

import pytest

from veo_async._policies import PollPolicy
from veo_async._track.callback_hints import MOST_HINTS, Hints
from veo_async._track.durations import Durations
from veo_async._track.schedule import Schedule

KIND = "text2video veo31-fast"
WINDOW = 0.05


def names(count: int) -> list[str]:
    return [f"task-{number}" for number in range(count)]


def watched(count: int, **policy: object) -> Schedule:
    """
    A schedule with tasks that were accepted at 0.
    """
    made = Schedule(PollPolicy(**policy), durations=Durations())  # type: ignore[arg-type]
    for task_id in names(count):
        made.add(task_id, kind=KIND, started_at=0.0, deadline_at=None)
    return made


def see_ends(made: Schedule, count: int, *, announced: bool) -> None:
    """
    Let tasks end, each announced by a callback or none.
    """
    for number in range(count):
        task_id = f"other-{number}"
        made.add(task_id, kind=KIND, started_at=-99.0, deadline_at=None)
        if announced:
            made.hint(task_id, 1.0)
        made.ended(task_id, 1.0, duration=100.0)


def due(schedule: Schedule) -> float:
    due_at = schedule.next_due_at()
    assert due_at is not None
    return due_at


class TestWindow:
    def test_hints_wait_for_others_until_the_first_ones_window_is_over(self) -> None:
        """
        Hints within the window share a request, which goes when the first has waited that long.
        """
        made = watched(5)
        for number, task_id in enumerate(names(3)):
            assert made.hint(task_id, 5.0 + number / 100, window=WINDOW)
        assert 5.05 == pytest.approx(due(made))
        assert [] == made.take_batch(5.03)
        assert names(3) == sorted(made.take_batch(5.05))

    def test_without_a_window_a_hint_is_followed_at_once(self) -> None:
        """
        A window of zero makes the task due now.
        """
        made = watched(2)
        made.hint("task-1", 5.0)
        assert 5.0 == due(made)
        assert ["task-1"] == made.take_batch(5.0)

    def test_a_shorter_window_counts_for_all(self) -> None:
        """
        Who is in a hurry takes along the hints that are not.
        """
        made = watched(2)
        made.hint("task-0", 5.0, window=1.0)
        made.hint("task-1", 5.1)
        assert ["task-0", "task-1"] == sorted(made.take_batch(5.1))

    def test_hints_that_fill_a_request_do_not_wait(self) -> None:
        """
        A full batch goes at once, however long the window.
        """
        made = watched(3, batch_size=2)
        made.hint("task-0", 5.0, window=10.0)
        assert 15.0 == due(made)
        made.hint("task-1", 5.0, window=10.0)
        assert 5.0 == due(made)

    def test_hints_ride_along_with_a_request_that_goes_anyway(self) -> None:
        """
        A look that is due by itself takes the hinted tasks along before their window is over.
        """
        made = watched(1)
        now = due(made)
        made.add("late", kind="another", started_at=now, deadline_at=None)
        made.hint("late", now, window=60.0)
        assert ["late", "task-0"] == sorted(made.take_batch(now))

    def test_a_request_for_hints_is_filled_up(self) -> None:
        """
        What room there is in it goes to looks that would be due soon.
        """
        made = watched(3)
        now = due(made) - 1.0
        made.hint("task-2", now)
        assert "task-2" == (batch := made.take_batch(now))[0]
        assert names(3) == sorted(batch)

    def test_a_hint_about_a_forgotten_task_is_forgotten(self) -> None:
        """
        When the only hinted task goes, nothing is left to wait for.
        """
        made = watched(1)
        made.hint("task-0", 5.0, window=WINDOW)
        made.discard("task-0")
        assert made.next_due_at() is None
        made.add("task-0", kind=KIND, started_at=5.0, deadline_at=None)
        assert due(made) > 10.0
        made.hint("task-0", 5.0)
        assert ["task-0"] == made.take_batch(5.0)

    def test_a_hint_that_was_followed_is_forgotten_with_its_task(self) -> None:
        """
        A task discarded while it is asked about leaves nothing behind.
        """
        made = watched(1)
        made.hint("task-0", 5.0)
        assert ["task-0"] == made.take_batch(5.0)
        made.discard("task-0")
        assert made.next_due_at() is None

    def test_the_other_hints_stay(self) -> None:
        """
        When one of two hinted tasks goes, the window of the other stands.
        """
        made = watched(2)
        made.hint("task-0", 5.0, window=WINDOW)
        made.hint("task-1", 5.0, window=WINDOW)
        made.discard("task-0")
        assert ["task-1"] == made.take_batch(5.05)


class TestBelief:
    def test_a_hint_about_nobody_changes_nothing(self) -> None:
        """
        An unknown task is not remembered.
        """
        made = watched(1)
        before = due(made)
        assert not made.hint("stranger", 5.0)
        assert before == due(made)

    def test_a_repeated_hint_changes_nothing(self) -> None:
        """
        Until somebody has looked, one hint is as good as ten.
        """
        made = watched(1)
        assert [True] + 9 * [False] == [made.hint("task-0", 5.0, window=WINDOW) for _ in range(10)]
        assert ["task-0"] == made.take_batch(5.05)
        assert not made.hint("task-0", 5.05) or made.take_batch(5.05) == []

    def test_a_task_is_hinted_at_a_bounded_number_of_times(self) -> None:
        """
        Who makes things up about a task that is pending gets a few looks, and then none.
        """
        made, looks, now = watched(1, mode="fixed", interval=500.0), 0, 0.0
        for _ in range(100):
            now += 1.0
            made.hint("task-0", now)
            batch = made.take_batch(now)
            looks += len(batch)
            made.looked(batch, now)
        assert MOST_HINTS == looks

    def test_a_hint_during_a_look_leads_to_another(self) -> None:
        """
        An answer under way may have been written before the end, so it does not speak for a newer hint.
        """
        made = watched(1)
        now = due(made)
        batch = made.take_batch(now)
        assert made.hint("task-0", now)
        made.looked(batch, now)
        assert batch == made.take_batch(now)

    def test_a_hint_whose_window_ends_during_a_look_leads_to_another(self) -> None:
        """
        The same where the hint was followed before the answer came.
        """
        made = watched(2, batch_size=1)
        now = due(made)
        [first] = made.take_batch(now)
        made.hint(first, now)
        made.take_batch(now)  # the other one
        made.looked([first], now)
        assert [first] == made.take_batch(now)

    def test_a_record_may_lag_behind_its_callback(self) -> None:
        """
        After a hint that a look did not bear out, the next look comes within the interval.
        """
        made = watched(1, first_look=1.0)
        made.hint("task-0", 2.0)
        made.looked(made.take_batch(2.0), 2.0)
        assert due(made) <= 5.0

    def test_a_missing_record_bears_nothing_out(self) -> None:
        """
        A hinted task that a reply leaves out can be hinted at again, and is then asked alone at once.
        """
        made = watched(1)
        made.hint("task-0", 5.0)
        made.missing(made.take_batch(5.0), 5.0)
        assert made.hint("task-0", 6.0)
        assert ["task-0"] == made.take_batch(6.0)

    def test_a_failed_poll_keeps_the_hint(self) -> None:
        """
        A hinted task whose poll failed is asked about again soon, and its hint still stands.
        """
        made = watched(1)
        made.hint("task-0", 5.0)
        made.unanswered(made.take_batch(5.0), 5.0)
        assert due(made) <= 6.0
        assert not made.hint("task-0", 5.5)


class TestTrust:
    @staticmethod
    def gap(*announced: bool, **policy: object) -> float:
        """
        The gap after a look in the middle of things, once twenty ends were announced, or were not, and then others.
        """
        made = watched(1, **policy)
        for one in announced:
            see_ends(made, 20, announced=one)
        made.looked(["task-0"], 100.0)
        return due(made) - 100.0

    @pytest.mark.parametrize("mode", ["learned", "fixed", "backoff"])
    def test_looks_are_rarer_while_callbacks_work(self, mode: str) -> None:
        """
        Gaps are longer in every mode, but never longer than ten seconds on that account.
        """
        before, after = self.gap(False, mode=mode), self.gap(True, mode=mode)
        assert before < after <= 10.0

    def test_gaps_that_are_long_already_stay(self) -> None:
        """
        An interval beyond ten seconds is the caller's own word.
        """
        assert 40.0 == self.gap(True, mode="fixed", interval=40.0)

    @pytest.mark.parametrize(("heard", "of", "expected"), [(5, 5, False), (20, 20, True), (10, 20, False)])
    def test_trust_takes_some_ends_and_nearly_all_of_them(self, heard: int, of: int, expected: bool) -> None:
        """
        A handful proves nothing yet, twenty do, and if half are lost looks come as often as without callbacks.
        """
        hints = Hints(50)
        for number in range(of):
            if number * heard // of != (number + 1) * heard // of:
                hints.add(str(number), 0.0, 0.0)
            hints.ended(str(number))
        assert expected is hints.working

    def test_trust_is_lost_quickly(self) -> None:
        """
        A few ends that nobody announced, and everything is as before.
        """
        made = watched(1)
        see_ends(made, 40, announced=True)
        see_ends(made, 3, announced=False)
        made.looked(["task-0"], 100.0)
        alone = watched(1)
        see_ends(alone, 43, announced=False)
        alone.looked(["task-0"], 100.0)
        assert due(alone) == due(made)

    def test_a_hint_before_the_last_look_announces_nothing(self) -> None:
        """
        What was made up about a pending task does not count when a poll sees it end later.
        """
        hints = Hints(50)
        for number in range(50):
            task_id = str(number)
            hints.add(task_id, 0.0, 0.0)
            assert [task_id] == hints.take()
            assert hints.checked(task_id)
            hints.ended(task_id)
        assert not hints.working

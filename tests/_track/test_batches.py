"""
Who shares a request, and when it goes.
"""

from __future__ import annotations

import pytest

from veo_async._policies import MOST_AT_ONCE

from .looks import KIND, due, look, names, schedule, watched


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

"""
Whom to ask about, and when: the schedule of looks.

A *look* is one task asked about once; a *request* carries a batch of looks.
Requests are what the server counts and what the budget limits; lag, the time from a task's end until
somebody notices, is what the caller feels.
Everything here trades the one for the other.
How long to wait until the next look is told by `poll_intervals`, who shares a request by `batches`; what a reply, a failure
or a callback means for them is decided here.

**When an answer cannot be read**, one of those asked about may be to blame, or their number. They are asked about
again by halves, each in a request of its own (*apart*), until it is found or all is well. From then on, whoever is
to blame is asked about alone, and so is whoever is left out of a reply (`missing_tasks`).

**When an answer is long in coming**, those asked about must not wait for it. They are asked about again, by halves
as well, so that a task that makes answers long is soon alone; the answer still counts when it comes.

**When callbacks come** (`callback_hints`), each is a reason to look at its task at once, or when its window closes, or
with the next request that goes anyway. What room there is in that request is filled as always, so it does the work
of polling as well; and as long as callbacks announce nearly every end, gaps are longer, up to `Gaps.even`.
A record that is still pending then may lag behind its callback, so the next look comes soon.
A task that a callback speaks of gets a head start of fixed length, which starves nobody.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from typing import Final

from attrs import define, evolve, field

from .._policies import PollPolicy
from .batches import Batches
from .callback_hints import RARER, Hints
from .durations import Durations
from .missing_tasks import Suspects
from .poll_intervals import Gaps
from .waiting_tasks import Task

__all__ = ["Schedule"]

NUDGED: Final = "nudged"  # no kind of request is called so
HEAD_START: Final = (
    60.0  # seconds of an unscaled policy; a task known to have ended passes looks that are overdue by less
)
FORGOTTEN: Final = 1000  # forgotten tasks that the heap of deadlines may hold besides as many as are known


@define(eq=False)
class Schedule:
    """
    Knows for every waiting task when the next look at it is due, and which tasks share a request.
    """

    _policy: PollPolicy
    _durations: Durations = field(kw_only=True)
    _gaps: Gaps = field(init=False)
    _batches: Batches = field(init=False)
    _hints: Hints = field(init=False)
    _suspects: Suspects = field(init=False)
    _tasks: dict[str, Task] = field(init=False, factory=dict)
    _declined: int = field(init=False, default=0)  # questions in a row
    _nudged: set[str] = field(init=False, factory=set)  # while they were being asked about
    _deadlines: list[Task] = field(init=False, factory=list)  # a heap; holds forgotten tasks for a while

    def __attrs_post_init__(self) -> None:
        self._gaps = Gaps(self._policy, self._durations)
        self._batches = Batches(self._policy, self._gaps.patience)
        self._hints = Hints(self._policy.batch_size)
        self._suspects = Suspects(self._gaps.scale)

    def __repr__(self) -> str:
        return f"<Schedule: {len(self._tasks)} tasks in {len(self._batches)} groups, {len(self._suspects)} suspects>"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    @property
    def batch_size(self) -> int:
        """
        How many tasks one request may ask about: what the policy says, or what the server takes.
        """
        return self._batches.size

    @property
    def slow_after(self) -> float:
        """
        After how many seconds an answer is long in coming, from a server that is quick as a rule.
        """
        return self._gaps.slow_after

    def looks(self, task_id: str) -> int:
        """
        Return how often the task was seen pending; 0 for an unknown one.
        """
        task = self._tasks.get(task_id)
        return task.looks if task else 0

    def expected_at(self, task_id: str) -> float | None:
        """
        Return when tasks of its kind that began with it have mostly ended; None where its beginning is not known.
        """
        task = self._tasks.get(task_id)
        return self._gaps.expected_at(task) if task else None

    # --- tasks come and go -----------------------------------------------------------------------------

    def add(
        self, task_id: str, *, kind: str, started_at: float, deadline_at: float | None, found: bool = False
    ) -> float:
        """
        Watch the task from now on; of a known one, the earlier start and the earlier deadline hold.

        Returns when anything is due on its account at the earliest.

        Args:
            kind: what its duration is learned under (action, model, resolution).
            started_at: when it was accepted, on the monotonic clock; may lie in the past.
            deadline_at: when to give up, or None.
            found: it was accepted some time before `started_at`, nobody knows when.
        """
        known = self._tasks.get(task_id)
        if known is not None:
            self._merge(known, started_at, deadline_at)
            return -math.inf
        task = self._tasks[task_id] = Task(task_id, kind, started_at, deadline_at, found=found)
        due_at = started_at + self._gaps.first(kind)
        self._batches.queue(task, due_at, among=kind)
        self._expect(task)
        return due_at if deadline_at is None else min(due_at, deadline_at)

    def discard(self, task_id: str) -> None:
        """
        Forget the task, known or not.
        """
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._batches.remove(task)
            self._suspects.forget(task_id)
            self._nudged.discard(task_id)
            self._hints.forget(task_id)

    def ended(self, task_id: str, now: float, *, duration: float | None = None) -> None:
        """
        Forget the task, whose terminal record was seen, and learn how long it took.

        Args:
            duration: seconds by the record's own times; None where they do not tell.
        """
        task = self._tasks.get(task_id)
        if task is None:
            return
        self._gaps.learn(task, now, duration)
        self._hints.ended(task_id)
        self.discard(task_id)

    def overdue(self, now: float) -> list[str]:
        """
        Forget and return the tasks that are past their deadline.
        """
        late: list[str] = []
        while (deadline_at := self.next_deadline_at()) is not None and deadline_at <= now:
            late.append(heappop(self._deadlines).id)
            self.discard(late[-1])
        return late

    def next_deadline_at(self) -> float | None:
        """
        Return when the next deadline passes; None when there is none.
        """
        heap = self._deadlines
        while heap and self._tasks.get(heap[0].id) is not heap[0]:
            heappop(heap)
        return heap[0].deadline_at if heap else None

    def _merge(self, task: Task, started_at: float, deadline_at: float | None) -> None:
        task.started_at = min(task.started_at, started_at)
        if deadline_at is None or (task.deadline_at is not None and task.deadline_at <= deadline_at):
            return
        # A key inside a heap must not change: the task gets a new record, and the old one is forgotten.
        group = task.group
        task.leave()
        changed = self._tasks[task.id] = evolve(task, deadline_at=deadline_at)
        if group is not None:
            self._batches.put([changed], group.due_at, latest_at=group.latest_at)
        self._expect(changed)

    def _expect(self, task: Task) -> None:
        if task.deadline_at is None:
            return
        heappush(self._deadlines, task)
        if len(self._deadlines) > 2 * len(self._tasks) + FORGOTTEN:
            self._deadlines = [kept for kept in self._deadlines if self._tasks.get(kept.id) is kept]
            heapify(self._deadlines)

    # --- whom to ask about, and when -------------------------------------------------------------------

    def next_due_at(self) -> float | None:
        """
        Return when the next request should go, a deadline passes or a task has vanished; None when nothing waits.
        """
        times = [self._batches.next_at(), self._hints.ask_at, self.next_deadline_at()]
        if self._suspects:
            times += self._suspects.next_at(), self._suspects.next_vanished_at()
        return min((at for at in times if at is not None), default=None)

    def take_batch(self, now: float) -> list[str]:
        """
        Return the ids to ask about in one request now, none if none is due; each is taken until reported on.
        """
        self._follow_hints(now)
        request_at, lone_at = self._batches.next_at(), self._suspects.next_at()
        if lone_at is not None and lone_at <= now and (request_at is None or lone_at <= request_at):
            return [self._suspects.take()]
        if request_at is None or request_at > now:
            return []
        return [task.id for task in self._batches.take(now + self._gaps.even)]

    def nudge(self, task_id: str, now: float) -> None:
        """
        Make the task due at once: it may well have ended.
        """
        task, due_at = self._tasks.get(task_id), now - HEAD_START * self._gaps.scale
        if task is None or self._suspects.hurry(task_id, due_at):
            return
        if task.group is None:
            self._nudged.add(task_id)  # the answer under way may have been written before the end
        elif task.group.due_at > due_at:
            self._batches.queue(task, due_at, among=NUDGED)

    def hint(self, task_id: str, now: float, *, window: float = 0.0) -> bool:
        """
        Make the task due within `window` seconds: a callback says that it has ended.

        Those of which callbacks speak by then share a request. Tells whether the hint changes anything.
        """
        return task_id in self._tasks and self._hints.add(task_id, now, window)

    def _follow_hints(self, now: float) -> None:
        """
        Make the tasks of which callbacks speak due, if their window is over or a request goes anyway.
        """
        ask_at, request_at = self._hints.ask_at, self._batches.next_at()
        if ask_at is None:
            return
        if ask_at <= now or (request_at is not None and request_at <= now):
            for task_id in self._hints.take():
                self.nudge(task_id, now)

    # --- what came of it -------------------------------------------------------------------------------

    def looked(self, task_ids: Iterable[str], now: float) -> None:
        """
        Take note that these are still pending, and plan the next look at them.
        """
        tasks = self._known(task_ids)
        if self._suspects:
            for task in tasks:
                self._suspects.forget(task.id)
        gaps = self._as_hinted(self._gaps.after_look(tasks, now))
        self._batches.put_by_gap(gaps, now, latest=self._gaps.even)
        self._renew_nudges(tasks, now)

    def _as_hinted(self, gaps: Iterable[tuple[float, list[Task]]]) -> Iterator[tuple[float, list[Task]]]:
        """
        Change the gaps after a look, each given with whom it concerns, as callbacks ask for it.
        """
        hints, interval = self._hints, self._policy.interval
        for gap, tasks in gaps:
            if not hints and not hints.working:
                yield gap, tasks
                continue
            rarer = max(gap, min(RARER * gap, self._gaps.even)) if hints.working else gap
            for task in tasks:
                yield (min(gap, interval) if self._is_checked(task) else rarer), [task]

    def _is_checked(self, task: Task) -> bool:
        """
        Tell whether this look was the answer to a hint, and take it as one.
        """
        return bool(self._hints) and task.id not in self._nudged and self._hints.checked(task.id)

    def unanswered(self, task_ids: Iterable[str], now: float, *, declined: bool = False) -> None:
        """
        Ask about these again soon: the poll itself failed, and no look is counted.

        Args:
            declined: the server is well and did not want to answer, which the gate lets pass; so it is asked
                ever more rarely until it does.
        """
        tasks = self._known(task_ids)
        again = [task for task in tasks if task.id not in self._suspects]
        delay = self._gaps.after_refusals(self._declined) if declined else self._gaps.retry
        self._declined += declined
        if again:
            self._batches.put(again, now + delay)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.unanswered(task.id, now)
        self._renew_nudges(tasks, now)

    def spoilt(self, task_ids: Sequence[str], now: float, *, too_large: bool = False) -> None:
        """
        Ask about these again soon, in two halves: what came as an answer could not be read.

        One of them may be to blame, or their number; halves of halves find that out, at the cost of few.

        Args:
            too_large: it was their number, so fewer are asked about at once from now on.
        """
        if len(task_ids) == 1:
            self.unreadable(task_ids, now)
            return
        if too_large:
            self._batches.shrink(len(task_ids))
        tasks = self._known(task_ids)
        self._halve(tasks, now + self._gaps.retry)
        self.unreadable([task_id for task_id in task_ids if task_id in self._suspects], now)
        self._renew_nudges(tasks, now)

    def overlong(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these again at once, in two halves, beside the question whose answer is long in coming.
        """
        tasks = self._known(task_ids)
        self._halve(tasks, now)
        for task in tasks:
            if task.id in self._suspects:
                self._suspects.ask_at(task.id, now)

    def waiting(self, task_ids: Iterable[str]) -> list[str]:
        """
        Return those of these that nobody is asking about right now.
        """
        return [task.id for task in self._known(task_ids) if task.group is not None]

    def _halve(self, tasks: list[Task], due_at: float) -> None:
        half = (len(tasks) + 1) // 2
        tasks = [task for task in tasks if task.id not in self._suspects]
        for some in filter(None, (tasks[:half], tasks[half:])):
            self._batches.put(some, due_at, apart=True)

    def unreadable(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about each of these alone: they are known, and what is said of them could not be read.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.unreadable(task.id, now)
        self._renew_nudges(tasks, now)

    def missing(self, task_ids: Iterable[str], now: float) -> None:
        """
        Ask about these alone, later: a well-formed reply left them out.
        """
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            self._suspects.missed(task.id, now)
            self._is_checked(task)
        self._renew_nudges(tasks, now)

    def vanished(self, now: float) -> list[str]:
        """
        Forget and return the tasks that the server has not known for long enough.
        """
        gone = self._suspects.vanished(now)
        for task_id in gone:
            self.discard(task_id)
        return gone

    def answered(self, size: int) -> None:
        """
        Take note that the server answers so many at once.
        """
        self._batches.answered(size)
        self._declined = 0

    def refused(self, task_ids: Sequence[str], now: float) -> None:
        """
        Ask about these in another way: the server refused the question.

        More at once than it has ever answered are halved, for good; else one of them is to blame, and each is
        asked alone. Where that shows which, it was no matter of size.
        """
        size = len(task_ids)
        if self._batches.refused(size):
            self.unanswered(task_ids, now)
            return
        tasks = self._known(task_ids)
        for task in tasks:
            task.leave()
            if self._suspects.refused(task.id, now) and size == 1:
                self._batches.restore()
        self._renew_nudges(tasks, now)

    def _known(self, task_ids: Iterable[str]) -> list[Task]:
        return list(filter(None, map(self._tasks.get, dict.fromkeys(task_ids))))

    def _renew_nudges(self, tasks: list[Task], now: float) -> None:
        for task in tasks if self._nudged else ():
            if task.id in self._nudged:
                self._nudged.discard(task.id)
                self.nudge(task.id, now)

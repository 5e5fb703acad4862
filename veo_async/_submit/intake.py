"""
Where jobs come in when there is a journal: each is written down, many at once, before it is queued.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from attrs import define, field

from .._api.marks import label
from .._api.stored import dump_request
from .._jobs.job import Job, JobState
from .._journal import facts
from .._journal.sqlite import Journal
from ..errors import JournalError
from .submission import Submission, SubmitterHost

__all__ = ["Intake"]

TAKEN_IN_AT_ONCE: Final = 500  # jobs written down in one go; more would hold the event loop


@define(eq=False)
class Intake:
    """
    Writes jobs down, and hands over those that the journal knows already.

    Attributes:
        begin: takes what is to be sent, or looked for.
        wall: the local clock, in Unix seconds.
        arrivals: what waits to be written down.
    """

    journal: Journal
    host: SubmitterHost
    begin: Callable[[Submission], None]
    wall: Callable[[], float]
    arrivals: deque[Submission] = field(init=False, factory=deque)
    _unwritten: set[Job] = field(init=False, factory=set)
    _task: asyncio.Task[None] | None = field(init=False, default=None)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """
        The task that writes, while there is one.
        """
        return [] if self._task is None else [self._task]

    def put(self, submission: Submission) -> None:
        """
        Take a job in; it is queued once it is written down.
        """
        self.arrivals.append(submission)
        self._unwritten.add(submission.job)
        if self._task is None:
            self._task = asyncio.create_task(self._take_in(), name="veo_async intake")
            self._task.add_done_callback(self._taken_in)

    async def _take_in(self) -> None:
        while self.arrivals:
            count = min(len(self.arrivals), TAKEN_IN_AT_ONCE)
            batch = [self.arrivals.popleft() for _ in range(count)]
            try:
                for submission in await self._written_down(batch):
                    self.begin(submission)
            except JournalError as error:
                for submission in batch:
                    self._unwritten.discard(submission.job)
                    if submission.job.state is JobState.QUEUED:  # else the journal knew it already
                        self.host.stop(submission.job, JournalError(*error.args))
        # Not in the callback: that runs a turn later, and what arrives in between would be left lying.
        self._task = None

    def _taken_in(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (fault := task.exception()):
            self.host.failed(fault)

    async def _written_down(self, batch: Sequence[Submission]) -> list[Submission]:
        """
        Write down what is new, and hand over what the journal knows already.
        """
        keys = [submission.job.key for submission in batch if submission.keyed]
        known = await self.journal.find_many(keys) if keys else {}
        fresh = [
            submission
            for submission in batch
            if not submission.job.done() and not self._is_known(submission, known)
        ]
        now = self.wall()
        self._unwritten.difference_update(s.job for s in batch if not s.look_first)
        looked_for = [submission.job for submission in fresh if submission.look_first]
        for job in looked_for:
            job.attempts += job.attempts > 0  # after those that the journal knows already
        await self.journal.write(
            *(
                facts.Intended(key=s.job.key, request=dump_request(s.request), at=now)
                for s in fresh
                if s.request
            ),
            *(
                facts.Sending(key=job.key, attempt=job.attempts, at=now, mark=label(job.key, job.attempts))
                for job in looked_for
            ),
        )
        # Not before: an attempt goes with these, after which nothing can be withdrawn until it is closed.
        self._unwritten.difference_update(s.job for s in batch)
        return fresh

    def _is_known(self, submission: Submission, known: Mapping[str, facts.Entry]) -> bool:
        entry = known.get(submission.job.key)
        return entry is not None and self.host.take_up(submission, entry)

    def withdraw(self, job: Job) -> None:
        """
        Take back the intention of a job that will not be sent.
        """
        # Before it is written down, the journal knows of the key at most an earlier purchase, which stays.
        if self.journal.failure is None and job not in self._unwritten:
            self.journal.write_soon(facts.Withdrawn(key=job.key, at=self.wall()))

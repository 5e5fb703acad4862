"""
Writes new jobs to the journal, in batches, before they are sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from attrs import define, field

from .._api.journal_text import dump_request
from .._http.limiter import sleep
from .._jobs.job import Job, stop
from .._jobs.registry import mismatch
from .._journal.facts import Elsewhere, Entry, Fresh, Known, Standing, TakeIn
from .._journal.journal import AnyJournal
from ..errors import JournalError
from .recovery import Resumption
from .submission import AttemptLog, Submission

__all__ = ["Intake"]

TAKEN_IN_AT_ONCE: Final = 500  # jobs in one batch; more would block the event loop


@define(eq=False)
class Intake:
    """
    Writes jobs down, and resumes those that the journal knows already.

    A job whose key another session holds waits here until the key has settled or become free.
    """

    journal: AnyJournal | None
    attempt_log: AttemptLog
    resumption: Resumption
    _arrivals: deque[Submission] = field(init=False, factory=deque)
    _unwritten: set[Job] = field(init=False, factory=set)
    _elsewhere: dict[str, Submission] = field(init=False, factory=dict)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)

    def put(self, submission: Submission) -> None:
        """
        Write a job down soon, or send it on at once where there is no journal.
        """
        if self.journal is None:
            self.resumption.begin(submission)
        else:
            self._arrivals.append(submission)
            self._unwritten.add(submission.job)
            self._woken.set()

    def withdraw(self, job: Job) -> None:
        """
        Withdraw the intention of a job that will not be sent.
        """
        # A job that is not written down yet has no intention in the journal, only perhaps an earlier purchase;
        # the intention of one that waits for another session is that session's.
        if self._elsewhere.pop(job.key, None) is None and job not in self._unwritten:
            self.attempt_log.withdraw(job.key)

    async def run(self) -> None:
        """
        Write down the jobs that come in, until cancelled.
        """
        while self.journal is not None:
            while self._arrivals:
                count = min(len(self._arrivals), TAKEN_IN_AT_ONCE)
                batch = [self._arrivals.popleft() for _ in range(count)]
                try:
                    await self._take_in(self.journal, [one for one in batch if not one.job.done()])
                except JournalError as error:
                    await self._give_up(self.journal, batch, error)
                self._unwritten.difference_update(submission.job for submission in batch)
            await sleep(self._woken, until=None)

    async def follow(self) -> None:
        """
        Retry the keys that another session holds whenever one of them may have settled or become free.

        Then there may also be a place for a job that the account's limits hold back.
        """
        while self.journal is not None:
            changed = await self.journal.changed()
            self.resumption.queue.ask_again(any_key=not changed)
            for key in [*self._elsewhere]:
                if key in changed or not changed:
                    self.put(self._elsewhere.pop(key))

    async def _take_in(self, journal: AnyJournal, batch: Sequence[Submission]) -> None:
        """
        Write down the jobs that buy, look up the keys of those that only attach, and pass each one on.
        """
        buying = [(submission, submission.request) for submission in batch if submission.request]
        looking = [submission for submission in batch if not submission.request]
        now = self.attempt_log.wall()
        items = [
            TakeIn(
                key=one.job.key,
                request=dump_request(request),
                at=now,
                retry_failed=one.retry_failed,
                look_first=one.look_first,
            )
            for one, request in buying
        ]
        standings = await journal.take_in(items)
        entries = await journal.find_many([one.job.key for one in looking]) if looking else {}
        for (submission, _), standing in zip(buying, standings, strict=True):
            self._go_on(submission, standing)
        for submission in looking:
            entry = entries.get(submission.job.key)
            self._go_on(submission, Fresh() if entry is None else Known(entry))

    def _go_on(self, submission: Submission, standing: Standing) -> None:
        job = submission.job
        if isinstance(standing, Fresh):
            job.attempts, job.first_attempt = standing.earlier, standing.failed + 1
            job.attempts += submission.look_first and job.attempts > 0  # as the journal numbers it
            if job.done() and not submission.look_first:  # abandoned meanwhile
                self.attempt_log.withdraw(job.key)
            elif submission.request or not job.done():  # the search is in the journal now, so it must end
                self.resumption.begin(submission)
        elif isinstance(standing, Elsewhere):
            self._wait_for(submission, standing.entry)
        elif not job.done() and not self.resumption.take_up(submission, standing.entry):
            self.resumption.begin(submission)

    def _wait_for(self, submission: Submission, entry: Entry) -> None:
        request = submission.request
        if request is not None and entry.request != dump_request(request):
            stop(submission.job, mismatch(entry))
        else:
            self._elsewhere[submission.job.key] = submission

    async def _give_up(self, journal: AnyJournal, batch: Sequence[Submission], error: JournalError) -> None:
        """
        Stop the jobs that cannot be written down, but resume those that the journal knew before.
        """
        entries: dict[str, Entry] = {}
        with suppress(JournalError):
            entries = await journal.find_many([one.job.key for one in batch])
        for submission in batch:
            entry = entries.get(submission.job.key)
            if submission.job.done() or entry is None or not self.resumption.take_up(submission, entry):
                stop(submission.job, JournalError(*error.args))

"""
One job being submitted, and what is written to the journal about it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from attrs import define, field

from .._api.journal_text import dump_refusal
from .._api.replies import Accepted
from .._api.requests import Request
from .._http.transport import Outgoing
from .._jobs.job import Job, JobState
from .._journal import facts
from .._journal.journal import AnyJournal
from ..errors import ApiError, JournalError, SessionClosed, SubmissionUnknown, VeoError
from .listed_tasks import HOUR
from .sending_again import Attempt

__all__ = ["AttemptLog", "Submission", "ended_early"]

NOT_SENT: Final = "the session ended first; the request was not sent"
GOES_ON: Final = "the session ended first; the task goes on: resume it with its key, resume() or attach()"
UNKNOWN: Final = "the session ended before it was known whether the task was accepted"

log = logging.getLogger("veo_async")


@define(eq=False)
class Submission:
    """
    One job being submitted.
    """

    job: Job
    request: Request | None  # None if the job only looks for the key's task
    queued_at: float  # on the event loop's clock
    place: int = field(init=False, default=0)  # in the queue, by the order of arrival
    retry_failed: bool = False  # whether to buy again if the key's task failed
    look_first: bool = False  # whether another process may have bought the key
    attached: bool = False  # whether the job only waits for what was bought already, and is never sent
    outgoing: Outgoing | None = None  # the body of the current attempt
    attempt: Attempt | None = None  # the attempt that may have bought something
    sent_at: float = 0.0  # when that attempt began, in Unix seconds by the local clock
    task_id: str | None = None  # the task that the answer named, until it is written down
    called: str | None = None  # the task that a callback named before the answer came

    def attempted(
        self,
        *,
        mark: str | None,
        began_at: float,
        sent_at: float,
        number: int | None = None,
        reach: float = HOUR,
        skip_failed: bool = False,
    ) -> Attempt:
        """
        Note that an attempt begins, or may have been made elsewhere.

        Args:
            number: the attempt's number; by default the job's last one.
        """
        self.sent_at = sent_at
        self.attempt = Attempt(
            key=self.job.key,
            number=self.job.attempts if number is None else number,
            mark=mark,
            began_at=began_at,
            reach=reach,
            first=self.job.first_attempt,
            skip_failed=skip_failed,
            may_send=self.request is not None,
            own_url=self.request.callback_url if self.request else None,
        )
        return self.attempt


def ended_early(job: Job, submission: Submission | None) -> VeoError:
    """
    Make the error of a job whose session ends before its task does.
    """
    is_out = submission is not None and submission.outgoing is not None and submission.outgoing.left
    if job.state is JobState.QUEUED or (job.state is JobState.SUBMITTING and not is_out):
        return SessionClosed(NOT_SENT)
    task_id = job.task_id or (submission.task_id if submission else None)
    if task_id is not None:
        return SessionClosed(GOES_ON, task_id=task_id)
    return SubmissionUnknown(UNKNOWN, sent_at=submission.sent_at if submission else None)


@define(eq=False)
class AttemptLog:
    """
    Writes the outcomes of attempts to the journal, if there is one.
    """

    journal: AnyJournal | None
    wall: Callable[[], float]  # the local clock, in Unix seconds
    freed: Callable[[str], None]  # told of each key that has bought nothing, and will not be sent

    async def sending(self, attempt: Attempt, at: float) -> None:
        """
        Make it durable that an attempt is about to be sent; on an error it must not be sent.
        """
        if self.journal is not None:
            fact = facts.Sending(key=attempt.key, attempt=attempt.number, at=at, mark=attempt.mark)
            await self.journal.write(fact)

    async def claim(self, attempt: Attempt, outcome: Accepted) -> bool:
        """
        Make a job's claim to its task durable, before anybody sees the id; False if another purchase has the task.
        """
        task_id, trace_id = outcome.task_id, outcome.trace_id
        fact = facts.Accepted(key=attempt.key, task_id=task_id, trace_id=trace_id, at=self.wall())
        try:
            await self._write(fact, task_id=task_id)
        except facts.AlreadyClaimed:
            return False
        return True

    async def close(self, attempt: Attempt, refused: ApiError | None = None) -> None:
        """
        Make it durable that an attempt bought nothing: it was refused, or not sent.
        """
        await self._write(self._closed(attempt, refused))
        if refused is not None:
            self.freed(attempt.key)

    def may_send(self, key: str) -> bool:
        """
        Tell, just before a body is sent, whether this session still holds the key.
        """
        return self.journal is None or self.journal.may_send(key)

    def close_soon(self, attempt: Attempt, refused: ApiError | None = None) -> None:
        """
        Write down in the background that an attempt bought nothing.
        """
        if self.journal is not None:
            self.journal.write_soon(self._closed(attempt, refused))

    def withdraw(self, key: str) -> None:
        """
        Withdraw the intention of a job that will not be sent.
        """
        self.freed(key)
        if self.journal is not None and self.journal.failure is None:
            self.journal.write_soon(facts.Withdrawn(key=key, at=self.wall()))

    async def disown(self, key: str, task_id: str) -> None:
        """
        Make it durable that a task is not the job's after all; if that fails, the claim stands until the task ends.
        """
        if self.journal is not None and self.journal.failure is None:
            with suppress(JournalError):
                await self.journal.write(facts.Disowned(key=key, task_id=task_id))

    def _closed(self, attempt: Attempt, refused: ApiError | None) -> facts.AttemptClosed:
        return facts.AttemptClosed(
            key=attempt.key,
            attempt=attempt.number,
            outcome="refused" if refused else "not_sent",
            at=self.wall(),
            reason=dump_refusal(refused) if refused else None,
        )

    async def _write(self, fact: facts.Accepted | facts.AttemptClosed, *, task_id: str | None = None) -> None:
        """
        Write a fact; if the journal fails, only log it: that must not cost the video.
        """
        try:
            if self.journal is not None:
                await self.journal.write(fact)
        except facts.AlreadyClaimed:
            raise
        except JournalError as error:
            log.error(
                "the journal failed (%s) and does not hold this: job %s, task %s", error, fact.key, task_id
            )

"""
What the journal, where there is one, is told of a job on its way to the server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from attrs import define

from .._api.replies import Accepted
from .._journal import facts
from .._journal.journal import AnyJournal
from ..errors import JournalError
from .reconciler import Attempt

__all__ = ["AttemptLog"]

log = logging.getLogger("veo_async")


@define(eq=False)
class AttemptLog:
    """
    Writes down what becomes of attempts.

    Attributes:
        wall: the local clock, in Unix seconds.
    """

    journal: AnyJournal | None
    wall: Callable[[], float]

    async def sending(self, attempt: Attempt, at: float) -> None:
        """
        Make it durable that an attempt is about to leave.

        Raises:
            JournalError: the disk failed, so it must not leave.
        """
        if self.journal is not None:
            fact = facts.Sending(key=attempt.key, attempt=attempt.number, at=at, mark=attempt.mark)
            await self.journal.write(fact)

    async def claim(self, attempt: Attempt, outcome: Accepted) -> bool:
        """
        Make it durable that a job has its task, before anybody sees the id; False where another purchase has it.
        """
        task_id, trace_id = outcome.task_id, outcome.trace_id
        fact = facts.Accepted(key=attempt.key, task_id=task_id, trace_id=trace_id, at=self.wall())
        try:
            await self._write(fact, task_id=task_id)
        except facts.AlreadyClaimed:
            return False
        return True

    async def close(self, attempt: Attempt, outcome: Literal["refused", "not_sent"]) -> None:
        """
        Make it durable that an attempt bought nothing.
        """
        await self._write(self._closed(attempt, outcome))

    def close_soon(self, attempt: Attempt) -> None:
        """
        Write down in the background that an attempt bought nothing.
        """
        if self.journal is not None:
            self.journal.write_soon(self._closed(attempt, "not_sent"))

    def withdraw(self, key: str) -> None:
        """
        Take back the intention of a job that will not be sent.
        """
        if self.journal is not None and self.journal.failure is None:
            self.journal.write_soon(facts.Withdrawn(key=key, at=self.wall()))

    async def disown(self, key: str, task_id: str) -> None:
        """
        Make it durable that a task is not the job's after all; else the claim stands until the task ends.
        """
        if self.journal is not None and self.journal.failure is None:
            with suppress(JournalError):
                await self.journal.write(facts.Disowned(key=key, task_id=task_id))

    def _closed(self, attempt: Attempt, outcome: Literal["refused", "not_sent"]) -> facts.AttemptClosed:
        return facts.AttemptClosed(key=attempt.key, attempt=attempt.number, outcome=outcome, at=self.wall())

    async def _write(self, fact: facts.Accepted | facts.AttemptClosed, *, task_id: str | None = None) -> None:
        """
        Write, or log what a disk that fails now does not hold: it must not cost the video.
        """
        try:
            if self.journal is not None:
                await self.journal.write(fact)
        except facts.AlreadyClaimed:
            raise
        except JournalError as error:
            log.error("the journal failed (%s): not held are job %s, task %s", error, fact.key, task_id)

"""
When a task has ended, writes its job's outcome down and then settles the job.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define

from .._api.journal_text import dump_outcome, load_outcome
from .._api.records import TaskState, Video, VideoResult
from .._api.requests import Request
from .._api.states import classify
from .._api.tasks import failure_of, video_result
from .._api.wire import trace_id_of
from .._journal import facts
from .._journal.journal import AnyJournal
from ..errors import JobError, JobFailed, JournalError, ProtocolError, VeoError
from .job import Job, JobState, settle
from .registry import Registry

__all__ = ["Outcomes", "read_outcome"]

log = logging.getLogger("veo_async")


@define(eq=False)
class Outcomes:
    """
    Settles jobs.

    Attributes:
        wall: reads the local clock, in Unix seconds.
    """

    registry: Registry
    journal: AnyJournal | None
    wall: Callable[[], float]

    async def end(self, ends: Sequence[tuple[str, Mapping[str, Any] | JobError]]) -> None:
        """
        Settle the jobs of tasks that have ended, or that are no longer tracked.
        """
        outcomes: list[tuple[Job, VideoResult | VeoError]] = []
        for task_id, end in ends:
            job = self.registry.by_task.get(task_id)
            if job is None:  # abandoned meanwhile
                continue
            if isinstance(end, JobError):
                outcomes.append((job, end))
            else:
                job.trace_id = job.trace_id or trace_id_of(end)
                outcomes.append((job, _outcome_of(job, task_id, end)))
        await self._write_down(outcomes)
        for job, outcome in outcomes:
            if not job.done():  # abandoned meanwhile
                self.settle(job, outcome)

    async def _write_down(self, outcomes: Sequence[tuple[Job, VideoResult | VeoError]]) -> None:
        if self.journal is None:
            return
        now = self.wall()
        lasting = [
            facts.Settled(
                key=job.key, failed=isinstance(outcome, JobFailed), outcome=dump_outcome(outcome), at=now
            )
            for job, outcome in outcomes
            if job.request is not None and isinstance(outcome, VideoResult | JobFailed)
        ]
        await self._keep(self.journal, lasting)

    async def _keep(self, journal: AnyJournal, lasting: Sequence[facts.Settled]) -> None:
        try:
            await journal.write(*lasting)
        except JournalError as error:
            if journal.failure is None and len(lasting) > 1:
                for fact in lasting:  # if the journal refuses one, the others are still written
                    await self._keep(journal, [fact])
            else:
                keys = " ".join(fact.key for fact in lasting)
                log.error("the journal does not hold the outcomes of the jobs %s: %s", keys, error)

    async def note_download(self, video: Video, path: Path) -> None:
        """
        Write down the path of a video's file, if the journal knows its task.
        """
        if self.journal is None or self.journal.failure is not None:
            return
        entry = (await self.journal.find_tasks([video.task_id])).get(video.task_id)
        if entry is not None and entry.settled_at is not None and not entry.failed:
            now = self.wall()
            await self.journal.write(
                facts.Downloaded(key=entry.key, video_id=video.id, path=_absolute(path), at=now)
            )

    def settle(self, job: Job, outcome: VideoResult | VeoError) -> None:
        """
        Settle a job; an error that does not mean that its task failed settles the handle only, not the purchase.
        """
        state = JobState.STOPPED
        if isinstance(outcome, VideoResult):
            state = JobState.SUCCEEDED
        elif isinstance(outcome, JobFailed):
            state = JobState.FAILED
        settle(job, state, outcome)


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # does not touch the disk, so a coroutine may call it


def read_outcome(outcome: str, request: Request | None) -> VideoResult | VeoError:
    """
    Read an outcome from the journal; if it cannot be read, return an error that does not quote it.
    """
    try:
        return load_outcome(outcome, request)
    except Exception as error:  # any fault of the text affects this purchase only
        return JournalError(
            "the journalled outcome cannot be read: it is damaged, or from another version"
            f" ({type(error).__name__}); attach() asks the server about the task again"
        )


def _outcome_of(job: Job, task_id: str, record: Mapping[str, Any]) -> VideoResult | VeoError:
    if classify(record) is TaskState.FAILED:
        return failure_of(task_id, record)
    try:
        return video_result(task_id, record, job.request)
    except ProtocolError as error:
        return error

"""
What follows when a task has ended: its job's outcome is written down, then shown; and what the end teaches is kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from attrs import define, field

from .._api.records import TaskState, Video, VideoResult
from .._api.requests import Request
from .._api.states import classify
from .._api.stored import dump_outcome, load_outcome
from .._api.tasks import failure_of, video_result
from .._api.wire import trace_id_of
from .._http.clock import ServerClock
from .._jobs.job import Job, JobState, settle
from .._jobs.registry import Registry
from .._journal import facts
from .._journal.sqlite import Journal
from .._track.durations import Durations
from .._track.tracker import Outcome
from ..errors import JobError, JobFailed, JournalError, ProtocolError, VeoError

__all__ = ["Endings", "read_outcome"]

NEAREST: Final = 1e9  # Unix seconds; a time before 2001 is none
FARTHEST: Final = 1e11  # nor one beyond the year 5000
KEEP_EVERY: Final = (
    100  # tasks that end between two writings of what was learned: losing some costs a few looks
)

log = logging.getLogger("veo_async")


@define(eq=False)
class Endings:
    """
    Settles jobs.

    Attributes:
        durations: what is learned of how long tasks take.
        forget: stops the watch over a task.
    """

    registry: Registry
    journal: Journal | None
    clock: ServerClock
    durations: Durations
    forget: Callable[[str], None]
    _noticed: int = field(init=False, default=0)
    _lag: float = field(init=False, default=0.0)
    _ended: int = field(init=False, default=0)

    async def recall_what_was_learned(self) -> None:
        """
        Take in what earlier sessions have learned of how long tasks take.
        """
        if self.journal is not None:
            self.durations.load(_read_learned(await self.journal.learned()))

    async def end(self, ends: Sequence[tuple[str, Outcome]]) -> None:
        """
        Settle the jobs of tasks that have ended, or that nothing more will be heard of.
        """
        outcomes: list[tuple[Job, VideoResult | VeoError]] = []
        for task_id, end in ends:
            self.forget(task_id)
            job = self.registry.by_task.get(task_id)
            if job is None:  # abandoned meanwhile
                continue
            if isinstance(end, JobError):
                outcomes.append((job, end))
            else:
                self._note_lag(end)
                job.trace_id = job.trace_id or trace_id_of(end)
                outcomes.append((job, _outcome_of(job, task_id, end)))
        await self._write_down(outcomes)
        for job, outcome in outcomes:
            if not job.done():  # abandoned meanwhile
                self.settle(job, outcome)
        self._ended += len(outcomes)
        if self._ended >= KEEP_EVERY:
            self.keep_what_was_learned()

    def _note_lag(self, record: Mapping[str, Any]) -> None:
        finished_at, server_now = record.get("finished_at"), self.clock.at(asyncio.get_running_loop().time())
        if (
            isinstance(finished_at, int | float)
            and NEAREST < finished_at < FARTHEST
            and server_now is not None
        ):
            self._noticed += 1
            self._lag += max(0.0, server_now - finished_at)

    @property
    def notice_lag(self) -> float | None:
        """
        Mean seconds from a task's end, where its record tells, to its being seen.
        """
        return self._lag / self._noticed if self._noticed else None

    async def _write_down(self, outcomes: Sequence[tuple[Job, VideoResult | VeoError]]) -> None:
        if self.journal is None:
            return
        now = self.clock.wall()
        lasting = [
            facts.Settled(
                key=job.key, failed=isinstance(outcome, JobFailed), outcome=dump_outcome(outcome), at=now
            )
            for job, outcome in outcomes
            if job.request is not None and isinstance(outcome, VideoResult | JobFailed)
        ]
        await self._keep(self.journal, lasting)

    async def _keep(self, journal: Journal, lasting: Sequence[facts.Settled]) -> None:
        try:
            await journal.write(*lasting)
        except JournalError as error:
            if journal.failure is None and len(lasting) > 1:
                for fact in lasting:  # one that the journal refuses must not cost the others their outcome
                    await self._keep(journal, [fact])
            else:
                keys = " ".join(fact.key for fact in lasting)
                log.error("the journal does not hold the outcomes of the jobs %s: %s", keys, error)

    async def note_download(self, video: Video, path: Path) -> None:
        """
        Write down where a video lies, if the journal knows its task.
        """
        if self.journal is None or self.journal.failure is not None:
            return
        entry = (await self.journal.find_tasks([video.task_id])).get(video.task_id)
        if entry is not None and entry.settled_at is not None and not entry.failed:
            now = self.clock.wall()
            await self.journal.write(
                facts.Downloaded(key=entry.key, video_id=video.id, path=_absolute(path), at=now)
            )

    def settle(self, job: Job, outcome: VideoResult | VeoError) -> None:
        """
        Settle a job for ever, or, with an error that tells no end, its handle alone.
        """
        state = JobState.STOPPED
        if isinstance(outcome, VideoResult):
            state = JobState.SUCCEEDED
        elif isinstance(outcome, JobFailed):
            state = JobState.FAILED
        settle(job, state, outcome)

    def keep_what_was_learned(self) -> None:
        """
        Write down how long tasks take, for sessions to come.
        """
        self._ended = 0
        if self.journal is not None and self.journal.failure is None:
            learned = self.durations.dump().items()
            self.journal.write_soon(
                *(facts.Learned(kind=kind, data=json.dumps(data)) for kind, data in learned)
            )


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # touches no disk, so it may be called from a coroutine


def read_outcome(outcome: str, request: Request | None) -> VideoResult | VeoError:
    """
    Read an outcome from the journal; one that cannot be read is an error that says so, and does not repeat it.
    """
    try:
        return load_outcome(outcome, request)
    except Exception as error:  # whatever is wrong with a text concerns this purchase alone
        return JournalError(
            "the journalled outcome cannot be read by this version, or is spoilt"
            f" ({type(error).__name__}); attach() asks the server about the task again"
        )


def _read_learned(learned: Mapping[str, str]) -> dict[str, Any]:
    """
    Read what was learned, and leave aside what cannot be read: it only saves a few looks.
    """
    read = {}
    for kind, data in learned.items():
        with suppress(ValueError, RecursionError):
            read[kind] = json.loads(data)
    return read


def _outcome_of(job: Job, task_id: str, record: Mapping[str, Any]) -> VideoResult | VeoError:
    if classify(record) is TaskState.FAILED:
        return failure_of(task_id, record)
    try:
        return video_result(task_id, record, job.request)
    except ProtocolError as error:
        return error

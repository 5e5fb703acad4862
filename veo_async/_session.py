"""
`VeoSession`: builds the rooms below, joins them, and closes them in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from copy import copy
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import aiohttp
from attrs import define, field, frozen

from ._access import base_url_from, token_from
from ._answers import Accepted
from ._download import Downloader
from ._durations import Durations
from ._feed import Item, feed
from ._gate import Gate, Limits, RetryPolicy
from ._http import AiohttpTransport, Http, Transport
from ._job import Job, JobState, advance, as_completed, looked, settle
from ._lane import Lane
from ._listing import list_tasks, or_none, retrieve, retrieve_many
from ._models import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TaskRecord,
    TaskState,
    TextToVideo,
    Upsample,
    Video,
)
from ._polling import PollPolicy, Schedule
from ._registry import Registry
from ._submit import Submitters
from ._tracker import Outcome, Tracker
from ._wire import classify, failure_of, is_id, read_batch, video_result
from .errors import (
    InvalidRequest,
    JobAbandoned,
    JobError,
    SessionClosed,
    UsageError,
    VeoError,
)

__all__ = ["SessionStats", "VeoSession"]

BURST: Final = 5  # polls that may go at once after a quiet time

log = logging.getLogger("veo_async")


@frozen(kw_only=True)
class SessionStats:
    """
    What a session has done so far.

    Attributes:
        jobs: how many jobs are in each state.
        requests: how many requests were sent, by kind: `submit`, `retrieve`, `retrieve_batch`, `list`.
        retries: how many of them repeated an earlier one.
        looks: how often a task was asked about; one request may look at many.
        notice_lag: seconds from a task's end to its being seen, the mean over the tasks whose records tell
            when they ended; None where none did.
    """

    jobs: Mapping[JobState, int]
    requests: Mapping[str, int]
    retries: int
    looks: int
    notice_lag: float | None


@define(eq=False, repr=False)
class _Running:
    """
    What exists only while a session is entered.
    """

    loop: asyncio.AbstractEventLoop
    transport: Transport
    http: Http
    submits: Lane
    submitters: Submitters
    tracker: Tracker
    downloader: Downloader
    tracking: asyncio.Task[None]


@define(eq=False, repr=False)
class VeoSession:
    """
    An async context manager through which videos are asked for.

        async with VeoSession() as veo:
            result = await veo.text_to_video("a whale breaching at golden hour")

    Args:
        token: falls back to `ACEDATACLOUD_API_TOKEN`.
        base_url: falls back to `ACEDATACLOUD_API_BASE_URL`, then to the public address.
        http: the caller's own `aiohttp.ClientSession`; it is not closed here.
        polling: when tasks are asked about.
        retry: how long to wait after failures.
        limits: what this session allows itself.

    Raises:
        ConfigurationError: the token or the base URL cannot be used.
    """

    _token: str | None = field(default=None, converter=token_from)
    _base_url: str | None = field(default=None, converter=base_url_from, kw_only=True)
    _http: aiohttp.ClientSession | None = field(default=None, kw_only=True)
    _polling: PollPolicy = field(factory=PollPolicy, kw_only=True)
    _retry: RetryPolicy = field(factory=RetryPolicy, kw_only=True)
    _limits: Limits = field(factory=Limits, kw_only=True)
    _transport: Transport | None = field(init=False, default=None)
    _registry: Registry = field(init=False, factory=Registry)
    _run: _Running | None = field(init=False, default=None)
    _closing: bool = field(init=False, default=False)
    _looks: int = field(init=False, default=0)
    _lags: int = field(init=False, default=0)
    _lag_total: float = field(init=False, default=0.0)

    def __repr__(self) -> str:
        counts = " ".join(f"{state.value}={n}" for state, n in self._registry.counts.items() if n)
        return f"<VeoSession {self._base_url} {'open' if self._run and not self._closing else 'closed'} {counts}>".replace(
            " >", ">"
        )

    # --- entering and leaving ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._run is not None:
            raise UsageError("a VeoSession is entered once: make a new one")
        loop = asyncio.get_running_loop()
        transport = self._transport or AiohttpTransport.over(
            self._http, limits=self._limits, token=self._token or ""
        )
        polls = Lane(Gate(retry=self._retry, rate=self._polling.budget, burst=BURST))
        submits = Lane(
            Gate(
                retry=self._retry,
                rate=self._limits.submits_per_second,
                max_in_flight=self._limits.max_in_flight,
                paid=True,
            )
        )
        http = Http(transport=transport, base_url=self._base_url or "", polls=polls, retry=self._retry)
        tracker = Tracker(
            schedule=Schedule(self._polling, durations=Durations()),
            lane=polls,
            poll=self._poll,
            settle=self._end,
            looked=self._looked,
            dead_after=self._retry.grace,
        )
        tracking = asyncio.create_task(tracker.run(), name="veo_async tracker")
        tracking.add_done_callback(self._tracking_ended)
        self._run = _Running(
            loop=loop,
            transport=transport,
            http=http,
            submits=submits,
            submitters=Submitters(http=http, lane=submits, limits=self._limits, host=self),
            tracker=tracker,
            tracking=tracking,
            downloader=Downloader(open=transport.open_file, look_up=self.retrieve, retry=self._retry),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run = self._entered()
        self._closing = True
        try:
            await run.submitters.close(self._retry.drain)
        finally:
            run.tracking.cancel()
            await asyncio.gather(run.tracking, return_exceptions=True)
            self._settle_the_rest()
            await run.transport.close()

    def _entered(self) -> _Running:
        """
        What runs, for a method that needs it.

        Raises:
            UsageError: the session is not entered, or is entered in another event loop.
        """
        if self._run is None or self._closing:
            raise UsageError("a VeoSession is used inside `async with`")
        try:
            here = asyncio.get_running_loop() is self._run.loop
        except RuntimeError:  # no event loop at all
            here = False
        if not here:
            raise UsageError("a VeoSession is used in the event loop it was entered in, and no other")
        return self._run

    @property
    def _running(self) -> _Running:
        assert self._run is not None, "only an entered session has jobs"
        return self._run

    # --- submitting -------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        *,
        key: str | None = None,
        timeout: float | None = None,
        retry_failed: bool = False,
    ) -> Job:
        """
        Ask for a video; returns at once, the sending happens in the background.

        Args:
            key: an idempotency key: the same key is the same job.
            timeout: the job's deadline in seconds after acceptance; None leaves it to `PollPolicy.deadline`.
            retry_failed: whether to buy again under a key whose task failed.

        Raises:
            KeyConflict: the key belongs to a different request.
            UsageError: the session is not entered.
        """
        run = self._entered()
        _check(request, key, timeout)
        known = self._registry.find(key, request) if key is not None else None
        if known and not (retry_failed and known.state is JobState.FAILED):
            return known
        job = Job(key or uuid.uuid4().hex, request, self, timeout)
        self._registry.add(job)
        run.submitters.put(job, request)
        return job

    def submit_many(self, requests: Iterable[Item]) -> list[Job]:
        """
        Ask for many videos; all requests are read and checked before any is submitted.

        Args:
            requests: requests, or pairs of an idempotency key and a request.

        Raises:
            KeyConflict: a key belongs to a different request.
            UsageError: the session is not entered.
        """
        self._entered()
        items = [_pair(item) for item in requests]
        for key, request in items:
            _check(request, key, None)
            if key is not None:
                self._registry.find(key, request)
        return [self.submit(request, key=key) for key, request in items]

    def map(
        self, requests: Iterable[Item] | AsyncIterable[Item], *, window: int = 1000, ordered: bool = False
    ) -> AsyncIterator[Job]:
        """
        Submit requests only as fast as their jobs settle, and yield the settled jobs.

        Leaving the loop ends the reading; what was submitted goes on.

        Args:
            requests: requests, or pairs of an idempotency key and a request; an endless iterable will do.
            window: how many jobs may be read and not yet yielded.
            ordered: yield in the order of the requests, not in that of settling.
        """
        self._entered()
        if window < 1:
            raise InvalidRequest(f"window must be at least 1, not {window}")

        def submit(item: Item) -> Job:
            key, request = _pair(item)
            return self.submit(request, key=key)

        return feed(requests, submit, window=window, ordered=ordered)

    def as_completed(self, jobs: Iterable[Job]) -> AsyncIterator[Job]:
        """
        Yield each job once it is settled, in the order in which they settle.

        A failed job is yielded, never raised: ask `job.exception()`.
        """
        return as_completed(jobs)

    def attach(self, task_id: str, *, timeout: float | None = None) -> Job:
        """
        Wait for a task that exists already.

        Args:
            timeout: the job's deadline in seconds from now; None leaves it to `PollPolicy.deadline`.
        """
        run = self._entered()
        if not is_id(task_id):
            raise InvalidRequest("task_id must be a task's id")
        if known := self._registry.by_task.get(task_id):
            return known
        job = Job(f"task:{task_id}", None, self, timeout)
        self._registry.add(job)
        run.submits.gate.entered()
        self._track(job, task_id, None)
        return job

    def text_to_video(self, prompt: str, **fields: Any) -> Job:
        """
        Submit a `TextToVideo`.
        """
        return self.submit(TextToVideo(prompt, **fields))

    def image_to_video(self, prompt: str, image_urls: Sequence[str], **fields: Any) -> Job:
        """
        Submit an `ImageToVideo`.
        """
        return self.submit(ImageToVideo(prompt, image_urls, **fields))

    def ingredients_to_video(
        self, image_urls: Sequence[str], prompt: str | None = None, **fields: Any
    ) -> Job:
        """
        Submit an `IngredientsToVideo`.
        """
        return self.submit(IngredientsToVideo(image_urls, prompt, **fields))

    def get_1080p(self, video: Video | str, **fields: Any) -> Job:
        """
        Submit a `Get1080p`.
        """
        return self.submit(Get1080p(video, **fields))

    def upsample(self, video: Video | str, target: str, **fields: Any) -> Job:
        """
        Submit an `Upsample`.
        """
        return self.submit(Upsample(video, target, **fields))

    def extend(self, video: Video | str, prompt: str | None = None, **fields: Any) -> Job:
        """
        Submit an `Extend`.
        """
        return self.submit(Extend(video, prompt, **fields))

    def reshoot(self, video: Video | str, motion_type: str, **fields: Any) -> Job:
        """
        Submit a `Reshoot`.
        """
        return self.submit(Reshoot(video, motion_type, **fields))

    def insert_object(self, video: Video | str, prompt: str, **fields: Any) -> Job:
        """
        Submit an `InsertObject`.
        """
        return self.submit(InsertObject(video, prompt, **fields))

    def remove_object(self, video: Video | str, image_mask: str, **fields: Any) -> Job:
        """
        Submit a `RemoveObject`.
        """
        return self.submit(RemoveObject(video, image_mask, **fields))

    # --- asking -----------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str | None = None, *, trace_id: str | None = None) -> TaskRecord:
        """
        Ask about one task, by its id or its trace id.

        Raises:
            TaskNotFound: there is none.
            ApiError: the server answered with an error.
            TransportError: no answer came.
        """
        return await retrieve(self._entered().http, task_id=task_id, trace_id=trace_id)

    async def retrieve_many(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        """
        Ask about many tasks; ids that the server does not know are absent.

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came.
        """
        return await retrieve_many(self._entered().http, task_ids, at_once=self._polling.batch_size)

    def list_tasks(
        self,
        *,
        created_from: datetime | float | None = None,
        created_to: datetime | float | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        limit: int | None = None,
    ) -> AsyncIterator[TaskRecord]:
        """
        Go through the caller's own tasks, page by page.

        Args:
            created_from, created_to: aware datetimes or Unix seconds; whether the bounds belong to the range
                is not documented.
            type: the server's word for the kind of task, such as `videos`.
            limit: how many at most.
        """
        return list_tasks(
            self._entered().http,
            created_from=created_from,
            created_to=created_to,
            type=type,
            limit=limit,
        )

    async def download(
        self,
        video: Video,
        destination: str | os.PathLike[str],
        *,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> Path:
        """
        Fetch a video's file; neither the token nor cookies go to its host.

        Args:
            destination: a file, or an existing directory.
            progress: called with the bytes done and the bytes in all, or None where that is not known.

        Raises:
            DownloadError: the file could not be fetched whole, or could not be written.
        """
        return await self._entered().downloader.download(video, destination, progress=progress)

    async def resume(self) -> list[Job]:
        """
        Take up the unsettled jobs of the journal.

        Raises:
            UsageError: the session has no journal.
        """
        self._entered()
        raise UsageError("this session has no journal to resume from")

    def notify(self, payload: object) -> bool:
        """
        Take a callback's parsed body as a hint to look at its task now; tells whether anybody waits for it.

        Never raises on what is in it, and never believes it: only the API's own record settles a job.
        """
        task_id = payload.get("task_id") if isinstance(payload, dict) else None
        if (
            self._run is None
            or self._closing
            or not isinstance(task_id, str)
            or task_id not in self._registry.by_task
        ):
            return False
        self._run.tracker.nudge(task_id)
        return True

    @property
    def stats(self) -> SessionStats:
        """
        What the session has done so far.
        """
        return SessionStats(
            jobs={state: self._registry.counts[state] for state in JobState},
            requests=dict(self._run.http.requests) if self._run else {},
            retries=self._run.http.retries if self._run else 0,
            looks=self._looks,
            notice_lag=self._lag_total / self._lags if self._lags else None,
        )

    # --- what the rooms below ask for -------------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """
        The event loop of this session.
        """
        return self._running.loop

    def moved(self, job: Job, before: JobState) -> None:
        """
        Keep count of a change of state.
        """
        self._registry.moved(job, before)
        if before is JobState.PENDING:
            self._left()

    def abandon(self, job: Job) -> None:
        """
        Stop waiting for a job.
        """
        if not job.done():
            if job.task_id is not None:
                self._running.tracker.forget(job.task_id)
            self.stop(job, JobAbandoned("abandoned; what was accepted goes on at the server"))

    async def accepted(self, job: Job, outcome: Accepted) -> None:
        """
        Take over a job whose task the server has.
        """
        if job.done():  # abandoned meanwhile
            log.info("task %s was accepted for an abandoned job", outcome.task_id)
            self._left()
            return
        other = self._registry.by_task.get(outcome.task_id)
        if other is not None:
            # The server gave one task for two submits: then one look serves both.
            log.warning("task %s answers two jobs, %s and %s", outcome.task_id, other.key, job.key)
            self._left()
            other.add_done_callback(lambda settled: self._share(settled, job))
            return
        self._track(job, outcome.task_id, outcome.trace_id)
        if classify(outcome.record) is not TaskState.PENDING:
            await self._end([(outcome.task_id, outcome.record)])

    def stop(self, job: Job, error: VeoError) -> None:
        """
        Settle a job without a terminal record.
        """
        settle(job, JobState.STOPPED, error)

    def failed(self, fault: BaseException) -> None:
        """
        End everything, loudly: a coroutine of this package died of its own fault.
        """
        log.critical("veo_async failed; this is a fault of its own", exc_info=fault)
        self._closing = True
        for job in list(self._registry.unsettled.values()):
            error = SessionClosed(f"the session ended by a fault of its own: {fault!r}")
            error.__cause__ = fault
            self.stop(job, error)

    def _left(self) -> None:
        self._running.submits.gate.left()
        self._running.submits.changed()

    def _share(self, settled: Job, job: Job) -> None:
        if not job.done():
            outcome = settled.exception() or settled.result()
            settle(job, settled.state, copy(outcome) if isinstance(outcome, VeoError) else outcome)

    def _track(self, job: Job, task_id: str, trace_id: str | None) -> None:
        now = self.loop.time()
        patience = self._polling.deadline if job.timeout is None else job.timeout
        self._registry.by_task[task_id] = job
        advance(job, JobState.PENDING, task_id=task_id, trace_id=trace_id)
        self._running.tracker.watch(
            task_id,
            kind=job.request.kind if job.request else "",
            started_at=now,
            deadline_at=None if patience is None else now + patience,
        )

    async def _poll(self, task_ids: Sequence[str], entered_at: float) -> list[dict[str, Any]]:
        http = self._running.http
        if len(task_ids) == 1:
            question: dict[str, Any] = {"action": "retrieve", "id": task_ids[0]}
            record = await or_none(http.exchange(question, entered_at=entered_at))
            return [] if record is None else [record]
        # Whether `limit` also caps a question by ids is not known, so it is said.
        question = {"action": "retrieve_batch", "ids": task_ids, "offset": 0, "limit": len(task_ids)}
        return read_batch(await http.exchange(question, entered_at=entered_at))

    def _looked(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            self._looks += 1
            if job := self._registry.by_task.get(task_id):
                looked(job)

    async def _end(self, outcomes: Sequence[tuple[str, Outcome]]) -> None:
        """
        Settle the jobs of tasks that have ended, or that nothing more will be heard of.
        """
        for task_id, outcome in outcomes:
            job = self._registry.by_task.get(task_id)
            if job is None:
                continue
            self._running.tracker.forget(task_id)
            if isinstance(outcome, JobError):
                self.stop(job, outcome)
            elif classify(outcome) is TaskState.FAILED:
                settle(job, JobState.FAILED, failure_of(task_id, outcome))
            else:
                settle(job, JobState.SUCCEEDED, video_result(task_id, outcome, job.request))

    def _tracking_ended(self, tracking: asyncio.Task[None]) -> None:
        if not tracking.cancelled() and (fault := tracking.exception()):
            self.failed(fault)

    def _settle_the_rest(self) -> None:
        for job in list(self._registry.unsettled.values()):
            words = "the session ended first; the task goes on: attach() takes it up again"
            self.stop(job, SessionClosed(words))


def _pair(item: Item) -> tuple[str | None, Request]:
    return (None, item) if isinstance(item, Request) else item


def _check(request: object, key: object, timeout: object) -> None:
    if not isinstance(request, Request):
        raise InvalidRequest(f"a request is a TextToVideo or the like, not {type(request).__name__}")
    if key is not None and not (isinstance(key, str) and key):
        raise InvalidRequest(f"key must be a string that is not empty, not {key!r}")
    if timeout is not None and not (isinstance(timeout, int | float) and timeout > 0):
        raise InvalidRequest(f"timeout must be seconds above 0, not {timeout!r}")

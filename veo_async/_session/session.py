"""
`VeoSession`: builds all parts, joins them, and closes them in order.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from random import Random
from secrets import token_hex
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import aiohttp
from attrs import define, field, frozen

from .._api.records import TaskRecord, Video, VideoResult, is_id
from .._api.requests import Request, in_short
from .._api.to_json import plain
from .._api.wire import encode
from .._http.clock import ServerClock
from .._jobs.iterators import Item, feed
from .._jobs.job import Job, JobState, as_completed
from .._observing.observers import Observers, checked
from .._policies import Limits, PollPolicy, RetryPolicy, scale_of
from ..errors import MADE_UP, InvalidRequest, JournalError, KeyConflict, UsageError
from ..events import Observer
from .credentials import base_url_from, check_placeholder, token_from
from .shortcuts import ShortMethods

if TYPE_CHECKING:  # these are loaded when a session is entered: a quick import needs none of them
    from .._http.transport import Transport
    from .._journal.journal import AnyJournal
    from .._submit.submitters import CallbackUrl
    from .engine import Engine
    from .platform import AnyPlatform

__all__ = ["SessionStats", "VeoSession"]

MAX_TIMEOUT: Final = 1e11  # seconds; an event loop's clock cannot count much further

CALLBACK_WINDOW: Final = 0.05  # seconds; long enough to batch many hints, too short to be noticed

log = logging.getLogger("veo_async")


@frozen(kw_only=True)
class SessionStats:
    """
    What a session has done so far.

        print(veo.stats.jobs[JobState.PENDING], veo.stats.requests.get("submit", 0))

    Attributes:
        jobs: how many jobs are in each state.
        requests: how many requests were sent, by kind: `submit`, `retrieve`, `retrieve_batch`, `list`.
        retries: how many of them repeated an earlier one.
        looks: how often a task was asked about; one request may ask about many tasks.
        notice_lag: mean seconds from a task's end until it was seen, over the tasks whose records tell when they
            ended; None if there are none.
    """

    jobs: Mapping[JobState, int]
    requests: Mapping[str, int]
    retries: int
    looks: int
    notice_lag: float | None

    def to_dict(self) -> dict[str, Any]:
        """
        Return the counts as plain values, ready for JSON.

            print(json.dumps(veo.stats.to_dict()))
        """
        told: dict[str, Any] = plain(self)
        return told


def _journal_at(place: AnyJournal | str | os.PathLike[str] | None) -> AnyJournal | None:
    if isinstance(place, str) and place.startswith(("postgresql://", "postgres://")):
        from .._journal.postgres import PostgresJournal  # noqa: PLC0415 - see above

        return PostgresJournal(place)
    if isinstance(place, str | os.PathLike):
        from .._journal.sqlite import Journal  # noqa: PLC0415 - see above

        return Journal(place)
    return place


@define(eq=False, repr=False)
class VeoSession(ShortMethods):
    """
    An async context manager that submits video jobs and waits for them.

        async with VeoSession() as veo:
            result = await veo.text_to_video("a whale breaching at golden hour")

    Args:
        token: falls back to `ACEDATACLOUD_API_TOKEN`.
        base_url: falls back to `ACEDATACLOUD_API_BASE_URL`, then to the public address.
        http: the caller's own `aiohttp.ClientSession`; the session does not close it.
        polling: when tasks are polled.
        retry: how long to back off after failures.
        limits: how much this session sends at once.
        journal: makes paid videos survive this process: a `Journal`, or the path of its SQLite file; or a
            `PostgresJournal`, or its `postgresql://` address, which sessions on any machine share.
        placeholder: the callback URL that carries the mark of a submit without a callback URL of its own; by
            default the API's `/health`. None sends no marks: what was bought cannot be found if its answer is lost.
        observers: called with each event of `veo_async.events`, in the order in which they happen. The log is one
            more: `veo_async.telemetry.LogObserver`.
        platform: an `AccountPlatform`, which uploads pictures of this machine and knows prices; the session closes
            it.

    Raises:
        ConfigurationError: the token, the base URL or an observer cannot be used.
    """

    _token: str | None = field(alias="token", default=None, converter=token_from)
    _base_url: str | None = field(alias="base_url", default=None, converter=base_url_from, kw_only=True)
    _http: aiohttp.ClientSession | None = field(alias="http", default=None, kw_only=True)
    _polling: PollPolicy = field(alias="polling", factory=PollPolicy, kw_only=True)
    _retry: RetryPolicy = field(alias="retry", factory=RetryPolicy, kw_only=True)
    _limits: Limits = field(alias="limits", factory=Limits, kw_only=True)
    _journal: AnyJournal | None = field(alias="journal", default=None, converter=_journal_at, kw_only=True)
    _placeholder: str | EllipsisType | None = field(
        alias="placeholder", default=..., validator=check_placeholder, kw_only=True
    )
    _observers: tuple[Observer, ...] = field(alias="observers", default=(), converter=checked, kw_only=True)
    _platform: AnyPlatform | None = field(alias="platform", default=None, kw_only=True)
    _transport: Transport | None = field(init=False, default=None)  # tests set it, in place of aiohttp
    _clock: ServerClock = field(init=False, factory=ServerClock)
    _random: Random = field(init=False, factory=Random)  # for the jitter
    _engine: Engine | None = field(init=False, default=None)
    _callback_url: CallbackUrl | None = field(init=False, default=None)  # set by a receiver

    def __repr__(self) -> str:
        state = "open" if self._engine and not self._engine.closing else "closed"
        counts = [f"{state.value}={count}" for state, count in self._counts.items() if count]
        return f"<{' '.join(['VeoSession', str(self._base_url), state, *counts])}>"

    @property
    def _counts(self) -> Counter[JobState]:
        return self._engine.registry.counts if self._engine else Counter()

    # --- entering and leaving ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._engine is not None:
            raise UsageError("a VeoSession is entered once: make a new one for another `async with`")
        from .engine import Engine  # noqa: PLC0415 - see above

        token = self._token or ""
        transport = self._transport or _network(self)
        try:
            if self._journal is not None:
                await self._journal.open(token)
            self._engine = Engine(
                loop=asyncio.get_running_loop(),
                transport=transport,
                base_url=self._base_url or "",
                polling=self._polling,
                retry=self._retry,
                limits=self._limits,
                journal=self._journal,
                placeholder=self._placeholder_url(),
                clock=self._clock,
                random=self._random,
                observers=Observers(self._observers, self._clock.wall),
                platform=self._platform,
            )
            self._engine.submitters.callback_url = self._callback_url
            await self._engine.start()
        except BaseException as error:
            await self._close_connections(transport)
            await self._close_journal(error)
            raise
        return self

    def _placeholder_url(self) -> str | None:
        # [D] the vendor's own guide names this URL, and its clients send it with every submit.
        return (
            f"{self._base_url}/health" if isinstance(self._placeholder, EllipsisType) else self._placeholder
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._engine is not None
        self._engine.begin_to_close()  # before the first await, so nothing more is sent
        await _wait_until_closed(
            asyncio.create_task(self._close(self._engine, error), name="veo_async closing")
        )

    async def _close(self, engine: Engine, error: BaseException | None) -> None:
        try:
            await engine.close()
        finally:
            try:
                await self._close_connections(engine.transport)
            finally:
                await self._close_journal(error)

    async def _close_connections(self, transport: Transport) -> None:
        try:
            await transport.close()
        finally:
            if self._platform is not None:
                await self._platform.close()

    async def _close_journal(self, error: BaseException | None) -> None:
        try:
            if self._journal is not None:
                await self._journal.close()
        except JournalError as failure:
            if error is None:
                raise
            log.error("the journal failed: %s", failure)  # the body's own exception comes first

    def _entered(self) -> Engine:
        """
        Return the engine, for a method that needs it.

        Raises:
            UsageError: the session is not entered, or is entered in another event loop.
        """
        if self._engine is None:
            raise UsageError(
                "a VeoSession is used inside `async with VeoSession() as veo:`, and this one is not"
            )
        if self._engine.closing:
            raise UsageError("this VeoSession is closed: make a new one, and use it inside its `async with`")
        try:
            here = asyncio.get_running_loop() is self._engine.loop
        except RuntimeError:  # no event loop at all
            here = False
        if not here:
            raise UsageError(
                "a VeoSession is used in the event loop it was entered in, and no other: make one in each"
                " asyncio.run(); from another thread there is asyncio.run_coroutine_threadsafe()"
            )
        return self._engine

    # --- submitting -------------------------------------------------------------------------------------

    def submit(
        self,
        request: Request,
        *,
        key: str | None = None,
        timeout: float | None = None,
        retry_failed: bool = False,
        look_first: bool = False,
    ) -> Job:
        """
        Ask for a video; returns at once, and sends in the background.

            job = veo.submit(TextToVideo("a whale"), key="order-7", timeout=600.0)

        Args:
            key: an idempotency key: the same key is the same job.
            timeout: the job's deadline in seconds after acceptance; None leaves it to `PollPolicy.deadline`.
            retry_failed: whether to buy again under a key whose task failed.
            look_first: whether another process may have bought this key. Its task is then looked for among the
                account's tasks of the last `RetryPolicy.recall` seconds, and bought only if it is not there. That
                takes `RetryPolicy.grace`, a minute by default, as a task may be late to show.

        Raises:
            InvalidRequest: it is not a request, or the key or the timeout cannot be used.
            JournalError: the journal has failed, so nothing new is bought.
            KeyConflict: the key belongs to a different request; if only the journal knows that, the job raises it.
            UsageError: the session is not entered.
        """
        engine = self._entered()
        _check(request, key, timeout)
        known = engine.registry.find(key, request) if key is not None else None
        if known and not (retry_failed and known.state is JobState.FAILED):
            return known
        return engine.submit(
            request,
            key=MADE_UP[0] + token_hex(16) if key is None else key,
            keyed=key is not None,
            timeout=timeout,
            retry_failed=retry_failed,
            look_first=look_first and key is not None,  # no other process can have a generated key
        )

    def submit_many(self, requests: Iterable[Item], *, look_first: bool = False) -> list[Job]:
        """
        Ask for many videos; all requests are read and checked before any is submitted.

            jobs = veo.submit_many([("order-8", TextToVideo("an owl")), ("order-9", TextToVideo("a heron"))])

        Args:
            requests: requests, or pairs of an idempotency key and a request.
            look_first: whether another process may have bought these keys, see `submit`; they share listings.

        Raises:
            KeyConflict: a key belongs to a different request.
            UsageError: the session is not entered.
        """
        engine = self._entered()
        items = [_pair(item) for item in requests]
        keyed: dict[str, Request] = {}
        for key, request in items:
            _check(request, key, None)
            if key is not None:
                engine.registry.find(key, request)
                if (first := keyed.setdefault(key, request)) != request:
                    both = f"{in_short(first)}, then {in_short(request)}"
                    raise KeyConflict(f"the key {key!r} comes twice, for {both}", key=key)
        return [self.submit(request, key=key, look_first=look_first) for key, request in items]

    def map(
        self,
        requests: Iterable[Item] | AsyncIterable[Item],
        *,
        window: int = 1000,
        ordered: bool = False,
        look_first: bool = False,
    ) -> AsyncGenerator[Job, None]:
        """
        Submit requests only as fast as their jobs settle, and yield the settled jobs.

        Leaving the loop stops the reading; submitted jobs go on.

            async for job in veo.map((TextToVideo(f"owl {number}") for number in range(20)), window=10):
                print(job.exception() or job.result().video.url)

        Args:
            requests: requests, or pairs of an idempotency key and a request; the iterable may be endless.
            window: how many jobs may be submitted and not yet yielded.
            ordered: yield jobs in the order of the requests, not as they settle.
            look_first: whether another process may have bought these keys, see `submit`.

        Raises:
            InvalidRequest: the window is less than 1; or, in the loop, something else than requests was read.
            JournalError, KeyConflict: in the loop, as `submit` raises them.
            UsageError: the session is not entered.
        """
        self._entered()
        if window < 1:
            raise InvalidRequest(f"window must be at least 1, not {window}")

        def submit(item: Item) -> Job:
            key, request = _pair(item)
            return self.submit(request, key=key, look_first=look_first)

        return feed(requests, submit, window=window, ordered=ordered)

    def as_completed(self, jobs: Iterable[Job]) -> AsyncGenerator[Job, None]:
        """
        Yield each job as it settles.

        A failed job is yielded, not raised: check `job.exception()`.

            async for job in veo.as_completed([veo.text_to_video("an owl"), veo.text_to_video("a heron")]):
                print(job.exception() or job.result().video.url)
        """
        return as_completed(jobs)

    def attach(
        self, task_id: str | None = None, *, key: str | None = None, timeout: float | None = None
    ) -> Job:
        """
        Wait for a task that exists already, by its id or by the key that any process has bought it with.

        If no task of that key is found, the job ends with `TaskNotFound`.

            result = await veo.attach(video.task_id, timeout=600.0)

        Args:
            timeout: the job's deadline in seconds from now; None leaves it to `PollPolicy.deadline`.

        Raises:
            InvalidRequest: there is not exactly one of an id and a key, or one of them or the timeout cannot be used.
            UsageError: the session is not entered.
        """
        engine = self._entered()
        if (task_id is None) == (key is None):
            raise InvalidRequest("give a task_id or a key, and not both")
        _check_timeout(timeout)
        if key is not None:
            _check_key(key)
            return engine.attach_key(key, timeout=timeout)
        if not is_id(task_id):
            raise InvalidRequest("task_id must be a task's id")
        return engine.attach(task_id, timeout=timeout)

    async def find(self, keys: Iterable[str]) -> dict[str, TaskRecord]:
        """
        Find the tasks that any process has bought with these keys in the last `RetryPolicy.recall` seconds.

        Returns records by key; keys without a task are absent. If a key has several tasks, one that has not failed
        comes before failed ones, and then the latest.

            for key, record in (await veo.find(["order-7", "order-8"])).items():
                print(key, record.state)

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came.
        """
        engine, wanted = self._entered(), list(keys)
        for key in wanted:
            _check_key(key)
        return await engine.find(wanted)

    async def resume(self) -> list[Job]:
        """
        Resume the unsettled jobs of the journal, in the order in which they were submitted.

        Jobs that were never sent are sent, jobs whose submit is unanswered are reconciled, accepted ones are tracked.

            for job in await veo.resume():
                print(job.key, (await job).video.url)

        Raises:
            JournalError: the journal cannot be read.
            UsageError: the session has no journal.
        """
        engine = self._entered()
        if engine.journal is None:
            raise UsageError("this session has no journal to resume from: VeoSession(journal=...)")
        return await engine.resume()

    # --- asking -----------------------------------------------------------------------------------------

    async def retrieve(self, task_id: str | None = None, *, trace_id: str | None = None) -> TaskRecord:
        """
        Ask about one task, by its id or its trace id.

            record = await veo.retrieve(video.task_id)

        Raises:
            TaskNotFound: there is no such task.
            ApiError: the server answered with an error.
            TransportError: no answer came.
        """
        return await self._entered().retrieve(task_id, trace_id=trace_id)

    async def retrieve_many(self, task_ids: Iterable[str]) -> dict[str, TaskRecord]:
        """
        Ask about many tasks; returns records by id, without the ids that the server does not know.

            records = await veo.retrieve_many([video.task_id, "no-such-task"])
            assert [video.task_id] == list(records)

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came.
        """
        return await self._entered().retrieve_many(task_ids)

    def list_tasks(
        self,
        *,
        created_from: datetime | float | None = None,
        created_to: datetime | float | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        limit: int | None = None,
    ) -> AsyncGenerator[TaskRecord, None]:
        """
        Yield the caller's own tasks; asks page by page.

            async for record in veo.list_tasks(created_from=time.time() - 3600, limit=100):
                print(record.id, record.state)

        Args:
            created_from, created_to: aware datetimes or Unix seconds; whether the bounds are inclusive
                is not documented.
            type: the server's word for the kind of task, such as `videos`.
            limit: the most tasks to yield.

        Raises:
            ApiError: the server answered with an error.
            TransportError: no answer came.
            UsageError: the session is not entered.
        """
        return self._entered().list_tasks(
            created_from=created_from,
            created_to=created_to,
            type=type,
            limit=limit,
        )

    async def price(self, request: Request) -> float | None:
        """
        Return what a request costs, in credits, by the platform's price list; None if the list is not understood.

            credits = await veo.price(TextToVideo("a whale"))

        Raises:
            PlatformError: the platform cannot be asked.
            UsageError: the session has no platform.
        """
        self._entered()
        if self._platform is None:
            raise UsageError("this session has no platform to ask: VeoSession(platform=AccountPlatform())")
        return await self._platform.price(request.endpoint, encode(request))

    async def download(
        self,
        video: Video,
        destination: str | os.PathLike[str],
        *,
        progress: Callable[[int, int | None], object] | None = None,
    ) -> Path:
        """
        Fetch a video's file, and return its path. An existing file is replaced once the new one is complete.

        The file's host gets neither the token nor cookies.

            path = await veo.download(video, "whale.mp4", progress=lambda done, total: print(done, total))

        Args:
            destination: a file, or an existing directory, where the file is named after the ids of its task and
                video.
            progress: called with the bytes done and the bytes in total, which are None if unknown.

        Raises:
            DownloadError: the file could not be fetched completely, or could not be written.
            JournalError: the file is complete, but the journal could not write down its path.
        """
        engine = self._entered()
        if not isinstance(video, Video):
            raise InvalidRequest(f"download takes a Video, not {type(video).__name__}{_video_in(video)}")
        path = await engine.downloader.download(video, destination, progress=progress)
        await engine.outcomes.note_download(video, path)
        return path

    def notify(self, payload: object) -> bool:
        """
        Take a callback's parsed body as a hint to poll its task now; returns whether a job waits for that task.

        No body makes it raise, and no body is trusted: only the API's own record settles a job.
        It may be called from any thread. Hints that come within 50 ms share a request.

            awaited = veo.notify({"task_id": video.task_id})  # the parsed body of a callback
        """
        return called_back(self, payload, window=CALLBACK_WINDOW)

    @property
    def stats(self) -> SessionStats:
        """
        What the session has done so far.
        """
        engine = self._engine
        return SessionStats(
            jobs={state: self._counts[state] for state in JobState},
            requests=dict(engine.http.requests) if engine else {},
            retries=engine.http.retries if engine else 0,
            looks=engine.looks if engine else 0,
            notice_lag=engine.learning.notice_lag if engine else None,
        )


# --- for the receiver, which belongs to the session ----------------------------------------------------------


def called_back(session: VeoSession, payload: object, *, window: float, path: str = "") -> bool:
    """
    Take a callback's body as a hint; returns whether a job waits for its task.

    Args:
        window: seconds; hints that come within it share a request.
        path: the part of the callback's URL after the receiver's secret.
    """
    task_id = payload.get("task_id") if isinstance(payload, dict) else None
    engine = session._engine
    if engine is None or engine.closing or not is_id(task_id):
        return False
    return engine.called_back(task_id, window=window, path=path)


def call_back_at(session: VeoSession, callback_url: CallbackUrl | None) -> None:
    """
    Set the function that makes each attempt's callback URL; None goes back to the placeholder.
    """
    session._callback_url = callback_url
    if session._engine is not None:
        session._engine.submitters.callback_url = callback_url


def _network(session: VeoSession) -> Transport:
    from .._http.aiohttp_transport import AiohttpTransport  # noqa: PLC0415 - see above

    return AiohttpTransport.over(session._http, limits=session._limits, token=session._token or "")


# --- for tests, which take the network's place ---------------------------------------------------------------


def next_address(session: VeoSession) -> str | None:
    """
    Return the address that a session will talk to once it is entered; None if it has been entered.
    """
    return session._base_url if session._engine is None else None


def scale_policies(session: VeoSession, factor: float) -> None:
    """
    Scale the policies of a session that is not entered yet, unless its program has scaled them already.
    """
    if scale_of(session._polling) == 1.0:
        session._polling = session._polling.scaled(factor)
        session._retry = session._retry.scaled(factor)


def replace_clock(
    session: VeoSession,
    wall: Callable[[], float],
    *,
    transport: Callable[[Transport, str], Transport],
    journal: Callable[[AnyJournal], AnyJournal],
) -> None:
    """
    Let a session that is being entered live on another clock.

    Args:
        wall: the time of that clock, in Unix seconds.
        transport: from the network and the token, makes what takes the network's place.
        journal: from the session's journal, makes what takes its place.
    """
    session._journal = session._journal and journal(session._journal)
    session._clock.wall = wall
    session._transport = transport(_network(session), session._token or "")


def _pair(item: Any) -> tuple[str | None, Request]:
    match item:
        case Request():
            return None, item
        case (key, request):
            return key, request
    raise InvalidRequest(f"neither a request nor a pair of a key and a request: {item!r}")


def _check(request: object, key: object, timeout: object) -> None:
    if not isinstance(request, Request):
        raise InvalidRequest(f"a request is a TextToVideo or the like, not {type(request).__name__}")
    if key is not None:
        _check_key(key)
    _check_timeout(timeout)


def _check_key(key: object) -> None:
    if not (isinstance(key, str) and key):
        raise InvalidRequest(f"key must be a string that is not empty, not {key!r}")


async def _wait_until_closed(closing: asyncio.Task[None]) -> None:
    """
    Wait until the session is closed; the first cancellation also cancels the closing, and is raised at its end.
    """
    cancelled: asyncio.CancelledError | None = None
    while not closing.done():
        try:
            await asyncio.wait([closing])
        except asyncio.CancelledError as cancellation:
            if cancelled is None:
                closing.cancel()
            cancelled = cancellation
    if cancelled is not None:
        if not closing.cancelled() and (failure := closing.exception()):
            log.error("the session did not end well: %s", failure)
        raise cancelled
    closing.result()


def _video_in(value: object) -> str:
    """
    Say where to find the video in a value of the wrong type.
    """
    found = {Job: "(await job).video", VideoResult: "result.video", str: "(await veo.attach(task_id)).video"}
    return next((f": that is {place}" for kind, place in found.items() if isinstance(value, kind)), "")


def _check_timeout(timeout: object) -> None:
    if timeout is not None and not (isinstance(timeout, int | float) and 0 < timeout < MAX_TIMEOUT):
        raise InvalidRequest(f"timeout must be seconds above 0, not {timeout!r}")

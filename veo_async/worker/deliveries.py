"""
One delivery: what a worker does with a request from the queue, and when it is delivered again.

procrastinate delivers at least once, and is never trusted with money: the shared journal knows what was bought.
A delivery ends as done with any outcome that is final, also a failed task or a refusal: the journal has outcomes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from attrs import define, field, frozen
from procrastinate import BaseRetryStrategy, Blueprint, JobContext, RetryDecision
from procrastinate.exceptions import AlreadyEnqueued
from procrastinate.jobs import Job as QueuedJob

from .. import (
    ApiError,
    DownloadError,
    InvalidRequest,
    JobFailed,
    JobVanished,
    KeyConflict,
    PostgresJournal,
    Request,
    SessionClosed,
    SubmissionUnknown,
    VeoError,
    VeoSession,
    VideoResult,
)
from .._api.journal_text import load_request
from .._jobs.outcomes import read_outcome
from .._journal.postgres_connection import Address
from .._journal.postgres_rows import digest, readable
from .database import connected
from .enqueueing import QUEUE
from .outcomes import ROUNDS, failed_task, is_curable, park
from .token_watch import REFUSED, TokenWatch

__all__ = ["DESK", "Desk", "Tally", "blueprint", "new_blueprint"]

_LOG: Final = logging.getLogger("veo_async")
DESK: Final = "veo"  # where a worker's context has its desk
_LONGEST_PAUSE: Final = 300  # seconds between two deliveries of a request
_FINAL: Final = (ApiError, InvalidRequest, JobFailed, KeyConflict)
_DOUBTFUL: Final = (
    SubmissionUnknown,
    JobVanished,
)  # another delivery may find the task; if not, a person looks
_HANDED_BACK: Final = (asyncio.CancelledError, SessionClosed)


class _BoughtElsewhere(Exception):
    """
    The key was bought with another token, and has not ended.
    """


def _is_curable(error: BaseException) -> bool:
    if isinstance(error, ApiError):
        return is_curable(error)
    is_of_the_disk = isinstance(error, OSError) and not isinstance(error, VeoError)
    return is_of_the_disk or isinstance(error, DownloadError | _BoughtElsewhere)


def _level_of(error: BaseException) -> int:
    if isinstance(error, REFUSED):
        return logging.INFO  # the token's refusal is said once for all keys
    return logging.ERROR if _is_curable(error) else logging.WARNING


class _Parked(Exception):
    """
    The delivery is given up; a person has to look at it.
    """


class _Redelivery(BaseRetryStrategy):
    """
    When a request is delivered again: at once after a hand-over, else after 1 s, doubling to 5 min.
    """

    def get_retry_decision(self, *, exception: BaseException, job: QueuedJob) -> RetryDecision | None:
        """
        Decide about one delivery, after an error; None gives it up.
        """
        if isinstance(exception, _Parked):
            return None
        pause = 0 if isinstance(exception, _HANDED_BACK) else min(2 ** min(job.attempts, 10), _LONGEST_PAUSE)
        if pause:
            key, words = readable(str(job.task_kwargs.get("key"))), str(exception) or repr(exception)
            _LOG.log(_level_of(exception), "key %s is delivered again later, in %d s: %s", key, pause, words)
        return RetryDecision(retry_in={"seconds": pause})


@define
class Tally:
    """
    What has become of a worker's deliveries.

    Attributes:
        running: are being made now.
        made: have a video.
        failed: have ended without a video, for good: the task failed, or the request was refused.
        parked: wait for a person.
        later: were given up for now, and are delivered again.
        handed_back: were handed back unfinished, since the worker stops; others get them.
    """

    running: int = 0
    made: int = 0
    failed: int = 0
    parked: int = 0
    later: int = 0
    handed_back: int = 0

    @contextmanager
    def counting(self) -> Iterator[None]:
        """
        Count a delivery that is made in the block.
        """
        self.running += 1
        try:
            yield
        except _HANDED_BACK:
            self.handed_back += 1
            raise
        except _Parked:
            self.parked += 1
            raise
        except Exception:
            self.later += 1
            raise
        finally:
            self.running -= 1


@frozen
class Desk:
    """
    What a worker's deliveries share.

    Attributes:
        session: makes the videos; entered, with the shared journal.
        journal: the shared journal.
        out: the directory where videos are saved.
        address: where the journal is.
        tally: counts what becomes of them.
        token: notes whether the API takes the token.
        turns: so that many deliveries at once do not take all of the database's connections.
    """

    session: VeoSession
    journal: PostgresJournal
    out: Path
    address: Address
    tally: Tally = field(factory=Tally)
    token: TokenWatch = field(factory=TokenWatch)
    turns: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(2))

    async def make(self, key: str, request: str, *, to: str | None, retry_of: str | None) -> str:
        """
        Have the video made and saved; returns what became of it, in words.
        """
        with self.tally.counting(), self.token.watching():
            return await self._make(key, request, to=to, retry_of=retry_of)

    async def _make(self, key: str, request: str, *, to: str | None, retry_of: str | None) -> str:
        try:
            result = await self._of_another_token(key) or await self.session.submit(
                await self._read(key, request), key=key, retry_failed=await self._is_last(key, retry_of)
            )
        except _DOUBTFUL as error:
            await self._count_round(key, error)
            raise
        except _FINAL as error:
            if _is_curable(error):
                raise
            _LOG.warning("key %s has no video: %s", key, error)
            self.tally.failed += 1
            return str(error)
        if to is not None:
            await self._save(result, to)
        self.tally.made += 1
        return f"task {result.task_id}"

    async def _of_another_token(self, key: str) -> VideoResult | None:
        """
        Return the key's result if it was bought with another token: a queue has one video of a key, whoever pays.
        """
        other = (await self.journal.find_others([key])).get(key)
        if other is None:
            return None
        found = None if other.outcome is None else read_outcome(other.outcome, None)
        if isinstance(found, VideoResult):
            return found
        raise _BoughtElsewhere(
            f"it was or may be bought with another token, as task {other.task_id}, so this one does not buy it:"
            " run a worker with that token"
        )

    async def _read(self, key: str, text: str) -> Request:
        try:
            return load_request(text)
        except Exception as error:
            unread = InvalidRequest("this version of veo_async cannot read the request; enqueue it anew")
            await self._count_round(key, unread, rounds=ROUNDS)
            raise _Parked from error

    async def _is_last(self, key: str, retry_of: str | None) -> bool:
        """
        Tell whether the task to be bought again is still the key's last: a repeated delivery must not buy twice.
        """
        if retry_of is None:
            return False
        async with self.turns, connected(self.address) as connection:
            return await failed_task(connection, key, schema=self.address.schema) == retry_of

    async def _count_round(self, key: str, error: VeoError, rounds: int = 1) -> None:
        async with self.turns, connected(self.address) as connection:
            if await park(connection, key, error, schema=self.address.schema, rounds=rounds):
                _LOG.error("key %s needs a person: %s", key, error)
                raise _Parked(f"key {key} needs a person: {error}") from error

    async def _save(self, result: VideoResult, to: str) -> None:
        path = self.out / to
        await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
        for number, video in enumerate(result.videos, 1):
            place = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
            await self.session.download(video, place)


async def _make(
    context: JobContext,
    *,
    key: str,
    request: str,
    to: str | None = None,
    then: str | None = None,
    retry_of: str | None = None,
) -> str:
    """
    Make one video; the arguments are those that `enqueue` wrote.
    """
    desk: Desk = context.additional_context[DESK]
    words = await desk.make(readable(key), request, to=to, retry_of=retry_of)
    if then is not None:
        lock = f"veo then {digest(then + ' ' + key)}"
        following = context.app.configure_task(then, allow_unknown=True, queueing_lock=lock)
        with suppress(AlreadyEnqueued):
            await following.defer_async(key=readable(key))
    return words


def new_blueprint() -> Blueprint:
    """
    Make a blueprint for one app, since an app renames the tasks of what it takes in.
    """
    made = Blueprint()
    made.task(name="make", queue=QUEUE, retry=_Redelivery(), pass_context=True)(_make)
    return made


# For an app of one's own: `app.add_tasks_from(blueprint, namespace="veo")`; then `Worker(app=app)`.
blueprint: Final = new_blueprint()

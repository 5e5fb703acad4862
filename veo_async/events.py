"""
What observers are told: frozen records with ids, keys, times and counts, and never the token.

    def observe(event: Event) -> None:
        if isinstance(event, Settled) and event.error:
            failures[event.error] += 1

    async with VeoSession(observers=[observe]) as veo: ...

An observer is called in the middle of the work, in the event loop of the session, so it must be quick. It must not
call the session or its jobs, either; `asyncio.get_running_loop().call_soon` can do that a moment later.
An observer that raises is logged once, and is told nothing more.

A job's events have its key. The first one is `Submitted` or `Attached`, the last one is `Settled`. An event about
tasks of the server has their ids; `Accepted` says which job a task belongs to.

In all events `error` is the name of an error's class, such as `RateLimited`, and `reason` is its message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from attrs import frozen

__all__ = [
    "Accepted",
    "Attached",
    "BoughtTwice",
    "DownloadRetried",
    "Downloaded",
    "Event",
    "LimitsReached",
    "ListingFailed",
    "LookFailed",
    "LookRefused",
    "LookUpFailed",
    "Looked",
    "Looking",
    "Misnamed",
    "Observer",
    "Orphaned",
    "OutageBegan",
    "OutageEnded",
    "Paused",
    "Reconciled",
    "Refused",
    "Resumed",
    "Retried",
    "Sending",
    "Settled",
    "Submitted",
    "Unanswered",
    "Uploading",
]


@frozen
class Event:
    """
    Something that happened in a session.

        async with VeoSession(observers=[lambda event: print(type(event).__name__, event.at)]) as veo:
            await veo.text_to_video("a whale")

    Attributes:
        at: when, in Unix seconds by the local clock.
    """

    at: float


Observer: TypeAlias = Callable[[Event], object]


# --- a job, from its beginning to its end ------------------------------------------------------------------


@frozen
class Submitted(Event):
    """
    A session has a new job, which buys a video unless its key has bought one already.

    Attributes:
        key: the job's idempotency key.
        kind: the class of the request, such as `TextToVideo`.
        model: the model that the request names; None if it names none.
    """

    key: str
    kind: str
    model: str | None


@frozen
class Attached(Event):
    """
    A session has a new job, which only waits for what was bought already.
    """

    key: str


@frozen
class Sending(Event):
    """
    A submit begins to be sent. Observers are called in the asyncio task that sends it.

    Attributes:
        attempt: its number among the submits of this key, from 1.
    """

    key: str
    attempt: int


@frozen
class Refused(Event):
    """
    The server refused a submit. The job settles soon, unless a listing shows that there is a task all the same.
    """

    key: str
    attempt: int
    error: str
    reason: str


@frozen
class Unanswered(Event):
    """
    It is not known whether the server accepted a submit; the account's tasks will show it.

    Attributes:
        error: None if the answer named another job's task.
    """

    key: str
    attempt: int
    error: str | None
    reason: str


@frozen
class Retried(Event):
    """
    A job goes back to the head of the queue, after a submit that bought nothing.

    Attributes:
        attempt: the number of that submit.
    """

    key: str
    attempt: int
    reason: str


@frozen
class Accepted(Event):
    """
    A job has a task at the server.

    Attributes:
        trace_id: what the vendor's support asks for, or None.
        found: whether the task was found, and not named by the answer to a submit just now: among the account's
            tasks, in a journal, or because it was attached.
    """

    key: str
    task_id: str
    trace_id: str | None
    found: bool


@frozen
class Settled(Event):
    """
    A job has its outcome.

    Attributes:
        task_id: None if it has no task, as far as is known.
        state: `succeeded`, `failed` or `stopped`; the last means that there is no terminal record.
        videos: how many it has; 0 unless it succeeded.
        error: None if it succeeded.
        reason: None if it succeeded.
    """

    key: str
    task_id: str | None
    trace_id: str | None
    state: str
    videos: int
    error: str | None
    reason: str | None


# --- whose task is it --------------------------------------------------------------------------------------


@frozen
class Reconciled(Event):
    """
    A submit that had no answer, or was refused, turned out to have bought a task.

    Attributes:
        refused: whether the server had refused it.
    """

    key: str
    task_id: str
    refused: bool


@frozen
class BoughtTwice(Event):
    """
    A key was bought more than once, by whatever processes use it.

    Attributes:
        task_ids: the tasks that are paid for in vain.
    """

    key: str
    task_ids: tuple[str, ...]


@frozen
class Misnamed(Event):
    """
    The answer to a submit named a task which, as its record shows, is not the job's.
    """

    key: str
    task_id: str


@frozen
class Orphaned(Event):
    """
    A task was accepted for a job that was abandoned meanwhile; it goes on at the server.
    """

    key: str
    task_id: str


@frozen
class ListingFailed(Event):
    """
    The account's tasks could not be listed.

    Attributes:
        believed: how many refused jobs settle now, as there is nothing against it.
    """

    error: str
    reason: str
    believed: int


@frozen
class LookUpFailed(Event):
    """
    A task could not be looked up that may be that of an unanswered submit.
    """

    error: str
    reason: str


# --- looking at tasks --------------------------------------------------------------------------------------


@frozen
class Looking(Event):
    """
    The session begins to ask about tasks, all in one request. Observers are called in the asyncio task that asks.
    """

    task_ids: tuple[str, ...]


@frozen
class Looked(Event):
    """
    The server answered what `Looking` told of. Observers are called in the same asyncio task.

    Attributes:
        seconds: how long the answer took.
    """

    task_ids: tuple[str, ...]
    seconds: float


@frozen
class LookFailed(Event):
    """
    What `Looking` told of failed; the tasks are asked about again. Observers are called in the same asyncio task.
    """

    task_ids: tuple[str, ...]
    error: str
    reason: str


@frozen
class LookRefused(Event):
    """
    For the first time the server refused a request about tasks, as if it were ill-formed.
    """

    task_ids: tuple[str, ...]
    reason: str


# --- what holds requests up --------------------------------------------------------------------------------


@frozen
class Paused(Event):
    """
    A kind of request pauses, after a 429, an outage or failures in a row. Failed trials pause it again.

    Attributes:
        lane: `submits`, or `polls` for all that is asked about tasks.
        seconds: how long the pause is; then one request goes alone.
        reason: the message of the last error, if that is known.
    """

    lane: str
    seconds: float
    reason: str | None


@frozen
class Resumed(Event):
    """
    A kind of request goes on after one or more pauses.

    Attributes:
        lane: `submits` or `polls`.
        seconds: how long all the pauses took.
    """

    lane: str
    seconds: float


@frozen
class LimitsReached(Event):
    """
    The limits that all sessions of the account share hold submits back.
    """

    reason: str


@frozen
class OutageBegan(Event):
    """
    The API has not answered for some seconds.

    Attributes:
        seconds: for how long.
    """

    seconds: float
    reason: str


@frozen
class OutageEnded(Event):
    """
    The API answers again.

    Attributes:
        seconds: how long it did not.
    """

    seconds: float


# --- files ------------------------------------------------------------------------------------------------


@frozen
class Uploading(Event):
    """
    A picture of this machine begins to be uploaded to a public address.

    Attributes:
        source: where it came from, such as a file's path.
        size: its bytes.
    """

    source: str
    size: int


@frozen
class DownloadRetried(Event):
    """
    A download broke off, and will go on.

    Attributes:
        seconds: how long it waits before that.
    """

    task_id: str
    video_id: str
    reason: str
    seconds: float


@frozen
class Downloaded(Event):
    """
    A video's file is complete.

    Attributes:
        path: the file.
        size: its bytes.
        seconds: how long the download took.
    """

    task_id: str
    video_id: str
    path: str
    size: int
    seconds: float

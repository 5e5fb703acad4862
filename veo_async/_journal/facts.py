"""
What the journal remembers: the facts that go in, and the entries that are read back.

Times (`at`) are in Unix seconds.
Requests and outcomes are JSON text of the caller's making, which nothing here looks into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from .._api.marks import label
from ..errors import JournalError

__all__ = [
    "Accepted",
    "AlreadyClaimed",
    "Attempt",
    "AttemptClosed",
    "Disowned",
    "Downloaded",
    "Elsewhere",
    "Entry",
    "Fact",
    "Fenced",
    "Fresh",
    "Intended",
    "Known",
    "Learned",
    "Sending",
    "Settled",
    "Standing",
    "TakeIn",
    "Withdrawn",
    "out_of_order",
    "standing",
]


class AlreadyClaimed(JournalError):
    """
    The task id belongs to another purchase.
    """


class Fenced(JournalError):
    """
    The session does not hold the key, or no longer: another one may go on with it, so nothing may be spent for it here.
    """


# --- facts ---------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Intended:
    """
    The key stands for this request; a key whose outcome is a failure starts a new purchase.
    """

    key: str
    request: str
    at: float


@frozen(kw_only=True)
class Sending:
    """
    An attempt is about to leave; numbers go up within one purchase.

    Attributes:
        attempt: 0 says that another process may have sent the key.
        at: by the local clock.
        mark: what its callback URL carries; None where it carries none.
    """

    key: str
    attempt: int
    at: float
    mark: str | None = None


@frozen(kw_only=True)
class AttemptClosed:
    """
    The attempt bought nothing; `refused` also frees the key, unless another attempt was accepted.

    Attributes:
        reason: of a refusal, for those who wait for it elsewhere; JSON text.
    """

    key: str
    attempt: int
    outcome: Literal["refused", "not_sent"]
    at: float
    reason: str | None = None


@frozen(kw_only=True)
class Accepted:
    """
    The task is this purchase's, and no other's for ever.
    """

    key: str
    task_id: str
    trace_id: str | None
    at: float


@frozen(kw_only=True)
class Disowned:
    """
    The task is not this purchase's after all: its record shows another's mark. Its attempt is open again.
    """

    key: str
    task_id: str


@frozen(kw_only=True)
class Settled:
    """
    The accepted task ended, in a result or a failure: the outcome stands for ever.
    """

    key: str
    failed: bool
    outcome: str
    at: float


@frozen(kw_only=True)
class Downloaded:
    """
    A video of the result lies at this path.
    """

    key: str
    video_id: str
    path: str
    at: float


@frozen(kw_only=True)
class Withdrawn:
    """
    The job was given up before anything was sent: the intention goes away.
    """

    key: str
    at: float


@frozen(kw_only=True)
class Learned:
    """
    What is known of the durations of one kind of request.
    """

    kind: str
    data: str


Fact: TypeAlias = (
    Intended | Sending | AttemptClosed | Accepted | Disowned | Settled | Downloaded | Withdrawn | Learned
)


# --- what is read back ---------------------------------------------------------------------------------


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit.

    Attributes:
        closed: `refused` or `not_sent`; None while it may have bought something.
    """

    number: int
    at: float
    mark: str | None
    closed: str | None


@frozen(kw_only=True)
class Entry:
    """
    Everything the journal knows of one purchase.

    Attributes:
        attempts: by number; those of a purchase that goes on, or went well, or failed.
        earlier: the highest number of an attempt of the key's earlier purchases, which have failed; or 0.
        downloads: where each video lies, by its id.
    """

    key: str
    request: str
    intended_at: float
    attempts: tuple[Attempt, ...] = ()
    earlier: int = 0
    task_id: str | None = None
    trace_id: str | None = None
    accepted_at: float | None = None
    settled_at: float | None = None
    failed: bool = False
    outcome: str | None = None
    downloads: Mapping[str, str] = field(factory=dict)


def out_of_order(fact: Any, entry: Entry | None) -> JournalError:
    """
    Say that a fact cannot follow what is known of its key.
    """
    return JournalError(
        f"{type(fact).__name__} cannot follow what the journal knows: its key is {_reached(entry)}",
        key=fact.key,
        task_id=entry.task_id if entry else None,
    )


def _reached(entry: Entry | None) -> str:
    if entry is None:
        return "unknown"
    if entry.settled_at is not None:
        return "settled as failed" if entry.failed else "settled"
    if entry.task_id is not None:
        return "accepted"
    return f"intended, with {len(entry.attempts)} attempts"


# --- keys that are taken in ----------------------------------------------------------------------------


@frozen(kw_only=True)
class TakeIn:
    """
    A key that is to stand for this request, unless it stands for something already.

    Attributes:
        retry_failed: a purchase that has failed is no obstacle.
        look_first: another process may have bought the key, unknown to this journal.
    """

    key: str
    request: str
    at: float
    retry_failed: bool = False
    look_first: bool = False

    def sending(self, earlier: int) -> Sending | None:
        """
        Tell the attempt that may have been made elsewhere, where the key is to be looked for first.
        """
        number = earlier and earlier + 1
        mark = label(self.key, number)
        return Sending(key=self.key, attempt=number, at=self.at, mark=mark) if self.look_first else None


@frozen
class Fresh:
    """
    Nothing has been sent for the key that could still buy anything; it is intended now, and this session's.

    Attributes:
        earlier: the highest number of an attempt that the key has had, or 0.
        failed: the highest number of one whose purchase has failed, or 0.
    """

    earlier: int = 0
    failed: int = 0


@frozen
class Known:
    """
    This session goes on with what is known of the key.
    """

    entry: Entry


@frozen
class Elsewhere:
    """
    Another session has the key, and goes on with it.
    """

    entry: Entry


Standing: TypeAlias = Fresh | Known | Elsewhere


def standing(item: TakeIn, entry: Entry | None) -> Fresh | Known:
    """
    Say how a key stands that no other session has.
    """
    if entry is None:
        return Fresh()
    earlier = max((entry.earlier, *(attempt.number for attempt in entry.attempts)))
    if entry.failed and item.retry_failed:
        return Fresh(earlier, earlier)
    is_untouched = entry.task_id is None and all(attempt.closed for attempt in entry.attempts)
    return Fresh(earlier, entry.earlier) if is_untouched and entry.request == item.request else Known(entry)

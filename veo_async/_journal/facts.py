"""
What the journal stores: the facts that are written, and the entries that are read back.

Times (`at`) are in Unix seconds.
Requests and outcomes are the caller's JSON text, which is not parsed here.
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
    "HeldBack",
    "Intended",
    "Known",
    "Learned",
    "Sending",
    "Settled",
    "Spent",
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
    The session does not hold the key, or no longer does: another one may have it, so this one may not spend for it.
    """


class HeldBack(JournalError):
    """
    The limits that all sessions of the account share allow no submit now. Nothing was written.

    Attributes:
        seconds: when to ask again; None if too many tasks are in flight, so that it depends on when one settles.
    """

    def __init__(self, *args: Any, seconds: float | None = None, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.seconds = seconds


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
    An attempt is about to be sent; numbers go up within one purchase.

    Attributes:
        attempt: its number; 0 means that another process may have sent the key.
        at: by the local clock.
        mark: what its callback URL carries; None if it carries no mark.
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
        reason: why it was refused, for other sessions that wait for the key; JSON text.
    """

    key: str
    attempt: int
    outcome: Literal["refused", "not_sent"]
    at: float
    reason: str | None = None


@frozen(kw_only=True)
class Accepted:
    """
    The task belongs to this purchase, and never to another.
    """

    key: str
    task_id: str
    trace_id: str | None
    at: float


@frozen(kw_only=True)
class Disowned:
    """
    The task is not this purchase's after all, as its record shows another job's mark. The attempt is open again.
    """

    key: str
    task_id: str


@frozen(kw_only=True)
class Settled:
    """
    The accepted task ended in a result or a failure. The outcome is final.
    """

    key: str
    failed: bool
    outcome: str
    at: float


@frozen(kw_only=True)
class Downloaded:
    """
    A video of the result was saved at this path.
    """

    key: str
    video_id: str
    path: str
    at: float


@frozen(kw_only=True)
class Withdrawn:
    """
    The job was abandoned before anything was sent: its intention is deleted.
    """

    key: str
    at: float


@frozen(kw_only=True)
class Learned:
    """
    What was learned about the durations of one kind of request.
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
        attempts: the attempts of this purchase, ordered by number.
        earlier: the highest attempt number of the key's earlier purchases, all of which failed; or 0.
        downloads: the path of each saved video, by the video's id.
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
    Make the error for a fact that cannot follow what is known of its key.
    """
    return JournalError(
        f"{type(fact).__name__} cannot follow what the journal knows: its key is {_state_of(entry)}",
        key=fact.key,
        task_id=entry.task_id if entry else None,
    )


def _state_of(entry: Entry | None) -> str:
    if entry is None:
        return "unknown"
    if entry.settled_at is not None:
        return "settled as failed" if entry.failed else "settled"
    if entry.task_id is not None:
        return "accepted"
    return f"intended, with {len(entry.attempts)} attempts"


# --- the budget ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Spent:
    """
    What all other purchases of a journal have spent, or may have.

    Attributes:
        unpriced: how many of them have no known price.
    """

    videos: int
    credits: float
    unpriced: int

    def plus(self, price: float | None) -> Spent:
        """
        Return what is spent with one more purchase.
        """
        unpriced = self.unpriced + (price is None)
        return Spent(videos=self.videos + 1, credits=self.credits + (price or 0.0), unpriced=unpriced)

    def without(self, price: float | None) -> Spent:
        """
        Return what is spent without one of these purchases.
        """
        unpriced = self.unpriced - (price is None)
        return Spent(videos=self.videos - 1, credits=self.credits - (price or 0.0), unpriced=unpriced)

    def fits(self, price: float | None, max_videos: int | None, max_credits: float | None) -> bool:
        """
        Tell whether one more purchase fits into a budget.
        """
        if max_videos is not None and self.videos >= max_videos:
            return False
        if max_credits is None:
            return True
        # Sums of decimals are not exact: a hundred times 0.65 is more than 65.
        return price is not None and not self.unpriced and self.credits + price <= max_credits + 1e-6


# --- taking keys in ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class TakeIn:
    """
    A request to buy under this key, unless the key stands for something already.

    Attributes:
        retry_failed: buy again if the key's purchase failed.
        look_first: another process may have bought the key without this journal knowing.
    """

    key: str
    request: str
    at: float
    retry_failed: bool = False
    look_first: bool = False

    def sending(self, earlier: int) -> Sending | None:
        """
        Return the attempt that another process may have made; None without `look_first`.

        Args:
            earlier: the highest attempt number that the key has had, or 0.
        """
        number = earlier and earlier + 1
        mark = label(self.key, number)
        return Sending(key=self.key, attempt=number, at=self.at, mark=mark) if self.look_first else None


@frozen
class Fresh:
    """
    The key has no open attempt and no task; this session now holds it and intends to buy.

    Attributes:
        earlier: the highest attempt number that the key has had, or 0.
        failed: the highest attempt number of a failed purchase, or 0.
    """

    earlier: int = 0
    failed: int = 0


@frozen
class Known:
    """
    This session resumes what is known of the key.
    """

    entry: Entry


@frozen
class Elsewhere:
    """
    Another session holds the key.
    """

    entry: Entry


Standing: TypeAlias = Fresh | Known | Elsewhere


def standing(item: TakeIn, entry: Entry | None) -> Fresh | Known:
    """
    Return the standing of a key that no other session holds.
    """
    if entry is None:
        return Fresh()
    earlier = max((entry.earlier, *(attempt.number for attempt in entry.attempts)))
    if entry.failed and item.retry_failed:
        return Fresh(earlier, earlier)
    is_untouched = entry.task_id is None and all(attempt.closed for attempt in entry.attempts)
    return Fresh(earlier, entry.earlier) if is_untouched and entry.request == item.request else Known(entry)

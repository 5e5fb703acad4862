"""
What the journal remembers: the facts that go in, and the entries that are read back.

Times (`at`) are in Unix seconds.
Requests and outcomes are JSON text of the caller's making, which nothing here looks into.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from attrs import field, frozen

from ..errors import JournalError

__all__ = [
    "Accepted",
    "AlreadyClaimed",
    "Attempt",
    "AttemptClosed",
    "Disowned",
    "Downloaded",
    "Entry",
    "Fact",
    "Intended",
    "Learned",
    "Sending",
    "Settled",
    "Withdrawn",
]


class AlreadyClaimed(JournalError):
    """
    The task id belongs to another purchase.
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
    """

    key: str
    attempt: int
    outcome: Literal["refused", "not_sent"]
    at: float


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

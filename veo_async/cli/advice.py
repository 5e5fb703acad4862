"""
Describes errors to the user: the error's own message, and what to do about it.
"""

from __future__ import annotations

from typing import Final

from ..errors import (
    ApiError,
    AuthenticationError,
    BadRequest,
    BudgetExceeded,
    ConfigurationError,
    DownloadError,
    InsufficientBalance,
    InvalidRequest,
    JobFailed,
    JobTimedOut,
    JobVanished,
    KeyConflict,
    PermissionDenied,
    PlatformError,
    ProtocolError,
    RateLimited,
    ServerError,
    SessionClosed,
    SubmissionUnknown,
    SubmitTimedOut,
    TaskNotFound,
    TrackingLost,
    TransportError,
    VeoError,
)
from .words import printable

__all__ = ["BAD_INPUT", "CHECK_THE_ID", "advice", "lines", "reason", "unknown_task"]

BAD_INPUT: Final = (InvalidRequest, ConfigurationError, KeyConflict)  # exit status 2: nothing was sent

CHECK_THE_ID: Final = (
    "Check the id (a video's is another one), and that the token is of the account that bought it."
)

CHECK_THE_KEY: Final = "Check the key, and that the token is of the account that bought it; only tasks of the last day are looked through."
CHECK_THE_ADDRESS: Final = "The vendor may have turned it off. If not, check the base URL, which has a path only behind a gateway of yours."
CHECK_THE_VIDEO: Final = "Check the id: `veo-async list` shows those of tasks and videos."

# The first matching row counts, so subclasses come before their base classes.
_ADVICE: Final[tuple[tuple[type[VeoError], str], ...]] = (
    (InvalidRequest, "Nothing was sent, and nothing is billed."),
    (KeyConflict, "Nothing was sent: choose another key, or ask for what it belongs to."),
    (
        AuthenticationError,
        "Check the token in ACEDATACLOUD_API_TOKEN: https://platform.acedata.cloud has yours.",
    ),
    (InsufficientBalance, "Top up the account at https://platform.acedata.cloud, then run this again."),
    (
        PermissionDenied,
        "The application is disabled, or moderation refused the content: change what is asked for.",
    ),
    (BadRequest, "Change what is asked for: `veo-async models` tells what each model takes."),
    (
        PlatformError,
        "Nothing was bought. The API works without the platform, and images on the web need no upload.",
    ),
    (RateLimited, "Wait a while, then run this again; nothing was bought."),
    (ServerError, "The server failed; run this again later."),
    (TaskNotFound, CHECK_THE_ID),
    (ProtocolError, "Check the base URL: what answers there does not seem to be the API."),
    (TransportError, "Check the network and the base URL, then run this again."),
    (
        SubmitTimedOut,
        "The API could not be reached, or asked to wait: check the network, then run this again.",
    ),
    (BudgetExceeded, "Raise --max-videos or --max-credits, then run this again; what was bought is kept."),
    (SubmissionUnknown, "It may have been accepted, and billed: look for it before you ask for it again."),
    (JobFailed, "A failed task is not billed: change the request, or try it again."),
    (JobTimedOut, "The task goes on: `veo-async wait {task_id}` takes it up again."),
    (JobVanished, CHECK_THE_ID),
    (TrackingLost, "The task goes on: renew the token, then `veo-async wait {task_id}` takes it up again."),
    (SessionClosed, "The task goes on: `veo-async wait {task_id}` takes it up again."),
    (
        DownloadError,
        "The video stays at the server for some time: `veo-async wait {task_id} -o FILE` fetches it.",
    ),
)


def advice(error: VeoError) -> str | None:
    """
    Say in one sentence what to do about an error; None if nothing useful is known.
    """
    if isinstance(error, BadRequest) and error.code == "no_api":
        return CHECK_THE_ADDRESS
    if isinstance(error, BadRequest) and "video_id" in str(error.message):
        return CHECK_THE_VIDEO
    if isinstance(error, JobVanished | TaskNotFound) and not error.task_id:
        return CHECK_THE_KEY
    for kind, words in _ADVICE:
        if isinstance(error, kind):
            return None if "{task_id}" in words and not error.task_id else words.format(task_id=error.task_id)
    return None


def reason(error: VeoError) -> str:
    """
    Return an error's own message, without the ids.
    """
    if isinstance(error, JobVanished | TaskNotFound) and error.task_id:
        return unknown_task(error.task_id)
    if isinstance(error, JobFailed | ApiError):
        return ": ".join(part for part in (error.code, error.message) if part) or type(error).__name__
    return "; ".join(map(str, error.args)) or type(error).__name__


def unknown_task(task_id: str) -> str:
    """
    Say that the server does not know a task: it never did, no longer does, or it is another account's.
    """
    return f"the server does not know the task {task_id}"


def lines(error: VeoError) -> list[str]:
    """
    Return a line with an error's own message and the ids that help, and a line with what to do about it.
    """
    # Not the key: users only know a key that they chose.
    ids = {
        "task": error.task_id,
        "trace": getattr(error, "trace_id", None),
        "candidates": " ".join(getattr(error, "candidates", ())),
    }
    said = reason(error)
    known = ", ".join(f"{name} {value}" for name, value in ids.items() if value and value not in said)
    words = printable(said) + (f" ({printable(known)})" if known else "")
    return [line for line in (words, advice(error)) if line]

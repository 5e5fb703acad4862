"""
The public names, and the rooms that they come from.
"""

import typing as _typing

from ._api.local_images import LocalImage
from ._api.models import MODELS, Model
from ._api.records import TaskError, TaskRecord, TaskState, Video, VideoResult
from ._api.requests import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TextToVideo,
    Upsample,
)
from ._api.warnings import RequestWarning
from ._jobs.job import Job, JobState, JobUpdate
from ._journal.account_limits import AccountLimits
from ._policies import Limits, PollPolicy, RetryPolicy
from ._session.session import SessionStats, VeoSession
from .errors import (
    ApiError,
    AuthenticationError,
    BadRequest,
    BudgetExceeded,
    ConfigurationError,
    ConnectionFailed,
    DownloadError,
    InsufficientBalance,
    InvalidRequest,
    JobAbandoned,
    JobError,
    JobFailed,
    JobTimedOut,
    JobVanished,
    JournalError,
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
    TransportTimedOut,
    UsageError,
    VeoError,
)
from .events import Event, Observer

if _typing.TYPE_CHECKING:
    from ._journal.postgres import PostgresJournal
    from ._journal.sqlite import Journal

__all__ = [
    "MODELS",
    "AccountLimits",
    "ApiError",
    "AuthenticationError",
    "BadRequest",
    "BudgetExceeded",
    "ConfigurationError",
    "ConnectionFailed",
    "DownloadError",
    "Event",
    "Extend",
    "Get1080p",
    "ImageToVideo",
    "IngredientsToVideo",
    "InsertObject",
    "InsufficientBalance",
    "InvalidRequest",
    "Job",
    "JobAbandoned",
    "JobError",
    "JobFailed",
    "JobState",
    "JobTimedOut",
    "JobUpdate",
    "JobVanished",
    "Journal",
    "JournalError",
    "KeyConflict",
    "Limits",
    "LocalImage",
    "Model",
    "Observer",
    "PermissionDenied",
    "PlatformError",
    "PollPolicy",
    "PostgresJournal",
    "ProtocolError",
    "RateLimited",
    "RemoveObject",
    "Request",
    "RequestWarning",
    "Reshoot",
    "RetryPolicy",
    "ServerError",
    "SessionClosed",
    "SessionStats",
    "SubmissionUnknown",
    "SubmitTimedOut",
    "TaskError",
    "TaskNotFound",
    "TaskRecord",
    "TaskState",
    "TextToVideo",
    "TrackingLost",
    "TransportError",
    "TransportTimedOut",
    "Upsample",
    "UsageError",
    "VeoError",
    "VeoSession",
    "Video",
    "VideoResult",
]

if not _typing.TYPE_CHECKING:  # a type checker would believe that every name is there

    def __getattr__(name: str) -> _typing.Any:
        # With a journal comes SQLite, or psycopg, and not everybody needs one.
        if name == "Journal":
            from ._journal.sqlite import Journal  # noqa: PLC0415

            return Journal
        if name == "PostgresJournal":
            from ._journal.postgres import PostgresJournal  # noqa: PLC0415

            return PostgresJournal
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

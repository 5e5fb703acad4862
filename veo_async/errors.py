"""
Every exception of this package, grouped by who must act.

All can be pickled. Once an exception has reached a job, it has `key` and `task_id` (None if unknown).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadRequest",
    "BudgetExceeded",
    "ConfigurationError",
    "ConnectionFailed",
    "DownloadError",
    "InsufficientBalance",
    "InvalidRequest",
    "JobAbandoned",
    "JobError",
    "JobFailed",
    "JobTimedOut",
    "JobVanished",
    "JournalError",
    "KeyConflict",
    "PermissionDenied",
    "PlatformError",
    "ProtocolError",
    "RateLimited",
    "ServerError",
    "SessionClosed",
    "SubmissionUnknown",
    "SubmitTimedOut",
    "TaskNotFound",
    "TrackingLost",
    "TransportError",
    "TransportTimedOut",
    "UsageError",
    "VeoError",
]


# The prefixes of keys that the caller did not choose: generated for a request, or for an attached task.
MADE_UP: Final = ("auto:", "task:")


class VeoError(Exception):
    """
    The base class of every exception that this package raises on purpose.

        except VeoError as error:
            print(error, error.key, error.task_id)

    Attributes:
        key: the idempotency key of the job, or None.
        task_id: the server's id of the task, or None.
    """

    # Keyword arguments are optional in all subclasses, since an exception with required ones cannot be unpickled.
    def __init__(self, *args: Any, key: str | None = None, task_id: str | None = None) -> None:
        super().__init__(*args)
        self.key = key
        self.task_id = task_id

    def __str__(self) -> str:
        said = self._said()
        evidence = [f"{name} {value}" for name, value in self._evidence() if value is not None]
        known = [words for words in evidence if not re.search(rf"{re.escape(words)}(?![\w-])", said)]
        return said + (f" ({', '.join(known)})" if known else "")

    def _said(self) -> str:
        return (str(self.args[0]) if self.args else "") or type(self).__name__

    def _evidence(self) -> list[tuple[str, object]]:
        # A generated key is left out: the caller has never seen it.
        chosen = None if self.key is None or self.key.startswith(MADE_UP) else self.key
        return [("task", self.task_id), ("key", chosen)]


class ConfigurationError(VeoError, ValueError):
    """
    A setting cannot be used, such as a missing or ill-formed token, the base URL or the journal's path.

        try:
            VeoSession(base_url="http://api.example.com")
        except ConfigurationError as error:
            print(error)  # it must be https
    """


class UsageError(VeoError, RuntimeError):
    """
    A session was used outside `async with`, or in another event loop than the one that entered it; or a connection of
    another library than psycopg was given to `enqueue`.

        try:
            VeoSession().submit(TextToVideo("a whale"))
        except UsageError as error:
            print(error)  # it is used inside `async with`
    """


class InvalidRequest(VeoError, ValueError):
    """
    The request breaks rules that are in every version of the API's documents. Nothing was sent.

        try:
            TextToVideo("", resolution="8k")
        except InvalidRequest as error:
            print(error.violations)
    """

    @property
    def violations(self) -> tuple[str, ...]:
        """
        One sentence for each broken rule.
        """
        return tuple(self.args)

    def _said(self) -> str:
        return "; ".join(self.violations) or super()._said()


class KeyConflict(VeoError, ValueError):
    """
    The idempotency key belongs to a different request.

        veo.submit(TextToVideo("a whale"), key="order-7")
        try:
            veo.submit(TextToVideo("an owl"), key="order-7")
        except KeyConflict as error:
            print(error.key)
    """


class ApiError(VeoError):
    """
    The server answered with an error.

        except ApiError as error:
            print(error.status, error.code, error.message, error.trace_id)

    Attributes:
        status: the HTTP status, or None if the error came inside a task.
        code: the API's error code, such as `bad_request`, or None.
        message: the API's message.
        trace_id: what the vendor's support asks for, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        trace_id: str | None = None,
        key: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message, key=key, task_id=task_id)
        self.message = message
        self.status = status
        self.code = code
        self.trace_id = trace_id

    def _said(self) -> str:
        head = " ".join(str(part) for part in (self.status, self.code) if part is not None)
        return ": ".join(part for part in (head, self.message) if part) or type(self).__name__

    def _evidence(self) -> list[tuple[str, object]]:
        return [*super()._evidence(), ("trace", self.trace_id)]


class AuthenticationError(ApiError):
    """
    The token is wrong, expired, or not for this API.

        except AuthenticationError as error:
            print("get another token:", error.code)
    """


class PermissionDenied(ApiError):
    """
    The application is disabled, or moderation refused the content.

        except PermissionDenied as error:
            print("change the prompt:" if error.code == "forbidden" else "ask the vendor:", error.message)
    """


class InsufficientBalance(PermissionDenied):
    """
    The balance of the account is used up.

        except InsufficientBalance as error:
            print("buy credits, then submit the same key again:", error.key)
    """


class BadRequest(ApiError):
    """
    The API does not accept this request, or does not have this endpoint.

        except BadRequest as error:
            print("change the request:", error.message)
    """


class _MayBeRetried(ApiError):
    """
    An answer that may have a `Retry-After`.

    Attributes:
        retry_after: how long the server asked to wait, in seconds, or None.
    """

    def __init__(self, message: str = "", *, retry_after: float | None = None, **evidence: Any) -> None:
        super().__init__(message, **evidence)
        self.retry_after = retry_after


class RateLimited(_MayBeRetried):
    """
    There were too many requests.

        except RateLimited as error:
            await asyncio.sleep(error.retry_after or 30.0)

    Attributes:
        retry_after: how long the server asked to wait, in seconds, or None.
    """


class ServerError(_MayBeRetried):
    """
    The server failed, or a gateway in front of it did.

        except ServerError as error:
            print("tell the vendor:", error.trace_id)

    Attributes:
        retry_after: how long the server asked to wait, in seconds, or None.
    """


class TaskNotFound(VeoError, LookupError):
    """
    The server knows no such task.

        try:
            await veo.retrieve("no-such-task")
        except TaskNotFound as error:
            print(error)
    """


class TransportError(VeoError):
    """
    No answer came, or none that can be read.

        except TransportError as error:
            print("ask again later:", error)
    """


class ConnectionFailed(TransportError, ConnectionError):
    """
    The connection could not be made, or broke.

        except ConnectionFailed as error:
            print("is the network there?", error.__cause__)
    """


class TransportTimedOut(TransportError, TimeoutError):
    """
    No answer came in time.

        except TransportTimedOut as error:
            print("Limits.connect or Limits.read was too short:", error)
    """


class ProtocolError(TransportError):
    """
    The answer is not the API's: it is not JSON, cut off, too large, or nested too deep.

        except ProtocolError as error:
            print("raise Limits.max_reply" if error.too_large else error)

    Attributes:
        too_large: the answer is larger than `Limits.max_reply`, and was not read.
    """

    def __init__(self, *args: Any, too_large: bool = False, **evidence: Any) -> None:
        super().__init__(*args, **evidence)
        self.too_large = too_large


class SubmitTimedOut(VeoError, TimeoutError):
    """
    The job waited at the gate longer than `Limits.max_queue_wait`. It was never sent.

        except SubmitTimedOut as error:
            print("never sent, so it costs nothing:", error.key)
    """


class BudgetExceeded(VeoError):
    """
    The purchase does not fit into `Limits.max_videos` or `Limits.max_credits`. It was never sent.

        except BudgetExceeded as error:
            print("never sent, so it costs nothing:", error)
    """


class SubmissionUnknown(VeoError):
    """
    The submit may or may not have been accepted, and this could not be found out. It is not sent again.

        except SubmissionUnknown as error:
            print("look at these:", await veo.retrieve_many(error.candidates))

    Attributes:
        sent_at: when the last attempt began, in Unix seconds, or None.
        candidates: ids of tasks that may belong to this submit.
    """

    def __init__(
        self,
        message: str = "",
        *,
        sent_at: float | None = None,
        candidates: Sequence[str] = (),
        key: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message, key=key, task_id=task_id)
        self.sent_at = sent_at
        self.candidates = tuple(candidates)

    def _evidence(self) -> list[tuple[str, object]]:
        return [*super()._evidence(), ("candidates", " ".join(self.candidates) or None)]


class JobError(VeoError):
    """
    The job of an accepted task ended without a result.

        except JobError as error:
            print("no result of task", error.task_id)
    """


class JobFailed(JobError):
    """
    The task failed; the vendor does not bill it.

        except JobFailed as error:
            job = veo.submit(TextToVideo("a whale"), key=error.key, retry_failed=True)

    Attributes:
        code: the API's error code, such as `api_error`, or None.
        message: the API's message.
        trace_id: what the vendor's support asks for, or None.
    """

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        trace_id: str | None = None,
        key: str | None = None,
        task_id: str | None = None,
    ) -> None:
        super().__init__(message, key=key, task_id=task_id)
        self.message = message
        self.code = code
        self.trace_id = trace_id

    def _said(self) -> str:
        return ": ".join(part for part in (self.code, self.message) if part) or "the task failed"

    def _evidence(self) -> list[tuple[str, object]]:
        return [*super()._evidence(), ("trace", self.trace_id)]


class JobTimedOut(JobError, TimeoutError):
    """
    The job is past its deadline. The task continues at the server; `attach` waits for it again.

    If the task has succeeded without a usable link, the message says so.

        except JobTimedOut as error:
            result = await veo.attach(error.task_id, timeout=3600.0)
    """


class JobVanished(JobError):
    """
    The server no longer knows the task.

        except JobVanished as error:
            print("ask the vendor for task", error.task_id)
    """


class TrackingLost(JobError):
    """
    The token stopped working while the task ran.

        except TrackingLost as error:
            print("with a token that works, attach task", error.task_id)
    """


class JobAbandoned(JobError):
    """
    `abandon()` was called: the session no longer waits for the task. The server may still finish and bill it.

        except JobAbandoned as error:
            print("nobody waits for", error.task_id)
    """


class SessionClosed(VeoError):
    """
    The session ended before the job had an outcome.

        except SessionClosed as error:
            print("attach it in the next session:", error.task_id)
    """


class PlatformError(VeoError):
    """
    The vendor's platform could not do what was asked, such as upload a picture. Nothing was bought.

        except PlatformError as error:
            print(error.status, error)

    Attributes:
        status: the HTTP status of its answer, or None.
    """

    def __init__(self, *args: Any, status: int | None = None, **evidence: Any) -> None:
        super().__init__(*args, **evidence)
        self.status = status


class DownloadError(VeoError):
    """
    A file could not be downloaded completely, or could not be written.

        except DownloadError as error:
            print("the link may work later:", error)
    """


class JournalError(VeoError):
    """
    The journal cannot be opened, read or written.

        except JournalError as error:
            print("nothing more is bought:", error)
    """

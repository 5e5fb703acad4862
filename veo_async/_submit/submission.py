"""
One job on its way to the server.
"""

from __future__ import annotations

from typing import Final

from attrs import define

from .._api.requests import Request
from .._http.client import Outgoing
from .._jobs.job import Job, JobState
from ..errors import SessionClosed, SubmissionUnknown, VeoError
from .reconciler import Attempt
from .shown import HOUR

__all__ = ["Submission", "ended_early"]

NOT_SENT: Final = "the session ended first; the request was not sent"
GOES_ON: Final = "the session ended first; the task goes on: its key, resume() or attach() takes it up"
UNKNOWN: Final = "the session ended before it was known whether the task was accepted"


@define(eq=False)
class Submission:
    """
    One job on its way to the server.

    Attributes:
        job: whose it is.
        request: what is sent; None where the key's task is only looked for.
        queued_at: when it began to wait, on the event loop's clock.
        retry_failed: whether to buy again where the key's task failed.
        look_first: whether another process may have bought the key.
        outgoing: the body of the attempt under way, or None.
        attempt: the attempt that may have bought something, or None.
        sent_at: when that attempt began, in Unix seconds by the local clock.
        task_id: what the answer named, before it is written down; None until then.
        called: the task that a callback named before the answer came, or None.
    """

    job: Job
    request: Request | None
    queued_at: float
    retry_failed: bool = False
    look_first: bool = False
    outgoing: Outgoing | None = None
    attempt: Attempt | None = None
    sent_at: float = 0.0
    task_id: str | None = None
    called: str | None = None

    def attempted(
        self,
        *,
        mark: str | None,
        began_at: float,
        sent_at: float,
        number: int | None = None,
        reach: float = HOUR,
        skip_failed: bool = False,
    ) -> Attempt:
        """
        Note that an attempt begins, or may have been made; the job's last one, unless told its number.
        """
        self.sent_at = sent_at
        self.attempt = Attempt(
            key=self.job.key,
            number=self.job.attempts if number is None else number,
            mark=mark,
            began_at=began_at,
            reach=reach,
            first=self.job.first_attempt,
            skip_failed=skip_failed,
            may_send=self.request is not None,
        )
        return self.attempt


def ended_early(job: Job, submission: Submission | None) -> VeoError:
    """
    Make the error of a job whose session ends before its task has.
    """
    is_out = submission is not None and submission.outgoing is not None and submission.outgoing.left
    if job.state is JobState.QUEUED or (job.state is JobState.SUBMITTING and not is_out):
        return SessionClosed(NOT_SENT)
    task_id = job.task_id or (submission.task_id if submission else None)
    if task_id is not None:
        return SessionClosed(GOES_ON, task_id=task_id)
    return SubmissionUnknown(UNKNOWN, sent_at=submission.sent_at if submission else None)

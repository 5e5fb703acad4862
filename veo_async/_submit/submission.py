"""
One job on its way to the server, and what its way needs of the session.
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define

from .._api.replies import Accepted, Unknown
from .._api.requests import Request
from .._http.transport import Outgoing
from .._jobs.job import Job, JobState
from .._journal.facts import Entry
from ..errors import SessionClosed, SubmissionUnknown, VeoError
from .reconciler import Attempt

__all__ = ["GOES_ON", "NOT_SENT", "Submission", "SubmitterHost", "ended_early"]

NOT_SENT: Final = "the session ended first; the request was not sent"
GOES_ON: Final = "the session ended first; the task goes on: its key, resume() or attach() takes it up"


@define(eq=False)
class Submission:
    """
    One job on its way to the server.

    Attributes:
        job: whose it is.
        request: what is sent; None where the key's task is only looked for.
        queued_at: when it began to wait, on the event loop's clock.
        keyed: whether the key is the caller's, so that the journal may know it.
        retry_failed: whether to buy again where the key's task failed.
        outgoing: the body of the attempt under way, or None.
        attempt: the attempt that may have bought something, or None.
        sent_at: when that attempt began, in Unix seconds by the local clock.
        task_id: what the answer named, before it is written down; None until then.
        called: the task that a callback named before the answer came, or None.
        look_first: whether another process may have bought the key.
        attached: whether the job only waits for what was bought already, and is not sent again.
    """

    job: Job
    request: Request | None
    queued_at: float
    keyed: bool = False
    retry_failed: bool = False
    look_first: bool = False
    attached: bool = False
    outgoing: Outgoing | None = None
    attempt: Attempt | None = None
    sent_at: float = 0.0
    task_id: str | None = None
    called: str | None = None

    @property
    def own_url(self) -> str | None:
        """
        The request's own callback URL.
        """
        return None if self.request is None else self.request.callback_url


class SubmitterHost(Protocol):
    """
    What the submitters need of the session.
    """

    def take_up(self, submission: Submission, entry: Entry) -> bool:
        """
        Go on with what the journal knows of the job's key; False where it is only intended.
        """

    def owner_of(self, task_id: str) -> Job | None:
        """
        Find the job that has bought a task.
        """

    async def release(self, task_id: str) -> None:
        """
        Take a task from a job that has it on the word of an answer alone: a record shows another's mark.
        """

    async def accepted(
        self, job: Job, outcome: Accepted, *, marked: bool = False, found: bool = False
    ) -> None:
        """
        Take over a job whose task the server has.

        Args:
            marked: whether the task's first record is to show the job's mark.
            found: whether it may have been accepted long ago.
        """

    def hinted(self, task_id: str) -> None:
        """
        Look at a task of which a callback spoke before its id was known.
        """

    def unknown(self, submission: Submission, outcome: Unknown, *, named: str | None = None) -> None:
        """
        Find out what became of an attempt.

        Args:
            named: the task that its answer named, where that is in doubt.
        """

    def never_known(self, submission: Submission) -> None:
        """
        Hear that nobody can tell what an attempt bought whose job was abandoned.
        """

    def stop(self, job: Job, error: VeoError) -> None:
        """
        Settle a job without a terminal record.
        """

    def failed(self, fault: BaseException) -> None:
        """
        Hear of a fault of this package's own that ended a coroutine.
        """


def ended_early(submission: Submission) -> VeoError:
    """
    Make the error of a job whose session ended before it was accepted.
    """
    if submission.job.state is JobState.QUEUED or not (submission.outgoing and submission.outgoing.left):
        return SessionClosed(NOT_SENT)
    if submission.task_id is not None:
        return SessionClosed(GOES_ON, task_id=submission.task_id)
    words = "the session ended before the server had answered: the task may have been accepted"
    return SubmissionUnknown(words, sent_at=submission.sent_at)

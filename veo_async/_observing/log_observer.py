"""
The log as an observer: which events it tells of, how loudly, and in which words.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any, Final

from attrs import asdict, define, field

from ..events import (
    Accepted,
    Attached,
    BoughtTwice,
    Downloaded,
    DownloadRetried,
    Event,
    LimitsReached,
    ListingFailed,
    Looked,
    LookFailed,
    Looking,
    LookRefused,
    LookUpFailed,
    Misnamed,
    Orphaned,
    OutageBegan,
    OutageEnded,
    Paused,
    Reconciled,
    Refused,
    Resumed,
    Retried,
    Sending,
    Settled,
    Submitted,
    Unanswered,
    Uploading,
)

__all__ = ["LogObserver"]

WORDS: Final[Mapping[object, tuple[int, str]]] = {
    Submitted: (DEBUG, "job %(key)s is submitted: a %(kind)s"),
    Attached: (DEBUG, "job %(key)s waits for what was bought already"),
    Sending: (DEBUG, "job %(key)s is being sent, attempt %(attempt)d"),
    Refused: (DEBUG, "job %(key)s was refused: %(reason)s"),
    Unanswered: (DEBUG, "it is not known whether job %(key)s was accepted: %(reason)s"),
    Retried: (INFO, "job %(key)s is sent again: %(reason)s"),
    Accepted: (DEBUG, "job %(key)s has task %(task_id)s"),
    Settled: (DEBUG, "job %(key)s %(state)s"),
    Reconciled: (INFO, "job %(key)s has task %(task_id)s after all"),
    BoughtTwice: (
        ERROR,
        "the key of job %(key)s was bought more than once; also paid for: %(all_task_ids)s",
    ),
    Misnamed: (
        WARNING,
        "the answer to job %(key)s named task %(task_id)s, which shows another job's mark",
    ),
    Orphaned: (INFO, "task %(task_id)s was accepted for the abandoned job %(key)s"),
    ListingFailed: (WARNING, "a listing failed, so %(believed)d refusals are believed: %(reason)s"),
    LookUpFailed: (INFO, "a look-up failed: %(reason)s"),
    Looking: (DEBUG, "asking about %(count)d tasks"),
    Looked: (DEBUG, "the answer about %(count)d tasks took %(seconds).3f s"),
    LookFailed: (DEBUG, "a poll of %(count)d tasks failed: %(reason)s"),
    LookRefused: (WARNING, "the server refused a query about %(count)d tasks: %(reason)s"),
    Paused: (DEBUG, "%(lane)s pause for %(seconds).1f s: %(reason)s"),
    Resumed: (DEBUG, "%(lane)s go on, after %(seconds).1f s"),
    LimitsReached: (INFO, "submits wait: %(reason)s"),
    OutageBegan: (
        WARNING,
        "no answer from the API for %(seconds).0f s, still trying; check the network and the base URL: %(reason)s",
    ),
    OutageEnded: (INFO, "the API answers again, after %(seconds).0f s"),
    Uploading: (INFO, "uploading %(source)s, %(size)d bytes, to a public address"),
    DownloadRetried: (INFO, "download of task %(task_id)s: %(reason)s; again in %(seconds).1f s"),
    Downloaded: (DEBUG, "task %(task_id)s is downloaded: %(path)s"),
}


def _log() -> logging.Logger:
    return logging.getLogger("veo_async")


@define(eq=False)
class LogObserver:
    """
    Logs events. Each record has the event's fields as attributes, and `event`, the name of its class.

    A session has one of its own, unless it is given another one.

    Args:
        logger: where to; by default `logging.getLogger("veo_async")`.
    """

    logger: logging.Logger = field(factory=_log)

    def hears(self, kind: object) -> bool:
        """
        Tell whether events of this class are logged, as logging is configured now.
        """
        return kind in WORDS and self.logger.isEnabledFor(WORDS[kind][0])

    def __call__(self, event: Event) -> None:
        if not self.hears(type(event)):
            return
        level, words = WORDS[type(event)]
        told = asdict(event, recurse=False)
        if isinstance(event, Reconciled) and event.refused:
            level, words = WARNING, "job %(key)s was refused, and has task %(task_id)s all the same"
        elif isinstance(event, ListingFailed) and not event.believed:
            words = "a listing failed: %(reason)s"
        elif isinstance(event, Settled) and event.error:
            words += ": %(error)s: %(reason)s"
        self.logger.log(level, words, _with_counts(told), extra={"event": type(event).__name__} | told)


def _with_counts(told: dict[str, Any]) -> dict[str, Any]:
    ids = told.get("task_ids", ())
    return told | {"count": len(ids), "all_task_ids": " ".join(ids)}

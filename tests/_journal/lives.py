"""
Facts for tests: one of each kind, about the key `k` unless told otherwise.
"""

from __future__ import annotations

from veo_async._journal.facts import (
    Accepted,
    Attempt,
    AttemptClosed,
    Downloaded,
    Fact,
    Intended,
    Sending,
    Settled,
    Withdrawn,
)

TOKEN = "0123456789abcdef0123456789abcdef"
REQUEST = '{"prompt": "a whale"}'
RESULT = '{"videos": []}'


def intended(key: str = "k", request: str = REQUEST, at: float = 1.0) -> Intended:
    return Intended(key=key, request=request, at=at)


def sending(key: str = "k", attempt: int = 1, at: float = 2.0, mark: str | None = None) -> Sending:
    return Sending(key=key, attempt=attempt, at=at, mark=mark)


def refused(key: str = "k", attempt: int = 1) -> AttemptClosed:
    return AttemptClosed(key=key, attempt=attempt, outcome="refused", at=3.0)


def not_sent(key: str = "k", attempt: int = 1) -> AttemptClosed:
    return AttemptClosed(key=key, attempt=attempt, outcome="not_sent", at=3.0)


def accepted(key: str = "k", task_id: str = "t") -> Accepted:
    return Accepted(key=key, task_id=task_id, trace_id="trace", at=4.0)


def settled(key: str = "k", outcome: str = RESULT) -> Settled:
    return Settled(key=key, failed=False, outcome=outcome, at=5.0)


def failed(key: str = "k", outcome: str = '"moderation"') -> Settled:
    return Settled(key=key, failed=True, outcome=outcome, at=5.0)


def downloaded(key: str = "k", path: str = "/v.mp4") -> Downloaded:
    return Downloaded(key=key, video_id="v", path=path, at=6.0)


def withdrawn(key: str = "k") -> Withdrawn:
    return Withdrawn(key=key, at=7.0)


def attempt(
    number: int = 1, *, at: float = 2.0, mark: str | None = None, closed: str | None = None
) -> Attempt:
    return Attempt(number=number, at=at, mark=mark, closed=closed)


INTENDED: list[Fact] = [intended()]
SENDING: list[Fact] = [*INTENDED, sending()]
ACCEPTED: list[Fact] = [*SENDING, accepted()]
SETTLED: list[Fact] = [*ACCEPTED, settled()]
FAILED: list[Fact] = [*ACCEPTED, failed()]

"""
What is kept as text is read as it was.
"""

from __future__ import annotations

from typing import Any

import pytest

from veo_async import JobFailed
from veo_async._api.journal_text import dump_outcome, dump_request, load_outcome, load_request
from veo_async._api.records import VideoResult
from veo_async._api.requests import Request, TextToVideo
from veo_async._api.tasks import failure_of, video_result

from .bodies import KINDS, REQUESTS, sample


@pytest.mark.parametrize(("request_", "body"), REQUESTS, ids=KINDS)
def test_a_request_survives_being_kept(request_: Request, body: dict[str, Any]) -> None:
    """
    A request that was written as text is read as an equal one, and writes the same text.
    """
    text = dump_request(request_)
    assert request_ == load_request(text)
    assert text == dump_request(load_request(text))


def test_a_result_survives_being_kept() -> None:
    """
    A result that was written as text is read as an equal one.
    """
    request = TextToVideo("a")
    result = video_result("1", sample("task_succeeded"), request)
    kept = load_outcome(dump_outcome(result), request)
    assert isinstance(kept, VideoResult)
    assert result == kept
    assert result.raw == kept.raw


def test_a_failure_survives_being_kept() -> None:
    """
    A failure that was written as text keeps its code, its words and its ids.
    """
    failure = failure_of("1", sample("task_failed_inferred"))
    kept = load_outcome(dump_outcome(failure), None)
    assert isinstance(kept, JobFailed)
    assert (failure.args, failure.code, failure.trace_id, failure.task_id) == (
        kept.args,
        kept.code,
        kept.trace_id,
        kept.task_id,
    )

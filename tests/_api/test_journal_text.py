"""
What is kept as text is read as it was.
"""

from __future__ import annotations

from typing import Any

import pytest

from veo_async import BadRequest, JobFailed
from veo_async._api.journal_text import (
    dump_outcome,
    dump_refusal,
    dump_request,
    load_outcome,
    load_refusal,
    load_request,
)
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


def test_a_refusal_survives_being_kept() -> None:
    """
    Who waits in another process gets the answer of the server; a text that cannot be read is still a refusal.
    """
    refusal = BadRequest("model is not supported", status=400, code="bad_request", trace_id="t")
    kept = load_refusal(dump_refusal(refusal))
    assert (type(refusal), str(refusal)) == (type(kept), str(kept))
    for text in (None, "", "{}", '{"kind": "JobFailed"}', '{"kind": "nothing"}'):
        assert "the request was refused" in str(load_refusal(text))

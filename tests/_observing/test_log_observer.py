"""
The log as an observer: every event has its words, and a record has the event's fields.
"""

from __future__ import annotations

import inspect
import logging
from typing import Any

import attrs
import pytest

from tests.virtual import World
from tests.virtual.scripted import in_virtual_time, whale
from veo_async import Event, events
from veo_async._observing.log_observer import WORDS
from veo_async.telemetry import LogObserver

KINDS: list[type[Event]] = [
    getattr(events, name) for name in events.__all__ if name not in ("Event", "Observer")
]
VALUES: dict[str, Any] = {
    "str": "word",
    "int": 2,
    "float": 2.5,
    "bool": True,
    "tuple[str, ...]": ("t-1", "t-2"),
}


def made(kind: type[Event], **changes: Any) -> Event:
    """
    Make an event whose fields have plain values.
    """
    values = {one.name: VALUES[str(one.type).removesuffix(" | None")] for one in attrs.fields(kind)}
    return kind(**values | changes)


@pytest.mark.parametrize("kind", KINDS)
def test_each_event_has_words_and_fields(kind: type[Event], caplog: pytest.LogCaptureFixture) -> None:
    """The words hold together, and the fields are attributes of the record, none of which is logging's own."""
    caplog.set_level(logging.DEBUG, "veo_async")
    event = made(kind)
    LogObserver()(event)
    [record] = caplog.records
    assert "%" not in record.getMessage()
    assert {"event": kind.__name__, **attrs.asdict(event, recurse=False)}.items() <= vars(record).items()
    own = vars(logging.makeLogRecord({})).keys() | {"message", "asctime"}
    assert not own & {"event", *inspect.signature(kind).parameters}


def test_every_line_has_its_event() -> None:
    """The table has all of them."""
    assert {*KINDS} == {*WORDS}


@pytest.mark.parametrize(
    ("event", "level", "words"),
    [
        (made(events.Reconciled, refused=False), "INFO", "job word has task word after all"),
        (made(events.Reconciled), "WARNING", "job word was refused, and has task word all the same"),
        (made(events.ListingFailed, believed=0), "WARNING", "a listing failed: word"),
        (made(events.ListingFailed), "WARNING", "a listing failed, so 2 refusals are believed: word"),
        (made(events.LookRefused), "WARNING", "the server refused a query about 2 tasks: word"),
        (
            made(events.BoughtTwice),
            "ERROR",
            "the key of job word was bought more than once; also paid for: t-1 t-2",
        ),
        (made(events.Settled, error=None), "DEBUG", "job word word"),
        (made(events.Settled, error="JobFailed"), "DEBUG", "job word word: JobFailed: word"),
    ],
)
def test_levels_and_words(event: Event, level: str, words: str, caplog: pytest.LogCaptureFixture) -> None:
    """What somebody must see is a warning or an error, and what happens to each job is for those who debug."""
    caplog.set_level(logging.DEBUG, "veo_async")
    LogObserver()(event)
    assert [(level, words)] == [(one.levelname, one.getMessage()) for one in caplog.records]


@in_virtual_time
async def test_a_session_logs_unless_told_where(caplog: pytest.LogCaptureFixture) -> None:
    """A log observer of one's own takes the place of the session's."""
    caplog.set_level(logging.DEBUG)
    async with World().session() as veo:
        await veo.submit(whale(), key="k")
    lines = [one for one in caplog.records if getattr(one, "key", None) == "k"]
    assert {"veo_async"} == {one.name for one in lines}
    assert ["Submitted", "Sending", "Accepted", "Settled"] == [vars(one)["event"] for one in lines]
    caplog.clear()
    async with World().session(observers=[LogObserver(logging.getLogger("mine"))]) as veo:
        await veo.submit(whale(), key="k")
    assert {"mine"} == {one.name for one in caplog.records if hasattr(one, "event")}


def test_events_that_nobody_logs_are_not_made(caplog: pytest.LogCaptureFixture) -> None:
    """What logging leaves out costs no event, and what it lets through again is heard."""
    log = LogObserver(logging.getLogger("veo_async.test"))
    caplog.set_level(logging.INFO, "veo_async.test")
    assert [False, True] == [log.hears(events.Looked), log.hears(events.Retried)]
    caplog.set_level(logging.DEBUG, "veo_async.test")
    assert log.hears(events.Looked)
    assert not log.hears(Event)

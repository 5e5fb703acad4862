"""
The server's clock, as far as its replies tell it.
"""

from __future__ import annotations

import pytest

from veo_async._http.clock import ServerClock


def test_the_servers_clock_is_narrowed_down_by_each_reply() -> None:
    """
    A `Date` is cut to whole seconds: replies at different moments leave less and less doubt.
    """
    clock = ServerClock()
    assert clock.at(0.0) is None
    for moment in (10.0, 11.3, 12.6, 13.9):  # at a server whose clock is 1000.25 s ahead
        clock.note(float(int(moment + 1000.25)), sent_at=moment, received_at=moment)
    assert 1000.25 == pytest.approx(clock.at(0.0), abs=0.2)


def test_the_earlier_of_the_local_and_the_servers_clock_counts() -> None:
    """
    What would miss a task is worse than what looks for it in too long a span.
    """
    clock = ServerClock(lambda: 900.0)
    assert 900.0 == clock.earliest(2.0)
    clock.note(1000.0, sent_at=0.0, received_at=0.0)
    assert 900.0 == clock.earliest(2.0)
    clock.note(402.0, sent_at=2.0, received_at=2.0)
    assert 402.0 == clock.earliest(2.0)


def test_a_clock_that_was_set_is_learned_anew() -> None:
    """
    What a newer reply contradicts is void.
    """
    clock = ServerClock()
    clock.note(1000.0, sent_at=0.0, received_at=0.1)
    clock.note(5301.0, sent_at=301.0, received_at=301.1)
    assert 5000.0 == pytest.approx(clock.at(0.0), abs=1.0)

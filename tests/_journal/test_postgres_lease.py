"""
The lease by its holder's own clocks: when it may spend, and for what.
"""

from __future__ import annotations

from itertools import product
from uuid import uuid4

import pytest

from veo_async._journal.postgres_lease import Lease, read_clocks

BOOT, WALL = 1000.0, 1.7e9


class Clocks:
    """
    Two clocks that tests set.
    """

    def __init__(self) -> None:
        self.times = (BOOT, WALL)

    def __call__(self) -> tuple[float, ...]:
        return self.times


def a_lease(*keys: str) -> tuple[Lease, Clocks]:
    clocks = Clocks()
    lease = Lease(10.0, clocks)
    lease.begin(1, uuid4(), clocks())
    lease.sending.update(keys)
    return lease, clocks


@pytest.mark.parametrize(("boot", "wall"), [*product((0.0, 7.9), (-7.9, 0.0, 7.9))])
def test_a_lease_is_valid_for_most_of_its_time(boot: float, wall: float) -> None:
    """Until 0.8 of it have passed since the renewal was sent, a key that is being sent may leave."""
    lease, clocks = a_lease("k")
    clocks.times = (BOOT + boot, WALL + wall)
    assert lease.may_send("k")


@pytest.mark.parametrize(("boot", "wall"), [(8.1, 0.0), (0.0, 8.1), (0.0, -8.1), (3600.0, 3600.0)])
def test_either_clock_ends_a_lease(boot: float, wall: float) -> None:
    """A machine that slept, a clock that was put forward and one that was put back: nothing leaves."""
    lease, clocks = a_lease("k")
    clocks.times = (BOOT + boot, WALL + wall)
    assert not lease.may_send("k")


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    """What counts is the time before the question, not after the answer."""
    lease, clocks = a_lease("k")
    clocks.times = (BOOT + 9.0, WALL + 9.0)
    lease.renew(1, (BOOT + 5.0, WALL + 5.0))
    assert lease.may_send("k")
    clocks.times = (BOOT + 13.1, WALL + 13.1)
    assert not lease.may_send("k")


def test_only_what_this_session_is_sending_may_leave() -> None:
    """A key that it has not written *sending* of may not, however valid the lease is."""
    lease, _ = a_lease("k")
    assert lease.is_valid()
    assert not lease.may_send("another")


def test_what_an_earlier_session_was_sending_may_not_leave() -> None:
    """A process whose session was given up spends nothing for its keys, though it has begun another one."""
    lease, clocks = a_lease("k")
    lease.lose()
    assert not lease.may_send("k")
    lease.begin(2, uuid4(), clocks())
    lease.renew(1, (BOOT + 100.0, WALL + 100.0))  # an answer that comes late
    assert lease.is_valid()
    assert not lease.may_send("k")
    lease.sending.add("k")
    assert lease.may_send("k")


def test_a_lease_that_is_lost_stays_lost() -> None:
    """A renewal that was under way does not bring it back."""
    lease, clocks = a_lease("k")
    lease.lose()
    lease.renew(1, clocks())
    assert not lease.is_valid()


def test_the_clocks_run() -> None:
    """Both go on, and the first is not the wall clock."""
    before, after = read_clocks(), read_clocks()
    assert all(one <= other for one, other in zip(before, after, strict=True))
    assert 2 == len(before)

"""
The fixtures, which pytest loads at its start: so nothing else is imported until a test asks for one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .. import VeoSession
    from ..simulator import Settings
    from .clock import VeoClock
    from .simulated import VeoSimulator

__all__ = ["veo_clock", "veo_session", "veo_simulator", "veo_simulator_settings"]


@pytest.fixture
def veo_simulator_settings(request: pytest.FixtureRequest) -> Settings:
    """
    How `veo_simulator` behaves; define a fixture of this name to change it.
    """
    from ..simulator import Settings  # noqa: PLC0415
    from .simulated import SPEED  # noqa: PLC0415

    return Settings(speed=1.0 if "veo_clock" in request.fixturenames else SPEED)


@pytest.fixture
def veo_simulator(request: pytest.FixtureRequest, veo_simulator_settings: Settings) -> Iterator[VeoSimulator]:
    """
    The Veo API on this machine, which every `VeoSession()` in the test finds by itself.
    """
    from .around import serve  # noqa: PLC0415
    from .clock import VeoClock  # noqa: PLC0415

    clock = VeoClock() if "veo_clock" in request.fixturenames else None
    with pytest.MonkeyPatch.context() as patches:
        yield from serve(veo_simulator_settings, patches, clock)


@pytest.fixture
def veo_session(request: pytest.FixtureRequest, veo_simulator: VeoSimulator) -> Iterator[VeoSession]:
    """
    A `VeoSession` that is entered when the async test begins, in the test's own loop, and left when it ends.

    It is for the test. An async fixture makes its own `VeoSession()`, which finds the simulator as well.
    """
    from .around import enter_around  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patches:
        yield enter_around(request, patches)


@pytest.fixture
def veo_clock(request: pytest.FixtureRequest, veo_simulator: VeoSimulator) -> Iterator[VeoClock]:
    """
    A clock that jumps: while the async test runs, its loop never sleeps, and tasks take as long as in life.

    Before the test, in async fixtures, its time stands still: there, nothing should wait for a video.
    """
    from .around import jump_around  # noqa: PLC0415

    if "veo_session" in request.fixturenames:
        request.getfixturevalue("veo_session")  # which then begins after the clock, and ends before it
    with pytest.MonkeyPatch.context() as patches:
        yield jump_around(request, patches, veo_simulator)

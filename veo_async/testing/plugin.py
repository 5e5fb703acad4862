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
def veo_simulator(
    veo_simulator_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[VeoSimulator]:
    """
    The Veo API on this machine, which every `VeoSession()` in the test finds by itself.
    """
    from .around import serve  # noqa: PLC0415

    yield from serve(veo_simulator_settings, monkeypatch)


@pytest.fixture
def veo_session(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, veo_simulator: VeoSimulator
) -> VeoSession:
    """
    A `VeoSession` that is entered when the async test begins, in its own loop, and left when it ends.
    """
    from .around import enter_around  # noqa: PLC0415

    return enter_around(request, monkeypatch)


@pytest.fixture
def veo_clock(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, veo_simulator: VeoSimulator
) -> VeoClock:
    """
    A clock that jumps: while the async test runs, its loop sleeps no longer than an instant.
    """
    from .around import jump_around  # noqa: PLC0415

    if "veo_session" in request.fixturenames:
        request.getfixturevalue("veo_session")  # which then begins after the clock, and ends before it
    return jump_around(request, monkeypatch, veo_simulator)

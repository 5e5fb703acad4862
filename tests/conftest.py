"""
What many test files use.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.virtual.scripted import Options
from veo_async import Journal


@pytest.fixture(params=["without a journal", "with a journal"])
def options(request: pytest.FixtureRequest, tmp_path: Path) -> Options:
    """
    A session's options, made anew for each: what is promised holds with a journal and without one.
    """
    journalled = request.param == "with a journal"
    return lambda: {"journal": Journal(tmp_path / "batch.db", inline=True)} if journalled else {}

"""
The house keeps to its table; see `tests/rooms.py`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import veo_async

from .rooms import MAY_IMPORT, PURE, breaches

TOP = Path(veo_async.__file__).parent
ROOMS = {".".join(path.relative_to(TOP).with_suffix("").parts): path for path in sorted(TOP.rglob("*.py"))}
PROGRAMS = [path for folder in ("examples", "benchmarks") for path in (TOP.parent / folder).glob("*.py")]
MEASURED = {
    "journal.py": "_journal.",
    "postgres.py": "_journal.",
    "schedule.py": "_track.",
}  # what a benchmark is about has no public name


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_keeps_to_the_table(room: str) -> None:
    """It imports what its wing's row allows, is pure where it has to be, and reads nobody's private attributes."""
    assert [] == list(breaches(room, ROOMS[room].read_text(encoding="utf-8")))


def test_the_rows_stand_in_order() -> None:
    """What a row names stands above it, so that no wing reaches itself; and each row has a wing."""
    rows = list(MAY_IMPORT)
    for number, row in enumerate(rows):
        assert {name.split(".")[0] for name in MAY_IMPORT[row].split()} <= set(rows[:number])
    assert set(rows) == {room.split(".")[0] for room in ROOMS}


def test_a_third_of_the_code_is_pure() -> None:
    """What decides needs no loop, no clock and no disk; only what a session is made of is counted."""
    sizes = {room: len(path.read_text().splitlines()) for room, path in ROOMS.items()}
    library = sum(size for room, size in sizes.items() if room.startswith(("_", "errors", "events")))
    assert sum(size for room, size in sizes.items() if PURE.fullmatch(room)) > library / 3


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_programs_use_the_public_package_only(program: Path) -> None:
    """Examples and benchmarks reach for no room behind an underscore, save what they measure."""
    measured = MEASURED.get(program.name, "nothing")
    for node in ast.walk(ast.parse(program.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("veo_async._"):
            assert f"{node.module}.".startswith(f"veo_async.{measured}")


@pytest.mark.parametrize(
    ("room", "source", "words"),
    [
        ("_api.wire", "from .._http.client import Http", "_api may not import _http.client.Http"),
        ("_api.wire", "from .. import _http", "_api may not import _http"),
        ("_api.wire", "import veo_async._http.client", "_api may not import _http.client"),
        ("_api.wire", "from veo_async._http.client import Http", "_api may not import _http.client.Http"),
        ("_api.wire", "def late():\n    from .._http import client", "_api may not import _http.client"),
        ("_jobs.job", "from .. import VeoSession", "_jobs may not import __init__.VeoSession"),
        ("_jobs.job", "import veo_async", "_jobs may not import __init__"),
        ("_track.tracker", "from .._jobs.job import Job", "_track may not import _jobs.job.Job"),
        ("__init__", "from .simulator import Simulator", "__init__ may not import simulator.Simulator"),
        ("receiver", "from ._track.tracker import Tracker", "receiver may not import _track.tracker.Tracker"),
        ("simulator._app", "from .._api.wire import decode", "simulator may not import _api.wire.decode"),
        ("simulator._app", "from ..errors import VeoError", "simulator may not import errors.VeoError"),
        ("spare.room", "from ..errors import VeoError", "spare may not import errors.VeoError"),
        ("_api.wire", "import asyncio", "pure code may not import :asyncio"),
        ("_api.wire", "from asyncio import sleep", "pure code may not import :asyncio.sleep"),
        ("_track.schedule", "def f():\n    from time import monotonic", "may not import :time.monotonic"),
        ("_http.gate", "import aiohttp.web", "pure code may not import :aiohttp.web"),
        ("errors", "import sqlite3", "pure code may not import :sqlite3"),
        ("_api.wire", "async def f(): ...", "pure code has the coroutine f"),
        ("_api.wire", "at = datetime.now()", "pure code calls now"),
        ("_api.wire", "open('somewhere')", "pure code calls open"),
        ("_jobs.job", "print(policy._scale)", "policy._scale is private to another room"),
        ("_jobs.job", "self.lane._gate.open()", "self.lane._gate is private to another room"),
        ("_jobs.__init__", '"""Jobs."""\nfrom .job import Job', "a front door holds code"),
    ],
)
def test_the_gate_sees_a_breach(room: str, source: str, words: str) -> None:
    """Whatever the table forbids is told in a sentence, however it is written and wherever it stands."""
    told = [told for told in breaches(room, source) if words in told]
    assert 1 == len(told)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("_api.wire", "from ..errors import VeoError\nfrom .states import classify\nimport json"),
        ("_http.client", "import asyncio\nasync def f(): ..."),
        ("_jobs.job", "class Job:\n    _at: float\n    def __lt__(self, other): return self._at < other._at"),
        ("simulator._app", "from .._api.models import MODELS, Model\nfrom ._core import Core"),
        ("cli.commands.batch", "import click\nfrom ... import Job\nfrom ..words import short"),
        ("_jobs.__init__", '"""Jobs."""'),
    ],
)
def test_the_gate_lets_through_what_is_allowed(room: str, source: str) -> None:
    """What the table allows is no breach."""
    assert [] == list(breaches(room, source))

"""
The gate that holds design.md's "Rooms": who may import whom, what stays pure, what a plain install has.

A module that no row names fails: a new room, or a room in two parts, is a decision, made in these tables.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping, Set
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest
from attrs import frozen

PACKAGE: Final = "veo_async"
SOURCES: Final = Path(__file__).parent.parent / PACKAGE
PROGRAMS: Final = [SOURCES.parent / folder for folder in ("examples", "benchmarks")]

# --- the tables ------------------------------------------------------------------------------------------

ROOT: Final = "__init__"  # the public package itself
ANYTHING: Final = frozenset({"*"})
PUBLIC: Final = frozenset({ROOT, "errors"})

_MODELS: Final = frozenset({"_models", "errors"})
_WIRE: Final = _MODELS | {"_wire"}
_HTTP: Final = _WIRE | {"_http", "_access", "_policies", "_gate", "_lane"}
_SUBMIT: Final = _HTTP | {"_submit", "_journal", "_marks", "_reconcile", "_job"}
_ENGINE: Final = _SUBMIT | {
    "_engine",
    "_reconciling",
    "_registry",
    "_listing",
    "_tracker",
    "_polling",
    "_download",
}
_SESSION: Final = _ENGINE | {"_session", "_access", "_feed"}

MAY_IMPORT: Final[Mapping[str, frozenset[str]]] = {
    "errors": frozenset(),
    "_models": frozenset({"errors"}),
    "_wire": _MODELS,
    "_policies": frozenset({"errors"}),
    "_polling": _MODELS | {"_policies"},
    "_gate": frozenset({"_policies", "errors"}),
    "_lane": frozenset({"_gate", "errors"}),  # the loop's side of a gate, which is itself pure
    "_marks": frozenset({"errors"}),
    "_reconcile": _WIRE | {"_marks"},
    "_http": _HTTP - {"_http"},
    "_download": _HTTP,  # with `_http` come its policies and what its answers mean
    "_journal": _WIRE,
    "_job": _MODELS,
    "_submit": _SUBMIT - {"_submit"},
    "_tracker": _WIRE
    | {"_polling", "_lane"},  # it classifies raw records, and polls have a lane of their own
    "_access": frozenset({"errors"}),
    "_listing": _WIRE
    | {"_http", "_marks", "_reconcile"},  # the caller's questions; reconciling asks the same
    "_reconciling": _SUBMIT | {"_listing"},  # the loop's side of `_reconcile`, which is itself pure
    "_feed": _MODELS | {"_job"},
    "_registry": _WIRE | {"_job", "_journal"},
    "_engine": _ENGINE - {"_engine"},  # what runs while a session is entered
    "_session": _SESSION - {"_session"},
    ROOT: _SESSION,
    "receiver": PUBLIC,
    "worker": PUBLIC | {"_journal"},
    "simulator": frozenset({"_models"}),
    "testing": PUBLIC | {"simulator"},
    "cli": ANYTHING,
    "__main__": frozenset({"cli"}),
}

# A room in several files keeps its one row, and stays as pure as it was.
PART_OF: Final[Mapping[str, str]] = {
    "_answers": "_wire",
    "_cautions": "_models",
    "_clock": "_http",
    "_durations": "_polling",
    "_endings": "_engine",
    "_failures": "_http",
    "_hints": "_polling",
    "_intake": "_submit",
    "_journal_facts": "_journal",
    "_journal_schema": "_journal",
    "_journal_store": "_journal",
    "_outage": "_http",
    "_shown": "_reconcile",
    "_part": "_download",
    "_plain": "_models",
    "_results": "_models",
    "_rules": "_models",
    "_secret": "_http",
    "_short": "_session",
    "_states": "_wire",
    "_submission": "_submit",
    "_suspects": "_polling",
}

PURE: Final = frozenset(
    {"errors", "_models", "_wire", "_policies", "_polling", "_gate", "_reconcile", "_marks"}
)
FORBIDDEN_NAMES: Final = frozenset({"utils", "helpers", "base", "constants", "types"})

# What a room may take from another where the table of rooms alone says too little.
ONLY_THESE: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("simulator", "_models"): frozenset({"MODELS", "Model"}),  # the table, so that no mistake is shared
}

# An event loop, a socket, a disk, a thread or a clock: not even their types, since pure code takes the parts.
IMPURE_IMPORTS: Final = frozenset(
    {"aiohttp", "asyncio", "concurrent", "select", "selectors", "socket", "sqlite3", "ssl", "subprocess"}
    | {"threading", "time"}
)
CLOCKS: Final = frozenset({"now", "today", "utcnow"})  # of `datetime` and `date`, and nothing else's here
WAYS_ROUND: Final = frozenset({"__import__", "import_module", "open"})

RUNTIME: Final = frozenset({"aiohttp", "attr", "attrs", "backoff", "cattrs", "yarl"})  # yarl is aiohttp's own
EXTRAS: Final[Mapping[str, frozenset[str]]] = {
    "cli": frozenset({"click", "rich"}),
    "testing": frozenset({"pytest"}),  # whoever uses the plugin has it
}

# Which room of no public name a benchmark is about.
MEASURED_BY: Final[Mapping[str, Set[str]]] = {
    "journal.py": {"_journal"},
    "schedule.py": {"_polling"},
}

# --- the checker -----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Import:
    """
    One imported name: `target` is one of our modules in dotted form (`simulator.app`), or a stranger's root.
    """

    target: str
    ours: bool
    name: str | None
    type_only: bool
    line: int


def room_of(module: str) -> str:
    """
    The room of a module in dotted form: `simulator.app` belongs to `simulator`.
    """
    first = module.partition(".")[0]
    return PART_OF.get(first, first)


def module_of(path: Path, top: Path) -> str:
    """
    The dotted form of a source file, without the package: `simulator` for `simulator/__init__.py`.
    """
    parts = path.relative_to(top).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == ROOT else parts)


def imports_of(source: str, module: str, *, package: bool = False) -> Iterator[Import]:
    """
    Every import anywhere in the source of `module`, inside functions too; `package` is for an `__init__.py`.
    """
    tree = ast.parse(source)
    type_only = set(_type_only(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield _import(alias.name, None, type_only=node in type_only, line=node.lineno)
        elif isinstance(node, ast.ImportFrom):
            origin = _absolute(node, module, package=package)
            for alias in node.names:
                yield _import(origin, alias.name, type_only=node in type_only, line=node.lineno)


def _type_only(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            for statement in node.body:
                yield from ast.walk(statement)


def _absolute(node: ast.ImportFrom, module: str, *, package: bool) -> str:
    if not node.level:
        return node.module or ""
    here = [PACKAGE] if module == ROOT else [PACKAGE, *module.split(".")]
    up = node.level - (1 if package else 0)
    return ".".join([*here[: len(here) - up], *([node.module] if node.module else [])])


def _import(origin: str, name: str | None, *, type_only: bool, line: int) -> Import:
    first, _, rest = origin.partition(".")
    if first != PACKAGE:
        return Import(target=first, ours=False, name=name, type_only=type_only, line=line)
    if not rest and name is not None and name in {*MAY_IMPORT, *PART_OF}:  # `from . import _wire`
        rest, name = name, None
    return Import(target=rest or ROOT, ours=True, name=name, type_only=type_only, line=line)


def faults(module: str, source: str, *, package: bool = False) -> list[str]:
    """
    Everything in the source of `module` that the tables forbid, one sentence each.
    """
    room = room_of(module)
    if FORBIDDEN_NAMES & set(module.split(".")):
        return [f"{module}: that name says nothing about what the module holds"]
    if room not in MAY_IMPORT:
        return [f"{module}: no row of the table of rooms names it"]
    found: list[str] = []
    for item in imports_of(source, module, package=package):
        found.extend(f"{module}:{item.line}: {fault}" for fault in _import_faults(room, item))
    if room in PURE:
        found.extend(f"{module}:{fault}" for fault in _impurities(source))
    return found


def _import_faults(room: str, item: Import) -> Iterator[str]:
    if not item.ours:
        yield from _stranger_faults(room, item)
        return
    other = room_of(item.target)
    if other == room or item.type_only:
        return
    if MAY_IMPORT[room] != ANYTHING and other not in MAY_IMPORT[room]:
        yield f"{room} may not import {other}"
    allowed = ONLY_THESE.get((room, other))
    if allowed is not None and item.name not in allowed:
        yield f"{room} may take only {', '.join(sorted(allowed))} from {other}, not {item.name}"


def _stranger_faults(room: str, item: Import) -> Iterator[str]:
    if room in PURE and item.target in IMPURE_IMPORTS:
        yield f"{room} is pure: it may not import {item.target}"
    if item.target not in sys.stdlib_module_names | RUNTIME | EXTRAS.get(room, frozenset()):
        yield f"{room} may not import {item.target}: it is no run-time dependency"


def _impurities(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.AsyncFunctionDef(name=name):
                yield f"{node.lineno}: pure code has no coroutine such as {name}"
            case ast.Attribute(attr=attr, value=ast.Name(id="datetime" | "date") | ast.Attribute()) if (
                attr in CLOCKS
            ):
                yield f"{node.lineno}: pure code takes `now` as an argument and reads no clock ({attr})"
            case ast.Name(id=name) | ast.Attribute(attr=name) if name in WAYS_ROUND:
                yield f"{node.lineno}: pure code does not call {name}"


# --- the package against the tables ----------------------------------------------------------------------


def _modules() -> list[tuple[str, Path]]:
    return sorted((module_of(path, SOURCES), path) for path in SOURCES.rglob("*.py"))


@pytest.mark.parametrize(("module", "path"), [pytest.param(*row, id=row[0]) for row in _modules()])
def test_every_module_keeps_to_its_room(module: str, path: Path) -> None:
    """Each module has a row, imports only what the row allows, and is pure where it has to be."""
    assert [] == faults(module, path.read_text(encoding="utf-8"), package=path.stem == ROOT)


def test_the_gate_sees_the_package() -> None:
    """The modules that everything rests on are among those looked at."""
    assert {ROOT, "errors", "_models", "_wire"} <= {module for module, _ in _modules()}


def test_no_module_takes_the_name_of_a_package() -> None:
    """A room is one module or one folder, never both."""
    names = [module for module, _ in _modules()]
    assert sorted(set(names)) == names


def test_the_table_has_no_cycle() -> None:
    """Data flows one way: no room reaches itself through the rooms it may import."""
    for room, allowed in MAY_IMPORT.items():
        reached, frontier = set[str](), set(allowed - ANYTHING)
        while frontier:
            reached |= frontier
            frontier = {other for known in frontier for other in MAY_IMPORT[known]} - reached - ANYTHING
        assert room not in reached, room


def _graph() -> dict[str, set[str]]:
    modules = dict(_modules())
    graph: dict[str, set[str]] = {module: set() for module in modules}
    for module, path in modules.items():
        for item in imports_of(path.read_text(encoding="utf-8"), module, package=path.stem == ROOT):
            inner = f"{item.target}.{item.name}"  # `from . import app` inside a folder
            if item.ours and not item.type_only:
                graph[module].add(inner if inner in modules else item.target)
    return graph


def test_the_modules_have_no_cycle() -> None:
    """The modules can be put in an order in which each imports only what stands before it."""
    programs = {"receiver", "worker", "testing", "cli"}  # these use the public package, as any program does
    graph = {
        module: others - {ROOT} for module, others in _graph().items() if room_of(module) not in programs
    }
    assert set(graph) == set(TopologicalSorter(graph).static_order())


def test_the_tables_name_rooms_that_have_a_row() -> None:
    """A misspelled room in any table would hold nothing."""
    rows = set(MAY_IMPORT)
    assert set[str]().union(*MAY_IMPORT.values()) - ANYTHING <= rows
    assert PURE | set(EXTRAS) | set(PART_OF.values()) <= rows
    assert {room for pair in ONLY_THESE for room in pair} <= rows


def test_programs_use_the_public_package_only() -> None:
    """Examples and benchmarks reach for no module whose name begins with an underscore, save what they measure."""
    for path in (path for folder in PROGRAMS for path in folder.rglob("*.py")):
        imports = imports_of(path.read_text(encoding="utf-8"), "a_program")
        private = {item.target for item in imports if item.ours and item.target.startswith("_")}
        assert set() == private - {ROOT} - MEASURED_BY.get(path.name, set()), path


# --- the checker against made-up sources -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "source", "words"),
    [
        ("_models", "from ._wire import decode", "_models may not import _wire"),
        ("_models", "from . import _wire", "_models may not import _wire"),
        ("_models", "import veo_async._api.wire", "_models may not import _wire"),
        ("_models", "from veo_async._api.wire import decode", "_models may not import _wire"),
        ("_models", "def late():\n    from ._http import Http", "_models may not import _http"),
        ("_job", "from . import VeoSession", "_job may not import __init__"),
        ("_job", "import veo_async", "_job may not import __init__"),
        ("_tracker", "from ._job import Job", "_tracker may not import _job"),
        ("_durations", "from ._wire import decode", "_polling may not import _wire"),
        ("_polling", "from . import _answers", "_polling may not import _wire"),
        ("_submit", "from ._polling import PollPolicy", "_submit may not import _polling"),
        ("__init__", "from .simulator import Simulator", "__init__ may not import simulator"),
        ("receiver", "from ._tracker import Tracker", "receiver may not import _tracker"),
        ("simulator.app", "from .._wire import decode", "simulator may not import _wire"),
        ("simulator.app", "from ..errors import VeoError", "simulator may not import errors"),
        ("simulator.app", "from .._models import TextToVideo", "may take only MODELS, Model from _models"),
        ("simulator.app", "from .. import _models", "may take only MODELS, Model from _models"),
        (
            "_reconcile",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from ._http import Http",
            "_reconcile may not import",
        ),
        ("_session", "import click", "it is no run-time dependency"),
        ("cli", "import requests", "it is no run-time dependency"),
        ("helpers", "", "says nothing"),
        ("simulator.utils", "", "says nothing"),
        ("_spare", "", "no row of the table"),
    ],
)
def test_the_gate_sees_an_import_that_is_not_allowed(module: str, source: str, words: str) -> None:
    """One forbidden import, however it is written and wherever it stands, is one fault that names both rooms."""
    [fault] = faults(module, source)
    assert words in fault


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "from asyncio import sleep",
        "import aiohttp.web",
        "import sqlite3",
        "import time",
        "def f():\n    from time import monotonic",
        "if TYPE_CHECKING:\n    from asyncio import Future",
        "async def f(): ...",
        "from datetime import datetime\nat = datetime.now()",
        "import datetime\nat = datetime.datetime.utcnow()",
        "from datetime import date\nclock = date.today",
        "import importlib\nimportlib.import_module('time')",
        "__import__('time')",
        "open('somewhere')",
    ],
)
def test_the_gate_sees_what_is_not_pure(source: str) -> None:
    """A loop, a socket, a disk or a clock in a pure room is one fault, and none in a room that may have it."""
    assert 1 == len(faults("_wire", source))
    assert 1 == len(faults("_answers", source))
    assert [] == faults("_session", source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("_wire", "from ._models import Video\nfrom .errors import VeoError"),
        ("_wire", "import json\nfrom cattrs import Converter"),
        ("_wire", "from . import _answers"),
        ("_wire", "from datetime import datetime\nat = datetime.fromtimestamp(0)"),
        ("_gate", "def opens_at(now: float) -> float:\n    return now"),
        ("_job", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._session import VeoSession"),
        ("simulator.app", "from .core import Core\nfrom .._models import MODELS, Model"),
        ("simulator.app", "from . import core"),
        ("worker", "from . import VeoSession, errors\nfrom ._journal import Journal"),
        ("cli", "import click\nfrom .simulator import Simulator\nfrom ._http import Http"),
        ("__init__", "from ._session import VeoSession\nfrom .errors import VeoError"),
    ],
)
def test_the_gate_lets_through_what_is_allowed(module: str, source: str) -> None:
    """What the tables allow is no fault, a type-only import of another room of ours included."""
    assert [] == faults(module, source, package=module == ROOT)


def test_a_folder_belongs_to_one_room() -> None:
    """The dotted form leaves the package out, and an `__init__.py` stands for its folder."""
    forms = {"__init__.py": ROOT, "_models.py": "_models", "simulator/__init__.py": "simulator"}
    forms["simulator/core/__init__.py"] = "simulator.core"
    assert forms == {path: module_of(SOURCES / path, SOURCES) for path in forms}
    assert "simulator" == room_of("simulator.core")


def test_relative_imports_count_from_where_they_stand() -> None:
    """One dot in an `__init__.py` is its own folder, one dot elsewhere the folder around."""
    [inside] = imports_of("from .core import Core", "simulator", package=True)
    [beside] = imports_of("from .core import Core", "simulator.app")
    [above] = imports_of("from ..errors import VeoError", "simulator", package=True)
    assert ("simulator.core", "simulator.core", "errors") == (inside.target, beside.target, above.target)

"""
What is handed out: the names, their signatures, defaults and documentation, and the files that go with them.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import pytest

import veo_async
from veo_async import Job, JobUpdate, Limits, PollPolicy, RetryPolicy, VeoSession, errors
from veo_async.cli.group import command

ROOT: Final = Path(__file__).parent.parent
PYPROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: Final[dict[str, Any]] = PYPROJECT["project"]

# --- the names -------------------------------------------------------------------------------------------

NAMES: Final = {
    *("VeoSession", "SessionStats", "Job", "JobState", "JobUpdate"),
    *("PollPolicy", "RetryPolicy", "Limits"),
    *("Request", "RequestWarning", "TextToVideo", "ImageToVideo", "IngredientsToVideo", "Get1080p"),
    *("Upsample", "Extend", "Reshoot", "InsertObject", "RemoveObject"),
    *("VideoResult", "Video", "TaskRecord", "TaskState", "TaskError", "Model", "MODELS"),
    "LocalImage",
    *errors.__all__,
}


def _order(name: str) -> tuple[int, str]:
    """
    Constants first, then classes, then functions: as ruff sorts them.
    """
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_the_public_names_are_listed_in_order() -> None:
    """`__all__` is sorted, so that a diff of the surface is one line, and lists nothing twice."""
    assert sorted(set(veo_async.__all__), key=_order) == veo_async.__all__


def test_the_public_names_are_the_designs() -> None:
    """Every name of the contract is there."""
    assert set() == NAMES - set(veo_async.__all__)


def test_nothing_public_is_unlisted() -> None:
    """What can be reached without an underscore is either listed or a room with a name of its own."""
    rooms = {module.name for module in pkgutil.iter_modules(veo_async.__path__)}
    reachable = {name for name in dir(veo_async) if re.match("[A-Za-z]", name)}
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        veo_async.Nothing  # type: ignore[attr-defined]  # noqa: B018
    assert set(veo_async.__all__) == reachable - rooms


def test_a_star_import_gives_the_surface() -> None:
    """Every listed name can be imported."""
    for name in veo_async.__all__:
        assert hasattr(veo_async, name), name
    assert set() == set(veo_async.__all__) - set(dir(veo_async))


def test_what_a_test_puts_in_place_of_a_name_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are looked up when they are first asked for: no other name's lookup brings a replaced one back."""

    class Fake(VeoSession):
        pass

    monkeypatch.setattr(veo_async, "VeoSession", Fake)
    monkeypatch.delitem(vars(veo_async), "Journal", raising=False)
    assert (True, Fake) == (hasattr(veo_async, "Journal"), veo_async.VeoSession)


def test_names_belong_to_the_public_package_in_the_typing_file() -> None:
    """The file that the type checkers read imports from no room, and uses most of the surface."""
    tree = ast.parse((ROOT / "tests" / "typing_surface.py").read_text(encoding="utf-8"))
    ours = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and "veo_async" in (node.module or "")
    ]
    assert {"veo_async", "veo_async.events", "veo_async.telemetry", "veo_async.testing"} == {
        node.module for node in ours
    }
    used = {alias.name for node in ours for alias in node.names}
    assert set() == NAMES - used - set(errors.__all__) - {"RequestWarning"}


# --- signatures and defaults -----------------------------------------------------------------------------

SESSION: Final = {
    "submit": "(self, request, *, key=None, timeout=None, retry_failed=False, look_first=False)",
    "submit_many": "(self, requests, *, look_first=False)",
    "text_to_video": "(self, prompt, **fields)",
    "image_to_video": "(self, prompt, image_urls, **fields)",
    "ingredients_to_video": "(self, image_urls, prompt=None, **fields)",
    "get_1080p": "(self, video, **fields)",
    "upsample": "(self, video, target, **fields)",
    "extend": "(self, video, prompt=None, **fields)",
    "reshoot": "(self, video, motion_type, **fields)",
    "insert_object": "(self, video, prompt, **fields)",
    "remove_object": "(self, video, image_mask, **fields)",
    "map": "(self, requests, *, window=1000, ordered=False, look_first=False)",
    "as_completed": "(self, jobs)",
    "attach": "(self, task_id=None, *, key=None, timeout=None)",
    "find": "(self, keys)",
    "resume": "(self)",
    "retrieve": "(self, task_id=None, *, trace_id=None)",
    "retrieve_many": "(self, task_ids)",
    "list_tasks": "(self, *, created_from=None, created_to=None, type=None, limit=None)",
    "price": "(self, request)",
    "download": "(self, video, destination, *, progress=None)",
    "notify": "(self, payload)",
}
JOB: Final = {
    "done": "(self)",
    "result": "(self)",
    "exception": "(self)",
    "add_done_callback": "(self, callback, *, context=None)",
    "accepted": "(self)",
    "updates": "(self)",
    "abandon": "(self)",
}
MAKING: Final = (
    "token",
    "base_url",
    "http",
    "polling",
    "retry",
    "limits",
    "journal",
    "placeholder",
    "observers",
    "platform",
)
AWAITED: Final = {"find", "resume", "retrieve", "retrieve_many", "price", "download"}

DEFAULTS: Final[list[tuple[type, dict[str, object]]]] = [
    (
        PollPolicy,
        {
            "mode": "learned",
            "interval": 3.0,
            "first_look": None,
            "max_gap": 30.0,
            "batch_size": 50,
            "budget": 10.0,
            "deadline": 1800.0,
        },
    ),
    (
        RetryPolicy,
        {
            "first": 1.0,
            "factor": 2.0,
            "max_delay": 30.0,
            "max_pause": 300.0,
            "grace": 60.0,
            "drain": 5.0,
            "recall": 86_400.0,
        },
    ),
    (
        Limits,
        {
            "max_in_flight": None,
            "submits_per_second": None,
            "connections": 100,
            "connect": 10.0,
            "read": 60.0,
            "max_reply": 16 * 1024 * 1024,
            "max_queue_wait": None,
            "max_videos": None,
            "max_credits": None,
        },
    ),
]


def _bare(function: Any) -> str:
    """
    The signature without annotations: `(self, task_id=None, *, trace_id=None)`.
    """
    signature = inspect.signature(function)
    parameters = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return str(signature.replace(parameters=parameters, return_annotation=signature.empty))


@pytest.mark.parametrize("name", SESSION)
def test_the_session_has_the_methods_of_the_design(name: str) -> None:
    """Name, parameters, order and defaults of each method are the contract's."""
    assert SESSION[name] == _bare(getattr(VeoSession, name))


@pytest.mark.parametrize("name", JOB)
def test_the_job_has_the_methods_of_the_design(name: str) -> None:
    """Name, parameters, order and defaults of each method are the contract's."""
    assert JOB[name] == _bare(getattr(Job, name))


def test_awaited_methods_are_coroutines_and_the_rest_return_at_once() -> None:
    """Where the design writes `await` there is a coroutine, and nowhere else."""
    assert AWAITED == {name for name in SESSION if inspect.iscoroutinefunction(getattr(VeoSession, name))}
    assert {"accepted"} == {name for name in JOB if inspect.iscoroutinefunction(getattr(Job, name))}


def test_a_session_is_made_of_the_designs_parts() -> None:
    """The token may go by position, all else goes by name."""
    parameters = inspect.signature(VeoSession).parameters
    assert set(parameters) <= set(MAKING)
    assert set(MAKING) - {"journal"} <= set(parameters)
    by_position = [name for name, one in parameters.items() if one.kind is not one.KEYWORD_ONLY]
    assert ["token"] == by_position


def test_a_job_and_its_updates_show_what_the_design_says() -> None:
    """The attributes of a job and the fields of an update are there under their names."""
    attributes = {"key", "request", "task_id", "trace_id", "state", *JOB}
    assert attributes <= set(dir(Job))
    assert ["state", "at", "task_id", "looks", "expected_at"] == list(inspect.signature(JobUpdate).parameters)


@pytest.mark.parametrize(("policy", "defaults"), DEFAULTS, ids=[policy.__name__ for policy, _ in DEFAULTS])
def test_the_policies_have_the_designs_defaults(policy: type, defaults: dict[str, object]) -> None:
    """Each default is the documented one, all fields go by name, and there is no other."""
    made = policy()
    assert defaults == {name: getattr(made, name) for name in defaults}
    public = {
        name: one for name, one in inspect.signature(policy).parameters.items() if not name.startswith("_")
    }
    assert set(defaults) == set(public)
    assert all(one.kind is one.KEYWORD_ONLY for one in public.values())


def test_the_session_shows_nothing_else() -> None:
    """Whoever completes `veo.` in an editor sees the contract, and not what the rooms tell each other."""
    shown = {name for name in dir(VeoSession) if not name.startswith("_")}
    assert {*SESSION, "stats"} == shown


# --- documentation ---------------------------------------------------------------------------------------


def _documented() -> list[tuple[str, object]]:
    public = {name: getattr(veo_async, name) for name in veo_async.__all__}
    kinds = {name: thing for name, thing in public.items() if inspect.isclass(thing)}
    found: list[tuple[str, object]] = [*kinds.items()]
    for name, kind in kinds.items():
        for member, value in vars(kind).items():
            if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                found.append((f"{name}.{member}", value))
    return found


@pytest.mark.parametrize(("name", "thing"), [pytest.param(*row, id=row[0]) for row in _documented()])
def test_every_public_thing_is_documented(name: str, thing: object) -> None:
    """Each class, method and property says in its first sentence what it is or does."""
    text = inspect.getdoc(thing) or ""
    assert re.match(r"[A-Z`].*[.:;]", text.replace("\n", " ")), name
    assert not text.startswith("Method generated by attrs"), name


# --- what is shipped -------------------------------------------------------------------------------------


def test_the_types_are_shipped() -> None:
    """`py.typed` lies in the package, so that type checkers read its annotations."""
    assert files("veo_async").joinpath("py.typed").is_file()


def test_the_version_is_one() -> None:
    """The version stands in the package alone, in the form of semantic versioning."""
    assert re.fullmatch(r"\d+\.\d+\.\d+", veo_async.__version__)
    assert ["version"] == PROJECT["dynamic"]
    assert "veo_async/__init__.py" == PYPROJECT["tool"]["hatch"]["version"]["path"]


def _distributions(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9._-]", requirement)[0] for requirement in requirements}


def test_a_plain_install_brings_four_distributions() -> None:
    """Whoever wants the client alone gets the four run-time dependencies; anything more is an extra."""
    assert {"aiohttp", "attrs", "backoff", "cattrs"} == _distributions(PROJECT["dependencies"])
    extras = PROJECT["optional-dependencies"]
    assert {"cli", "dev", "postgres"} <= set(extras)
    assert {"psycopg"} == _distributions(extras["postgres"])
    assert {"opentelemetry-api"} == _distributions(extras["telemetry"])
    assert _distributions(extras["cli"]) <= {"click", "rich"}


def test_the_supported_pythons_are_named() -> None:
    """The range of versions and the classifiers agree, and this interpreter is one of them."""
    prefix = "Programming Language :: Python :: "
    named = {name.removeprefix(prefix) for name in PROJECT["classifiers"] if name.startswith(prefix + "3.")}
    assert {"3.11", "3.12", "3.13"} <= named
    assert ">=3.11" == PROJECT["requires-python"]
    assert sys.version_info >= (3, 11)


def test_each_command_can_be_found() -> None:
    """Each script that an installation makes points at a callable."""
    for target in PROJECT["scripts"].values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))


def test_an_import_takes_no_more_than_it_needs() -> None:
    """`import veo_async` says nothing, warns about nothing, and loads nothing else until a name is asked for."""
    extras = (
        "click",
        "rich",
        "psycopg",
        "aiohttp",
        "attrs",
        "pytest",
        "opentelemetry",
        "veo_async.simulator",
        "veo_async.testing",
        "veo_async.cli",
        "veo_async.platform",
    )
    program = f"import sys, veo_async; print(sorted(set({extras!r}) & set(sys.modules)))"
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "[]\n", "") == (ended.returncode, ended.stdout, ended.stderr)


def test_the_top_level_is_fixed() -> None:
    """Beside dotfiles the repository holds what the design names; what git ignores does not count."""
    patterns = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    found = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and not any(fnmatch(path.name, pattern) for pattern in patterns)
    }
    fixed = {
        "pyproject.toml",
        "veo_async",
        "tests",
        "benchmarks",
        "examples",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
    }
    assert set() == found - fixed


def test_the_licence_is_the_one_named() -> None:
    """The licence file is there, and is what the metadata says."""
    assert "MIT" == PROJECT["license"]
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_changelog_knows_this_version() -> None:
    """What is being worked on, or the version itself, has its section in the changelog."""
    sections = re.findall(
        r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {"Unreleased", veo_async.__version__} & set(sections)


@pytest.mark.parametrize(
    "command",
    [
        "python3 -m venv .venv && .venv/bin/pip install -q '.[dev]' && .venv/bin/pytest",
        "python3 -m venv .venv && .venv/bin/pip install -q '.[cli]' && .venv/bin/veo-async demo",
    ],
)
def test_the_readme_has_the_commands_that_are_run(command: str) -> None:
    """Each command stands in the README once, on a line of its own, whence the checks take it."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert 1 == [line.strip().removeprefix("$ ") for line in lines].count(command)


def test_the_changelog_tells_every_command() -> None:
    """Each command of the program is named among the changes."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert [] == [name for name in command.commands if f"`{name}`" not in text]

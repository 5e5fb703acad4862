"""
The README does what it says: its programs run, its tables are the package's, its commands are understood.
"""

from __future__ import annotations

import ast
import asyncio
import os
import re
import shlex
from collections.abc import Callable, Iterator
from inspect import CO_COROUTINE
from pathlib import Path
from types import CodeType
from typing import Any, Final

import click
import psycopg
import pytest
from attrs import fields_dict

import veo_async
from tests.platform.pictures import picture
from tests.postgres.server import do
from tests.worker.stage import staged
from veo_async import MODELS, JobState, Limits, Model, PollPolicy, RetryPolicy, VeoSession, errors
from veo_async.cli.batch.input import read_items
from veo_async.cli.group import command
from veo_async.simulator import Core, Faults, Settings, Simulator
from veo_async.simulator._faults import ENDPOINTS, FAULTS
from veo_async.testing import VeoSimulator
from veo_async.testing.simulated import served

pytest_plugins = ("pytester",)

ROOT: Final = Path(__file__).parent.parent
README: Final = (ROOT / "README.md").read_text(encoding="utf-8")
SPEED: Final = 200.0
TEST: Final = "def test_"
QUEUE: Final = "from veo_async.worker import"


# --- reading it ------------------------------------------------------------------------------------------


def _blocks(language: str, *, of: str = "") -> list[Any]:
    """
    The fenced blocks of a language, each named after the line in which it begins.

    Args:
        of: what such a block has in it; without it, the blocks that need neither pytest nor a queue.
    """
    blocks = []
    for match in re.finditer(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL):
        line = README[: match.start(1)].count("\n")
        if of in match[1] if of else not any(special in match[1] for special in (TEST, QUEUE)):
            blocks.append(pytest.param(match[1], line, id=f"line {line + 1}"))
    return blocks


def _rows(heading: str) -> list[list[str]]:
    """
    The cells of the table whose first row begins like this.
    """
    lines = README.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    rows: list[list[str]] = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows


# --- the programs ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[VeoSimulator]:
    """
    A simulator in a thread of its own, as the programs have their own event loops.
    """
    with served(Core(Settings(speed=SPEED))) as simulator:
        yield simulator


@pytest.fixture
def hurried(
    server: VeoSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., VeoSession]:
    """
    What stands for `VeoSession` in the README's programs: itself, as patient as a fast server deserves.
    """

    def make(*arguments: Any, **options: Any) -> VeoSession:
        if "base_url" not in options:  # else it is the program's own server, at the program's own pace
            options["polling"] = options.get("polling", PollPolicy()).scaled(1 / SPEED)
            options["retry"] = options.get("retry", RetryPolicy()).scaled(1 / SPEED)
        return VeoSession(*arguments, **options)

    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", server.token)
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", server.url)
    monkeypatch.setenv("ACEDATACLOUD_PLATFORM_TOKEN", f"platform-{server.token}")
    monkeypatch.setenv("ACEDATACLOUD_PLATFORM_BASE_URL", server.url)
    picture(tmp_path)
    monkeypatch.setattr(veo_async, "VeoSession", make)
    monkeypatch.chdir(tmp_path)
    return make


def _compiled(source: str, line: int) -> CodeType:
    """
    Compile so that a traceback shows the README's lines; `await` may stand at the top level.
    """
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code: CodeType = compile("\n" * line + source, str(ROOT / "README.md"), "exec", flags, dont_inherit=True)
    return code


async def _inside_a_session(code: CodeType, make: Callable[..., VeoSession]) -> None:
    names = {name: getattr(veo_async, name) for name in veo_async.__all__}
    async with make() as veo:
        names |= {"asyncio": asyncio, "veo": veo}
        outcome = eval(code, names)
        if code.co_flags & CO_COROUTINE:
            await outcome


@pytest.mark.parametrize(("source", "line"), _blocks("python"))
def test_each_program_runs(source: str, line: int, hurried: Callable[..., VeoSession]) -> None:
    """A whole program runs by itself, a piece inside a session, all against the simulator."""
    code = _compiled(source, line)
    if "asyncio.run(" in source:
        exec(code, {"__name__": "__main__"})
    else:
        asyncio.run(_inside_a_session(code, hurried))


@pytest.mark.parametrize(("source", "line"), _blocks("python", of=QUEUE))
async def test_each_program_with_a_queue_runs(source: str, line: int, database: str, tmp_path: Path) -> None:
    """So does what enqueues, with a worker beside it, and a table of its own."""
    do(database, "CREATE TABLE orders (id serial PRIMARY KEY, prompt text)")
    async with staged(database) as stage, stage.working(out=tmp_path):
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            names: dict[str, Any] = {"connection": connection}
            await eval(_compiled(source, line), names)
        assert names["result"].video.url.endswith(".mp4")
        await stage.delivered()
    assert {"1.mp4"} == set(os.listdir(tmp_path))


def test_each_test_passes(pytester: pytest.Pytester) -> None:
    """The README's tests pass under pytest-asyncio, each in a file of its own."""
    blocks = _blocks("python", of=TEST)
    pytester.makepyfile(**{f"test_{block.id.replace(' ', '_')}": block.values[0] for block in blocks})
    options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function")
    ended = pytester.runpytest_subprocess("-p", "no:xdist", "-W", "error", *(f"-o{one}" for one in options))
    ended.assert_outcomes(passed=len(blocks))


@pytest.mark.usefixtures("hurried")
def test_the_batch_buys_nothing_twice(server: VeoSimulator, tmp_path: Path) -> None:
    """Run again, the README's batch sends no submit; and it has saved the files that it names."""
    (batch,) = (block.values for block in _blocks("python") if "submit_many(" in str(block.values[0]))
    bought = []
    for _ in range(2):
        before = server.core.accepted
        exec(_compiled(str(batch[0]), 0), {"__name__": "__main__"})
        bought.append(server.core.accepted - before)
    assert [2, 0] == bought
    assert ["kettle.mp4", "whale.mp4"] == sorted(path.name for path in tmp_path.glob("*.mp4"))


# --- the promise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("column", "kind", "details"),
    [(2, "drop_after", {}), (3, "status_after", {"status": 502}), (4, "stall_after", {})],
)
async def test_our_row_is_true(column: int, kind: str, details: dict[str, Any]) -> None:
    """One call, whose submit is accepted and then not answered: one submit is sent, and its video arrives."""
    faults = Faults().add(kind, on="submit", first=True, **details)
    async with Simulator(Settings(speed=SPEED), faults=faults) as simulator:
        async with VeoSession(
            simulator.token,
            base_url=simulator.url,
            polling=PollPolicy().scaled(1 / SPEED),
            retry=RetryPolicy().scaled(1 / SPEED),
            limits=Limits(read=0.5),  # seconds: the time-out that is hung past
        ) as veo:
            result = await veo.text_to_video("a whale")
        assert [result.task_id] == list(simulator.core.tasks)
        (row,) = (row for row in _rows("| client |") if row[0] == "veo_async")
        assert f"{simulator.core.requests['submit']}, and the id is kept" == row[column]
        assert veo_async.__version__ == row[1]


# --- the tables ------------------------------------------------------------------------------------------


def _images(model: Model) -> str:
    counts: dict[str, list[int]] = {}
    for count, meaning in sorted(model.images.items()):
        counts.setdefault(meaning, []).append(count)
    ranges = {meaning: "-".join(dict.fromkeys(map(str, (min(n), max(n))))) for meaning, n in counts.items()}
    return ", ".join(f"{numbers}: {meaning}" for meaning, numbers in ranges.items())


def _default(name: str) -> str:
    if veo_async.TextToVideo("a whale").model == name:
        return "default"
    if veo_async.IngredientsToVideo(["https://example.com/a.jpg"]).model == name:
        return "default for ingredients"
    return ""


def test_the_models_are_those_of_the_table() -> None:
    """Each row of the table of models is generated from `MODELS`."""
    rows = [
        [
            f"`{model.name}`",
            model.tier,
            "yes" if model.text else "no",
            _images(model),
            ", ".join(model.resolutions),
            "retired" if model.retired else _default(model.name),
        ]
        for model in MODELS.values()
    ]
    assert rows == _rows("| model |")


def test_every_kind_of_request_is_in_the_table() -> None:
    """Each request has its row, which names its fields and the session's method."""
    rows = [re.findall(r"`(\w+)(?:\((.*?)\))?`", " ".join(row[:2])) for row in _rows("| request |")]
    kinds = {kind.__name__: kind for kind in veo_async.Request.__subclasses__()}
    assert set(kinds) == {row[0][0] for row in rows}
    for (name, arguments), (method, _) in rows:
        places = [argument.strip() for argument in arguments.split(",")]
        wanted = ["video" if field == "video_id" else field for field in fields_dict(kinds[name])]
        assert places == [field for field in wanted if field in places], name
        assert hasattr(VeoSession, method)


def test_every_state_is_in_the_table() -> None:
    """The states of a job are told in the order in which they are defined."""
    assert [f"`{state}`" for state in JobState] == [row[0] for row in _rows("| state |")]


def test_every_error_is_told() -> None:
    """Each class of error that is raised has one row; those that only gather others are named below."""
    named = [row[1].strip("`") for row in _rows("| who |")]
    assert len(set(named)) == len(named)
    gathering = {"VeoError", "ApiError", "TransportError", "JobError"}
    assert set(errors.__all__) == set(named) | gathering
    assert gathering.isdisjoint(named)


@pytest.mark.parametrize(("name", "default", "_"), _rows("| setting |"))
def test_each_default_is_the_packages(name: str, default: str, _: str) -> None:
    """A setting's default in the README is the one that the policy has."""
    policy, field = name.strip("`").split(".")
    made: object = {"PollPolicy": PollPolicy, "RetryPolicy": RetryPolicy, "Limits": Limits}[policy]()
    assert default.strip("`") == str(getattr(made, field))


@pytest.mark.parametrize(("name", "default", "_"), _rows("| `Settings` |"))
def test_each_default_is_the_simulators(name: str, default: str, _: str) -> None:
    """A setting of the simulator in the README has the default that it has in the package."""
    assert default.strip("`") == str(getattr(Settings(), name.strip("`")))


def test_every_kind_of_fault_is_told() -> None:
    """Each kind of fault stands once in the table of faults, and each endpoint above it."""
    told = [kind for row in _rows("| kind of fault |") for kind in re.findall(r"`(\w+)`", row[0])]
    assert sorted({kind for kinds in FAULTS.values() for kind in kinds}) == sorted(told)
    assert [*ENDPOINTS] == re.findall(r"`(\w+)`", README.partition("`on` is one or several of ")[2])[:6]


def test_each_client_has_its_version_and_all_have_a_date() -> None:
    """A row of the table of clients names a version, ours the package's, and the day is told above it."""
    versions = {name: version for name, version, *_ in _rows("| client |")}
    assert [] == [name for name, version in versions.items() if not re.fullmatch(r"\d+(\.\d+)+", version)]
    assert veo_async.__version__ == versions["veo_async"]
    assert re.search(r"newest versions on \d{4}-\d{2}-\d{2}:", README.partition("| client |")[0])


# --- the commands and the links --------------------------------------------------------------------------


def _command_lines() -> list[str]:
    lines = [line for block in _blocks("sh") for line in str(block.values[0]).splitlines()]
    return [line for line in lines if line.startswith("veo-async ")]


@pytest.mark.parametrize("line", _command_lines())
def test_each_command_is_understood(line: str) -> None:
    """The command takes the arguments that the README gives it."""
    _, name, *arguments = shlex.split(line)
    parent = click.Context(command)
    chosen = command.get_command(parent, name)
    assert chosen
    with chosen.make_context(name, arguments, parent=parent) as context:
        assert name == context.info_name


@pytest.mark.parametrize(
    ("source", "line", "form"),
    [pytest.param(*one.values, form, id=form) for form in ("json", "csv") for one in _blocks(form)],
)
def test_the_inputs_of_a_batch_have_no_fault(source: str, line: int, form: str) -> None:
    """What the README shows as an input is one, line by line."""
    reading = read_items(source, {"json": "jsonl", "csv": "csv"}[form])
    assert ((), ()) == (reading.faults, reading.cautions), line
    assert len(source.splitlines()) - (form == "csv") == len(reading.items)


def test_every_command_is_told() -> None:
    """The README shows each of the commands."""
    assert set(command.commands) == {line.split()[1] for line in _command_lines()}


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_the_links_lead_somewhere() -> None:
    """A link into the repository names a file, and one into the README a heading."""
    anchors = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", README, re.MULTILINE)}
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", README) if not link.startswith("https://")]
    assert links
    for link in links:
        assert link[1:] in anchors if link.startswith("#") else (ROOT / link).exists(), link


def test_every_public_name_that_it_uses_exists() -> None:
    """What stands in code after `veo.` or `job.` is there."""
    for owner, kind in (("veo", VeoSession), ("job", veo_async.Job)):
        for name in re.findall(rf"\b{owner}\.([a-z_0-9]+)", README):
            assert hasattr(kind, name), f"{owner}.{name}"

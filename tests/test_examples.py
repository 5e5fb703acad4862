"""
The examples as a reader runs them: by themselves, without a key, with every warning an error.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Final

import pytest

from veo_async.simulator import Settings, Simulator

EXAMPLES: Final = Path(__file__).parent.parent / "examples"
ENVIRONMENT: Final = {
    name: value for name, value in os.environ.items() if not name.startswith("ACEDATACLOUD_")
}
DATABASE: Final = "VEO_ASYNC_DATABASE"
SPEED: Final = 100.0
SLOW: Final = re.compile(
    r"^Executing <.* took [0-9.]+ seconds\n", re.MULTILINE
)  # says -X dev of a busy machine

# Runs an example as if a token were set, against a server that runs faster than life and a session that keeps step.
HURRIED: Final = f"""
import runpy, sys, veo_async

class Hurried(veo_async.VeoSession):
    def __init__(self, *arguments, **options):
        options["polling"] = veo_async.PollPolicy().scaled(1 / {SPEED})
        options["retry"] = veo_async.RetryPolicy().scaled(1 / {SPEED})
        super().__init__(*arguments, **options)

veo_async.VeoSession = Hurried
sys.argv = sys.argv[1:]
sys.path.insert(0, {str(EXAMPLES)!r})
runpy.run_path(sys.argv[0], run_name="__main__")
"""


async def _start(*arguments: str, where: Path, server: Simulator | None = None) -> Process:
    environment = {**ENVIRONMENT, **{name: os.environ[name] for name in [DATABASE] if name in os.environ}}
    if server is not None:
        arguments = ("-c", HURRIED, *arguments)
        environment |= {"ACEDATACLOUD_API_TOKEN": server.token, "ACEDATACLOUD_API_BASE_URL": server.url}
    flags = ("-X", "dev", "-W", "error", "-u")
    return await asyncio.create_subprocess_exec(
        sys.executable, *flags, *arguments, cwd=where, env=environment, stdout=PIPE, stderr=PIPE
    )


async def _run(name: str, *arguments: str, where: Path, server: Simulator | None = None) -> list[str]:
    """
    Run an example to its end; it must succeed, and say nothing on stderr.
    """
    process = await _start(str(EXAMPLES / name), *arguments, where=where, server=server)
    try:
        out, complaints = await asyncio.wait_for(process.communicate(), timeout=60)
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert (0, "") == (process.returncode, SLOW.sub("", complaints.decode()))
    return out.decode().splitlines()


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """
    A directory to run in, which is to stay empty.
    """
    path = tmp_path / "empty"
    path.mkdir()
    return path


def _left_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_web_application_streams_each_step_and_ends_with_the_link(empty: Path) -> None:
    """Each of the three videos goes from pending to succeeded, event by event, and then names its file."""
    lines = await _run("page_aiohttp.py", where=empty)
    for prompt in ("a whale", "a heron", "an owl"):
        told = [
            json.loads(line.removeprefix(f"{prompt}: ")) for line in lines if line.startswith(f"{prompt}: ")
        ]
        states = list(dict.fromkeys(update["state"] for update in told[:-1]))
        assert ["pending", "succeeded"] == states[-2:]
        assert told[-1]["url"].endswith(".mp4")
    assert [] == _left_in(empty)


KEYS: Final = {"whale", "kettle", "dunes", "lighthouse", "tram", "orchard"}


def _saved(directory: Path) -> set[str]:
    return {path.stem for path in directory.glob("*.mp4") if path.stat().st_size > 0}


async def test_a_chain_takes_each_video_through_its_steps(empty: Path) -> None:
    """Each of the five subjects ends as a file."""
    lines = await _run("chain.py", where=empty)
    assert 5 == len([line for line in lines if re.fullmatch(r"[\w ]+\.mp4: \d+ bytes", line)])
    assert [] == _left_in(empty)


def test_a_notebook_runs_from_its_first_cell_to_its_last(capsys: pytest.CaptureFixture[str]) -> None:
    """Its cells await at the top level, in one event loop that runs already."""
    book = json.loads((EXAMPLES / "notebook.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]

    async def run() -> None:
        names: dict[str, object] = {}
        for source in sources:
            cell = compile(source, "cell", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(cell, names)
            if cell.co_flags & CO_COROUTINE:
                await outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.delenv("ACEDATACLOUD_API_TOKEN", raising=False)
        asyncio.run(run())
    assert 3 == capsys.readouterr().out.count(".mp4")


async def test_a_batch_run_twice_buys_nothing_twice(empty: Path, tmp_path: Path) -> None:
    """The first run submits each prompt once; the second finds every video in its journal, and sends nothing."""
    tmp_path /= "new"
    first = await _run("batch_script.py", str(tmp_path), where=empty)
    assert "6 of 6 videos saved, 6 submits sent" == first[-1]
    assert KEYS == _saved(tmp_path)
    second = await _run("batch_script.py", str(tmp_path), where=empty)
    assert "6 of 6 videos saved, 0 submits sent" == second[-1]
    assert KEYS == {line.partition(":")[0] for line in second[:-1]}


async def test_a_batch_that_was_killed_goes_on_where_it_was(empty: Path, tmp_path: Path) -> None:
    """Killed when its first video is there, and run again: it saves the others, and no prompt is bought again."""
    async with Simulator(Settings(speed=SPEED)) as server:
        process = await _start(str(EXAMPLES / "batch_script.py"), str(tmp_path), where=empty, server=server)
        assert process.stdout is not None
        assert await process.stdout.readline()
        process.kill()
        await process.communicate()
        assert -signal.SIGKILL == process.returncode
        lines = await _run("batch_script.py", str(tmp_path), where=empty, server=server)
        assert "6 of 6 videos saved, 0 submits sent" == lines[-1]
        assert (6, KEYS) == (server.core.accepted, _saved(tmp_path))


async def test_a_batch_without_a_directory_leaves_nothing_behind(empty: Path) -> None:
    """What it writes by itself lies in a temporary directory, and goes with it."""
    lines = await _run("batch_script.py", where=empty)
    assert "6 of 6 videos saved, 6 submits sent" == lines[-1]
    assert [] == _left_in(empty)


async def test_a_pipeline_takes_each_clip_through_every_stage(empty: Path, tmp_path: Path) -> None:
    """Each subject is saved as it was made, and again in 1080p."""
    lines = await _run("pipeline_workers.py", str(tmp_path / "new"), where=empty)
    assert "6 of 6 clips went all the way" == lines[-1]
    subjects = {"heron", "steam train", "paper boat", "owl", "glacier", "carousel"}
    expected = {f"{subject}, {quality}" for subject in subjects for quality in ("720p", "1080p")}
    assert expected == _saved(tmp_path / "new")
    assert [] == _left_in(empty)


async def test_a_million_prompts_are_read_as_fast_as_videos_come_out(empty: Path) -> None:
    """Every prompt gets its video, and the jobs at once stay within the window."""
    done, at_once = await _run("million_prompts.py", "250", where=empty)
    assert "250 succeeded" == done
    found = re.match(r"never more than (\d+) at once", at_once)
    assert found
    assert 1 <= int(found[1]) <= 100
    assert [] == _left_in(empty)


async def test_callbacks_come_through_a_proxy(empty: Path) -> None:
    """Each of the three videos arrives, whether its callback or a poll came first."""
    *links, last = await _run("callbacks_behind_a_proxy.py", where=empty)
    assert 3 == len(links)
    assert re.fullmatch(r"[0-3] callbacks came through", last)


async def test_callbacks_in_fastapi_or_how_to_get_it(empty: Path) -> None:
    """Where FastAPI is installed the video arrives; where it is not, one line says what to install."""
    [line] = await _run("callbacks_fastapi.py", where=empty)
    installed = importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn")
    assert ("'url'" if installed else "pip install fastapi uvicorn") in line


async def test_a_worker_makes_what_a_program_enqueues(empty: Path, database: str) -> None:
    """All keys are enqueued, and each end is told; a second run buys nothing."""
    first = await _run("workers.py", where=empty)
    assert "4 of 4 enqueued" in first
    assert "4 videos, each bought once" in first
    assert any(line.startswith("demo/") for line in first)
    assert "4 videos, each bought once" in await _run("workers.py", where=empty)


async def test_another_engine_may_repeat_its_tasks(empty: Path, database: str) -> None:
    """The repetition gets the video that was bought before."""
    assert "repeated: the same video" == (await _run("other_engines.py", where=empty))[-1]


async def test_a_web_application_enqueues_and_shows_progress(empty: Path, database: str) -> None:
    """Where FastAPI is installed, the order goes from waiting to done, with a link."""
    lines = await _run("enqueue_fastapi.py", where=empty)
    if not (importlib.util.find_spec("fastapi") and importlib.util.find_spec("uvicorn")):
        assert "pip install fastapi uvicorn" in lines[0]
        return
    told = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert ("waiting", "done") == (told[0]["state"], told[-1]["state"])
    assert told[-1]["url"].endswith(".mp4")


def test_every_example_is_tested() -> None:
    """No example is forgotten here; a name with an underscore is what they share."""
    here = Path(__file__).read_text(encoding="utf-8")
    names = {path.name for path in EXAMPLES.glob("*.py") if not path.name.startswith("_")}
    assert {name for name in names if f'"{name}"' in here} == names

"""
The command as a whole: its help, its table, its words, and what it needs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

import veo_async
from veo_async import MODELS, errors
from veo_async.cli import advice, ending, main
from veo_async.cli.ending import run
from veo_async.cli.group import command
from veo_async.cli.words import duration, plural, printable, shortened, size

from ..terminal import invoke

_WITHOUT_EXTRA = """
import sys
sys.modules["click"] = None  # as good as not installed
sys.argv = ["veo-async", "demo", "--help"]
from veo_async.cli import main
main()
"""
_LOADED = """
import sys
from veo_async.cli import main
sys.argv = ["veo-async", *{arguments!r}]
try:
    main()
finally:
    print(sorted({{"aiohttp", "rich", "veo_async._surface"}} & set(sys.modules)), file=sys.stderr)
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )


# --- help ------------------------------------------------------------------------------------------------


def test_the_version_is_the_packages() -> None:
    """`--version` prints one line with the package's version."""
    result = invoke("--version")
    assert (0, f"veo-async {veo_async.__version__}\n") == (result.status, result.out)


@pytest.mark.parametrize("name", ["", *command.commands])
def test_help_fits_on_a_screen(name: str) -> None:
    """Every help text is at most 80 columns wide and one screen of 40 lines high."""
    result = invoke(*filter(None, [name]), "--help")
    lines = result.out.splitlines()
    assert 0 == result.status
    assert 80 >= max(map(len, lines))
    assert 40 >= len(lines)


@pytest.mark.parametrize("name", command.commands)
def test_the_group_knows_its_commands_without_loading_them(name: str) -> None:
    """What stands for a command until it is called has its name and its short help."""
    found = command.get_command(click.Context(command), name)
    assert found
    assert (name, found.short_help) == (found.name, command.commands[name].short_help)


@pytest.mark.parametrize("arguments", [["--help"], ["models", "--json"], ["completion", "zsh"]])
def test_what_needs_no_session_loads_none(arguments: list[str]) -> None:
    """Help, the table of models and completion load neither aiohttp nor rich, nor the library."""
    done = _run(_LOADED.format(arguments=arguments))
    assert (0, "[]\n") == (done.returncode, done.stderr)


def test_no_command_is_a_usage_error() -> None:
    """Without a command there is the help, and the exit status for bad input."""
    result = invoke()
    assert 2 == result.status
    assert "Make videos:" in result.out + result.err


def test_an_unknown_option_is_a_usage_error() -> None:
    """An option that does not exist exits with 2 and names it."""
    result = invoke("models", "--colour")
    assert 2 == result.status
    assert "--colour" in result.err


@pytest.mark.parametrize("package", ["click", "rich"])
def test_without_the_extra_it_says_how_to_get_it(package: str) -> None:
    """A plain install has neither click nor rich: one sentence says what to install, with no traceback."""
    done = _run(_WITHOUT_EXTRA.replace("click", package))
    assert 1 == done.returncode
    assert ["veo-async: this command needs two more packages: pip install 'veo-async[cli]'"] == (
        done.stderr.splitlines()
    )


def test_a_broken_install_is_not_blamed_on_the_extra() -> None:
    """Where another module is missing, the error is that module's own."""
    done = _run(_WITHOUT_EXTRA.replace('"click"', '"veo_async.simulator"'))
    assert "ModuleNotFoundError" in done.stderr
    assert "veo_async.simulator" in done.stderr


def test_a_fault_of_our_own_is_not_dressed_up() -> None:
    """What nobody foresaw comes out as it is, with its traceback, also from among several coroutines."""

    async def main() -> int:
        async with asyncio.TaskGroup() as group:
            group.create_task(fault())
        return 0

    async def fault() -> None:
        raise LookupError("nobody foresaw this")

    with pytest.raises(LookupError, match="nobody foresaw this"):
        run(main())


@pytest.mark.parametrize("arguments", [["models"], ["doctor"], ["doctor", "--json"]])
@pytest.mark.parametrize("streams", ["out", "out and err"])
def test_a_closed_pipe_ends_the_command_quietly(arguments: list[str], streams: str, tmp_path: Path) -> None:
    """As in `veo-async doctor | head -1`: with the same status whether the command has a session or not."""
    readable, writable = os.pipe()
    os.close(readable)
    with os.fdopen(writable, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "veo_async.cli", *arguments],
            cwd=tmp_path,
            env={
                "ACEDATACLOUD_API_BASE_URL": "http://127.0.0.1:9",
                "ACEDATACLOUD_PLATFORM_BASE_URL": "http://127.0.0.1:9",
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            stdout=pipe,
            stderr=subprocess.PIPE if streams == "out" else pipe,
            timeout=60,
            check=False,
        )
    assert (1, b"") == (done.returncode, done.stderr or b"")


# --- models ----------------------------------------------------------------------------------------------


def test_the_table_of_models_is_readable_in_80_columns() -> None:
    """Each model has its one line, retired ones are marked, and nothing is wider than 80 columns."""
    result = invoke("models")
    lines = result.out.splitlines()
    assert 0 == result.status
    assert 80 >= max(map(len, lines))
    for model in MODELS.values():
        [row] = [line for line in lines if line.split()[:1] == [model.name] and "be refused" not in line]
        assert bool(model.retired) == ("(retired)" in row)
        assert model.tier in row
        assert " ".join(model.resolutions) in row
    words = "Each of veo2, veo2-fast may be refused: the newest documents retired it"
    assert words in " ".join(result.out.split())


def test_the_models_as_json() -> None:
    """With --json there is an object per model, with all that the table knows of it."""
    told = {row["name"]: row for row in map(json.loads, invoke("models", "--json").out.splitlines())}
    assert [*MODELS] == [*told]
    for name, model in MODELS.items():
        assert {str(count): words for count, words in model.images.items()} == told[name]["images"]
        assert ([*model.resolutions], model.retired) == (told[name]["resolutions"], told[name]["retired"])


# --- words -----------------------------------------------------------------------------------------------


@given(st.text())
def test_printable_text_cannot_steer_a_terminal(text: str) -> None:
    """Whatever comes from elsewhere is one line without control characters, and can be written as UTF-8."""
    line = printable(text)
    assert line.encode() or not line
    assert not {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2028"} & set(line)


def test_printable_text_keeps_what_is_harmless() -> None:
    """Letters of all scripts and joined emoji stay as they are; white space becomes single spaces."""
    assert "丹顶鹤 👨‍👩‍👧 çà" == printable("丹顶鹤\n👨‍👩‍👧\t  çà ")


@given(st.text(), st.integers(min_value=2, max_value=50))
def test_shortened_text_is_never_longer(text: str, width: int) -> None:
    """A title keeps within its width."""
    assert width >= len(shortened(text, width))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (4.23, "4.2 s"), (42.3, "42 s"), (59.7, "1:00"), (66, "1:06"), (7390, "2:03:10")],
)
def test_durations(seconds: float, words: str) -> None:
    """A duration is as precise as anybody wants it."""
    assert words == duration(seconds)


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KB"),
        (14_400, "14 KB"),
        (3_500_000, "3.3 MB"),
        (5 << 40, "5120 GB"),
    ],
)
def test_sizes(count: int, words: str) -> None:
    """A size has two digits or a little more."""
    assert words == size(count)


def test_plurals() -> None:
    """One of a thing is not two of it."""
    assert ("1 video", "0 videos", "1,200 videos") == tuple(plural(count, "video") for count in (1, 0, 1200))


# --- advice ----------------------------------------------------------------------------------------------


def _error_types() -> list[type[errors.VeoError]]:
    found: list[type[errors.VeoError]] = [getattr(errors, name) for name in errors.__all__]
    # The root and the two unions have no advice of their own; the others are what a command can end with.
    return [kind for kind in found if kind not in (errors.VeoError, errors.ApiError, errors.JobError)]


@pytest.mark.parametrize("kind", _error_types(), ids=lambda kind: kind.__name__)
def test_every_error_comes_with_advice(kind: type[errors.VeoError]) -> None:
    """An error that a command can end with says in a second line what to do, and repeats no made-up key."""
    if kind in (errors.ConfigurationError, errors.JournalError, errors.UsageError, errors.JobAbandoned):
        pytest.skip("told in its own words, or never seen at a terminal")
    error = kind("it went wrong", key="a-made-up-key", task_id="1234")
    words, told = advice.lines(error)
    unknown = kind in (errors.JobVanished, errors.TaskNotFound)
    expected = "the server does not know the task 1234" if unknown else "it went wrong (task 1234)"
    assert expected == words.replace("api_error: ", "")
    assert told.endswith(".")
    assert "a-made-up-key" not in words + told
    assert "{" not in told


def test_errors_of_a_journal_say_themselves_what_to_do() -> None:
    """A second line would not fit all of them: a disk is full, a table is missing, a server cannot be reached."""
    assert ["the disk is full: free some space"] == advice.lines(
        errors.JournalError("the disk is full: free some space")
    )


def test_advice_that_needs_an_id_is_not_given_without_one() -> None:
    """Where no task is known, no command with an empty place for its id is suggested."""
    assert ["gone"] == advice.lines(errors.SessionClosed("gone"))


@pytest.mark.parametrize("kind", [errors.JobVanished, errors.TaskNotFound])
def test_an_unknown_task_is_no_reason_to_buy(kind: type[errors.VeoError]) -> None:
    """Whoever mistyped an id is told to check it, and not to pay again."""
    [_, told] = advice.lines(kind("gone", task_id="1234"))
    assert "Check the id" in told
    assert "the token is of the account that bought it" in told
    assert not {"again", "buy"} & set(told.split())
    assert "gone" == advice.lines(kind("gone"))[0]


@pytest.mark.parametrize("kind", [errors.JobVanished, errors.TaskNotFound])
def test_a_key_without_a_task_is_no_matter_of_ids(kind: type[errors.VeoError]) -> None:
    """Where a key was looked for, and no id, it is the key that is to be checked."""
    [_, told] = advice.lines(kind("gone", key="whale"))
    assert "Check the key" in told
    assert "the last day" in told


def test_the_command_starts_where_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point runs the command with the process's own arguments, and Ctrl-C while it loads is no traceback."""
    monkeypatch.setattr(sys, "argv", ["veo-async", "completion", "bash"])
    with pytest.raises(SystemExit, match="0"):
        main()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.__import__", interrupt)
    with pytest.raises(SystemExit, match="130"):
        main()


def test_ctrl_c_while_the_input_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Before anything runs, Ctrl-C is 130 as well, without a word."""
    monkeypatch.setattr(sys, "argv", ["veo-async", "batch", "-", "--out", str(tmp_path)])
    monkeypatch.setattr(
        sys,
        "stdin",
        SimpleNamespace(buffer=SimpleNamespace(read=lambda: os.kill(os.getpid(), signal.SIGINT))),
    )
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit, match="130"):
        main()
    assert signal.SIG_IGN == signal.signal(signal.SIGINT, before), "pressed again, it is no news"


@pytest.mark.parametrize("shell", [signal.SIG_IGN, signal.default_int_handler])
def test_what_ran_to_its_end_leaves_ctrl_c_as_it_was(monkeypatch: pytest.MonkeyPatch, shell: Any) -> None:
    """A command in the background, for which a shell has Ctrl-C ignored, goes on ignoring it."""
    seen = []

    async def work() -> int:
        seen.append(signal.getsignal(signal.SIGINT))
        return 0

    before = signal.signal(signal.SIGINT, shell)
    try:
        with pytest.raises(SystemExit, match="0"):
            run(work())
        assert shell == signal.getsignal(signal.SIGINT)
        assert (shell is signal.SIG_IGN) == (seen == [signal.SIG_IGN])
        monkeypatch.setattr(sys, "argv", ["veo-async", "models"])
        with pytest.raises(SystemExit, match="0"):
            main()
        assert shell == signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_long_after_the_second_leaves_at_once(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """Where the end itself hangs, the third Ctrl-C ends the process, with the cursor back; on its heels it does not."""
    left, written = list[int](), list[bytes]()
    interrupts = ending._Interrupts()
    with monkeypatch.context() as patched:
        patched.setattr(os, "_exit", left.append)
        patched.setattr(os, "write", lambda descriptor, data: written.append(data))
        patched.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal, fileno=lambda: 2))
        for _ in range(3):
            interrupts._take()
        assert ([], []) == (left, written)
        patched.setattr(ending, "FORCE_AFTER", -1.0)
        interrupts._take()
    assert [130] == left
    assert ([b"\x1b[?25h"] if terminal else []) == written


def test_ctrl_c_before_the_first_step_is_not_lost() -> None:
    """What was pressed while the event loop was being made ends the command as soon as there is one."""

    async def work() -> int:
        await asyncio.sleep(0)
        raise AssertionError("it goes on")

    interrupts = ending._Interrupts()
    interrupts._take()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ending._until_stopped(work(), interrupts))


def test_the_program_runs_as_a_module(tmp_path: Path) -> None:
    """`python -m veo_async.cli` is the command."""
    done = subprocess.run(
        [sys.executable, "-m", "veo_async.cli", "--version"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert (0, "veo-async") == (done.returncode, done.stdout.split()[0])

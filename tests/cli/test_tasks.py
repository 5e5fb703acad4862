"""
The commands for tasks and videos that exist, and what completes them in a shell.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..platform.pictures import JPEG
from ..terminal import Finished, Served, invoke, served, signalled

MP4 = b"ftyp"
VIDEO = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(server: Served, *arguments: str | Path) -> Finished:
    return invoke(*arguments, environment=server.environment)


def made(server: Served, prompt: str = "a whale") -> dict[str, Any]:
    """
    Make a video, and return what is known of it.
    """
    result = call(server, "generate", prompt, "--json", "--overwrite", "-o", "made.mp4")
    told: dict[str, Any] = json.loads(result.out)
    return told


# --- tasks -----------------------------------------------------------------------------------------------


def test_status_shows_how_tasks_stand(server: Served) -> None:
    """A line per task in the order of the ids; one that the server does not know is told, and exits with 1."""
    first, second = (made(server, prompt)["task_id"] for prompt in ("first", "second\x1b[31m"))
    result = call(server, "status", second, first, "nobody")
    rows = [line for line in result.out.splitlines() if "succeeded" in line]
    assert [second, first] == [row.split()[0] for row in rows]
    videos = [server.core.tasks[task_id] for task_id in (second, first)]
    assert all(len(row.split()) > 4 and len(row.split()[4]) == 32 for row in rows), (
        "each shows its video's id"
    )
    assert not [line for line in result.out.splitlines() if "\N{HORIZONTAL ELLIPSIS}" in line and videos]
    assert 1 == result.status
    assert "the server does not know the task nobody" in result.err
    assert "that the token is of the account that bought it" in result.err
    assert "\x1b" not in result.out


def test_status_as_json() -> None:
    """With --json there is an object per task, with its error if it has one."""
    with served(failure_share=1.0) as failing:
        task_id = made(failing)["task_id"]
        result = call(failing, "status", task_id, "--json")
    [told] = map(json.loads, result.out.splitlines())
    assert (0, task_id, "failed", "api_error") == (
        result.status,
        told["task_id"],
        told["state"],
        told["error"]["code"],
    )


def test_list_shows_the_latest_tasks(server: Served) -> None:
    """So many as were asked for, in the server's order."""
    ids = [made(server, str(number))["task_id"] for number in range(3)]
    result = call(server, "list", "--limit", "2", "--json")
    assert [ids[2], ids[1]] == [json.loads(line)["task_id"] for line in result.out.splitlines()]
    assert ids[2] in call(server, "list").out


def test_no_tasks_are_no_table() -> None:
    """Where there is nothing to show, stdout is empty, and a sentence says why."""
    with served() as fresh:
        nothing, unknown = call(fresh, "list"), call(fresh, "status", "nobody")
    assert (0, "", "There are no tasks of this account yet.\n") == (nothing.status, nothing.out, nothing.err)
    assert (1, "") == (unknown.status, unknown.out)


def test_a_table_without_a_token_is_bad_input() -> None:
    """Whoever has no token is told so, also for reading, and not that something else is at fault."""
    result = invoke("list")
    first, second = result.err.splitlines()
    assert (2, "veo-async: nothing was sent:") == (result.status, first)
    assert "no token: set ACEDATACLOUD_API_TOKEN" in second


def test_download_saves_what_has_ended(server: Served) -> None:
    """Several tasks at once go into a directory, under names made of ids."""
    ids = [made(server, str(number))["task_id"] for number in range(2)]
    Path("clips").mkdir()
    result = call(server, "download", *ids, "-o", "clips")
    files = [Path(line) for line in result.out.splitlines()]
    assert (0, 2) == (result.status, len(files))
    assert {MP4} == {file.read_bytes()[4:8] for file in files}


def test_download_does_not_wait() -> None:
    """A task that has not ended is told, with the command that waits for it."""
    with served(speed=0.01) as slow:
        with signalled(signal.SIGINT, when=lambda: slow.core.accepted):
            call(slow, "generate", "a whale")
        [task_id] = slow.core.tasks
        result = call(slow, "download", task_id)
    assert 1 == result.status
    assert "has not ended yet: `veo-async wait` waits for it" in result.err


def test_download_of_nothing(server: Served) -> None:
    """An id that the server does not know is told with what may be wrong with it."""
    result = call(server, "download", "nobody")
    assert 1 == result.status
    assert "Check the id" in result.err


def test_wait_finds_a_task_by_its_key(server: Served) -> None:
    """Whoever knows the key needs no id; one that nobody has bought, and no task at all, are told."""
    call(server, "generate", "a whale", "--journal", "elsewhere.db", "--key", "k")
    found = call(server, "wait", "--key", "k", "-o", "found.mp4")
    assert (0, "found.mp4\n") == (found.status, found.out)
    nobodys = call(server, "wait", "--key", "nobody's")
    assert 1 == nobodys.status
    assert "no task of the account shows the mark of this key" in nobodys.err
    assert (2, True) == ((nothing := call(server, "wait")).status, "give a TASK_ID or a --key" in nothing.err)


def test_wait_can_be_interrupted() -> None:
    """Ctrl-C while waiting says what goes on, and how."""
    with served(speed=0.01) as slow:
        with signalled(signal.SIGINT, when=lambda: slow.core.accepted):
            call(slow, "generate", "a whale")
        [task_id] = slow.core.tasks
        with signalled(signal.SIGINT, when=lambda: slow.core.requests["retrieve"]):
            result = call(slow, "wait", task_id)
    assert 130 == result.status
    assert f"To go on: veo-async wait {task_id}" in result.err


def test_who_stops_waiting_for_a_key_is_told_of_no_purchase() -> None:
    """A wait for a key buys nothing: Ctrl-C ends it without a word of a submit, or of what may be billed."""
    with (
        served(speed=1) as slow,
        signalled(signal.SIGINT, when=lambda: slow.core.requests["list"]),
    ):
        result = call(slow, "wait", "--key", "nobody's")
    assert (130, "veo-async: interrupted.") == (result.status, result.err.splitlines()[-1])
    assert not [word for word in ("submit", "billed", "accepted") if word in result.err]


# --- a journal -------------------------------------------------------------------------------------------


def test_resume_takes_up_what_is_unsettled() -> None:
    """What an interrupted command has bought is waited for and saved, and not bought again."""
    with served(speed=0.01) as server:
        with signalled(signal.SIGINT, when=lambda: server.core.accepted):
            interrupted = call(server, "generate", "a whale", "--journal", "j.db", "--key", "k")
        [task_id] = server.core.tasks
        assert f"To go on: the same command again, or veo-async wait {task_id} -o FILE" in interrupted.err
        with signalled(signal.SIGINT, when=lambda: server.core.requests["retrieve"]):
            assert 130 == call(server, "resume", "j.db").status
        server.core.finish(task_id)
        result = call(server, "resume", "j.db", "--json")
        told = json.loads(result.out)
        assert (0, 1, "k") == (result.status, server.core.accepted, told["key"])
        assert "1 job resumed" in result.err
        assert MP4 == Path(told["file"]).read_bytes()[4:8]
        again = call(server, "resume", "j.db")
    assert (0, "") == (again.status, again.out)
    assert "0 jobs resumed" in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no.db",), "JOURNAL no.db is not a file"),
        (("j.db", "-o", "x.mp4"), "--output x.mp4 must be a directory"),
    ],
)
def test_resume_needs_a_journal_and_a_directory(
    server: Served, arguments: tuple[str, ...], words: str
) -> None:
    """No new journal is made in the place of one that is not there."""
    Path("j.db").write_bytes(b"")
    result = call(server, "resume", *arguments)
    assert 2 == result.status
    assert words in result.err
    assert not Path("no.db").exists()


def test_a_file_that_is_no_journal(server: Served) -> None:
    """Something else is told apart, in words."""
    Path("j.db").write_text("not a database, " * 100, encoding="utf-8")
    result = call(server, "resume", "j.db")
    assert 1 == result.status
    assert "j.db" in result.err
    assert "Traceback" not in result.err


# --- from an earlier video -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("1080p", "VIDEO"), {"action": "get1080p", "model": "veo31-fast"}),
        (("1080p", "VIDEO", "-m", "veo31"), {"action": "get1080p", "model": "veo31"}),
        (("upsample", "VIDEO", "--to", "4k"), {"action": "4k"}),
        (
            ("extend", "VIDEO", "it dives", "-m", "veo31", "-r", "1080p", "-a", "9:16"),
            {"prompt": "it dives", "model": "veo31", "resolution": "1080p", "aspect_ratio": "9:16"},
        ),
        (("extend", "VIDEO"), {"model": "veo31-fast"}),
        (("reshoot", "VIDEO", "left_to_right"), {"motion_type": "LEFT_TO_RIGHT"}),
        (
            ("insert", "VIDEO", "a kite", "--mask", "https://example.com/m.jpg"),
            {"action": "insert", "prompt": "a kite", "image_mask": "https://example.com/m.jpg"},
        ),
        (
            ("remove", "VIDEO", "--mask", "https://example.com/m.jpg"),
            {"action": "remove", "image_mask": "https://example.com/m.jpg"},
        ),
    ],
)
def test_an_earlier_video_becomes_another(
    server: Served, arguments: tuple[str, ...], body: dict[str, str]
) -> None:
    """Each command sends its fields with the video's id, and saves the file."""
    video_id = made(server)["videos"][0]["id"]
    words = [video_id if word == "VIDEO" else word for word in arguments]
    result = call(server, *words, "-o", "new.mp4")
    sent = {name: value for name, value in server.bodies[-1].items() if name not in ("async", "callback_url")}
    assert (0, "new.mp4\n") == (result.status, result.out)
    assert body | {"video_id": video_id} == sent


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upsample", VIDEO, "--to", "8k"), "--to must be one of 1080p, 4k, gif"),
        (("reshoot", VIDEO, "sideways"), "MOTION must be one of STATIONARY"),
        (("reshoot", VIDEO), "DOLLY_IN_ZOOM_OUT, DOLLY_OUT_ZOOM_IN, not ''"),
        (("reshoot", VIDEO, "forwrd"), "not 'FORWRD': did you mean FORWARD?"),
        (("extend", VIDEO, "-m", "veo3"), "--model must be one of veo31-fast, veo31"),
        (("1080p", " "), "- ID must not be empty"),
        (("insert", VIDEO, " "), "PROMPT must not be empty"),
        (("remove", VIDEO, "--mask", ""), "--mask must not be empty"),
    ],
)
def test_bad_input_is_told_in_the_words_of_the_command(
    server: Served, arguments: tuple[str, ...], words: str
) -> None:
    """What the rules forbid is refused before anything is sent."""
    before = server.core.requests.total()
    result = call(server, *arguments)
    assert (2, before) == (result.status, server.core.requests.total())
    assert words in result.err


def test_a_gif_is_called_one(server: Served) -> None:
    """What `upsample` makes is told by its kind."""
    video_id = made(server)["videos"][0]["id"]
    result = call(server, "upsample", video_id, "--to", "gif", "-o", "small.gif")
    assert (0, True) == (result.status, f"a GIF of {video_id}" in result.err)


def test_a_tasks_id_stands_for_its_video(server: Served) -> None:
    """Its only video is what becomes another one; an id that nobody knows is the API's own error."""
    task = made(server)
    result = call(server, "1080p", task["task_id"], "-o", "large.mp4")
    assert (0, task["videos"][0]["id"]) == (result.status, server.bodies[-1]["video_id"])
    assert f"1080p of {task['task_id']}" in result.err
    unknown = call(server, "1080p", "no-such-task", "-o", "other.mp4")
    assert (1, True) == (unknown.status, "bad_request: video_id is invalid" in unknown.err)
    assert "Check the id: `veo-async list` shows those of tasks and videos" in unknown.err


def test_every_command_that_shows_a_task_shows_its_video(server: Served) -> None:
    """`generate`, `wait`, `status` and `list` tell the id that another video is made from."""
    bought = call(server, "generate", "a whale", "-o", "shown.mp4")
    [task_id] = re.findall(r"of task (\S+)", bought.err)
    video_id = call(server, "status", task_id, "--json").out.partition('"videos": [{"id": "')[2][:32]
    assert f"video {video_id} of task {task_id}" in bought.err
    assert f"video {video_id} of task {task_id}" in call(server, "wait", task_id).err
    for arguments in (("status", task_id), ("list", "--limit", "1")):
        [row] = [line for line in call(server, *arguments).out.splitlines() if task_id in line]
        assert video_id in row.split()


@pytest.mark.parametrize(
    ("changes", "words"), [({"videos": 2}, "has several videos"), ({"failure_share": 1.0}, "has no video")]
)
def test_a_task_without_one_video_is_told(changes: dict[str, Any], words: str) -> None:
    """Nothing is bought, and where there are several videos their ids are shown."""
    with served(**changes) as other:
        task_id = made(other)["task_id"]
        bought = other.core.accepted
        result = call(other, "upsample", task_id, "--to", "4k", "-o", "x.mp4")
    assert (1, bought, True) == (result.status, other.core.accepted, words in result.err)


def test_a_task_that_has_not_ended_is_told() -> None:
    """With the command that waits for it."""
    with served(speed=0.01) as slow:
        with signalled(signal.SIGINT, when=lambda: slow.core.accepted):
            call(slow, "generate", "a whale")
        [task_id] = slow.core.tasks
        result = call(slow, "extend", task_id)
    assert (1, True) == (result.status, f"`veo-async wait {task_id}` waits for it" in result.err)


def test_a_mask_that_is_a_file_is_sent_in_the_request(server: Served) -> None:
    """Without an upload, as base64; so that needs no account token."""
    Path("mask.jpg").write_bytes(JPEG)
    video = made(server)["videos"][0]["id"]
    assert 0 == call(server, "remove", video, "--mask", "mask.jpg", "-o", "x.mp4").status
    assert JPEG == b64decode(server.bodies[-1]["image_mask"])


def test_a_file_that_is_no_mask_is_not_sent(server: Served) -> None:
    """A file that is no JPEG is refused before anything is bought."""
    Path("mask.jpg").write_bytes(b"a picture")
    for words in (("insert", "v", "a kite"), ("remove", "v")):
        result = call(server, *words, "--mask", "mask.jpg")
        assert 2 == result.status
        assert (
            "--mask must be an http or https URL, or a base64 JPEG, not 'mask.jpg'; nor is it a JPEG"
            in result.err
        )
        assert 2 == call(server, *words, "--mask", "masks/mask.jpg").status


def test_a_directory_for_the_files_is_made(server: Served) -> None:
    """Several videos, and an output that ends in a slash, go into a directory that is made."""
    ids = [made(server, str(number))["task_id"] for number in range(2)]
    assert 0 == call(server, "download", *ids, "-o", "several/clips").status
    assert 0 == call(server, "wait", ids[0], "-o", "one/").status
    assert (2, 1) == (len([*Path("several/clips").iterdir()]), len([*Path("one").iterdir()]))


# --- completion ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_for_this_command(shell: str) -> None:
    """Each shell's script names the command and the variable that it answers to."""
    result = invoke("completion", shell)
    assert 0 == result.status
    assert "_VEO_ASYNC_COMPLETE" in result.out
    assert "veo-async" in result.out


def test_bash_understands_the_script(tmp_path: Path) -> None:
    """The script has no fault that the shell could find."""
    (tmp_path / "script").write_text(invoke("completion", "bash").out, encoding="utf-8")
    try:
        done = subprocess.run(["bash", "-n", "script"], cwd=tmp_path, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no bash on this machine")
    assert (0, b"") == (done.returncode, done.stderr)


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("li", {"list", "listen"}),
        ("--v", {"--version"}),
        ("upsample --t", {"--to", "--timeout"}),
        ("reshoot v RIGHT", {"RIGHT_TO_LEFT"}),
        ("queue pr", {"prune"}),
    ],
)
def test_commands_and_their_options_are_completed(typed: str, expected: set[str]) -> None:
    """A shell that asks is told the names that begin with what was typed, of commands within commands, too."""
    words = f"veo-async {typed}"
    asked = {
        "_VEO_ASYNC_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    assert expected == {line.partition(",")[2] for line in invoke(environment=asked).out.splitlines()}

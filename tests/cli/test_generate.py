"""
`veo-async generate` and `veo-async wait`: a request becomes a file, or says in words why not.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from veo_async import Job, SessionClosed, TextToVideo
from veo_async._jobs.job import stop
from veo_async.cli.fetch import Piece, interrupted
from veo_async.simulator import Faults

from ..terminal import Finished, Process, Served, invoke, served, signalled, wait_for

MP4 = b"ftyp"
IMAGE = "https://example.com/a.png"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def generate(server: Served, *arguments: str | Path, **changes: str) -> Finished:
    return invoke("generate", *arguments, environment=server.environment | changes)


def body_of(server: Served) -> dict[str, Any]:
    return {name: value for name, value in server.bodies[-1].items() if name != "async"}


def outcome(result: Finished) -> dict[str, Any]:
    [line] = result.out.splitlines()
    told: dict[str, Any] = json.loads(line)
    return told


# --- a request becomes a file ----------------------------------------------------------------------------


def test_a_prompt_becomes_a_file(server: Served, tmp_path: Path) -> None:
    """The file is whole and where it was asked for; stdout holds its path alone, stderr the task's id."""
    result = generate(server, "a whale", "-o", "whale.mp4")
    assert (0, "whale.mp4\n") == (result.status, result.out)
    assert MP4 == (tmp_path / "whale.mp4").read_bytes()[4:8]
    assert f"accepted as task {[*server.core.tasks][-1]}" in result.err


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (["a"], {"action": "text2video", "model": "veo31-fast", "prompt": "a"}),
        (
            ["a", "-m", "veo31", "-r", "4k", "-a", "9:16", "--translation"],
            {
                "action": "text2video",
                "model": "veo31",
                "prompt": "a",
                "resolution": "4k",
                "aspect_ratio": "9:16",
                "translation": True,
            },
        ),
        (
            ["a", "-i", IMAGE, "--image", IMAGE + "?2", "--callback-url", "https://example.com/back"],
            {
                "action": "image2video",
                "model": "veo31-fast",
                "prompt": "a",
                "image_urls": [IMAGE, IMAGE + "?2"],
                "callback_url": "https://example.com/back",
            },
        ),
        (
            ["--ingredients", "-i", IMAGE],
            {"action": "ingredients2video", "model": "veo31-fast-ingredients", "image_urls": [IMAGE]},
        ),
    ],
)
def test_every_field_is_sent(server: Served, arguments: list[str], body: dict[str, Any]) -> None:
    """The options become the fields of the request, and nothing that was not asked for is sent."""
    assert 0 == generate(server, *arguments).status
    sent = body_of(server)
    mark = sent.pop("callback_url")
    expected = {"translation": False} | body
    # A callback URL of one's own carries the mark in its fragment.
    assert expected.pop("callback_url", None) in (None, mark.partition("#")[0])
    assert expected == {"translation": False} | sent


def test_json_is_one_object(server: Served) -> None:
    """With --json, stdout is one object with the ids, the state, the URLs and the file."""
    result = generate(server, "a whale", "--json", "-o", "whale.mp4", "--journal", "j.db", "--key", "k")
    told = outcome(result)
    [video] = told["videos"]
    assert ("succeeded", "k", "whale.mp4", None) == tuple(
        told[name] for name in ("state", "key", "file", "error")
    )
    assert [*server.core.tasks][-1] == told["task_id"]
    assert "whale.mp4" == video["file"]
    assert video["url"].startswith(server.url)


def test_a_directory_gets_a_name_in_it(server: Served, tmp_path: Path) -> None:
    """Where the output is a directory, the file's name is made of ids, and printed."""
    (tmp_path / "clips").mkdir()
    result = generate(server, "a whale", "-r", "gif", "-o", "clips")
    path = Path(result.out.strip())
    assert ("clips", ".gif") == (path.parent.name, path.suffix)
    assert path.read_bytes().startswith(b"GIF8")


def test_several_videos_get_several_names(tmp_path: Path) -> None:
    """Further videos of a task get a number, and never the name of a file that is there."""
    (tmp_path / "whale-2.mp4").write_bytes(b"mine")
    with served(videos=2) as server:
        result = generate(server, "a whale", "-o", "whale.mp4")
    assert (0, ["whale.mp4", "whale-3.mp4"]) == (result.status, result.out.splitlines())
    assert b"mine" == (tmp_path / "whale-2.mp4").read_bytes()


def test_a_key_buys_once(server: Served) -> None:
    """With a journal, the same key gets the same video again without another purchase."""
    before = server.core.accepted
    first = generate(server, "a whale", "--journal", "j.db", "--key", "k", "-o", "1.mp4")
    second = generate(server, "a whale", "--journal", "j.db", "--key", "k", "-o", "2.mp4")
    assert (0, 0, before + 1) == (first.status, second.status, server.core.accepted)
    assert Path("1.mp4").read_bytes() == Path("2.mp4").read_bytes()


def test_a_key_of_another_request_is_refused(server: Served) -> None:
    """The same key with a different request is bad input, and buys nothing."""
    generate(server, "a whale", "--journal", "j.db", "--key", "k", "-o", "1.mp4")
    before = server.core.accepted
    result = generate(server, "a walrus", "--journal", "j.db", "--key", "k", "-o", "2.mp4")
    assert (2, before) == (result.status, server.core.accepted)
    assert "belongs to a different request" in result.err


def test_overwriting_is_asked_for(server: Served) -> None:
    """A file that is there stays there, unless --overwrite says otherwise."""
    Path("whale.mp4").write_bytes(b"mine")
    refused = generate(server, "a whale", "-o", "whale.mp4")
    assert (2, b"mine") == (refused.status, Path("whale.mp4").read_bytes())
    assert 0 == generate(server, "a whale", "-o", "whale.mp4", "--overwrite").status
    assert MP4 == Path("whale.mp4").read_bytes()[4:8]


def test_what_the_newest_documents_doubt_is_noted(server: Served) -> None:
    """A caution is a note on stderr; the request is sent all the same."""
    result = generate(server, "a", "-m", "veo4", "-o", "a.mp4")
    assert "note: model veo4 is not in the table of models" in result.err
    assert "Traceback" not in result.err


# --- bad input -------------------------------------------------------------------------------------------


def test_all_violations_are_told_at_once(server: Served, tmp_path: Path) -> None:
    """Everything that is wrong is listed in the words of the command line, and nothing is bought."""
    (tmp_path / "cat.png").write_bytes(b"")
    before = server.core.requests.total()
    result = generate(
        server,
        " ",
        "-m",
        "veo3",
        "-r",
        "4k",
        "-i",
        "cat.png",
        "-i",
        "ftp://x/y",
        "-o",
        "no/x.mp4",
        "--key",
        "",
    )
    assert (2, "") == (result.status, result.out)
    for words in (
        "--image cat.png is a file on this machine, and the API takes URLs only",
        "PROMPT must not be empty",
        "--image must be an absolute http or https URL",
        "--resolution 4k is not available from veo3",
        "--output no/x.mp4: there is no directory no; make it first",
        "--key must not be empty",
    ):
        assert words in result.err
    assert before == server.core.requests.total()


@pytest.mark.parametrize("arguments", [(), ("-i", IMAGE), ("-r", "5k")])
def test_no_prompt_at_all_is_told_as_such(server: Served, arguments: tuple[str, ...]) -> None:
    """Who forgets the prompt reads that, beside whatever else is wrong."""
    result = generate(server, *arguments)
    assert 2 == result.status
    assert "PROMPT is missing: what is the video to show?" in result.err
    assert ("5k" in arguments) == ("--resolution must be one of" in result.err)


@pytest.mark.parametrize("image", ["file:///tmp/cat.png", "FILE:cat.png"])
def test_file_addresses_are_files(server: Served, image: str) -> None:
    """A file: URL is told apart from a web address, too."""
    result = generate(server, "a", "-i", image)
    assert 2 == result.status
    assert "is a file on this machine" in result.err


def test_a_note_about_the_token_names_the_command(server: Served) -> None:
    """What the log warns of before the first request is told as all notes are."""
    short = server.environment | {"ACEDATACLOUD_API_TOKEN": "short"}
    result = invoke("list", environment=short)
    assert "veo-async: note: ACEDATACLOUD_API_TOKEN has less than 12 characters" in result.err


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ACEDATACLOUD_API_TOKEN": ""}, "no token: set ACEDATACLOUD_API_TOKEN"),
        ({"ACEDATACLOUD_API_TOKEN": "secret\n"}, "holds a space, a line break"),
        ({"ACEDATACLOUD_API_BASE_URL": "http://example.com"}, "must be https"),
    ],
)
def test_configuration_is_checked_first(server: Served, variables: dict[str, str], words: str) -> None:
    """A token or an address that cannot be used is bad input, told without the token itself."""
    result = generate(server, "a", **variables)
    assert 2 == result.status
    assert words in result.err
    assert "secret" not in result.err


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("/proc/no/", "/proc cannot be written to"),
        (f"{__file__}/no/", "is not a directory"),
        ("no/x.mp4", "there is no directory no"),
        ("x" * 300 + ".mp4", "cannot be written: File name too long"),
        ("x" * 250, "cannot be written: File name too long"),
        ("a\0b.mp4", "cannot be written"),
        ("/dev/null", "is neither a file nor a directory"),
    ],
)
def test_the_target_is_checked_before_anything_is_bought(server: Served, output: str, words: str) -> None:
    """A video that could not be saved is not bought."""
    before = server.core.accepted
    result = generate(server, "a", "-o", output)
    assert (2, before) == (result.status, server.core.accepted)
    assert words in result.err


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_that_may_not_be_written_to(server: Served, tmp_path: Path) -> None:  # pragma: no cover
    """A directory without permission is refused, too."""
    tmp_path.chmod(0o500)
    assert 2 == generate(server, "a", "-o", "x.mp4").status
    assert 2 == generate(server, "a").status


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory that nobody may write to")
def test_whether_a_file_can_be_made_is_tried(server: Served) -> None:
    """A place that cannot be written to is told before anything is bought, whatever its permissions say."""
    before = server.core.accepted
    assert "the directory /proc cannot be written to" in generate(server, "a", "-o", "/proc/x.mp4").err
    assert "/proc is a directory that cannot be written to" in generate(server, "a", "-o", "/proc").err
    assert before == server.core.accepted


def test_a_dry_run_buys_nothing(server: Served) -> None:
    """It checks all the same, needs no token, and tells what would be sent."""
    before = server.core.accepted
    plain = invoke("generate", "a whale", "--dry-run", environment={"ACEDATACLOUD_API_TOKEN": ""})
    assert (0, True) == (plain.status, plain.out.startswith("would buy text2video: prompt 'a whale', model"))
    told = json.loads(generate(server, "a whale", "--dry-run", "--json").out)
    assert ("text2video", "a whale") == (told["kind"], told["prompt"])
    assert (2, before) == (generate(server, "", "--dry-run").status, server.core.accepted)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon"])
def test_durations_are_numbers_above_0(server: Served, value: str) -> None:
    """A time-out that is no positive number is bad input."""
    result = generate(server, "a", "--timeout", value)
    assert 2 == result.status
    assert "is not a number above 0" in result.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--key", "k"), "--key needs --journal FILE: a key is only remembered in a journal"),
        (
            ("--journal", "j.db"),
            "--journal needs --key TEXT: without one, the same command would buy the same",
        ),
    ],
)
def test_a_key_and_a_journal_go_together(server: Served, arguments: tuple[str, str], words: str) -> None:
    """One without the other would buy again what somebody believes to be remembered: it is refused, with the reason."""
    before = server.core.accepted
    result = generate(server, "a", *arguments)
    assert (2, before) == (result.status, server.core.accepted)
    assert words in result.err
    assert not Path("j.db").exists()


def test_a_journal_needs_its_directory(server: Served) -> None:
    """A journal in a directory that is not there is refused before anything is bought."""
    result = generate(server, "a", "--journal", "no/j.db", "--key", "k")
    assert 2 == result.status
    assert "--journal no/j.db: there is no directory no" in result.err


# --- what goes wrong -------------------------------------------------------------------------------------


def test_a_failed_task_is_told_in_words() -> None:
    """A failed task exits with 1: its code, its message, its id, and what to do; no traceback."""
    with served(failure_share=1.0, failure=("api_error", "fetch failed\x1b[31m")) as server:
        result = generate(server, "a whale", "--json")
    told = outcome(result)
    assert (1, "failed", "JobFailed", "api_error") == (
        result.status,
        told["state"],
        told["error"]["type"],
        told["error"]["code"],
    )
    assert f"task {told['task_id']}" in result.err
    assert "A failed task is not billed" in result.err
    assert not {"Traceback", "\x1b"} & set(result.err.split())
    assert "\x1b" not in result.err


def test_a_refusal_is_told_in_words(server: Served) -> None:
    """A model that the server refuses exits with 1 and points to the table of models."""
    result = generate(server, "a", "-m", "veo2")
    assert 1 == result.status
    assert "bad_request: model is not supported" in result.err
    assert "veo-async models" in result.err


def test_a_wrong_token_is_told_in_words(server: Served) -> None:
    """A token that the server does not know exits with 1, and is not repeated."""
    result = generate(server, "a", ACEDATACLOUD_API_TOKEN="not-a-token")
    assert 1 == result.status
    assert "Check the token in ACEDATACLOUD_API_TOKEN" in result.err
    assert "not-a-token" not in result.err


def test_an_unreachable_server_ends_with_the_timeout(server: Served) -> None:
    """Where nobody listens, the time-out ends the waiting too, and says that nothing was sent."""
    result = generate(
        server, "a", "--timeout", "0.2", "--json", ACEDATACLOUD_API_BASE_URL="http://127.0.0.1:9"
    )
    assert (1, "SubmitTimedOut") == (result.status, outcome(result)["error"]["type"])
    assert "check the network" in result.err


@pytest.mark.parametrize(
    "command", [("generate", "a"), ("status", "1"), ("list",), ("wait", "1", "--timeout", "0.3")]
)
def test_an_unreachable_server_is_told_while_waiting(
    server: Served, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nobody listens, a line says what the command is waiting for, and why, long before it gives up."""
    monkeypatch.setattr("veo_async._http.outage.PATIENCE", 0.01)
    more = ("--timeout", "0.3") if command[0] == "generate" else ()
    address = "http://127.0.0.1:9"
    environment = server.environment | {"ACEDATACLOUD_API_BASE_URL": address, "VEO_ASYNC_SPEED": "40"}
    result = invoke(*command, *more, environment=environment)
    assert 1 == result.status
    [note] = [line for line in result.err.splitlines() if "note: " in line]
    assert "no answer from the API for 0 s, still trying; check the network and the base URL" in note
    assert f"the connection to {address}/veo/" in note


def test_a_base_url_without_a_scheme_is_told_as_such(server: Served) -> None:
    """Who leaves out http:// reads what to write."""
    result = generate(server, "a", ACEDATACLOUD_API_BASE_URL="localhost:8750")
    assert 2 == result.status
    assert "(from ACEDATACLOUD_API_BASE_URL) has no scheme: write it like http://localhost:8750" in result.err


def test_a_deadline_tells_how_to_go_on() -> None:
    """A task that takes longer than the time-out goes on, and the command says how to wait for it."""
    with served(speed=0.01) as server:
        result = generate(server, "a", "--timeout", "0.2", VEO_ASYNC_SPEED="400")
        [task_id] = server.core.tasks
    assert 1 == result.status
    assert f"veo-async wait {task_id}" in result.err


def test_a_file_that_cannot_be_fetched_tells_how_to_get_it(tmp_path: Path) -> None:
    """Where the download fails, the video is not lost: the command names the task and how to fetch it."""
    faults = Faults()
    faults.add("html", on="download")
    with served(faults=faults) as server:
        result = generate(server, "a", "-o", "a.mp4", "--json")
        told = outcome(result)
    assert (1, "succeeded", None) == (result.status, told["state"], told["file"])
    assert f"veo-async wait {told['task_id']} -o FILE" in result.err
    assert not (tmp_path / "a.mp4").exists()


# --- wait ------------------------------------------------------------------------------------------------


def test_wait_fetches_what_was_asked_for_earlier(server: Served) -> None:
    """Waiting for a task with an output saves its video."""
    task_id = outcome(generate(server, "a", "--json"))["task_id"]
    result = invoke("wait", task_id, "-o", "again.mp4", environment=server.environment)
    assert (0, "again.mp4\n") == (result.status, result.out)
    assert MP4 == Path("again.mp4").read_bytes()[4:8]


def test_wait_without_an_output_only_waits(server: Served) -> None:
    """Several tasks are waited for at once, each told once, and nothing is written."""
    ids = [outcome(generate(server, "a", "--json", "-o", f"{n}.mp4"))["task_id"] for n in range(2)]
    before = {*Path().iterdir()}
    result = invoke("wait", *ids, ids[0], "--json", environment=server.environment)
    told = [json.loads(line) for line in result.out.splitlines()]
    assert (0, ids) == (result.status, [one["task_id"] for one in told])
    assert before == {*Path().iterdir()}


def test_wait_for_several_needs_a_directory(server: Served) -> None:
    """Several videos do not fit into one file."""
    result = invoke("wait", "1", "2", "-o", "x.mp4", environment=server.environment)
    assert 2 == result.status
    assert "--output x.mp4 must be a directory for several tasks" in result.err


def test_wait_for_what_does_not_exist(server: Served) -> None:
    """A task that the server does not know is told at once, and at the end, with what may be wrong."""
    result = invoke("wait", "no-such-task", environment=server.environment)
    first, *_, last, advice = result.err.splitlines()
    assert (1, "") == (result.status, result.out)
    assert "the server does not know the task no-such-task yet; is the id right?" in first
    assert "veo-async: the server does not know the task no-such-task" == last
    assert "Check the id" in advice
    assert "that the token is of the account that bought it" in advice


# --- Ctrl-C ----------------------------------------------------------------------------------------------


def test_ctrl_c_tells_what_was_accepted(tmp_path: Path) -> None:
    """Ctrl-C ends with 130, no traceback, the id of what was accepted, and the command that goes on with it."""
    with served(speed=0.01) as server:
        with Process(("generate", "a whale", "-o", "w.mp4"), tmp_path, server.environment) as process:
            process.read_until("accepted as task")
            process.interrupt()
            result = process.finish()
        [task_id] = server.core.tasks
    assert (130, "") == (result.status, result.out)
    assert f"veo-async wait {task_id} -o" in result.err
    assert "Traceback" not in result.err
    assert [] == [*tmp_path.iterdir()]


def test_ctrl_c_waits_for_the_answer_of_a_submit(tmp_path: Path) -> None:
    """A submit on its way gets its moment: what the server accepts meanwhile is told by its id."""
    faults = Faults()
    faults.add("slow", on="submit", seconds=1.0)
    with served(faults=faults, speed=1) as server:
        with Process(("generate", "a whale"), tmp_path, server.environment) as process:
            wait_for(lambda: server.core.accepted)
            process.interrupt()
            result = process.finish()
        [task_id] = server.core.tasks
    assert 130 == result.status
    assert f"veo-async wait {task_id}" in result.err


def test_sigterm_is_taken_as_ctrl_c_is(tmp_path: Path) -> None:
    """A polite kill tells the ids, too, and has its own exit status."""
    with served(speed=0.01) as server:
        with Process(("generate", "a whale"), tmp_path, server.environment) as process:
            process.read_until("accepted as task")
            process.terminate()
            result = process.finish()
        [task_id] = server.core.tasks
    assert 143 == result.status
    assert f"veo-async wait {task_id}" in result.err


def test_ctrl_c_before_anything_was_sent(tmp_path: Path) -> None:
    """Where nothing was sent, the command says that."""
    faults = Faults()
    faults.add("status_before", on="submit", status=429, retry_after=60.0)
    with (
        served(faults=faults, speed=1) as server,
        Process(("generate", "a whale"), tmp_path, server.environment) as process,
    ):
        wait_for(lambda: server.core.requests["submit"])
        process.interrupt()
        result = process.finish()
    assert 130 == result.status
    assert "was not sent" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_in_this_process(number: signal.Signals, status: int) -> None:
    """The same without a process of its own: what was accepted is told, with the way to go on."""
    with served(speed=0.01) as server:
        with signalled(number, when=lambda: server.core.accepted):
            result = generate(server, "a whale")
        [task_id] = server.core.tasks
    assert status == result.status
    assert f"veo-async wait {task_id}" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
def test_an_interruption_while_a_submit_is_on_its_way() -> None:
    """The submit is given its moment, and the person at the terminal is told."""
    faults = Faults().add("slow", on="submit", seconds=0.5)
    with served(faults=faults, speed=1) as server:
        with signalled(signal.SIGINT, when=lambda: server.core.accepted):
            result = generate(server, "a whale")
        [task_id] = server.core.tasks
    assert 130 == result.status
    assert "stopping: " in result.err
    assert f"task {task_id}" in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
def test_an_interruption_before_anything_was_sent() -> None:
    """Nothing was sent, so there is no id to tell."""
    faults = Faults().add("status_before", on="submit", status=429, retry_after=60.0)
    with (
        served(faults=faults, speed=1) as server,
        signalled(signal.SIGINT, when=lambda: server.core.requests["submit"]),
    ):
        result = generate(server, "a whale")
    assert 130 == result.status
    assert "veo-async wait" not in result.err


def test_a_task_that_was_being_written_down_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C between the answer and its being durable: only the error knows the task, and how to go on is told."""
    owner: Any = SimpleNamespace(moved=lambda *_: None)
    start: Any = None  # never called
    piece = Piece(title="a whale", start=start, target=None)
    piece.job = Job("k", TextToVideo("a whale"), owner, None, True)
    stop(piece.job, SessionClosed("the session ended first", task_id="1234"))
    interrupted([piece], kept=True)
    told = capsys.readouterr().err
    assert "To go on: the same command again, or veo-async wait 1234 -o FILE" in told
    assert 1 == told.count("interrupted.")

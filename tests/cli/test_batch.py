"""
`veo-async batch`: checked whole, bought once, gone on with, and told.
"""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from rich.console import Console

from veo_async import Job, JobState
from veo_async.cli.batch.input import read_items
from veo_async.cli.batch.run import title_of
from veo_async.cli.display.board import DOWNLOADING, SAVED
from veo_async.cli.display.crowd import Crowd
from veo_async.cli.ending import new_session
from veo_async.simulator import Faults

from ..terminal import Finished, Process, Served, invoke, served, signalled, wait_for

THREE = "a whale\na walrus\na seal\n"
ACCOUNT = {"ACEDATACLOUD_PLATFORM_TOKEN": "platform-simulator-token"}


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prompts.txt").write_text(THREE, encoding="utf-8")


def batch(server: Served, *arguments: str, given: str | None = None, **changes: str) -> Finished:
    words = arguments if given is not None or "prompts.txt" in arguments else ("prompts.txt", *arguments)
    return invoke("batch", *words, "--out", "out", environment=server.environment | changes, given=given)


def manifest() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]


def videos() -> set[str]:
    return {path.name for path in Path("out").glob("*.mp4")}


def lose_the_journal(*, empty: bool) -> None:
    for path in Path("out").glob("journal.db*"):
        path.unlink()
    if empty:
        Path("out/journal.db").touch()


# --- a good end ------------------------------------------------------------------------------------------


def test_each_line_becomes_a_file(server: Served) -> None:
    """There is a file for each line, a manifest in the order of the lines, and a page that shows them."""
    result = batch(server)
    records = manifest()
    assert 0 == result.status
    assert re.search(r"3 of 3 videos saved in out, in [^;]+; 3 bought now, 0 bought before\.", result.err)
    assert ["a whale", "a walrus", "a seal"] == [record["request"]["prompt"] for record in records]
    assert videos() == {record["file"] for record in records}
    assert ["succeeded"] * 3 == [record["state"] for record in records]
    assert [1, 2, 3] == [record["line"] for record in records]
    assert all(record["settled_at"] and record["videos"][0]["completed_at"] for record in records)
    page = Path("out/index.html").read_text(encoding="utf-8")
    assert 3 == page.count("<video ")
    assert "3 requests, 3 videos" in page


def test_a_second_run_buys_nothing(server: Served) -> None:
    """The same command again is done at once; a new line is all it buys, and a lost file all it fetches."""
    batch(server)
    before, downloads = server.core.accepted, server.core.requests["download"]
    again = batch(server)
    assert (0, True) == (again.status, "; 0 bought now, 3 bought before." in again.err)
    assert (before, downloads) == (server.core.accepted, server.core.requests["download"])
    lost = videos().pop()
    Path("out", lost).unlink()
    Path("prompts.txt").write_text("new\n" + THREE, encoding="utf-8")
    more = batch(server)
    assert (0, True) == (more.status, "; 1 bought now, 3 bought before." in more.err)
    assert (before + 1, downloads + 2) == (server.core.accepted, server.core.requests["download"])
    assert lost in videos()


def test_a_batch_whose_directory_was_lost_is_continued() -> None:
    """With --look-first nothing is bought again, what is missing is, and every file is there."""
    with served() as fresh:
        batch(fresh, "--limit", "2")
        for path in Path("out").iterdir():
            path.unlink()
        result = batch(fresh, "--look-first")
        assert (0, True) == (result.status, "; 1 bought now, 2 bought before." in result.err)
        assert (3, 3) == (fresh.core.accepted, len(videos()))


def test_a_directory_that_lost_its_journal_is_continued(server: Served) -> None:
    """With --look-first what was bought is found, and its files are kept."""
    batch(server)
    before = server.core.accepted
    Path("out/journal.db").unlink()
    assert (0, before) == (batch(server, "--look-first").status, server.core.accepted)


def test_failed_tasks_are_tried_again(server: Served) -> None:
    """As often as was allowed; each failure is told, and counted once at the end."""
    with served(failure_share=1.0) as failing:
        result = batch(failing, "--limit", "1", "--attempts", "3")
        assert (1, 3) == (result.status, failing.core.accepted)
        assert 2 == result.err.count("it is bought again (a whale)")
        assert "; 0 bought now, 0 bought before." in result.err  # a failed task is not billed
        assert ["failed"] == [record["state"] for record in manifest()]
        failing.core.settings = evolve(failing.core.settings, failure_share=0.0)
        assert 0 == batch(failing, "--limit", "1", "--attempts", "2").status
        assert 4 == failing.core.accepted


def test_what_is_taken_up_is_said() -> None:
    """A run that was interrupted has left accepted tasks: the next one says how many."""
    with served(speed=0.01) as slow:
        with signalled(signal.SIGINT, when=lambda: slow.core.accepted == 3):
            batch(slow)
        for task_id in slow.core.tasks:
            slow.core.finish(task_id)
        result = batch(slow)
        assert "3 accepted tasks resumed" in result.err
        assert "; 0 bought now, 3 bought before." in result.err


def test_acceptance_is_said(tmp_path: Path) -> None:
    """Off a terminal, a line tells that all was accepted, before there is any video; what was refused is not counted."""
    Path("lines.jsonl").write_text('"a"\n{"prompt": "b", "model": "veo2"}\n"c"\n', encoding="utf-8")
    with (
        served(duration=lambda body: 1e9) as server,
        Process(("batch", "lines.jsonl", "--out", "out"), tmp_path, server.environment) as process,
    ):
        assert re.match(r" +\d\S* s  2 accepted, 0 saved\n", process.read_until(" accepted, "))
        for task_id in [*server.core.tasks]:
            server.core.finish(task_id)
        result = process.finish()
    assert (1, False) == (result.status, " accepted, " in result.err)


def test_a_line_without_a_prompt_is_called_by_what_it_makes() -> None:
    """The display speaks of "1080p of" a video, and not of a class or a file."""
    [item] = read_items('{"kind": "get1080p", "video_id": "v"}', "jsonl").items
    assert "1080p of v" == title_of(item)


def test_a_file_that_was_cut_is_fetched_again(server: Served) -> None:
    """A file that no longer has its length is not taken for the video."""
    batch(server)
    name = videos().pop()
    whole = Path("out", name).read_bytes()
    Path("out", name).write_bytes(whole[:100])
    assert 0 == batch(server).status
    assert len(whole) == len(Path("out", name).read_bytes())


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize("files", [False, True])
@pytest.mark.parametrize("option", [(), ("--dry-run",), ("--retry-failed",)])
def test_without_its_journal_a_directory_buys_nothing(
    server: Served, option: tuple[str, ...], *, files: bool, empty: bool
) -> None:
    """Where a manifest tells of an earlier run whose journal is lost, no line is bought, and that is said."""
    batch(server)
    before, told = server.core.accepted, Path("out/manifest.jsonl").read_bytes()
    lose_the_journal(empty=empty)
    for name in videos() if not files else ():
        Path("out", name).unlink()
    result = batch(server, *option)

    assert (2, before) == (result.status, server.core.accepted)
    assert "- --out out has the manifest.jsonl of an earlier run, but its journal.db is lost" in result.err
    assert "--look-first looks for each line's task before it buys" in result.err
    assert "from elsewhere" not in result.err
    assert told == Path("out/manifest.jsonl").read_bytes()


def test_a_run_that_settled_nothing_is_known_too(server: Served) -> None:
    """An empty manifest tells of a run, too: what it had bought was in the journal alone."""
    Path("out").mkdir()
    Path("out/manifest.jsonl").touch()
    assert (2, True) == (batch(server).status, Path("out/manifest.jsonl").exists())


def test_without_its_manifest_a_directory_is_still_known(server: Served) -> None:
    """The journal alone keeps everything from being bought, or fetched, again."""
    batch(server)
    before, downloads = server.core.accepted, server.core.requests["download"]
    Path("out/manifest.jsonl").unlink()
    assert 0 == batch(server).status
    assert (before, downloads) == (server.core.accepted, server.core.requests["download"])
    assert 3 == len(manifest())


def test_standard_input(server: Served) -> None:
    """A dash is stdin, whose form is told by how it begins; --json writes the records to stdout."""
    result = batch(server, "-", "--json", given='{"prompt": "a", "key": "k", "file": "mine.mp4"}\n')
    [record] = map(json.loads, result.out.splitlines())
    assert (0, "k", "mine.mp4") == (result.status, record["key"], record["file"])
    assert {"mine.mp4"} == videos()


def test_several_videos_of_one_line() -> None:
    """A task with several videos gives several files, which are all asked for again."""
    with served(videos=2) as server:
        result = batch(server, "-", given="a whale")
        [record] = manifest()
        assert 0 == result.status
        assert {video["file"] for video in record["videos"]} == videos()
        assert 2 == len(videos())


def test_limit_takes_the_first_lines(server: Served) -> None:
    """--limit takes so many lines, and a greater one goes on from there."""
    assert (0, 1) == (batch(server, "--limit", "1").status, len(videos()))
    assert (0, 2) == (batch(server, "--limit", "2").status, len(videos()))


def test_max_in_flight_is_kept(server: Served) -> None:
    """No more tasks are unfinished at once than was said."""
    with served(max_in_flight=1) as strict:
        Path("prompts.txt").write_text(THREE, encoding="utf-8")
        assert 0 == batch(strict, "--max-in-flight", "1").status
        assert 0 == strict.core.requests["refused"]


def test_callbacks_can_be_taken(server: Served) -> None:
    """With a port for callbacks, each submit names it, and the results come through it."""
    result = batch(server, "--callback-port", "0")
    port = re.findall(r"taking callbacks on port (\d+)", result.err)[0]
    urls = [body["callback_url"] for body in server.bodies[-3:]]
    assert (0, 3) == (result.status, len({*urls}))
    assert all(url.startswith(f"http://127.0.0.1:{port}/") for url in urls)
    assert "callback_url" not in manifest()[0]["request"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--public-url", "https://example.com"), "--public-url needs --callback-port"),
        (
            ("--callback-port", "0", "--base-url", "https://api.acedata.cloud"),
            "--callback-port needs --public-url",
        ),
        (("--callback-port", "0", "--public-url", "nonsense"), "public_url must be an http or https address"),
    ],
)
def test_callbacks_must_be_able_to_arrive(server: Served, arguments: tuple[str, ...], words: str) -> None:
    """A port without an address that the API could reach is bad input, and so is the reverse."""
    before = server.core.accepted
    result = batch(server, *arguments)
    assert (2, before) == (result.status, server.core.accepted)
    assert words in result.err


# --- bad input -------------------------------------------------------------------------------------------


def test_all_bad_lines_are_told_and_nothing_is_bought(server: Served) -> None:
    """Every faulty line is told with its number, the good ones are not bought, and nothing is written."""
    before = server.core.requests.total()
    lines = '"good"\n{"prompt": ""}\n"good too"\njunk\n'
    result = batch(server, "-", "--format", "jsonl", given=lines, ACEDATACLOUD_API_TOKEN="")
    assert 2 == result.status
    assert ["line 2: prompt must not be empty", "line 4: not JSON"] == re.findall(
        r"line \d: (?:prompt must not be empty|not JSON)", result.err
    )
    assert "no token" in result.err
    assert before == server.core.requests.total()
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "INPUT prompts.txt cannot be read: No such file or directory"),
        (b"", "INPUT prompts.txt holds no request"),
        (b"# nothing\n\n", "INPUT prompts.txt holds no request"),
        (b"fine\nbad \xff\n", "line 2: not UTF-8"),
    ],
)
def test_an_input_that_cannot_be_read(server: Served, content: bytes | None, words: str) -> None:
    """No file, no request in it, or no UTF-8: the input is at fault."""
    Path("prompts.txt").unlink()
    if content is not None:
        Path("prompts.txt").write_bytes(content)
    result = batch(server)
    assert 2 == result.status
    assert words in result.err


def test_a_directory_that_is_a_file(server: Served) -> None:
    """Where the directory cannot be, nothing is bought."""
    Path("out").write_bytes(b"")
    assert "--out out: out is not a directory" in batch(server).err
    result = invoke("batch", "prompts.txt", "--out", "out/deep", environment=server.environment)
    assert 2 == result.status


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory that nobody may write to")
def test_a_directory_that_may_not_be_written_to(server: Served) -> None:
    """Where the system says so, nothing is bought either."""
    before = server.core.accepted
    result = invoke("batch", "prompts.txt", "--out", "/proc/out", environment=server.environment)
    assert (2, before) == (result.status, server.core.accepted)
    assert "--out /proc/out: /proc cannot be written to" in result.err


def test_a_key_stays_with_its_request(server: Served) -> None:
    """A key that this directory knows for another request is bad input."""
    batch(server, "-", given='{"prompt": "a", "key": "k"}')
    result = batch(server, "-", given='{"prompt": "b", "key": "k"}')
    assert 2 == result.status
    assert "line 1: the key 'k' belongs to a different request in out: prompt was 'a'" in result.err
    batch(server, "-", given='{"prompt": "a", "model": "veo31", "key": "k"}')
    again = batch(server, "-", given='{"prompt": "a", "model": "veo31", "resolution": "4k", "key": "k"}')
    assert "in out: model was 'veo31-fast', resolution was None" in again.err


def test_a_key_of_a_record_that_nobody_can_read(server: Served) -> None:
    """Where another hand has been at the manifest, a conflict is still one, and no crash."""
    assert 0 == batch(server, "-", given='{"prompt": "b", "key": "k"}').status
    Path("out/manifest.jsonl").write_text('{"key": "k", "request": 7}\n', encoding="utf-8")
    result = batch(server, "-", given='{"prompt": "b", "key": "k"}')
    assert 2 == result.status
    assert "line 1: the key 'k' belongs to a different request in out\n" in result.err


@pytest.mark.parametrize("option", ["--limit", "--max-in-flight"])
@pytest.mark.parametrize("value", ["0", "-1", "1.5", "all"])
def test_counts_are_whole_numbers(server: Served, option: str, value: str) -> None:
    """What is no whole number above 0 is bad input."""
    result = batch(server, option, value)
    assert 2 == result.status
    assert f"{value!r} is not a whole number above 0" in result.err


def test_doubtful_lines_are_noted(server: Served) -> None:
    """What may be refused is bought all the same, after one note for all lines alike."""
    result = batch(server, "-", given='{"prompt": "a", "model": "veo-3"}\n{"prompt": "b", "model": "veo-3"}')
    note = "note: lines 1, 2: model veo-3 is not in the table of models (did you mean veo3?)"
    assert note in result.err
    assert note in batch(server, "-", "--dry-run", given='{"prompt": "a", "model": "veo-3"}\n' * 2).err


@pytest.mark.parametrize(
    ("lines", "note"),
    [
        ("# first\n1\n", "note: 1 line begins with # and is skipped\n"),
        ("\ufeff# first\n1\n#2\n", "note: 2 lines begin with # and are skipped\n"),
    ],
)
def test_comments_are_noted(server: Served, lines: str, note: str) -> None:
    """A line that is skipped may have been meant as a prompt; where there is none, nothing is said."""
    result = batch(server, "-", "--dry-run", given=lines)
    assert (0, True) == (result.status, note in result.err)
    assert "1  to be bought" in result.out
    assert "skipped" not in batch(server, "-", "--dry-run", given='{"prompt": "#"}\n').err


def test_a_port_for_callbacks_that_is_taken(server: Served) -> None:
    """Where callbacks cannot be taken nothing is bought, and the option is named."""
    before = server.core.accepted
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = batch(server, "--callback-port", str(port))
    assert (1, before) == (result.status, server.core.accepted)
    assert f"port {port} is taken by another program: choose another with --callback-port" in result.err


def test_somebody_elses_file_is_left_alone(server: Served) -> None:
    """A file that was there before the batch is not replaced."""
    Path("out").mkdir()
    Path("out/mine.mp4").write_bytes(b"mine")
    result = batch(server, "-", given='{"prompt": "a", "file": "mine.mp4"}')
    assert (2, b"mine") == (result.status, Path("out/mine.mp4").read_bytes())
    assert "is in out already, from elsewhere" in result.err


@pytest.mark.parametrize("options", [(), ("--dry-run",)])
@pytest.mark.parametrize("changes", [{}, ACCOUNT])
def test_a_directory_in_use(tmp_path: Path, options: tuple[str, ...], changes: dict[str, str]) -> None:
    """A second run over the same directory, at the same time, is told so, and does no harm."""
    with (
        served(speed=0.01) as server,
        Process(("batch", "prompts.txt", "--out", "out"), tmp_path, server.environment) as first,
    ):
        wait_for(lambda: server.core.accepted == 3)
        result = batch(server, *options, **changes)
        assert 3 == server.core.requests["submit"]
        first.kill()
        first.finish()
    assert 1 == result.status
    assert (
        "another veo-async is working on out/: nothing was sent. Wait for it to end, then run this again.\n"
        "  Another --out would buy every line again.\n"
    ) in result.err
    assert "disk" not in result.err
    assert not Path("out/index.html").exists()


# --- a dry run -------------------------------------------------------------------------------------------


def test_a_dry_run_buys_nothing(server: Served) -> None:
    """It tells what would be bought and for how much, by kind and model; it needs no token and no directory."""
    before = server.core.requests.total()
    lines = '{"prompt": "c", "model": "veo31"}\n"a"\n"b"\n'
    result = batch(server, "-", "--dry-run", given=lines, ACEDATACLOUD_API_TOKEN="")
    assert 0 == result.status
    assert ["1  text2video veo31, 6.50 credits", "2  text2video veo31-fast, 1.30 credits"] == [
        line.strip() for line in result.out.splitlines()[:2]
    ]
    assert "3  to be bought, 7.80 credits; 0 of 3 lines were bought before" in result.out
    assert before == server.core.requests.total()
    assert not Path("out").exists()


def test_a_dry_run_does_not_look(server: Served) -> None:
    """What --look-first would find is not asked for, and that is said."""
    note = "note: --dry-run does not ask the API what --look-first would find, so this is the most that it can cost"
    requests = server.core.requests.total()
    assert note in batch(server, "--dry-run", "--look-first").err
    assert note not in batch(server, "--dry-run").err
    assert requests == server.core.requests.total()


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (("--max-videos", "2"), "the budget of 2 videos is spent: as many were bought, or may have been"),
        (
            ("--max-credits", "1.5"),
            "0.65 credits do not fit into the budget of 1.5: 1.3 are spent, or may be",
        ),
    ],
)
def test_a_budget_is_for_all_runs_together(server: Served, option: tuple[str, str], words: str) -> None:
    """What does not fit is not bought, by the next run neither; a larger budget lets it go on."""
    before = server.core.accepted
    for _ in range(2):
        result = batch(server, *option)
        assert (1, before + 2, 2) == (result.status, server.core.accepted, len(videos()))
        assert words in " ".join(result.err.split())
        assert "  1 line was not bought.\n" in result.err
        assert "The same command again" not in result.err
        assert "a seal: stopped" not in result.err
        assert "Raise --max-videos or --max-credits" in result.err
    assert 0 == batch(server, option[0], "3").status
    assert before + 3 == server.core.accepted


def test_what_a_budget_does_not_stop_is_tried_again() -> None:
    """Of the lines without files, only those that are too many for the budget take a larger one."""
    with served(faults=Faults().add("html", on="download", times=1)) as server:
        result = batch(server, "--max-videos", "1")
        assert "0 of 3 videos saved" in result.err
        assert "  2 lines were not bought.\n" in result.err
        assert "The same command again tries the others.\n" in result.err
        assert "1 of 3 videos saved" in batch(server, "--max-videos", "1").err


def test_a_dry_run_knows_what_was_bought() -> None:
    """What the journal or the manifest knows is not counted, save what failed and would be retried."""
    told: list[Any] = []
    with served(failure_share=1.0) as server:
        batch(server, "--limit", "2")
        for arguments in ((), ("--retry-failed",)):
            result = batch(server, "--dry-run", "--json", *arguments)
            told.append(json.loads(result.out))
        Path("out/manifest.jsonl").unlink()
        told.append(json.loads(batch(server, "--dry-run", "--json").out))
    assert [2, 0, 2] == [one["known"] for one in told]
    assert [{"kind": "text2video", "model": "veo31-fast", "count": 1, "credits": 0.65}] == told[0]["buy"]
    assert [0.65, 1.95, 0.65] == [one["credits"] for one in told]


@pytest.mark.parametrize(
    ("state", "note", "price"),
    [
        ("failing", "note: the prices are not known: the platform answered with status 500", ""),
        ("html", "note: the prices are not known: the platform's answer cannot be read", ""),
        ("other", "", ""),
        ("on", "", ", 0.65 credits and 1 without a known price"),
    ],
)
def test_a_dry_run_does_without_prices(state: str, note: str, price: str) -> None:
    """A platform that is out of order is noted at most, and a price that is not known is said to be so."""
    rows = [{"conditions": {"in": ["a", {"var": "prompt"}]}, "consumption": 0.65}]
    with served(platform=state, prices=rows) as server:
        result = batch(server, "-", "--dry-run", given="a\nb\n")
    assert (0, note in result.err) == (result.status, True)
    assert f"2  to be bought{price}; 0 of 2" in result.out


# --- what goes wrong -------------------------------------------------------------------------------------


def test_failures_are_told_and_can_be_retried() -> None:
    """A failed task fails its line alone; only --retry-failed buys it again."""
    with served(duration=lambda body: 1.0) as server:
        server.core.next_durations.extend([1e6] * 3)
        threading.Thread(target=_fail_the_second, args=(server,)).start()
        result = batch(server)
        assert 1 == result.status
        assert "2 of 3 videos saved" in result.err
        assert "line 2: api_error: fetch failed" in result.err
        assert "--retry-failed buys failed tasks again" in result.err
        assert (1, 3) == (batch(server).status, server.core.accepted)
        assert ["succeeded", "failed", "succeeded"] == [record["state"] for record in manifest()]
        assert (0, 4) == (batch(server, "--retry-failed").status, server.core.accepted)
        assert ["succeeded"] * 3 == [record["state"] for record in manifest()]


def _fail_the_second(server: Served) -> None:
    wait_for(lambda: len(server.core.tasks) == 3)
    for task in [*server.core.tasks.values()]:
        if task.body["prompt"] == "a walrus":
            server.core.fail(task.id)
        else:
            server.core.finish(task.id)


def test_many_failures_are_not_all_listed() -> None:
    """The first few are told; the manifest has them all."""
    with served(failure_share=1.0) as server:
        result = batch(server, "-", given="".join(f"{number}\n" for number in range(8)))
    assert "and 3 more: see out/manifest.jsonl" in result.err
    assert 8 == len(manifest())
    assert 8 == Path("out/index.html").read_text(encoding="utf-8").count("frame lost")


def test_what_concerns_every_job_stops_the_run() -> None:
    """An empty balance ends the buying: what was accepted is seen through, and the rest waits for the next run."""
    with served(balance=2) as server:
        result = batch(server, "-", "--max-in-flight", "1", given="".join(f"{n}\n" for n in range(40)))
        assert 1 == result.status
        assert 1 == result.err.count("nothing more is bought")
        assert ["1/40", "2/40"] == re.findall(r"\[(\d+/40)\]", result.err)
        assert "Top up the account" in result.err
        assert (2, 2) == (server.core.accepted, len(videos()))
        assert 10 > server.core.requests["submit"]


def test_a_wrong_token_stops_a_long_batch(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more lines than are submitted at once, those that were not are left alone once it is known to be hopeless."""
    monkeypatch.setattr("veo_async.cli.batch.run.WINDOW", 1)
    before = server.core.requests["submit"]
    result = batch(server, ACEDATACLOUD_API_TOKEN="wrong")
    assert (1, before) == (result.status, server.core.requests["submit"])
    assert "Check the token" in result.err
    assert "0 of 3 videos saved" in result.err


def test_a_download_that_fails_can_be_had_later() -> None:
    """A video that could not be fetched is told, and fetched by the next run without being bought again."""
    faults = Faults().add("html", on="download", times=1)
    with served(faults=faults) as server:
        first = batch(server)
        [record] = [one for one in manifest() if one["file"] is None]
        assert (1, "succeeded", "DownloadError") == (first.status, record["state"], record["error"]["type"])
        assert "not saved" in Path("out/index.html").read_text(encoding="utf-8")
        assert (0, 3) == (batch(server).status, server.core.accepted)
    assert all(record["file"] for record in manifest())


def test_a_full_disk_is_told(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the manifest cannot be written, the run ends with the system's own words."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("veo_async.cli.batch.manifest.Manifest.add", full)
    result = batch(server)
    assert 1 == result.status
    assert "No space left on device" in result.err
    assert "Traceback" not in result.err


# --- two runs over one directory -------------------------------------------------------------------------


def overtaken(monkeypatch: pytest.MonkeyPatch, other: Callable[[], Finished]) -> None:
    """
    Have another run begin and end after the next one has read its input and the directory, and before it opens that.
    """
    place = "veo_async.cli.commands.batch.new_session"

    def late(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(place, new_session)
        assert 0 == other().status
        return new_session(*arguments, **options)

    monkeypatch.setattr(place, late)


def test_a_run_that_was_overtaken_keeps_the_others_records(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another run has told since this one looked stays in the manifest and on the page."""
    overtaken(monkeypatch, lambda: batch(server, "-", given="an otter\na seal\n"))
    before = server.core.accepted
    assert 0 == batch(server).status
    assert ["a whale", "a walrus", "a seal", "an otter"] == [one["request"]["prompt"] for one in manifest()]
    assert before + 4 == server.core.accepted
    assert "4 requests, 4 videos" in Path("out/index.html").read_text(encoding="utf-8")


def test_a_run_that_was_overtaken_does_not_touch_a_key_of_the_other(
    server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that belongs to a different request by now is told, and nothing is bought."""
    mine, others = '{"key": "k", "prompt": "mine"}\n', '{"key": "k", "prompt": "the other\'s"}\n'
    overtaken(monkeypatch, lambda: batch(server, "-", given=others))
    before = server.core.accepted
    result = batch(server, "-", given=mine)
    assert 2 == result.status
    assert "the key 'k' belongs to a different request" in result.err
    assert before + 1 == server.core.accepted
    assert ["the other's"] == [record["request"]["prompt"] for record in manifest()]


# --- Ctrl-C ----------------------------------------------------------------------------------------------


def test_a_refusal_is_no_failed_task(server: Served) -> None:
    """Where no task has failed, nothing is said of --retry-failed, which would do nothing."""
    result = batch(server, "-", given='{"prompt": "a", "model": "veo2"}\n')
    assert (1, True) == (result.status, "line 1: bad_request: model is not supported" in result.err)
    assert "The same command again tries what is missing." in result.err
    assert "--retry-failed" not in result.err


def test_ctrl_c_before_anything_was_accepted() -> None:
    """Without an accepted task, nothing is said of what goes on at the server."""
    faults = Faults().add("status_before", on="submit", status=429, retry_after=60.0)
    with (
        served(faults=faults, speed=1) as server,
        signalled(signal.SIGINT, when=lambda: server.core.requests["submit"]),
    ):
        result = batch(server)
    assert (130, True) == (result.status, "veo-async: interrupted; no accepted task is open." in result.err)
    assert "The same command again goes on from here" in result.err
    assert "0 accepted tasks" not in result.err
    assert "no cancel" not in result.err


def test_ctrl_c_can_be_gone_on_from(tmp_path: Path) -> None:
    """Ctrl-C tells the ids of what was accepted; the same command again fetches those, and buys nothing twice."""
    with served(speed=0.01) as server:
        with signalled(signal.SIGINT, when=lambda: server.core.accepted == 3):
            result = batch(server)
        assert 130 == result.status
        assert "interrupted; 3 accepted tasks may go on" in result.err
        assert all(task_id in result.err for task_id in server.core.tasks)
        assert "The same command again goes on" in result.err
        for task_id in [*server.core.tasks]:
            server.core.finish(task_id)
        assert (0, 3) == (batch(server).status, server.core.accepted)
    assert 3 == len(videos())


def test_ctrl_c_with_many_tasks() -> None:
    """Of many ids the first are told; the journal has them all."""
    with (
        served(speed=0.01) as server,
        signalled(signal.SIGINT, when=lambda: server.core.accepted == 8),
    ):
        result = batch(server, "-", given="".join(f"{number}\n" for number in range(8)))
    assert "and 3 more, all in" in result.err


def test_ctrl_c_while_submits_are_on_their_way() -> None:
    """Submits that are being answered get their moment, and the person at the terminal is told."""
    faults = Faults().add("slow", on="submit", seconds=0.5)
    with (
        served(faults=faults, speed=1) as server,
        signalled(signal.SIGINT, when=lambda: server.core.accepted == 3),
    ):
        result = batch(server)
    assert 130 == result.status
    assert "stopping: " in result.err
    assert "3 accepted tasks" in result.err


@pytest.mark.parametrize("gap", [0.0, 0.02])
def test_ctrl_c_pressed_many_times_is_quiet(tmp_path: Path, gap: float) -> None:
    """Whoever hammers on Ctrl-C gets the same end, at once: the status, what goes on, and no traceback."""
    with (
        served(duration=lambda body: 1e9) as server,
        Process(("batch", "prompts.txt", "--out", "out"), tmp_path, server.environment) as process,
    ):
        wait_for(lambda: server.core.accepted == 3)
        for _ in range(6):
            process.interrupt()
            time.sleep(gap)
        result = process.finish()
    assert 130 == result.status
    assert "interrupted; " in result.err  # of how many tasks, depends on how many answers were there by then
    assert "The same command again goes on" in result.err
    for noise in ("Traceback", "KeyboardInterrupt", "fault of its own", "Exception ignored"):
        assert noise not in result.err


# --- the display -----------------------------------------------------------------------------------------


class _Owner:
    def moved(self, job: Job, before: JobState) -> None: ...

    def abandon(self, job: Job) -> None: ...


def _crowd(total: int) -> tuple[Crowd, io.StringIO, list[float]]:
    shown, now = io.StringIO(), [0.0]
    console = Console(file=shown, width=100, height=12, force_terminal=False)
    return Crowd(total, console, lambda: now[0]), shown, now


def _job(key: str, state: JobState) -> Job:
    job = Job(key, None, _Owner())  # type: ignore[arg-type]
    job.state = state
    return job


def _picture(crowd: Crowd) -> str:
    with crowd.console.capture() as capture:
        crowd.console.print(crowd._picture())
    return capture.get()


def test_the_display_of_a_batch() -> None:
    """A bar with rate and remaining time, rows that read their jobs' states, and the last failures."""
    crowd, _, now = _crowd(total=100)
    crowd.skip()
    rows = [crowd.enter(f"video {number}", _job(str(number), JobState.PENDING)) for number in range(20)]
    now[0] = 60.0
    for row in rows[:5]:
        crowd.leave(row, SAVED, "x.mp4")
    crowd.leave(rows[5], JobState.FAILED, "api_error: no")
    crowd.leave(rows[6], JobState.STOPPED, "not sent", silent=True)
    rows[7].state = DOWNLOADING
    text = _picture(crowd)
    assert "7 of 100, 1 failed, 6 a minute" in text
    assert "to go" in text
    assert "all at work: 1 downloading, 12 pending" in text
    assert "✗ api_error: no (video 5)" in text
    assert "not sent" not in text
    assert 12 >= len(text.splitlines())


async def test_the_lines_of_a_batch() -> None:
    """Off a terminal, each end is a line with its place in the whole."""
    crowd, shown, _ = _crowd(total=2)
    async with crowd:
        crowd.leave(crowd.enter("a whale", _job("a", JobState.PENDING)), SAVED, "a.mp4")
        crowd.enter("a walrus", _job("b", JobState.UNKNOWN))
        crowd.say(crowd._standing())
    assert "[1/2] a whale: saved a.mp4" in shown.getvalue()
    assert "1 of 2; 1 unknown" in shown.getvalue()

"""
`veo-async audit`, and the receipts that it compares with.
"""

from __future__ import annotations

import asyncio
import json
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from veo_async import Journal, PollPolicy, TextToVideo, VeoSession

from ..terminal import Finished, Served, invoke, served, signalled

TOKEN = {"ACEDATACLOUD_PLATFORM_TOKEN": "platform-simulator-token"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(server: Served, *arguments: str, given: str | None = None, **changes: str) -> Finished:
    return invoke(*arguments, environment=server.environment | TOKEN | changes, given=given)


def bought(server: Served, **changes: str) -> list[Path]:
    """
    Buy two videos, and return their files.
    """
    assert 0 == call(server, "batch", "-", "--out", "out", given="a\nb\n", **changes).status
    return sorted(Path("out").glob("*.mp4"))


def buy(server: Served, *, wait: bool = True) -> None:
    """
    Buy a video that nobody downloads, with the journal `j.db`; its end may not be waited for.
    """

    async def program() -> None:
        polling = PollPolicy().scaled(1 / server.core.settings.speed)
        token = next(iter(server.core.tokens))
        async with VeoSession(token, base_url=server.url, journal=Journal("j.db"), polling=polling) as veo:
            job = veo.submit(TextToVideo("a whale"), key="whale")
            await (job if wait else job.accepted())

    asyncio.run(program())


def kinds(result: Finished) -> list[str]:
    return [json.loads(line)["kind"] for line in result.out.splitlines()]


def test_each_file_has_a_receipt() -> None:
    """With the request, the ids, the times, the price, and the file's SHA-256, as the manifest has them."""
    with served() as server:
        files = bought(server)
        receipts = [json.loads(file.with_name(f"{file.name}.json").read_text()) for file in files]
        lines = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
        assert {*server.core.tasks} == {receipt["task_id"] for receipt in receipts}
    for file, receipt in zip(files, receipts, strict=True):
        [video], [line] = receipt["videos"], [line for line in lines if line["file"] == file.name]
        assert sha256(file.read_bytes()).hexdigest() == video["sha256"]
        assert (file.name, 0.65, "veo31-fast") == (
            video["file"],
            receipt["credits"],
            receipt["request"]["model"],
        )
        assert receipt["trace_id"] == line["trace_id"]
        assert video["created_at"] < video["completed_at"]
        assert line["settled_at"] == receipt["settled_at"]
        assert (receipt["videos"], receipt["credits"]) == (line["videos"], line["credits"])


def test_what_an_earlier_run_has_left_has_a_price() -> None:
    """A line that was accepted before has the list's price, which counts as spent already."""
    with served(speed=0.01, credits=1.0) as server:
        with signalled(signal.SIGINT, when=lambda: server.core.accepted == 1):
            call(server, "batch", "-", "--out", "out", given="a\n")
        for task_id in server.core.tasks:
            server.core.finish(task_id)
        result = call(server, "batch", "-", "--out", "out", given="a\n")
    assert (0, False) == (result.status, "this costs" in result.err)
    [receipt] = Path("out").glob("*.mp4.json")
    assert 0.65 == json.loads(receipt.read_text())["credits"]


def test_without_an_account_token_a_receipt_has_no_price() -> None:
    """The platform is not asked."""
    with served() as server:
        bought(server, ACEDATACLOUD_PLATFORM_TOKEN="")
        assert 0 == server.core.platform.requests.total()
    [line, _] = [json.loads(line) for line in Path("out/manifest.jsonl").read_text().splitlines()]
    assert (None, 64) == (line["credits"], len(line["videos"][0]["sha256"]))


def test_nothing_is_off_after_a_batch() -> None:
    """A directory or its journal is compared with its files and the ledger."""
    with served() as server:
        bought(server)
        for place in ("out", "out/journal.db"):
            result = call(server, "audit", place)
            assert (0, "") == (result.status, result.out)
            words = (
                "2 purchases and 2 rows of the ledger compared: nothing is off, and no key was bought twice."
            )
            assert words == result.err.splitlines()[-1]


def test_a_file_that_is_gone_or_was_changed_is_found() -> None:
    """The command to fetch it again is told."""
    with served() as server:
        gone, changed = bought(server)
        gone.unlink()
        changed.write_bytes(changed.read_bytes()[:-1] + b"?")
        result = call(server, "audit", "out", "--json")
    assert (1, ["file_missing"] * 2) == (result.status, kinds(result))
    assert "2 purchases paid and fetched, and its file is gone or has changed:" in result.err
    assert "veo-async download -o DIR " in result.err


def test_what_was_never_fetched_is_found() -> None:
    """A program that has not downloaded its video is told how to get it."""
    with served() as server:
        buy(server)
        result = call(server, "audit", "j.db")
        [task_id] = server.core.tasks
    assert 1 == result.status
    assert f"key whale, task {task_id}" in result.err
    assert f"veo-async download -o DIR {task_id}" in result.err


def test_what_is_missing_is_fetched() -> None:
    """To where it was, or beside the journal; a file that was changed is let alone, and what fails is told."""
    with served() as server:
        gone, changed = bought(server)
        before = gone.read_bytes()
        gone.unlink()
        changed.write_bytes(b"mine")
        buy(server)
        result = call(server, "audit", "out", "j.db", "--fetch", "--json")
        assert (1, ["file_missing"]) == (result.status, kinds(result))
        assert (before, b"mine") == (gone.read_bytes(), changed.read_bytes())
        [beside] = Path().glob("*.mp4")
        assert f"fetched {beside.absolute()}" in result.err
        assert 0 == call(server, "audit", "j.db").err.count("not fetched")
        beside.unlink()
        server.core.forget([*server.core.tasks][-1])
        result = call(server, "audit", "j.db", "--fetch")
    assert (1, True) == (result.status, "its file is gone" in result.err)
    assert "veo-async: the link answered 404, and its task cannot be looked up" in result.err


def test_the_ledger_and_the_journal_disagree() -> None:
    """What is only in one of them is found, from either side."""
    with served() as server:
        bought(server)
        first = next(iter(server.core.tasks))
        server.core.platform.unbilled.add(first)
        assert 0 == call(server, "generate", "elsewhere", "-o", "c.mp4").status
        result = call(server, "audit", "out", "--json")
        found = {line["kind"]: line["task_id"] for line in map(json.loads, result.out.splitlines())}
        assert {"not_billed": first, "not_in_journal": [*server.core.tasks][-1]} == found
        assert f"veo-async download -o DIR {[*server.core.tasks][-1]}" in result.err
        assert (1, True) == (result.status, "1 purchase paid, and not in the journal:" in result.err)
        buy(server)
        result = call(server, "audit", "out", "j.db")
    assert "1 purchase paid, and in none of the journals:" in result.err


@pytest.mark.parametrize(
    ("places", "where"),
    [(["lost", "out"], "journal lost/journal.db"), (["out"], "not in a journal")],
)
def test_a_key_that_was_bought_twice_is_found(places: list[str], where: str) -> None:
    """A directory was lost, and bought again: from both journals, and from the second and the ledger alone."""
    with served() as server:
        bought(server)
        Path("out").rename("lost")
        bought(server)
        tasks = [*server.core.tasks]
        result = call(server, "audit", *places, "--json")
    found = [json.loads(line) for line in result.out.splitlines()]
    assert (1, ["bought_twice"] * 2) == (result.status, kinds(result))
    assert {*tasks} == {purchase["task_id"] for line in found for purchase in line["purchases"]}
    assert [0.65, 0.65] == [line["credits"] for line in found]
    assert "2 keys bought more than once:" in result.err
    assert 2 == result.err.count(f"({where})") == result.err.count("(journal out/journal.db)")
    assert 2 == result.err.count("0.65 credits in vain")
    assert result.err.endswith("compared: 2 off.\n")


def test_what_failed_and_was_bought_again_was_not_bought_twice() -> None:
    """It is not billed."""
    with served(failure_share=1.0) as server:
        assert 1 == call(server, "batch", "-", "--out", "out", given="a\n").status
        server.core.settings = evolve(server.core.settings, failure_share=0.0)
        assert 0 == call(server, "batch", "-", "--out", "out", "--retry-failed", given="a\n").status
        result = call(server, "audit", "out")
    assert (0, 2) == (result.status, len(server.core.tasks))
    assert "nothing is off, and no key was bought twice." in result.err


def test_what_is_not_settled_may_have_been_bought_twice() -> None:
    """So nothing is said of it while that is not known."""
    with served(speed=4.0) as server:
        buy(server, wait=False)
        result = call(server, "audit", "j.db")
    assert "accepted, and its end is not known yet" in result.err
    assert (1, True) == (result.status, result.err.endswith("compared: 1 off.\n"))


def test_a_ledger_without_marks_does_not_show_what_was_bought_twice() -> None:
    """So nothing is said of it."""
    with served() as server:
        bought(server)
        for task in server.core.tasks.values():
            task.body.pop("callback_url")  # type: ignore[attr-defined]
        result = call(server, "audit", "out")
    assert (0, True) == (result.status, result.err.endswith("compared: nothing is off.\n"))


def test_a_long_ledger_is_read_to_its_end() -> None:
    """Page by page."""
    with served(submit_extras=True) as server:
        for number in range(250):
            server.core.post("/veo/videos", {"action": "text2video", "prompt": str(number), "async": True})
        bought(server)
        result = call(server, "audit", "out")
    assert "2 purchases and 252 rows of the ledger compared" in result.err


@pytest.mark.parametrize(
    ("settings", "token", "words"),
    [
        ({}, "", "there is no account token"),
        ({}, "platform-of-nobody", "status 401: it refused the account token"),
        ({}, "not a token", "holds a space"),
        ({"platform": "absent"}, None, "status 404"),
        ({"platform": "failing"}, None, "status 500"),
        ({"platform": "html"}, None, "cannot be read: the reply is not JSON"),
        ({"platform": "other"}, None, "the platform does not name the API"),
    ],
)
def test_without_a_ledger_the_rest_is_compared(
    settings: dict[str, Any], token: str | None, words: str
) -> None:
    """The sentence says why the ledger was not; with a token, that is a failure."""
    changes: dict[str, str] = {} if token is None else {"ACEDATACLOUD_PLATFORM_TOKEN": token}
    with served(**settings) as server:
        bought(server, ACEDATACLOUD_PLATFORM_TOKEN="")
        result = call(server, "audit", "out", **changes)
    status, rest = (0, "only the files were") if token == "" else (1, "the ledger was not")
    assert (status, True) == (result.status, "note: the ledger is not compared: " in result.err)
    assert words in " ".join(result.err.split())
    assert f"2 purchases compared: nothing is off, but {rest} compared." == result.err.splitlines()[-1]


def test_bad_input_is_told() -> None:
    """A journal that is none is not created, and the token of the API is needed to open one."""
    with served() as server:
        result = call(server, "audit", "no.db", ACEDATACLOUD_API_TOKEN="")
    assert (2, False) == (result.status, Path("no.db").exists())
    assert "JOURNAL no.db is not a file" in result.err
    assert "no token: set ACEDATACLOUD_API_TOKEN" in result.err

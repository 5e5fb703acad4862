"""
`veo-async worker`, in a process of its own, against a real PostgreSQL and a simulated server.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from socket import socket
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.postgres.server import do
from veo_async.cli import databases
from veo_async.simulator import Faults

from ..terminal import Process, Served, invoke, served, wait_for

PROMPTS = "".join(f"a whale, take {number}\n" for number in range(10))
MONTH = 2_592_000.0  # seconds that a task takes: it runs as long as a test lasts


@pytest.fixture
def directory() -> Iterator[Path]:
    """
    A directory whose name is short enough for a socket, where any user may go.
    """
    made = Path(tempfile.mkdtemp(prefix="veo-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def working(server: Served, folder: Path, *options: str | Path) -> Process:
    return Process(
        ("worker", "--out", folder / "videos", "--health", "0", *options), folder, server.environment
    )


def asked(line: str, path: str) -> tuple[int, dict[str, object]]:
    """
    Ask a worker how it is; `line` is the one in which it says where.
    """
    address = line.split()[3].removesuffix("/health")
    try:
        with urlopen(address + path, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@pytest.mark.usefixtures("database")
def test_a_file_is_made_into_videos(tmp_path: Path) -> None:
    """It is enqueued from one process, made and saved by another, and waited for in a third; and bought once."""
    with served() as server, working(server, tmp_path) as worker:
        health = worker.read_until("Health at")
        added = invoke("queue", "add", "-", given=PROMPTS)
        assert (0, "10 of 10 requests enqueued.\n") == (added.status, added.err)
        waited = invoke("queue", "wait", "-", "--json", given=added.out)
        assert 0 == waited.status
        records = [json.loads(line) for line in waited.out.splitlines()]
        assert added.out.split() == [record["key"] for record in records]
        assert {"succeeded"} == {record["state"] for record in records}
        wait_for(lambda: asked(health, "/ready")[1]["deliveries"]["made"] == 10)  # type: ignore[index]
        assert (200, True) == (asked(health, "/ready")[0], asked(health, "/health")[1]["ready"])
        worker.terminate()
        ended = worker.finish()
    assert (0, "Stopped: 10 videos made, 0 requests handed back to the queue.\n") == (
        ended.status,
        ended.err.splitlines(keepends=True)[-1],
    )
    assert 10 == server.core.accepted == len([*(tmp_path / "videos").glob("a-whale-take-*.mp4")])


def test_what_is_not_finished_goes_back(database: str, tmp_path: Path) -> None:
    """When a worker is stopped its deliveries wait for another at once, and it says how many."""
    with served(mean=MONTH) as server, working(server, tmp_path, "--lease", "1000") as worker:
        health = worker.read_until("Health at")
        invoke("queue", "add", "-", given=PROMPTS)
        wait_for(lambda: server.core.accepted == 10)
        assert "10 running" in invoke("queue", "status").out
        assert 10 == asked(health, "/health")[1]["jobs"]["pending"]  # type: ignore[index]
        worker.interrupt()
        ended = worker.finish()
    assert (0, True) == (ended.status, "0 videos made, 10 requests handed back" in ended.err)
    assert "stopping: " in ended.err
    status = json.loads(invoke("queue", "status", "--json").out)
    assert ({"waiting": 10}, {"pending": 10}) == (status["deliveries"], status["purchases"])
    assert [] == status["sessions"]


@pytest.mark.usefixtures("database")
def test_its_end_can_be_cut_short(tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for the answer to a submit, and has a status of its own."""
    faults = Faults().add("stall_after", on="submit")
    with served(faults=faults) as server:
        slow = {**server.environment, "VEO_ASYNC_SPEED": "0.01"}  # it would wait for minutes
        with Process(("worker", "--out", tmp_path), tmp_path, slow) as worker:
            worker.read_until("Working")
            invoke("queue", "add", "-", given="a whale")
            wait_for(lambda: server.core.accepted == 1)
            worker.interrupt()
            wait_for(lambda: "1 waiting" in invoke("queue", "status").out)
            worker.interrupt()
            assert 130 == worker.finish().status


def test_a_token_that_is_refused_ends_it_before_it_takes_anything(database: str, tmp_path: Path) -> None:
    """Nothing is taken from a worker whose token is good; and it does not say that it works."""
    invoke("queue", "add", "-", given="a whale")
    with served() as server:
        wrong = {**server.environment, "ACEDATACLOUD_API_TOKEN": "another-token"}
        with Process(("worker", "--out", tmp_path), tmp_path, wrong) as worker:
            refused = worker.finish()
    assert (1, True) == (refused.status, "Check the token in ACEDATACLOUD_API_TOKEN" in refused.err)
    assert "Working" not in refused.err
    assert [("todo", 0)] == do(database, "SELECT status::text, attempts FROM procrastinate_jobs")


@pytest.mark.usefixtures("database")
def test_an_api_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Only the token's refusal ends a worker at its start; anything else is noted."""
    away = Faults().add("status_before", on="list", status=500)
    with served(faults=away) as server, working(server, tmp_path) as worker:
        assert "note: the API gave no good answer" in worker.read_until("first question")
        worker.read_until("Working until Ctrl-C.")
        waited = invoke("queue", "wait", "-", given=invoke("queue", "add", "-", given="a whale").out)
        assert 0 == waited.status
        worker.terminate()
        assert 0 == worker.finish().status


def test_it_says_that_it_works_once_it_does(tmp_path: Path, database: str) -> None:
    """Not before the port is listened at, and the queue is found."""
    with served() as server, socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        environment = server.environment
        at_port = invoke("worker", "--out", tmp_path, "--health", port, environment=environment)
        do(database, "DROP TABLE procrastinate_jobs CASCADE")
        without = invoke("worker", "--out", tmp_path, environment=environment)
    assert (1, True) == (at_port.status, f"port {port} is taken" in at_port.err)
    assert (1, True) == (without.status, "veo-async queue init" in without.err)
    assert "Working" not in at_port.err + without.err


def test_lost_facts_end_it_with_a_status_of_their_own(database: str, tmp_path: Path) -> None:
    """Whoever starts workers again and again can leave this one alone; no log of a library is in the way."""
    with served() as server, working(server, tmp_path, "--lease", "1") as worker:
        health = worker.read_until("Health at")
        wait_for(lambda: asked(health, "/ready")[0] == 200)
        do(database, "UPDATE veo.meta SET incomplete = true")
        invoke("queue", "add", "-", given="a whale")
        ended = worker.finish()
        again = invoke("worker", environment=server.environment)
    assert (3, 3, 0) == (ended.status, again.status, server.core.accepted)
    for told in (ended.err, again.err):
        assert "lost facts" in told
        assert "Traceback" not in told


def test_one_command_on_one_machine(directory: Path, tmp_path: Path) -> None:
    """The first who needs the server starts it, whoever comes meanwhile uses it, and the last one stops it."""
    place = ("--local", directory / "queue")
    socket = directory / "queue" / "postgresql" / ".s.PGSQL.5432"
    added = invoke("queue", "add", "-", *place, given="a whale")
    assert (0, False) == (added.status, socket.exists())
    with served() as server, working(server, tmp_path, *place) as worker:
        assert 0 == invoke("queue", "wait", added.out.strip(), *place).status
        assert "1 succeeded" in invoke("queue", "status", *place).out
        worker.kill()
        worker.finish()
        assert socket.exists()
    told = invoke("queue", "status", added.out.strip(), *place)
    assert ["enqueued", "accepted", "succeeded"] == [
        word
        for line in told.out.splitlines()
        if (word := line.split()[2]) in ("enqueued", "accepted", "succeeded")
    ]
    assert not socket.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [("a,b", "choose a plainer name"), ("long" * 30, "too long by")],
)
def test_a_directory_that_cannot_have_a_server(tmp_path: Path, name: str, words: str) -> None:
    """It is said before anything is made."""
    refused = invoke("queue", "status", "--local", tmp_path / name)
    assert (2, True, False) == (refused.status, words in refused.err, (tmp_path / name).exists())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run a server itself")
def test_a_directory_that_the_servers_user_cannot_reach(directory: Path) -> None:
    """As root the server runs as somebody else, so the user is told what to allow."""
    directory.chmod(0o700)
    refused = invoke("queue", "status", "--local", directory / "queue")
    assert (2, True) == (refused.status, f"chmod o+x {directory}" in refused.err)


@pytest.mark.parametrize("command", [("worker",), ("queue", "status")])
def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]) -> None:
    """A database, and the packages; nothing is started."""
    monkeypatch.delenv("VEO_ASYNC_DATABASE", raising=False)
    token = {"ACEDATACLOUD_API_TOKEN": "a-token-of-some-length"}
    nowhere = invoke(*command, environment=token)
    both = invoke(*command, "--database", "postgresql:///", "--local", "x", environment=token)
    assert (2, 2) == (nowhere.status, both.status)
    assert "pass --database ADDRESS or --local DIR, or set VEO_ASYNC_DATABASE" in nowhere.err
    assert "pass one of them" in both.err
    monkeypatch.setattr(databases, "find_spec", lambda _: None)
    bare = invoke(*command, "--database", "postgresql:///", environment=token)
    assert (2, True) == (bare.status, "pip install 'veo-async[workers]'" in bare.err)


def test_its_options_are_checked(tmp_path: Path) -> None:
    """Without a token, with a port that is none, or where no video can be saved, it does not start."""
    (tmp_path / "file").touch()
    refused = invoke("worker", "--local", "x", "--out", tmp_path / "file" / "videos")
    assert (2, True) == (refused.status, "no token: set ACEDATACLOUD_API_TOKEN" in refused.err)
    assert f"{tmp_path / 'file'} is not a directory" in refused.err
    refused = invoke("worker", "--health", "somewhere")
    assert (2, True) == (refused.status, "neither a port" in refused.err)

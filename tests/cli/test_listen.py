"""
`veo-async listen`: what a person sees while a callback URL is being set up.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import sys
import threading
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from veo_async.cli.commands.listen import _gist

from ..terminal import Process, invoke, wait_for

VIDEO = {"id": "v", "video_url": "https://cdn.example/whale.mp4", "state": "succeeded"}


async def _send(url: str, body: bytes, method: str = "POST") -> int:
    async with aiohttp.ClientSession() as http, http.request(method, url, data=body) as answer:
        return answer.status


def _address(process: Process) -> str:
    """
    Wait until it listens; returns where.
    """
    line = process.read_until("Listening at")
    return line.split()[3].rstrip(",")


async def test_listen_prints_callbacks_as_they_come(tmp_path: Path) -> None:
    """
    Whatever is posted to whatever path is shown in one line, without what a terminal would obey; Ctrl-C ends it
    with 0.
    """
    with Process(("listen", "--port", "0"), tmp_path) as process:
        url = _address(process)
        callback = json.dumps({"success": True, "task_id": "t\x1b[31m1", "data": [VIDEO]}).encode()
        assert 204 == await _send(f"{url}/veo/secret", callback)
        heard = process.read_until("task", out=True)
        assert 204 == await _send(url, b"[")
        assert "not a JSON object" in process.read_until("POST", out=True)
        assert 413 == await _send(url, bytes(100_000))
        assert f"413: {HTTPStatus(413).phrase}" in process.read_until("POST", out=True)
        assert 405 == await _send(f"{url}/veo", b"", "GET")
        assert "/veo  a callback is a POST" in process.read_until("GET", out=True)
        process.interrupt()
        result = process.finish()
    assert "127.0.0.1" == urlsplit(url).hostname
    assert (
        "POST  /veo/secret  task t\N{REPLACEMENT CHARACTER}[31m1: succeeded https://cdn.example/whale.mp4"
        in heard
    )
    assert (0, "", "") == (result.status, result.out, result.err)


async def test_listen_gives_bodies_to_a_program(tmp_path: Path) -> None:
    """With `--json` stdout has one body a line, and what is for the eye goes to stderr."""
    with Process(("listen", "--port", "0", "--json"), tmp_path) as process:
        url = _address(process)
        for body in (b"no JSON", b'{"task_id":\n "t"}'):
            assert 204 == await _send(url, body)
        assert '{"task_id": "t"}\n' == process.read_until("task", out=True)
        assert "not a JSON object" in process.read_until("POST")
        process.interrupt()
        assert 0 == process.finish().status


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _post_and_interrupt(port: int) -> None:
    """
    Send callbacks to a listener that is about to start, and press its Ctrl-C.
    """

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_up)
    for method, body in (
        ("POST", b'{"task_id": "t"}'),
        ("PUT", b"{}"),
        ("POST", bytes(100_000)),
        ("POST", b""),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request(method, "/veo", body)
        connection.getresponse().read()
        connection.close()
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_listen_in_this_process(flags: tuple[str, ...]) -> None:
    """The same without a process of its own: each request is told in one line."""
    port = _free_port()
    posting = threading.Thread(target=_post_and_interrupt, args=(port,))
    posting.start()
    result = invoke("listen", "--port", str(port), *flags)
    posting.join()
    assert 0 == result.status
    told = [line for line in (result.err if flags else result.out).splitlines() if "/veo" in line]
    assert ["task t", "a callback is", "413", "not a JSON"] == [
        next(words for words in ("task t", "a callback is", "413", "not a JSON") if words in line)
        for line in told
    ]
    assert (['{"task_id": "t"}'] if flags else told) == result.out.splitlines()


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    """A second one on the same port says in one line why it cannot start."""
    with Process(("listen", "--port", "0"), tmp_path) as process:
        port = _address(process).rpartition(":")[2]
        result = invoke("listen", "--port", port)
    assert 1 == result.status
    assert f"port {port} is taken by another program: choose another with --port" in result.err
    assert 1 == len(result.err.splitlines())


def test_an_address_of_another_machine_is_told() -> None:
    """What else keeps it from listening is told in the system's words."""
    result = invoke("listen", "--host", "203.0.113.1", "--port", "0")
    assert (1, 1) == (result.status, len(result.err.splitlines()))
    assert "203.0.113.1" in result.err


@pytest.mark.parametrize("number", ["-1", "65536", "http"])
def test_a_port_is_a_number(number: str) -> None:
    """What is no port is bad input."""
    result = invoke("listen", "--port", number)
    assert 2 == result.status
    assert "is not a port, 0 to 65535" in result.err


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (
            {"task_id": "t", "data": [VIDEO, VIDEO]},
            "task t: succeeded https://cdn.example/whale.mp4 https://",
        ),
        (
            {"task_id": "t", "error": {"code": "api_error", "message": "no\nway"}},
            "task t: failed, api_error: no way",
        ),
        ({"task_id": "t", "data": "?"}, "task t: neither a video nor an error"),
        ({"task_id": "t", "data": [1, {}]}, "task t: neither a video nor an error"),
        ({"task_id": "x" * 1000}, "…: neither"),
        ({"id": "t"}, "no task_id, so not a callback of the API"),
        ([], "not a JSON object, so not a callback of the API"),
        (None, "not a JSON object, so not a callback of the API"),
    ],
)
def test_what_a_callback_says_is_told_in_a_line(payload: Any, words: str) -> None:
    """The task and how it ended, or why it is no callback."""
    line = _gist(payload)
    assert words in line
    assert 1 == len(line.splitlines())

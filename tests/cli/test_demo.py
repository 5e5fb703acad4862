"""
`veo-async demo` and `veo-async simulate`: what a person sees first.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
import threading
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import pytest

from ..terminal import CHROMIUM, Browser, Process, invoke, signalled, wait_for

FAST = ("--speed", "400")
PLAYING = "[...document.querySelectorAll('video')].filter(one => !one.paused && one.currentTime > 0).length"
MARKED = (
    "[...document.querySelectorAll('.frame')].filter("
    "one => one.querySelector('video') && getComputedStyle(one, '::after').opacity == 1).length"
)
VIDEOS = 12  # the demo's, of which one is a GIF

needs_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The directory of a demonstration.
    """
    out = tmp_path_factory.mktemp("demo") / "with some" / "depth"
    result = invoke("demo", "--out", out, *FAST)
    assert 0 == result.status, result.err
    assert f"{(out / 'index.html').as_uri()}\n" == result.out
    return out


# --- the demonstration -----------------------------------------------------------------------------------


def test_the_demo_saves_whole_files(demo: Path) -> None:
    """There are a dozen files, each an MP4 or a GIF, and nothing half done."""
    files = {path for path in demo.iterdir() if path.name != "index.html"}
    assert VIDEOS == len(files)
    assert [b"GIF8"] == [path.read_bytes()[:4] for path in files if path.suffix == ".gif"]
    assert {b"ftyp"} == {path.read_bytes()[4:8] for path in files if path.suffix == ".mp4"}


def test_the_page_shows_every_file(demo: Path) -> None:
    """The page names each file, relative to itself, and the one failure with its error."""
    page = (demo / "index.html").read_text(encoding="utf-8")
    shown = {unquote(name) for name in re.findall(r'\ssrc="\./([^"]+)"', page)}
    assert {path.name for path in demo.iterdir()} - {"index.html"} == shown
    assert 1 == page.count('class="frame lost"')
    assert "resolution 4k is not supported" in page


def test_the_demo_tells_what_is_next(tmp_path: Path) -> None:
    """A second run replaces the files of the first; both say what failed on purpose, and what a token is for."""
    for _ in range(2):
        result = invoke("demo", "--out", tmp_path, *FAST)
        assert 0 == result.status
        assert "13 requests, 12 videos, 1 failed" in result.err
        assert "on purpose, to show a failure" in result.err
        assert "export ACEDATACLOUD_API_TOKEN=" in result.err


def test_the_demo_names_the_command_as_it_can_be_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who called it by its path, in an environment that is not activated, is told that path, also on the page."""
    monkeypatch.setattr(sys, "argv", [".venv/bin/veo-async", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    result = invoke("demo", "--out", tmp_path, *FAST)
    assert '  .venv/bin/veo-async generate "a whale' in result.err
    assert ".venv/bin/veo-async generate" in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_the_demo_needs_neither_token_nor_network(tmp_path: Path) -> None:
    """What the environment says about the real API does not reach the demo."""
    environment = {
        "ACEDATACLOUD_API_TOKEN": "real",
        "ACEDATACLOUD_API_BASE_URL": "http://127.0.0.1:9",
        "VEO_ASYNC_SPEED": "1",
    }
    assert 0 == invoke("demo", "--out", tmp_path, *FAST, environment=environment).status


def test_a_place_that_is_no_directory(tmp_path: Path) -> None:
    """Where the files cannot go, nothing is started."""
    (tmp_path / "file").write_bytes(b"")
    result = invoke("demo", "--out", tmp_path / "file")
    assert 2 == result.status
    assert "cannot be made a directory" in result.err


def test_the_page_can_be_opened_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --open, a browser gets the page."""
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert 0 == invoke("demo", "--out", tmp_path, "--open", *FAST).status
    assert [(tmp_path / "index.html").as_uri()] == opened


def test_ctrl_c_ends_the_demo_cleanly(tmp_path: Path) -> None:
    """Ctrl-C in the middle ends with 130, one line, no traceback, and no half file."""
    with Process(("demo", "--out", "d", "--speed", "40"), tmp_path) as process:
        process.read_until("saved")
        process.interrupt()
        result = process.finish()
    assert 130 == result.status
    assert "interrupted; " in result.err
    assert "Traceback" not in result.err + "".join(process.seen)
    assert {".mp4", ".gif"} >= {
        path.suffix for path in (tmp_path / "d").iterdir() if ".part" not in path.name
    }


# --- on a terminal ---------------------------------------------------------------------------------------


def _on_a_terminal(tmp_path: Path, **variables: str) -> tuple[int, str]:
    """
    Run the demo where it believes that a person is looking.
    """
    import pty

    environment = {"TERM": "xterm-256color", "COLUMNS": "90", "LINES": "12", "PATH": os.environ["PATH"]}
    program = [sys.executable, "-m", "veo_async.cli", "demo", "--out", str(tmp_path / "d"), *FAST]
    shown: list[bytes] = []
    child, terminal = pty.fork()
    if not child:  # pragma: no cover
        os.execvpe(program[0], program, environment | variables)
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # Linux tells the end of a terminal like this
            piece = b""
        if not piece:
            break
        shown.append(piece)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), b"".join(shown).decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}, {"TERM": "dumb"}])
def test_the_display_of_a_terminal(tmp_path: Path, variables: dict[str, str]) -> None:
    """
    On a terminal a bar counts to the end, with colours unless NO_COLOR is set; a dumb one, or one that knows
    only ASCII, gets what it can show.
    """
    status, shown = _on_a_terminal(tmp_path, **variables)
    colours = re.findall(r"\x1b\[[0-9;]*3[0-7](?:;[0-9]+)*m", shown)
    assert 0 == status
    assert ("TERM" not in variables) == ("13 of 13" in shown)
    assert (not {"TERM", "NO_COLOR"} & set(variables)) == bool(colours)
    assert ("PYTHONIOENCODING" in variables) <= shown.isascii()
    assert "Traceback" not in shown


# --- the simulator ---------------------------------------------------------------------------------------


async def test_simulate_serves_until_ctrl_c(tmp_path: Path) -> None:
    """
    The two lines to export lead to a server that answers; each request is shown, without what a terminal
    would obey; Ctrl-C ends it with 0.
    """
    with Process(("simulate", "--port", "0", "--speed", "400"), tmp_path) as process:
        url = process.read_until("ACEDATACLOUD_API_BASE_URL=", out=True).strip().partition("=")[2]
        token = process.read_until("ACEDATACLOUD_API_TOKEN=", out=True).strip().partition("=")[2]
        assert "export VEO_ASYNC_SPEED=400\n" == process.read_until("VEO_ASYNC_SPEED", out=True)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(url, headers=headers) as http:
            body = {"action": "text2video", "prompt": "a\x1b[31m whale\nat dawn", "async": True}
            async with http.post("/veo/videos", json=body) as answer:
                task_id = (await answer.json())["task_id"]
            async with http.post("/veo/tasks", json={"action": "retrieve_batch", "ids": [task_id]}):
                pass
            for junk in (b"[1]", b"{", b"[" * 100_000):
                async with http.post("/veo/tasks", data=junk):
                    pass
            async with http.get("/", headers={"Authorization": ""}):
                pass
        # A program reads no VEO_ASYNC_SPEED: it is told what to write.
        told = process.read_until("VeoSession(")
        assert "polling=PollPolicy().scaled(1 / 400), retry=RetryPolicy().scaled(1 / 400)" in told
        accepted = process.read_until(task_id)
        asked = process.read_until("1 task")
        refused = process.read_until("bad_request")
        process.read_until("GET")
        process.interrupt()
        result = process.finish()
    assert "127.0.0.1" == urlsplit(url).hostname
    assert '200  POST  /veo/videos  text2video "a�[31m whale at dawn"' in accepted
    assert "200  POST  /veo/tasks  retrieve_batch 1 task" in asked
    assert "400  POST" in refused
    assert (0, "") == (result.status, result.out)
    assert "6 requests, 1 task." in result.err


async def _ids_of_a_run(folder: Path, *options: str) -> tuple[list[str], str]:
    """
    Submit twice to a fresh simulator, and return the two ids and the seed that it says it uses.
    """
    with Process(("simulate", "--port", "0", *options), folder) as process:
        url = process.read_until("ACEDATACLOUD_API_BASE_URL=", out=True).strip().partition("=")[2]
        seed = process.read_until("# The seed is ").partition("# The seed is ")[2].partition(":")[0]
        headers = {"Authorization": "Bearer simulator-token"}
        ids = []
        async with aiohttp.ClientSession(url, headers=headers) as http:
            for _ in range(2):
                body = {"action": "text2video", "prompt": "a", "async": True}
                async with http.post("/veo/videos", json=body) as answer:
                    ids.append((await answer.json())["task_id"])
    return ids, seed


async def test_two_runs_of_the_simulator_have_no_task_id_in_common(tmp_path: Path) -> None:
    """A run draws its seed, unless told one, and says which: that one gives the same ids again."""
    ids, seed = await _ids_of_a_run(tmp_path)
    others, other = await _ids_of_a_run(tmp_path)
    again = await _ids_of_a_run(tmp_path, "--seed", seed)

    assert seed != other
    assert 4 == len({*ids, *others})
    assert (ids, seed) == again


@pytest.mark.parametrize("seed", ["0", "few"])
def test_a_seed_is_a_whole_number(seed: str) -> None:
    """What is no seed is bad input."""
    result = invoke("simulate", "--seed", seed)
    assert 2 == result.status
    assert f"{seed!r} is not a whole number above 0" in result.err


async def test_a_synchronous_submit_waits(tmp_path: Path) -> None:
    """A submit without `async` is shown as waiting while its connection stays open."""
    with Process(("simulate", "--port", "0", "--speed", "400"), tmp_path) as process:
        url = process.read_until("ACEDATACLOUD_API_BASE_URL=", out=True).strip().partition("=")[2]
        headers = {"Authorization": "Bearer simulator-token"}
        async with (
            aiohttp.ClientSession(url, headers=headers) as http,
            http.post("/veo/videos", json={"action": "text2video", "prompt": "a"}) as answer,
        ):
            assert (await answer.json())["success"]
        process.read_until("waits  POST  /veo/videos")


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    """A second simulator on the same port says in one line why it cannot start."""
    with Process(("simulate", "--port", "0"), tmp_path) as process:
        url = process.read_until("ACEDATACLOUD_API_BASE_URL=", out=True)
        port = url.strip().rpartition(":")[2]
        result = invoke("simulate", "--port", port)
    assert 1 == result.status
    assert f"port {port} is taken by another program: choose another with --port" in result.err
    assert 1 == len(result.err.splitlines())


@pytest.mark.parametrize("value", ["-0.1", "1.1", "nan", "few"])
def test_a_share_is_a_number_from_0_to_1(value: str) -> None:
    """What is no share is bad input."""
    result = invoke("simulate", "--failures", value)
    assert 2 == result.status
    assert f"{value!r} is not a number from 0 to 1" in result.err


async def test_a_fault_strikes_once_and_is_shown(tmp_path: Path) -> None:
    """`--fault` spoils the first request of each job, and the line of that request says so."""
    with Process(("simulate", "--port", "0", "--fault", "html@submit"), tmp_path) as process:
        url = process.read_until("ACEDATACLOUD_API_BASE_URL=", out=True).strip().partition("=")[2]
        headers = {"Authorization": "Bearer simulator-token"}
        types = []
        async with aiohttp.ClientSession(url, headers=headers) as http:
            for _ in range(2):
                body = {"action": "text2video", "prompt": "a", "async": True}
                async with http.post("/veo/videos", json=body) as answer:
                    types.append(answer.content_type)
        process.read_until("(html)")
    assert ["text/html", "application/json"] == types


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("drop_aftr", "'drop_aftr' is no kind of fault: did you mean 'drop_after'?"),
        ("drop_after@submits", "'submits' is no endpoint: did you mean 'submit'?"),
        ("late@list", "late cannot happen to list"),
    ],
)
def test_a_misspelt_fault_is_answered_by_a_question(word: str, words: str) -> None:
    """What is no fault is bad input, and the word that it may be meant for is named."""
    result = invoke("simulate", "--fault", word)
    assert 2 == result.status
    assert words in " ".join(result.err.split())


# --- in a browser ----------------------------------------------------------------------------------------


@needs_a_browser
async def test_the_videos_of_the_demo_play(demo: Path) -> None:
    """In a browser the videos that are seen play, muted, and nothing is asked of any network."""
    async with Browser() as browser:
        await browser.open(demo / "index.html")
        await browser.wait_for(f"{PLAYING} >= 4")
        await browser.run("scrollTo(0, document.body.scrollHeight)")
        await browser.wait_for("!document.querySelectorAll('video')[10].paused")
        assert await browser.run(
            "[...document.querySelectorAll('video')].every(one => one.muted && one.loop)"
        )
        assert await browser.run("document.querySelector('img').naturalWidth > 0")
        assert {"file"} == {urlsplit(address).scheme for address in browser.addresses()} - {"about", "data"}
        assert [] == browser.complaints()


def _videos(count: str) -> str:
    return f"[...document.querySelectorAll('video')].filter(one => {count}).length"


@needs_a_browser
async def test_no_video_is_a_black_rectangle(demo: Path) -> None:
    """When the page has loaded each video shows a picture, though no script runs in this browser."""
    async with Browser() as browser:
        await browser.call("Emulation.setScriptExecutionDisabled", value=True)
        await browser.call("Page.navigate", url=(demo / "index.html").as_uri())
        loaded = "document.readyState === 'complete' && document.querySelector('video') !== null"
        while not await browser.run(loaded):  # nothing in a page without scripts can tell
            pass
        assert (VIDEOS - 1) == await browser.run(_videos("one.readyState >= 2 && one.controls"))


@needs_a_browser
async def test_a_portrait_is_shown_in_portrait(demo: Path) -> None:
    """A video has the shape that it was made in, also when it is far from the window again."""
    ratio = "one.style.aspectRatio.split('/').reduce((width, height) => width / height)"
    shapes = _videos(f"Math.abs(one.clientWidth / one.clientHeight - {ratio}) < 0.01")
    async with Browser() as browser:
        await browser.call(
            "Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False
        )
        await browser.open(demo / "index.html")
        await browser.run("scrollTo(0, document.body.scrollHeight)")
        await browser.wait_for("!document.querySelector('video').hasAttribute('src')")
        await browser.wait_for(f"{shapes} == {VIDEOS - 1}")
        portraits = await browser.run("document.querySelectorAll('.tall video').length")
        assert portraits == await browser.run(_videos("one.clientHeight > one.clientWidth"))
        assert 0 < portraits < VIDEOS - 1


@needs_a_browser
async def test_who_wants_no_motion_gets_none(demo: Path) -> None:
    """Where motion is not wanted, pictures with a play mark are shown, and a click plays one."""
    async with Browser() as browser:
        await browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}]
        )
        await browser.open(demo / "index.html")
        await browser.wait_for(f"{MARKED} == {VIDEOS - 1}")
        assert 0 == await browser.run(PLAYING)
        await browser.run("document.querySelector('video').click()")
        await browser.wait_for(f"{PLAYING} == 1 && {MARKED} == {VIDEOS - 2}")


@needs_a_browser
async def test_the_page_filters(demo: Path) -> None:
    """Words and state choose the cards that are shown; what fits nothing says so."""
    shown = "document.querySelectorAll('.card:not([hidden])').length"
    async with Browser() as browser:
        await browser.open(demo / "index.html")
        assert 13 == await browser.run(shown)
        await browser.run("document.querySelector('[data-state=failed]').click()")
        assert 1 == await browser.run(shown)
        await browser.run(_typing("whale"))
        assert 0 == await browser.run(shown)
        assert await browser.run("!document.getElementById('none').hidden")
        await browser.run("document.querySelector('button[data-state=\"\"]').click()")
        assert 3 == await browser.run(shown)
        await browser.run(_typing("WHALE  1080p"))
        assert 1 == await browser.run(shown)


def _typing(words: str) -> str:
    return f"(box => {{ box.value = '{words}'; box.dispatchEvent(new Event('input')) }})(document.getElementById('words'))"


@needs_a_browser
async def test_a_click_stops_a_video(demo: Path) -> None:
    """A click, or a space, stops the video, and another one lets it go on."""
    async with Browser() as browser:
        await browser.open(demo / "index.html")
        await browser.wait_for(f"{PLAYING} > 0")
        await browser.run("document.querySelector('video').click()")
        await browser.wait_for("document.querySelector('video').paused")
        await browser.wait_for("getComputedStyle(document.querySelector('.frame'), '::after').opacity == 1")
        key = "new KeyboardEvent('keydown', {key: ' '})"
        await browser.run(f"document.querySelector('video').dispatchEvent({key}) && null")
        await browser.wait_for("!document.querySelector('video').paused")
        await browser.wait_for("getComputedStyle(document.querySelector('.frame'), '::after').opacity == 0")


# --- in this process -------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _ask_and_interrupt(port: int) -> None:
    """
    Send requests of several kinds to a server that is about to start, and press its Ctrl-C.
    """

    def is_up() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_up)
    for path, body in (
        ("/veo/videos", b'{"action": "text2video", "prompt": "a", "async": true, "resolution": "gif"}'),
        ("/veo/videos", b'{"action": "text2video", "prompt": "a"}'),
        ("/veo/tasks", b'{"action": "retrieve_batch", "ids": ["1", "2"]}'),
        ("/veo/tasks", b"[1]"),
        ("/veo/tasks", b"{"),
    ):
        connection = HTTPConnection("127.0.0.1", port)
        connection.request(
            "POST",
            path,
            body,
            {"Authorization": "Bearer simulator-token", "Content-Type": "application/json"},
        )
        connection.getresponse().read()
        connection.close()
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
def test_simulate_in_this_process() -> None:
    """The same without a process of its own: every request is shown in one line."""
    port = _free_port()
    asking = threading.Thread(target=_ask_and_interrupt, args=(port,))
    asking.start()
    result = invoke("simulate", "--port", str(port), "--speed", "400")
    asking.join()
    assert 0 == result.status
    assert ["200", "waits", "200", "400", "400"] == re.findall(r"  (\w+)  POST", result.err)
    assert "retrieve_batch 2 tasks" in result.err
    assert "# 5 requests, 2 tasks." in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="there is no Ctrl-C to send")
def test_an_interrupted_demo_in_this_process(tmp_path: Path) -> None:
    """The same without a process of its own: what is saved is counted."""
    with signalled(signal.SIGINT, when=lambda: [*tmp_path.glob("*.mp4")]):
        result = invoke("demo", "--out", tmp_path, "--speed", "40")
    assert 130 == result.status
    assert re.search(r"interrupted; \d+ files? saved in", result.err)

"""
A batch that is killed on the way: nothing lost, nothing bought twice.
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from veo_async.simulator import Faults

from ..terminal import CHROMIUM, Browser, Process, Served, served, wait_for

LINES = 200
SHARE = 0.2  # of the requests, on each endpoint
KILLS = (0.2, 0.6)  # of the lines, accepted by then
SPEED = 200.0
FFMPEG = shutil.which("ffmpeg")


def _faults() -> Faults:
    """
    A fifth of the requests goes wrong, in each of the ways that leave a doubt.
    """
    faults = Faults(seed=11)
    for kind in ("drop_before", "drop_after", "reset_after", "bad_json", "html"):
        faults.add(kind, on="submit", share=SHARE / 5)
    for kind in ("drop_after", "bad_json", "missing", "stale"):
        faults.add(kind, on="retrieve_batch", share=SHARE / 4)
    for kind in ("drop_mid", "reset_before", "drop_after"):
        faults.add(kind, on="download", share=SHARE / 3)
    faults.add("status_before", on="download", share=SHARE / 3, status=503)
    return faults


def _start(folder: Path, server: Served) -> Process:
    return Process(
        ("batch", "prompts.txt", "--out", "out", "--max-in-flight", "80"), folder, server.environment
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Served]:
    """
    A batch that was killed twice and then left to its end.
    """
    folder = tmp_path_factory.mktemp("batch")
    (folder / "prompts.txt").write_text("".join(f"prompt {n}\n" for n in range(LINES)), encoding="utf-8")
    with served(faults=_faults(), speed=SPEED) as server:
        for share in KILLS:
            with _start(folder, server) as process:
                wait_for(lambda share=share: server.core.accepted >= LINES * share)  # type: ignore[misc]
                process.kill()
                process.finish()
        with _start(folder, server) as process:
            result = process.finish()
        assert 0 == result.status, result.err[-2000:]
    return folder, server


def test_nothing_is_lost_and_nothing_bought_twice(finished: tuple[Path, Served]) -> None:
    """Killed twice with -9 among faults, a batch ends with each video bought once, and each file whole."""
    folder, server = finished
    files = sorted((folder / "out").glob("*.mp4"))
    assert (LINES, LINES) == (server.core.accepted, len(files))
    assert sorted(f"prompt {number}" for number in range(LINES)) == sorted(
        body["prompt"] for body in server.bodies
    )
    assert all(file.read_bytes()[4:8] == b"ftyp" for file in files)


def test_a_budget_holds_whatever_happens(tmp_path: Path) -> None:
    """Killed five times with -9 among faults on half of the submits, a batch never buys more than it may."""
    budget, faults = 100, Faults(seed=16)
    for kind in ("drop_before", "drop_after", "reset_after", "bad_json", "html"):
        faults.add(kind, on="submit", share=0.1)
    (tmp_path / "prompts.txt").write_text("".join(f"prompt {n}\n" for n in range(500)), encoding="utf-8")
    words = ("batch", "prompts.txt", "--out", "out", "--max-videos", str(budget))
    with served(faults=faults, speed=SPEED) as server:
        for kill in range(5):
            with Process(words, tmp_path, server.environment) as process:
                wait_for(lambda kill=kill: server.core.accepted >= 15 * (kill + 1))  # type: ignore[misc]
                process.kill()
                process.finish()
        with Process(words, tmp_path, server.environment) as process:
            result = process.finish()
        assert (1, budget) == (result.status, server.core.accepted), result.err[-2000:]
        assert f"the budget of {budget} videos is spent" in result.err
        assert budget == len({body["prompt"] for body in server.bodies})
    assert budget == len([*(tmp_path / "out").glob("*.mp4")])


@pytest.mark.skipif(FFMPEG is None, reason="there is no ffmpeg on this machine")
def test_every_file_can_be_decoded(finished: tuple[Path, Served]) -> None:
    """Each video is whole, to its last frame."""
    files = sorted((finished[0] / "out").glob("*.mp4"))
    listing = finished[0] / "files.txt"
    listing.write_text("".join(f"file '{file}'\n" for file in files), encoding="utf-8")
    decode = f"{FFMPEG} -v error -xerror -f concat -safe 0 -i {shlex.quote(str(listing))} -f null -"
    done = subprocess.run(shlex.split(decode), capture_output=True, text=True, check=False)
    assert (LINES, "", 0) == (len(files), done.stderr, done.returncode)


def test_the_manifest_is_right(finished: tuple[Path, Served]) -> None:
    """One line per line of the input, in its order, each with its task and its file."""
    folder, server = finished
    lines = (folder / "out" / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [f"prompt {number}" for number in range(LINES)] == [one["request"]["prompt"] for one in records]
    assert {*server.core.tasks} == {record["task_id"] for record in records}
    assert {"succeeded"} == {record["state"] for record in records}
    for record in records:
        [video] = record["videos"]
        assert server.core.tasks[record["task_id"]].body["prompt"] == record["request"]["prompt"]
        assert (folder / "out" / record["file"]).stat().st_size == video["bytes"]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
async def test_the_gallery_plays_what_is_seen(finished: tuple[Path, Served]) -> None:
    """All cards are there; each video plays once it is seen, and only those near the window have a player."""
    videos = "[...document.querySelectorAll('video')]"
    seen = (
        f"{videos}.filter(one => {{ const box = one.getBoundingClientRect();"
        " return box.top >= 0 && box.bottom <= innerHeight })"
    )
    async with Browser() as browser:
        await browser.open(finished[0] / "out" / "index.html")
        assert LINES == await browser.run(f"{videos}.length")
        for place in ("0", "document.body.scrollHeight / 2", "document.body.scrollHeight"):
            await browser.run(f"scrollTo(0, {place})")
            await browser.wait_for(
                f"{seen}.length && {seen}.every(one => !one.paused && one.currentTime > 0)"
            )
            assert 40 > await browser.run(f"{videos}.filter(one => one.readyState > 0).length")
        assert [] == browser.complaints()

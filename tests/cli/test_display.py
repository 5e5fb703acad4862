"""
The board: what is shown while something happens, by a clock that the test holds.
"""

from __future__ import annotations

import asyncio
import io
import logging
from typing import Any

import pytest
from attrs import define
from rich.console import Console

from veo_async import JobFailed, JobState, SessionClosed
from veo_async.cli.display import board as _display
from veo_async.cli.display.board import DOWNLOADING, SAVED, Board, Notes
from veo_async.cli.display.crowd import Crowd
from veo_async.cli.display.traffic import Traffic


@define
class Clock:
    """
    Time as the test wants it.
    """

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def board(total: int | None = None, **console: Any) -> tuple[Board, io.StringIO, Clock]:
    shown, clock = io.StringIO(), Clock()
    made = Console(file=shown, width=90, height=8, force_terminal=False, **console)
    return Board(total, made, clock), shown, clock


async def said(shown: io.StringIO, words: str) -> None:
    """
    Wait until something is said.
    """
    while words not in shown.getvalue():  # noqa: ASYNC110 - nothing but the text tells
        await asyncio.sleep(0)


def picture(one: Board) -> str:
    """
    What a terminal would show now.
    """
    with one.console.capture() as capture:
        one.console.print(one._picture())
    return capture.get()


async def test_lines_off_a_terminal() -> None:
    """Off a terminal, an acceptance and an end are worth a line each, with the seconds since the start."""
    one, shown, clock = board()
    async with one:
        row = one.add("a whale\x1b[31m")
        one.change(row, JobState.QUEUED)
        one.change(row, JobState.SUBMITTING)
        one.accepted(row, "1234")
        clock.now += 66
        one.change(row, DOWNLOADING)
        one.change(row, SAVED, "whale.mp4")
    assert ["  0.0 s  a whale�[31m: accepted as task 1234", "   1:06  a whale�[31m: saved whale.mp4"] == (
        shown.getvalue().splitlines()
    )
    assert 66 == row.seconds


async def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without news, a line says how things stand."""
    monkeypatch.setattr(_display, "TICK", 0.001)
    one, shown, clock = board(total=3)
    async with one:
        rows = [one.add(f"video {number}") for number in range(3)]
        for row in rows:
            one.change(row, JobState.PENDING)
        one.fail(rows[0], JobFailed("no", code="api_error"))
        clock.now += 16
        await said(shown, "ended")
    assert "video 0: failed, api_error: no" in shown.getvalue()
    assert "1 of 3 ended; 2 pending" in shown.getvalue()


async def test_a_queue_that_does_not_move_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that nothing was sent for says why that may be."""
    monkeypatch.setattr(_display, "TICK", 0.001)
    one, shown, clock = board()
    async with one:
        one.change(one.add("a whale"), JobState.QUEUED)
        clock.now += 16
        await said(shown, "still")
    assert "still queued: the API cannot be reached, or asks to wait" in shown.getvalue()


def test_the_picture_of_a_terminal() -> None:
    """A bar, and a row for each piece of work with its state and its age; download progress in bytes."""
    one, _, clock = board(total=2)
    whale, walrus = one.add("a whale"), one.add("a walrus")
    one.change(whale, DOWNLOADING)
    one.progress(whale)(1024, 4096)
    one.change(walrus, JobState.STOPPED)
    clock.now += 5
    lines = picture(one).splitlines()
    assert "1 of 2" in lines[0]
    assert ["v", "a", "whale", "downloading", "1.0", "KB", "of", "4.0", "KB", "5.0", "s"] == (
        lines[1].replace("↓", "v").split()
    )
    assert "0.0 s" in lines[2]
    one.progress(whale)(2048, None)
    assert "downloading 2.0 KB " in picture(one)


@pytest.mark.parametrize("kind", [Board, Crowd])
def test_an_upload_is_shown_until_all_is_sent(kind: type[Board]) -> None:
    """In bytes, above the rows, and in the line that breaks a silence; off a terminal, its end gets a line."""
    shown = io.StringIO()
    one = kind(3, Console(file=shown, width=90, height=8, force_terminal=False))
    one.uploading(1 << 20, 3 << 20)
    assert "  uploading 1.0 MB of 3.0 MB" in [line.rstrip() for line in picture(one).splitlines()]
    assert one._standing().endswith("; uploading 1.0 MB of 3.0 MB")
    one.uploading(3 << 20, 3 << 20)
    assert "uploading" not in picture(one) + one._standing()
    assert "a picture of 3.0 MB was uploaded\n" in shown.getvalue()


def test_a_download_shows_its_speed() -> None:
    """Once it means something, bytes a second stand beside the bytes."""
    one, _, clock = board(total=1)
    row = one.add("a whale")
    one.change(row, DOWNLOADING)
    show = one.progress(row)
    clock.now += 2
    show(4 << 20, 8 << 20)
    assert "4.0 MB of 8.0 MB, 2.0 MB/s" == row.detail


async def test_notes_are_lines_of_the_board() -> None:
    """What the package has to note goes among the board's lines while it is up, and nowhere else."""
    elsewhere: list[str] = []
    log, handler = logging.getLogger("veo_async"), Notes(elsewhere.append)
    log.addHandler(handler)
    try:
        one, shown, _ = board()
        async with one:
            log.warning("the disk is %s", "full\x1b[2J")
            log.info("nobody needs to know")
        log.warning("afterwards")
    finally:
        log.removeHandler(handler)
    assert "  0.0 s  note: the disk is full\N{REPLACEMENT CHARACTER}[2J\n" == shown.getvalue()
    assert ["note: afterwards"] == elsewhere


def test_rows_that_do_not_fit() -> None:
    """Where there are more rows than lines, those at work are shown, in their order."""
    one, _, _ = board(total=100)
    rows = [one.add(f"video-{number:02}") for number in range(100)]
    for row in rows[:97]:
        one.change(row, SAVED)
    lines = picture(one).splitlines()
    assert 8 >= len(lines)
    assert ["video-97", "video-98", "video-99"] == [line.split()[1] for line in lines[-3:]]


def test_a_bad_end_is_told_by_whose_fault_it_was() -> None:
    """A failed task and a job that was given up look different."""
    one, _, _ = board(total=2)
    rows = [one.add("a"), one.add("b")]
    one.fail(rows[0], JobFailed("no"))
    one.fail(rows[1], SessionClosed("over"))
    assert [JobState.FAILED, JobState.STOPPED] == [row.state for row in rows]
    assert None is one.add("c").seconds


async def test_a_terminal_is_painted_again_and_again() -> None:
    """On a terminal the picture follows what happens; lines that stay are written above it."""
    shown = io.StringIO()
    console = Console(file=shown, width=90, height=20, force_terminal=True, _environ={"TERM": "xterm"})
    one = Board(2, console)
    async with one:
        whale, walrus = one.add("a whale"), one.add("a walrus")
        one.accepted(whale, "1234")
        one.change(whale, SAVED, "whale.mp4")
        one.say("a line that stays")
        one.change(walrus, JobState.SUBMITTING)
        await said(shown, "submitting")
    text = shown.getvalue()
    assert "1 of 2" in text
    assert "a line that stays" in text
    assert "accepted as task" not in text


async def test_a_single_id_stays_on_the_screen() -> None:
    """Where there is one job only, its task's id is worth a line on a terminal, too."""
    shown = io.StringIO()
    one = Board(None, Console(file=shown, width=90, force_terminal=True, _environ={"TERM": "xterm"}))
    async with one:
        one.accepted(one.add("a whale"), "1234")
    assert "accepted as task 1234" in shown.getvalue()


async def test_a_worker_without_news_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its counts are worth a line now and then, but only if they have changed; on a terminal a rate is beside them."""
    monkeypatch.setattr(_display, "TICK", 0.001)
    model, shown, clock = board()
    made = [0]
    one = Traffic(
        console=model.console,
        clock=clock,
        counts=lambda: [("waiting", None), ("made", made[0])],
        ended=lambda: made[0],
    )
    async with one:
        for made[0] in (1000, 1000, 1001):
            clock.now += 60
            await said(shown, f"{made[0]:,} made")
        clock.now += 240
        assert "1,001 made  143 a minute, 7:00\n" == picture(one)
    assert [1, 1] == [shown.getvalue().count(words) for words in ("1,000 made", "1,001 made")]

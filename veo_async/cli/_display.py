"""
What happens, while it happens: rows that change on a terminal, one line per change elsewhere.

Everything goes to stderr, so that stdout holds nothing but results.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import Job, JobFailed, JobState, VeoError
from ._advice import reason
from ._words import duration, printable, shortened, size

__all__ = ["Board", "Row", "follow"]

REFRESH: Final = 0.1  # seconds between two pictures: fluent, and cheap enough to forget
REMINDER: Final = 15.0  # seconds of silence after which a line says that somebody still asks
TITLE: Final = 60  # characters of a title in a line

DOWNLOADING: Final = "downloading"
SAVED: Final = "saved"
_ENDED: Final = frozenset({SAVED, JobState.FAILED, JobState.STOPPED})
# Not worth a line each where there are many rows.
_PASSING: Final = frozenset({JobState.QUEUED, JobState.SUBMITTING, JobState.SUCCEEDED, DOWNLOADING})

# state: (mark, mark where only ASCII can be written, style)
_MARKS: Final = {
    JobState.QUEUED: ("·", ".", "dim"),
    JobState.SUBMITTING: ("↑", "^", "cyan"),
    JobState.UNKNOWN: ("?", "?", "yellow"),
    JobState.PENDING: ("…", "~", "cyan"),
    JobState.SUCCEEDED: ("✓", "+", "green"),
    DOWNLOADING: ("↓", "v", "cyan"),
    SAVED: ("✓", "+", "green"),
    JobState.FAILED: ("✗", "x", "red"),
    JobState.STOPPED: ("✗", "x", "red"),
}


@define(eq=False)
class Row:
    """
    One piece of work, as it is shown.

    Attributes:
        title: what it is about.
        state: a job's state, or `downloading` or `saved`.
        detail: what there is to add, such as a file's name or an error.
        began_at, ended_at: monotonic seconds, or None.
    """

    title: str
    state: str = JobState.QUEUED
    detail: str = ""
    began_at: float | None = None
    ended_at: float | None = None

    @property
    def seconds(self) -> float | None:
        """
        How long it took; None until it has ended.
        """
        return None if self.began_at is None or self.ended_at is None else self.ended_at - self.began_at


@define(eq=False)
class Board:
    """
    Shows rows of work while inside `async with`.

    Args:
        console: where to.
        total: how many rows there will be; None where there is only one, and nothing to count.
    """

    console: Console = field(factory=lambda: Console(stderr=True, highlight=False))
    total: int | None = None
    clock: Callable[[], float] = time.monotonic
    rows: list[Row] = field(factory=list, init=False)
    _live: Live | None = field(default=None, init=False)
    _painting: asyncio.Task[None] | None = field(default=None, init=False)
    _began_at: float = field(default=0.0, init=False)

    async def __aenter__(self) -> Self:
        self._began_at = self.clock()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False, get_renderable=self._picture)
            self._live.start()
            self._painting = asyncio.create_task(self._paint(self._live), name="veo-async display")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._painting is not None:
            self._painting.cancel()
            await asyncio.gather(self._painting, return_exceptions=True)
        if self._live is not None:
            self._live.stop()
            self._live = None

    @property
    def elapsed(self) -> float:
        """
        Seconds since the board went up.
        """
        return self.clock() - self._began_at

    def add(self, title: str) -> Row:
        """
        Put up one more row.
        """
        row = Row(title)
        self.rows.append(row)
        return row

    def change(self, row: Row, state: str, detail: str = "") -> None:
        """
        Show a row's new state.
        """
        now = self.clock()
        row.state, row.detail = state, detail
        row.began_at = now if row.began_at is None else row.began_at
        if state in _ENDED:
            row.ended_at = now
        if self._live is None and (self.total is None or state not in _PASSING):
            self.say(f"{shortened(row.title, TITLE)}: {' '.join(word for word in (state, detail) if word)}")

    def fail(self, row: Row, error: VeoError) -> None:
        """
        Show that a row came to a bad end.
        """
        state = JobState.FAILED if isinstance(error, JobFailed) else JobState.STOPPED
        self.change(row, state, "" if self.total is None else reason(error))

    def touch(self, row: Row, detail: str) -> None:
        """
        Show a new detail where that costs no line.
        """
        row.detail = detail

    def say(self, text: str) -> None:
        """
        Write a line that stays.
        """
        line = Text.assemble((f"{duration(self.elapsed):>7}  ", "dim"), printable(text))
        self.console.print(line, soft_wrap=True)

    # --- the picture ------------------------------------------------------------------------------------

    async def _paint(self, live: Live) -> None:
        while True:
            live.refresh()
            await asyncio.sleep(REFRESH)

    def _picture(self) -> RenderableType:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(ratio=3, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=2, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", width=7, no_wrap=True)
        for row in self._fitting():
            table.add_row(*self._cells(row))
        return table if self.total is None else Group(self._bar(), table)

    def _fitting(self) -> Iterable[Row]:
        """
        Choose the rows that fit on the screen: those at work first, in their order.
        """
        room = max(3, self.console.height - 3)
        if len(self.rows) <= room:
            return self.rows
        chosen = sorted(self.rows, key=lambda row: (row.ended_at is not None, -(row.ended_at or 0.0)))[:room]
        return [row for row in self.rows if row in chosen]

    def _cells(self, row: Row) -> tuple[Text, ...]:
        mark, plain, style = _MARKS.get(row.state, ("·", ".", ""))
        since = "" if row.began_at is None else duration((row.ended_at or self.clock()) - row.began_at)
        return (
            Text(mark if self.console.encoding.lower().startswith("utf") else plain, style=style),
            Text(printable(row.title)),
            Text(printable(" ".join(word for word in (row.state, row.detail) if word)), style=style),
            Text(since, style="dim"),
        )

    def _bar(self) -> RenderableType:
        ended = sum(row.ended_at is not None for row in self.rows)
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=self.total, completed=ended, width=30),
            Text(f"{ended} of {self.total}"),
            Text(duration(self.elapsed), style="dim"),
        )
        return grid

    def progress(self, row: Row) -> Callable[[int, int | None], None]:
        """
        Make what a download calls: its bytes go into the row's detail.
        """

        def show(done: int, total: int | None) -> None:
            self.touch(row, size(done) if total is None else f"{size(done)} of {size(total)}")

        return show


async def follow(job: Job, board: Board, row: Row) -> None:
    """
    Show a job's way until it is settled; how it ended is left to whoever asks for the outcome.
    """
    state, said_at = None, board.elapsed
    async for update in job.updates():
        if job.done():
            return
        if update.state is not state:
            state, said_at = update.state, board.elapsed
            board.change(row, state, f"task {update.task_id}" if state is JobState.PENDING else "")
        elif board.elapsed - said_at >= REMINDER:
            said_at = board.elapsed
            board.change(row, state, f"asked {update.looks} times")

"""
Shows progress: rows that change on a terminal, one line per event elsewhere.

Everything goes to stderr, so that stdout holds only results.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Final, Self

from attrs import define, field
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ... import Job, JobFailed, JobState, VeoError
from ..advice import reason
from ..words import duration, printable, shortened, size

__all__ = ["DOWNLOADING", "SAVED", "Board", "Notes", "Row", "follow"]

REFRESH: Final = 0.1  # seconds between two pictures: smooth, and cheap
TICK: Final = 1.0  # seconds between two checks whether a line is due, when not on a terminal
REMINDER: Final = 15.0  # seconds of silence after which a line shows the state
TITLE: Final = 60  # characters of a title in a line
MEASURABLE: Final = 0.5  # seconds after which a speed is meaningful
ROOM: Final = 3  # lines of the terminal that rows leave free

DOWNLOADING: Final = "downloading"
SAVED: Final = "saved"
_WHY_QUEUED: Final = "the API cannot be reached, or asks to wait"  # shown for a job that is queued for long

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
_ENDED: Final = frozenset({SAVED, JobState.SUCCEEDED, JobState.FAILED, JobState.STOPPED})


log = logging.getLogger("veo_async")


class Notes(logging.Handler):
    """
    Shows the package's log warnings to the user.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        self._say(f"note: {record.getMessage()}")


def _standard_error() -> Console:
    return Console(stderr=True, highlight=False)


@define(eq=False)
class Row:
    """
    One job, as it is shown.

    Attributes:
        title: what it is about.
        state: a job's state, or `downloading` or `saved`.
        detail: further text, such as a file's name or an error.
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
        How many seconds it took; None until it has ended.
        """
        return None if self.began_at is None or self.ended_at is None else self.ended_at - self.began_at

    def age(self, now: float) -> float:
        """
        How long it has been running, or took, in seconds.
        """
        return 0.0 if self.began_at is None else (self.ended_at or now) - self.began_at


@define(eq=False)
class Board:
    """
    Shows rows inside `async with`, and the package's log warnings as lines between them.

    Args:
        total: how many rows there will be; None if there is only one.
        console: where to write.
    """

    total: int | None = None
    console: Console = field(factory=_standard_error)
    clock: Callable[[], float] = time.monotonic
    rows: list[Row] = field(factory=list, init=False)
    _live: Live | None = field(default=None, init=False)
    _ticking: asyncio.Task[None] | None = field(default=None, init=False)
    _notes: Notes = field(init=False)
    _silenced: list[logging.Handler] = field(factory=list, init=False)
    _began_at: float = field(default=0.0, init=False)
    _said_at: float = field(default=0.0, init=False)
    _upload: str = field(default="", init=False)  # how far the last upload is; empty if it has ended

    @_notes.default
    def _make_notes(self) -> Notes:
        return Notes(self.say)

    async def __aenter__(self) -> Self:
        # Other handlers would write into the picture.
        self._silenced = [handler for handler in log.handlers if isinstance(handler, Notes)]
        self._swap(self._silenced, [self._notes])
        self._began_at = self._said_at = self.clock()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False, get_renderable=self._picture)
            self._live.start()
        self._ticking = asyncio.create_task(self._tick(), name="veo-async display")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
        if self._live is not None:
            self._live.stop()
            self._live = None
        self._swap([self._notes], self._silenced)

    def _swap(self, out: Iterable[logging.Handler], into: Iterable[logging.Handler]) -> None:
        for handler in out:
            log.removeHandler(handler)
        for handler in into:
            log.addHandler(handler)

    @property
    def elapsed(self) -> float:
        """
        Seconds since the board was entered.
        """
        return self.clock() - self._began_at

    # --- what happens -----------------------------------------------------------------------------------

    def add(self, title: str) -> Row:
        """
        Add a row.
        """
        row = Row(title)
        self.rows.append(row)
        return row

    def change(self, row: Row, state: str, detail: str = "") -> None:
        """
        Show a row's new state; when not on a terminal, an end gets a line.
        """
        now = self.clock()
        row.state, row.detail = state, detail
        row.began_at = now if row.began_at is None else row.began_at
        if state in _ENDED:
            row.ended_at = now
            if self._live is None:
                self._tell(row, state if state == SAVED or not detail else f"{state},", detail)

    def accepted(self, row: Row, task_id: str) -> None:
        """
        Show that the server has accepted a row's task; unless the terminal has many rows, its id gets a lasting line.
        """
        self.change(row, JobState.PENDING)
        if self._live is None or self.total is None:
            self._tell(row, "accepted as task", task_id)

    def fail(self, row: Row, error: VeoError) -> None:
        """
        Show that a row ended with an error.
        """
        state = JobState.FAILED if isinstance(error, JobFailed) else JobState.STOPPED
        self.change(row, state, "" if self.total is None else reason(error))

    def progress(self, row: Row) -> Callable[[int, int | None], None]:
        """
        Make a progress callback for a download, which shows its bytes in the row's detail.
        """

        began_at = self.clock()

        def show(done: int, total: int | None) -> None:
            row.detail = size(done) if total is None else f"{size(done)} of {size(total)}"
            if (passed := self.clock() - began_at) > MEASURABLE:
                row.detail += f", {size(done / passed)}/s"

        return show

    def uploading(self, done: int, total: int) -> None:
        """
        Show how many bytes of a picture are sent; when not on a terminal, its last one gets a line.
        """
        self._upload = f"uploading {size(done)} of {size(total)}" if done < total else ""
        if done >= total and self._live is None:
            self.say(f"a picture of {size(total)} was uploaded")

    def say(self, text: str) -> None:
        """
        Write a lasting line.
        """
        self._said_at = self.clock()
        line = Text.assemble((f"{duration(self.elapsed):>7}  ", "dim"), printable(text))
        self.console.print(line, soft_wrap=True)

    def _tell(self, row: Row, *words: str) -> None:
        self.say(f"{shortened(row.title, TITLE)}: {' '.join(word for word in words if word)}")

    # --- in the background ------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            if self._live is not None:
                self._live.refresh()
            elif self.clock() - self._said_at >= REMINDER and (words := self._standing()):
                self.say(words)
            await asyncio.sleep(TICK if self._live is None else REFRESH)

    def _standing(self) -> str:
        """
        Summarise the state in one line.
        """
        if self.total is None:
            return "; ".join(f"still {self._status(row)}" for row in self.rows)
        counts = Counter(row.state for row in self.rows if row.ended_at is None)
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        return "; ".join(filter(None, (f"{self._ended()} of {self.total} ended", states, self._upload)))

    def _ended(self) -> int:
        return sum(row.ended_at is not None for row in self.rows)

    def _status(self, row: Row) -> str:
        if row.state == JobState.QUEUED and row.age(self.clock()) >= REMINDER:
            return f"{row.state}: {self._upload or _WHY_QUEUED}"
        return " ".join(word for word in (row.state, row.detail) if word)

    # --- the picture ------------------------------------------------------------------------------------

    def _grid(self) -> Table:
        table = Table.grid(padding=(0, 1), expand=True)
        table.add_column(width=1)
        table.add_column(ratio=5, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=4, no_wrap=True, overflow="ellipsis")
        table.add_column(justify="right", width=7, no_wrap=True)
        return table

    def _picture(self) -> RenderableType:
        table = self._grid()
        for row in self._fitting():
            table.add_row(*self._cells(row))
        return Group(*([] if self.total is None else [self._bar()]), *self._upload_line(), table)

    def _upload_line(self) -> Iterable[RenderableType]:
        return [Text(f"  {self._upload}", style="cyan")] if self._upload else []

    def _fitting(self) -> Iterable[Row]:
        """
        Choose the rows that fit on the screen, unfinished ones first; returns them in their order.
        """
        room = max(ROOM, self.console.height - ROOM)
        if len(self.rows) <= room:
            return self.rows
        chosen = sorted(self.rows, key=lambda row: (row.ended_at is not None, -(row.ended_at or 0.0)))[:room]
        return [row for row in self.rows if row in chosen]

    def _cells(self, row: Row) -> tuple[Text, ...]:
        mark, plain, style = _MARKS[row.state]
        return (
            Text(mark if self.console.encoding.lower().startswith("utf") else plain, style=style),
            Text(printable(row.title)),
            Text(printable(self._status(row)), style=style),
            Text("" if row.began_at is None else duration(row.age(self.clock())), style="dim"),
        )

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=self.total, completed=self._ended(), width=30),
            Text(f"{self._ended()} of {self.total}"),
            Text(duration(self.elapsed), style="dim"),
        )
        return grid


async def follow(job: Job, board: Board, row: Row) -> None:
    """
    Show a job's states until it is settled; the caller shows the outcome.
    """
    state = None
    async for update in job.updates():
        if job.done() or update.state is state:
            continue
        state = update.state
        if state is JobState.PENDING and update.task_id is not None and job.request is not None:
            board.accepted(row, update.task_id)
        else:
            board.change(row, state)

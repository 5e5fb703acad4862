"""
The display of a batch: an overall bar, a row per running job, and the last failures.

Rows come and go with their jobs, and read the jobs' states when they are drawn: no coroutine runs per job.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Final

from attrs import define, field
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ... import Job, JobState
from ..words import duration, printable, shortened
from .board import DOWNLOADING, SAVED, TITLE, Board, Row

__all__ = ["Crowd", "Worker"]

FAILURES: Final = 3  # the last ones, on the screen
ENOUGH: Final = 3  # ended jobs after which a rate is meaningful
OTHERS: Final = 5  # lines besides the rows: the bar, an upload, the count of hidden rows, and blank lines


@define(eq=False)
class Worker(Row):
    """
    A row that reads its state from its job.
    """

    job: Job | None = None

    def stand(self) -> None:
        """
        Copy the job's state, unless the row is already downloading or saved.
        """
        if self.job is not None and self.state not in (DOWNLOADING, SAVED) and not self.job.done():
            self.state = self.job.state


@define(eq=False)
class Crowd(Board):
    """
    A board for more rows than fit on a screen.

    Attributes:
        counts: how many jobs have ended, by their last state.
    """

    counts: Counter[str] = field(factory=Counter, init=False)
    _skipped: int = field(default=0, init=False)
    _failures: deque[str] = field(factory=lambda: deque(maxlen=FAILURES), init=False)

    def enter(self, title: str, job: Job) -> Worker:
        """
        Add the row of a job.
        """
        row = Worker(title, began_at=self.clock(), job=job)
        self.rows.append(row)
        return row

    def skip(self) -> None:
        """
        Count a video that an earlier run has saved.
        """
        self._skipped += 1
        self.counts[SAVED] += 1

    def leave(self, row: Worker, state: str, detail: str, *, silent: bool = False) -> None:
        """
        Remove a row that has ended.

        Args:
            silent: write no line about it, and do not count it.
        """
        self.rows.remove(row)
        if silent:
            return
        self.counts[state] += 1
        if state != SAVED:
            self._failures.append(f"{detail} ({shortened(row.title, TITLE)})")
        self.change(row, state, detail)

    def all_accepted(self) -> None:
        """
        When not on a terminal, say that every job has its task: the first video may take minutes from here.
        """
        if self._live is None and (waiting := self._states()[JobState.PENDING]):
            self.say(f"{waiting:,} accepted, {self.counts[SAVED]:,} saved")

    def again(self, row: Worker, why: str) -> None:
        """
        Remove the row of a failed task whose line is bought again.
        """
        self.rows.remove(row)
        self.say(f"{why}: it is bought again ({shortened(row.title, TITLE)})")

    def _tell(self, row: Row, *words: str) -> None:
        super()._tell(Row(f"[{self._ended()}/{self.total}] {row.title}"), *words)

    def _ended(self) -> int:
        return self.counts.total()

    def _standing(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self._states().items())
        return "; ".join(filter(None, (self._score(), states, self._upload)))

    def _states(self) -> Counter[str]:
        for row in self._workers():
            row.stand()
        return Counter(row.state for row in self.rows)

    def _workers(self) -> Iterator[Worker]:
        return (row for row in self.rows if isinstance(row, Worker))

    def _score(self) -> str:
        """
        Describe the progress: the counts, the rate, and the time left.
        """
        ended, total, now = self._ended(), self.total or 0, self._ended() - self._skipped
        parts = [f"{ended:,} of {total:,}"]
        if bad := ended - self.counts[SAVED]:
            parts.append(f"{bad:,} failed")
        if now >= ENOUGH and self.elapsed > 0:
            rate = now / self.elapsed
            parts.append(f"{rate * 60:.0f} a minute")
            if ended < total:
                parts.append(f"{duration((total - ended) / rate)} to go")
        return ", ".join(parts)

    # --- the picture ------------------------------------------------------------------------------------

    def _picture(self) -> RenderableType:
        states = self._states()
        room = max(1, self.console.height - OTHERS - len(self._failures))
        shown = sorted(self.rows, key=lambda row: (row.state == JobState.QUEUED, row.state != DOWNLOADING))[
            :room
        ]
        table = self._grid()
        for row in shown:
            table.add_row(*self._cells(row))
        parts: list[RenderableType] = [self._bar(), *self._upload_line(), table]
        if len(shown) < len(self.rows):
            counts = ", ".join(f"{count:,} {state}" for state, count in states.items())
            parts.append(Text(f"  all at work: {counts}", style="dim"))
        parts += [
            Text(printable(f"✗ {words}"), style="red", no_wrap=True, overflow="ellipsis")
            for words in self._failures
        ]
        return Group(*parts)

    def _bar(self) -> RenderableType:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            ProgressBar(total=self.total, completed=self._ended(), width=30),
            Text(self._score()),
            Text(duration(self.elapsed), style="dim"),
        )
        return grid

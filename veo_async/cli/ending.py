"""
Runs a command's coroutine, and exits with its status: 0 success, 1 failure, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
from attrs import define, field

from .. import Journal, Limits, PollPolicy, PostgresJournal, RetryPolicy, VeoSession
from .._session.credentials import base_url_from, is_on_this_machine
from ..errors import ConfigurationError, VeoError
from ..events import Observer
from ..platform import AccountPlatform
from .advice import BAD_INPUT, lines
from .display.board import Notes
from .words import printable

__all__ = [
    "ACCOUNT_TOKEN",
    "FAILED",
    "FINE",
    "NO_TOKEN",
    "REFUSED",
    "TOKEN",
    "complain",
    "listening",
    "new_session",
    "refuse",
    "run",
]

FINE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
TERMINATED: Final = 128 + signal.SIGTERM
FORCE_AFTER: Final = 1.0  # seconds after the second Ctrl-C, from which a third one leaves at once
SHOW_CURSOR: Final = "\x1b[?25h"

TOKEN: Final = "ACEDATACLOUD_API_TOKEN"
ACCOUNT_TOKEN: Final = "ACEDATACLOUD_PLATFORM_TOKEN"
NO_TOKEN: Final = (
    f"no token: set {TOKEN} to yours, from https://platform.acedata.cloud"
    " (`veo-async demo` and `veo-async simulate` need none)"
)


def run(main: Coroutine[Any, Any, int]) -> None:
    """
    Run a command's coroutine, print its errors, and exit with its status.
    """
    sys.exit(_status_of(main))


def _status_of(main: Coroutine[Any, Any, int]) -> int:
    interrupts = _Interrupts()
    try:
        with _noting(), interrupts.taken():
            return asyncio.run(_until_stopped(main, interrupts))
    except asyncio.CancelledError:
        return INTERRUPTED if interrupts.pressed else TERMINATED
    except (VeoError, OSError, BaseExceptionGroup) as error:
        return _report(error)


@contextlib.contextmanager
def _noting() -> Iterator[None]:
    """
    Print the package's log warnings as notes in the block.
    """
    logger, handler = logging.getLogger("veo_async"), Notes(complain)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@define(eq=False)
class _Interrupts:
    """
    Ctrl-C: the first ends the command in order, the second cuts that short, a third soon afterwards is ignored.

    asyncio's own handler would raise `KeyboardInterrupt` from the second on, wherever the program is, even in the
    middle of its clean-up.
    """

    pressed: int = field(init=False, default=0)
    _task: asyncio.Task[Any] | None = field(init=False, default=None)
    _cut_short_at: float = field(init=False, default=0.0)

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        """
        Handle Ctrl-C in the block; after the first one also beyond it, since the process is ending.
        """
        before = signal.getsignal(signal.SIGINT)
        if callable(before):  # a shell lets background processes ignore it
            signal.signal(signal.SIGINT, self._take)
        try:
            yield
        finally:
            if not self.pressed:
                signal.signal(signal.SIGINT, before)

    def stop(self, task: asyncio.Task[Any]) -> None:
        """
        Cancel this task on Ctrl-C; at once if it was pressed already.
        """
        self._task = task
        if self.pressed:
            task.cancel()

    def _take(self, *_: object) -> None:
        self.pressed += 1
        if self.pressed <= 2:
            self._cut_short_at = time.monotonic()
            if self._task is not None and not self._task.done():
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
        elif time.monotonic() - self._cut_short_at > FORCE_AFTER:
            _leave_at_once()


def _leave_at_once() -> None:
    if sys.stderr.isatty():  # the display has hidden the cursor, and cannot clean up
        os.write(sys.stderr.fileno(), SHOW_CURSOR.encode())
    os._exit(INTERRUPTED)


def _report(error: BaseException) -> int:
    """
    Print the error that ended a command, and return its status; a bug of our own is raised again.

    So is a closed pipe: for it click ends the process, quietly and with status 1, in the commands without `run`, too.
    """
    while isinstance(error, BaseExceptionGroup):  # of a task group: take the first
        error = error.exceptions[0]
    match error:
        case VeoError():
            complain(*lines(error))
            return REFUSED if isinstance(error, BAD_INPUT) else FAILED
        case OSError() if error.errno != errno.EPIPE:  # connections report theirs as a `VeoError`
            complain(str(error))
            return FAILED
    raise error


async def _until_stopped(main: Coroutine[Any, Any, int], interrupts: _Interrupts) -> int:
    """
    Handle SIGTERM like Ctrl-C: the command reports what was bought before the process ends.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None, "a coroutine runs in a task"
    interrupts.stop(task)
    with contextlib.suppress(NotImplementedError):  # Windows has no such handler
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        return await main
    finally:
        # Not left to the loop, which closes its signal pipe first: a signal in between would print an error.
        with contextlib.suppress(NotImplementedError):
            loop.remove_signal_handler(signal.SIGTERM)


def complain(first: str, *more: str) -> None:
    """
    Write to stderr: a line that begins with the command's name, and further lines, indented.
    """
    click.echo(f"veo-async: {printable(first)}", err=True)
    for line in more:
        click.echo(f"  {printable(line)}", err=True)


def refuse(violations: Iterable[str]) -> None:
    """
    If there are violations, print all of them and exit with the status for bad input.
    """
    found = list(dict.fromkeys(violations))
    if found:
        complain("nothing was sent:", *(f"- {violation}" for violation in found))
        sys.exit(REFUSED)


@contextlib.contextmanager
def listening(option: str, port: int) -> Iterator[None]:
    """
    In the block, explain an error from listening at a port; `option` is the option that chose the port.
    """
    try:
        yield
    except OSError as error:
        words = {
            errno.EADDRINUSE: f"port {port} is taken by another program",
            errno.EACCES: f"you may not listen at port {port}",
        }.get(error.errno or 0)
        if words is None:
            raise
        raise OSError(f"{words}: choose another with {option}, or a free one with {option} 0") from error


def new_session(
    violations: list[str],
    *,
    base_url: str | None,
    speed: float,
    timeout: float | None = None,
    max_in_flight: int | None = None,
    submits_per_second: float | None = None,
    journal: Journal | PostgresJournal | Path | None = None,
    with_platform: bool = False,
    uploading: Callable[[int, int], object] | None = None,
    max_videos: int | None = None,
    max_credits: float | None = None,
    observers: Sequence[Observer] = (),
) -> VeoSession | None:
    """
    Make a session from the environment and the flags; if that fails, return None and add to the violations.

    Args:
        speed: the server's speed-up; other than 1 only for a simulator on this machine. A session that is too quick
            for its server would buy again what the server has yet to show.
        timeout: how long a job may wait to be sent, in seconds; None for ever.
        journal: a journal or its file, or None.
        with_platform: whether the platform is needed, such as for uploads; a budget of credits always needs it.
        uploading: called with the bytes sent and in total of each upload.
        max_videos, max_credits: the budget, or None.
        observers: called with each event of the session.
    """
    if not os.environ.get(TOKEN):
        violations.append(NO_TOKEN)
        return None
    try:
        address = base_url_from(base_url)
        if speed != 1 and not is_on_this_machine(address):
            violations.append(f"--speed, or VEO_ASYNC_SPEED, is for a simulator, and not for {address}")
            return None
        polling, retry = PollPolicy().scaled(1 / speed), RetryPolicy().scaled(1 / speed)
        limits = Limits(
            max_in_flight=max_in_flight,
            submits_per_second=submits_per_second,
            max_queue_wait=timeout,
            max_videos=max_videos,
            max_credits=max_credits,
        )
        with_platform = with_platform or max_credits is not None
        with _noting():
            return VeoSession(
                base_url=base_url,
                polling=polling,
                retry=retry,
                limits=limits,
                journal=journal,
                observers=observers,
                platform=AccountPlatform(retry=retry, progress=uploading) if with_platform else None,
            )
    except ConfigurationError as error:
        violations.append(str(error))
        return None

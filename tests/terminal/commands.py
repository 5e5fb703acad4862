"""
The command, in this process or in one of its own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Self

from attrs import define, field, frozen
from click.testing import CliRunner

from veo_async.cli.group import command

from .served import wait_for

__all__ = ["Finished", "Process", "invoke", "signalled"]

# Whoever runs the tests has perhaps a token, colours or a journal of their own.
_CLEAN = dict.fromkeys(
    (
        "ACEDATACLOUD_API_TOKEN",
        "ACEDATACLOUD_API_BASE_URL",
        "ACEDATACLOUD_PLATFORM_TOKEN",
        "VEO_ASYNC_SPEED",
        "FORCE_COLOR",
    )
) | {
    "ACEDATACLOUD_PLATFORM_BASE_URL": "http://127.0.0.1:9"
}  # where nobody answers, so that no test leaves this machine


@frozen
class Finished:
    """
    What a command has left behind.
    """

    status: int
    out: str
    err: str


def invoke(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, given: str | None = None
) -> Finished:
    """
    Run the command in this process; an unexpected exception is the test's own.
    """
    env = {**_CLEAN, "COLUMNS": "80", **(environment or {})}
    before = signal.getsignal(signal.SIGINT)
    try:
        result = CliRunner().invoke(
            command, [str(one) for one in arguments], env=env, input=given, prog_name="veo-async"
        )
    finally:
        signal.signal(signal.SIGINT, before)  # a command that was interrupted keeps it until its process ends
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Finished(result.exit_code, result.stdout, result.stderr)


@define
class Process:
    """
    The command in a process of its own; it is gone at the end of the block.
    """

    arguments: tuple[str | Path, ...]
    directory: Path
    environment: Mapping[str, str] = field(factory=dict)
    seen: list[str] = field(factory=list, init=False)
    _process: subprocess.Popen[str] = field(init=False)

    def __enter__(self) -> Self:
        inherited = {name: value for name, value in os.environ.items() if name not in _CLEAN}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "veo_async.cli", *map(str, self.arguments)],
            cwd=self.directory,
            env={**inherited, "PYTHONUNBUFFERED": "1", **self.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def read_until(self, words: str, *, out: bool = False) -> str:
        """
        Wait for a line with these words.
        """
        stream = self._stream(out=out)
        for line in stream:
            self.seen.append(line)
            if words in line:
                return line
        raise AssertionError(f"the command ended without {words!r}: {self.seen}")

    def interrupt(self) -> None:
        """
        Press Ctrl-C.
        """
        self._process.send_signal(signal.SIGINT)

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        self._process.kill()

    def finish(self) -> Finished:
        """
        Wait for the end; what was read before is not repeated.
        """
        out, err = self._process.communicate(timeout=150)
        return Finished(self._process.returncode, out, err)

    def _stream(self, *, out: bool) -> IO[str]:
        stream = self._process.stdout if out else self._process.stderr
        assert stream is not None
        return stream


@contextmanager
def signalled(number: signal.Signals, *, when: Callable[[], object]) -> Iterator[None]:
    """
    Send this process a signal from the outside, as it were, once something has happened.
    """

    def send() -> None:
        wait_for(when)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    yield
    thread.join()

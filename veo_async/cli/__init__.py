"""
The `veo-async` command: videos from a terminal, a demonstration, and a simulator to test against.

It needs the extra `cli`; without the extra, the command says how to install it.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import click

__all__ = ["main"]

INTERRUPTED: Final = 128 + signal.SIGINT
EXTRA: Final = frozenset({"click", "rich"})  # what `pip install 'veo-async[cli]'` brings


def main() -> None:
    """
    Run the command with the arguments of this process, and exit.
    """
    try:
        from .group import command  # noqa: PLC0415 - so that missing packages can be reported

        _run(command)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in EXTRA:
            raise
        sys.exit("veo-async: this command needs two more packages: pip install 'veo-async[cli]'")
    except KeyboardInterrupt:  # while the packages were loading
        sys.exit(INTERRUPTED)


def _run(command: click.Command) -> None:
    before = signal.getsignal(signal.SIGINT)
    if callable(before):  # a shell lets background processes ignore it
        signal.signal(signal.SIGINT, _leave)  # an event loop has its own handler
    try:
        command(prog_name="veo-async")
    except SystemExit as end:
        # After an interrupt, ignore further ones: the process ends in a moment.
        signal.signal(signal.SIGINT, signal.SIG_IGN if end.code == INTERRUPTED else before)
        raise


def _leave(*_: object) -> None:
    sys.exit(INTERRUPTED)

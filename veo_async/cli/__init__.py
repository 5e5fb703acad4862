"""
The `veo-async` command: videos from a terminal, a demonstration, and a simulator to test against.

It needs the extra `cli`; without it, it says how to get it.
"""

from __future__ import annotations

import sys
from typing import Final

__all__ = ["main"]

EXTRA: Final = frozenset({"click", "rich"})  # what `pip install 'veo-async[cli]'` brings


def main() -> None:
    """
    Run the command with the arguments of this process, and exit.
    """
    try:
        from ._group import command  # noqa: PLC0415 - only here can its absence be told
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        sys.exit("veo-async: this command needs two more packages: pip install 'veo-async[cli]'")
    except KeyboardInterrupt:  # while the packages were loading
        sys.exit(130)
    command(prog_name="veo-async")

"""
The group of all commands, `veo-async`.
"""

from __future__ import annotations

from typing import Final

import click

from .. import __version__
from .commands.audit import audit
from .commands.balance import balance
from .commands.batch import batch
from .commands.completion import completion
from .commands.demo import demo
from .commands.generate import generate
from .commands.listen import listen
from .commands.models import models
from .commands.queue import queue
from .commands.rework import REWORKING
from .commands.simulate import simulate
from .commands.tasks import download, list_, resume, status, wait
from .commands.worker import worker

__all__ = ["command"]

_SECTIONS: Final = (
    ("Make videos", (demo, generate, batch, worker, queue)),
    ("From an earlier video, by its id or its task's", REWORKING),
    ("Tasks that exist", (wait, status, list_, download, resume)),
    ("Other", (models, balance, audit, simulate, listen, completion)),
)


class _Sections(click.Group):
    """
    A group whose help is in sections: fifteen commands in one list are hard to read.
    """

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for heading, commands in _SECTIONS:
            with formatter.section(heading):
                rows = [(str(one.name).ljust(width), one.get_short_help_str(60)) for one in commands]
                formatter.write_dl(rows)


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="veo-async", message="%(prog)s %(version)s")
def command() -> None:
    """
    Videos from Google's Veo on Ace Data Cloud.

    Progress goes to stderr, results to stdout. Exit status: 0 success, 1 failure, 2 bad input, 130 interrupted.
    The token is in ACEDATACLOUD_API_TOKEN.
    """


for _, _commands in _SECTIONS:
    for _one in _commands:
        command.add_command(_one)

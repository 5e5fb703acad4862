"""
`veo-async`: the commands, gathered.
"""

from __future__ import annotations

import click

from .. import __version__
from ._demo import demo
from ._generate import generate, wait
from ._models import models
from ._simulate import simulate

__all__ = ["command"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, package_name="veo-async", message="%(prog)s %(version)s")
def command() -> None:
    """
    Videos from Google's Veo on Ace Data Cloud.

    \b
    veo-async demo                                no key needed
    veo-async generate "a whale at dawn" -o whale.mp4

    Progress goes to stderr, results to stdout.
    Exit status: 0 all well, 1 something failed, 2 bad input, 130 interrupted.
    """


for one in (demo, generate, wait, models, simulate):
    command.add_command(one)

"""
The group of all commands, `veo-async`. A command's module is loaded when the command is called, not before.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from .. import __version__
from .environment import read_env_file

__all__ = ["command"]

# Each command's short help, which its module has as well, and where it is: `module:name` in the folder `commands`.
_SECTIONS: Final = {
    "Make videos": {
        "demo": ("demo:demo", "See it work, with a simulator: no key, no cost."),
        "generate": ("generate:generate", "Make a video from a prompt or from images."),
        "batch": ("batch:batch", "Make a video of each line of a file."),
        "worker": ("worker:worker", "Make the videos that other programs enqueue."),
        "queue": ("queue:queue", "Enqueue videos for workers, and look after the queue."),
    },
    "From an earlier video, by its id or its task's": {
        "1080p": ("rework:get_1080p", "Get an earlier video in 1080p."),
        "upsample": ("rework:upsample", "Enlarge an earlier video, or make it a GIF."),
        "extend": ("rework:extend", "Continue an earlier video."),
        "reshoot": ("rework:reshoot", "Repeat an earlier video with another camera."),
        "insert": ("rework:insert", "Put something into an earlier video."),
        "remove": ("rework:remove", "Take something out of an earlier video."),
    },
    "Tasks that exist": {
        "wait": ("tasks:wait", "Wait for tasks that were asked for earlier."),
        "status": ("tasks:status", "Show the state of tasks."),
        "list": ("tasks:list_", "Show your latest tasks."),
        "download": ("tasks:download", "Save the videos of tasks that have ended."),
        "resume": ("tasks:resume", "Resume the unsettled jobs of a journal."),
    },
    "Other": {
        "models": ("models:models", "Show the table of models."),
        "balance": ("balance:balance", "Tell the credits that the account has left."),
        "audit": ("audit:audit", "Compare journals and files with what was paid."),
        "doctor": ("doctor:doctor", "Check the settings, and whether the API answers."),
        "simulate": ("simulate:simulate", "Serve the API on this machine: no key, no cost."),
        "listen": ("listen:listen", "Print callbacks as they come, for setting things up."),
        "completion": ("completion:completion", "Print what completes commands in your shell."),
    },
}
_WITHOUT_SETTINGS: Final = frozenset({"demo", "models", "simulate", "listen", "completion"})
_PLACES: Final = {name: place for rows in _SECTIONS.values() for name, (place, _) in rows.items()}


class _Sections(click.Group):
    """
    A group whose help is in sections: twenty commands in one list are hard to read.

    What it holds stands for the commands until one is called.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _PLACES:
            return None
        module, _, name = _PLACES[cmd_name].partition(":")
        found: click.Command = getattr(import_module(f".commands.{module}", __package__), name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for heading, rows in _SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), words) for name, (_, words) in rows.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        begun = [one for name, one in self.commands.items() if name.startswith(incomplete)]
        items: list[Any] = [CompletionItem(one.name, help=one.short_help) for one in begun]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.group(
    cls=_Sections,
    commands=[
        click.Command(name, short_help=words)
        for rows in _SECTIONS.values()
        for name, (_, words) in rows.items()
    ],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, package_name="veo-async", message="%(prog)s %(version)s")
@click.pass_context
def command(context: click.Context) -> None:
    """
    Videos from Google's Veo on Ace Data Cloud. Results go to stdout. Exit status: 0 success, 1 failure, 2 bad input,
    130 interrupted. The token is read from ACEDATACLOUD_API_TOKEN, also in a file .env.
    """
    if context.invoked_subcommand not in _WITHOUT_SETTINGS:
        context.obj = read_env_file()

"""
`veo-async completion`: prints the script with which a shell completes commands and options.
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

__all__ = ["completion"]

SHELLS = ("bash", "zsh", "fish")


@click.command(short_help="Print what completes commands in your shell.")
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """
    Print a script that lets SHELL complete commands and options.

    \b
    bash: eval "$(veo-async completion bash)"      in ~/.bashrc
    zsh:  eval "$(veo-async completion zsh)"       in ~/.zshrc
    fish: veo-async completion fish > ~/.config/fish/completions/veo-async.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "these are the shells that click knows"
    root = context.find_root()
    click.echo(kind(root.command, {}, "veo-async", "_VEO_ASYNC_COMPLETE").source())

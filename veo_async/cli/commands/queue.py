"""
`veo-async queue`: sets up a journal in PostgreSQL, which sessions on many machines share.
"""

from __future__ import annotations

import click

from ... import PostgresJournal
from ..ending import FINE, run

__all__ = ["queue"]


@click.group(short_help="Set up a journal in PostgreSQL, for many machines.")
def queue() -> None:
    """
    A journal in PostgreSQL that sessions in many processes, and on many machines, share.
    """


@queue.command(short_help="Make the journal's tables, or bring them up to date.")
@click.option(
    "--database",
    envvar="VEO_ASYNC_DATABASE",
    required=True,
    show_envvar=True,
    metavar="ADDRESS",
    help="postgresql://user:password@host/name",
)
@click.option("--schema", default="veo", show_default=True, metavar="NAME", help="Where the tables are.")
def init(database: str, schema: str) -> None:
    """
    Make the journal's tables, or bring them up to date. The facts in them are kept.
    """
    run(_init(PostgresJournal(database, schema=schema)))


async def _init(journal: PostgresJournal) -> int:
    await journal.install()
    click.echo(f"{journal!r} is ready", err=True)
    return FINE

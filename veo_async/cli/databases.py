"""
Finds the queue of a command: in a database with an address, or on a server of this machine.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import frozen

from ..errors import ConfigurationError

__all__ = ["Place", "has_workers", "placed"]

F = TypeVar("F", bound=Callable[..., Any])

DATABASE: Final = "VEO_ASYNC_DATABASE"
_EXTRA: Final = "this needs more packages: pip install 'veo-async[workers]'"


def placed(command: F) -> F:
    """
    Give a command the options that `Place` takes.
    """
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


_OPTIONS: Final = (
    click.option(
        "--database",
        metavar="ADDRESS",
        help="postgresql://user:password@host/name [default: VEO_ASYNC_DATABASE]",
    ),
    click.option(
        "--local",
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Instead: a server of this machine, kept in DIR and started if it does not run.",
    ),
    click.option("--schema", default="veo", show_default=True, metavar="NAME", help="Where the tables are."),
)


def has_workers() -> bool:
    """
    Tell whether the extra `workers` is installed.
    """
    return all(find_spec(name) for name in ("psycopg", "psycopg_pool", "procrastinate"))


@frozen(kw_only=True)
class Place:
    """
    Where a queue is.

    Attributes:
        database: the address that was given, or None.
        local: the directory of a local server, or None.
        schema: the schema with the journal's tables.
    """

    database: str | None
    local: Path | None
    schema: str

    @asynccontextmanager
    async def opened(self, *, with_workers: bool = True) -> AsyncIterator[str]:
        """
        Have the database there during the block, which gets its address; a local one has tables, too.

        Args:
            with_workers: whether the extra `workers` is needed.

        Raises:
            ConfigurationError: it is not said which one, the extra is missing, or a directory cannot be used.
            JournalError: a local server does not start.
        """
        if (with_workers or self.local is not None) and not has_workers():
            raise ConfigurationError(_EXTRA)
        if self.database is not None and self.local is not None:
            raise ConfigurationError("--database and --local are two places: pass one of them")
        if self.local is None:
            yield self._address()
            return
        from ..worker.database import install  # noqa: PLC0415 - the extra may be missing
        from ..worker.local_server import local_server  # noqa: PLC0415

        with local_server(self.local) as dsn:
            await install(dsn, schema=self.schema)
            yield dsn

    def _address(self) -> str:
        dsn = self.database or os.environ.get(DATABASE)
        if not dsn:
            raise ConfigurationError(
                f"no database: pass --database ADDRESS or --local DIR, or set {DATABASE}"
            )
        return dsn

"""
Connections to PostgreSQL: which errors pass by themselves, and what to do about the others.
"""

from __future__ import annotations

import re
from typing import Any, Final

import psycopg
from attrs import define, field
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import ConfigurationError, JournalError
from .postgres_schema import named

__all__ = ["Address", "Connection", "explain", "is_collision", "is_outage"]

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# These notice a server that has vanished; options in the address override them.
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "veo_async",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "client_encoding": "UTF8",
}

# Classes of errors that waiting does not cure: of data, names and permissions. All others count as an outage.
_LASTING: Final = ("0A", "22", "23", "28", "3D", "3F", "42", "P0")
_COLLISIONS: Final = ("40001", "40P01")  # a serialization failure, a deadlock
_NO_JOURNAL: Final = ("3F000", "42P01", "42883")


@define(eq=False, repr=False)
class Address:
    """
    Where the journal is. Its password is never shown.
    """

    dsn: str
    schema: str
    _options: dict[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        named("", self.schema)
        try:
            self._options = {**_DEFAULTS, **conninfo_to_dict(self.dsn)}
        except psycopg.Error:  # its message may contain the password
            words = "the journal's address is not a PostgreSQL address"
            driver = re.match(r"postgres(?:ql)?(\+\w+)://", self.dsn)  # as SQLAlchemy names one
            raise ConfigurationError(f"{words}: leave out {driver[1]}" if driver else words) from None

    def __str__(self) -> str:
        its = self._options
        user = f"{its['user']}@" if its.get("user") else ""
        port = f":{its['port']}" if its.get("port") else ""
        return f"postgresql://{user}{its.get('host', '')}{port}/{its.get('dbname', '')}"

    def sql(self, statement: str) -> str:
        """
        Put the schema's name into a statement.
        """
        return named(statement, self.schema)

    async def connect(self) -> Connection:
        """
        Open a connection in which each statement is a transaction, so that a pooler works too.
        """
        return await psycopg.AsyncConnection.connect(
            make_conninfo("", **self._options), autocommit=True, prepare_threshold=None
        )


def is_outage(error: psycopg.Error) -> bool:
    """
    Tell whether the error may pass if one waits.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return not error.sqlstate.startswith(_LASTING)


def is_collision(error: psycopg.Error) -> bool:
    """
    Tell whether the transaction collided with another one, so that it can be repeated at once.
    """
    return error.sqlstate in _COLLISIONS


def explain(address: Address, error: psycopg.Error) -> JournalError:
    """
    Make an error that says which journal failed, how, and what to do about it.
    """
    if error.sqlstate in _NO_JOURNAL:
        words = f"has no schema {address.schema!r}: make it with `veo-async queue init`, or name another"
    elif is_outage(error):
        words = "cannot be reached: check that the server runs, and that the address is right"
    else:
        words = "failed"
    explained = JournalError(f"journal {address} {words} ({' '.join(str(error).split())})")
    explained.__cause__ = error
    return explained

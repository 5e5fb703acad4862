"""
Reaching PostgreSQL: connections, which of its errors pass by themselves, and what to do about the others.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from attrs import define, field
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ..errors import ConfigurationError, JournalError
from .postgres_schema import named

__all__ = ["Address", "Connection", "explain", "is_collision", "is_outage"]

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# A server that has gone without a word is noticed; anything in the address counts before these.
_DEFAULTS: Final[dict[str, Any]] = {
    "application_name": "veo_async",
    "connect_timeout": 10,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    "client_encoding": "UTF8",
}

# Classes of errors that no waiting mends: of data, of names and of leave. All others are an outage's.
_LASTING: Final = ("0A", "22", "23", "28", "3D", "3F", "42", "P0")
_COLLISIONS: Final = ("40001", "40P01")  # two transactions in each other's way
_NO_JOURNAL: Final = ("3F000", "42P01", "42883")


@define(eq=False, repr=False)
class Address:
    """
    Where the journal is. The password is shown nowhere.
    """

    dsn: str
    schema: str
    _options: dict[str, Any] = field(init=False)

    def __attrs_post_init__(self) -> None:
        named("", self.schema)
        try:
            self._options = {**_DEFAULTS, **conninfo_to_dict(self.dsn)}
        except psycopg.Error:  # its words may hold the password
            raise ConfigurationError("the journal's address is none of PostgreSQL's") from None

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
        Open a connection in which each statement is a transaction, which suits a pooler too.
        """
        return await psycopg.AsyncConnection.connect(
            make_conninfo("", **self._options), autocommit=True, prepare_threshold=None
        )


def is_outage(error: psycopg.Error) -> bool:
    """
    Tell whether the server may do tomorrow what it does not do now.
    """
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return not error.sqlstate.startswith(_LASTING)


def is_collision(error: psycopg.Error) -> bool:
    """
    Tell whether the same again is all it takes.
    """
    return error.sqlstate in _COLLISIONS


def explain(address: Address, error: psycopg.Error) -> JournalError:
    """
    Say which journal failed, how, and what to do about it.
    """
    if error.sqlstate in _NO_JOURNAL:
        words = f"has no schema {address.schema!r}: make it with `veo-async queue init`, or name another"
    elif is_outage(error):
        words = "cannot be reached: check that the server runs, and that the address is right"
    else:
        words = "does not do what it should"
    explained = JournalError(f"journal {address} {words} ({' '.join(str(error).split())})")
    explained.__cause__ = error
    return explained

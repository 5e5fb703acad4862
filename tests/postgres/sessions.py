"""
Sessions that share a journal in PostgreSQL, and what befalls them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from attrs import frozen

from tests.postgres.server import Postgres, do
from veo_async._journal.facts import TakeIn
from veo_async._journal.postgres import PostgresJournal

REQUEST = '{"prompt": "a whale"}'


def item(key: str = "k", request: str = REQUEST, **options: Any) -> TakeIn:
    return TakeIn(key=key, request=request, at=1.0, **options)


@frozen
class Shared:
    """
    A journal of one account, and the sessions that are open on it.
    """

    server: Postgres
    schema: str
    token: str
    stack: AsyncExitStack

    def journal(self, lease: float = 30.0) -> PostgresJournal:
        return PostgresJournal(self.server.dsn, schema=self.schema, lease=lease)

    async def session(self, lease: float = 30.0) -> PostgresJournal:
        """
        Open one more, until the end of the test.
        """
        journal = self.journal(lease)
        await journal.open(self.token)
        self.stack.push_async_callback(journal.close)
        return journal

    def sql(self, *statements: str) -> list[tuple[Any, ...]]:
        """
        Ask the server itself.
        """
        return do(self.server.dsn, *(statement.replace("SCHEMA", self.schema) for statement in statements))

    def let_expire(self, journal: PostgresJournal) -> None:
        """
        Let a session's lease be over by the server's clock; the session itself does not know.
        """
        self.sql(
            "UPDATE SCHEMA.session SET lease = '0 s', expires_at = clock_timestamp() - interval '1 s'"
            f" WHERE id = {session_of(journal)}"
        )


def session_of(journal: PostgresJournal) -> int:
    """
    The id of the row that the session holds its keys by.
    """
    assert journal._store is not None
    return journal._store.lease.session


@asynccontextmanager
async def sharing(server: Postgres, schema: str, token: str) -> AsyncIterator[Shared]:
    async with AsyncExitStack() as stack:
        yield Shared(server, schema, token, stack)

"""
What a session asks of a journal, whatever keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..errors import JournalError
from .facts import Entry, Fact, Standing, TakeIn

__all__ = ["AnyJournal"]


class AnyJournal(Protocol):
    """
    Facts about jobs, each durable before its effect; a session opens it, and closes it.
    """

    @property
    def failure(self) -> JournalError | None:
        """
        Why nothing can be made durable any more, for ever; None also while an outage is waited for.
        """

    async def open(self, token: str) -> None:
        """
        Make ready for the account of this token, of which only a salted hash is kept.
        """

    async def close(self) -> None:
        """
        Make durable whatever was written, and let go; raises the failure, if there was one.
        """

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the keys that are new, and say of each how it stands: all at once, or none on an error.
        """

    async def write(self, *facts: Fact) -> None:
        """
        Return once the facts are durable: all of them or, on an error, none.
        """

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before anything that is written later.
        """

    async def find(self, key: str) -> Entry | None:
        """
        Return what is known of the key's latest purchase.
        """

    async def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return what is known of the latest purchases of those keys that are known at all.
        """

    async def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to.
        """

    async def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order in which they were intended.
        """

    async def learned(self) -> dict[str, str]:
        """
        Return what was learned of each kind of request.
        """

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return why keys were refused that have not been used since, for those who waited for them elsewhere.
        """

    def may_send(self, key: str) -> bool:
        """
        Tell, as a submit's body begins to leave, whether this session still holds the key that it spends for.
        """

    async def changed(self) -> set[str]:
        """
        Return once keys that another session holds may have settled or become free; no names mean any of them.
        """

    async def release(self) -> None:
        """
        Hand all keys back at once, so that other sessions need not wait until this one is given up for dead.
        """

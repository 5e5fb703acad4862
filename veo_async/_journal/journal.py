"""
What a session calls on a journal, whatever its storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..errors import JournalError
from .facts import Entry, Fact, Spent, Standing, TakeIn

__all__ = ["AnyJournal"]


class AnyJournal(Protocol):
    """
    Stores facts about jobs, each durable before its effect; a session opens and closes it.
    """

    @property
    def failure(self) -> JournalError | None:
        """
        The error that stopped the journal for good; None while it works, or waits for an outage to end.
        """

    async def open(self, token: str) -> None:
        """
        Open the journal for this token's account; only a salted hash of the token is kept.
        """

    async def close(self) -> None:
        """
        Make everything durable that was written, and close; raises the failure, if there was one.
        """

    async def take_in(self, items: Sequence[TakeIn]) -> Sequence[Standing]:
        """
        Write down the new keys, and return the standing of each: all of them or, on an error, none.
        """

    async def write(self, *facts: Fact) -> None:
        """
        Make the facts durable: all of them or, on an error, none.
        """

    def write_soon(self, *facts: Fact) -> None:
        """
        Make the facts durable in the background, before any later write.
        """

    async def find(self, key: str) -> Entry | None:
        """
        Return what is known of the key's latest purchase.
        """

    async def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return the latest purchases of these keys, by key; unknown keys are absent.
        """

    async def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to, by task id.
        """

    async def unsettled(self) -> list[Entry]:
        """
        Return the purchases without an outcome, in the order in which they were intended.
        """

    async def entries(self) -> list[Entry]:
        """
        Return every purchase, also those that failed, in the order in which they were intended.
        """

    async def learned(self) -> dict[str, str]:
        """
        Return what was learned, as JSON text by kind of request.
        """

    async def uploads(self, names: Iterable[str]) -> dict[str, str]:
        """
        Return the addresses of uploaded pictures, by their names; unknown ones are absent.
        """

    async def note_upload(self, name: str, address: str, at: float) -> None:
        """
        Make it durable that a picture was uploaded to this address, at a time in Unix seconds.
        """

    async def reserve(
        self, key: str, price: float | None, max_videos: int | None, max_credits: float | None
    ) -> Spent:
        """
        Reserve the purchase of a key if it fits into the budget; returns what all other purchases have spent.
        """

    async def reserve_purchases(self) -> dict[str, str]:
        """
        Reserve what was bought, or may have been, without a budget, and free what ended sessions have never sent.

        Returns the requests of all reserved purchases without a known price, by key.
        """

    async def note_price(self, key: str, price: float) -> None:
        """
        Store the price of a reserved purchase.
        """

    async def refusals(self, keys: Iterable[str]) -> dict[str, str | None]:
        """
        Return why keys were refused, if they were not used since; for sessions that waited for another's key.
        """

    def may_send(self, key: str) -> bool:
        """
        Tell, just before a submit's body is sent, whether this session still holds its key.
        """

    async def changed(self) -> set[str]:
        """
        Wait until keys of other sessions may have settled or become free; returns them, or nothing for "any key".
        """

    async def release(self) -> None:
        """
        Release all keys at once, so that other sessions need not wait for this one's lease to end.
        """

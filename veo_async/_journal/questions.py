"""
The questions that a journal answers alike, whatever its storage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from .facts import Entry, Spent

__all__ = ["Questions"]


class Questions(ABC):
    """
    The questions of everything that has `_ask`, which puts one to the store behind all earlier writes.
    """

    __slots__ = ()

    @abstractmethod
    async def _ask(self, question: Callable[[Any], Any]) -> Any:
        """
        Put a question to the store.
        """

    async def find(self, key: str) -> Entry | None:
        """
        Return what is known of the key's latest purchase.
        """
        return (await self.find_many([key])).get(key)

    async def find_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """
        Return the latest purchases of these keys, by key; unknown keys are absent.
        """
        wanted = tuple(keys)
        answer: dict[str, Entry] = await self._ask(lambda store: store.find_many(wanted))
        return answer

    async def find_tasks(self, task_ids: Iterable[str]) -> dict[str, Entry]:
        """
        Return the purchases that these tasks belong to, by task id: a key's latest, or an earlier one that failed.
        """
        wanted = tuple(task_ids)
        answer: dict[str, Entry] = await self._ask(lambda store: store.find_tasks(wanted))
        return answer

    async def entries(self) -> list[Entry]:
        """
        Return every purchase, also those that failed, in the order in which they were intended.
        """
        answer: list[Entry] = await self._ask(lambda store: store.entries())
        return answer

    async def uploads(self, names: Iterable[str]) -> dict[str, str]:
        """
        Return the addresses of uploaded pictures, by their names; unknown ones are absent.
        """
        wanted = tuple(names)
        answer: dict[str, str] = await self._ask(lambda store: store.uploads(wanted))
        return answer

    async def note_upload(self, name: str, address: str, at: float) -> None:
        """
        Make it durable that a picture was uploaded to this address, at a time in Unix seconds.

        Raises:
            JournalError: the journal has failed.
        """
        await self._ask(lambda store: store.note_upload(name, address, at))

    async def reserve(
        self, key: str, price: float | None, max_videos: int | None, max_credits: float | None
    ) -> Spent:
        """
        Reserve the purchase of a key if it fits into the budget; returns what all other purchases have spent.

        Raises:
            JournalError: the journal has failed.
        """
        answer: Spent = await self._ask(lambda store: store.reserve(key, price, max_videos, max_credits))
        return answer

    async def reserve_purchases(self) -> dict[str, str]:
        """
        Reserve what was bought, or may have been, without a budget, and free what ended sessions have never sent.

        Returns the requests of all reserved purchases without a known price, by key.
        """
        answer: dict[str, str] = await self._ask(lambda store: store.reserve_purchases())
        return answer

    async def note_price(self, key: str, price: float) -> None:
        """
        Store the price of a reserved purchase.
        """
        await self._ask(lambda store: store.note_price(key, price))

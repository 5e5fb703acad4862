"""
Holds a session to its budget of videos and credits: a purchase is reserved before it is sent.

A reservation counts until it is certain that nothing was bought with it: the submit was refused, or the task failed,
which is not billed. So a crash, or a submit whose outcome is unknown, never lets more be bought. With a journal the
reservations are in it, and everything that was bought with the journal counts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Protocol

from attrs import define, field

from .._api.journal_text import load_request
from .._api.requests import Request
from .._api.wire import encode
from .._journal.facts import Spent
from .._journal.journal import AnyJournal
from .._policies import Limits
from ..errors import BudgetExceeded, ConfigurationError, JournalError

__all__ = ["Budget", "Prices"]

log = logging.getLogger("veo_async")


class Prices(Protocol):
    """
    Knows what requests cost.
    """

    async def price(self, endpoint: str, body: Mapping[str, Any]) -> float | None:
        """
        Return what a request with this body costs, in credits; None if that is not known.
        """
        ...


@define(eq=False)
class Budget:
    """
    Reserves purchases, as far as `Limits.max_videos` and `Limits.max_credits` allow.
    """

    limits: Limits
    prices: Prices | None
    journal: AnyJournal | None
    _reserved: dict[str, float | None] = field(init=False, factory=dict)  # by key, where there is no journal
    _spent: Spent = field(init=False, default=Spent(videos=0, credits=0.0, unpriced=0))  # by all of these

    @property
    def is_set(self) -> bool:
        """
        Whether there is any budget.
        """
        return self.limits.max_videos is not None or self.limits.max_credits is not None

    async def start(self) -> None:
        """
        Reserve what was bought with the journal without a budget, at today's prices.

        Raises:
            ConfigurationError: a budget of credits is set, and nobody knows prices.
        """
        if self.limits.max_credits is not None and self.prices is None:
            raise ConfigurationError(
                "max_credits needs to know prices: VeoSession(platform=AccountPlatform(), ...)"
            )
        if self.journal is None or not self.is_set:
            return
        unpriced = await self.journal.reserve_purchases()
        for key, text in unpriced.items() if self.limits.max_credits is not None else ():
            price, _ = await self._price_of_text(text)
            if price is not None:
                await self.journal.note_price(key, price)

    async def reserve(self, key: str, request: Request) -> None:
        """
        Make it durable that this purchase may be made.

        Raises:
            BudgetExceeded: it does not fit, or its price is not known and credits are limited.
        """
        if not self.is_set:
            return
        price, why = None, ""
        if self.limits.max_credits is not None:
            price, why = await self._price(request)
            if price is None:
                raise BudgetExceeded(
                    f"the price is not known, so it does not fit into a budget of credits{why}"
                )
        spent = await self._reserve(key, price, self.limits)
        if not spent.fits(price, self.limits.max_videos, self.limits.max_credits):
            raise BudgetExceeded(self._words(spent, price))

    async def count(self, key: str, request: Request) -> None:
        """
        Reserve what another process has bought, whether it fits or not.
        """
        if self.is_set:
            price = None if self.limits.max_credits is None else (await self._price(request))[0]
            with suppress(JournalError):  # after which nothing is bought
                await self._reserve(key, price, Limits())

    def release(self, key: str) -> None:
        """
        Take a reservation back, as nothing was bought; a journal needs no such word.
        """
        if key in self._reserved:
            self._spent = self._spent.without(self._reserved.pop(key))

    async def _reserve(self, key: str, price: float | None, limits: Limits) -> Spent:
        if self.journal is not None:
            return await self.journal.reserve(key, price, limits.max_videos, limits.max_credits)
        spent = self._spent.without(self._reserved[key]) if key in self._reserved else self._spent
        if spent.fits(price, limits.max_videos, limits.max_credits):
            self._reserved[key], self._spent = price, spent.plus(price)
        return spent

    async def _price(self, request: Request) -> tuple[float | None, str]:
        """
        Return a request's price, and why it is not known.
        """
        assert self.prices is not None, "without prices, there is no budget of credits"
        try:
            return await self.prices.price(request.endpoint, encode(request)), ""
        except Exception as error:  # whatever a platform does, it stops only what needs its price
            return None, f": {error}"

    async def _price_of_text(self, text: str) -> tuple[float | None, str]:
        try:
            request = load_request(text)
        except Exception as error:  # the text of another version
            return None, f": {error}"
        return await self._price(request)

    def _words(self, spent: Spent, price: float | None) -> str:
        limits = self.limits
        if limits.max_videos is not None and spent.videos >= limits.max_videos:
            return f"the budget of {limits.max_videos} videos is spent: as many were bought, or may have been"
        if spent.unpriced:
            return f"the prices of {spent.unpriced} earlier purchases are not known: all credits may be spent"
        return (
            f"{price:g} credits do not fit into the budget of {limits.max_credits:g}:"
            f" {spent.credits:g} are spent, or may be"
        )

"""
What the lines of a batch cost, by the platform's price list, which needs no token.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ... import ConfigurationError, PlatformError, Request, RetryPolicy
from ...platform import AccountPlatform
from ..ending import ACCOUNT_TOKEN, complain

__all__ = ["priced", "prices_of", "tell_if_too_dear", "total"]

PATIENCE: Final = 15.0  # seconds that a batch waits for the platform before it begins

API_ADDRESS: Final = "ACEDATACLOUD_API_BASE_URL"
PLATFORM_ADDRESS: Final = "ACEDATACLOUD_PLATFORM_BASE_URL"


async def tell_if_too_dear(
    requests: Mapping[str, Request], bought: Collection[str], speed: float
) -> dict[str, float | None]:
    """
    Say if the account's balance will not do for these requests, and return their prices, by key.

    Nothing else follows from the balance, as the platform's answers are not documented.

    Args:
        bought: the keys that cost nothing more, as they were bought before.
    """
    if not os.environ.get(ACCOUNT_TOKEN):
        return {}
    try:
        async with (
            asyncio.timeout(PATIENCE),
            AccountPlatform(retry=RetryPolicy().scaled(1 / speed)) as platform,
        ):
            left = await platform.balance()
            prices = {key: await platform.request_price(request) for key, request in requests.items()}
    except (ConfigurationError, PlatformError, TimeoutError) as error:
        complain(f"note: the balance was not checked: {str(error) or 'no answer came in time'}")
        return {}
    due = [price for key, price in prices.items() if key not in bought]
    known = sum(price for price in due if price is not None)
    if left is not None and known and known > left:
        least = "" if None not in due else "at least "
        complain(f"note: this costs {least}{known:,.2f} credits, and the account has {left:,.2f} left")
    return prices


async def prices_of(requests: Sequence[Request], speed: float) -> list[float | None]:
    """
    Return the price of each request in credits; None where it is not known. A price that cannot be had is noted.
    """
    nowhere: list[float | None] = [None] * len(requests)
    if os.environ.get(API_ADDRESS) and not os.environ.get(PLATFORM_ADDRESS):
        return nowhere  # another API than the public one has other prices
    async with AccountPlatform(retry=RetryPolicy().scaled(1 / speed)) as platform:
        try:
            return [await platform.request_price(request) for request in requests]
        except PlatformError as error:
            complain(f"note: the prices are not known: {error}")
            return nowhere


def total(prices: Sequence[float | None]) -> float | None:
    """
    Sum prices up; None if one of them is not known.
    """
    known = [price for price in prices if price is not None]
    return round(sum(known), 6) if len(known) == len(prices) else None


def priced(prices: Sequence[float | None]) -> str:
    """
    Tell in words what several requests cost; empty if no price is known.
    """
    known = [price for price in prices if price is not None]
    if not known:
        return ""
    more = f" and {len(prices) - len(known):,} without a known price" if len(known) < len(prices) else ""
    return f", {sum(known):,.2f} credits{more}"

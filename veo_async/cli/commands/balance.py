"""
`veo-async balance`: what the account has left, by the platform.
"""

from __future__ import annotations

import json

import click

from ... import RetryPolicy
from ...platform import AccountPlatform
from ..ending import ACCOUNT_TOKEN, FAILED, FINE, complain, run
from ..options import positive

__all__ = ["balance"]


@click.command(short_help="Tell the credits that the account has left.")
@click.option("--user-id", metavar="ID", help="The account's own id, if the platform asks for it.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object.")
@click.option("--speed", type=positive, default=1.0, envvar="VEO_ASYNC_SPEED", hidden=True)
def balance(*, user_id: str | None, as_json: bool, speed: float) -> None:
    """
    Tell the credits that the account has left, by the vendor's platform. It takes the account token, in
    ACEDATACLOUD_PLATFORM_TOKEN, and not the token of the API.
    """
    run(_balance(user_id, RetryPolicy().scaled(1 / speed), as_json=as_json))


async def _balance(user_id: str | None, retry: RetryPolicy, *, as_json: bool) -> int:
    async with AccountPlatform(retry=retry) as platform:
        found = await platform.balance(user_id)
    if found is None:
        complain(
            "the platform's answer names no balance of this account.",
            f"Check {ACCOUNT_TOKEN}; --user-id names the account, as the records of its tasks do.",
        )
        return FAILED
    click.echo(json.dumps({"credits": found}) if as_json else f"{found:,.2f} credits")
    return FINE

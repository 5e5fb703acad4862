"""
`veo-async doctor`: tells which settings are in use and where they come from, whether the API answers, and where its
contract differs from what this version knows.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from platform import python_version
from typing import Final

import aiohttp
import click
from attrs import asdict, frozen

from ... import Limits, RetryPolicy, VeoSession, __version__
from ..._session.credentials import base_url_from, is_on_this_machine, token_from
from ...errors import ConfigurationError, VeoError
from ...platform import AccountPlatform
from ..advice import lines
from ..ending import FAILED, FINE, NO_TOKEN, run
from ..environment import ACCOUNT_TOKEN, ADDRESS, ENV_FILE, PLATFORM_ADDRESS, SPEED, TOKEN
from ..words import plural, printable

__all__ = ["LONGEST", "ask", "doctor"]

BEGINNING: Final = "platform-"  # of an account token
WRONG_KIND: Final = (
    f"this is an account token, which only the platform takes, and belongs in {ACCOUNT_TOKEN}:"
    " the API takes a generation key, which is made at https://platform.acedata.cloud"
)
LONGEST: Final = 15.0  # seconds to wait for the API
IMPATIENT: Final = RetryPolicy(first=0.1, max_delay=0.5)  # somebody is waiting for the answer
NAME_WIDTH: Final = 11


@frozen(kw_only=True)
class Finding:
    """
    One thing that was looked at.

    Attributes:
        name: what was looked at.
        found: what was found; of the token, its length alone.
        source: the option, the environment or the file that sets it; None for what nobody sets.
        problem: what is wrong, and what to do about it, or None.
    """

    name: str
    found: str
    source: str | None = None
    problem: str | None = None


@click.command(short_help="Check the settings, and whether the API answers.")
@click.option("--base-url", metavar="URL", help="Another address of the API.")
@click.option("--json", "as_json", is_flag=True, help="Write what was found as a JSON object.")
@click.pass_obj
def doctor(from_file: Sequence[str] | None, *, base_url: str | None, as_json: bool) -> None:
    """
    Tell which tokens and which address are in use and where they come from, ask the API and the platform questions
    that are free, and compare the platform's contract with the built-in table of models.

    A token itself is never shown, and that of the API is sent only if it can be one. Exit status: 0 if all is well,
    1 if something is wrong.
    """
    run(_examine(base_url, from_file or (), as_json=as_json))


async def _examine(base_url: str | None, from_file: Sequence[str], *, as_json: bool) -> int:
    settings = [_token(from_file), _address(base_url, from_file), *_speed(base_url, from_file)]
    may_ask = not any(one.problem for one in settings)
    asked = [_api(base_url) if may_ask else _not_asked("api"), _account(from_file), _contract(base_url)]
    findings = [*_versions(), *settings, *await asyncio.gather(*asked)]
    ok = not any(one.problem for one in findings)
    if as_json:
        click.echo(json.dumps({"ok": ok, "findings": [asdict(one) for one in findings]}))
    else:
        _show(findings)
    return FINE if ok else FAILED


def _show(findings: Sequence[Finding]) -> None:
    for one in findings:
        source = f", from {one.source}" if one.source else ""
        click.echo(f"{one.name:<{NAME_WIDTH}}{printable(one.found)}{source}")
        if one.problem:
            click.echo(f"{'':<{NAME_WIDTH}}WRONG: {printable(one.problem)}")


def _versions() -> list[Finding]:
    versions = {"veo-async": __version__, "Python": python_version(), "aiohttp": aiohttp.__version__}
    return [Finding(name=name, found=version) for name, version in versions.items()]


def _token(from_file: Sequence[str]) -> Finding:
    token = os.environ.get(TOKEN)
    if not token:
        return Finding(name="token", found="none", problem=NO_TOKEN)
    found = f"set, {plural(len(token), 'character')}"
    return Finding(name="token", found=found, source=_source(TOKEN, from_file), problem=_problem_with(token))


def _problem_with(token: str) -> str | None:
    if token.startswith(BEGINNING):
        return WRONG_KIND
    try:
        token_from(token)
    except ConfigurationError as error:
        return str(error)
    return None


def _address(base_url: str | None, from_file: Sequence[str]) -> Finding:
    source = "--base-url" if base_url else _source(ADDRESS, from_file)
    try:
        return Finding(name="address", found=base_url_from(base_url), source=source)
    except ConfigurationError as error:
        return Finding(name="address", found="cannot be used", source=source, problem=str(error))


def _speed(base_url: str | None, from_file: Sequence[str]) -> Iterator[Finding]:
    speed = os.environ.get(SPEED)
    if speed and speed != "1":
        yield Finding(
            name="speed", found=speed, source=_source(SPEED, from_file), problem=_too_quick(base_url)
        )


def _too_quick(base_url: str | None) -> str | None:
    try:
        is_here = is_on_this_machine(base_url_from(base_url))
    except ConfigurationError:  # which is told of the address
        return None
    return None if is_here else f"it is for a simulator on this machine: unset {SPEED}"


def _source(name: str, from_file: Sequence[str]) -> str | None:
    if name in from_file:
        return ENV_FILE
    return "the environment" if os.environ.get(name) else None


async def _api(base_url: str | None) -> Finding:
    try:
        async with asyncio.timeout(LONGEST):
            await ask(base_url)
    except VeoError as error:
        return Finding(name="api", found="no good answer", problem=". ".join(lines(error)))
    except TimeoutError:
        words = f"there was no good answer in {LONGEST:g} seconds: check the network and the address"
        return Finding(name="api", found="no answer", problem=words)
    return Finding(name="api", found="answers, and takes the token")


async def _not_asked(name: str) -> Finding:
    return Finding(name=name, found="not asked")


async def _account(from_file: Sequence[str]) -> Finding:
    """
    Ask the platform for the balance, which shows whether it takes the account token; most commands need none.
    """
    token = os.environ.get(ACCOUNT_TOKEN)
    if not token:
        return Finding(
            name="account", found=f"no token in {ACCOUNT_TOKEN}: uploads, balances and audits need one"
        )
    source = _source(ACCOUNT_TOKEN, from_file)
    try:
        async with asyncio.timeout(LONGEST), AccountPlatform(retry=IMPATIENT) as platform:
            left = await platform.balance()
    except (VeoError, TimeoutError) as error:
        problem = str(error) or "the platform did not answer"
        return Finding(name="account", found="no good answer", source=source, problem=problem)
    balance = "the platform names no balance" if left is None else f"{left:,.2f} credits left"
    return Finding(name="account", found=f"set, {plural(len(token), 'character')}; {balance}", source=source)


async def _contract(base_url: str | None) -> Finding:
    """
    Compare the contract with the built-in tables: a difference is worth knowing, and no fault of the user's.
    """
    if (base_url or os.environ.get(ADDRESS)) and not os.environ.get(PLATFORM_ADDRESS):
        return await _not_asked("contract")  # the public platform knows nothing of another server
    try:
        async with asyncio.timeout(LONGEST), AccountPlatform(retry=IMPATIENT) as platform:
            differences = await platform.contract_differences()
    except (VeoError, TimeoutError) as error:
        return Finding(name="contract", found=f"not known: {str(error) or 'the platform did not answer'}")
    if differences is None:
        return Finding(name="contract", found="lists no models")
    return Finding(name="contract", found="; ".join(differences) or "as the built-in table of models")


async def ask(base_url: str | None) -> None:
    """
    Ask the API a question that is free, which shows whether it takes the token.

    Raises:
        VeoError: it refused the token, or gave no good answer.
    """
    limits = Limits(connect=LONGEST / 3, read=LONGEST)
    session = VeoSession(base_url=base_url, retry=IMPATIENT, limits=limits)
    async with session as veo, aclosing(veo.list_tasks(limit=1)) as tasks:
        async for _ in tasks:
            break

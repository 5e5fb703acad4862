"""
What the command reads from the environment, and from a file `.env` in the working directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Final

import click

__all__ = ["ACCOUNT_TOKEN", "ADDRESS", "ENV_FILE", "PLATFORM_ADDRESS", "SPEED", "TOKEN", "read_env_file"]

ENV_FILE: Final = ".env"
TOKEN: Final = "ACEDATACLOUD_API_TOKEN"
ADDRESS: Final = "ACEDATACLOUD_API_BASE_URL"
ACCOUNT_TOKEN: Final = "ACEDATACLOUD_PLATFORM_TOKEN"
PLATFORM_ADDRESS: Final = "ACEDATACLOUD_PLATFORM_BASE_URL"
SPEED: Final = "VEO_ASYNC_SPEED"
_ADDRESS_OF: Final = {TOKEN: ADDRESS, ACCOUNT_TOKEN: PLATFORM_ADDRESS}  # where a token is sent
_NAMES: Final = (*_ADDRESS_OF, *_ADDRESS_OF.values(), SPEED, "VEO_ASYNC_DATABASE")
_LINE: Final = re.compile(
    r"""\s* (?:export\s+)? (?P<name>\w+) \s*=\s* (?: "(?P<double>[^"]*)" | '(?P<single>[^']*)' | (?P<bare>[^"'\s\#].*?)? )
        \s* (?:\s\#.*)?""",
    re.VERBOSE,
)


def read_env_file() -> tuple[str, ...]:
    """
    Put what `.env` says into the environment, as the vendor's tools do; returns the names that it has set.

    Only names that this command knows count, and what the environment has already stays. A line is `NAME=value`,
    perhaps with `export` before it, quotes around the value, or a comment after it; the value is taken as it is.

    Exits with status 2 if the file chooses where a token goes that is not from the file: else any directory with
    a file `.env` could have the token sent to it.
    """
    found = {name: value for name, value in _settings() if name not in os.environ}
    for token, address in _ADDRESS_OF.items():
        if address in found and token in os.environ:
            _say(
                f"{ENV_FILE} sets {address}, but {token} is set outside of it, and would be sent to that address."
            )
            click.echo("  Set both in the same place.", err=True)
            sys.exit(2)
    os.environ.update(found)
    if found:
        _say(f"note: read from {ENV_FILE}: {', '.join(found)}")
    return tuple(found)


def _settings() -> Iterator[tuple[str, str]]:
    """
    Yield the settings of the file; reports a line that names one and cannot be read, without its value.
    """
    for number, line in enumerate(_lines(), start=1):
        match = _LINE.fullmatch(line)
        value = match and (match["double"] or match["single"] or match["bare"])
        if match and value and match["name"] in _NAMES:
            yield match["name"], value
        elif not match and any(re.match(rf"\s*(export\s+)?{name}\b", line) for name in _NAMES):
            _say(f"note: line {number} of {ENV_FILE} is not NAME=value, and is not used")


def _lines() -> list[str]:
    if not os.path.isfile(ENV_FILE):  # a virtual environment may have this name
        return []
    try:
        with open(ENV_FILE, encoding="utf-8-sig", errors="replace") as file:
            return (
                file.read().replace("\0", "\N{REPLACEMENT CHARACTER}").splitlines()
            )  # no variable can hold it
    except OSError as error:
        _say(f"note: {ENV_FILE} cannot be read: {error.strerror}")
        return []


def _say(words: str) -> None:
    click.echo(f"veo-async: {words}", err=True)

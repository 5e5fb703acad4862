"""
The token and the API's address, from arguments or the environment.
"""

from __future__ import annotations

import logging
import os
import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from .._http.failures import SHORTEST_REDACTED
from ..errors import ConfigurationError

__all__ = [
    "PLATFORM",
    "PUBLIC_ADDRESS",
    "base_url_from",
    "check_placeholder",
    "check_token",
    "is_on_this_machine",
    "token_from",
]

PUBLIC_ADDRESS: Final = "https://api.acedata.cloud"
PLATFORM: Final = "https://platform.acedata.cloud"
TOKEN_VARIABLE: Final = "ACEDATACLOUD_API_TOKEN"  # [C] what the vendor's own tools read
ADDRESS_VARIABLE: Final = "ACEDATACLOUD_API_BASE_URL"  # [C] likewise

log = logging.getLogger("veo_async")


def token_from(token: str | None) -> str:
    """
    Check the token, or take it from `ACEDATACLOUD_API_TOKEN`; no error or log message contains it.

    Raises:
        ConfigurationError: there is no token, or it cannot be sent in a header.
    """
    source = "the token" if token is not None else TOKEN_VARIABLE
    token = token if token is not None else os.environ.get(TOKEN_VARIABLE)
    if not token:
        raise ConfigurationError(
            f"no token: pass one to VeoSession, or set {TOKEN_VARIABLE}; {PLATFORM} has yours,"
            " and veo_async.simulator needs none"
        )
    check_token(token, source)
    return token


def check_token(token: str, source: str) -> None:
    """
    Check that a token can be sent in a header; warn in the log about one that is too short to be redacted.

    Raises:
        ConfigurationError: it cannot.
    """
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        words = f"{source} holds a space, a line break or another character that no token has"
        hint = ": was it read from a file, with its line break?" if token[-1] in "\r\n" else ""
        raise ConfigurationError(words + hint)
    if len(token) < SHORTEST_REDACTED:
        # Logged, not warned: a program that turns warnings into errors may use a short token in its tests.
        log.warning(
            "%s has less than %d characters: it cannot be told from other words if the server repeats it,"
            " so it may show in errors, logs and journals",
            source,
            SHORTEST_REDACTED,
        )


def base_url_from(
    base_url: str | None, *, variable: str = ADDRESS_VARIABLE, default: str = PUBLIC_ADDRESS
) -> str:
    """
    Check an address, by default the API's, or take it from the environment, or use the public one.

    Raises:
        ConfigurationError: it is not https (http is for loopback only), or has more than a host and a path.
    """
    address = (base_url or os.environ.get(variable) or default).strip()
    if problem := _problem_with(address):
        source = "" if base_url else f" (from {variable})"
        raise ConfigurationError(f"the base URL {_bare(address)!r}{source} {problem}")
    return address.rstrip("/")


def is_on_this_machine(base_url: str) -> bool:
    """
    Tell whether an address that `base_url_from` has checked is of this machine.
    """
    return _is_loopback(urlsplit(base_url).hostname or "")


def check_placeholder(_: object, __: object, placeholder: object) -> None:
    """
    Check a callback URL that will carry marks.

    Raises:
        ConfigurationError: it is not an http or https address, or has a fragment.
    """
    if placeholder is None or placeholder is ...:
        return
    if not isinstance(placeholder, str) or not re.fullmatch(r"https?://[^\s/?#]+[^\s#]*", placeholder):
        raise ConfigurationError(
            f"placeholder must be an http or https address without a fragment, or None, not {placeholder!r}"
        )


def _problem_with(address: str) -> str | None:
    if "://" not in address:
        return f"has no scheme: write it like {_with_scheme(_bare(address))}"
    try:
        parts = urlsplit(address)
        _ = parts.port  # urlsplit checks the port only when it is read
    except ValueError as error:
        return f"is malformed: {error}"
    return _problem_of(parts)


def _with_scheme(bare: str) -> str:
    """
    Add the scheme to an address such as `localhost:8750`; for anything else, return the public address.
    """
    found = re.fullmatch(r"(\[[0-9a-f:]+\]|[\w.-]+)(:[0-9]+)?(/.*)?", bare)
    if found is None:
        return PUBLIC_ADDRESS
    return f"{'http' if _is_loopback(found[1].strip('[]')) else 'https'}://{bare}"


def _problem_of(parts: SplitResult) -> str | None:
    if parts.scheme not in {"http", "https"}:
        return f"is not an http or https address: write it like {PUBLIC_ADDRESS}"
    if not parts.hostname:
        return f"names no host: write it like {PUBLIC_ADDRESS}"
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        return "must be https: the token would travel in the clear"
    if parts.username is not None or parts.query or parts.fragment:
        return "must hold a host and a path only"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere
        return False


def _bare(address: str) -> str:
    """
    Strip what may be secret: the user and password before the host, and everything after the path.
    """
    scheme, mark, rest = address.rpartition("://") if "://" in address else ("", "", address)
    place, slash, path = re.split(r"[?#]", rest)[0].partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"

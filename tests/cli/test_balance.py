"""
`veo-async balance`, and a batch that the balance will not do for.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ..terminal import Finished, Served, invoke, served

TOKEN = {"ACEDATACLOUD_PLATFORM_TOKEN": "platform-simulator-token"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def call(server: Served, *arguments: str, given: str | None = None, **changes: str) -> Finished:
    return invoke(*arguments, environment=server.environment | TOKEN | changes, given=given)


def batch(server: Served, *arguments: str, **changes: str) -> Finished:
    return call(server, "batch", "-", "--out", "out", *arguments, given="a\nb\n", **changes)


def test_the_balance_shrinks_by_what_is_bought() -> None:
    """It is told as a number, or as JSON; a batch that it will do for says nothing."""
    with served(credits=2.0) as server:
        assert "2.00 credits\n" == call(server, "balance").out
        assert "credits, and the account" not in batch(server).err
        assert {"credits": 0.7} == json.loads(call(server, "balance", "--json", "--user-id", "me").out)


def test_a_batch_that_costs_more_than_there_is_says_so_first() -> None:
    """It is a note: the platform is not documented, so it stops nothing; what was bought before costs nothing."""
    with served(credits=1.0) as server:
        result = batch(server)
        assert "note: this costs 1.30 credits, and the account has 1.00 left" in result.err
        assert (0, 2) == (result.status, server.core.accepted)
        assert "credits, and the account" not in batch(server).err


@pytest.mark.parametrize(
    ("settings", "token", "words"),
    [
        ({}, "", "there is no account token: set ACEDATACLOUD_PLATFORM_TOKEN"),
        ({}, "platform-of-nobody", "status 401: it refused the account token"),
        ({"platform": "absent"}, None, "status 404: it does not know that address"),
        ({"platform": "failing"}, None, "status 500: it failed: try again later"),
        ({"platform": "html"}, None, "cannot be read: the reply is not JSON: a page titled 'Bad Gateway'"),
        ({"platform": "other"}, None, "the platform's answer names no balance of this account"),
    ],
)
def test_what_is_out_of_order_is_told(settings: dict[str, Any], token: str | None, words: str) -> None:
    """`balance` fails with a sentence, and a batch goes on."""
    changes = {} if token is None else {"ACEDATACLOUD_PLATFORM_TOKEN": token}
    with served(**settings) as server:
        result = call(server, "balance", **changes)
        assert (1, "") == (result.status, result.out)
        assert words in " ".join(result.err.split())
        assert 0 == batch(server, **changes).status

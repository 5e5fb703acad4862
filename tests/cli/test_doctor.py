"""
What `veo-async doctor` tells about the settings and the API.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import veo_async
from veo_async import RetryPolicy
from veo_async.cli.commands import doctor

from ..terminal import Served, invoke, served

TOKEN, ADDRESS = "ACEDATACLOUD_API_TOKEN", "ACEDATACLOUD_API_BASE_URL"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def found(*arguments: str, status: int, **environment: str) -> dict[str, dict[str, Any]]:
    """
    Have the command look, check its exit status, and return its findings by name.
    """
    result = invoke("doctor", "--json", *arguments, environment=environment)
    told = json.loads(result.out)
    assert (status, status == 0) == (result.status, told["ok"])
    return {one["name"]: one for one in told["findings"]}


def test_all_is_well(server: Served) -> None:
    """Versions, settings and the API's answer are told in a line each; a free question is asked, and nothing bought."""
    result = invoke("doctor", environment=server.environment)
    names = [line.split()[0] for line in result.out.splitlines()]
    expected = ["veo-async", "Python", "aiohttp", "token", "address", "speed", "api", "account", "contract"]
    assert (0, expected) == (result.status, names)
    told = found(status=0, **server.environment)
    versions = [veo_async.__version__, aiohttp.__version__, "answers, and takes the token"]
    assert versions == [told[name]["found"] for name in ("veo-async", "aiohttp", "api")]
    assert "set, 15 characters" == told["token"]["found"]
    assert (server.url, "the environment") == (told["address"]["found"], told["address"]["source"])
    assert 0 == server.core.accepted


def test_settings_tell_where_they_come_from(server: Served) -> None:
    """An option comes before the environment, the environment before the file, and all before what is built in."""
    Path(".env").write_text(f"{TOKEN}={server.environment[TOKEN]}\n{ADDRESS}={NOWHERE}\n")
    flag = found("--base-url", server.url, status=0)
    assert [".env", "--base-url"] == [flag[name]["source"] for name in ("token", "address")]
    environment = found(status=0, **{ADDRESS: server.url})
    assert [".env", "the environment"] == [environment[name]["source"] for name in ("token", "address")]
    Path(".env").unlink()
    nothing = found(status=1)["address"]
    assert ("https://api.acedata.cloud", None) == (nothing["found"], nothing["source"])


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "no token: set ACEDATACLOUD_API_TOKEN"),
        ("platform-0123456789", "an account token, which only the platform takes"),
        ("with a space", "holds a space, a line break or another character"),
    ],
)
def test_a_token_that_cannot_be_the_apis_is_not_sent(server: Served, token: str, words: str) -> None:
    """What is wrong with it is told without it, and the API is not asked."""
    before = server.core.requests.total()
    told = found(status=1, **(server.environment | {TOKEN: token}))
    assert words in told["token"]["problem"]
    assert ("not asked", before) == (told["api"]["found"], server.core.requests.total())
    assert not token or token not in json.dumps(told)


def test_an_address_that_cannot_be_used(server: Served) -> None:
    """It is not asked, and the reason is told without what may be secret in it."""
    told = found("--base-url", "https://me:secret@example.com", status=1, **server.environment)
    assert "must hold a host and a path only" in told["address"]["problem"]
    assert ("not asked", False) == (told["api"]["found"], "secret" in json.dumps(told))


def test_a_token_that_the_api_refuses(server: Served) -> None:
    """The API's words are told, and what to do."""
    result = invoke("doctor", environment=server.environment | {TOKEN: "someone-elses"})
    assert 1 == result.status
    assert "WRONG: invalid_token: " in result.out
    assert "Check the token in ACEDATACLOUD_API_TOKEN" in result.out


@pytest.mark.parametrize(
    ("longest", "words"), [(60.0, "failed: "), (1e-9, "there was no good answer in 1e-09 seconds")]
)
def test_an_api_that_does_not_answer(
    server: Served, monkeypatch: pytest.MonkeyPatch, longest: float, words: str
) -> None:
    """Where nobody answers, the cause is told if it is known, and nobody waits for long."""
    monkeypatch.setattr(doctor, "LONGEST", longest)
    monkeypatch.setattr(doctor, "IMPATIENT", RetryPolicy().scaled(0.001))
    assert words in found(status=1, **(server.environment | {ADDRESS: NOWHERE}))["api"]["problem"]


# --- the contract ----------------------------------------------------------------------------------------


def test_a_contract_that_says_the_same_is_told(server: Served) -> None:
    """The simulator's contract is that of the newest documents, as is the built-in table."""
    told = found(status=0, **server.environment)
    assert "as the built-in table of models" == told["contract"]["found"]


def test_a_contract_that_differs_is_told_and_is_no_fault() -> None:
    """What is new, what is back, and what is gone: a newer version of this package may know it."""
    retired = ("veo2-fast", "veo3")
    with served(retired_models=retired, aspect_ratios=("16:9", "9:16", "1:1", "2:1")) as server:
        told = found(status=0, **server.environment)["contract"]
    assert None is told["problem"]
    assert [
        "model veo2: retired by this version",
        "model veo3: no longer in the contract",
        "aspect_ratio 2:1: not known to this version",
        "aspect_ratio 1:1: retired by this version",
    ] == told["found"].split("; ")


@pytest.mark.parametrize(
    ("platform", "words"),
    [("absent", "not known: the platform answered with status 404"), ("other", "lists no models")],
)
def test_without_a_contract_all_may_be_well(platform: str, words: str) -> None:
    """The platform's word is worth having, and needed by nobody."""
    with served(platform=platform) as server:
        assert words in found(status=0, **server.environment)["contract"]["found"]


def test_the_public_platform_is_not_asked_of_another_server(server: Served) -> None:
    """It knows the contract of the public API alone."""
    environment = server.environment | {"ACEDATACLOUD_PLATFORM_BASE_URL": ""}
    assert "not asked" == found(status=0, **environment)["contract"]["found"]


def test_a_path_too_many_is_looked_for_in_the_address(server: Served) -> None:
    """An endpoint that is not there may be off, or the address may be wrong; models have nothing to do with it."""
    told = found("--base-url", f"{server.url}/v1", status=1, **server.environment)["api"]
    assert "check the base URL, which has a path only behind" in told["problem"]


# --- the account -----------------------------------------------------------------------------------------


def test_an_account_token_that_the_platform_takes_is_told_with_what_is_left(server: Served) -> None:
    """Its length and the balance; where there is none, what one is for."""
    token = next(iter(server.core.platform.tokens))
    told = found(status=0, **server.environment, ACEDATACLOUD_PLATFORM_TOKEN=token)["account"]
    assert f"set, {len(token)} characters; 100.00 credits left" == told["found"]
    assert (
        "no token in ACEDATACLOUD_PLATFORM_TOKEN" in found(status=0, **server.environment)["account"]["found"]
    )


def test_an_account_token_that_is_refused_is_wrong(server: Served) -> None:
    """Else uploads and audits would be the first to tell."""
    told = found(status=1, **server.environment, ACEDATACLOUD_PLATFORM_TOKEN="platform-of-nobody")
    assert "it refused the account token" in told["account"]["problem"]
    assert None is told["api"]["problem"]


# --- the speed -------------------------------------------------------------------------------------------


def test_a_speed_is_for_a_simulator(server: Served) -> None:
    """One that is left in the environment would be too quick for the API, so no command uses it there."""
    there = {TOKEN: "a-token-of-someone", ADDRESS: "https://api.example", "VEO_ASYNC_SPEED": "20"}
    told = found(status=1, **there)
    assert "it is for a simulator on this machine: unset VEO_ASYNC_SPEED" == told["speed"]["problem"]
    assert "not asked" == told["api"]["found"]
    refused = invoke("generate", "a whale", environment=there)
    assert (2, True) == (refused.status, "is for a simulator, and not for https://api.example" in refused.err)
    assert "speed" not in found(status=0, **server.environment | {"VEO_ASYNC_SPEED": "1"})

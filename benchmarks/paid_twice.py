"""
How many paid submits one call costs, where the server reads the POST and then does not answer as it should.

    python benchmarks/paid_twice.py              # this package and the vendor's
    python benchmarks/paid_twice.py --peers      # and others from PyPI, in a temporary environment made here

Every POST meets the same: the connection is dropped, the answer is a 502, or there is none until the client's
time-out. Clients have their default settings, except that the time-out is shortened, by each client's own public
setting, for the third column. Exit status 1 unless this package buys once each time, and keeps the task's id.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any, Final

from _peers import CALLS

from veo_async.simulator import Faults, Simulator

HERE: Final = Path(__file__).parent
OF_THIS_API: Final = ("veo-async", "acedatacloud")
PEERS: Final = {name: name for name in CALLS if name not in OF_THIS_API} | {
    "google-genai": "google-genai[aiohttp]"
}
TIMEOUT: Final = 1.0  # seconds
RUN_LIMIT: Final = 180.0  # seconds, after which a call counts as hung
MISHAPS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "drops the connection": ("drop_after", {}),
    "answers 502": ("status_after", {"status": 502}),
    "hangs past the time-out": ("stall_after", {}),
}
BAD_GATEWAY: Final = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
Found = dict[str, Any]
Served = tuple[str, str, Collection[object]]  # the address, a token, and what was paid for

# --- the servers -----------------------------------------------------------------------------------------


@asynccontextmanager
async def veo_server(mishap: str) -> AsyncIterator[Served]:
    """
    The API itself: every submit is accepted, and meets the mishap; lookups and listings work.
    """
    kind, details = MISHAPS[mishap]
    faults = Faults().add(kind, on="submit", **details)
    async with Simulator(faults=faults) as simulator:
        yield simulator.url, simulator.token, simulator.core.tasks


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """
    Read one request whole, and return its method.
    """
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), None)
    if length is not None:
        await reader.readexactly(length)
    elif b"transfer-encoding: chunked" in lines:
        await reader.readuntil(b"0\r\n\r\n")
    return head.split(b" ", 1)[0]


@asynccontextmanager
async def any_server(mishap: str) -> AsyncIterator[Served]:
    """
    Any API: counts the POSTs, which meet the mishap.
    """
    posts: list[object] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                if await read_request(reader) == b"POST":
                    posts.append(None)
                if mishap == "answers 502":
                    writer.write(BAD_GATEWAY)
                    continue
                if mishap == "hangs past the time-out":
                    await reader.read()  # until the client leaves
                break
        except (EOFError, ConnectionError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "a-token", posts


# --- measuring -------------------------------------------------------------------------------------------

Server = Callable[[str], AbstractAsyncContextManager[Served]]


async def run(*command: str) -> str:
    """
    Run a program to its end, and return what it printed.
    """
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(RUN_LIMIT):
            printed, complaints = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}: {complaints.decode()[-500:]}")
    return printed.decode()


async def call(python: str, client: str, server: Server, mishap: str) -> Found:
    """
    Let one client buy one video, and count what it bought.
    """
    async with server(mishap) as (url, token, paid):
        command = [python, str(HERE / "_peers.py"), client, "--url", url, "--token", token]
        if mishap == "hangs past the time-out":
            command += ["--timeout", str(TIMEOUT)]
        try:
            found: Found = json.loads(await run(*command))
        except TimeoutError:
            found = {"version": "", "returned": None, "raised": "never ended"}
        return found | {"paid": len(paid), "kept": found["raised"] is None and found["returned"] in paid}


async def row(python: str, client: str, server: Server) -> Found:
    """
    Measure a client; the mishaps have a server each, so they go side by side.
    """
    calls = await asyncio.gather(*(call(python, client, server, mishap) for mishap in MISHAPS))
    return {"client": client, "version": calls[0]["version"], **dict(zip(MISHAPS, calls, strict=True))}


async def installed(folder: str, client: str) -> str | None:
    """
    Make an environment with one client in it; returns its interpreter, or None where it does not install.
    """
    place = Path(folder) / client
    python = str(place / "bin" / "python")
    try:
        await run(sys.executable, "-m", "venv", str(place))
        await run(python, "-m", "pip", "install", "--quiet", PEERS[client])
    except (RuntimeError, TimeoutError) as error:
        print(f"{client} cannot be installed: {error}", file=sys.stderr)
        return None
    return python


async def measure(*, peers: bool, clients: Collection[str] = OF_THIS_API) -> list[Found]:
    """
    Measure this package and the vendor's, and the others where wanted.
    """
    rows = [await row(sys.executable, client, veo_server) for client in clients]
    with tempfile.TemporaryDirectory(prefix="veo-peers-") as folder:
        pythons = {client: await installed(folder, client) for client in (PEERS if peers else ())}
        others = [await row(python, client, any_server) for client, python in pythons.items() if python]
    return rows + others


# --- printing --------------------------------------------------------------------------------------------


def cell(found: Found) -> str:
    ending = "the id is kept" if found["kept"] else found["raised"]
    return f"{found['paid']} ({ending})"


def table(rows: list[Found]) -> str:
    """
    The rows for people: paid submits of one call, and how it ended.
    """
    lines = [["", *MISHAPS]]
    lines += [
        [f"{row['client']} {row['version']}", *(cell(row[mishap]) for mishap in MISHAPS)] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
    return f"Paid submits of one call, where the server reads the POST and then ...\n\n{text}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", action="store_true", help="measure other clients too: installs from PyPI")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    rows = asyncio.run(measure(peers=chosen.peers))
    ours = [rows[0][mishap] for mishap in MISHAPS]
    met = all(found["paid"] == 1 and found["kept"] for found in ours)
    if chosen.json:
        print(json.dumps({"timeout": TIMEOUT, "rows": rows, "met": met}, indent=2))
    else:
        print(table(rows))
        print(f"\nwanted of veo-async: 1, 1, 1, and the id kept: {'met' if met else 'MISSED'}")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())

"""
`veo-async listen`: shows what arrives at a callback URL, to set up a tunnel or a reverse proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click
from aiohttp import web
from attrs import define

from ...receiver import read_payload
from ..ending import FINE, listening, run
from ..options import port_number
from ..words import printable, shortened

__all__ = ["listen"]

PORT: Final = 8751
PATH: Final = 60  # characters
MESSAGE: Final = 80  # characters


@click.command(short_help="Print callbacks as they come, for setting things up.")
@click.option(
    "--port",
    type=port_number,
    default=PORT,
    show_default=True,
    metavar="N",
    help="0 takes a free one.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    metavar="ADDRESS",
    help="0.0.0.0 is everywhere.",
)
@click.option("--json", "as_json", is_flag=True, help="Print each body on stdout, as one line of JSON.")
def listen(port: int, host: str, as_json: bool) -> None:
    """
    Print callbacks as they come, on any path, until Ctrl-C.

    Nothing is done with them. Point your tunnel or reverse proxy at this port, pass its public address to
    `veo-async generate --callback-url`, and see what gets through.
    """
    run(_serve(host, port, _Printer(as_json)))


async def _serve(host: str, port: int, printer: _Printer) -> int:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", printer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        with listening("--port", port):
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        name, number = runner.addresses[0][:2]
        name = f"[{name}]" if ":" in name else name
        click.echo(f"# Listening at http://{name}:{number}, on any path; Ctrl-C ends this.", err=True)
        # Ctrl-C is the normal end of a server, so it is not a failure.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    finally:
        await runner.cleanup()
    return FINE


@define(eq=False)
class _Printer:
    """
    Answers like a receiver, and prints each request.
    """

    as_json: bool

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.method != "POST":
            self._tell(request, "a callback is a POST")
            return web.Response(status=405, headers={"Allow": "POST"})
        try:
            payload = await read_payload(request)
        except web.HTTPException as refusal:
            self._tell(request, f"{refusal.status}: {refusal.reason}")
            raise
        self._tell(request, _gist(payload))
        if self.as_json and payload is not None:
            click.echo(json.dumps(payload))
        return web.Response(status=204)

    def _tell(self, request: web.Request, words: str) -> None:
        now, path = datetime.now().strftime("%H:%M:%S"), shortened(request.path, PATH)
        click.echo(f"{now}  {printable(request.method)}  {path}  {words}", err=self.as_json)


def _gist(payload: object) -> str:
    """
    Describe a callback in one line.
    """
    if not isinstance(payload, Mapping):
        return "not a JSON object, so not a callback of the API"
    task_id = payload.get("task_id")
    if not isinstance(task_id, str):
        return "no task_id, so not a callback of the API"
    return printable(f"task {shortened(task_id, PATH)}: {_outcome(payload)}")


def _outcome(payload: Mapping[str, Any]) -> str:
    error, data = payload.get("error"), payload.get("data")
    if isinstance(error, Mapping):
        return shortened(f"failed, {error.get('code')}: {error.get('message')}", MESSAGE)
    items = data if isinstance(data, list) else []
    links = [str(item["video_url"]) for item in items if isinstance(item, Mapping) and item.get("video_url")]
    return " ".join(["succeeded", *links]) if links else "neither a video nor an error"

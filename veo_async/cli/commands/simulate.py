"""
`veo-async simulate`: serves the API on this machine, for any program to test against.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, cast

import click
from attrs import define, field

from ...simulator import Core, Faults, Reply, Settings, Simulator
from ..ending import FINE, listening, run
from ..options import fraction, port_number, positive, whole
from ..words import plural, printable, shortened

__all__ = ["simulate"]

PROMPT: Final = 40  # characters
PORT: Final = 8750
SPEED: Final = 20.0  # a task then takes about five seconds
MOST_SEED: Final = 10**9  # large enough that no two runs share a seed, short enough to type
GUIDE: Final = """\
# Put these lines into another terminal: `veo-async` then talks to this simulator, at its speed.
# Your own programs find it too, but do not read VEO_ASYNC_SPEED; for its speed they need
#     VeoSession(polling=PollPolicy().scaled(1 / {speed}), retry=RetryPolicy().scaled(1 / {speed}))
# The seed is {seed}: with `--seed {seed}` it draws the same task ids, durations and failures again.
# Requests follow as they come; Ctrl-C ends this."""


def _chosen(_: click.Context, __: click.Parameter, words: tuple[str, ...]) -> Faults:
    """
    Read the faults, each with or without an endpoint.
    """
    faults = Faults()
    for word in words:
        kind, *on = word.split("@", 1)
        try:
            faults.add(kind, on=cast("Any", on), first=True)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return faults


@click.command(short_help="Serve the API on this machine: no key, no cost.")
@click.option(
    "--port",
    type=port_number,
    default=PORT,
    show_default=True,
    metavar="N",
    help="0 takes a free one.",
)
@click.option(
    "--speed",
    type=positive,
    default=SPEED,
    metavar="N",
    help=f"How many times faster than life tasks run. [default: {SPEED:g}]",
)
@click.option(
    "--failures",
    type=fraction,
    default=0.0,
    metavar="SHARE",
    help="How many tasks fail, 0 to 1.",
)
@click.option(
    "--seed",
    type=whole,
    metavar="N",
    help="Draw the same task ids, durations and failures as an earlier run did.",
)
@click.option(
    "--fault",
    "faults",
    multiple=True,
    callback=_chosen,
    metavar="KIND[@ENDPOINT]",
    help="Inject this fault into the first request of each job; may be repeated.",
)  # fmt: skip
def simulate(port: int, speed: float, failures: float, seed: int | None, faults: Faults) -> None:
    """
    Serve a simulated API on this machine until Ctrl-C, and show the requests as they come.

    A fault is a word such as drop_after or html@submit; without an endpoint it applies to all it can. `python -m
    pydoc veo_async.simulator.Fault` lists them, and `veo_async.simulator.Settings` what else a program can set.
    """
    # A journal outlives the simulator: if the same ids came again, it would take new tasks for old ones.
    seed = seed or 1 + secrets.randbelow(MOST_SEED)
    settings = Settings(speed=speed, failure_share=failures, seed=seed)
    run(_serve(WatchedCore(settings, faults=faults, seen=_show), port))


async def _serve(core: WatchedCore, port: int) -> int:
    async with contextlib.AsyncExitStack() as stack:
        with listening("--port", port):
            simulator = await stack.enter_async_context(Simulator(core=core, port=port))
        speed = f"{core.settings.speed:g}"
        click.echo(f"export ACEDATACLOUD_API_BASE_URL={simulator.url}")
        click.echo(f"export ACEDATACLOUD_API_TOKEN={simulator.token}")
        click.echo(f"export ACEDATACLOUD_PLATFORM_BASE_URL={simulator.url}")
        click.echo(f"export ACEDATACLOUD_PLATFORM_TOKEN={simulator.account_token}")
        click.echo(f"export VEO_ASYNC_SPEED={speed}")
        click.echo(GUIDE.format(speed=speed, seed=core.settings.seed), err=True)
        # Ctrl-C is the normal end of a server, so it is not a failure.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    click.echo(f"# {plural(core.count, 'request')}, {plural(core.accepted, 'task')}.", err=True)
    return FINE


# --- requests as they come -----------------------------------------------------------------------------


@define(eq=False)
class WatchedCore(Core):
    """
    A core that reports each request to `seen`: method, path, the fields of its body, and the answer.
    """

    seen: Callable[[str, str, Mapping[str, Any], Reply], None] = field(kw_only=True)
    count: int = field(default=0, init=False)

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        reply = super().handle(method, path, headers, body)
        self.count += 1
        self.seen(method, path, _fields(body), reply)
        return reply


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):  # a GET has no body, and anybody may send nonsense
        return {}
    return fields if isinstance(fields, dict) else {}


def _show(method: str, path: str, fields: Mapping[str, Any], reply: Reply) -> None:
    status = "waits" if reply.later is not None else str(reply.status)
    words = (
        datetime.now().strftime("%H:%M:%S"),
        status,
        method,
        printable(path),
        _gist(fields),
        _answer(reply),
        f"({reply.fault})" if reply.fault else "",
    )
    click.echo("  ".join(word for word in words if word), err=True)


def _gist(fields: Mapping[str, Any]) -> str:
    ids = fields.get("ids")
    words = [
        str(fields[name]) for name in ("action", "model", "resolution", "id", "video_id") if fields.get(name)
    ]
    if isinstance(ids, list):
        words.append(plural(len(ids), "task"))
    if fields.get("prompt"):
        words.append(f'"{shortened(str(fields["prompt"]), PROMPT)}"')
    return printable(" ".join(words))


def _answer(reply: Reply) -> str:
    """
    Return the essence of an answer: the new task's id, or the error's message.
    """
    answer = _fields(reply.body)
    error = answer.get("error")
    if isinstance(error, dict):
        return printable(f"{error.get('code')}: {error.get('message')}")
    return f"-> task {printable(str(answer['task_id']))}" if "task_id" in answer else ""

"""
`veo-async queue`: sets up a queue for workers on any machines, fills it, and tells how it stands.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

import click
from attrs import asdict, evolve

from ... import PostgresJournal
from ..batch.input import FORMATS, Item
from ..batch.source import caution, read_source
from ..databases import Place, has_workers, placed
from ..ending import FAILED, FINE, NO_TOKEN, TOKEN, complain, refuse, run
from ..options import positive, whole
from ..queue_words import event_lines, limit_lines, status_lines
from ..waiting import wait_for_all
from ..words import is_harmless, plural, printable

__all__ = ["queue"]

_DAYS: Final = {"d": 86400.0, "w": 7 * 86400.0}
_NO_LIMIT: Final = object()
_keys: Final = click.argument("keys", metavar="KEY...", nargs=-1, required=True)
_STATES: Final = ("failed", "refused", "parked", "waiting")
_json: Final = click.option("--json", "as_json", is_flag=True, help="Write JSON to stdout.")


def _period(value: str) -> float:
    """
    Read a number of days or weeks, such as `30d`; returns seconds.
    """
    match = re.fullmatch(r"(\d{1,5})([dw])", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a number of days or weeks, such as 30d or 4w.")
    return int(match[1]) * _DAYS[match[2]]


@click.group(short_help="Enqueue videos for workers, and look after the queue.")
def queue() -> None:
    """
    A queue in PostgreSQL: any program enqueues requests, and `veo-async worker` makes the videos, on any machines.

    Sessions in many processes can also share its journal directly.
    """


# --- to set it up ----------------------------------------------------------------------------------------


@queue.command(short_help="Make the queue's tables, or bring them up to date.")
@placed
def init(**place: Any) -> None:
    """
    Make the journal's tables, or bring them up to date, and procrastinate's if there are none. The facts in them are
    kept. Without procrastinate (pip install 'veo-async[workers]'), make the journal's only.
    """
    run(_init(Place(**place)))


async def _init(place: Place) -> int:
    async with place.opened(with_workers=False) as dsn:
        journal = PostgresJournal(dsn, schema=place.schema)
        if has_workers():
            from ...worker.database import install  # noqa: PLC0415 - the extra may be missing

            await install(dsn, schema=place.schema)
        else:
            await journal.install()
        click.echo(f"the tables in the schema {place.schema} are ready", err=True)
    return FINE


# --- to fill it ------------------------------------------------------------------------------------------


@queue.command(short_help="Enqueue the requests of a file.")
@click.argument("source", metavar="FILE")
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of FILE, if its name does not tell.")
@click.option("--priority", type=int, default=0, metavar="N", help="Higher ones are made first. [default: 0]")
@placed
def add(*, source: str, form: str | None, priority: int, **place: Any) -> None:
    """
    Enqueue the requests of FILE: JSON Lines, CSV with a heading, or a plain list of prompts; - is stdin.

    The lines are those that `veo-async batch` takes, and each key is bought once, however often it is added. A worker
    saves each video in its --out, under the line's `file` or a name made from the prompt. The keys go to stdout.
    """
    violations: list[str] = []
    reading = read_source(source, form, violations)
    refuse([*violations, *reading.faults])
    caution(reading)
    run(_add(Place(**place), reading.items, priority))


async def _add(place: Place, items: Sequence[Item], priority: int) -> int:
    async with place.opened() as dsn:
        from ...worker import enqueue_many  # noqa: PLC0415 - the extra may be missing
        from ...worker.administration import bought  # noqa: PLC0415

        keys = [item.key for item in items]
        before = await bought(keys, dsn, schema=place.schema)
        added = await enqueue_many(
            [(item.key, item.request) for item in items],
            to={item.key: item.name for item in items},
            priority=priority,
            database=dsn,
            schema=place.schema,
        )
    for key in keys:
        click.echo(key)
    click.echo(f"{_added_words(len(items), added, before)}.", err=True)
    return FINE


def _added_words(given: int, added: int, before: int) -> str:
    words = f"{added:,} of {plural(given, 'request')} enqueued"
    waited = f", {given - added:,} waited already" if added < given else ""
    if not before:
        return words + waited
    free = (
        "1 was bought before and costs nothing"
        if before == 1
        else f"{before:,} were bought before and cost nothing"
    )
    return f"{words}{waited}; of all, {free}" if waited else f"{words}, of which {free}"


# --- to look at it ---------------------------------------------------------------------------------------


@queue.command(short_help="Show how the queue stands, or what happened to a key.")
@click.argument("key", required=False)
@_json
@placed
def status(*, key: str | None, as_json: bool, **place: Any) -> None:
    """
    Show how many deliveries and purchases are in which state, which workers live, what waits for a person, and which
    tasks were paid for twice; or, for a KEY, all that has happened to it.

    A key has several purchases if its task failed and was bought again: `veo-async queue keys` tells which keys have
    no video.
    """
    run(_status(Place(**place), as_json) if key is None else _story(Place(**place), key, as_json))


async def _status(place: Place, as_json: bool) -> int:
    async with place.opened() as dsn:
        from ...worker.administration import status as status_of  # noqa: PLC0415 - the extra may be missing

        found = await status_of(dsn, schema=place.schema)
    _print([json.dumps(asdict(found))] if as_json else status_lines(found))
    return FINE


async def _story(place: Place, key: str, as_json: bool) -> int:
    async with place.opened() as dsn:
        from ...worker.stories import story  # noqa: PLC0415 - the extra may be missing

        events = await story(key, dsn, schema=place.schema)
    _print(map(json.dumps, map(asdict, events)) if as_json else event_lines(events))
    if not events:
        complain(f"nothing is known of the key {key!r}")
    return FINE if events else FAILED


@queue.command(short_help="List the keys that have no video.")
@click.option("--state", type=click.Choice(_STATES), required=True, help="How they have ended, or not yet.")
@_json
@placed
def keys(*, state: str, as_json: bool, **place: Any) -> None:
    """
    Write the keys to stdout, one a line, whose last task has failed, which were refused, which are parked until a
    person has looked, or which have not ended.

    So `veo-async queue keys --state failed | veo-async queue retry -` buys again what has failed.
    """
    run(_keys_in(Place(**place), state, as_json))


async def _keys_in(place: Place, state: str, as_json: bool) -> int:
    left_out = 0
    async with place.opened() as dsn:
        from ...worker.listing import keys_in  # noqa: PLC0415 - the extra may be missing

        async with aclosing(keys_in(state, dsn, schema=place.schema)) as found:
            async for key in found:
                if as_json:
                    click.echo(json.dumps(key))
                elif is_harmless(key):
                    click.echo(key)
                else:  # whoever reads the lines would take it for other keys
                    left_out += 1
    if left_out:
        complain(f"{plural(left_out, 'key')} with control characters left out: --json writes all")
    return FINE


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line)


@queue.command(short_help="Wait until keys have ended.")
@_keys
@click.option("--timeout", type=positive, metavar="SECONDS", help="How long to wait. [default: for ever]")
@_json
@placed
def wait(*, keys: tuple[str, ...], timeout: float | None, as_json: bool, **place: Any) -> None:
    """
    Wait until the keys have ended, whichever workers make their videos, and write the links to stdout; for the KEY -,
    take keys from stdin, one a line. So `veo-async queue add FILE | veo-async queue wait -` waits for all of a file.

    The workers save the files. Ctrl-C stops the waiting only.
    """
    run(wait_for_all(Place(**place), _all(keys), timeout=timeout, as_json=as_json))


def _all(keys: Sequence[str]) -> list[str]:
    """
    Return the keys, each once; `-` stands for the lines of stdin.
    """
    return list(dict.fromkeys(key for word in keys for key in (_lines() if word == "-" else [word])))


def _lines() -> Iterator[str]:
    return (key for line in sys.stdin if (key := line.rstrip("\n")))


# --- what is shared --------------------------------------------------------------------------------------


def _or_none(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """
    Read a number, or `none` for no limit.
    """

    def number(value: str) -> Any:
        return _NO_LIMIT if value == "none" else read(value)

    return number


@queue.command(short_help="Show or set the limits that all workers share.")
@click.option("--submits-per-second", type=_or_none(positive), metavar="X", help="Of all together; or none.")
@click.option("--burst", type=whole, metavar="N", help="Submits at once, after a quiet time.")
@click.option("--max-in-flight", type=_or_none(whole), metavar="N", help="Unfinished tasks of all; or none.")
@_json
@placed
def limits(
    *,
    submits_per_second: Any,
    burst: int | None,
    max_in_flight: Any,
    as_json: bool,
    **place: Any,
) -> None:
    """
    Show the limits that all sessions of the token's account share in this database, or set some of them.

    They hold at once, also for workers that run. A worker's own options limit that worker further.
    """
    given = {"submits_per_second": submits_per_second, "burst": burst, "max_in_flight": max_in_flight}
    changes = {
        name: None if value is _NO_LIMIT else value for name, value in given.items() if value is not None
    }
    token = os.environ.get(TOKEN)
    refuse([] if token else [NO_TOKEN])
    run(_limits(Place(**place), str(token), changes, as_json))


async def _limits(place: Place, token: str, changes: Mapping[str, Any], as_json: bool) -> int:
    async with place.opened(with_workers=False) as dsn:
        journal = PostgresJournal(dsn, schema=place.schema)
        await journal.open(token)
        try:
            found = await journal.limits()
            if changes:
                found = evolve(found, **changes)
                await journal.set_limits(found)
        finally:
            await journal.close()
    _print([json.dumps(asdict(found))] if as_json else limit_lines(found))
    return FINE


# --- to look after it ------------------------------------------------------------------------------------


@queue.command(short_help="Enqueue keys again that have no video.")
@_keys
@placed
def retry(*, keys: tuple[str, ...], **place: Any) -> None:
    """
    Enqueue keys again whose task has failed, which were refused, or which wait for a person; - takes them from stdin.

    A failed task is bought again, once. A key whose purchase nobody could find out about is looked for again first.
    """
    run(_retry(Place(**place), _all(keys)))


async def _retry(place: Place, keys: Sequence[str]) -> int:
    async with place.opened() as dsn:
        from ...worker.retrying import Retried, retry_all  # noqa: PLC0415 - the extra may be missing

        done = await retry_all(keys, dsn, schema=place.schema)
    for key, what in done.items():
        click.echo(f"{printable(key)}: {what}", err=True)
    return FAILED if Retried.UNKNOWN in done.values() else FINE


@queue.command(short_help="Delete what ended long ago.")
@click.option(
    "--older",
    type=_period,
    required=True,
    metavar="30d",
    help="Than that many days (d) or weeks (w); 2d at least.",
)
@placed
def prune(*, older: float, **place: Any) -> None:
    """
    Delete purchases, refusals and deliveries that ended long ago, a few thousand at a time.

    A key that is deleted is unknown from then on: if it is enqueued again, it is bought again. What is still to be
    delivered stays, and so do keys that wait for a person and tasks that were paid for twice.
    """
    run(_prune(Place(**place), older))


async def _prune(place: Place, older: float) -> int:
    async with place.opened() as dsn:
        from ...worker.pruning import prune as delete  # noqa: PLC0415 - the extra may be missing

        pruned = await delete(older, dsn, schema=place.schema)
    counts = (
        (pruned.purchases, "purchase"),
        (pruned.refusals, "refusal"),
        (pruned.deliveries, "ended delivery"),
    )
    click.echo(f"deleted: {', '.join(_counted(*count) for count in counts)}", err=True)
    return FINE


def _counted(count: int, noun: str) -> str:
    return plural(count, noun).replace("deliverys", "deliveries")

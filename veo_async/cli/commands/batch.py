"""
`veo-async batch`: checks the whole input, buys it, and reports the result.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import click

from ... import Journal, JournalError, SessionClosed, VeoSession
from ..._journal.facts import Entry
from ..._journal.sqlite_file import is_in_use
from ..advice import lines
from ..batch.input import FORMATS, Item, fields_of
from ..batch.manifest import Manifest
from ..batch.prices import priced, prices_of, tell_if_too_dear, total
from ..batch.run import JOURNAL, MANIFEST, PAGE, Batch, Plan, conflicts
from ..batch.source import caution, read_source
from ..display.crowd import Crowd
from ..ending import ACCOUNT_TOKEN, FAILED, FINE, TOKEN, complain, new_session, refuse, run
from ..fetch import NO_CANCEL
from ..options import (
    connecting,
    local_images,
    port_number,
    positive,
    tell_uploads,
    unwritable,
    whole,
)
from ..words import duration, plural, printable

__all__ = ["batch"]

ADDRESS: Final = "ACEDATACLOUD_API_BASE_URL"
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
NOT_LOOKED: Final = (
    "note: --dry-run does not ask the API what --look-first would find, so this is the most that it can cost"
)
TOLD: Final = 5  # failures and ids to list; the manifest and the journal have all of them


@click.command(short_help="Make a video of each line of a file.")
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--out",
    metavar="DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Where everything goes.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Of INPUT, if its name does not tell.")
@click.option("--limit", type=whole, metavar="N", help="The first N lines only.")
@click.option("--dry-run", is_flag=True, help="Tell what would be bought, and buy nothing.")
@click.option("--retry-failed", is_flag=True, help="Buy again what has failed before.")
@click.option(
    "--attempts", type=whole, default=1, metavar="N", help="Buy a line whose task fails up to N times."
)
@click.option(
    "--look-first",
    is_flag=True,
    help="First look for what was bought with a lost journal, or elsewhere.",
)
@click.option("--max-in-flight", type=whole, metavar="N", help="Unfinished tasks at once.")
@click.option("--max-videos", type=whole, metavar="N", help="Videos to buy at most, with all runs into DIR.")
@click.option("--max-credits", type=positive, metavar="N", help="Credits to spend at most, likewise.")
@click.option(
    "--timeout", type=positive, metavar="SECONDS", help="For a task, once accepted. [default: 1800]"
)
@click.option("--callback-port", type=port_number, metavar="N", help="Take callbacks on this port.")
@click.option("--public-url", metavar="URL", help="Where the API reaches that port.")
@click.option("--json", "as_json", is_flag=True, help="Write a record of each job to stdout.")
@connecting  # fmt: skip
def batch(
    *,
    source: str,
    form: str | None,
    limit: int | None,
    dry_run: bool,
    max_in_flight: int | None,
    max_videos: int | None,
    max_credits: float | None,
    base_url: str | None,
    speed: float,
    **options: Any,
) -> None:
    """
    Make a video of each line of INPUT: JSON Lines, CSV with a heading, or a plain list of prompts; - is stdin.

    A line may set every field of a request (prompt, model, image_urls, resolution, ...), its kind, its key and
    its file's name. In a plain list, lines that begin with # are skipped. The same command again goes on where the
    last one ended, and buys nothing twice.
    """
    violations: list[str] = []
    reading = read_source(source, form, violations)
    plan = Plan(items=reading.items[:limit], **options)
    manifest = _manifest(plan.out, violations)
    violations += reading.faults
    violations += _lost_journal(plan) or conflicts(plan, manifest)
    violations += _callback_violations(plan, base_url)
    journal = Journal(plan.out / JOURNAL)
    if dry_run:
        refuse(violations)
        caution(reading)
        if plan.look_first:
            complain(NOT_LOOKED)
        run(_alone(_dry_run(plan, journal, manifest, speed), plan.out))
    images = local_images(item.request for item in plan.items)
    work = Batch(plan, journal, manifest, Crowd(len(plan.items)))
    session = new_session(
        violations,
        base_url=base_url,
        speed=speed,
        journal=journal,
        max_in_flight=max_in_flight,
        with_platform=bool(images),
        uploading=work.board.uploading,
        max_videos=max_videos,
        max_credits=max_credits,
        observers=[work.observe],
    )
    refuse(violations)
    assert session is not None, "what is missing was a violation"
    caution(reading)
    tell_uploads(images)
    run(_alone(_carry_out(work, session, speed), plan.out))


# --- what is asked for -----------------------------------------------------------------------------------


def _manifest(out: Path, violations: list[str]) -> Manifest:
    """
    Read the records of earlier runs, and check that this run can write to the directory.
    """
    where = out if out.exists() else next((place for place in out.absolute().parents if place.exists()), out)
    if not where.is_dir():
        violations.append(f"--out {out}: {where} is not a directory")
    elif trouble := unwritable(where):
        violations.append(f"--out {out}: {where} cannot be written to: {trouble}")
    return Manifest(out / MANIFEST)


def _lost_journal(plan: Plan) -> list[str]:
    """
    Report an earlier run whose journal is lost: nobody knows what it bought.
    """
    out, journal = plan.out, plan.out / JOURNAL
    if plan.look_first or not (out / MANIFEST).exists() or (journal.exists() and journal.stat().st_size):
        return []
    return [
        f"--out {out} has the {MANIFEST} of an earlier run, but its {JOURNAL} is lost: nobody knows what that "
        "run bought. --look-first looks for each line's task before it buys; another --out starts over"
    ]


def _callback_violations(plan: Plan, base_url: str | None) -> Iterator[str]:
    """
    Report why callbacks would not arrive: without a public URL, only an API on this machine reaches the port.
    """
    host = urlsplit(base_url or os.environ.get(ADDRESS) or "").hostname or ""
    if plan.callback_port is None and plan.public_url is not None:
        yield "--public-url needs --callback-port"
    if plan.callback_port is not None and plan.public_url is None and host not in _LOOPBACK:
        yield "--callback-port needs --public-url: the address under which the API reaches this port"


async def _alone(main: Coroutine[Any, Any, int], out: Path) -> int:
    """
    Say so if another run works on the directory: a journal's own advice, to take another file, would buy again.
    """
    try:
        return await main
    except JournalError as error:
        if not is_in_use(error):
            raise
    complain(
        f"another veo-async is working on {out}/: nothing was sent. Wait for it to end, then run this again.",
        "Another --out would buy every line again.",
    )
    return FAILED


# --- what would be bought --------------------------------------------------------------------------------


async def _dry_run(plan: Plan, journal: Journal, manifest: Manifest, speed: float) -> int:
    known = await _bought(plan, journal, manifest)
    todo = [item for item in plan.items if item.key not in known]
    prices = await prices_of([item.request for item in todo], speed)
    sorts: dict[tuple[str, str], list[float | None]] = {}
    for item, price in zip(todo, prices, strict=True):
        sorts.setdefault(_sort_of(item), []).append(price)
    if plan.as_json:
        buy = [
            {"kind": kind, "model": model, "count": len(its), "credits": total(its)}
            for (kind, model), its in sorts.items()
        ]
        told = {"lines": len(plan.items), "known": len(known), "buy": buy, "credits": total(prices)}
        click.echo(json.dumps(told))
        return FINE
    for (kind, model), its in sorted(sorts.items()):
        click.echo(f"{len(its):>7,}  {' '.join(filter(None, (kind, model)))}{priced(its)}")
    click.echo(
        f"{len(todo):>7,}  to be bought{priced(prices)};"
        f" {len(known):,} of {plural(len(plan.items), 'line')} were bought before"
    )
    return FINE


def _sort_of(item: Item) -> tuple[str, str]:
    fields = fields_of(item.request)
    return str(fields["kind"]), str(fields.get("model", ""))


async def _bought(plan: Plan, journal: Journal, manifest: Manifest) -> set[str]:
    """
    Find the keys that were bought already, or may have been.
    """
    failed = {key for key, record in manifest.records.items() if record.get("state") == "failed"}
    ended = {key for key, record in manifest.records.items() if record.get("state") == "succeeded"} | failed
    token = os.environ.get(TOKEN)
    if token and journal.path.exists():
        await journal.open(token)
        try:
            entries = await journal.find_many(item.key for item in plan.items)
        finally:
            await journal.close()
        failed |= {key for key, entry in entries.items() if entry.failed}
        ended |= {key for key, entry in entries.items() if _may_be_bought(entry)}
    ended &= {item.key for item in plan.items}
    return ended - failed if plan.retry_failed else ended


def _may_be_bought(entry: Entry) -> bool:
    return entry.task_id is not None or any(attempt.closed is None for attempt in entry.attempts)


# --- what is bought --------------------------------------------------------------------------------------


async def _carry_out(batch: Batch, session: VeoSession, speed: float) -> int:
    batch.plan.out.mkdir(parents=True, exist_ok=True)
    if os.environ.get(ACCOUNT_TOKEN):
        known = await _bought(batch.plan, batch.journal, batch.manifest)
        unpriced = {
            item.key: item.request
            for item in batch.plan.items
            if item.key not in known or not batch.is_priced(item)
        }
        batch.prices = await tell_if_too_dear(unpriced, known, speed)
    try:
        await batch.run(session)
    except asyncio.CancelledError:
        _interrupted(batch)
        raise
    left = batch.unfinished()
    _tell(batch, left)
    return FAILED if left else FINE


def _interrupted(batch: Batch) -> None:
    ids = [
        job.task_id
        for job in batch.waiting.values()
        if job.task_id and job.done() and isinstance(job.exception(), SessionClosed)
    ]
    shown = [f"task {task_id}" for task_id in ids[:TOLD]]
    if len(ids) > TOLD:
        shown.append(f"and {len(ids) - TOLD:,} more, all in {batch.journal.path}")
    if ids:
        complain(
            f"interrupted; {plural(len(ids), 'accepted task')} may go on at the server.", *shown, NO_CANCEL
        )
    else:
        complain("interrupted; no accepted task is open.")
    complain("The same command again goes on from here, and buys nothing twice.")


def _tell(batch: Batch, left: Sequence[Item]) -> None:
    total, out = len(batch.plan.items), batch.plan.out
    now, before = batch.purchases(left)
    click.echo(
        f"{total - len(left):,} of {plural(total, 'video')} saved in {out}, in {duration(batch.board.elapsed)};"
        f" {now:,} bought now, {before:,} bought before.",
        err=True,
    )
    unbought = batch.over_budget(left)
    if batch.halted is not None:
        why, *remedy = lines(batch.halted)
        count = f"{plural(unbought, 'line')} {'was' if unbought == 1 else 'were'} not bought."
        complain(why, *([count] if unbought else []), *remedy)
    else:
        _tell_failures(batch, left)
    if len(left) > unbought:
        failed = any(batch.has_failed(item) for item in left)
        more = "; --retry-failed buys failed tasks again" if failed else ""
        which = "the others" if unbought else "what is missing"
        click.echo(f"The same command again tries {which}{more}.", err=True)
    click.echo(f"Look at them: {(out / PAGE).absolute().as_uri()}", err=True)


def _tell_failures(batch: Batch, left: Sequence[Item]) -> None:
    for item in left[:TOLD]:
        click.echo(f"  line {item.number}: {printable(batch.reason_of(item))}", err=True)
    if len(left) > TOLD:
        click.echo(f"  and {len(left) - TOLD:,} more: see {batch.plan.out / MANIFEST}", err=True)

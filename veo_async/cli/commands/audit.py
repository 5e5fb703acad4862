"""
`veo-async audit`: was everything that was paid for received, and is everything known?
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

import click

from ... import Journal, PlatformError, RetryPolicy, VeoError, VeoSession
from ..._journal.facts import Entry
from ...errors import ConfigurationError
from ...platform import AccountPlatform
from ...platform.answers import Ledger
from ...platform.audit import FINDINGS, Finding, Purchase, compare, shows_keys
from ..advice import lines
from ..batch.manifest import Manifest
from ..batch.receipts import digest_of
from ..batch.run import JOURNAL, MANIFEST
from ..ending import ACCOUNT_TOKEN, FAILED, FINE, NO_TOKEN, TOKEN, complain, new_session, refuse, run
from ..options import positive
from ..words import plural, printable

__all__ = ["audit"]

TOLD: Final = 10  # findings of a kind to list; --json has all of them
FETCHED: Final = ("not_fetched", "file_missing")
NOT_IN_ONE: Final = ("not in the journal", "in none of the journals")  # of one journal, and of several
# With one of these, it cannot be said that no key was bought twice: what is not settled may have been paid, too.
PERHAPS_TWICE: Final = ("bought_twice", "open", "doubtful")
REMEDIES: Final = {  # what to do about findings of a kind; the ids follow
    "not_fetched": "veo-async download -o DIR",
    "file_missing": "veo-async download -o DIR",
    "open": "veo-async wait -o DIR",
    "not_in_journal": "veo-async download -o DIR",
}


@click.command(short_help="Compare journals and files with what was paid.")
@click.argument("places", metavar="JOURNAL|DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--fetch", is_flag=True, help="Download first what was never fetched, or is gone.")
@click.option("--json", "as_json", is_flag=True, help="Write a JSON object for each finding.")
@click.option("--speed", type=positive, default=1.0, envvar="VEO_ASYNC_SPEED", hidden=True)
def audit(*, places: tuple[Path, ...], fetch: bool, as_json: bool, speed: float) -> None:
    """
    Compare journals, or directories of batches, with their files and with the account's ledger.

    The ledger is the platform's, and takes the account token, in ACEDATACLOUD_PLATFORM_TOKEN; without it, only journals
    and files are compared. Give all journals of the account, as what is in none of them is reported. A key that was
    bought more than once is reported, too. The exit status is 1 if something is off, or if there is an account token
    and the ledger cannot be read.

    --fetch downloads a file to where it was or, if it never was anywhere, beside its journal.
    """
    journals = [place / JOURNAL if place.is_dir() else place for place in places]
    violations = [f"JOURNAL {path} is not a file" for path in journals if not path.is_file()]
    token = os.environ.get(TOKEN)
    refuse(violations if token else [*violations, NO_TOKEN])
    assert token is not None, "what is missing was a violation"
    sessions = {
        path: new_session(violations, base_url=None, speed=speed, journal=path) for path in journals if fetch
    }
    refuse(violations)
    run(_audit(places, journals, token, sessions, RetryPolicy().scaled(1 / speed), as_json=as_json))


async def _audit(
    places: Sequence[Path],
    journals: Sequence[Path],
    token: str,
    sessions: Mapping[Path, VeoSession | None],
    retry: RetryPolicy,
    *,
    as_json: bool,
) -> int:
    for path, session in sessions.items():
        assert session is not None, "what is missing was a violation"
        await _fetch(session, path, await _entries(path, token))
    known = {str(path): await _entries(path, token) for path in journals}
    ledger = await _ledger(retry)
    found = [*compare(known, ledger, _checker(places))]
    for finding in found if as_json else ():
        click.echo(json.dumps(finding.to_dict()))
    _tell(found, known, ledger)
    return FAILED if found or (ledger is None and _has_account_token()) else FINE


def _has_account_token() -> bool:
    return bool(os.environ.get(ACCOUNT_TOKEN))


async def _entries(path: Path, token: str) -> list[Entry]:
    journal = Journal(path)
    await journal.open(token)
    try:
        return await journal.entries()
    finally:
        await journal.close()


async def _fetch(session: VeoSession, journal: Path, entries: Sequence[Entry]) -> None:
    async with session as veo:
        for entry in entries:
            if entry.outcome is None or entry.failed:
                continue
            try:
                await _fetch_missing(veo, entry, _folder_of(journal))
            except VeoError as error:
                complain(*lines(error))


async def _fetch_missing(veo: VeoSession, entry: Entry, folder: Path) -> None:
    for video in (await veo.attach(key=entry.key)).videos:
        path = entry.downloads.get(video.id)
        if path is None or not _is_there(path):  # a file that was changed is the user's
            click.echo(f"fetched {printable(str(await veo.download(video, path or folder)))}", err=True)


def _folder_of(path: Path) -> Path:
    return path.absolute().parent


def _is_there(path: str) -> bool:
    return Path(path).exists()


async def _ledger(retry: RetryPolicy) -> Ledger | None:
    try:
        async with AccountPlatform(retry=retry) as platform:
            return await platform.ledger()
    except (ConfigurationError, PlatformError) as error:
        complain(f"note: the ledger is not compared: {error}")
        return None


def _checker(places: Sequence[Path]) -> Callable[[str], bool]:
    """
    Return what tells whether a file is there and, if a batch has its SHA-256, unchanged.
    """
    known = {
        str((place / str(video.get("file"))).absolute()): video.get("sha256")
        for place in places
        if place.is_dir()
        for record in Manifest(place / MANIFEST).records.values()
        for video in record.get("videos") or ()
    }

    def is_whole(path: str) -> bool:
        digest = known.get(path)
        return Path(path).is_file() and (digest is None or digest == digest_of(Path(path)))

    return is_whole


# --- words -----------------------------------------------------------------------------------------------


def _tell(found: Sequence[Finding], known: Mapping[str, Sequence[Entry]], ledger: Ledger | None) -> None:
    for kind, count in Counter(finding.kind for finding in found).items():
        its = [finding for finding in found if finding.kind == kind]
        click.echo(f"{_heading(kind, count, len(known))}:", err=True)
        for finding in its[:TOLD]:
            click.echo(f"  {printable(_words(finding))}", err=True)
        if count > TOLD:
            click.echo(f"  and {count - TOLD:,} more", err=True)
        if kind in FETCHED:
            click.echo("  the same command with --fetch downloads them, or:", err=True)
        ids = " ".join(dict.fromkeys(finding.task_id for finding in its[:TOLD] if finding.task_id))
        if kind in REMEDIES and ids:
            click.echo(f"  {REMEDIES[kind]} {printable(ids)}", err=True)
    charged = "" if ledger is None else f" and {plural(len(ledger.charges), 'row')} of the ledger"
    rest = "" if ledger is None or ledger.complete else ", which was not read to its end"
    entries = [entry for its in known.values() for entry in its]
    verdict = f"{len(found):,} off" if found else "nothing is off"
    more = _about_the_ledger({finding.kind for finding in found}, entries, ledger)
    click.echo(f"{plural(len(entries), 'purchase')}{charged} compared{rest}: {verdict}{more}.", err=True)


def _about_the_ledger(kinds: Set[str], entries: Sequence[Entry], ledger: Ledger | None) -> str:
    if ledger is None:
        return f", but {'the ledger was not' if _has_account_token() else 'only the files were'} compared"
    is_known = shows_keys(entries, ledger) and kinds.isdisjoint(PERHAPS_TWICE)
    return ", and no key was bought twice" if is_known else ""


def _heading(kind: str, count: int, journals: int) -> str:
    noun = "key" if kind == "bought_twice" else "purchase"
    words = FINDINGS[kind] if journals == 1 else FINDINGS[kind].replace(*NOT_IN_ONE)
    return f"{plural(count, noun)} {words}"


def _words(finding: Finding) -> str:
    in_vain = " in vain" if finding.purchases else ""
    credits_ = None if finding.credits is None else f"{finding.credits:g} credits{in_vain}"
    named = (("key", finding.key), ("task", finding.task_id), ("trace", finding.trace_id))
    parts = [f"{name} {value}" for name, value in named if value]
    tasks = ", ".join(map(_words_of, finding.purchases))
    return ", ".join([*parts, *(one for one in (tasks and f"tasks {tasks}", finding.path, credits_) if one)])


def _words_of(purchase: Purchase) -> str:
    where = "not in a journal" if purchase.journal is None else f"journal {purchase.journal}"
    return f"{purchase.task_id or f'of trace {purchase.trace_id}'} ({where})"

"""
Reads from the shared journal how keys have ended; it needs neither a session nor a token.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

from .. import (
    ApiError,
    AuthenticationError,
    InsufficientBalance,
    PermissionDenied,
    RateLimited,
    ServerError,
    SubmissionUnknown,
    VeoError,
    VideoResult,
    errors,
)
from .._api.journal_text import load_refusal, load_request
from .._jobs.outcomes import read_outcome
from .._journal.postgres_connection import Connection
from .._journal.postgres_rows import digest, readable, stored
from .._journal.postgres_schema import named
from .database import address_of, connected

__all__ = [
    "LATEST",
    "ROUNDS",
    "Outcome",
    "failed_task",
    "is_curable",
    "outcome",
    "park",
    "read_outcomes",
    "recently_settled",
]

Outcome: TypeAlias = VideoResult | VeoError
ROUNDS: Final = 3  # after so many deliveries without telling what became of a purchase, a person has to look

# Time or a person mends these without a new request: another token, more credits, a server that is well again.
_CURABLE: Final = (AuthenticationError, InsufficientBalance, RateLimited, ServerError)

# The latest purchase of each key, of whatever account: the one that has not failed, or else the last one that has. There is
# an index for each of the two, and none for both: in one query, all purchases would be read for each key.
LATEST: Final = """LATERAL (SELECT * FROM (
        SELECT job.* FROM SCHEMA.account, SCHEMA.job
            WHERE job.account = account.id AND job.digest = wanted.digest AND NOT job.failed
        UNION ALL SELECT job.* FROM SCHEMA.account, SCHEMA.job
            WHERE job.account = account.id AND job.digest = wanted.digest AND job.failed
    ) AS job ORDER BY failed, id DESC LIMIT 1)"""
# A failed task is no outcome while it is about to be bought again.
_OUTCOMES: Final = f"""
    SELECT wanted.digest, it.request, CASE WHEN it.failed IS TRUE AND EXISTS (SELECT FROM procrastinate_jobs
            WHERE queueing_lock = 'veo:' || replace(wanted.digest::text, '-', '') AND status IN ('todo', 'doing')
            AND args ->> 'retry_of' = it.task_id) THEN NULL ELSE it.outcome END, it.failed, refusal.key, refusal.reason, parked.reason, parked.rounds
    FROM unnest(%(digests)s::uuid[]) AS wanted (digest)
    LEFT JOIN {LATEST} AS it ON true
    LEFT JOIN LATERAL (SELECT refusal.* FROM SCHEMA.account, SCHEMA.refusal WHERE refusal.account = account.id
        AND refusal.digest = wanted.digest ORDER BY at DESC LIMIT 1) AS refusal ON true
    LEFT JOIN SCHEMA.parked ON parked.digest = wanted.digest
"""
_LAST: Final = f"SELECT failed, task_id FROM (SELECT %(digest)s::uuid AS digest) AS wanted, {LATEST} AS it"
_RECENT: Final = "SELECT key FROM SCHEMA.job WHERE settled_at >= %(since)s"
_ROUND: Final = "SELECT SCHEMA.counted_round(%(digest)s, %(key)s, %(reason)s, %(more)s)"


class _Row(NamedTuple):
    request: str
    text: str | None  # the outcome
    failed: bool | None  # None if there is no purchase
    refused_key: str | None
    refusal: str | None
    parked: str | None
    rounds: int


def is_curable(error: ApiError) -> bool:
    """
    Tell whether an answer is about the account or the server, so that the same request may be accepted later.
    """
    is_disabled = isinstance(error, PermissionDenied) and error.code == "disabled"
    return is_disabled or isinstance(error, _CURABLE)


async def outcome(key: str, *, database: str | None = None, schema: str = "veo") -> Outcome | None:
    """
    Return how a key has ended: a result, or its error, which is not raised; None while it has not ended.

    The errors are `JobFailed`, an `ApiError` where the request was refused, and `SubmissionUnknown`, `JobVanished` or
    `InvalidRequest` where the key waits for a person.

    Args:
        database: falls back to `VEO_ASYNC_DATABASE`.
        schema: the schema with the journal's tables.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    async with connected(address_of(database, schema)) as connection:
        return (await read_outcomes(connection, [key], schema=schema)).get(key)


async def read_outcomes(connection: Connection, keys: Iterable[str], *, schema: str) -> dict[str, Outcome]:
    """
    Return how keys have ended; those that have not are absent.
    """
    by_digest = {digest(key): key for key in keys}
    found = await connection.execute(named(_OUTCOMES, schema), {"digests": list(by_digest)})
    ended = {by_digest[row[0].hex]: _outcome(_Row(*row[1:])) for row in await found.fetchall()}
    return {key: _named(key, it) for key, it in ended.items() if it is not None}


async def failed_task(connection: Connection, key: str, *, schema: str) -> str | None:
    """
    Return the task of a key's latest purchase if it has failed.
    """
    found = await (await connection.execute(named(_LAST, schema), {"digest": digest(key)})).fetchone()
    return readable(found[1]) if found is not None and found[0] else None


async def recently_settled(connection: Connection, since: float, *, schema: str) -> set[str]:
    """
    Return the keys that have settled since a time, in Unix seconds of the machines that settled them.
    """
    found = await connection.execute(named(_RECENT, schema), {"since": since})
    return {readable(key) for (key,) in await found.fetchall()}


async def park(connection: Connection, key: str, error: VeoError, *, schema: str, rounds: int = 1) -> bool:
    """
    Count one more round of a key, or several; returns whether a person has to look at it now.
    """
    reason = json.dumps({"kind": type(error).__name__, "message": str(error.args[0]) if error.args else ""})
    values = {"digest": digest(key), "key": stored(key), "reason": reason, "more": rounds}
    [(so_far,)] = await (await connection.execute(named(_ROUND, schema), values)).fetchall()
    return bool(so_far >= ROUNDS)


def _outcome(row: _Row) -> Outcome | None:
    if row.text is not None and not row.failed:
        return _settled(row.text, row.request)
    if row.failed is not False and row.refused_key is not None:
        refusal = load_refusal(row.refusal)
        return None if is_curable(refusal) else refusal
    if row.parked is not None and row.rounds >= ROUNDS:
        return _parked(row.parked)
    return _settled(row.text, row.request) if row.text is not None else None


def _settled(text: str, request: str) -> Outcome:
    try:
        return read_outcome(text, load_request(request))
    except Exception:  # the request is another version's
        return read_outcome(text, None)


def _parked(text: str) -> VeoError:
    kept = json.loads(text)
    error: VeoError = getattr(errors, kept["kind"], SubmissionUnknown)(kept["message"])
    return error


def _named(key: str, it: Outcome) -> Outcome:
    if isinstance(it, VeoError):
        it.key = key
    return it

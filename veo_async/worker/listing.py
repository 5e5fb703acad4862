"""
Lists the keys that have no video, by how they have ended; and finds keys of which nothing is known.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from types import NoneType
from typing import Final

from .. import ApiError, InvalidRequest, JobFailed, JobVanished, SubmissionUnknown
from .._journal.postgres_rows import digest, readable
from .administration import rows_of
from .database import address_of, connected
from .enqueueing import QUEUE, TASK, lock_of
from .outcomes import read_outcomes

__all__ = ["keys_in", "unknown"]

_AT_ONCE: Final = 1000  # keys

# What `outcome` tells of a key in each state.
_OUTCOMES: Final[Mapping[str, tuple[type, ...]]] = {
    "failed": (JobFailed,),
    "refused": (ApiError,),
    "parked": (SubmissionUnknown, JobVanished, InvalidRequest),
    "waiting": (NoneType,),
}
# The keys that may be in each state, few enough to look at them all.
_CANDIDATES: Final[Mapping[str, str]] = {
    "failed": "SELECT DISTINCT key FROM SCHEMA.job WHERE failed ORDER BY key",
    "refused": "SELECT DISTINCT key FROM SCHEMA.refusal ORDER BY key",
    "parked": "SELECT key FROM SCHEMA.parked ORDER BY key",
    "waiting": """
        SELECT key FROM SCHEMA.job WHERE settled_at IS NULL UNION SELECT key FROM SCHEMA.refusal
        UNION SELECT key FROM SCHEMA.parked UNION SELECT args ->> 'key' FROM procrastinate_jobs
            WHERE queue_name = %(queue)s AND task_name = %(task)s AND args ->> 'key' IS NOT NULL
            AND NOT EXISTS (SELECT FROM SCHEMA.job WHERE settled_at IS NOT NULL AND NOT failed
                AND queueing_lock = 'veo:' || replace(digest::text, '-', '')) ORDER BY key
    """,
}
# The deliveries are read once, not once for each key: they have no index that finds ended ones by their key.
_UNKNOWN: Final = """
    SELECT wanted.digest FROM unnest(%(digests)s::uuid[], %(locks)s::text[]) AS wanted (digest, lock)
    WHERE lock NOT IN (SELECT queueing_lock FROM procrastinate_jobs WHERE queueing_lock = ANY(%(locks)s::text[]))
        AND digest NOT IN (SELECT digest FROM SCHEMA.refusal) AND digest NOT IN (SELECT digest FROM SCHEMA.parked)
        AND NOT EXISTS (SELECT FROM SCHEMA.account, SCHEMA.job
            WHERE job.account = account.id AND job.digest = wanted.digest)
"""


async def keys_in(
    state: str, database: str | None = None, *, schema: str = "veo"
) -> AsyncGenerator[str, None]:
    """
    Yield the keys in a state as of now, in their order, a thousand at a time.

    Args:
        state: `failed`, `refused` or `parked`, as `outcome` tells; or `waiting`, for no outcome yet.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    async with connected(address) as connection, connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        await connection.execute("SET LOCAL jit = off")  # compiling takes a second for each thousand keys
        async with connection.cursor(name="keys") as found:
            await found.execute(address.sql(_CANDIDATES[state]), {"queue": QUEUE, "task": TASK})
            while rows := await found.fetchmany(_AT_ONCE):
                keys = [readable(key) for (key,) in rows]
                outcomes = await read_outcomes(connection, keys, schema=schema)
                for key in keys:
                    if isinstance(outcomes.get(key), _OUTCOMES[state]):
                        yield key


async def unknown(keys: Sequence[str], database: str | None = None, *, schema: str = "veo") -> list[str]:
    """
    Return the keys of which nothing is known: nobody has enqueued or bought them.

    Raises:
        ConfigurationError: there is no database.
        JournalError: the database cannot be reached, or lacks the tables.
    """
    address = address_of(database, schema)
    by_digest = {digest(key): key for key in keys}
    locks = [lock_of(key) for key in by_digest.values()]
    async with connected(address) as connection:
        rows = await rows_of(connection, address.sql(_UNKNOWN), digests=[*by_digest], locks=locks)
    return [by_digest[found.hex] for (found,) in rows]

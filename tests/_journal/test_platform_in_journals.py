"""
What every journal keeps of the platform: the addresses of pictures, and reservations.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests._journal.lives import (
    ACCEPTED,
    FAILED,
    REQUEST,
    accepted,
    failed,
    intended,
    not_sent,
    refused,
    sending,
    settled,
    withdrawn,
)
from tests.postgres.server import Postgres, do
from veo_async._journal import postgres_install
from veo_async._journal.facts import Fact, Spent, TakeIn
from veo_async._journal.journal import AnyJournal
from veo_async._journal.postgres import PostgresJournal
from veo_async._journal.postgres_schema import MIGRATIONS

NAME = "sha256:" + "a" * 64


def spent(videos: int, credits_: float = 0.0, unpriced: int = 0) -> Spent:
    return Spent(videos=videos, credits=credits_, unpriced=unpriced)


async def test_an_address_is_known_by_the_name_of_its_picture(closed: AnyJournal, token: str) -> None:
    """The latest counts, it outlives the session, and unknown names are absent."""
    await closed.open(token)
    await closed.note_upload(NAME, "https://files.example/1.jpg", 1.0)
    await closed.note_upload(NAME, "https://files.example/2.jpg?\udc80", 2.0)
    await closed.close()
    await closed.open(token)
    assert {NAME: "https://files.example/2.jpg?\udc80"} == await closed.uploads([NAME, "another"])
    assert {} == await closed.uploads([])
    await closed.close()


async def test_a_reservation_counts_for_others_alone(journal: AnyJournal) -> None:
    """What a key has reserved is not in its own way, and one that does not fit is not reserved."""
    for key in "abc":
        await journal.write(intended(key))
    assert spent(0) == await journal.reserve("a", 1.5, 2, None)
    assert spent(0) == await journal.reserve("a", 2.5, 1, None)
    assert spent(1, 2.5) == await journal.reserve("b", 0.5, 2, 3.0)
    assert spent(2, 3.0) == await journal.reserve("c", 0.5, 2, None)
    assert spent(2, 3.0) == await journal.reserve("c", 0.5, None, 3.2)
    assert spent(2, 3.0) == await journal.reserve("c", None, None, 9.0)
    assert spent(2, 3.0) == await journal.reserve("c", None, 9, None)
    assert spent(2, 3.0 - 2.5, 1) == await journal.reserve("a", 2.5, 3, 0.1)


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        ([], True),
        ([sending()], True),
        ([sending(), not_sent()], True),
        ([sending(), accepted()], True),
        ([sending(), accepted(), settled()], True),
        ([sending(), accepted(), failed()], False),
        ([sending(), refused()], False),
        ([withdrawn()], False),
    ],
    ids=lambda value: type(value[-1]).__name__ if value and isinstance(value, list) else None,
)
async def test_a_reservation_ends_where_nothing_was_bought(
    journal: AnyJournal, facts: Sequence[Fact], counts: bool
) -> None:
    """A failure, a refusal and a withdrawal give the place back, with no further word."""
    await journal.write(intended(), intended("other"))
    await journal.reserve("k", 1.0, None, None)
    for fact in facts:
        await journal.write(fact)
    assert (spent(1, 1.0) if counts else spent(0)) == await journal.reserve("other", 1.0, 1, None)


async def test_a_new_purchase_of_a_failed_key_is_reserved_anew(journal: AnyJournal) -> None:
    """The place that the failure has given back may be another's by then."""
    await journal.write(intended(), intended("other"))
    await journal.reserve("k", 1.0, 1, None)
    await journal.write(*FAILED[1:])
    await journal.reserve("other", 1.0, 1, None)
    await journal.write(intended())
    assert spent(1, 1.0) == await journal.reserve("k", 1.0, 1, None)
    assert spent(0) == await journal.reserve("other", 1.0, 1, None)


async def test_what_was_bought_without_a_budget_is_reserved_later(journal: AnyJournal) -> None:
    """What may have been bought, and not what surely was not; each can be given a price once."""
    await journal.write(*ACCEPTED)
    await journal.write(intended("doubt"), sending("doubt"), intended("closed"), sending("closed"))
    await journal.write(not_sent("closed"), intended("intended"))
    await journal.write(intended("failed"), sending("failed"), accepted("failed", "t2"), failed("failed"))
    assert {"k": REQUEST, "doubt": REQUEST} == await journal.reserve_purchases()
    await journal.note_price("k", 2.0)
    assert {"doubt": REQUEST} == await journal.reserve_purchases()
    assert spent(2, 2.0, 1) == await journal.reserve("intended", 1.0, None, 100.0)


async def test_what_an_ended_session_never_sent_is_free_again(closed: AnyJournal, token: str) -> None:
    """What it may have sent is not."""
    await closed.open(token)
    await closed.write(intended("a"), intended("b"), sending("b"), intended("c"), sending("c"), not_sent("c"))
    for key in "abc":
        await closed.reserve(key, 1.0, None, None)
    await closed.close()
    await closed.open(token)
    await closed.reserve_purchases()
    await closed.take_in([TakeIn(key="a", request=REQUEST, at=1.0)])
    assert spent(1, 1.0) == await closed.reserve("a", 1.0, None, None)
    await closed.write(sending("a"))  # whoever takes it up reserves it anew
    await closed.close()


async def test_what_a_live_session_has_not_sent_yet_stays_reserved(
    postgres: Postgres, schema: str, token: str
) -> None:
    """Another session that begins does not take its place; once it has ended, it can send no more."""
    first, second = (PostgresJournal(postgres.dsn, schema=schema) for _ in range(2))
    await first.open(token)
    await first.write(intended("a"))
    await first.reserve("a", None, 1, None)
    await second.open(token)
    await second.write(intended("b"))
    await second.reserve_purchases()
    assert spent(1, 0.0, 1) == await second.reserve("b", None, 1, None)
    await first.write(sending("a"))
    await first.close()
    await second.reserve_purchases()
    assert spent(1, 0.0, 1) == await second.reserve("b", None, 1, None)
    await second.close()


async def test_a_schema_of_the_first_version_is_brought_up_to_date(
    postgres: Postgres, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its purchases stay, and can be reserved."""
    journal = PostgresJournal(postgres.dsn, schema="veo_from_the_first")
    try:
        with monkeypatch.context() as earlier:
            earlier.setattr(postgres_install, "MIGRATIONS", MIGRATIONS[:1])
            await journal.install()
            await journal.open(token)
            await journal.write(*ACCEPTED)
            await journal.close()
        await journal.install()
        await journal.open(token)
        assert {"k": REQUEST} == await journal.reserve_purchases()
        await journal.close()
    finally:
        do(postgres.dsn, "DROP SCHEMA IF EXISTS veo_from_the_first CASCADE")

"""
Budgets: what may have been bought counts, whatever goes wrong, and in whichever process it was bought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.postgres.server import Postgres
from veo_async import (
    BadRequest,
    BudgetExceeded,
    ConfigurationError,
    Get1080p,
    JobFailed,
    JobState,
    Journal,
    Limits,
    PollPolicy,
    PostgresJournal,
    Request,
    RetryPolicy,
    SubmitTimedOut,
    TextToVideo,
    VeoError,
    VeoSession,
)
from veo_async._journal.journal import AnyJournal
from veo_async.platform import AccountPlatform
from veo_async.simulator import Faults, Settings, Simulator

SPEED = 500.0
Journals = Callable[[], AnyJournal | None]


def _journals(request: pytest.FixtureRequest) -> Journals:
    """
    Make what makes the journal of each session anew; they share what is in it.
    """
    if request.param == "none":
        return lambda: None
    if request.param == "sqlite":
        path: Path = request.getfixturevalue("tmp_path")
        return lambda: Journal(path / "batch.db")
    server: Postgres = request.getfixturevalue("postgres")
    schema = request.getfixturevalue("schema")
    return lambda: PostgresJournal(server.dsn, schema=schema)


@pytest.fixture(params=["none", "sqlite", "postgres"])
def journal(request: pytest.FixtureRequest) -> Journals:
    return _journals(request)


@pytest.fixture(params=["sqlite", "postgres"])
def lasting(request: pytest.FixtureRequest) -> Journals:
    return _journals(request)


def simulator(token: str, faults: Faults | None = None, **settings: Any) -> Simulator:
    return Simulator(Settings(speed=SPEED, tokens=[token], **settings), faults=faults)


def session(sim: Simulator, journal: AnyJournal | None, **limits: Any) -> VeoSession:
    retry = RetryPolicy().scaled(1 / SPEED)
    return VeoSession(
        sim.token,
        base_url=sim.url,
        polling=PollPolicy().scaled(1 / SPEED),
        retry=retry,
        limits=Limits(**limits),
        journal=journal,
        platform=AccountPlatform(base_url=sim.url, retry=retry),
    )


async def outcomes(veo: VeoSession, *requests: Request, prefix: str = "") -> list[VeoError | None]:
    """
    Submit one after the other under keys, so that the first ones are bought first, and wait for all.
    """
    jobs = [veo.submit(request, key=f"{prefix}{number}") for number, request in enumerate(requests)]
    return [job.exception() async for job in veo.as_completed(jobs)]


def over(found: list[VeoError | None]) -> int:
    return sum(isinstance(error, BudgetExceeded) for error in found)


def whales(count: int, **fields: Any) -> list[Request]:
    return [TextToVideo(f"whale {number}", **fields) for number in range(count)]


# --- videos --------------------------------------------------------------------------------------------------


async def test_no_more_videos_are_bought_than_the_budget_allows(journal: Journals, token: str) -> None:
    """The others end with `BudgetExceeded`, and the sentence names the budget."""
    async with simulator(token) as sim, session(sim, journal(), max_videos=3) as veo:
        found = await outcomes(veo, *whales(8))
        [words] = {str(error).partition(" (")[0] for error in found if error}
        assert (5, 3) == (over(found), sim.core.accepted)
    assert "the budget of 3 videos is spent: as many were bought, or may have been" == words


async def test_what_an_earlier_session_bought_counts(lasting: Journals, token: str) -> None:
    """With a budget or without one; and a larger budget lets the rest be bought."""
    async with simulator(token) as sim:
        async with session(sim, lasting()) as veo:
            assert 0 == over(await outcomes(veo, *whales(2), prefix="before"))
        async with session(sim, lasting(), max_videos=3) as veo:
            assert 3 == over(await outcomes(veo, *whales(4)))
        async with session(sim, lasting(), max_videos=5) as veo:
            assert 1 == over(await outcomes(veo, *whales(4)))
        assert 5 == sim.core.accepted


async def test_what_failed_or_was_refused_does_not_count(journal: Journals, token: str) -> None:
    """A failed task is not billed, and a refused submit bought nothing."""
    async with simulator(token) as sim, session(sim, journal(), max_videos=1) as veo:
        with pytest.raises(BadRequest):
            await veo.submit(Get1080p("no video"), key="refused")
        sim.core.settings = Settings(speed=SPEED, tokens=[token], failure_share=1.0)
        with pytest.raises(JobFailed):
            await veo.submit(TextToVideo("a whale"), key="failed")
        sim.core.settings = Settings(speed=SPEED, tokens=[token])
        await veo.submit(TextToVideo("a whale"), key="bought")
        assert 1 == over(await outcomes(veo, *whales(1)))


async def test_a_submit_of_unknown_outcome_counts(journal: Journals, token: str) -> None:
    """While it is looked for, and when it is found: its place is given to nobody."""
    faults = Faults().add("drop_after", on="submit", first=True)
    async with simulator(token, faults) as sim, session(sim, journal(), max_videos=2) as veo:
        assert 4 == over(await outcomes(veo, *whales(6)))
        assert 2 == sim.core.accepted


async def test_what_was_not_sent_keeps_its_place_alone(journal: Journals, token: str) -> None:
    """A submit that is answered with 429 goes again on its own reservation."""
    faults = Faults().add("status_before", on="submit", first=True, status=429)
    async with simulator(token, faults) as sim, session(sim, journal(), max_videos=2) as veo:
        assert 2 == over(await outcomes(veo, *whales(4)))
        assert 2 == sim.core.accepted


async def test_sessions_of_one_journal_share_the_budget(postgres: Postgres, schema: str, token: str) -> None:
    """Four sessions at once buy as many as one may."""
    async with simulator(token) as sim:

        async def buy(name: str) -> int:
            async with session(sim, PostgresJournal(postgres.dsn, schema=schema), max_videos=5) as veo:
                return over(await outcomes(veo, *whales(4), prefix=name))

        assert 11 == sum(await asyncio.gather(*map(buy, "abcd")))
        assert 5 == sim.core.accepted


async def test_what_was_abandoned_before_it_was_bought_does_not_count(journal: Journals, token: str) -> None:
    """After an answer that bought nothing, or while a refusal is on its way, its place is free for another."""
    faults = Faults().add("status_before", on="submit", times=1, status=429, retry_after=3600)
    async with simulator(token, faults) as sim, session(sim, journal(), max_videos=2) as veo:
        job = veo.submit(TextToVideo("a whale"), key="abandoned")
        async for update in job.updates():
            if update.state is JobState.QUEUED and faults.struck["submit", "status_before"]:
                job.abandon()
        refused = veo.submit(Get1080p("no video"), key="refused")
        async for update in refused.updates():
            if update.state is JobState.SUBMITTING:
                refused.abandon()
        with pytest.raises(BadRequest):  # the answers to both are believed in their order
            await veo.submit(Get1080p("no other video"), key="another")
        assert 1 == over(await outcomes(veo, *whales(3)))


async def test_what_waited_too_long_does_not_count(token: str) -> None:
    """It was answered with 429, and never bought."""
    faults = Faults().add("status_before", on="submit", times=1, status=429, retry_after=1)
    async with simulator(token, faults) as sim, session(sim, None, max_videos=1, max_queue_wait=0.5) as veo:
        with pytest.raises(SubmitTimedOut):
            await veo.submit(TextToVideo("a whale"), key="late")
        await veo.submit(TextToVideo("a whale"), key="bought")


async def test_what_an_ended_session_did_not_send_does_not_count(lasting: Journals, token: str) -> None:
    """It was reserved and answered with 429; the next session may buy something else, and then not this as well."""
    faults = Faults().add("status_before", on="submit", times=1, status=429, retry_after=3600)
    async with simulator(token, faults) as sim:
        async with session(sim, lasting(), max_videos=1) as veo:
            unsent = veo.submit(TextToVideo("a whale"), key="unsent")
            async for update in unsent.updates():
                if update.state is JobState.QUEUED and faults.struck["submit", "status_before"]:
                    break
        async with session(sim, lasting(), max_videos=1) as veo:
            await veo.submit(TextToVideo("a whale"), key="bought")
            [resumed] = await veo.resume()
            with pytest.raises(BudgetExceeded):
                await resumed
        assert 1 == sim.core.accepted


async def test_what_another_process_has_bought_counts_when_it_is_found(journal: Journals, token: str) -> None:
    """A lost journal does not make a budget larger, if its lines are looked for first."""
    async with simulator(token) as sim:
        async with session(sim, None) as veo:
            assert 0 == over(await outcomes(veo, *whales(2)))
        async with session(sim, journal(), max_videos=3) as veo:
            await asyncio.gather(
                *[
                    veo.submit(request, key=str(number), look_first=True)
                    for number, request in enumerate(whales(2))
                ]
            )
            assert 1 == over(await outcomes(veo, *whales(2), prefix="more"))
        assert 3 == sim.core.accepted


# --- credits -------------------------------------------------------------------------------------------------


async def test_no_more_credits_are_spent_than_the_budget_allows(journal: Journals, token: str) -> None:
    """A cheap one fits where an expensive one does not; sums of decimals are not taken literally."""
    async with simulator(token) as sim, session(sim, journal(), max_credits=7.8) as veo:
        assert 1 == over(await outcomes(veo, *whales(2, model="veo31"), prefix="quality"))
        assert 3 == over(await outcomes(veo, *whales(5)))
        assert 3 == sim.core.accepted


async def test_earlier_purchases_count_at_todays_prices(lasting: Journals, token: str) -> None:
    """What was bought without a budget of credits is priced when a session with one begins."""
    async with simulator(token) as sim:
        async with session(sim, lasting(), max_videos=9) as veo:
            await outcomes(veo, *whales(2), prefix="before")
        async with session(sim, lasting(), max_credits=2.0) as veo:
            [error] = {str(error).partition(" (")[0] for error in await outcomes(veo, *whales(2)) if error}
        assert "0.65 credits do not fit into the budget of 2: 1.95 are spent, or may be" == error
        assert 3 == sim.core.accepted


@pytest.mark.parametrize(
    "settings", [{"platform": "failing"}, {"platform": "other"}, {"prices": ()}], ids=str
)
async def test_an_unknown_price_does_not_fit(journal: Journals, token: str, settings: Any) -> None:
    """Without a price nothing is bought, and the sentence says why; a budget of videos asks for no price."""
    async with simulator(token, **settings) as sim:
        async with session(sim, journal(), max_credits=100) as veo:
            with pytest.raises(BudgetExceeded, match="the price is not known"):
                await veo.submit(TextToVideo("a whale"), key="k")
        assert 0 == sim.core.accepted
        async with session(sim, journal(), max_videos=1) as veo:
            await veo.submit(TextToVideo("a whale"), key="k")


async def test_earlier_purchases_without_a_price_may_have_spent_it_all(lasting: Journals, token: str) -> None:
    """As long as their prices are not known, nothing more is bought."""
    rows = ({"conditions": {"==": [{"var": "prompt"}, "known"]}, "consumption": 1},)
    async with simulator(token, prices=rows) as sim:
        async with session(sim, lasting()) as veo:
            await veo.submit(TextToVideo("unknown"), key="before")
        async with session(sim, lasting(), max_credits=100) as veo:
            with pytest.raises(BudgetExceeded, match="the prices of 1 earlier purchases are not known"):
                await veo.submit(TextToVideo("known"), key="k")
        assert 1 == sim.core.accepted


async def test_a_platform_that_breaks_stops_nothing_else(token: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in reading its price list ends the job that needs a price, and not the session."""
    async with simulator(token) as sim, session(sim, None, max_credits=9) as veo:

        async def broken(*_: object) -> float:
            raise RecursionError("a list without an end")

        with monkeypatch.context() as patches:
            patches.setattr(AccountPlatform, "price", broken)
            with pytest.raises(BudgetExceeded, match=r"the price is not known.*: a list without an end"):
                await veo.submit(TextToVideo("a whale"), key="k")
        await veo.submit(TextToVideo("a whale"), key="k")


async def test_a_budget_of_credits_needs_a_platform() -> None:
    """A session that could not know any price is not entered."""
    with pytest.raises(ConfigurationError, match="max_credits needs to know prices"):
        async with VeoSession("simulator-token", limits=Limits(max_credits=1.0)):
            pass

"""
Prices by the platform's list: known, unknown, and out of order.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from veo_async import (
    Extend,
    Get1080p,
    ImageToVideo,
    PlatformError,
    Request,
    RetryPolicy,
    TextToVideo,
    Upsample,
    UsageError,
    VeoSession,
)
from veo_async.platform import AccountPlatform
from veo_async.platform.prices import price_in, rows_of
from veo_async.simulator import Settings, Simulator

from .pictures import PNG

BODY = {"action": "text2video", "model": "veo31-fast", "prompt": "a whale"}
FAST: dict[str, Any] = {"conditions": {"==": [{"var": "model"}, "veo31-fast"]}, "consumption": 0.65}


# --- the list ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "price"),
    [
        ([FAST], 0.65),
        ([FAST, {"consumption": 9}], 0.65),
        ([FAST | {"conditions": False}, {"conditions": {}, "consumption": "6.50"}], 6.5),
        ([FAST | {"unit": "Credits", "remark": "fast", "hidden": True}], 0.65),
        ([FAST | {"consumption": {"if": [{"var": "resolution"}, 2, 1]}}], 1.0),
        ([FAST | {"consumption": 0}], 0.0),
        ([], None),
        ([FAST | {"conditions": {"==": [{"var": "model"}, "veo2"]}}], None),
        ([{"conditions": {"unheard": 1}, "consumption": 1}, FAST], None),
        ([FAST, {"conditions": {"unheard": 1}, "consumption": 1}], 0.65),
        ([FAST | {"unit": "second"}], None),
        ([FAST | {"unit": 3}], None),
        ([FAST | {"consumption": -1}], None),
        ([FAST | {"consumption": "1e999"}], None),
        ([FAST | {"consumption": "free"}], None),
        ([FAST | {"consumption": None}], None),
        ([FAST | {"consumption": True}], None),
        ([FAST | {"consumption": 10**400}], None),
    ],
)
def test_the_first_row_that_holds_counts(rows: Any, price: float | None) -> None:
    """A row before it that is not understood makes the price unknown; one after it does not."""
    assert price == price_in(tuple(rows), BODY)


@pytest.mark.parametrize(
    "answer",
    [
        [{"cost": [FAST]}],
        {"items": [{"id": 1}, {"cost": [FAST]}]},
        {"results": [{"cost": [FAST]}]},
        {"cost": [FAST]},
    ],
)
def test_a_list_is_found_in_every_known_shape(answer: Any) -> None:
    """A page of records, a bare list of them, or one record."""
    assert (FAST,) == rows_of(answer)


@pytest.mark.parametrize(
    "answer", [None, 3, "x", [], {}, {"items": []}, {"cost": []}, {"cost": {"a": 1}}, {"cost": [1]}]
)
def test_another_shape_is_no_list(answer: Any) -> None:
    """Whatever else comes is not understood, and so is empty."""
    assert () == rows_of(answer)


# --- a session -----------------------------------------------------------------------------------------------


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


def session(sim: Simulator) -> VeoSession:
    platform = AccountPlatform("", base_url=sim.url, retry=RetryPolicy().scaled(0.001))
    return VeoSession(sim.token, base_url=sim.url, platform=platform)


@pytest.mark.parametrize(
    ("request_", "price"),
    [
        (TextToVideo("a whale"), 0.65),
        (TextToVideo("a whale", model="veo31"), 6.5),
        (ImageToVideo("she turns", [PNG]), 0.65),
        (Get1080p("v"), 0.065),
        (Extend("v", model="veo31"), 12.0),
        (Upsample("v", "4k"), 0.5),
    ],
)
async def test_a_request_has_a_price(sim: Simulator, request_: Request, price: float) -> None:
    """Each endpoint has its own list, for which no account token is needed; nothing is bought or uploaded."""
    async with session(sim) as veo:
        assert price == await veo.price(request_)
    assert (0, {"apis": 1}) == (sim.core.requests.total(), sim.core.platform.requests)


async def test_the_list_is_asked_for_once(sim: Simulator) -> None:
    """Within a minute, all requests of an endpoint share an answer."""
    async with session(sim) as veo:
        assert [0.65] * 5 == [await veo.price(TextToVideo(str(n))) for n in range(5)]
    assert 1 == sim.core.platform.requests["apis"]


@pytest.mark.parametrize(
    ("state", "words"),
    [("absent", "status 404"), ("failing", "status 500"), ("html", "cannot be read"), ("other", None)],
)
async def test_a_platform_out_of_order_is_an_error_or_unknown(state: Any, words: str | None) -> None:
    """No answer raises, and an answer of another shape is None."""
    async with Simulator(Settings(platform=state)) as sim, session(sim) as veo:
        if words is None:
            assert None is await veo.price(TextToVideo("a whale"))
        else:
            with pytest.raises(PlatformError, match=words):
                await veo.price(TextToVideo("a whale"))


async def test_a_failure_is_not_repeated_for_every_request() -> None:
    """For some seconds, whoever asks gets the same error."""
    async with Simulator(Settings(platform="failing")) as sim, session(sim) as veo:
        for number in range(5):
            with pytest.raises(PlatformError, match="status 500"):
                await veo.price(TextToVideo(str(number)))
        assert {"failing": 3} == sim.core.platform.requests


async def test_without_a_platform_there_is_nobody_to_ask(sim: Simulator) -> None:
    """The error says how to have one."""
    async with VeoSession(sim.token, base_url=sim.url) as veo:
        with pytest.raises(UsageError, match=r"VeoSession\(platform=AccountPlatform\(\)\)"):
            await veo.price(TextToVideo("a whale"))

"""
The vendor's own package runs unchanged against the simulator.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from acedatacloud import AceDataCloud, AsyncAceDataCloud
from acedatacloud._runtime.errors import (
    AuthenticationError,
    InsufficientBalanceError,
    RateLimitError,
    TokenMismatchError,
    ValidationError,
)
from acedatacloud._runtime.tasks import artifact_urls, task_status

from veo_async.simulator import Settings, Simulator

SPEED: Final = 2000.0  # a task takes some 50 ms
IMAGES: Final = ["https://example.com/a.jpg"]


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    async with Simulator(Settings(speed=SPEED)) as running:
        yield running


@pytest.fixture
async def vendor(sim: Simulator) -> AsyncIterator[AsyncAceDataCloud]:
    async with client(sim) as opened:
        yield opened


def client(sim: Simulator, token: str | None = None) -> AsyncAceDataCloud:
    return AsyncAceDataCloud(token or sim.token, base_url=sim.url, max_retries=0)


async def ask(vendor: AsyncAceDataCloud, **body: Any) -> Any:
    """Send what the vendor's command line and MCP server send to the tasks endpoint."""
    return await vendor._transport.request("POST", "/veo/tasks", json=body)


async def test_a_synchronous_generate_answers_with_the_video(
    sim: Simulator, vendor: AsyncAceDataCloud
) -> None:
    """Without `async` the call lasts until the video is there."""
    answer = await vendor.veo.generate(action="text2video", prompt="a whale", model="veo31-fast")

    assert answer["success"] is True
    assert [sim.core.files.link(sim.core.tasks[answer["task_id"]])] == artifact_urls(answer)
    assert 1 == sim.core.billed


async def test_async_false_is_synchronous(vendor: AsyncAceDataCloud) -> None:
    """`"async": false` is the same as leaving it out."""
    answer = await vendor.veo.generate(action="text2video", prompt="a whale", async_=False)

    assert 1 == len(answer["data"])


async def test_async_true_answers_with_the_id_and_waiting_ends(vendor: AsyncAceDataCloud) -> None:
    """`"async": true` answers at once, and the vendor's handle waits until the task has ended."""
    answer = await vendor.veo.generate(action="text2video", prompt="a whale", async_=True)
    record = await vendor.tasks.wait(answer["task_id"], service="veo", poll_interval=0.02)

    assert {"task_id"} == answer.keys()
    assert "succeeded" == task_status(record)
    assert answer["task_id"] == record["id"]


async def test_a_placeholder_makes_the_call_asynchronous(sim: Simulator, vendor: AsyncAceDataCloud) -> None:
    """With the API's `/health` for a callback URL, as the vendor's guide has it, the id comes at once."""
    placeholders = [f"{sim.url}/health", "https://api.acedata.cloud/health"]
    for placeholder in placeholders:
        answer = await vendor.veo.generate(action="text2video", prompt="a whale", callback_url=placeholder)
        record = await vendor.tasks.wait(answer["task_id"], service="veo", poll_interval=0.02)

        assert {"task_id"} == answer.keys()
        assert ("succeeded", placeholder) == (task_status(record), record["request"]["callback_url"])
    assert {"submit", "retrieve"} == sim.core.requests.keys()


async def test_ingredients_and_1080p_need_no_model(vendor: AsyncAceDataCloud) -> None:
    """The vendor's clients leave the model out of ingredients2video and get1080p."""
    made = await vendor.veo.generate(action="ingredients2video", image_urls=IMAGES)
    large = await vendor.veo.generate(action="get1080p", video_id=made["data"][0]["id"])

    assert made["data"][0]["id"] == large["data"][0]["id"]
    assert made["data"][0]["created_at"] == large["data"][0]["created_at"]
    assert made["data"][0]["video_url"] != large["data"][0]["video_url"]


async def test_post_processing(vendor: AsyncAceDataCloud) -> None:
    """The four endpoints take what the vendor's client sends."""
    made = await vendor.veo.generate(action="text2video", prompt="a whale")
    video = made["data"][0]["id"]
    answers = await asyncio.gather(
        vendor.veo.upsample(video_id=video, action="4k"),
        vendor.veo.extend(video_id=video, model="veo31-fast", prompt="and dives"),
        vendor.veo.reshoot(video_id=video, motion_type="FORWARD"),
        vendor.veo.objects(video_id=video, action="insert", prompt="a gull"),
        vendor.veo.objects(video_id=video, action="remove", image_mask="https://example.com/mask.jpg"),
    )

    assert [True] * 5 == [answer["success"] for answer in answers]
    assert 5 == len({answer["task_id"] for answer in answers})


async def test_lookups_by_trace_in_batches_and_without_ids(vendor: AsyncAceDataCloud) -> None:
    """A task is found by its trace id, a batch tolerates paging fields, and a listing needs no ids."""
    made = [await vendor.veo.generate(action="text2video", prompt=f"whale {n}") for n in range(3)]
    ids = [answer["task_id"] for answer in made]

    by_trace = await ask(vendor, action="retrieve", trace_id=made[1]["trace_id"])
    batch = await ask(vendor, action="retrieve_batch", ids=ids, offset=0, limit=12)
    listed = await ask(vendor, action="retrieve_batch", offset=1, limit=2, type="videos")

    assert ids[1] == by_trace["id"]
    assert ids == [record["id"] for record in batch["items"]]
    assert 3 == batch["count"]
    assert ids[1::-1] == [record["id"] for record in listed["items"]]


async def test_tasks_get(vendor: AsyncAceDataCloud) -> None:
    """`tasks.get` shows a record, and nothing for an unknown id."""
    made = await vendor.veo.generate(action="text2video", prompt="a whale")

    assert made["task_id"] == (await vendor.tasks.get(made["task_id"], service="veo"))["id"]
    assert {} == await vendor.tasks.get("00000000-0000-4000-8000-000000000000", service="veo")


async def test_the_synchronous_client(sim: Simulator) -> None:
    """The vendor's blocking client works as well."""

    def generate() -> Any:
        with AceDataCloud(sim.token, base_url=sim.url, max_retries=0) as vendor:
            answer = vendor.veo.generate(action="text2video", prompt="a whale", async_=True)
            return vendor.tasks.wait(answer["task_id"], service="veo", poll_interval=0.02)

    record = await asyncio.to_thread(generate)

    assert "succeeded" == task_status(record)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("token_mismatched", TokenMismatchError),
        ("token_expired", AuthenticationError),
        ("used_up", InsufficientBalanceError),
        ("too_many_requests", RateLimitError),
    ],
)
async def test_errors_become_the_vendors(sim: Simulator, code: str, error: type[Exception]) -> None:
    """The vendor's client turns the simulator's error codes into its own classes."""
    sim.core.revoke(sim.token, code)

    async with client(sim) as vendor:
        with pytest.raises(error):
            await vendor.veo.generate(action="text2video", prompt="a whale")


async def test_an_unknown_token_and_a_bad_request(sim: Simulator, vendor: AsyncAceDataCloud) -> None:
    """A token nobody issued is an authentication error, a missing image a validation error."""
    async with client(sim, "somebody-else") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.veo.generate(action="text2video", prompt="a whale")
    with pytest.raises(ValidationError, match="image_urls is invalid when generate videos"):
        await vendor.veo.generate(action="image2video", prompt="a whale")


@pytest.mark.parametrize(
    "pending", ["absent", "null", "empty", "started", "no_data", "running", "queued", "hiccup"]
)
async def test_every_pending_form_keeps_the_vendor_waiting(pending: Any) -> None:
    """The vendor's handle takes each form of a pending record for one, and ends with the video."""
    async with (
        Simulator(Settings(pending=pending, duration=lambda body: 3600.0)) as sim,
        client(sim) as vendor,
    ):
        answer = await vendor.veo.generate(action="text2video", prompt="a whale", async_=True)
        record = await vendor.tasks.get(answer["task_id"], service="veo")
        assert "" == task_status(record)

        sim.core.finish(answer["task_id"])
        record = await vendor.tasks.get(answer["task_id"], service="veo")
        assert "succeeded" == task_status(record)


@pytest.mark.parametrize("failed", ["error", "open", "text", "null", "state", "empty_success"])
async def test_every_failed_form_is_a_failure_to_the_vendor(failed: Any) -> None:
    """The vendor's handle takes each form of a failed record for one."""
    async with (
        Simulator(Settings(failed=failed, speed=SPEED, failure_share=1.0)) as sim,
        client(sim) as vendor,
    ):
        answer = await vendor.veo.generate(action="text2video", prompt="a whale", async_=True)
        record = await vendor.tasks.wait(answer["task_id"], service="veo", poll_interval=0.02)

        assert "failed" == task_status(record)
        assert 0 == sim.core.billed


async def test_the_unified_video_client_lacks_the_action() -> None:
    """The vendor's provider-neutral client sends no action, which the API requires."""
    async with Simulator() as sim, client(sim) as vendor:
        with pytest.raises(ValidationError, match="action is required"):
            await vendor.video.generate(provider="veo", prompt="a whale")

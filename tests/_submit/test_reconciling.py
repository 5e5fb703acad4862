"""
Finding out what became of a submit, against servers that answer oddly: each buys one video for a job, or says why.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
import shutil
import unicodedata
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import define

from tests.virtual import InMemoryTransport, World
from tests.virtual.scripted import Options, answer, in_virtual_time, whale, whales
from veo_async import (
    AuthenticationError,
    BadRequest,
    Job,
    JobState,
    Journal,
    Limits,
    RetryPolicy,
    SessionClosed,
    SubmissionUnknown,
    TextToVideo,
    VeoError,
    VeoSession,
)
from veo_async._http.transport import Outgoing, Reply
from veo_async.errors import ConnectionFailed
from veo_async.simulator import TOKEN, Faults, Settings, Simulator

Go = Callable[..., Awaitable[Reply]]
Hook = Callable[[str, dict[str, Any], Go], Awaitable[Reply]]


class Lost(Exception):
    """
    What a hook raises to let the answer get lost.
    """


@define(eq=False)
class Hooked(InMemoryTransport):
    """
    Has every request go through a hook, which is told its kind and can have the server asked.
    """

    hook: Hook = lambda kind, body, go: go()

    async def send(self, method: str, url: str, outgoing: Outgoing) -> Reply:
        body = json.loads(outgoing.data)
        kind = "submit"
        if url.endswith("/veo/tasks"):
            kind = "retrieve" if body["action"] == "retrieve" else "batch" if "ids" in body else "list"

        async def go(instead: dict[str, Any] | None = None) -> Reply:
            sent = outgoing if instead is None else Outgoing(json.dumps(instead).encode())
            return await super(Hooked, self).send(method, url, sent)

        try:
            return await self.hook(kind, body, go)
        except Lost:
            raise ConnectionFailed("lost on the way back") from None
        finally:
            outgoing.left = True


def session(world: World, hook: Hook, **options: Any) -> VeoSession:
    made = world.session(**options)
    made._transport = Hooked(world.core, TOKEN, hook=hook)
    return made


def world(*durations: float) -> World:
    made = World(Settings(seed=1))
    made.core.next_durations.extend(durations)
    return made


def now() -> float:
    return asyncio.get_running_loop().time()


async def lose(count: list[int], nth: int, go: Go) -> Reply:
    """
    Answer submits, save the nth, whose answer is lost after the server has accepted it.
    """
    count.append(1)
    number = len(count)
    reply = await go()
    if number == nth:
        raise Lost
    return reply


async def error_of(job: Job) -> VeoError | None:
    """
    Wait until a job is settled, and give its exception.
    """
    try:
        await job
    except VeoError as error:
        return error
    return None


# --- time ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behind", [30.0, 7200.0, 30_000.0])
@in_virtual_time
async def test_records_that_are_dated_by_another_clock_are_found(behind: float) -> None:
    """
    However far `Date` is ahead of the records, the lost one is found.
    """
    made, submits = world(20.0, 60.0), list[int]()
    made_session = session(made, lambda kind, body, go: lose(submits, 2, go) if kind == "submit" else go())
    transport: Any = made_session._transport
    transport.ahead = behind
    async with made_session as veo:
        await veo.submit(whale(1))
        result = await veo.submit(whale(2))
    assert ("whale 2", 2) == (made.core.tasks[result.task_id].body["prompt"], made.core.accepted)


@in_virtual_time
async def test_a_gateway_with_a_fast_clock_misleads_nobody() -> None:
    """
    One answer by a node that is an hour ahead: the task that is bought next is found all the same.
    """
    made, submits = world(), list[int]()
    made_session = session(made, lambda kind, body, go: lose(submits, 2, go) if kind == "submit" else go())
    transport: Any = made_session._transport
    async with made_session as veo:
        first = await veo.submit(whale(1))
        transport.ahead = 3600.0
        await veo.retrieve(first.task_id)
        transport.ahead = 0.0
        await veo.submit(whale(2))
    assert 2 == made.core.accepted


# --- listings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("others", "most"), [(5, 50), (60, 50), (15, 10)])
@in_virtual_time
async def test_a_listing_that_ignores_offset_is_not_read_to_its_end(others: int, most: int) -> None:
    """
    The same page over and over shows no more than it shows: what is not on it may exist.
    """
    made, submits = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            return await lose(submits, 2, go)
        return await go({**body, "offset": 0, "limit": most} if kind == "list" else None)

    async with session(made, hook) as veo:
        await veo.submit(whale(1))
        job = veo.submit(whale(2))
        async for update in job.updates():
            if update.state is JobState.UNKNOWN:
                break
        for number in range(others):  # somebody else's, that push it off the page
            made.core.post("/veo/videos", json.loads(_bought(number)))
        error = await error_of(job)
    assert isinstance(error, SubmissionUnknown | None)
    assert 1 == sum(task.body["prompt"] == "whale 2" for task in made.core.tasks.values())


@in_virtual_time
async def test_a_listing_that_gives_its_last_page_once_more_is_read_to_its_end() -> None:
    """
    A server may answer an offset beyond the end like that: what it has not shown is not there, and is sent again.
    """
    made, submits = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            submits.append(1)
            if len(submits) == 2:
                raise Lost  # and it was never accepted
        is_beyond = kind == "list" and body["offset"] >= len(made.core.tasks) > 50
        return await go({**body, "offset": 50} if is_beyond else None)

    for number in range(60):
        made.core.post("/veo/videos", json.loads(_bought(number)))
    async with session(made, hook) as veo:
        await veo.submit(whale(1))
        await veo.submit(whale(2))
    assert 62 == made.core.accepted


def _bought(number: int) -> bytes:
    body = {"action": "text2video", "model": "veo31-fast", "prompt": f"a stranger's {number}", "async": True}
    return json.dumps(body).encode()


@pytest.mark.parametrize("how", ["lost", "slow"])
@pytest.mark.parametrize("what", ["retrieve", "list"])
@in_virtual_time
async def test_a_question_that_is_never_answered_holds_nothing_up(what: str, how: str) -> None:
    """
    Without look-ups by trace id the listing decides; without a listing, while other questions work, nobody can.
    """
    made, submits = world(3000.0, 60.0), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            return await traced(submits, go)
        if kind == what and (kind == "list" or "trace_id" in body):
            await asyncio.sleep(60 if how == "slow" else 0)
            raise ConnectionFailed("no answer")
        return await go()

    async with session(made, hook) as veo:
        await veo.submit(whale(1), timeout=5000).accepted()
        error = await error_of(veo.submit(whale(2)))
    assert 2 == made.core.accepted
    assert isinstance(error, SubmissionUnknown) if what == "list" else error is None


async def traced(submits: list[int], go: Go) -> Reply:
    """
    Answer submits, the second with an error that has a trace id, though the server has accepted it.
    """
    submits.append(1)
    reply = await go()
    said = {"error": {"code": "api_error"}, "trace_id": "trace"}
    return answer(500, said, date=reply.headers["date"]) if len(submits) == 2 else reply


@pytest.mark.parametrize(
    "refusal",
    [
        answer(400, {"error": {"code": "bad_request", "message": "id is required"}}),
        answer(500, {"error": {"code": "api_error"}}),
        answer(200, []),
        answer(200, {"error": "no such task"}),
        answer(200, {"success": False}),
    ],
)
@in_virtual_time
async def test_a_look_up_that_is_refused_says_nothing_of_the_listing(refusal: Reply) -> None:
    """
    However a server answers to a trace id, the listing shows the task.
    """
    made, submits = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            return await traced(submits, go)
        return refusal if "trace_id" in body else await go()

    async with session(made, hook) as veo:
        jobs = veo.submit_many(whales(2))
        assert [None, None] == [await error_of(job) for job in jobs]
    assert 2 == made.core.accepted


@pytest.mark.parametrize(
    "said",
    [answer(503, b"away"), answer(200, b"<html>be back soon"), answer(401, {"error": {"code": "no_token"}})],
)
@in_virtual_time
async def test_an_outage_that_answers_is_no_answer(said: Reply) -> None:
    """
    Ten minutes of errors to every question prove nothing: the job waits, and its task is found.
    """
    made, submits, back_at = world(), list[int](), list[float]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            back_at[:] = [now() + 600.0]
            return await lose(submits, 1, go)
        return said if now() < back_at[0] else await go()

    async with session(made, hook) as veo:
        assert None is await error_of(veo.submit(whale()))
    assert 1 == made.core.accepted


# --- whose answer it is ----------------------------------------------------------------------------------


def answering_with_the_first(submits: list[str], wrong: range) -> Hook:
    """
    Answer those submits with the first task's id, though the server accepts each.
    """

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        reply = await go()
        if kind == "submit":
            submits.append(json.loads(reply.body)["task_id"])
            if len(submits) in wrong:
                return answer(200, {"task_id": submits[0]}, date=reply.headers["date"])
        return reply

    return hook


@pytest.mark.parametrize("settled", [False, True])
@in_virtual_time
async def test_an_answer_that_names_anothers_task_is_not_believed(options: Options, *, settled: bool) -> None:
    """
    The second job is answered with the first one's task, settled or not: it finds its own by its mark.
    """
    made = world()
    async with session(made, answering_with_the_first([], range(2, 3)), **options()) as veo:
        first = veo.submit(whale(), key="a")
        await (first if settled else first.accepted())
        second = veo.submit(whale(), key="b")
        ids = {(await first).task_id, (await second).task_id}
    assert ({*made.core.tasks}, 2) == (ids, made.core.accepted)


ONE_ID = "the-one-and-only"


def naming_all_the_same(reply: Reply) -> Reply:
    """
    Give every task one id, in every answer.
    """
    text = re.sub(r'("(?:id|task_id)": *)"[^"]{36}"', rf'\1"{ONE_ID}"', reply.body.decode())
    return Reply(reply.status, reply.headers, text.encode())


@pytest.mark.parametrize(("answered", "delivered"), [("first", 4), ("same", 1), (ONE_ID, 1)])
@in_virtual_time
async def test_a_server_that_confuses_tasks_is_sent_no_more_than_it_is_asked_for(
    options: Options, answered: Any, delivered: int
) -> None:
    """
    Answers name the first task, or one task for all that is the same, or all tasks have one id: each job is sent
    once, and gets a video of its own, or says that it has none.
    """

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if answered != ONE_ID:
            return await go()
        one = next(iter(made.core.tasks), "")
        known = {"id": one} if "id" in body else {"ids": [one]} if "ids" in body else {}
        return naming_all_the_same(await go({**body, **known}))

    made = World(Settings(seed=1, **({} if answered == ONE_ID else {"answered_task": answered})))
    async with session(made, hook, **options()) as veo:
        jobs = veo.submit_many((f"key {n}", whale()) for n in range(4))
        errors = [await error_of(job) for job in jobs]
    assert 4 == made.core.requests["submit"]
    ids = [job.task_id for job, error in zip(jobs, errors, strict=True) if error is None]
    assert (delivered, delivered) == (len(ids), len(set(ids)))
    assert all(isinstance(error, SubmissionUnknown) for error in errors if error is not None)


# --- what records and listings may do ----------------------------------------------------------------------


def spelled_otherwise(records: list[dict[str, Any]]) -> None:
    for record in records:
        prompt = html.escape(unicodedata.normalize("NFD", record["request"]["prompt"]))[:9]
        record["request"] |= {"prompt": prompt, "model": "veo-3.1"}


def masked(records: list[dict[str, Any]]) -> None:
    for record in records:
        record["request"]["prompt"] = "***"


def dated_early(records: list[dict[str, Any]]) -> None:
    for record in records:
        record["created_at"] -= 30 * 86_400.0


def undated(records: list[dict[str, Any]]) -> None:
    for record in records:
        del record["created_at"]


@pytest.mark.parametrize("change", [spelled_otherwise, masked, dated_early, undated])
@in_virtual_time
async def test_nothing_but_its_mark_makes_a_task_a_jobs_own(
    options: Options, change: Callable[[list[dict[str, Any]]], None]
) -> None:
    """
    However prompts, models and times are shown: what a lost answer has bought is found, and bought once.
    """
    made, submits = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            return await lose(submits, 2, go)
        reply = await go()
        if kind != "list":
            return reply
        said = json.loads(reply.body)
        change(said["items"])
        return answer(200, said, date=reply.headers["date"])

    async with session(made, hook, **options()) as veo:
        results = [await job for job in veo.submit_many([TextToVideo('"Wal" f\u00fcr zwei')] * 3)]
    assert (3, 3) == (made.core.accepted, len({result.task_id for result in results}))


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, True),
        ({"echo_callback_url": "rewritten"}, True),
        ({"echo_callback_url": "escaped"}, True),
        ({"echo_callback_url": "cut_off"}, False),
        ({"echo_callback_url": "absent"}, False),
        ({"late": 50.0}, True),
        ({"order": "oldest"}, True),
        ({"records_ahead": -30 * 86_400.0}, True),
        ({"records_ahead": 86_400.0}, True),
        ({"date_ahead": 16 * 3600.0}, True),
        ({"date_ahead": -86_400.0}, True),
        ({"listing": "unfiltered"}, True),
        ({"listing": "empty"}, False),
        ({"listing": "refused"}, False),
    ],
    ids=str,
)
@in_virtual_time
async def test_what_the_listing_may_do(options: Options, settings: dict[str, Any], found: bool) -> None:
    """
    A dozen jobs with one prompt, a third of the answers lost: all are found, or those that cannot be say so, with
    the tasks that may be theirs where any are shown. None is bought twice in any case.
    """
    faults = Faults(seed=2).add("drop_after", on="submit", share=0.3)
    made = World(Settings(**({"mean": 400.0} | settings)), faults=faults)
    async with made.session(**options()) as veo:
        jobs = veo.submit_many((f"key {n}", whale()) for n in range(12))
        errors = [error for job in jobs if (error := await error_of(job)) is not None]
    assert 12 == made.core.accepted
    ids = [job.task_id for job in jobs if job.task_id is not None]
    assert len(ids) == len(set(ids))
    assert found is not bool(errors)
    for error in errors:
        assert isinstance(error, SubmissionUnknown)
        assert bool(error.candidates) is ("echo_callback_url" in settings)
        assert set(made.core.tasks) >= set(error.candidates)


@pytest.mark.parametrize("cut_off", [True, False])
@in_virtual_time
async def test_a_fragment_that_is_cut_off_leaves_a_doubt(options: Options, cut_off: bool) -> None:
    """
    Records show the placeholder's mark, and callback URLs without their fragments: a lost submit with a URL of its
    own says so, and is not sent again. Where fragments show, the task is found.
    """
    made, submits = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            return await lose(submits, 2, go)
        reply = await go()
        return (
            answer(200, re.sub(rb"#[^\"]*", b"", reply.body), date=reply.headers["date"])
            if cut_off
            else reply
        )

    async with session(made, hook, **options()) as veo:
        await veo.submit(whale())
        lost = veo.submit(TextToVideo("a whale", callback_url="https://example.com/hook?a=b&c=d"))
        error = await error_of(lost)
    assert cut_off is isinstance(error, SubmissionUnknown)
    assert 2 == made.core.accepted
    if isinstance(error, SubmissionUnknown):
        assert (list(made.core.tasks)[1],) == error.candidates


@in_virtual_time
async def test_strangers_with_the_same_callback_url_leave_no_doubt(options: Options) -> None:
    """
    Once a record has shown a fragment behind a URL, tasks without one are others', and what was lost goes again.
    """
    made, submits = world(), list[int]()
    request = TextToVideo("a whale", callback_url="https://example.com/hook")

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        submits.extend([1] * (kind == "submit"))
        if kind == "submit" and len(submits) == 2:
            raise Lost  # and it was never accepted
        return await go()

    made.core.post(
        "/veo/videos", {"action": "text2video", "prompt": "x", "callback_url": request.callback_url}
    )
    async with session(made, hook, **options()) as veo:
        await veo.submit(request)
        await veo.submit(request)
    assert 3 == made.core.accepted


@pytest.mark.parametrize(("every", "new"), [(1, 1), (1, 4), (20, 120)])
@in_virtual_time
async def test_unrelated_tasks_by_the_thousand_are_read_past(options: Options, every: int, new: int) -> None:
    """
    Strangers' tasks without a mark hide nothing, even if they push down more than a page while pages are read.
    """
    made, submits, pages = world(), list[int](), list[int]()

    def buy(count: int) -> None:
        for number in range(count):
            made.core.post("/veo/videos", json.loads(_bought(number)))

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            try:
                return await lose(submits, 2, go)
            except Lost:
                buy(2000)  # the lost one is far down when it is looked for
                raise
        if kind == "list":
            pages.append(body["offset"])
            buy(new if len(pages) % every == 0 else 0)
        return await go()

    buy(500)
    async with session(made, hook, **options()) as veo:
        results = [await job for job in veo.submit_many(whales(3))]
    mine = [task for task in made.core.tasks.values() if "callback_url" in task.body]
    assert (3, 3) == (len(mine), len({result.task_id for result in results}))


@in_virtual_time
async def test_who_lists_tasks_gets_all_even_if_more_than_a_page_is_pushed_down() -> None:
    """
    Each task that was there before comes once, however many are bought meanwhile.
    """
    made, pages = world(), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        pages.append(body["offset"])
        for number in range(120 if len(pages) == 3 else 0):
            made.core.post("/veo/videos", json.loads(_bought(number)))
        return await go()

    for number in range(240):
        made.core.post("/veo/videos", json.loads(_bought(number)))
    before = [*made.core.tasks]
    async with session(made, hook) as veo:
        listed = [record.id async for record in veo.list_tasks()]
    assert before[::-1] == [task_id for task_id in listed if task_id in before]
    assert len(listed) == len({*listed})


@in_virtual_time
async def test_a_task_that_its_owner_deleted_leaves_a_doubt(options: Options) -> None:
    """
    A listing that lacks an accepted task proves nothing: the lost one says so, and is not bought again.
    """
    made, submits = World(Settings(seed=1, duration=lambda body: 1.0)), list[int]()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit":
            submits.append(1)
            if len(submits) == 2:
                raise Lost  # and it was never accepted
        return answer(200, {"items": []}) if kind == "list" else await go()

    async with session(made, hook, **options()) as veo:
        await veo.submit(whale(1))
        assert isinstance(await error_of(veo.submit(whale(2))), SubmissionUnknown)
    assert 2 == len(submits)


# --- refusals --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401])
@in_virtual_time
async def test_what_a_refusal_has_bought_is_found_at_once(status: int) -> None:
    """
    Thirty submits are accepted, and answered as if they were not: one look, of two pages, finds all their tasks.
    """
    made = World(Settings(mean=20.0), faults=Faults().add("status_after", on="submit", status=status))
    async with made.session() as veo:
        assert {} == await veo.find(["nobody's"])  # the token is good
        before = made.core.requests["list"]
        results = [await job for job in veo.submit_many(whales(30))]
    assert (30, 30) == (made.core.accepted, len({result.task_id for result in results}))
    assert 2 >= made.core.requests["list"] - before


@pytest.mark.parametrize(("placeholder", "listings"), [("https://example.com/hook", 1), (None, 0)])
@in_virtual_time
async def test_plain_refusals_cost_one_listing(placeholder: str | None, listings: int) -> None:
    """
    Thirty refusals share one look, and stand; where they carry no mark, there is nothing to look for.
    """
    made = World(faults=Faults().add("status_before", on="submit", status=400))
    async with made.session(placeholder=placeholder) as veo:
        errors = [await error_of(job) for job in veo.submit_many(whales(30))]
    assert {BadRequest} == set(map(type, errors))
    assert (0, 30, listings) == (made.core.accepted, made.core.requests["submit"], made.core.requests["list"])


@in_virtual_time
async def test_a_refused_token_costs_no_listing() -> None:
    """
    Nothing has ever taken the session's token: its listing would be refused, too.
    """
    made = World(faults=Faults().add("status_before", on="submit", status=401))
    async with made.session() as veo:
        errors = [await error_of(job) for job in veo.submit_many(whales(30))]
    assert ({AuthenticationError}, 0) == (set(map(type, errors)), made.core.requests["list"])


@in_virtual_time
async def test_a_token_that_dies_costs_one_listing() -> None:
    """
    The first listing that is refused for the token's sake tells that the next would be.
    """
    made, dead = world(), answer(401)

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        asked.append(kind)
        return dead if made.core.accepted else await go()

    asked: list[str] = []
    async with session(made, hook, limits=Limits(submits_per_second=1.0)) as veo:
        await veo.submit(whale(0)).accepted()
        errors = [await error_of(job) for job in veo.submit_many(whales(30))]
    assert {AuthenticationError} == set(map(type, errors))
    assert 1 == asked.count("list")


LISTINGS = [answer(400), answer(503), answer(200, b"never"), ConnectionFailed("no answer")]


@pytest.mark.parametrize("listing", LISTINGS, ids=["refused", "down", "unreadable", "lost"])
@in_virtual_time
async def test_a_listing_that_fails_leaves_the_refusal_standing(listing: Reply | Exception) -> None:
    """
    Nobody can tell, so the refusal is believed; its key is free, and nothing goes again by itself.
    """
    made = world()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "submit" and body["prompt"] == "whale 1":
            return answer(400)
        if kind == "list" and isinstance(listing, Exception):
            raise listing
        return listing if kind == "list" and isinstance(listing, Reply) else await go()

    async with session(made, hook) as veo:
        assert isinstance(await error_of(veo.submit(whale(1), key="k")), BadRequest)
        await veo.submit(whale(2), key="k")
    assert 1 == made.core.accepted


@pytest.mark.parametrize("share", [0.5, 1.0])
@in_virtual_time
async def test_leaving_believes_the_refusals_that_wait(tmp_path: Path, share: float) -> None:
    """
    A look is due, or under way, as the session ends: the job has its refusal, and the journal nothing to resume.
    """
    made, path = world(), tmp_path / "batch.db"

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        if kind == "list":
            await asyncio.sleep(5.0)
        return answer(400) if kind == "submit" else await go()

    async with session(made, hook, journal=Journal(path, inline=True), retry=RetryPolicy(first=1.0)) as veo:
        job = veo.submit(whale(1), key="k")
        await asyncio.sleep(2.0 * share)
        assert job.state is JobState.SUBMITTING
    assert isinstance(job.exception(), BadRequest)
    async with session(made, hook, journal=Journal(path, inline=True)) as veo:
        assert [] == await veo.resume()


@in_virtual_time
async def test_a_refusal_while_the_session_ends_is_believed(options: Options) -> None:
    """
    A submit that is refused while it is drained settles with that, and nothing is listed.
    """
    made = world()

    async def hook(kind: str, body: dict[str, Any], go: Go) -> Reply:
        await asyncio.sleep(2.0)
        return answer(400)

    async with session(made, hook, **options()) as veo:
        job = veo.submit(whale(1))
        await asyncio.sleep(1.0)
    assert isinstance(job.exception(), BadRequest)
    assert 0 == made.core.requests["list"]


@in_virtual_time
async def test_a_refused_job_that_is_abandoned_is_found_by_its_key(options: Options) -> None:
    """
    Abandoned while its task is looked for: whoever uses the key meanwhile takes its place, and gets the task.
    """
    made = World(Settings(mean=20.0), faults=Faults().add("status_after", on="submit", status=400))
    async with made.session(**options()) as veo:
        job = veo.submit(whale(1), key="k")
        await asyncio.sleep(0.5)
        job.abandon()
        await veo.submit(whale(1), key="k")
    assert 1 == made.core.accepted


@in_virtual_time
async def test_a_process_that_ends_while_it_looks_leaves_the_attempt_open(tmp_path: Path) -> None:
    """
    Killed before the look: the journal has an attempt whose outcome nobody knows, and the next session finds its task.
    """
    made = World(
        Settings(mean=20.0), faults=Faults().add("status_after", on="submit", status=400, first=True)
    )
    path = tmp_path / "batch.db"
    async with made.session(journal=Journal(path, inline=True)) as veo:
        veo.submit(whale(1), key="k")
        await asyncio.sleep(0.5)
        shutil.copy(path, tmp_path / "copy.db")
        shutil.copy(f"{path}-wal", tmp_path / "copy.db-wal")
    async with made.session(journal=Journal(tmp_path / "copy.db", inline=True)) as veo:
        [job] = await veo.resume()
        await job
    assert 1 == made.core.accepted


# --- resuming, and keys that collide ---------------------------------------------------------------------


async def test_resuming_while_the_session_ends_leaves_nothing_waiting(tmp_path: Path) -> None:
    """
    Jobs that would come too late are not made: the journal keeps them for the next session.
    """
    async with Simulator(Settings(speed=100)) as sim:
        async with VeoSession(sim.token, base_url=sim.url, journal=tmp_path / "batch.db") as veo:
            await veo.submit(whale(), key="k").accepted()
        async with VeoSession(sim.token, base_url=sim.url, journal=tmp_path / "batch.db") as veo:
            resuming = asyncio.ensure_future(veo.resume())
            await asyncio.sleep(0)
        with pytest.raises(SessionClosed, match="journal still has it"):
            await resuming


@in_virtual_time
async def test_a_key_may_look_like_an_attached_jobs() -> None:
    """
    A caller's key that begins as those of attached jobs do: both jobs settle, each with its own task.
    """
    made = world()
    async with made.session() as veo:
        attached = await veo.submit(whale(1)).accepted()
    async with made.session() as veo:
        own = veo.submit(whale(2), key=f"task:{attached}")
        job = veo.attach(attached)
        assert (attached, False) == ((await job).task_id, (await own).task_id == attached)

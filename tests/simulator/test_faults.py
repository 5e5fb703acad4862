"""
The fault injector: who is struck, and what becomes of the answer.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

import pytest
from attrs import define

from veo_async.simulator import Core, Fault, Faults, Reply, Settings
from veo_async.simulator._faults import CALLBACK_FAULTS, FAULTS, RECORD_FAULTS

START: Final = 1_790_000_000.0
DURATION: Final = 100.0
HOOK: Final = "http://127.0.0.1:9/hook"


@define
class Clock:
    """A clock that stands still until told otherwise."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, faults: Faults, **choices: Any) -> Core:
    return Core(Settings(duration=lambda body: DURATION, **choices), clock=clock, faults=faults)


def submit(core: Core, prompt: str = "a whale", **fields: Any) -> Reply:
    return core.post("/veo/videos", {"action": "text2video", "prompt": prompt, "async": True} | fields)


def tasks(core: Core, *prompts: str) -> list[str]:
    return [submit(core, prompt).json()["task_id"] for prompt in prompts]


def batch(core: Core, ids: list[str]) -> list[Any]:
    items = core.post("/veo/tasks", {"action": "retrieve_batch", "ids": ids}).json()["items"]
    return [*items]


def download(core: Core, task_id: str, method: str = "GET", **headers: str) -> Reply:
    link = core.files.link(core.tasks[task_id])
    return core.handle(method, link.removeprefix(core.files.base_url), headers, b"")


# --- who is struck -------------------------------------------------------------------------------------


def test_the_first_request_of_each_job(clock: Clock) -> None:
    """`first` strikes each job once: a submit by what it asks for, whatever its callback URL."""
    core = make(clock, Faults().add("drop_after", on="submit", first=True))
    replies = [
        submit(core, prompt, callback_url=f"{HOOK}/{place}")
        for place, prompt in enumerate(("a", "b", "a", "b", "a"))
    ]

    assert ["drop", "drop", None, None, None] == [reply.act for reply in replies]
    assert 5 == core.accepted


def test_the_first_request_about_each_task(clock: Clock) -> None:
    """A batch is struck while it has a task that was not looked at before."""
    core = make(clock, Faults().add("drop_before", on="retrieve_batch", first=True))
    a, b = tasks(core, "a", "b")
    acts = [
        core.post("/veo/tasks", {"action": "retrieve_batch", "ids": ids}).act
        for ids in ([a], [a], [a, b], [a, b])
    ]

    assert ["drop", None, "drop", None] == acts


def test_a_share_of_the_requests(clock: Clock) -> None:
    """`share` strikes that part of the requests, the same ones for the same seed."""
    first, again, other = (Faults(seed).add("empty", on="submit", share=0.3) for seed in (1, 1, 2))
    struck = [[submit(make(clock, faults)).fault for _ in range(1000)] for faults in (first, again, other)]

    assert 250 < Counter(struck[0])["empty"] < 350
    assert struck[0] == struck[1]
    assert struck[0] != struck[2]
    assert Counter(struck[0])["empty"] == first.struck["submit", "empty"]


def test_the_nth_requests(clock: Clock) -> None:
    """`nth` counts the requests of one endpoint from 1."""
    core = make(clock, Faults().add("html", on="submit", nth=(2, 4)))

    assert [None, "html", None, "html", None] == [submit(core).fault for _ in range(5)]


def test_times_and_match_and_the_order_of_rules(clock: Clock) -> None:
    """The first rule that strikes is the one; `times` exhausts it, `match` looks at the body."""
    faults = Faults().add("null", on="submit", times=1)
    faults.add("empty", on="submit", match=lambda body: body["prompt"] == "b")
    core = make(clock, faults)

    assert ["null", None, "empty"] == [submit(core, prompt).fault for prompt in ("b", "a", "b")]


def test_faults_can_be_suspended(clock: Clock) -> None:
    """With `on` False nothing goes wrong."""
    faults = Faults().add("empty", on="submit")
    faults.on = False

    assert None is submit(make(clock, faults)).fault


@pytest.mark.parametrize(
    ("kind", "endpoint"), [("forged", "submit"), ("late", "list"), ("drop_mid", "callback")]
)
def test_what_cannot_happen_is_refused(kind: str, endpoint: Any) -> None:
    """A fault that makes no sense at an endpoint is a ValueError, as is one nobody knows."""
    with pytest.raises(ValueError, match="cannot happen to"):
        Faults().add(kind, on=endpoint)
    with pytest.raises(ValueError, match="'meteor' is no kind of fault, only drop_before, "):
        Fault("meteor")


@pytest.mark.parametrize(
    ("kind", "choices", "words"),
    [
        ("drop_aftr", {"on": "submit"}, "'drop_aftr' is no kind of fault: did you mean 'drop_after'?"),
        ("stale", {"on": "retreive"}, "'retreive' is no endpoint: did you mean 'retrieve'?"),
        ("slow", {"on": "submit", "secnds": 3}, "'secnds' is no detail of a fault: did you mean 'seconds'?"),
        ("slow", {"on": "submit", "frist": True}, "'frist' is no detail of a fault: did you mean 'first'?"),
    ],
)
def test_a_misspelt_word_is_answered_by_a_question(kind: str, choices: Any, words: str) -> None:
    """A kind, an endpoint or a detail that is misspelt: the error names the word that it may be meant for."""
    with pytest.raises((ValueError, TypeError)) as caught:
        Faults().add(kind, **choices)
    assert words == str(caught.value)


def test_without_an_endpoint_a_fault_strikes_wherever_it_can(clock: Clock) -> None:
    """Without `on`, a kind of fault strikes at all the endpoints that it can happen to."""
    core = make(clock, Faults().add("missing"))
    [task] = tasks(core, "a whale")
    assert [] == batch(core, [task])
    assert [] == core.post("/veo/tasks", {"action": "retrieve_batch"}).json()["items"]


# --- what becomes of the answer ------------------------------------------------------------------------

ACTS: Final = {
    "drop_before": ("drop", False),
    "drop_after": ("drop", True),
    "drop_mid": ("cut", True),
    "reset_before": ("reset", False),
    "reset_after": ("reset", True),
    "stall_before": ("stall", False),
    "stall_after": ("stall", True),
    "slow": ("slow", True),
    "oversized": ("oversize", True),
    "restart_before": ("drop", False),
    "restart_after": ("drop", True),
    "status_before": (None, False),
    "status_after": (None, True),
}


@pytest.mark.parametrize("kind", [kind for kind in FAULTS["submit"] if kind != "late"])
def test_a_submit_is_accepted_or_not(clock: Clock, kind: str) -> None:
    """What happens `_before` leaves no task; everything else does."""
    core = make(clock, Faults().add(kind, on="submit"))
    reply = submit(core)
    act, accepted = ACTS.get(kind, (None, True))

    assert (kind, act, int(accepted)) == (reply.fault, reply.act, core.accepted)


def test_the_answer_of_a_synchronous_submit_is_struck_at_its_end(clock: Clock) -> None:
    """The fault waits for the answer that it is to spoil."""
    core = make(clock, Faults().add("bad_json", on="submit"))
    reply = core.post("/veo/videos", {"action": "text2video", "prompt": "a whale"})
    assert reply.later is not None
    clock.now += DURATION

    assert "bad_json" == reply.later().fault


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("cut_off", b'{"task_id":"'),
        ("deep", b"[[[[[["),
        ("html", b"<html>"),
        ("bad_text", b'\x80{"task_id"'),
        ("wrong_type", b'{"task_id"'),
        ("null", b"null"),
    ],
)
def test_bodies_are_spoiled(clock: Clock, kind: str, body: bytes) -> None:
    """The body becomes something else, under status 200."""
    reply = submit(make(clock, Faults().add(kind, on="submit")))

    assert (200, body) == (reply.status, reply.body[: len(body)])
    if kind in {"html", "wrong_type"}:
        assert "json" not in reply.headers["Content-Type"]


def test_bad_json_is_no_json(clock: Clock) -> None:
    """The spoiled body cannot be parsed."""
    with pytest.raises(ValueError, match=r"Expecting property name|Illegal trailing comma"):
        submit(make(clock, Faults().add("bad_json", on="submit"))).json()


@pytest.mark.parametrize(
    ("status", "code"),
    [(408, None), (429, "too_many_requests"), (500, "api_error"), (502, None), (503, None), (504, "timeout")],
)
def test_statuses(clock: Clock, status: int, code: str | None) -> None:
    """The API's own statuses come with its codes, a gateway's with a page."""
    reply = submit(make(clock, Faults().add("status_before", on="submit", status=status)))

    assert status == reply.status
    assert "Retry-After" not in reply.headers
    assert code == (reply.json()["error"]["code"] if code else None)
    assert (code is None) == reply.body.startswith(b"<html>")


@pytest.mark.parametrize(("as_date", "expected"), [(False, "2.5"), (True, "Mon, 21 Sep 2026 14:13:22 GMT")])
def test_retry_after(clock: Clock, as_date: bool, expected: str) -> None:
    """`Retry-After` comes in seconds or as a date."""
    faults = Faults().add("status_after", on="submit", status=503, retry_after=2.5, as_date=as_date)

    assert expected == submit(make(clock, faults)).headers["Retry-After"]


def test_a_redirect_leads_elsewhere(clock: Clock) -> None:
    """A 307 has a location, which a careless client would POST to."""
    reply = submit(make(clock, Faults().add("status_before", on="submit", status=307)))

    assert "/elsewhere" == reply.headers["Location"]


def test_a_restart_refuses_connections_for_a_while(clock: Clock) -> None:
    """The struck request is dropped, then no connection can be made until the server is back."""
    core = make(clock, Faults().add("restart_after", on="submit", nth=[1], seconds=3.0))
    acts = [submit(core).act for _ in range(2)]
    clock.now += 3.0

    assert ["drop", "refuse", None] == [*acts, submit(core).act]
    assert 2 == core.accepted


def test_a_task_can_be_late(clock: Clock) -> None:
    """A late task is accepted, but lookups and listings find it only after a while."""
    core = make(clock, Faults().add("late", on="submit", nth=[1], seconds=5.0))
    late, prompt = tasks(core, "late", "prompt")

    def listed() -> list[str]:
        reply = core.post("/veo/tasks", {"action": "retrieve_batch"})
        return [item["id"] for item in reply.json()["items"]]

    assert [prompt] == listed() == [item["id"] for item in batch(core, [late, prompt])]
    clock.now += 5.0
    assert [prompt, late] == listed()


# --- records -------------------------------------------------------------------------------------------


def seen(clock: Clock, kind: str, **how: Any) -> tuple[list[str], list[Any]]:
    """Look at ten finished tasks in one batch that the fault strikes."""
    core = make(clock, Faults().add(kind, on="retrieve_batch", **how))
    ids = tasks(core, *"abcdefghij")
    clock.now += DURATION
    return ids, batch(core, ids)


def test_records_can_be_missing(clock: Clock) -> None:
    """Half of the tasks are left out, or all that were never looked at before."""
    ids, items = seen(clock, "missing")

    assert 5 == len(items)
    assert {item["id"] for item in items} < set(ids)
    assert [] == seen(clock, "missing", first=True)[1]


def test_records_can_be_shuffled_and_doubled(clock: Clock) -> None:
    """The same records come in another order, or twice."""
    ids, shuffled = seen(clock, "shuffled")
    same, doubled = seen(clock, "doubled")

    assert ids != [item["id"] for item in shuffled]
    assert sorted(ids) == sorted(item["id"] for item in shuffled)
    assert sorted(same * 2) == sorted(item["id"] for item in doubled)


def test_strangers_can_come_along(clock: Clock) -> None:
    """Finished records that nobody asked for come before those that were."""
    ids, items = seen(clock, "strangers")

    assert ids == [item["id"] for item in items[10:]]
    assert not set(ids) & {item["id"] for item in items[:10]}
    assert all(item["response"]["success"] for item in items[:10])


def test_an_ended_task_can_look_pending(clock: Clock) -> None:
    """Some records are out of date, and `flipped` ones come twice: ended, then pending."""
    _, stale = seen(clock, "stale")
    ids, flipped = seen(clock, "flipped")

    assert 5 == sum("response" not in item for item in stale)
    assert ids * 2 == [item["id"] for item in flipped]
    assert [True] * 10 + [False] * 10 == ["response" in item for item in flipped]


@pytest.mark.parametrize(
    ("kind", "expected"), [("missing", "nothing"), ("strangers", "another"), ("stale", "pending")]
)
def test_a_single_lookup_can_go_wrong(clock: Clock, kind: str, expected: str) -> None:
    """`retrieve` finds nothing, another task, or an old state."""
    core = make(clock, Faults().add(kind, on="retrieve"))
    (task_id,) = tasks(core, "a")
    clock.now += DURATION
    record = core.post("/veo/tasks", {"id": task_id}).json()

    match expected:
        case "nothing":
            assert {} == record
        case "another":
            assert task_id != record["id"]
        case _:
            assert (task_id, False) == (record["id"], "response" in record)


@pytest.mark.parametrize("kind", RECORD_FAULTS)
def test_a_listing_can_go_wrong(clock: Clock, kind: str) -> None:
    """A listing suffers from every fault of records, and stays well-formed."""
    core = make(clock, Faults().add(kind, on="list", first=True))
    tasks(core, "a", "b")
    clock.now += DURATION
    struck, next_one = (core.post("/veo/tasks", {"action": "retrieve_batch"}).json() for _ in range(2))

    assert {"items", "count"} == struck.keys()
    assert 2 == len(next_one["items"])
    assert 1 == core.faults.struck["list", kind]  # type: ignore[union-attr]


@pytest.mark.parametrize("ids", [7, [["a"]], {"a": 1}])
def test_malformed_lookups_stay_refused(clock: Clock, ids: object) -> None:
    """A request that makes no sense is answered as such, faults or not."""
    core = make(clock, Faults().add("missing", on="retrieve_batch", first=True))

    assert 400 == core.post("/veo/tasks", {"action": "retrieve_batch", "ids": ids}).status


# --- downloads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 3_000_000])
@pytest.mark.parametrize("kind", ["cut_off", "html", "empty", "drop_mid", "status_before", "reset_before"])
def test_a_download_can_go_wrong(clock: Clock, kind: str, size: int | None) -> None:
    """The first download of each file is struck, the second is whole."""
    core = make(clock, Faults().add(kind, on="download", first=True, status=403), file_size=size)
    (task_id,) = tasks(core, "a")
    clock.now += DURATION
    whole = core.files.contents(core.tasks[task_id])
    struck, sound = download(core, task_id), download(core, task_id)

    assert kind == struck.fault
    assert whole == b"".join(sound.chunks or [sound.body])
    match kind:
        case "cut_off":
            assert whole[: len(whole) // 2] == b"".join(struck.chunks or [struck.body])
            assert str(len(whole) // 2) == struck.headers["Content-Length"]
        case "drop_mid":
            assert whole[: len(whole) // 2] == b"".join(struck.half())
        case "status_before":
            assert 403 == struck.status
        case "html" | "empty":
            assert ("ETag" in struck.headers, struck.chunks) == (False, None)


# --- callbacks -----------------------------------------------------------------------------------------


def planned(clock: Clock, kind: str) -> tuple[str, Reply, list[tuple[float, Any]]]:
    """Submit one task with a callback, and tell what is sent when, in seconds after the submit."""
    core = make(clock, Faults().add(kind, on="callback", seconds=7.0))
    reply = submit(core, callback_url=HOOK)
    due = core.callbacks_due(START + 1000.0)
    return reply.json()["task_id"], reply, [(item.due_at - START, json.loads(item.body)) for item in due]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("lost", []),
        ("duplicated", [100.0, 100.0, 107.0]),
        ("early", [0.0, 100.0]),
        ("delayed", [107.0]),
        ("forged", [0.0, 0.0, 0.0, 100.0]),
    ],
)
def test_callbacks_go_wrong_in_time_and_number(clock: Clock, kind: str, expected: list[float]) -> None:
    """Each fault of callbacks changes what is sent when."""
    _, reply, sent = planned(clock, kind)

    assert expected == [at for at, _ in sent]
    assert (kind == "early") == reply.callbacks_first
    assert kind in CALLBACK_FAULTS


def test_forged_callbacks_lie(clock: Clock) -> None:
    """A failure, a stranger's success and a foreign address are claimed before the truth is told."""
    task_id, _, sent = planned(clock, "forged")
    failed, stranger, elsewhere, truth = (body for _, body in sent)

    assert (task_id, False) == (failed["task_id"], failed["success"])
    assert task_id != stranger["task_id"]
    assert "http://127.0.0.1:9/forged.mp4" == elsewhere["data"][0]["video_url"]
    assert (task_id, True) == (truth["task_id"], truth["success"])


def test_an_early_callback_is_due_at_once(clock: Clock) -> None:
    """Whatever the fraction of the millisecond in which the submit came, its early callback is due."""
    core = make(clock, Faults().add("early", on="callback"))
    clock.now += 0.0006
    task_id = submit(core, callback_url=HOOK).json()["task_id"]

    assert [task_id] == [callback.task_id for callback in core.callbacks_due(clock.now)]
    assert START == core.tasks[task_id].created_at

"""
The simulator's core: submits, lookups, listings, limits, steering, as its settings choose.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, get_args

import pytest
from attrs import define
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from veo_async.simulator import TOKEN, Core, Faults, Settings
from veo_async.simulator._replies import http_date
from veo_async.simulator._settings import FailedForm, PendingForm

SAMPLES: Final = Path(__file__).parent.parent / "samples"
WHALE: Final = {"action": "text2video", "prompt": "a whale", "async": True}
IMAGE: Final = "https://example.com/a.jpg"
START: Final = 1_790_000_000.0
DURATION: Final = 100.0
HOOK: Final = "http://127.0.0.1:9/hook"
NOBODY: Final = "00000000-0000-4000-8000-000000000000"


@define
class Clock:
    """A clock that stands still until told otherwise."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, **choices: Any) -> Core:
    return Core(Settings(**({"duration": lambda body: DURATION} | choices)), clock=clock)


def submit(core: Core, *, token: str | None = None, path: str = "/veo/videos", **fields: Any) -> str:
    body = fields if path != "/veo/videos" else WHALE | fields
    reply = core.post(path, {"async": True} | body, token=token)
    assert 200 == reply.status, reply.body
    return str(reply.json()["task_id"])


def look(core: Core, *, token: str | None = None, **fields: Any) -> Any:
    reply = core.post("/veo/tasks", fields, token=token)
    assert 200 == reply.status, reply.body
    return reply.json()


def record(core: Core, task_id: str) -> Any:
    return look(core, action="retrieve", id=task_id)


def batch(core: Core, *ids: str, **fields: Any) -> list[str]:
    return [item["id"] for item in look(core, action="retrieve_batch", ids=ids, **fields)["items"]]


def listed(core: Core, **fields: Any) -> list[str]:
    return [item["id"] for item in look(core, action="retrieve_batch", **fields)["items"]]


def refusal(core: Core, path: str, body: object, **how: Any) -> tuple[int, str, str]:
    reply = core.post(path, body, **how)
    error = reply.json()["error"]
    return reply.status, error["code"], error["message"]


def shape(value: object) -> object:
    """The names and types of a body, without its values."""
    if isinstance(value, Mapping):
        return {name: shape(item) for name, item in value.items() if name != "request"}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value).__name__


def sample(name: str) -> Any:
    return json.loads((SAMPLES / name).read_text(encoding="utf-8"))


# --- submits -------------------------------------------------------------------------------------------


def test_an_asynchronous_submit_answers_with_the_id_alone(clock: Clock) -> None:
    """`async: true` is answered at once, with nothing but the task's id."""
    reply = make(clock).post("/veo/videos", WHALE)

    assert shape(sample("submit_async.json")) == shape(reply.json())
    assert None is reply.later


def test_a_callback_makes_a_submit_asynchronous(clock: Clock) -> None:
    """A callback URL is enough to be answered at once, also beside `async: false`."""
    body = WHALE | {"async": False, "callback_url": "http://127.0.0.1/hook"}

    assert {"task_id"} == make(clock).post("/veo/videos", body).json().keys()


def test_a_submit_may_carry_more(clock: Clock) -> None:
    """The settings add `success` and the trace id that the task can be found by."""
    core = make(clock, submit_extras=True)
    answer = core.post("/veo/videos", WHALE).json()

    assert answer["success"] is True
    assert answer["task_id"] == look(core, action="retrieve", trace_id=answer["trace_id"])["id"]


@pytest.mark.parametrize("flag", [{}, {"async": False}, {"async": None}])
def test_a_synchronous_submit_is_answered_when_the_task_ends(clock: Clock, flag: dict[str, Any]) -> None:
    """The reply says when to come back, and then has the video."""
    core = make(clock)
    reply = core.post("/veo/videos", {"action": "text2video", "prompt": "a whale"} | flag)
    assert reply.later is not None
    assert reply.answer_at == START + DURATION
    assert reply.later().later is not None

    clock.now += DURATION
    assert shape(sample("submit_sync.json")) == shape(reply.later().json())


def test_a_synchronous_submit_that_fails_is_an_error(clock: Clock) -> None:
    """The task's failure is answered as an HTTP error, with the status of its code."""
    core = make(clock, failure_share=1.0, error_success=True)
    reply = core.post("/veo/videos", WHALE | {"async": False})
    assert reply.later is not None

    clock.now += DURATION
    answer = reply.later()
    assert 500 == answer.status
    assert shape(sample("error_api_error.json")) == shape(answer.json())


def test_get1080p_repeats_the_source(clock: Clock) -> None:
    """get1080p shows the id and times of its source, under a new address."""
    core = make(clock)
    source = submit(core)
    clock.now += DURATION
    video = record(core, source)["response"]["data"][0]
    again = submit(core, action="get1080p", video_id=video["id"], prompt=None)
    clock.now += DURATION
    larger = record(core, again)["response"]["data"][0]
    repeated = submit(core, action="get1080p", video_id=larger["id"], prompt=None)

    assert video | {"video_url": larger["video_url"]} == larger
    assert video["video_url"] != larger["video_url"]
    assert core.tasks[repeated].source is core.tasks[source]


@pytest.mark.parametrize("when", ["unknown", "unfinished", "failed", "another account's"])
def test_a_video_must_be_known(clock: Clock, when: str) -> None:
    """Only a finished video of the caller's own account can be worked on."""
    core = make(clock, tokens=("mine", "yours"))
    task = core.tasks[submit(core, token="yours" if when == "another account's" else "mine")]
    if when == "failed":
        core.fail(task.id)
    clock.now += 0.0 if when == "unfinished" else DURATION
    video_id = {"unknown": "video"}.get(when) or _video_id(task.number)

    expected = (400, "bad_request", "video_id is invalid")
    assert expected == refusal(core, "/veo/upsample", {"video_id": video_id, "action": "4k"})


def _video_id(number: int) -> str:
    from veo_async.simulator._records import VIDEO_MASK

    return f"{number ^ VIDEO_MASK:032x}"


def test_unknown_fields_are_dropped(clock: Clock) -> None:
    """Fields that the endpoint does not know, and nulls, are neither refused nor echoed."""
    core = make(clock)

    assert record(core, submit(core, colour="red", motion_type="UP", model=None))["request"] == WHALE


MARKED: Final = [
    "https://api.acedata.cloud/health?veo_async=aB-_9.1",
    "https://example.com/hook?a=1&b=2#veo_async=aB-_9.1",
    "http://127.0.0.1:9/veo/aB-_9.1",
    "http://[",
]


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("whole", MARKED),
        (
            "cut_off",
            [
                "https://api.acedata.cloud/health",
                "https://example.com/hook",
                "http://127.0.0.1:9/veo/aB-_9.1",
                "http://[",
            ],
        ),
        (
            "rewritten",
            [
                "HTTPS://API.ACEDATA.CLOUD/health?veo%5Fasync=aB%2D%5F9%2E1",
                "HTTPS://EXAMPLE.COM/hook?b=2&a=1#veo%5Fasync=aB%2D%5F9%2E1",
                "HTTP://127.0.0.1:9/veo/aB%2D%5F9%2E1",
                "HTTP://[",
            ],
        ),
        (
            "escaped",
            [
                "https:&#x2F;&#x2F;api.acedata.cloud&#x2F;health?veo_async&#x3D;aB-_9.1",
                "https:&#x2F;&#x2F;example.com&#x2F;hook?a&#x3D;1&amp;b&#x3D;2#veo_async&#x3D;aB-_9.1",
                "http:&#x2F;&#x2F;127.0.0.1:9&#x2F;veo&#x2F;aB-_9.1",
                "http:&#x2F;&#x2F;[",
            ],
        ),
        ("absent", [None] * 4),
    ],
)
def test_the_echo_shows_a_callback_url_as_chosen(clock: Clock, form: Any, expected: list[str | None]) -> None:
    """A record, and a listing, show the callback URL as the settings say; the rest is as it was sent."""
    core = make(clock, echo_callback_url=form)
    shown = [record(core, submit(core, callback_url=url))["request"] for url in MARKED]

    assert expected == [request.get("callback_url") for request in shown]
    assert [WHALE] * 4 == [{name: request[name] for name in WHALE} for request in shown]
    in_listing = [item["request"] for item in look(core, action="retrieve_batch")["items"]]
    assert shown == in_listing[::-1]
    submit(core)
    assert "callback_url" not in look(core, action="retrieve_batch")["items"][0]["request"]


def test_the_echo_may_lack_fields_or_name_the_model(clock: Clock) -> None:
    """The settings leave fields out of the echoed request, or fill in the model that was used."""
    core = make(clock, echo_omits=["async", "image_urls"], echo_defaults=True)
    task_id = submit(core, action="ingredients2video", image_urls=[IMAGE], model="veo31")

    expected = {"action": "ingredients2video", "prompt": "a whale", "model": "veo31-fast-ingredients"}
    assert expected == record(core, task_id)["request"]


# --- what is refused -----------------------------------------------------------------------------------

VIDEO: Final = {"video_id": "v"}
BAD: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("/veo/videos", {"prompt": "x"}, "action is required"),
    ("/veo/videos", {"action": "fly", "prompt": "x"}, "action is not supported: fly"),
    ("/veo/videos", {"action": "get_1080p", "video_id": "v"}, "action is not supported: get_1080p"),
    ("/veo/videos", {"action": "text2video"}, "prompt is required"),
    ("/veo/videos", {"action": "text2video", "prompt": " "}, "prompt is invalid"),
    ("/veo/videos", {"action": "text2video", "prompt": 7}, "prompt is invalid"),
    ("/veo/videos", WHALE | {"model": "veo2"}, "model is not supported"),
    ("/veo/videos", WHALE | {"model": "veo9"}, "model is not supported"),
    (
        "/veo/videos",
        WHALE | {"model": "veo31-fast-ingredients"},
        "image_urls is invalid when generate videos",
    ),
    ("/veo/videos", WHALE | {"resolution": "720p"}, "resolution is not supported: 720p"),
    ("/veo/videos", WHALE | {"aspect_ratio": "4:3"}, "aspect_ratio is not supported: 4:3"),
    ("/veo/videos", WHALE | {"translation": "yes"}, "translation is invalid"),
    ("/veo/videos", WHALE | {"async": "yes"}, "async is invalid"),
    ("/veo/videos", WHALE | {"callback_url": "ftp://host/"}, "callback_url is invalid"),
    ("/veo/videos", WHALE | {"image_urls": IMAGE}, "image_urls is invalid"),
    ("/veo/videos", WHALE | {"image_urls": ["a.jpg"]}, "image_urls is invalid"),
    ("/veo/videos", {"action": "image2video", "image_urls": [IMAGE]}, "prompt is required"),
    ("/veo/videos", WHALE | {"action": "image2video"}, "image_urls is invalid when generate videos"),
    (
        "/veo/videos",
        WHALE | {"action": "image2video", "image_urls": [IMAGE] * 3},
        "image_urls is invalid when generate videos",
    ),
    ("/veo/videos", {"action": "ingredients2video"}, "image_urls is invalid when generate videos"),
    (
        "/veo/videos",
        {"action": "ingredients2video", "image_urls": [IMAGE] * 4},
        "image_urls is invalid when generate videos",
    ),
    ("/veo/videos", {"action": "get1080p"}, "video_id is required"),
    ("/veo/upsample", VIDEO, "action is required"),
    ("/veo/upsample", VIDEO | {"action": "8k"}, "action is not supported: 8k"),
    ("/veo/extend", VIDEO, "model is required"),
    ("/veo/extend", VIDEO | {"model": "veo3"}, "model is not supported: veo3"),
    ("/veo/extend", VIDEO | {"model": "veo31", "aspect_ratio": "1:1"}, "aspect_ratio is not supported: 1:1"),
    ("/veo/extend", VIDEO | {"model": "veo31", "resolution": "4k"}, "resolution is not supported: 4k"),
    ("/veo/reshoot", VIDEO, "motion_type is required"),
    ("/veo/reshoot", VIDEO | {"motion_type": "SPIN"}, "motion_type is not supported: SPIN"),
    ("/veo/objects", VIDEO, "action is required"),
    ("/veo/objects", VIDEO | {"action": "move"}, "action is not supported: move"),
    ("/veo/objects", VIDEO | {"action": "insert"}, "prompt is required"),
    ("/veo/objects", VIDEO | {"action": "remove"}, "image_mask is required"),
    ("/veo/tasks", {"action": "delete"}, "action is not supported: delete"),
    ("/veo/tasks", {"action": "retrieve"}, "id or trace_id is required"),
    ("/veo/tasks", {}, "id or trace_id is required"),
    ("/veo/tasks", {"id": 7}, "id is invalid"),
    ("/veo/tasks", {"action": "retrieve_batch", "ids": 7}, "ids is invalid"),
    ("/veo/tasks", {"action": "retrieve_batch", "ids": [["a"]]}, "ids is invalid"),
    ("/veo/tasks", {"action": "retrieve_batch", "created_at_min": "now"}, "created_at_min is invalid"),
    ("/veo/tasks", {"action": "retrieve_batch", "limit": True}, "limit is invalid"),
    (
        "/veo/tasks",
        {"action": "retrieve_batch", "offset": -1},
        "offset and limit must be whole numbers, not negative",
    ),
    (
        "/veo/tasks",
        {"action": "retrieve_batch", "ids": [str(n) for n in range(51)]},
        "At most 50 tasks can be retrieved at once.",
    ),
    ("/veo/tasks", ["retrieve"], "The body must be a JSON object."),  # type: ignore[list-item]
]


@pytest.mark.parametrize(("path", "body", "message"), BAD, ids=[row[2] for row in BAD])
def test_a_bad_request_is_refused(clock: Clock, path: str, body: object, message: str) -> None:
    """Whatever the documents rule out is a `bad_request` that says why, and no task."""
    core = make(clock)

    assert (400, "bad_request", message) == refusal(core, path, body)
    assert 0 == core.accepted
    assert 1 == core.requests["refused"]


@pytest.mark.parametrize(
    ("model", "most"), [("veo3", 3), ("veo2-fast", 1), ("veo31-fast-ingredients", 3), ("veo31", 3)]
)
def test_the_seed_takes_as_many_images_as_its_table_says(clock: Clock, model: str, most: int) -> None:
    """Under the oldest documents image2video takes up to three images, `veo2-fast` one."""
    core = Core(Settings.oldest(), clock=clock)
    body = WHALE | {"action": "image2video", "model": model, "callback_url": "http://127.0.0.1/hook"}

    taken = [core.post("/veo/videos", body | {"image_urls": [IMAGE] * n}).status for n in range(1, 5)]
    assert [200] * most + [400] * (4 - most) == taken


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"model": "veo2"}, False),
        ({"aspect_ratio": "4:3"}, False),
        ({"action": "get_1080p"}, True),  # known, but it needs a video
        ({"resolution": "4k", "model": "veo3"}, True),
        ({"resolution": "4k", "model": "veo31"}, False),
        ({"action": "ingredients2video", "image_urls": [IMAGE]}, True),
    ],
)
def test_the_oldest_documents(clock: Clock, fields: dict[str, Any], refused: bool) -> None:
    """`Settings.oldest()` takes what was retired since, and refuses what came since."""
    core = Core(Settings.oldest(), clock=clock)

    assert (400 if refused else 200) == core.post("/veo/videos", WHALE | fields).status


@pytest.mark.parametrize("code", ["no_api", "api_not_implemented"])
def test_post_processing_can_be_off(clock: Clock, code: Any) -> None:
    """Where post-processing is retired, its endpoints answer with the chosen code."""
    core = make(clock, post_processing=code)

    status, answered, _ = refusal(core, "/veo/upsample", {"video_id": "v", "action": "4k"})
    assert (404 if code == "no_api" else 400, code) == (status, answered)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Content-Type": "application/json"}, 400, "no_token"),
        ({"Authorization": "Basic abc", "Content-Type": "application/json"}, 400, "no_token"),
        ({"Authorization": "Bearer ", "Content-Type": "application/json"}, 400, "no_token"),
        ({"Authorization": "Bearer wrong", "Content-Type": "application/json"}, 401, "invalid_token"),
        ({"Authorization": f"Bearer {TOKEN}", "Content-Type": "text/plain"}, 400, "bad_request"),
        ({"authorization": f"bearer {TOKEN}"}, 400, "bad_request"),
    ],
)
def test_headers_are_checked(clock: Clock, headers: dict[str, str], status: int, code: str) -> None:
    """A request needs a bearer token that is known, and JSON."""
    reply = make(clock).handle("POST", "/veo/tasks", headers, b'{"id": "x"}')

    assert (status, code) == (reply.status, reply.json()["error"]["code"])
    assert reply.headers["X-Trace-Id"] == reply.json()["trace_id"]
    assert shape(sample("error_invalid_token.json")) == shape(reply.json())


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/health", "/health?veo_async=a.1"])
def test_health_needs_no_token(clock: Clock, method: str, path: str) -> None:
    """Whoever asks for the health is told that all is well, and it counts as no request."""
    core = make(clock)
    reply = core.handle(method, path, {}, b"not JSON")

    assert (200, {"status": "ok"}) == (reply.status, reply.json())
    assert 0 == core.requests.total()


def test_a_server_that_is_down_has_no_health(clock: Clock) -> None:
    """While no connection can be made, the health cannot be asked for either."""
    core = make(clock)
    core.down_until = clock.now + 1.0

    assert "refuse" == core.handle("GET", "/health", {}, b"").act


@pytest.mark.parametrize(("method", "path"), [("GET", "/veo/tasks"), ("POST", "/veo/images"), ("POST", "/")])
def test_other_endpoints_do_not_exist(clock: Clock, method: str, path: str) -> None:
    """Anything but the documented endpoints is `no_api`."""
    reply = make(clock).handle(method, path, {}, b"")

    assert (404, "no_api") == (reply.status, reply.json()["error"]["code"])


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b"null", b"7"])
def test_a_body_that_is_no_object_is_refused(clock: Clock, body: bytes) -> None:
    """What is not a JSON object is a `bad_request`, however it is broken."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    reply = make(clock).handle("POST", "/veo/videos", headers, body)

    assert (400, "bad_request") == (reply.status, reply.json()["error"]["code"])


@pytest.mark.parametrize(
    ("code", "status", "looks"),
    [
        ("token_mismatched", 400, False),
        ("token_expired", 401, False),
        ("disabled", 403, False),
        ("used_up", 403, True),
    ],
)
def test_a_token_can_die(clock: Clock, code: str, status: int, looks: bool) -> None:
    """A revoked token gets its code; with an empty balance it may still look."""
    core = make(clock, mismatch_status=400)
    task_id = submit(core)
    core.revoke(TOKEN, code)

    assert (status, code) == refusal(core, "/veo/videos", WHALE)[:2]
    assert looks == (200 == core.post("/veo/tasks", {"id": task_id}).status)


# --- records -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("task_succeeded_newest.json", {}),
        ("task_succeeded.json", {"newer_fields": False, "times": "utc8"}),
        ("task_failed_inferred.json", {"failure_share": 1.0}),
    ],
)
def test_a_finished_record_has_the_documented_shape(clock: Clock, name: str, choices: dict[str, Any]) -> None:
    """Names and types of a finished record are those of the documents' example."""
    core = make(clock, **choices)
    task_id = submit(core)
    clock.now += DURATION

    assert shape(sample(name)) == shape(record(core, task_id))


def test_a_pending_record_has_the_inferred_shape(clock: Clock) -> None:
    """By default a pending record has neither a response nor an end."""
    core = make(clock)

    assert shape(sample("task_pending_inferred.json")) == shape(record(core, submit(core)))


PENDING: Final[dict[str, object]] = {
    "null": None,
    "empty": {},
    "no_data": {"success": True, "data": []},
    "null_data": {"success": True, "data": None},
    "hiccup": {"success": False, "error": "temporary"},
    "null_error": {"success": False, "error": None},
}


@pytest.mark.parametrize("form", get_args(PendingForm))
def test_a_pending_record_takes_every_form(clock: Clock, form: Any) -> None:
    """Each form of a pending record that was seen can be chosen."""
    core = make(clock, pending=form, pending_finished_at="null")
    seen = record(core, submit(core))

    assert None is seen["finished_at"]
    if form in PENDING:
        assert PENDING[form] == seen["response"]
    elif form == "started":
        assert {"success": True, "task_id": seen["id"]} == seen["response"]
    elif form == "absent":
        assert "response" not in seen
    elif form != "mixed":
        assert [{"state": form}] == seen["response"]["data"]


@pytest.mark.parametrize("form", get_args(FailedForm))
def test_a_failed_record_takes_every_form(clock: Clock, form: Any) -> None:
    """Each form of a failed record that was seen can be chosen, and none of them is billed."""
    core = make(clock, failed=form, failed_word="rejected", failure_share=1.0, failure=("forbidden", "no"))
    task_id = submit(core)
    clock.now += DURATION
    seen = record(core, task_id)

    match form:
        case "error" | "open":
            assert {"code": "forbidden", "message": "no"} == seen["response"]["error"]
            assert (form == "error") == ("finished_at" in seen)
        case "text":
            assert ("no", START + DURATION) == (seen["response"]["error"], seen["finished_at"])
        case "null":
            assert (None, START + DURATION) == (seen["response"]["error"], seen["finished_at"])
        case "state":
            assert "rejected" == seen["response"]["data"][0]["state"]
        case "empty_success":
            assert {"id", "state"} == seen["response"]["data"][0].keys()
    assert 0 == core.billed


def test_words_ids_and_times_can_be_chosen(clock: Clock) -> None:
    """The success word, dashed video ids, several videos, and the text of times follow the settings."""
    core = make(clock, success_word="complete", video_ids="dashed", videos=2, times="utc8")
    task_id = submit(core)
    clock.now += DURATION
    data = record(core, task_id)["response"]["data"]

    assert ["complete"] * 2 == [video["state"] for video in data]
    assert [8, 4, 4, 4, 12] == [len(part) for part in data[1]["id"].split("-")]
    assert 2 == len({video["id"] for video in data}) == len({video["video_url"] for video in data})
    assert ("2026-09-21 22:13:20", "2026-09-21 22:15:00") == (data[0]["created_at"], data[0]["complete_at"])
    assert task_id == _source_of(core, data[1]["id"])


def _source_of(core: Core, video_id: str) -> str:
    made = core.tasks[submit(core, action="get1080p", video_id=video_id)]
    assert made.source is not None
    return made.source.id


@pytest.mark.parametrize(
    ("fields", "fits"),
    [
        ({"model": "veo31"}, True),
        ({"model": "veo3"}, False),
        ({"model": "veo31", "action": "image2video", "image_urls": [IMAGE]}, False),
    ],
)
def test_4k_fails_as_a_task_where_it_is_not_offered(clock: Clock, fields: dict[str, Any], fits: bool) -> None:
    """A resolution that the request cannot have is accepted, and fails in the end."""
    core = make(clock)
    task = core.tasks[submit(core, resolution="4k", **fields)]

    assert ("succeeded" if fits else "failed") == task.state(clock.now + DURATION)


# --- lookups -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("choice", "body"), [("{}", {}), ("null", None)])
def test_an_unknown_id_is_answered_with_nothing(clock: Clock, choice: Any, body: object) -> None:
    """`retrieve` answers 200 with an empty object, or null, about a task nobody knows."""
    assert body == look(make(clock, unknown=choice), id=NOBODY)


def test_an_unknown_id_may_be_404(clock: Clock) -> None:
    """As on a sibling service, an unknown id can be an error."""
    assert 404 == make(clock, unknown="404").post("/veo/tasks", {"trace_id": "not a trace"}).status


def test_a_batch_leaves_unknown_ids_out(clock: Clock) -> None:
    """A batch has the known tasks in the order asked for, by id and by trace."""
    core = make(clock)
    first, second = submit(core), submit(core)
    trace = core.tasks[first].trace_id

    assert [second] == batch(core, second, NOBODY)
    assert [second, first] == batch(core, second, trace_ids=[trace])
    assert [first] == listed(core, trace_ids=[trace])


@pytest.mark.parametrize("repeats", [True, False])
def test_an_id_asked_for_twice(clock: Clock, repeats: bool) -> None:
    """An id asked for twice comes twice or once, as the settings say."""
    core = make(clock, repeats=repeats)
    task_id = submit(core)

    assert [task_id] * (2 if repeats else 1) == batch(core, task_id, task_id)


def test_limit_may_cap_a_query_by_ids(clock: Clock) -> None:
    """Where `limit` caps ids, twelve come unless more are asked for."""
    core = make(clock, limit_caps_ids=True)
    ids = [submit(core) for _ in range(15)]

    assert ids[:12] == batch(core, *ids)
    assert ids[1:15] == batch(core, *ids, offset=1, limit=50)
    assert ids == batch(make_same(core), *ids, limit=3)


def make_same(core: Core) -> Core:
    other = Core(Settings(seed=core.settings.seed, duration=core.settings.duration), clock=core.clock)
    for _ in core.tasks:
        submit(other)
    return other


def test_the_same_seed_gives_the_same_ids(clock: Clock) -> None:
    """Two cores with one seed accept the same requests under the same ids."""
    core = make(clock)
    submit(core)

    assert [*core.tasks] == [*make_same(core).tasks]
    assert [*core.tasks] != [*Core(Settings(seed=1), clock=clock).tasks]


def test_accounts_do_not_see_each_other(clock: Clock) -> None:
    """Tokens of one account share its tasks; to another account they do not exist."""
    core = make(clock, tokens={"a1": "a", "a2": "a", "b": "b"})
    task_id = submit(core, token="a1")

    assert task_id == look(core, id=task_id, token="a2")["id"]
    assert {} == look(core, id=task_id, token="b")
    assert [] == look(core, action="retrieve_batch", token="b")["items"]


@pytest.mark.parametrize("where", ["lookup", "batch", "list"])
def test_a_task_may_be_late_to_appear(clock: Clock, where: str) -> None:
    """A new task stays out of lookups, batches and listings for as long as the settings say."""
    core = make(clock, late=5.0)
    task_id = submit(core)

    def found() -> bool:
        match where:
            case "lookup":
                return bool(look(core, id=task_id))
            case "batch":
                return [task_id] == batch(core, task_id)
            case _:
                return [task_id] == listed(core)

    assert not found()
    clock.now += 5.0
    assert found()


# --- listings ------------------------------------------------------------------------------------------


@pytest.fixture
def ten(clock: Clock) -> tuple[Core, list[str]]:
    core = make(clock)
    ids = []
    for _ in range(10):
        ids.append(submit(core))
        clock.now += 1.0
    return core, ids


def test_a_listing_is_paged_newest_first(ten: tuple[Core, list[str]]) -> None:
    """Without ids the caller's own tasks come, newest first, in pages."""
    core, ids = ten
    newest = ids[::-1]

    assert newest == listed(core)
    assert newest[3:7] == listed(core, offset=3, limit=4)
    assert [] == listed(core, offset=10)
    assert [] == listed(core, limit=0)
    assert newest == listed(core, ids=[])


def test_a_listing_has_twelve_unless_asked(clock: Clock) -> None:
    """The default limit is twelve."""
    core = make(clock, order="oldest")
    ids = [submit(core) for _ in range(15)]

    assert ids[:12] == listed(core)
    assert ids == listed(core, limit=100)


@pytest.mark.parametrize(("closed", "expected"), [(True, slice(2, 6)), (False, slice(3, 5))])
def test_bounds_may_belong_to_the_range(clock: Clock, closed: bool, expected: slice) -> None:
    """The bounds of `created_at` are inclusive or not."""
    core = make(clock, bounds_inclusive=closed, order="oldest")
    ids = []
    for _ in range(10):
        ids.append(submit(core))
        clock.now += 1.0

    assert ids[expected] == listed(core, created_at_min=START + 2, created_at_max=START + 5)
    assert [] == listed(core, created_at_min=START + 5, created_at_max=START + 2)


def test_a_listing_filters_by_type(clock: Clock) -> None:
    """`type` is the last part of the endpoint."""
    core = make(clock)
    source = submit(core)
    clock.now += DURATION
    video = record(core, source)["response"]["data"][0]["id"]
    larger = submit(core, path="/veo/upsample", video_id=video, action="4k")

    assert [larger] == listed(core, type="upsample")
    assert [source] == listed(core, type="videos")


@pytest.mark.parametrize(("count", "expected"), [("page", 4), ("total", 10)])
def test_count_is_of_the_page_or_of_everything(clock: Clock, count: Any, expected: int) -> None:
    """`count` means what the settings say."""
    core = make(clock, count=count)
    for _ in range(10):
        submit(core)

    assert expected == look(core, action="retrieve_batch", limit=4)["count"]


def test_a_listing_may_be_broken(clock: Clock) -> None:
    """A listing can be empty for ever, ignore its filters, or be refused, while ids still work."""
    empty, unfiltered, refused = (make(clock, listing=how) for how in ("empty", "unfiltered", "refused"))
    task_id, _, _ = (submit(core) for core in (empty, unfiltered, refused))

    assert [] == listed(empty)
    assert [task_id] == batch(empty, task_id)
    assert [task_id] == listed(unfiltered, created_at_min=START + 999, type="upsample")
    assert 400 == refused.post("/veo/tasks", {"action": "retrieve_batch"}).status


def test_a_clock_that_is_set_back_keeps_the_order(clock: Clock) -> None:
    """Tasks are listed by their creation, even if the clock jumped."""
    core = make(clock, order="oldest")
    later = submit(core)
    clock.now -= 3600.0
    earlier = submit(core)

    assert [earlier, later] == listed(core)


def test_a_forgotten_task_is_gone(ten: tuple[Core, list[str]]) -> None:
    """A task that was forgotten is in no answer any more, but still counted."""
    core, ids = ten
    core.forget(ids[4])

    assert {} == look(core, id=ids[4])
    assert (ids[:4] + ids[5:])[::-1] == listed(core)
    assert [*ids[3::-1]] == listed(core, offset=5, limit=4)
    assert 10 == core.accepted


def test_finished_tasks_can_be_forgotten_by_themselves(clock: Clock) -> None:
    """With `forget_after` the memory stays bounded, and the counts stay right."""
    core = make(clock, forget_after=60.0)
    old, older = submit(core), submit(core)
    core.forget(older)
    clock.now += DURATION
    submit(core)
    clock.now += 61.0
    new = submit(core)

    assert old not in core.tasks
    assert new in core.tasks
    assert (4, 2) == (core.accepted, core.billed)


@given(
    steps=st.lists(st.sampled_from(["submit", "wait", "back", "forget"]), max_size=30),
    offset=st.integers(0, 10),
    limit=st.integers(0, 10),
    since=st.floats(-5, 5),
    newest=st.booleans(),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_a_page_is_a_slice_of_the_sorted_whole(
    steps: list[str], offset: int, limit: int, since: float, newest: bool
) -> None:
    """Whatever happened, a page equals the same slice of all tasks, filtered and sorted by creation."""
    clock = Clock()
    core = make(clock, order="newest" if newest else "oldest")
    for step in steps:
        if step == "submit":
            submit(core)
        elif step == "forget" and core.tasks:
            core.forget(next(iter(core.tasks)))
        else:
            clock.now += -1.5 if step == "back" else 1.0

    bound = START + since
    whole = sorted(core.tasks.values(), key=lambda task: task.created_at)
    ids = [task.id for task in whole if task.created_at >= bound]
    expected = (ids[::-1] if newest else ids)[offset : offset + limit]
    assert expected == listed(core, created_at_min=bound, offset=offset, limit=limit)


# --- limits and money ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "expected"), [("none", None), ("seconds", "100"), ("date", "Mon, 21 Sep 2026 14:15:00 GMT")]
)
def test_a_cap_in_flight(clock: Clock, how: Any, expected: str | None) -> None:
    """No more than the allowed number of tasks run at once, and a 429 may say when the next one ends."""
    core = make(clock, max_in_flight=2, retry_after=how)
    submit(core), submit(core)
    reply = core.post("/veo/videos", WHALE)

    assert (429, "too_many_requests") == (reply.status, reply.json()["error"]["code"])
    assert expected == reply.headers.get("Retry-After")
    clock.now += DURATION
    assert 200 == core.post("/veo/videos", WHALE).status


def test_a_cap_in_flight_follows_steering(clock: Clock) -> None:
    """A task that was ended by hand makes room, once."""
    core = make(clock, max_in_flight=1)
    core.finish(submit(core))
    submit(core)
    clock.now += DURATION / 2

    assert 429 == core.post("/veo/videos", WHALE).status


def test_submits_are_limited_in_their_rate(clock: Clock) -> None:
    """At two a second, a burst of two passes, then one every half second."""
    core = make(clock, submits_per_second=2.0, retry_after="seconds")
    statuses = [core.post("/veo/videos", WHALE).status for _ in range(3)]
    clock.now += 0.5
    statuses += [core.post("/veo/videos", WHALE).status for _ in range(2)]

    assert [200, 200, 429, 200, 429] == statuses
    assert "1" == core.post("/veo/videos", WHALE).headers["Retry-After"]
    assert 3 == core.accepted


def test_polls_are_limited_in_their_rate_by_token(clock: Clock) -> None:
    """A rate below one a second lets one pass, then waits; other tokens have their own."""
    core = make(clock, tokens=("a", "b"), polls_per_second=0.5)
    statuses = [core.post("/veo/tasks", {"id": "x"}, token=token).status for token in "aab"]
    clock.now += 2.0

    assert [200, 429, 200] == statuses
    assert 200 == core.post("/veo/tasks", {"id": "x"}).status


def test_a_balance_runs_out(clock: Clock) -> None:
    """Only successes and tasks that may become one count against the balance."""
    core = make(clock, balance=2)
    first = submit(core)
    submit(core)
    assert (403, "used_up") == refusal(core, "/veo/videos", WHALE)[:2]

    core.fail(first)
    submit(core)
    clock.now += DURATION
    assert (403, "used_up") == refusal(core, "/veo/videos", WHALE)[:2]
    assert 2 == core.billed


# --- durations and steering ----------------------------------------------------------------------------


def test_durations_are_log_normal_around_the_documented_ones(clock: Clock) -> None:
    """The drawn durations have the mean that was asked for, divided by the speed."""
    core = Core(Settings(speed=10.0), clock=clock)
    for _ in range(2000):
        submit(core)
    durations = [task.ends_at - clock.now for task in core.tasks.values()]

    assert pytest.approx(10.5, rel=0.05) == statistics.mean(durations)
    assert pytest.approx(10.5 * 2.718281828 ** -(0.38**2 / 2), rel=0.05) == statistics.median(durations)


def test_durations_can_be_given(clock: Clock) -> None:
    """The queue of next durations goes before the callable, which may look at the body."""
    core = make(clock, duration=lambda body: len(body["prompt"]), speed=2.0)
    core.next_durations.append(7.0)
    ends = [core.tasks[submit(core, prompt=prompt)].ends_at - START for prompt in ("1", "1234")]

    assert [7.0, 2.0] == ends


def test_a_share_of_tasks_fails(clock: Clock) -> None:
    """About the chosen share of the tasks fails, the others succeed."""
    core = make(clock, failure_share=0.25)
    for _ in range(1000):
        submit(core)
    clock.now += DURATION

    assert 700 < core.billed < 800


def test_a_task_can_be_ended_by_hand(clock: Clock) -> None:
    """`finish` and `fail` end a pending task now, and refuse one that has ended."""
    core = make(clock)
    good, bad, empty = (submit(core) for _ in range(3))
    clock.now += 1.0
    core.finish(good), core.fail(bad, "forbidden", "no"), core.finish(empty, videos=0)

    assert "succeeded" == core.tasks[good].state(clock.now)
    assert "forbidden" == record(core, bad)["response"]["error"]["code"]
    assert "video_url" not in record(core, empty)["response"]["data"][0]
    assert 1 == core.billed
    with pytest.raises(ValueError, match="has ended already"):
        core.finish(good)


def test_what_was_asked_is_counted(clock: Clock) -> None:
    """The core counts requests by kind, and keeps who submitted what."""
    core = make(clock)
    task_id = submit(core)
    record(core, task_id), batch(core, task_id), listed(core), listed(core)

    expected = {"submit": 1, "retrieve": 1, "retrieve_batch": 1, "list": 2}
    assert expected == dict(core.requests)
    assert (
        core.tasks[task_id].body,
        core.tasks[task_id].token,
        core.tasks[task_id].created_at,
    ) == (WHALE, TOKEN, START)
    assert core.tasks[task_id].shown is False


def test_answers_carry_the_servers_date(clock: Clock) -> None:
    """Every answer has the server's own time in its `Date`."""
    core = make(clock)
    clock.now += 3600.0

    assert "Mon, 21 Sep 2026 15:13:20 GMT" == core.post("/veo/videos", WHALE).headers["Date"]
    assert "Mon, 21 Sep 2026 15:13:20 GMT" == core.post("/veo/videos", {}).headers["Date"]


@pytest.mark.parametrize("ahead", [3600.0, -3600.0])
def test_the_date_may_be_of_another_clock(clock: Clock, ahead: float) -> None:
    """`Date`, and a `Retry-After` that is a date, may be an hour off, of any answer; records are not."""
    core = make(clock, date_ahead=ahead, submits_per_second=1.0, retry_after="date")
    task_id = submit(core)
    refused = core.post("/veo/videos", WHALE)
    core.faults = Faults().add("status_before", on="retrieve", nth=[2])

    assert START == record(core, task_id)["created_at"]
    assert http_date(START + ahead + 1) == refused.headers["Retry-After"]
    broken = core.post("/veo/tasks", {"id": task_id})
    healthy = core.handle("GET", "/health", {}, b"")
    assert {http_date(START + ahead)} == {reply.headers["Date"] for reply in (refused, broken, healthy)}


@pytest.mark.parametrize("ahead", [7200.0, -30 * 86400.0])
def test_records_may_be_dated_by_another_clock(clock: Clock, ahead: float) -> None:
    """Every time in a record, and the filters of a listing, may go by a clock that is off; `Date` does not."""
    core = make(clock, records_ahead=ahead)
    task_id = submit(core)
    clock.now += DURATION
    reply = core.post("/veo/tasks", {"action": "retrieve", "id": task_id})
    shown = reply.json()
    video = shown["response"]["data"][0]

    assert (START + ahead,) * 2 == (shown["created_at"], shown["started_at"])
    assert (START + ahead + DURATION, DURATION) == (shown["finished_at"], shown["elapsed"])
    times = [datetime.fromisoformat(video[name]).timestamp() for name in ("created_at", "complete_at")]
    assert [START + ahead, START + ahead + DURATION] == times
    assert http_date(START + DURATION) == reply.headers["Date"]
    around = [START - 1, START + 1]
    assert [] == listed(core, created_at_min=around[0], created_at_max=around[1])
    assert [task_id] == listed(core, created_at_min=around[0] + ahead, created_at_max=around[1] + ahead)


def test_answers_may_name_the_first_task(clock: Clock) -> None:
    """A server may give every submit of an account a task, and answer with the first one's id."""
    core = make(clock, answered_task="first", submit_extras=True, tokens={"a": "a", "b": "b"})
    answers = [core.post("/veo/videos", WHALE, token=token).json() for token in ("a", "b", "a", "a")]
    first, of_b, *later = core.tasks

    assert [first, of_b, first, first] == [answer["task_id"] for answer in answers]
    assert core.tasks[first].trace_id == answers[3]["trace_id"]
    assert (4, 2) == (core.accepted, len(later))
    listing = core.post("/veo/tasks", {"action": "retrieve_batch"}, token="a").json()
    assert {first, *later} == {item["id"] for item in listing["items"]}


def test_equal_submits_may_share_a_task(clock: Clock) -> None:
    """A server may take submits that differ in nothing but `callback_url` for one."""
    core = make(clock, answered_task="same", tokens={TOKEN: "a", "other": "b"})
    first = submit(core, callback_url=f"{HOOK}?a=1")
    again = submit(core, callback_url=f"{HOOK}?a=2")
    others = [submit(core, prompt="a gull"), submit(core, token="other")]

    assert first == again
    assert (3, {first, *others}) == (core.accepted, {*core.tasks})
    assert f"{HOOK}?a=1" == record(core, first)["request"]["callback_url"]
    clock.now += DURATION
    assert [f"{HOOK}?a=1"] == [callback.url for callback in core.callbacks_due(clock.now)]


def test_half_a_surrogate_pair_does_no_harm(clock: Clock) -> None:
    """A prompt that UTF-8 cannot hold is echoed with a question mark."""
    core = make(clock)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    body = json.dumps(WHALE | {"prompt": "a \ud800 whale"}).encode()
    task_id = core.handle("POST", "/veo/videos", headers, body).json()["task_id"]

    assert "a ? whale" == record(core, task_id)["request"]["prompt"]


@pytest.mark.parametrize(
    "choices",
    [
        {"speed": 0},
        {"failure_share": 2},
        {"pending": "odd"},
        {"listing": "odd"},
        {"echo_callback_url": "odd"},
        {"videos": 9},
        {"late": -1},
    ],
)
def test_settings_that_make_no_sense_are_refused(choices: dict[str, Any]) -> None:
    """A setting outside its range, or not among its words, is a ValueError."""
    with pytest.raises(ValueError, match=next(iter(choices))):
        Settings(**choices)


# --- callbacks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["callback_succeeded.json", "callback_failed.json"])
def test_a_callback_is_due_when_the_task_ends(clock: Clock, name: str) -> None:
    """The callback has the documented shape, and is handed over once."""
    core = make(clock, failure_share=float("failed" in name), times="utc8")
    rung: list[bool] = []
    core.listeners.append(lambda: rung.append(True))
    task_id = submit(core, callback_url=HOOK)
    assert core.next_callback_at() == START + DURATION
    assert [] == core.callbacks_due(clock.now)

    clock.now += DURATION
    (callback,) = core.callbacks_due(clock.now)
    assert (task_id, HOOK, START + DURATION) == (callback.task_id, callback.url, callback.due_at)
    assert shape(sample(name)) == shape(json.loads(callback.body))
    assert ([], None, [True]) == (core.callbacks_due(clock.now), core.next_callback_at(), rung)


def test_a_callback_follows_steering(clock: Clock) -> None:
    """A task that is ended by hand is told of then, and not again when it would have ended."""
    core = make(clock)
    task_id = submit(core, callback_url=HOOK)
    clock.now += 1.0
    core.finish(task_id)

    assert [START + 1.0] == [callback.due_at for callback in core.callbacks_due(clock.now)]
    assert [] == core.callbacks_due(clock.now + DURATION)


@pytest.mark.parametrize("host", ["http://127.0.0.1:1", "https://api.acedata.cloud"])
@pytest.mark.parametrize("rest", ["", "?veo_async=a.1", "#veo_async=a.1"])
def test_a_placeholder_needs_no_delivery(clock: Clock, host: str, rest: str) -> None:
    """A thousand callbacks to a `/health` count as delivered, and no fault of callbacks strikes them."""
    core = make(clock)
    core.faults = Faults().add("early", on="callback")
    for _ in range(1000):
        submit(core, callback_url=f"{host}/health{rest}")
    clock.now += DURATION

    assert (None, []) == (core.next_callback_at(), core.callbacks_due(clock.now))
    assert {"submit": 1000} == core.requests
    assert {} == core.faults.struck


def test_a_callback_goes_without_the_fragment(clock: Clock) -> None:
    """The fragment of a callback URL is shown in the record, but no HTTP client sends it."""
    core = make(clock)
    task_id = submit(core, callback_url=f"{HOOK}?a=1#veo_async=a.1")
    clock.now += DURATION

    assert [f"{HOOK}?a=1"] == [callback.url for callback in core.callbacks_due(clock.now)]
    assert f"{HOOK}?a=1#veo_async=a.1" == record(core, task_id)["request"]["callback_url"]


def test_callbacks_can_be_off(clock: Clock) -> None:
    """With callbacks off none is ever due."""
    core = make(clock, callbacks="off")
    core.finish(submit(core, callback_url=HOOK))

    assert None is core.next_callback_at()

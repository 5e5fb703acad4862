"""
The requests, the rules and the table of models: what is refused, what is only warned about, what comes back.
"""

from __future__ import annotations

import _thread
import copy
import inspect
import pickle
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veo_async._api import requests as _models
from veo_async._api.models import (
    ASPECT_RATIOS,
    DEFAULT_MODEL,
    INGREDIENTS_MODEL,
    MODELS,
    MOTION_TYPES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    UPSAMPLE_TARGETS,
    Model,
)
from veo_async._api.records import TaskError, TaskRecord, TaskState, Video, VideoResult
from veo_async._api.requests import (
    REQUEST_TYPES,
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TextToVideo,
    Upsample,
    in_short,
)
from veo_async._api.warnings import RequestWarning
from veo_async.errors import InvalidRequest

A: Final = "https://images.example/a.jpg"
B: Final = "https://images.example/b.jpg"
C: Final = "https://images.example/c.jpg"
D: Final = "https://images.example/d.jpg"

# The barest request of every kind, and where it goes.
BAREST: Final[Mapping[str, tuple[Callable[[], Request], str, str | None]]] = {
    "TextToVideo": (lambda: TextToVideo("a whale"), "/veo/videos", "text2video"),
    "ImageToVideo": (lambda: ImageToVideo("a whale", [A]), "/veo/videos", "image2video"),
    "IngredientsToVideo": (lambda: IngredientsToVideo([A]), "/veo/videos", "ingredients2video"),
    "Get1080p": (lambda: Get1080p("video-1"), "/veo/videos", "get1080p"),
    "Upsample": (lambda: Upsample("video-1", "4k"), "/veo/upsample", None),
    "Extend": (lambda: Extend("video-1"), "/veo/extend", None),
    "Reshoot": (lambda: Reshoot("video-1", "FORWARD"), "/veo/reshoot", None),
    "InsertObject": (lambda: InsertObject("video-1", "a hat"), "/veo/objects", "insert"),
    "RemoveObject": (
        lambda: RemoveObject("video-1", "https://images.example/mask.jpg"),
        "/veo/objects",
        "remove",
    ),
}
each_kind = pytest.mark.parametrize("name", BAREST)
each_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)


def barest(name: str, **fields: Any) -> Request:
    """
    Return the barest request of this kind, changed in `fields`.
    """
    return attrs.evolve(BAREST[name][0](), **fields)


def violations(make: Callable[[], object]) -> tuple[str, ...]:
    """
    Return what is refused, one sentence each; nothing where the request is fine.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RequestWarning)
            make()
    except InvalidRequest as error:
        return error.violations
    return ()


def cautions(make: Callable[[], object]) -> list[str]:
    """
    Return what is warned about, one sentence each.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    assert all(one.category is RequestWarning for one in caught)
    return [str(one.message) for one in caught]


# --- the table of models ---------------------------------------------------------------------------------

# The vendor's documents once more, in another form: tier, text alone, most images, resolutions, retired.
SMALL: Final = ("1080p", "gif")
DOCUMENTED: Final[Mapping[str, tuple[str, bool, int, tuple[str, ...], bool]]] = {
    "veo2": ("quality", True, 3, SMALL, True),
    "veo2-fast": ("fast", True, 1, SMALL, True),
    "veo3": ("quality", True, 3, SMALL, False),
    "veo3-fast": ("fast", True, 3, SMALL, False),
    "veo31": ("quality", True, 3, (*SMALL, "4k"), False),
    "veo31-fast": ("fast", True, 3, SMALL, False),
    "veo31-fast-ingredients": ("fast", False, 3, SMALL, False),
}


def test_the_table_has_the_documented_models() -> None:
    """All seven models are there, each under its own name, and no other."""
    assert list(DOCUMENTED) == list(MODELS)
    assert list(MODELS) == [model.name for model in MODELS.values()]


@each_model
def test_each_cell_says_what_the_documents_say(model: Model) -> None:
    """Tier, text alone, number of images, resolutions and retirement are the vendor's."""
    most = max(model.images)
    cells = (model.tier, model.text, most, model.resolutions, model.retired is not None)
    assert DOCUMENTED[model.name] == cells
    assert list(range(1, most + 1)) == list(model.images)


@each_model
def test_each_cell_has_its_source(model: Model) -> None:
    """No cell of the table is without a source, and none is named that the table does not have."""
    assert {cell.name for cell in attrs.fields(Model)} - {"sources"} == set(model.sources)
    assert all(source.strip() for source in model.sources.values())


@each_model
def test_each_number_of_images_has_a_meaning(model: Model) -> None:
    """Frames are frames and ingredients are fused; one image is never a last frame."""
    frames = {1: "first frame", 2: "first and last frame", 3: "first and last frame"}
    fused = model.name == INGREDIENTS_MODEL
    assert model.images == {count: "fusion" if fused else frames[count] for count in model.images}


def test_the_table_cannot_be_changed() -> None:
    """A program cannot alter a row, nor put one in by accident; rows can be put into a set."""
    with pytest.raises(TypeError):
        MODELS["mine"] = MODELS["veo31"]  # type: ignore[index]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        MODELS["veo31"].tier = "fast"  # type: ignore[misc]
    assert 7 == len(set(MODELS.values()))


def test_the_defaults_are_in_the_table() -> None:
    """The model that is sent where none is named can do what is asked."""
    assert MODELS[DEFAULT_MODEL].text
    assert MODELS[DEFAULT_MODEL].retired is None
    assert "fusion" == MODELS[INGREDIENTS_MODEL].images[3]


# --- every kind of request -------------------------------------------------------------------------------


def test_every_kind_is_listed() -> None:
    """The listing of kinds has every subclass of `Request` under its name, and this file tests each."""
    assert {kind.__name__: kind for kind in Request.__subclasses__()} == REQUEST_TYPES
    assert set(BAREST) == set(REQUEST_TYPES)


@each_kind
def test_the_barest_request_is_fine(name: str) -> None:
    """Each kind needs only what the API needs, says nothing, and goes to its endpoint."""
    make, endpoint, action = BAREST[name]
    assert [] == cautions(make)
    request = make()
    assert REQUEST_TYPES[name] is type(request)
    assert (endpoint, action, None) == (request.endpoint, request.action, request.callback_url)


@each_kind
def test_a_request_cannot_be_changed(name: str) -> None:
    """A request stays what was asked for: no field can be set, and no other attribute added."""
    request = barest(name)
    for field in (*attrs.fields_dict(type(request)), "another"):
        with pytest.raises((attrs.exceptions.FrozenInstanceError, AttributeError)):
            setattr(request, field, "x")


@each_kind
def test_equal_requests_are_interchangeable(name: str) -> None:
    """Two requests for the same are equal and hash alike, also after a copy or a pickle; one field off, and not."""
    request = barest(name)
    for same in (barest(name), copy.deepcopy(request), pickle.loads(pickle.dumps(request))):
        assert request == same
        assert hash(request) == hash(same)
    assert request != barest(name, callback_url="https://example.com/hook")
    assert 2 == len({request, barest(name), barest(name, callback_url="https://example.com/hook")})


def test_requests_of_different_kinds_differ() -> None:
    """Taking out and putting in are never the same, even where all fields agree."""
    alike: list[Request] = [InsertObject("video-1", "x", image_mask="/9j/"), RemoveObject("video-1", "/9j/")]
    assert alike[0] != alike[1]
    assert len(BAREST) == len({barest(name) for name in BAREST})


@each_kind
def test_a_changed_copy_is_checked_again(name: str) -> None:
    """There is no way round the rules: a changed copy of a good request is refused like a new one."""
    with pytest.raises(InvalidRequest, match="callback_url"):
        barest(name, callback_url="not a url")


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        (TextToVideo("a whale"), "/veo/videos text2video veo31-fast"),
        (TextToVideo("a crab", model="veo31", resolution="4k"), "/veo/videos text2video veo31 4k"),
        (IngredientsToVideo([A]), "/veo/videos ingredients2video veo31-fast-ingredients"),
        (Get1080p("video-1"), "/veo/videos get1080p veo31-fast"),
        (Upsample("video-1", "4k"), "/veo/upsample"),
        (Extend("video-1", resolution="720p"), "/veo/extend veo31-fast 720p"),
        (InsertObject("video-1", "a hat"), "/veo/objects insert"),
    ],
)
def test_the_kind_is_what_a_duration_depends_on(request_: Request, kind: str) -> None:
    """Endpoint, action, model and resolution decide how long a task takes; the words do not."""
    assert kind == request_.kind


def test_a_request_without_rules_of_its_own_is_only_checked_field_by_field() -> None:
    """The base knows one field and no rule between fields."""
    assert "https://example.com/" == Request(callback_url="https://example.com/").callback_url
    assert "/veo/videos" == Request().kind


# --- rules for one field ---------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", ["", " ", "\n\t\u2003", None, 7, b"a whale", ["a whale"]])
def test_a_prompt_has_words(prompt: Any) -> None:
    """An empty, blank or missing prompt, and one that is no string, is refused by that name."""
    for make in (lambda: TextToVideo(prompt), lambda: InsertObject("video-1", prompt)):
        [violation] = violations(make)
        assert violation.startswith("prompt must ")


@pytest.mark.parametrize("prompt", ["a whale", "海", "\ud83d\udc0b", "x" * 100_000, "a\nb\0c"])
def test_a_prompt_may_be_anything_else(prompt: str) -> None:
    """Length, language and odd characters are the server's business."""
    assert prompt == TextToVideo(prompt).prompt


@pytest.mark.parametrize("name", ["IngredientsToVideo", "Extend"])
def test_some_prompts_are_optional(name: str) -> None:
    """Where the API can do without a prompt, None is fine, but a blank one is still a mistake."""
    assert () == violations(lambda: barest(name, prompt=None))
    assert ("prompt must not be empty",) == violations(lambda: barest(name, prompt="  "))


@pytest.mark.parametrize("model", ["", "  ", None, 31])
@pytest.mark.parametrize("name", ["TextToVideo", "ImageToVideo", "IngredientsToVideo", "Get1080p", "Extend"])
def test_a_model_has_a_name(name: str, model: Any) -> None:
    """The model is always sent, so there has to be one."""
    [violation] = violations(lambda: barest(name, model=model))
    assert violation.startswith("model must ")


@pytest.mark.parametrize("flag", [None, 0, 1, "true", "false"])
def test_translation_is_a_flag(flag: Any) -> None:
    """Only True and False are taken: the word `false` is not read as true."""
    assert (f"translation must be True or False, not {flag!r}",) == violations(
        lambda: TextToVideo("a whale", translation=flag)
    )


@pytest.mark.parametrize(
    "url",
    [
        "a.jpg",
        "/a.jpg",
        "//images.example/a.jpg",
        "www.images.example/a.jpg",
        "ftp://images.example/a.jpg",
        "file:///a.jpg",
        "data:image/png;base64,AAAA",
        "javascript:alert(1)",
        "http://",
        "https:///a.jpg",
        "https://:443/a.jpg",
        "https://[::1/a.jpg",
        "https://images.example:0/a.jpg",
        "https://images.example:65536/a.jpg",
        "https://images.example:https/a.jpg",
        "https://images.example/a b.jpg",
        " https://images.example/a.jpg",
        "https://images.example/a.jpg\n",
        "https://images.example/\x00.jpg",
        "",
        None,
        7,
        b"https://images.example/a.jpg",
    ],
)
def test_an_address_is_absolute_and_on_the_web(url: Any) -> None:
    """A relative, blank, broken or non-http URL is refused, and the violation says which one it is."""
    [violation] = violations(lambda: ImageToVideo("a whale", [A, url]))
    assert violation.startswith("image_urls[1] must be an absolute http or https URL, not ")
    if url is not None:
        [violation] = violations(lambda: TextToVideo("a whale", callback_url=url))
        assert violation.startswith("callback_url must be an absolute http or https URL, not ")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/a.jpg",
        "HTTPS://images.example/a.jpg",
        "https://[::1]:443/a.jpg",
        "https://bücher.example/ü.jpg?size=large&x=%20#top",
        "https://user:secret@images.example/a.jpg",
    ],
)
def test_an_address_may_be_any_on_the_web(url: str) -> None:
    """Ports, IPv6, queries and letters beyond ASCII are fine."""
    assert (url,) == ImageToVideo("a whale", [url]).image_urls


def test_a_long_value_is_cut_in_the_violation() -> None:
    """A whole image pasted where a URL belongs does not fill the log."""
    [violation] = violations(lambda: ImageToVideo("a whale", ["data:image/png;base64," + "A" * 1_000_000]))
    assert len(violation) < 200
    assert "..." in violation


@pytest.mark.parametrize("image", ["cat.png", "/tmp/cat.png", "file:///tmp/cat.png", Path("cat.png")])
def test_a_file_where_a_url_belongs_comes_with_a_remedy(image: Any) -> None:
    """Whoever passes an image of his own reads what to do with it."""
    [violation] = violations(lambda: ImageToVideo("a whale", [image]))
    assert violation.endswith("; the API fetches it itself, so put a file on the web first")


@pytest.mark.parametrize("image", ["", "ftp://x/cat.png", 7])
def test_what_is_no_file_gets_no_such_remedy(image: Any) -> None:
    """Another mistake is not taken for that one."""
    [violation] = violations(lambda: ImageToVideo("a whale", [image]))
    assert "file" not in violation


def _one_by_one() -> Iterator[str]:
    yield A
    yield B


@pytest.mark.parametrize(
    "urls", [[A, B], (A, B), _one_by_one(), deque([A, B])], ids=lambda urls: type(urls).__name__
)
def test_image_urls_become_a_tuple(urls: Any) -> None:
    """Any sequence or generator of URLs is taken, and kept as what cannot change."""
    assert (A, B) == ImageToVideo("a whale", urls).image_urls


@pytest.mark.parametrize(
    ("urls", "word"),
    [(A, "str: put it into a list"), (b"x", "bytes"), (None, "NoneType"), ({A}, "set"), ({A: 1}, "dict")],
)
def test_image_urls_are_an_ordered_many(urls: Any, word: str) -> None:
    """A bare string is not taken for its letters, and a set has no first frame."""
    assert (f"image_urls must be a sequence of URLs, not one {word}",) == violations(
        lambda: ImageToVideo("a whale", urls)
    )
    assert (f"image_urls must be a sequence of URLs, not one {word}",) == violations(
        lambda: IngredientsToVideo(urls)
    )


@pytest.mark.parametrize("urls", [[], [A, B, C, D]])
def test_there_are_one_to_three_images(urls: list[str]) -> None:
    """No version of the documents takes none or more than three."""
    wanted = (f"image_urls must hold 1 to 3 URLs, not {len(urls)}",)
    assert wanted == violations(lambda: ImageToVideo("a whale", urls))
    assert wanted == violations(lambda: IngredientsToVideo(urls))
    assert wanted == violations(lambda: ImageToVideo("a whale", urls, model="veo2-fast"))


@pytest.mark.parametrize(
    ("name", "field", "choices"),
    [
        ("TextToVideo", "resolution", RESOLUTIONS),
        ("ImageToVideo", "resolution", RESOLUTIONS),
        ("IngredientsToVideo", "resolution", RESOLUTIONS),
        ("Extend", "resolution", RESOLUTIONS),
        ("TextToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("ImageToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("IngredientsToVideo", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("Extend", "aspect_ratio", (*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS)),
        ("Upsample", "target", UPSAMPLE_TARGETS),
        ("Reshoot", "motion_type", MOTION_TYPES),
    ],
)
@pytest.mark.parametrize("value", ["", "1080P", "8k", "21:9", "forward", 1080, ["1080p"], 16 / 9])
def test_a_choice_is_one_of_those_documented(
    name: str, field: str, choices: tuple[str, ...], value: Any
) -> None:
    """Any other value is refused once, with the whole choice in the sentence."""
    assert (f"{field} must be one of {', '.join(choices)}, not {value!r}",) == violations(
        lambda: barest(name, **{field: value})
    )


@pytest.mark.parametrize("name", ["Upsample", "Reshoot"])
def test_a_needed_choice_cannot_be_left_open(name: str) -> None:
    """None stands for the server's default where there is one, and nowhere else."""
    field = {"Upsample": "target", "Reshoot": "motion_type"}[name]
    [violation] = violations(lambda: barest(name, **{field: None}))
    assert violation.startswith(f"{field} must be one of ")


@pytest.mark.parametrize("motion", MOTION_TYPES)
def test_every_movement_can_be_asked_for(motion: str) -> None:
    """Each of the fifteen documented movements is taken."""
    assert motion == Reshoot("video-1", motion).motion_type
    assert 15 == len(set(MOTION_TYPES))


@pytest.mark.parametrize("target", ["1080p", "4k", "gif"])
def test_every_larger_form_can_be_asked_for(target: str) -> None:
    """Each of the documented targets is taken."""
    assert target == Upsample("video-1", target).target


def test_a_mask_is_a_url_or_an_image() -> None:
    """The mask is needed to take something out, optional to put something in, and never blank."""
    assert "/9j/4AAQ" == RemoveObject("video-1", "/9j/4AAQ").image_mask
    assert None is InsertObject("video-1", "a hat").image_mask
    assert ("image_mask must not be empty",) == violations(lambda: InsertObject("v", "a hat", image_mask=""))
    for path in ("mask.jpg", "./masks/mask", "file:///tmp/mask.jpg", "a" * 5):
        [words] = violations(partial(RemoveObject, "v", path))
        assert f"must be an http or https URL, or a base64 JPEG, not {path!r}" in words
    assert ("image_mask must be a string, not NoneType",) == violations(
        lambda: barest("RemoveObject", image_mask=None)
    )


@pytest.mark.parametrize("name", [name for name in BAREST if hasattr(BAREST[name][0](), "video_id")])
def test_a_video_stands_for_its_id(name: str) -> None:
    """Post-processing takes a `Video`, its id, or a result with one video, and refuses a result with more."""
    video = Video(id="video-1", task_id="task-1", url=A)
    assert barest(name) == barest(name, video_id=video)
    assert ("video_id must not be empty",) == violations(lambda: barest(name, video_id=""))
    assert barest(name) == barest(name, video_id=VideoResult(task_id="task-1", videos=(video,)))
    result = VideoResult(task_id="task-1", videos=(video, video))
    assert ("video_id must be a string, not VideoResult",) == violations(
        lambda: barest(name, video_id=result)
    )


# --- rules between fields --------------------------------------------------------------------------------


@each_model
def test_text_alone_works_where_the_table_says_so(model: Model) -> None:
    """A model that needs images is refused for a prompt alone."""
    needs = f"model {model.name} needs images: it cannot do text2video"
    assert (() if model.text else (needs,)) == violations(lambda: TextToVideo("a whale", model=model.name))


@each_model
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_model_takes_as_many_images_as_the_table_says(model: Model, count: int) -> None:
    """More images than any version of the documents grants this model are refused."""
    most = f"model {model.name} takes at most 1 image, not {count}"
    assert (() if count in model.images else (most,)) == violations(
        lambda: ImageToVideo("a whale", [A, B, C][:count], model=model.name)
    )


@each_model
@pytest.mark.parametrize("resolution", [None, *RESOLUTIONS])
def test_a_model_gives_the_resolutions_that_the_table_says(model: Model, resolution: str | None) -> None:
    """720p is to be had from every model; 4k is refused, with the one model that has it, elsewhere."""
    lacks = f"resolution {resolution} is not to be had from {model.name} (only from veo31)"
    fine = resolution in {None, "720p", *model.resolutions}
    assert (() if fine else (lacks,)) == violations(
        lambda: ImageToVideo("a whale", [A], model=model.name, resolution=resolution)
    )
    assert fine or lacks in violations(
        lambda: TextToVideo("a whale", model=model.name, resolution=resolution)
    )


@each_model
def test_ingredients_are_never_4k(model: Model) -> None:
    """The server forces the ingredients model, so naming one that has 4k does not help."""
    assert ("resolution 4k is not to be had from veo31-fast-ingredients (only from veo31)",) == violations(
        lambda: IngredientsToVideo([A], model=model.name, resolution="4k")
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: TextToVideo("a whale", model="veo4", resolution="4k"),
        lambda: ImageToVideo("a whale", [A, B], model="veo4", resolution="gif"),
        lambda: Get1080p("video-1", model="veo4"),
        lambda: Extend("video-1", model="veo4"),
    ],
)
def test_a_model_of_tomorrow_works_today(make: Callable[[], Request]) -> None:
    """What the table does not know is sent, with one warning that says so."""
    assert ["model veo4 is not in the table of models; it is sent as it is"] == cautions(make)


def test_an_ingredients_model_of_tomorrow_works_today() -> None:
    """Tomorrow's ingredients may be fused in 4k; until then a warning says what the server does."""
    [caution] = cautions(lambda: IngredientsToVideo([A], model="veo4-ingredients", resolution="4k"))
    assert (
        "model veo4-ingredients is not used: the server forces veo31-fast-ingredients for ingredients2video"
        == caution
    )


@each_model
def test_extending_takes_two_models(model: Model) -> None:
    """Only the two documented models can go on with a video; any other known one is refused."""
    other = f"model must be one of veo31-fast, veo31 to extend a video, not {model.name}"
    fine = model.name in {"veo31-fast", "veo31"}
    assert (() if fine else (other,)) == violations(lambda: Extend("video-1", model=model.name))


def test_extending_has_choices_of_its_own() -> None:
    """An extension is 720p or 1080p, in one of the two living aspect ratios."""
    for resolution in ("720p", "1080p"):
        for ratio in ASPECT_RATIOS:
            assert [] == cautions(lambda r=resolution, a=ratio: Extend("v", resolution=r, aspect_ratio=a))  # type: ignore[misc]
    assert (
        "resolution must be one of 720p, 1080p to extend a video",
        "aspect_ratio must be one of 16:9, 9:16 to extend a video",
    ) == violations(lambda: Extend("v", resolution="4k", aspect_ratio="1:1"))


# --- all violations at once ------------------------------------------------------------------------------


def test_one_error_lists_every_violation() -> None:
    """Whoever made five mistakes reads five sentences, not one at a time."""
    five: dict[str, Any] = {
        "model": "veo2-fast",
        "resolution": "4k",
        "translation": "no",
        "callback_url": "x",
    }
    found = violations(lambda: ImageToVideo(" ", ["a.jpg", B, ""], **five))
    assert (
        "callback_url must be an absolute http or https URL, not 'x'",
        "prompt must not be empty",
        "image_urls[0] must be an absolute http or https URL, not 'a.jpg';"
        " the API fetches it itself, so put a file on the web first",
        "image_urls[2] must be an absolute http or https URL, not ''",
        "translation must be True or False, not 'no'",
        "model veo2-fast takes at most 1 image, not 3",
        "resolution 4k is not to be had from veo2-fast (only from veo31)",
    ) == found


def test_an_invalid_request_warns_about_nothing() -> None:
    """What is refused anyway gets no cautions on top."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(InvalidRequest):
            TextToVideo("", model="veo2")
    assert [] == caught


JUNK: Final = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=9), st.text(max_size=9),
    st.lists(st.text(max_size=9), max_size=5), st.dictionaries(st.text(max_size=3), st.none(), max_size=2),
    st.just(A), st.lists(st.just(A), min_size=1, max_size=4), st.builds(object),
    st.sampled_from([*MODELS, *RESOLUTIONS, *ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS, *MOTION_TYPES]),
)  # fmt: skip


@each_kind
@settings(
    deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a busy machine is no fault of a rule's
@given(data=st.data())
def test_whatever_comes_in_a_request_is_made_or_refused(name: str, data: st.DataObject) -> None:
    """No field's value, of any type, ends in another error; what is made can be hashed, copied and compared."""
    fields = data.draw(
        st.fixed_dictionaries({}, optional=dict.fromkeys(attrs.fields_dict(REQUEST_TYPES[name]), JUNK))
    )
    made: list[Request] = []
    found = violations(lambda: made.append(barest(name, **fields)))
    assert len(made) == (0 if found else 1)
    assert len(set(found)) == len(found)
    for request in made:
        assert request == pickle.loads(pickle.dumps(request))
        assert isinstance(hash(request), int)
        assert request.kind


# --- cautions --------------------------------------------------------------------------------------------


@each_model
def test_a_retired_model_is_sent_with_a_warning(model: Model) -> None:
    """What the newest documents retired may be refused, and the caller hears of it before."""
    wanted = [f"model {model.name} may be refused: {model.retired}"] if model.retired else []
    assert wanted == cautions(lambda: ImageToVideo("a whale", [A], model=model.name))
    assert wanted == cautions(lambda: Get1080p("video-1", model=model.name))
    if model.text:
        assert wanted == cautions(lambda: TextToVideo("a whale", model=model.name))


@pytest.mark.parametrize("name", ["TextToVideo", "ImageToVideo", "IngredientsToVideo"])
@pytest.mark.parametrize("ratio", [*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS])
def test_a_retired_aspect_ratio_is_sent_with_a_warning(name: str, ratio: str) -> None:
    """The first documents list more ratios than the newest: those are tried, and said to be old."""
    old = f"aspect_ratio {ratio} may be refused: the newest documents list only 16:9, 9:16"
    assert ([old] if ratio in RETIRED_ASPECT_RATIOS else []) == cautions(
        lambda: barest(name, aspect_ratio=ratio)
    )


def test_three_frames_are_sent_with_a_warning() -> None:
    """The documents disagree whether two or three images are a first and a last frame."""
    three = "3 images may be refused: the newest documents take 1 to 2"
    assert [three] == cautions(lambda: ImageToVideo("a whale", [A, B, C]))
    assert [] == cautions(lambda: ImageToVideo("a whale", [A, B]))
    assert [] == cautions(lambda: ImageToVideo("a whale", [A, B, C], model=INGREDIENTS_MODEL))


def test_4k_from_images_is_sent_with_a_warning() -> None:
    """The newest documents offer 4k for text alone, so that the task may fail."""
    wanted = "4k may end as a failed task: the newest documents offer it for text2video only"
    assert [wanted] == cautions(lambda: ImageToVideo("a whale", [A], model="veo31", resolution="4k"))
    assert [] == cautions(lambda: TextToVideo("a whale", model="veo31", resolution="4k"))


def test_several_cautions_are_several_warnings() -> None:
    """Each thing to know is a warning of its own, so that each can be silenced alone."""
    assert 2 == len(cautions(lambda: TextToVideo("a whale", model="veo2", aspect_ratio="4:3")))


def lines_named(make: Callable[[], object]) -> list[tuple[str, int]]:
    """
    Return the places that warnings point at: files, and lines counted from where `make` begins.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make()
    first = inspect.getsourcelines(make)[1]
    return [(one.filename, one.lineno - first) for one in caught]


def test_a_warning_points_at_the_line_that_made_the_request() -> None:
    """The file and the line named in the warning are the caller's, not this package's."""

    def make() -> None:
        TextToVideo("a whale", model="veo2")
        attrs.evolve(TextToVideo("a whale"), aspect_ratio="4:3")

    assert [(__file__, 1), (__file__, 2)] == lines_named(make)


_NOWHERE = """
def make():
    try:
        TextToVideo("a whale", model="veo2")
    finally:
        made.set()
"""


def test_a_request_from_nowhere_warns_all_the_same() -> None:
    """Where the whole stack is ours, the warning is raised without a line of the caller's."""
    made = threading.Event()
    names: dict[str, Any] = {"__name__": "veo_async.elsewhere", "TextToVideo": TextToVideo, "made": made}
    exec(_NOWHERE, names)

    def make() -> None:
        _thread.start_new_thread(names["make"], ())
        assert made.wait(10)

    [(file, _)] = lines_named(make)
    assert __file__ != file


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("veo3.1", "veo31"),
        ("veo-3.1-fast", "veo31-fast"),
        ("Veo31-Fast", "veo31-fast"),
        ("veo31-fats", "veo31-fast"),
        ("veo31_fast_ingredient", "veo31-fast-ingredients"),
        ("veo-2", "veo2"),
    ],
)
def test_a_slip_in_a_models_name_is_noticed(name: str, meant: str) -> None:
    """The warning asks whether the neighbour in the table was meant; the name is sent as it is."""
    wanted = f"model {name} is not in the table of models (did you mean {meant}?); it is sent as it is"
    assert [wanted] == cautions(lambda: TextToVideo("a whale", model=name))


@pytest.mark.parametrize("name", ["veo4", "veo4-fast", "veo31-quality", "sora", "-", "丹顶鹤"])
def test_a_new_model_is_no_slip(name: str) -> None:
    """Another number, or another word, is tomorrow's model."""
    wanted = f"model {name} is not in the table of models; it is sent as it is"
    assert [wanted] == cautions(lambda: TextToVideo("a whale", model=name))


def test_a_request_in_short() -> None:
    """An error shows what was asked for: the fields that are set, and of a long prompt the beginning."""
    assert "TextToVideo(prompt='a whale')" == in_short(TextToVideo("a whale"))
    assert (
        f"ImageToVideo(prompt='{'a' * 38}…, image_urls=('https://images.example/a.jpg',), model='veo31')"
        == (in_short(ImageToVideo("a" * 1000, [A], model="veo31")))
    )


def test_a_line_warns_once() -> None:
    """A thousand requests from one line with a retired model fill the log with one line, as Python's default is."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(1000):
            TextToVideo("a whale", model="veo2")
    assert 1 == len(caught)


def test_a_warning_can_be_made_an_error() -> None:
    """Who wants to be strict turns `RequestWarning` into an exception, and no request comes of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RequestWarning)
        with pytest.raises(RequestWarning, match="1:1"):
            TextToVideo("a whale", aspect_ratio="1:1")


# --- what comes back -------------------------------------------------------------------------------------

AT: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
VIDEO: Final = Video(
    id="video-1", task_id="task-1", url=A, state="succeeded", created_at=AT, raw={"id": "video-1"}
)
RECORD: Final = TaskRecord(
    id="task-1", state=TaskState.SUCCEEDED, videos=(VIDEO,), request={"prompt": "a whale"}
)
RESULT: Final = VideoResult(
    task_id="task-1", request=TextToVideo("a whale"), videos=(VIDEO,), raw={"success": True}
)


def test_the_only_video_is_at_hand() -> None:
    """`video` is the one there is."""
    assert VIDEO is RESULT.video


@pytest.mark.parametrize("count", [0, 2, 3])
def test_several_videos_are_no_one_video(count: int) -> None:
    """`video` refuses to choose, and says how many there are and of which task."""
    result = VideoResult(task_id="task-1", videos=(VIDEO,) * count)
    with pytest.raises(ValueError, match=f"task task-1 has {count} videos"):
        _ = result.video


@pytest.mark.parametrize(
    "record", [VIDEO, RECORD, RESULT, TaskError(code="api_error", message="no luck")], ids=repr
)
def test_what_comes_back_cannot_be_changed(record: Any) -> None:
    """Results are shared by all awaiters, so nobody may alter them; they hash, copy and pickle."""
    for field in attrs.fields_dict(type(record)):
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            setattr(record, field, None)
    assert record == copy.deepcopy(record) == pickle.loads(pickle.dumps(record))
    assert 1 == len({record, copy.deepcopy(record)})


@pytest.mark.parametrize("record", [VIDEO, RECORD, RESULT], ids=repr)
def test_the_raw_answer_is_evidence_only(record: Any) -> None:
    """What the server sent is kept, but two results are told apart by what they mean, and shown without it."""
    other = attrs.evolve(record, raw={"another": "key"})
    assert record == other
    assert hash(record) == hash(other)
    assert "another" not in repr(other)
    assert {"another": "key"} == other.raw


def test_a_state_is_its_word() -> None:
    """States compare and print as the words of the API's documents."""
    assert ["pending", "succeeded", "failed"] == [str(state) for state in TaskState]
    assert "failed" == TaskState("failed")


def test_a_record_may_know_little() -> None:
    """All that a record needs is an id and a state; a result needs its videos as well."""
    bare = TaskRecord(id="task-1", state=TaskState.PENDING)
    assert (None, None, {}, (), None) == (bare.trace_id, bare.type, bare.request, bare.videos, bare.error)
    assert (None, None, None) == (bare.created_at, bare.started_at, bare.finished_at)
    assert (None, "") == (TaskError().code, TaskError().message)


def test_every_public_name_is_listed() -> None:
    """The module offers what it lists, and every request, record and table is listed."""
    for name in _models.__all__:
        assert hasattr(_models, name)
    assert set(BAREST) <= set(_models.__all__)

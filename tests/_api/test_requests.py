"""
The requests: what is refused, for reasons that lie between fields, and how requests compare.
"""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any, Final

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from veo_async._api import requests as _models
from veo_async._api.models import (
    ASPECT_RATIOS,
    MODELS,
    MOTION_TYPES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    Model,
)
from veo_async._api.requests import (
    REQUEST_TYPES,
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    TextToVideo,
    Upsample,
    in_short,
)
from veo_async.errors import InvalidRequest

from .barest import BAREST, A, B, C, barest, cautions, each_kind, each_model, violations


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


def test_a_request_in_short() -> None:
    """An error shows what was asked for: the fields that are set, and of a long prompt the beginning."""
    assert "TextToVideo(prompt='a whale')" == in_short(TextToVideo("a whale"))
    assert (
        f"ImageToVideo(prompt='{'a' * 38}…, image_urls=('https://images.example/a.jpg',), model='veo31')"
        == (in_short(ImageToVideo("a" * 1000, [A], model="veo31")))
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
    lacks = f"resolution {resolution} is not available from {model.name} (only from veo31)"
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
    assert ("resolution 4k is not available from veo31-fast-ingredients (only from veo31)",) == violations(
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
    assert ["model veo4 is not in the table of models; it is sent unchanged"] == cautions(make)


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
        " nor is it a picture on this machine: No such file or directory",
        "image_urls[2] must be an absolute http or https URL, not ''",
        "translation must be True or False, not 'no'",
        "model veo2-fast takes at most 1 image, not 3",
        "resolution 4k is not available from veo2-fast (only from veo31)",
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
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # of each kind; a busy machine is no fault of a rule's
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


def test_every_public_name_is_listed() -> None:
    """The module offers what it lists, and every request, record and table is listed."""
    for name in _models.__all__:
        assert hasattr(_models, name)
    assert set(BAREST) <= set(_models.__all__)

"""
What is sent with a warning.
"""

from __future__ import annotations

import _thread
import inspect
import threading
import warnings
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from veo_async._api.models import ASPECT_RATIOS, INGREDIENTS_MODEL, RETIRED_ASPECT_RATIOS, Model
from veo_async._api.requests import Get1080p, ImageToVideo, TextToVideo
from veo_async._api.warnings import RequestWarning

from .barest import A, B, C, barest, cautions, each_model


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
    wanted = f"model {name} is not in the table of models (did you mean {meant}?); it is sent unchanged"
    assert [wanted] == cautions(lambda: TextToVideo("a whale", model=name))


@pytest.mark.parametrize("name", ["veo4", "veo4-fast", "veo31-quality", "sora", "-", "丹顶鹤"])
def test_a_new_model_is_no_slip(name: str) -> None:
    """Another number, or another word, is tomorrow's model."""
    wanted = f"model {name} is not in the table of models; it is sent unchanged"
    assert [wanted] == cautions(lambda: TextToVideo("a whale", model=name))


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

"""
The barest request of every kind, and what is said of a request as it is made.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import pytest

from veo_async._api.models import MODELS
from veo_async._api.requests import (
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
)
from veo_async._api.warnings import RequestWarning
from veo_async.errors import InvalidRequest

__all__ = ["A", "B", "C", "D", "BAREST", "barest", "cautions", "each_kind", "each_model", "violations"]

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

"""
The table of models, and the other choices that the API offers.

Sources are named as in the vendor's history: *seed* is the integration guide of 2025-12 to 2026-03,
*newest* the contract of 2026-10.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

from attrs import field, frozen

__all__ = [
    "ASPECT_RATIOS",
    "DEFAULT_MODEL",
    "EXTEND_MODELS",
    "EXTEND_RESOLUTIONS",
    "INGREDIENTS_MODEL",
    "MAX_IMAGES",
    "MODELS",
    "MOTION_TYPES",
    "NEWEST_MAX_FRAMES",
    "RESOLUTIONS",
    "RETIRED_ASPECT_RATIOS",
    "SMALLEST",
    "UPSAMPLE_TARGETS",
    "Model",
    "known_model",
]


@frozen(kw_only=True)
class Model:
    """
    A row of the table of models.

        print([model.name for model in MODELS.values() if model.text and not model.retired])

    Attributes:
        name: as the API spells it.
        tier: `fast` or `quality`.
        text: whether it makes a video from a prompt alone.
        images: how it uses each allowed number of images.
        resolutions: the accepted values; without one the video is 720p.
        retired: why the API may refuse it today, or None.
        sources: where each of the other attributes comes from.
    """

    name: str
    tier: Literal["fast", "quality"]
    text: bool
    images: Mapping[int, str] = field(hash=False)
    resolutions: tuple[str, ...]
    retired: str | None = None
    sources: Mapping[str, str] = field(hash=False)


_FRAMES: Final = {1: "first frame", 2: "first and last frame", 3: "first and last frame"}
_FUSION: Final = {1: "fusion", 2: "fusion", 3: "fusion"}
_RETIRED_2026: Final = "the newest documents retired it (`400 model is not supported`)"
_SOURCES: Final = {
    "name": "seed, table of models",
    "tier": "seed, table of models",
    "text": "seed, table of models",
    "images": "seed: 3 = first and last in the table, 2 in the rules below it; newest: 1-2",
    "resolutions": "seed: 4k only for veo31; newest: only with text2video",
    "retired": "newest lists it",
}
_SOURCES_VEO2: Final = _SOURCES | {"retired": "newest, seen live: 400 model is not supported"}


def _table(*rows: Model) -> Mapping[str, Model]:
    return MappingProxyType({row.name: row for row in rows})


MODELS: Final = _table(
    Model(
        name="veo2",
        tier="quality",
        text=True,
        images=_FRAMES,
        resolutions=("1080p", "gif"),
        retired=_RETIRED_2026,
        sources=_SOURCES_VEO2,
    ),
    Model(
        name="veo2-fast",
        tier="fast",
        text=True,
        images={1: "first frame"},
        resolutions=("1080p", "gif"),
        retired=_RETIRED_2026,
        sources=_SOURCES_VEO2 | {"images": "seed: only 1 image"},
    ),
    Model(
        name="veo3",
        tier="quality",
        text=True,
        images=_FRAMES,
        resolutions=("1080p", "gif"),
        sources=_SOURCES,
    ),
    Model(
        name="veo3-fast",
        tier="fast",
        text=True,
        images=_FRAMES,
        resolutions=("1080p", "gif"),
        sources=_SOURCES,
    ),
    Model(
        name="veo31",
        tier="quality",
        text=True,
        images=_FRAMES,
        resolutions=("1080p", "gif", "4k"),
        sources=_SOURCES,
    ),
    Model(
        name="veo31-fast",
        tier="fast",
        text=True,
        images=_FRAMES,
        resolutions=("1080p", "gif"),
        sources=_SOURCES,
    ),
    Model(
        name="veo31-fast-ingredients",
        tier="fast",
        text=False,
        images=_FUSION,
        resolutions=("1080p", "gif"),
        sources=_SOURCES | {"images": "seed: needs 1-3, fused; newest: ingredients2video 1-3"},
    ),
)

DEFAULT_MODEL: Final = "veo31-fast"  # always sent, because the documents disagree about the default
INGREDIENTS_MODEL: Final = "veo31-fast-ingredients"  # newest: the server forces it for ingredients2video
EXTEND_MODELS: Final = ("veo31-fast", "veo31")  # newest, /veo/extend
SMALLEST: Final = "720p"  # seed: the result if `resolution` is left out
RESOLUTIONS: Final = (SMALLEST, "1080p", "4k", "gif")  # seed and newest, /veo/videos
EXTEND_RESOLUTIONS: Final = ("720p", "1080p")  # newest, /veo/extend
UPSAMPLE_TARGETS: Final = ("1080p", "4k", "gif")  # newest, /veo/upsample
ASPECT_RATIOS: Final = ("16:9", "9:16")  # newest
RETIRED_ASPECT_RATIOS: Final = ("3:4", "4:3", "1:1")  # seed lists them, newest does not
MAX_IMAGES: Final = 3  # seed: "at most 3"
NEWEST_MAX_FRAMES: Final = 2  # newest: image2video takes 1-2
MOTION_TYPES: Final = (  # newest, /veo/reshoot
    "STATIONARY",
    "STATIONARY_UP",
    "STATIONARY_DOWN",
    "STATIONARY_LEFT",
    "STATIONARY_RIGHT",
    "STATIONARY_DOLLY_IN_ZOOM_OUT",
    "STATIONARY_DOLLY_OUT_ZOOM_IN",
    "UP",
    "DOWN",
    "LEFT_TO_RIGHT",
    "RIGHT_TO_LEFT",
    "FORWARD",
    "BACKWARD",
    "DOLLY_IN_ZOOM_OUT",
    "DOLLY_OUT_ZOOM_IN",
)


def known_model(name: object) -> Model | None:
    """
    Find a model in the table.
    """
    return MODELS.get(name) if isinstance(name, str) else None

"""
The rules of the API, as tables: what each model can do, and what each field may hold.

Sources are named as in the vendor's history: *seed* is the integration guide of 2025-12 to 2026-03,
*newest* the contract of 2026-10.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Literal, TypedDict
from urllib.parse import urlsplit

from attrs import field, frozen

__all__ = [
    "ASPECT_RATIOS",
    "DEFAULT_MODEL",
    "EXTEND_MODELS",
    "EXTEND_RESOLUTIONS",
    "FIELD_RULES",
    "INGREDIENTS_MODEL",
    "MAX_IMAGES",
    "MODELS",
    "MOTION_TYPES",
    "NEWEST_MAX_FRAMES",
    "RESOLUTIONS",
    "RETIRED_ASPECT_RATIOS",
    "SMALLEST",
    "UPSAMPLE_TARGETS",
    "CommonFields",
    "ExtendFields",
    "Get1080pFields",
    "InsertFields",
    "MakeFields",
    "Model",
    "known_model",
    "resolution_violations",
]

# --- the table of models -------------------------------------------------------------------------------


@frozen(kw_only=True)
class Model:
    """
    One row of the table of models.

    Attributes:
        name: as the API spells it.
        tier: `fast` or `quality`.
        text: whether a prompt alone is enough.
        images: what each allowed number of images means.
        resolutions: what may be asked for; leaving it out gives 720p.
        retired: why it may be refused today, or None.
        sources: where each of the other cells comes from.
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

DEFAULT_MODEL: Final = "veo31-fast"  # the documents' own defaults differ, so it is always sent
INGREDIENTS_MODEL: Final = "veo31-fast-ingredients"  # newest: the server forces it for ingredients2video
EXTEND_MODELS: Final = ("veo31-fast", "veo31")  # newest, /veo/extend
SMALLEST: Final = "720p"  # seed: what leaving `resolution` out gives
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


# --- what may be left out ------------------------------------------------------------------------------

# For type checkers and editors: the keyword arguments of the session's short methods.


class CommonFields(TypedDict, total=False):
    """
    What every kind of request takes, and what `VeoSession.submit` takes beside it.
    """

    callback_url: str | None
    key: str | None
    timeout: float | None
    retry_failed: bool


class MakeFields(CommonFields, total=False):
    """
    Of a request that makes a video from a prompt or from images.
    """

    model: str
    resolution: str | None
    aspect_ratio: str | None
    translation: bool


class Get1080pFields(CommonFields, total=False):
    """
    Of a `Get1080p`.
    """

    model: str


class ExtendFields(CommonFields, total=False):
    """
    Of an `Extend`.
    """

    model: str
    resolution: str | None
    aspect_ratio: str | None


class InsertFields(CommonFields, total=False):
    """
    Of an `InsertObject`.
    """

    image_mask: str | None


# --- rules for one field -------------------------------------------------------------------------------


def _text(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} must be a string, not {type(value).__name__}"
    elif not value.strip():
        yield f"{name} must not be empty"


def _flag(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{name} must be True or False, not {value!r}"


def _is_web_address(value: str) -> bool:
    if any(character.isspace() or not character.isprintable() for character in value):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # urlsplit's own word for a malformed host or port
        return False


def _address(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str) or not _is_web_address(value):
        yield f"{name} must be an absolute http or https URL, not {_short(value)}"


def _images(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, tuple):
        remedy = ": put it into a list" if isinstance(value, str) else ""
        yield f"{name} must be a sequence of URLs, not one {type(value).__name__}{remedy}"
        return
    if not 1 <= len(value) <= MAX_IMAGES:
        yield f"{name} must hold 1 to {MAX_IMAGES} URLs, not {len(value)}"
    for position, item in enumerate(value):
        remedy = "; the API fetches it itself, so put a file on the web first" if _is_file(item) else ""
        for words in _address(f"{name}[{position}]", item):
            yield words + remedy


def _is_file(value: object) -> bool:
    """
    Tell whether somebody means a file of his own: `cat.png`, a `Path`, a `file:` or `data:` URL.
    """
    if not isinstance(value, str):
        return hasattr(value, "__fspath__")
    return bool(value.strip()) and ("://" not in value or value.lower().startswith("file:"))


def _mask(name: str, value: object) -> Iterator[str]:
    """
    Check a mask, a URL or a base64 JPEG [D, newest]; the path of a file is neither.
    """
    if not isinstance(value, str) or not value.strip():
        yield from _text(name, value)
    elif not _is_web_address(value) and not _is_base64(value):
        remedy = "; a file is read and encoded first" if _is_file(value) else ""
        yield f"{name} must be an http or https URL, or a base64 JPEG, not {_short(value)}{remedy}"


def _is_base64(value: str) -> bool:
    try:
        return bool(b64decode("".join(value.split()), validate=True))
    except ValueError:
        return False


def _one_of(*choices: str) -> Callable[[str, object], Iterator[str]]:
    def check(name: str, value: object) -> Iterator[str]:
        if value not in choices:
            yield f"{name} must be one of {', '.join(choices)}, not {_short(value)}"

    return check


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


FIELD_RULES: Final[Mapping[str, Callable[[str, object], Iterator[str]]]] = {
    "prompt": _text,
    "model": _text,
    "image_urls": _images,
    "resolution": _one_of(*RESOLUTIONS),
    "aspect_ratio": _one_of(*ASPECT_RATIOS, *RETIRED_ASPECT_RATIOS),
    "translation": _flag,
    "video_id": _text,
    "callback_url": _address,
    "target": _one_of(*UPSAMPLE_TARGETS),
    "motion_type": _one_of(*MOTION_TYPES),
    "image_mask": _mask,
}


def known_model(name: object) -> Model | None:
    """
    Find a model in the table.
    """
    return MODELS.get(name) if isinstance(name, str) else None


def resolution_violations(name: object, resolution: object) -> Iterator[str]:
    """
    Say what forbids a resolution; that of a model which nobody knows is the server's business.
    """
    model = known_model(name)
    if model and resolution not in (None, SMALLEST, *model.resolutions) and resolution in RESOLUTIONS:
        makers = ", ".join(row.name for row in MODELS.values() if resolution in row.resolutions)
        yield f"resolution {resolution} is not to be had from {model.name} (only from {makers})"

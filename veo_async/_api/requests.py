"""
Requests, as immutable records.

A request checks each field against its rule (`rules`), and the fields against each other and the table of models
(`models`).
A violation is what every version of the documents forbids. A caution is what a later version retired, or what no
version documents.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, Final, TypeAlias

from attrs import field, fields, frozen

from ..errors import InvalidRequest
from .local_images import encoded_mask, localized
from .models import (
    ASPECT_RATIOS,
    DEFAULT_MODEL,
    EXTEND_MODELS,
    EXTEND_RESOLUTIONS,
    INGREDIENTS_MODEL,
    MAX_IMAGES,
    NEWEST_MAX_FRAMES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    known_model,
)
from .records import Video, VideoResult
from .rules import FIELD_RULES, resolution_violations
from .warnings import model_cautions, ratio_cautions, warn_of

__all__ = [
    "REQUEST_TYPES",
    "Extend",
    "Get1080p",
    "ImageToVideo",
    "IngredientsToVideo",
    "InsertObject",
    "RemoveObject",
    "Picture",
    "Request",
    "Reshoot",
    "TextToVideo",
    "Upsample",
    "in_short",
]

# A URL, or a picture of this machine: a path or its bytes.
Picture: TypeAlias = str | os.PathLike[str] | bytes

_NOT_SEQUENCES: Final = (str, bytes, Set, Mapping)  # a string would become its letters; a set has no order


# The caller's type checker reads a field's accepted types from the annotations of its converter.
def _images_of(value: Iterable[Picture]) -> Any:
    """
    Turn a sequence of images into a tuple. A string stays a string, so that the rule can report it.
    """
    unchecked: Any = value
    if isinstance(unchecked, Iterable) and not isinstance(unchecked, _NOT_SEQUENCES):
        return tuple(map(localized, unchecked))
    return unchecked


def _mask_of(value: Picture) -> Any:
    return encoded_mask(value)


def _optional_mask_of(value: Picture | None) -> Any:
    return encoded_mask(value)


def _count(value: object) -> int:
    return len(value) if isinstance(value, tuple) else 0


def _id_of(value: Video | VideoResult | str) -> Any:
    if isinstance(value, VideoResult) and len(value.videos) == 1:
        value = value.video
    return value.id if isinstance(value, Video) else value


@frozen
class Request:
    """
    The base class of all requests; use one of its subclasses.

        request = TextToVideo("a whale")
        print(isinstance(request, Request), request.kind)

    Raises:
        InvalidRequest: lists every violation.

    Attributes:
        callback_url: the URL to which the API POSTs the result, or None.
    """

    endpoint: ClassVar[str] = "/veo/videos"
    action: ClassVar[str | None] = None
    optional: ClassVar[frozenset[str]] = frozenset({"callback_url", "resolution", "aspect_ratio"})

    callback_url: str | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        violations = [*self._field_violations(), *self._violations()]
        if violations:
            raise InvalidRequest(*violations)
        warn_of(self._cautions())

    def _field_violations(self) -> Iterator[str]:
        for name, rule, optional in _rules_of(type(self)):
            value = getattr(self, name)
            if value is not None or not optional:
                yield from rule(name, value)

    def _violations(self) -> Iterator[str]:
        """
        Check fields against each other. Each field may have any type here.
        """
        yield from ()

    def _cautions(self) -> Iterator[str]:
        yield from ()

    @property
    def kind(self) -> str:
        """
        The key under which durations are learned: endpoint, action, model and resolution.
        """
        parts = (self.endpoint, self.action, getattr(self, "model", None), getattr(self, "resolution", None))
        return " ".join(filter(None, parts))


def _rules_of(kind: type[Request]) -> Sequence[_FieldRule]:
    """
    Return the name and the rule of each field, and whether it may be None.
    """
    if kind not in _RULES:
        names = [attribute.name for attribute in fields(kind)]
        _RULES[kind] = [(name, FIELD_RULES[name], name in kind.optional) for name in names]
    return _RULES[kind]


_FieldRule: TypeAlias = tuple[str, Callable[[str, object], Iterator[str]], bool]
_RULES: Final[dict[type[Request], Sequence[_FieldRule]]] = {}  # filled once per class

MAX_SHOWN: Final = 40  # characters of a field in an error message; enough to recognise a prompt


def in_short(request: Request) -> str:
    """
    Describe a request for an error message: the fields that are set, long values shortened.
    """
    parts = []
    for attribute in request.__attrs_attrs__:
        value = getattr(request, attribute.name)
        if value != attribute.default:
            text = repr(value)
            parts.append(
                f"{attribute.name}={text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + '…'}"
            )
    return f"{type(request).__name__}({', '.join(parts)})"


@frozen
class TextToVideo(Request):
    """
    A video from a prompt (action `text2video`).

        result = await veo.submit(TextToVideo("a whale", model="veo31", aspect_ratio="9:16"))

    Attributes:
        prompt: what to show.
        model: a name from the table of models; an unknown name is sent with a warning.
        resolution: `1080p`, `gif`, or `4k` (`veo31` only); None and `720p` give the server's default, 720p.
        aspect_ratio: `16:9` (the server's default) or `9:16`; `3:4`, `4:3` and `1:1` are retired.
        translation: whether the server translates the prompt first.
    """

    action: ClassVar[str | None] = "text2video"

    prompt: str
    model: str = field(default=DEFAULT_MODEL, kw_only=True)
    resolution: str | None = field(default=None, kw_only=True)
    aspect_ratio: str | None = field(default=None, kw_only=True)
    translation: bool = field(default=False, kw_only=True)

    def _violations(self) -> Iterator[str]:
        model = known_model(self.model)
        if model and not model.text:
            yield f"model {model.name} needs images: it cannot do {self.action}"
        yield from resolution_violations(self.model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from model_cautions(self.model)
        yield from ratio_cautions(self.aspect_ratio)


@frozen
class ImageToVideo(Request):
    """
    A video that starts with an image, or goes from a first to a last image (action `image2video`).

        result = await veo.submit(ImageToVideo("it swims away", ["https://example.com/whale.jpg"]))

    Attributes:
        prompt: what to show.
        image_urls: absolute http or https URLs: one is the first frame, two are the first and the last.
            A path or the bytes of a picture may stand in place of a URL. The picture is read and checked now, and
            uploaded to a public address before it is bought: see `AccountPlatform`.
        model, resolution, aspect_ratio, translation: as for `TextToVideo`.
    """

    action: ClassVar[str | None] = "image2video"

    prompt: str
    image_urls: tuple[str, ...] = field(converter=_images_of)
    model: str = field(default=DEFAULT_MODEL, kw_only=True)
    resolution: str | None = field(default=None, kw_only=True)
    aspect_ratio: str | None = field(default=None, kw_only=True)
    translation: bool = field(default=False, kw_only=True)

    def _violations(self) -> Iterator[str]:
        model = known_model(self.model)
        count = _count(self.image_urls)
        if model and max(model.images) < count <= MAX_IMAGES:
            yield f"model {model.name} takes at most {max(model.images)} image, not {count}"
        yield from resolution_violations(self.model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from model_cautions(self.model)
        yield from ratio_cautions(self.aspect_ratio)
        if self.model != INGREDIENTS_MODEL and len(self.image_urls) > NEWEST_MAX_FRAMES:
            yield f"{len(self.image_urls)} images may be refused: the newest documents take 1 to {NEWEST_MAX_FRAMES}"
        if self.resolution == "4k":
            yield "4k may end as a failed task: the newest documents offer it for text2video only"


@frozen
class IngredientsToVideo(Request):
    """
    A video that combines the contents of one to three images (action `ingredients2video`).

        images = ["https://example.com/owl.jpg", "https://example.com/hat.jpg"]
        result = await veo.submit(IngredientsToVideo(images, "the owl wears the hat"))

    Attributes:
        image_urls: one to three absolute http or https URLs; or pictures, as for `ImageToVideo`.
        prompt: what to show; optional.
        model: can be left out, because the server forces `veo31-fast-ingredients`.
        resolution, aspect_ratio, translation: as for `TextToVideo`.
    """

    action: ClassVar[str | None] = "ingredients2video"
    optional: ClassVar[frozenset[str]] = Request.optional | {"prompt"}

    image_urls: tuple[str, ...] = field(converter=_images_of)
    prompt: str | None = None
    model: str = field(default=INGREDIENTS_MODEL, kw_only=True)
    resolution: str | None = field(default=None, kw_only=True)
    aspect_ratio: str | None = field(default=None, kw_only=True)
    translation: bool = field(default=False, kw_only=True)

    def _violations(self) -> Iterator[str]:
        # The server replaces every known model. An unknown one may allow other resolutions.
        model = INGREDIENTS_MODEL if known_model(self.model) else self.model
        yield from resolution_violations(model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from ratio_cautions(self.aspect_ratio)
        if self.model != INGREDIENTS_MODEL:
            yield f"model {self.model} is not used: the server forces {INGREDIENTS_MODEL} for {self.action}"


@frozen
class Get1080p(Request):
    """
    An existing video in 1080p (action `get1080p`).

        result = await veo.submit(Get1080p(video))

    Attributes:
        video_id: the `Video`, or its `id`; not the task's id.
        model: always sent, because some of the vendor's tools call it required.
    """

    action: ClassVar[str | None] = "get1080p"

    video_id: str = field(converter=_id_of)
    model: str = field(default=DEFAULT_MODEL, kw_only=True)

    def _cautions(self) -> Iterator[str]:
        yield from model_cautions(self.model)


@frozen
class Upsample(Request):
    """
    An existing video in a higher resolution or as a GIF (`/veo/upsample`; reported retired in 2026-07).

        result = await veo.submit(Upsample(video, "4k"))

    Attributes:
        video_id: the `Video`, or its `id`.
        target: `1080p`, `4k` or `gif`.
    """

    endpoint: ClassVar[str] = "/veo/upsample"

    video_id: str = field(converter=_id_of)
    target: str


@frozen
class Extend(Request):
    """
    An existing video with a continuation (`/veo/extend`; reported retired in 2026-07).

        result = await veo.submit(Extend(video, "it dives"))

    Attributes:
        video_id: the `Video`, or its `id`.
        prompt: what happens next; optional.
        model: `veo31-fast` or `veo31`.
        resolution: `720p` or `1080p`.
        aspect_ratio: `16:9` or `9:16`.
    """

    endpoint: ClassVar[str] = "/veo/extend"
    optional: ClassVar[frozenset[str]] = Request.optional | {"prompt"}

    video_id: str = field(converter=_id_of)
    prompt: str | None = None
    model: str = field(default=DEFAULT_MODEL, kw_only=True)
    resolution: str | None = field(default=None, kw_only=True)
    aspect_ratio: str | None = field(default=None, kw_only=True)

    def _violations(self) -> Iterator[str]:
        if known_model(self.model) and self.model not in EXTEND_MODELS:
            yield f"model must be one of {', '.join(EXTEND_MODELS)} to extend a video, not {self.model}"
        if self.resolution in RESOLUTIONS and self.resolution not in EXTEND_RESOLUTIONS:
            yield f"resolution must be one of {', '.join(EXTEND_RESOLUTIONS)} to extend a video"
        if self.aspect_ratio in RETIRED_ASPECT_RATIOS:
            yield f"aspect_ratio must be one of {', '.join(ASPECT_RATIOS)} to extend a video"

    def _cautions(self) -> Iterator[str]:
        yield from model_cautions(self.model)


@frozen
class Reshoot(Request):
    """
    An existing video with another camera movement (`/veo/reshoot`; reported retired in 2026-07).

        result = await veo.submit(Reshoot(video, "FORWARD"))

    Attributes:
        video_id: the `Video`, or its `id`.
        motion_type: one of `MOTION_TYPES`, such as `FORWARD`.
    """

    endpoint: ClassVar[str] = "/veo/reshoot"

    video_id: str = field(converter=_id_of)
    motion_type: str


@frozen
class InsertObject(Request):
    """
    An existing video with an object inserted (`/veo/objects`; reported retired in 2026-07).

        result = await veo.submit(InsertObject(video, "a hat"))

    Attributes:
        video_id: the `Video`, or its `id`.
        prompt: what to insert.
        image_mask: white where the object goes; a URL, a base64 JPEG, or the path or the bytes of a JPEG, which is
            sent in the request; optional.
    """

    endpoint: ClassVar[str] = "/veo/objects"
    action: ClassVar[str | None] = "insert"
    optional: ClassVar[frozenset[str]] = Request.optional | {"image_mask"}

    video_id: str = field(converter=_id_of)
    prompt: str
    image_mask: str | None = field(default=None, converter=_optional_mask_of, kw_only=True)


@frozen
class RemoveObject(Request):
    """
    An existing video with an object removed (`/veo/objects`; reported retired in 2026-07).

        result = await veo.submit(RemoveObject(video, "https://example.com/mask.jpg"))

    Attributes:
        video_id: the `Video`, or its `id`.
        image_mask: white where the object is; a URL, a base64 JPEG, or the path or the bytes of a JPEG, which is
            sent in the request.
    """

    endpoint: ClassVar[str] = "/veo/objects"
    action: ClassVar[str | None] = "remove"

    video_id: str = field(converter=_id_of)
    image_mask: str = field(converter=_mask_of)


REQUEST_TYPES: Final[Mapping[str, type[Request]]] = {
    kind.__name__: kind
    for kind in (
        TextToVideo,
        ImageToVideo,
        IngredientsToVideo,
        Get1080p,
        Upsample,
        Extend,
        Reshoot,
        InsertObject,
        RemoveObject,
    )
}

"""
What the caller asks for, as immutable records.

A request checks itself: each field against its rule (`rules`), and the fields against each other and the table of
models (`models`).
What every version of the documents forbids is a violation; what a later version retired, or nobody documents,
is a caution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar, Final, TypeAlias

from attrs import field, fields, frozen

from ..errors import InvalidRequest
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
    "Request",
    "Reshoot",
    "TextToVideo",
    "Upsample",
    "in_short",
]

_NO_SEQUENCE: Final = (str, bytes, Set, Mapping)  # letters are no URLs, and a set has no first image


# Both converters are annotated for the caller's type checker, which reads what a field takes from them.
def _tuple_of(value: Iterable[str]) -> Any:
    """
    Freeze a sequence of URLs; a bare string stays one, for the rule to name, not a tuple of letters.
    """
    unchecked: Any = value
    if isinstance(unchecked, Iterable) and not isinstance(unchecked, _NO_SEQUENCE):
        return tuple(unchecked)
    return unchecked


def _count(value: object) -> int:
    return len(value) if isinstance(value, tuple) else 0


def _id_of(value: Video | VideoResult | str) -> Any:
    if isinstance(value, VideoResult) and len(value.videos) == 1:
        value = value.video
    return value.id if isinstance(value, Video) else value


@frozen
class Request:
    """
    What every request has in common; use one of its subclasses.

    Making one checks it: `InvalidRequest` lists every violation.

    Attributes:
        callback_url: where the API is to POST the result, or None.
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
        What is wrong between fields; each field may itself be of any type here.
        """
        yield from ()

    def _cautions(self) -> Iterator[str]:
        yield from ()

    @property
    def kind(self) -> str:
        """
        What durations are learned by: endpoint, action, model and resolution.
        """
        parts = (self.endpoint, self.action, getattr(self, "model", None), getattr(self, "resolution", None))
        return " ".join(filter(None, parts))


def _rules_of(kind: type[Request]) -> Sequence[_FieldRule]:
    """
    Return for each field its name, its rule, and whether None is allowed.
    """
    if kind not in _RULES:
        names = [attribute.name for attribute in fields(kind)]
        _RULES[kind] = [(name, FIELD_RULES[name], name in kind.optional) for name in names]
    return _RULES[kind]


_FieldRule: TypeAlias = tuple[str, Callable[[str, object], Iterator[str]], bool]
_RULES: Final[dict[type[Request], Sequence[_FieldRule]]] = {}  # worked out once a class

SHOWN: Final = 40  # characters of a field in an error: enough to know a prompt by


def in_short(request: Request) -> str:
    """
    Write a request as an error shows it: its fields that are set, long ones shortened.
    """
    parts = []
    for attribute in request.__attrs_attrs__:
        value = getattr(request, attribute.name)
        if value != attribute.default:
            text = repr(value)
            parts.append(f"{attribute.name}={text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}")
    return f"{type(request).__name__}({', '.join(parts)})"


@frozen
class TextToVideo(Request):
    """
    A video from a prompt (action `text2video`).

    Attributes:
        prompt: what to show.
        model: a name from the table of models; an unknown one is sent, with a warning.
        resolution: `1080p`, `gif`, or `4k` (`veo31` only); None or `720p` leaves the server's 720p.
        aspect_ratio: `16:9` (the server's default) or `9:16`; `3:4`, `4:3` and `1:1` are retired.
        translation: whether the server is to translate the prompt first.
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
    A video that starts from one image, or leads from a first to a last (action `image2video`).

    Attributes:
        prompt: what to show.
        image_urls: absolute http or https URLs: one is the first frame, two are the first and the last.
        model, resolution, aspect_ratio, translation: as for `TextToVideo`.
    """

    action: ClassVar[str | None] = "image2video"

    prompt: str
    image_urls: tuple[str, ...] = field(converter=_tuple_of)
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
    A video that puts the things on one to three images together (action `ingredients2video`).

    Attributes:
        image_urls: one to three absolute http or https URLs.
        prompt: what to show; optional.
        model: the server forces `veo31-fast-ingredients`, so there is no need to name one.
        resolution, aspect_ratio, translation: as for `TextToVideo`.
    """

    action: ClassVar[str | None] = "ingredients2video"
    optional: ClassVar[frozenset[str]] = Request.optional | {"prompt"}

    image_urls: tuple[str, ...] = field(converter=_tuple_of)
    prompt: str | None = None
    model: str = field(default=INGREDIENTS_MODEL, kw_only=True)
    resolution: str | None = field(default=None, kw_only=True)
    aspect_ratio: str | None = field(default=None, kw_only=True)
    translation: bool = field(default=False, kw_only=True)

    def _violations(self) -> Iterator[str]:
        # Naming another model of the table changes nothing; only one that nobody knows yet may do more.
        model = INGREDIENTS_MODEL if known_model(self.model) else self.model
        yield from resolution_violations(model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from ratio_cautions(self.aspect_ratio)
        if self.model != INGREDIENTS_MODEL:
            yield f"model {self.model} is not used: the server forces {INGREDIENTS_MODEL} for {self.action}"


@frozen
class Get1080p(Request):
    """
    An earlier video again, in 1080p (action `get1080p`).

    Attributes:
        video_id: the `Video`, or its `id`; not the task's id.
        model: some of the vendor's tools call it required, so it is always sent.
    """

    action: ClassVar[str | None] = "get1080p"

    video_id: str = field(converter=_id_of)
    model: str = field(default=DEFAULT_MODEL, kw_only=True)

    def _cautions(self) -> Iterator[str]:
        yield from model_cautions(self.model)


@frozen
class Upsample(Request):
    """
    An earlier video, larger or as a GIF (`/veo/upsample`; reported retired in 2026-07).

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
    An earlier video, continued (`/veo/extend`; reported retired in 2026-07).

    Attributes:
        video_id: the `Video`, or its `id`.
        prompt: what is to happen next; optional.
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
    An earlier video with another camera movement (`/veo/reshoot`; reported retired in 2026-07).

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
    An earlier video with something put in (`/veo/objects`; reported retired in 2026-07).

    Attributes:
        video_id: the `Video`, or its `id`.
        prompt: what to put in.
        image_mask: where: a URL or a base64 JPEG, white is the region; optional.
    """

    endpoint: ClassVar[str] = "/veo/objects"
    action: ClassVar[str | None] = "insert"
    optional: ClassVar[frozenset[str]] = Request.optional | {"image_mask"}

    video_id: str = field(converter=_id_of)
    prompt: str
    image_mask: str | None = field(default=None, kw_only=True)


@frozen
class RemoveObject(Request):
    """
    An earlier video with something taken out (`/veo/objects`; reported retired in 2026-07).

    Attributes:
        video_id: the `Video`, or its `id`.
        image_mask: where: a URL or a base64 JPEG, white is the region.
    """

    endpoint: ClassVar[str] = "/veo/objects"
    action: ClassVar[str | None] = "remove"

    video_id: str = field(converter=_id_of)
    image_mask: str


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

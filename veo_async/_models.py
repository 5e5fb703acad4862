"""
What the caller asks for and what comes back, as immutable records.

A request checks itself against the tables of `_rules`.
What every version of the documents forbids is a violation; what a later version retired, or nobody documents,
is a caution.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Set
from datetime import datetime
from difflib import get_close_matches
from enum import StrEnum
from types import FrameType
from typing import Any, ClassVar, Final

from attrs import field, frozen

from ._rules import (
    ASPECT_RATIOS,
    DEFAULT_MODEL,
    EXTEND_MODELS,
    EXTEND_RESOLUTIONS,
    FIELD_RULES,
    INGREDIENTS_MODEL,
    MAX_IMAGES,
    MODELS,
    NEWEST_MAX_FRAMES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    SMALLEST,
    Model,
)
from .errors import InvalidRequest

__all__ = [
    "MODELS",
    "REQUEST_TYPES",
    "Extend",
    "Get1080p",
    "ImageToVideo",
    "IngredientsToVideo",
    "InsertObject",
    "Model",
    "RemoveObject",
    "Request",
    "RequestWarning",
    "Reshoot",
    "TaskError",
    "TaskRecord",
    "TaskState",
    "TextToVideo",
    "Upsample",
    "Video",
    "VideoResult",
    "in_short",
]


class RequestWarning(UserWarning):
    """
    The request is sent, but the newest documents say it may not do what was asked.
    """


# --- requests ------------------------------------------------------------------------------------------


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
        for caution in self._cautions():
            warnings.warn(caution, RequestWarning, stacklevel=_levels_to_the_caller())

    def _field_violations(self) -> Iterator[str]:
        for attribute in self.__attrs_attrs__:
            value = getattr(self, attribute.name)
            if value is not None or attribute.name not in self.optional:
                yield from FIELD_RULES[attribute.name](attribute.name, value)

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
        return " ".join(part for part in parts if part)


_PASSED_BY: Final = frozenset({__name__.partition(".")[0], "asyncio", "attr", "cattrs"})


def _levels_to_the_caller() -> int:
    """
    Count the frames from where a warning is raised up to the line that is neither ours nor of what carries us.

    That line may have made the request itself, or called a short method, `submit_many` or `map`.
    """
    frame, levels = sys._getframe(1).f_back, 2
    while frame is not None and _carries(frame):
        frame, levels = frame.f_back, levels + 1
    return levels


def _carries(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _PASSED_BY or frame.f_code.co_filename.startswith("<attrs generated")


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


def _known(name: object) -> Model | None:
    return MODELS.get(name) if isinstance(name, str) else None


def _resolution_violations(name: object, resolution: object) -> Iterator[str]:
    model = _known(name)
    if model and resolution not in (None, SMALLEST, *model.resolutions) and resolution in RESOLUTIONS:
        makers = ", ".join(row.name for row in MODELS.values() if resolution in row.resolutions)
        yield f"resolution {resolution} is not to be had from {model.name} (only from {makers})"


def _model_cautions(name: str) -> Iterator[str]:
    model = MODELS.get(name)
    if model is None:
        meant = _meant(name)
        question = f" (did you mean {meant}?)" if meant else ""
        yield f"model {name} is not in the table of models{question}; it is sent as it is"
    elif model.retired:
        yield f"model {name} may be refused: {model.retired}"


ALIKE: Final = 0.75  # of difflib's measure: a slip or two of the fingers


def _meant(name: str) -> str | None:
    """
    Find the model that a name is a slip of; another number is another model, perhaps tomorrow's.
    """
    plain = {_plain(model): model for model in MODELS if _digits(model) == _digits(name)}
    near = get_close_matches(_plain(name), plain, n=1, cutoff=ALIKE)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _digits(name: str) -> str:
    return re.sub(r"[^0-9]", "", name)


def _ratio_cautions(ratio: str | None) -> Iterator[str]:
    if ratio in RETIRED_ASPECT_RATIOS:
        yield f"aspect_ratio {ratio} may be refused: the newest documents list only {', '.join(ASPECT_RATIOS)}"


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
        model = _known(self.model)
        if model and not model.text:
            yield f"model {model.name} needs images: it cannot do {self.action}"
        yield from _resolution_violations(self.model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from _model_cautions(self.model)
        yield from _ratio_cautions(self.aspect_ratio)


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
        model = _known(self.model)
        count = _count(self.image_urls)
        if model and max(model.images) < count <= MAX_IMAGES:
            yield f"model {model.name} takes at most {max(model.images)} image, not {count}"
        yield from _resolution_violations(self.model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from _model_cautions(self.model)
        yield from _ratio_cautions(self.aspect_ratio)
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
        model = INGREDIENTS_MODEL if _known(self.model) else self.model
        yield from _resolution_violations(model, self.resolution)

    def _cautions(self) -> Iterator[str]:
        yield from _ratio_cautions(self.aspect_ratio)
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
        yield from _model_cautions(self.model)


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
        if _known(self.model) and self.model not in EXTEND_MODELS:
            yield f"model must be one of {', '.join(EXTEND_MODELS)} to extend a video, not {self.model}"
        if self.resolution in RESOLUTIONS and self.resolution not in EXTEND_RESOLUTIONS:
            yield f"resolution must be one of {', '.join(EXTEND_RESOLUTIONS)} to extend a video"
        if self.aspect_ratio in RETIRED_ASPECT_RATIOS:
            yield f"aspect_ratio must be one of {', '.join(ASPECT_RATIOS)} to extend a video"

    def _cautions(self) -> Iterator[str]:
        yield from _model_cautions(self.model)


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


# --- what comes back -----------------------------------------------------------------------------------


class TaskState(StrEnum):
    """
    How a task stands.
    """

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@frozen(kw_only=True)
class Video:
    """
    One finished file of a task.

    Attributes:
        id: the video's id; post-processing asks for it.
        task_id: the task it came from.
        url: where the file lies; said to work for 30 days (low confidence).
        state: the server's own word.
        created_at, completed_at: aware datetimes, or None.
        raw: the item as the server sent it.
    """

    id: str
    task_id: str
    url: str
    state: str | None = None
    created_at: datetime | None = None
    completed_at: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)


@frozen(kw_only=True)
class TaskError:
    """
    Why a task failed, in the server's words.
    """

    code: str | None = None
    message: str = ""


@frozen(kw_only=True)
class TaskRecord:
    """
    The server's record of a task.

    Attributes:
        id: the task's id.
        trace_id: what the vendor's support asks for, or None.
        type: the server's word for the kind of task, such as `videos`, or None.
        state: pending, succeeded or failed.
        request: the submitted body, as the server echoes it.
        videos: the finished files; empty unless it succeeded.
        error: why it failed, or None.
        created_at, started_at, finished_at: aware datetimes, or None.
        raw: the record as the server sent it.
    """

    id: str
    trace_id: str | None = None
    type: str | None = None
    state: TaskState
    request: Mapping[str, Any] = field(factory=dict, eq=False)
    videos: tuple[Video, ...] = ()
    error: TaskError | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)


@frozen(kw_only=True)
class VideoResult:
    """
    What a job was for.

    Attributes:
        task_id: the server's id of the task.
        trace_id: what the vendor's support asks for, or None.
        request: what was asked for; None for a task that was attached by its id.
        videos: the finished files, at least one.
        raw: the server's answer.
    """

    task_id: str
    trace_id: str | None = None
    request: Request | None = None
    videos: tuple[Video, ...]
    raw: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)

    @property
    def video(self) -> Video:
        """
        The only video.

        Raises:
            ValueError: there are several, or none.
        """
        if len(self.videos) != 1:
            raise ValueError(f"task {self.task_id} has {len(self.videos)} videos, not one: use .videos")
        return self.videos[0]

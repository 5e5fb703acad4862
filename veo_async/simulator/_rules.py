"""
What the API accepts, written from its documents alone, so that it shares no mistake with the client.

A request that breaks a rule raises a `Refusal`; the table of codes gives its HTTP status.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from .._api.models import MODELS
from ._settings import Settings

__all__ = ["CODES", "FIELDS", "RESOLUTIONS", "Refusal", "check_submit", "model_of", "unfit"]

Body = Mapping[str, Any]

CODES: Final[Mapping[str, int]] = {  # the documents' table; if they give two statuses, the newer
    "token_mismatched": 401,
    "api_not_implemented": 400,
    "bad_request": 400,
    "no_token": 400,
    "disabled": 403,
    "invalid_token": 401,
    "token_expired": 401,
    "used_up": 403,
    "forbidden": 403,
    "no_api": 404,
    "too_many_requests": 429,
    "api_error": 500,
    "timeout": 504,
}


class Refusal(Exception):
    """
    The request is answered with an error, and has no effect.

    Attributes:
        wait: the seconds after which it may be sent again, or None.
    """

    def __init__(
        self, code: str, message: str, *, status: int | None = None, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.wait = wait
        self.code = code
        self.message = message
        self.status = status or CODES[code]


def _refuse(message: str) -> Refusal:
    return Refusal("bad_request", message)


# --- single fields -------------------------------------------------------------------------------------


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _address(value: object) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _addresses(value: object) -> bool:
    return isinstance(value, list) and all(_address(item) for item in value)


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "action": _text,
    "async": _flag,
    "aspect_ratio": _text,
    "callback_url": _address,
    "image_mask": _text,
    "image_urls": _addresses,
    "model": _text,
    "motion_type": _text,
    "prompt": _text,
    "resolution": _text,
    "translation": _flag,
    "video_id": _text,
}

FIELDS: Final[Mapping[str, frozenset[str]]] = {  # per endpoint; other fields are ignored
    "/veo/videos": frozenset(_CHECKS) - {"image_mask", "motion_type"},
    "/veo/upsample": frozenset({"video_id", "action", "callback_url", "async"}),
    "/veo/extend": frozenset(
        {"video_id", "model", "prompt", "aspect_ratio", "resolution", "callback_url", "async"}
    ),
    "/veo/reshoot": frozenset({"video_id", "motion_type", "callback_url", "async"}),
    "/veo/objects": frozenset({"video_id", "action", "prompt", "image_mask", "callback_url", "async"}),
}


def _check_fields(body: Body) -> None:
    for name, value in body.items():
        if not _CHECKS[name](value):
            raise _refuse(f"{name} is invalid")


def _need(body: Body, *names: str) -> None:
    for name in names:
        if name not in body:
            raise _refuse(f"{name} is required")


def _one_of(body: Body, name: str, *allowed: str) -> None:
    if name in body and body[name] not in allowed:
        raise _refuse(f"{name} is not supported: {body[name]}")


# --- /veo/videos ---------------------------------------------------------------------------------------

_FUSION: Final = "veo31-fast-ingredients"  # newest: the server forces it for ingredients2video
_MAX_IMAGES: Final = 3  # every version
RESOLUTIONS: Final = ("1080p", "gif", "4k")  # every version; the default is 720p


def model_of(body: Body, settings: Settings) -> str:
    """
    Return the model that the server uses.
    """
    if body.get("action") == "ingredients2video":
        return _FUSION
    return str(body.get("model", settings.default_model))


def unfit(body: Body, settings: Settings) -> bool:
    """
    Tell whether the resolution is not offered for this request.
    """
    if body.get("resolution") != "4k":
        return False
    wrong_action = settings.contract == "newest" and body.get("action") != "text2video"
    return wrong_action or model_of(body, settings) != "veo31"


def _check_model(body: Body, settings: Settings) -> None:
    name = model_of(body, settings)
    if name not in MODELS or name in settings.retired_models:
        raise _refuse("model is not supported")


def _check_text(body: Body, settings: Settings) -> None:
    _need(body, "prompt")
    if not MODELS[model_of(body, settings)].text:
        raise _refuse("image_urls is invalid when generate videos")  # seed: it cannot do text2video


def _most_images(name: str, settings: Settings) -> int:
    """
    Return how many images image2video takes: the fusing model three, the others a first and a last frame.
    """
    return _MAX_IMAGES if name == _FUSION else min(settings.max_frames, max(MODELS[name].images))


def _check_image(body: Body, settings: Settings) -> None:
    _need(body, "prompt")
    if not 1 <= len(body.get("image_urls", ())) <= _most_images(model_of(body, settings), settings):
        raise _refuse("image_urls is invalid when generate videos")


def _check_ingredients(body: Body, settings: Settings) -> None:
    if not 1 <= len(body.get("image_urls", ())) <= _MAX_IMAGES:
        raise _refuse("image_urls is invalid when generate videos")


def _check_1080p(body: Body, settings: Settings) -> None:
    _need(body, "video_id")


_ACTIONS: Final = {
    "text2video": _check_text,
    "image2video": _check_image,
    "ingredients2video": _check_ingredients,
    "get1080p": _check_1080p,
    "get_1080p": _check_1080p,
}


def _check_videos(body: Body, settings: Settings) -> None:
    _need(body, "action")
    _one_of(body, "action", *settings.actions)
    _check_model(body, settings)
    _one_of(body, "resolution", *RESOLUTIONS)
    _one_of(body, "aspect_ratio", *settings.aspect_ratios)
    _ACTIONS[body["action"]](body, settings)
    if settings.unfit_resolution == "refused" and unfit(body, settings):
        raise _refuse("resolution is not supported: 4k")


# --- post-processing [newest] --------------------------------------------------------------------------

_MOTIONS: Final = [
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
]


def _check_upsample(body: Body, settings: Settings) -> None:
    _need(body, "video_id", "action")
    _one_of(body, "action", "1080p", "4k", "gif")


def _check_extend(body: Body, settings: Settings) -> None:
    _need(body, "video_id", "model")
    _one_of(body, "model", "veo31-fast", "veo31")
    _one_of(body, "aspect_ratio", "16:9", "9:16")
    _one_of(body, "resolution", "720p", "1080p")


def _check_reshoot(body: Body, settings: Settings) -> None:
    _need(body, "video_id", "motion_type")
    _one_of(body, "motion_type", *_MOTIONS)


def _check_objects(body: Body, settings: Settings) -> None:
    _need(body, "video_id", "action")
    _one_of(body, "action", "insert", "remove")
    _need(body, "prompt" if body["action"] == "insert" else "image_mask")


_ENDPOINTS: Final[Mapping[str, Callable[[Body, Settings], None]]] = {
    "/veo/videos": _check_videos,
    "/veo/upsample": _check_upsample,
    "/veo/extend": _check_extend,
    "/veo/reshoot": _check_reshoot,
    "/veo/objects": _check_objects,
}


def _check_offered(path: str, settings: Settings) -> None:
    if path != "/veo/videos" and settings.post_processing != "on":
        raise Refusal(settings.post_processing, f"The API {path} is not available.")


def check_submit(path: str, body: Body, settings: Settings) -> None:
    """
    Raise a `Refusal` unless the endpoint accepts the body, from which unknown fields and nulls were removed.
    """
    _check_offered(path, settings)
    _check_fields(body)
    _ENDPOINTS[path](body, settings)

"""
Scripts: what becomes of the submits that a test describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from attrs import define, field, validators

from ._rules import CODES, FIELDS, Refusal, model_of
from ._settings import Settings

__all__ = ["Script", "type_of"]

_TYPES: Final = ("text2video", "image2video", "ingredients2video", "get1080p")


def type_of(path: str, body: Mapping[str, Any]) -> str:
    """
    Return what a submit asks for: the action of `/veo/videos`, such as `text2video`, else the end of the path.
    """
    return str(body.get("action")) if path == "/veo/videos" else path.rsplit("/", 1)[1]


_OTHER_TYPES: Final = tuple(type_of(path, {}) for path in FIELDS if path != "/veo/videos")


def _is_code(_: object, __: object, code: str | None) -> None:
    if code is not None and code not in CODES:
        raise ValueError(f"{code!r} is no code of a refusal, only {', '.join(CODES)}")


@define(eq=False, kw_only=True)
class Script:
    """
    Which submits it is about, and what becomes of them.

    Attributes:
        prompt: a pattern of `fnmatch` for the prompt, such as `*storm*`; case matters. None is any prompt, or none.
        type: `text2video`, `image2video`, `ingredients2video`, `get1080p`, `upsample`, `extend`, `reshoot` or
            `objects`; None is any.
        model: a pattern for the model's name; None is any.
        fails: the error code of the tasks, which are accepted and fail when they end; None leaves it to the settings.
        refused: the error code with which the submits are refused; None accepts them.
        message: what comes with either code.
        takes: how long the tasks take, in seconds; `Settings.speed` divides it. None leaves it to the settings.
        videos: how many videos a task makes; None leaves it to the settings.
        times: how many submits it is for; the next ones are for later scripts. None is all of them.
        matched: how many submits it was used for.

    Raises:
        ValueError: there is no such type or code, or `refused` comes with what only a task has.
    """

    prompt: str | None = None
    type: str | None = field(
        default=None, validator=validators.optional(validators.in_((*_TYPES, *_OTHER_TYPES)))
    )
    model: str | None = None
    fails: str | None = None
    refused: str | None = field(default=None, validator=_is_code)
    message: str = "the script says so"
    takes: float | None = field(default=None, validator=validators.optional(validators.ge(0)))
    videos: int | None = field(default=None, validator=validators.optional(validators.in_(range(9))))
    times: int | None = field(default=None, validator=validators.optional(validators.gt(0)))
    matched: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        if self.refused and (self.fails, self.takes, self.videos) != (None, None, None):
            raise ValueError("what is refused has no task: `refused` goes without fails, takes and videos")

    @property
    def error(self) -> tuple[str, str] | None:
        """
        The code and the message with which the tasks fail.
        """
        return None if self.fails is None else (self.fails, self.message)

    def matches(self, path: str, body: Mapping[str, Any], settings: Settings) -> bool:
        """
        Tell whether a submit is what this script is about, and its times are not used up.
        """
        return (
            (self.times is None or self.matched < self.times)
            and (self.prompt is None or fnmatchcase(str(body.get("prompt", "")), self.prompt))
            and self.type in (None, type_of(path, body))
            and (self.model is None or fnmatchcase(model_of(body, settings), self.model))
        )

    def use(self) -> None:
        """
        Count a submit.

        Raises:
            Refusal: the submit is to be refused.
        """
        self.matched += 1
        if self.refused is not None:
            raise Refusal(self.refused, self.message)

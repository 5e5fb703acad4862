"""
Whether the body that a record echoes is the one that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from itertools import chain
from typing import Any, Final

from ._rules import SMALLEST

__all__ = ["Verdict", "compare", "fingerprint", "prompt_of"]


class Verdict(IntEnum):
    """
    Whether a record's echoed request is the one that was sent; the worst field decides.
    """

    SAME = 0
    UNSURE = 1
    DIFFERENT = 2


_ORDERED: Final = json.JSONEncoder(sort_keys=True, default=str)

# What leaving a field out means, so that an echo may spell it out, or drop it. Seed and newest, /veo/videos.
_USUAL: Final[Mapping[str, object]] = {"resolution": SMALLEST, "aspect_ratio": "16:9", "translation": False}

# Fields that tell requests apart even where only the echo has them: the server does not make them up.
# Not `model`: where it was left out, the server fills in its own default.
_TELLING: Final = (
    "prompt",
    "action",
    "video_id",
    "image_urls",
    "motion_type",
    "image_mask",
    "callback_url",
    *_USUAL,
)

# Where an echo that differs proves nothing, as the server may have changed the field itself.
_REWRITTEN: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "prompt": lambda body: body.get("translation") is True,
    "action": lambda body: "action" not in body,  # post-processing kinds that have none
    "image_mask": lambda body: (
        not str(body.get("image_mask", "http")).startswith("http")
    ),  # base64, perhaps stored
    # What an extended video has unless told otherwise is not documented: perhaps what its source has.
    "resolution": lambda body: "video_id" in body and "resolution" not in body,
    "aspect_ratio": lambda body: "video_id" in body and "aspect_ratio" not in body,
}


def compare(record: Mapping[str, Any], body: Mapping[str, Any], *, nonce: str | None = None) -> Verdict:
    """
    Tell whether the task was bought by this body; `nonce` is the part of its callback URL that no other has.

    Every field that was sent must be echoed with the same value, save these: `async` is not looked at, nor is
    the model of `ingredients2video` (the server forces one); defaults may be left out or filled in. What was sent
    and is missing makes the record unsure, and so does a field that the server may have rewritten.
    """
    echo = record.get("request")
    if not isinstance(echo, Mapping):
        return Verdict.UNSURE
    url = echo.get("callback_url")
    if nonce and isinstance(url, str) and url:
        return Verdict.SAME if nonce in url else Verdict.DIFFERENT
    worst = Verdict.SAME
    for name in chain(_TELLING, body):
        verdict = _compare_field(name, body, echo)
        if verdict is Verdict.DIFFERENT:
            return verdict
        worst = max(worst, verdict)
    return worst


def _compare_field(name: str, body: Mapping[str, Any], echo: Mapping[str, Any]) -> Verdict:
    if _says_nothing(name, body):
        return Verdict.SAME
    usual = _USUAL.get(name)
    sent, echoed = _plain(body.get(name)), _plain(echo.get(name))
    sent = usual if sent is None else sent
    if echoed is None:
        return Verdict.SAME if sent == usual else Verdict.UNSURE
    if sent == echoed:
        return Verdict.SAME
    rewritten = _REWRITTEN.get(name)
    return Verdict.UNSURE if rewritten and rewritten(body) else Verdict.DIFFERENT


def _says_nothing(name: str, body: Mapping[str, Any]) -> bool:
    # Seen in the vendor's clients: unknown fields are dropped, and `async` is the newest of all.
    return name == "async" or (name == "model" and body.get("action") == "ingredients2video")


def _plain(value: object) -> object:
    """
    The value without what does not matter: an empty one is none, and white space is not compared.
    """
    if isinstance(value, str):
        return " ".join(value.split()) or None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] or None
    return value


def prompt_of(request: object) -> str | None:
    """
    Return the prompt of a body or an echo as it is compared, or None where there is none.
    """
    prompt = _plain(request.get("prompt")) if isinstance(request, Mapping) else None
    return prompt if isinstance(prompt, str) else None


def fingerprint(body: Mapping[str, Any]) -> str:
    """
    The same text for bodies whose records cannot be told apart; a callback URL with a nonce makes it unique.
    """
    told = {name: _plain(value) for name, value in body.items() if not _says_nothing(name, body)}
    return _ORDERED.encode({name: value for name, value in told.items() if value != _USUAL.get(name)})

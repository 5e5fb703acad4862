"""
The rules for single fields of a request.

A rule takes a field's name and value, and yields one sentence per violation.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Final
from urllib.parse import urlsplit

from .local_images import file_trouble, is_name
from .models import (
    ASPECT_RATIOS,
    MAX_IMAGES,
    MODELS,
    MOTION_TYPES,
    RESOLUTIONS,
    RETIRED_ASPECT_RATIOS,
    SMALLEST,
    UPSAMPLE_TARGETS,
    known_model,
)

__all__ = ["FIELD_RULES", "is_web_address", "resolution_violations"]


def _text(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, str):
        yield f"{name} must be a string, not {type(value).__name__}"
    elif not value.strip():
        yield f"{name} must not be empty"


def _flag(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, bool):
        yield f"{name} must be True or False, not {value!r}"


def is_web_address(value: object) -> bool:
    """
    Tell whether a value is an absolute http or https URL.
    """
    if not isinstance(value, str) or any(
        character.isspace() or not character.isprintable() for character in value
    ):
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # urlsplit raises it for a malformed host or port
        return False


def _address(name: str, value: object) -> Iterator[str]:
    if not is_web_address(value):
        yield f"{name} must be an absolute http or https URL, not {_short(value)}"


def _images(name: str, value: object) -> Iterator[str]:
    if not isinstance(value, tuple):
        remedy = ": put it in a list" if isinstance(value, str) else ""
        yield f"{name} must be a sequence of URLs, not one {type(value).__name__}{remedy}"
        return
    if not 1 <= len(value) <= MAX_IMAGES:
        yield f"{name} must hold 1 to {MAX_IMAGES} URLs, not {len(value)}"
    for position, item in enumerate(value):
        if not is_name(item):  # else it is a picture of this machine
            for words in _address(f"{name}[{position}]", item):
                yield words + _remedy(item)


def _remedy(value: object) -> str:
    if isinstance(value, str) and value.lower().startswith("file:"):
        return "; pass the path of a file itself"
    trouble = file_trouble(value)
    return f"; nor is it a picture on this machine: {trouble}" if trouble else ""


def _is_file(value: str) -> bool:
    """
    Tell whether a text looks like a local file: `cat.png`, a `file:` URL.
    """
    return bool(value.strip()) and ("://" not in value or value.lower().startswith("file:"))


def _mask(name: str, value: object) -> Iterator[str]:
    """
    Check a mask: a URL or a base64 JPEG [D, newest], not the path of a file.
    """
    if hasattr(value, "__fspath__") or isinstance(value, bytes):
        yield f"{name} must be a JPEG, and {_short(value)} cannot be read as one"
    elif not isinstance(value, str) or not value.strip():
        yield from _text(name, value)
    elif not is_web_address(value) and not _is_base64(value):
        remedy = "; nor is it a JPEG on this machine" if _is_file(value) else ""
        yield f"{name} must be an http or https URL, or a base64 JPEG, not {_short(value)}{remedy}"


def _is_base64(value: str) -> bool:
    try:
        return bool(b64decode("".join(value.split()), validate=True))
    except ValueError:
        return False


def _one_of(*choices: str) -> Callable[[str, object], Iterator[str]]:
    def check(name: str, value: object) -> Iterator[str]:
        if value not in choices:
            yield f"{name} must be one of {', '.join(choices)}, not {_short(value)}{_meant(value, choices)}"

    return check


def _meant(value: object, choices: tuple[str, ...]) -> str:
    """
    Ask whether a choice is meant that is spelled alike; its digits must agree, as another number is no misspelling.
    """
    typed = _short(value).strip("'").lower()
    alike = {one.lower(): one for one in choices if _digits(one) == _digits(typed)}
    near = get_close_matches(typed, alike, n=1)
    return f": did you mean {alike[near[0]]}?" if near else ""


def _digits(text: str) -> str:
    return "".join(filter(str.isdigit, text))


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


def resolution_violations(name: object, resolution: object) -> Iterator[str]:
    """
    Yield why a model cannot make a resolution. The server decides about models that are not in the table.
    """
    model = known_model(name)
    if model and resolution not in (None, SMALLEST, *model.resolutions) and resolution in RESOLUTIONS:
        makers = ", ".join(row.name for row in MODELS.values() if resolution in row.resolutions)
        yield f"resolution {resolution} is not available from {model.name} (only from {makers})"

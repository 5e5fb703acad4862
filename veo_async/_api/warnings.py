"""
Warnings about requests that are sent unchanged, although the server may refuse them or no document describes them.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from types import FrameType
from typing import Final

from .models import ASPECT_RATIOS, MODELS, RETIRED_ASPECT_RATIOS

__all__ = ["RequestWarning", "model_cautions", "ratio_cautions", "warn_of"]


class RequestWarning(UserWarning):
    """
    The request is sent, but by the newest documents it may be refused or do something else.

        warnings.simplefilter("error", RequestWarning)  # raise instead, before anything is sent
    """


def warn_of(cautions: Iterable[str]) -> None:
    """
    Issue each caution as a warning on the caller's line.
    """
    for caution in cautions:
        warnings.warn(caution, RequestWarning, stacklevel=_levels_to_the_caller())


_SKIPPED: Final = frozenset({__name__.partition(".")[0], "asyncio", "attr", "cattrs"})


def _levels_to_the_caller() -> int:
    """
    Count the frames from the warning to the first line outside this package and the libraries that call it.

    That line made the request itself, or called a short method, `submit_many` or `map`.
    """
    frame, levels = sys._getframe(1).f_back, 2
    while frame is not None and _is_skipped(frame):
        frame, levels = frame.f_back, levels + 1
    return levels


def _is_skipped(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _SKIPPED or frame.f_code.co_filename.startswith("<attrs generated")


def model_cautions(name: str) -> Iterator[str]:
    """
    Yield what may be wrong with a model's name.
    """
    model = MODELS.get(name)
    if model is None:
        similar = _similar_model(name)
        question = f" (did you mean {similar}?)" if similar else ""
        yield f"model {name} is not in the table of models{question}; it is sent unchanged"
    elif model.retired:
        yield f"model {name} may be refused: {model.retired}"


SIMILAR: Final = 0.75  # difflib's ratio; one or two typing errors


def _similar_model(name: str) -> str | None:
    """
    Find the model whose misspelling a name may be. The digits must agree: a new number may be a new model.
    """
    plain = {_plain(model): model for model in MODELS if _digits(model) == _digits(name)}
    near = get_close_matches(_plain(name), plain, n=1, cutoff=SIMILAR)
    return plain[near[0]] if near else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.lower())


def _digits(name: str) -> str:
    return re.sub(r"[^0-9]", "", name)


def ratio_cautions(ratio: str | None) -> Iterator[str]:
    """
    Yield what may be wrong with an aspect ratio.
    """
    if ratio in RETIRED_ASPECT_RATIOS:
        yield f"aspect_ratio {ratio} may be refused: the newest documents list only {', '.join(ASPECT_RATIOS)}"

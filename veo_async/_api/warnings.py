"""
What a request is warned of: it goes out as it is, but the server may refuse it, or nobody has documented it.
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
    The request is sent, but the newest documents say it may not do what was asked.
    """


def warn_of(cautions: Iterable[str]) -> None:
    """
    Warn the caller's own line of each of them.
    """
    for caution in cautions:
        warnings.warn(caution, RequestWarning, stacklevel=_levels_to_the_caller())


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


def model_cautions(name: str) -> Iterator[str]:
    """
    Say what is odd about a model's name.
    """
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


def ratio_cautions(ratio: str | None) -> Iterator[str]:
    """
    Say what is odd about an aspect ratio.
    """
    if ratio in RETIRED_ASPECT_RATIOS:
        yield f"aspect_ratio {ratio} may be refused: the newest documents list only {', '.join(ASPECT_RATIOS)}"

"""
A request in a few words, and what else there is to know about its job.
"""

from __future__ import annotations

from typing import Final

from .. import Request
from ._fetch import Piece
from ._words import duration

__all__ = ["details", "facts"]

_KINDS: Final = {
    "TextToVideo": "text to video",
    "ImageToVideo": "image to video",
    "IngredientsToVideo": "ingredients",
    "Get1080p": "1080p of a video",
    "Upsample": "upsampled",
    "Extend": "extended",
    "Reshoot": "reshot",
    "InsertObject": "object put in",
    "RemoveObject": "object taken out",
}
_TOLD: Final = ("model", "resolution", "target", "aspect_ratio", "motion_type")


def facts(request: Request) -> tuple[str, ...]:
    """
    Tell the kind of a request, and those of its fields that say what came of it.
    """
    kind = type(request).__name__
    values = (getattr(request, name, None) for name in _TOLD)
    images = getattr(request, "image_urls", ())
    shown = f"{len(images)} images" if len(images) > 1 else ""
    translated = "translated" if getattr(request, "translation", False) else ""
    words = (_KINDS.get(kind, kind), *values, shown, translated)
    return tuple(word for word in words if word)


def details(piece: Piece) -> tuple[tuple[str, str], ...]:
    """
    Name what the support or a later command asks for, and how long it took.
    """
    job = piece.job
    if job is None:
        return ()
    videos = job.result().videos if job.done() and job.exception() is None else ()
    rows = (
        ("took", duration(piece.seconds) if piece.seconds is not None else None),
        ("task", job.task_id),
        *(("video", video.id) for video in videos),
        ("trace", job.trace_id),
    )
    return tuple((name, value) for name, value in rows if value)

"""
The optional fields of each request, for type checkers and editors.

They are the keyword arguments of the session's short methods, such as `text_to_video`.
"""

from __future__ import annotations

from typing import TypedDict

from .requests import Picture

__all__ = ["CommonFields", "ExtendFields", "Get1080pFields", "InsertFields", "MakeFields"]


class CommonFields(TypedDict, total=False):
    """
    The optional fields of every request, and the options of `VeoSession.submit`.
    """

    callback_url: str | None
    key: str | None
    timeout: float | None
    retry_failed: bool


class MakeFields(CommonFields, total=False):
    """
    The optional fields of a request that makes a video from a prompt or from images.
    """

    model: str
    resolution: str | None
    aspect_ratio: str | None
    translation: bool


class Get1080pFields(CommonFields, total=False):
    """
    The optional fields of a `Get1080p`.
    """

    model: str


class ExtendFields(CommonFields, total=False):
    """
    The optional fields of an `Extend`.
    """

    model: str
    resolution: str | None
    aspect_ratio: str | None


class InsertFields(CommonFields, total=False):
    """
    The optional fields of an `InsertObject`.
    """

    image_mask: Picture | None

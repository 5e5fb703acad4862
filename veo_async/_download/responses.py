"""
Interprets the answer of a file's host: a whole file, the rest of one, or an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import evolve

from .._api.replies import retry_after
from ..errors import DownloadError
from .part_file import STRONG_ETAG, PartInfo

__all__ = [
    "Interrupted",
    "LinkRefused",
    "info_from_200",
    "content_type_of",
    "info_from_206",
    "raise_for_status",
]

_LINK_GONE: Final = frozenset({403, 404, 410})  # seen from expired links
_WORTH_REPEATING: Final = frozenset({408, 425, 429})  # and every 5xx
_NEVER_A_VIDEO: Final = frozenset(
    {"text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/json"}
)
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Interrupted(Exception):
    """
    This attempt has failed, but another may succeed.

    Attributes:
        min_delay: seconds until the next attempt, at least.
        from_zero: the next attempt starts with an empty part.
    """

    def __init__(self, reason: str, *, min_delay: float = 0.0, from_zero: bool = False) -> None:
        super().__init__(reason)
        self.min_delay = min_delay
        self.from_zero = from_zero


class LinkRefused(Interrupted):
    """
    The link is refused, perhaps because it has expired.
    """


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def raise_for_status(status: int, headers: Mapping[str, str], have: int) -> None:
    """
    Check the status of an answer, with `have` bytes already in the part.

    Raises:
        Interrupted: another attempt may succeed.
        DownloadError: no attempt can succeed.
    """
    if status == 200 or (status == 206 and have):
        return
    if status in _LINK_GONE:
        raise LinkRefused(f"the link answered {status}")
    if status == 416 and have:
        raise Interrupted("the server does not have the range that is missing", from_zero=True)
    if status in _WORTH_REPEATING or status >= 500:
        raise Interrupted(f"the link answered {status}", min_delay=retry_after(headers) or 0.0)
    raise DownloadError(f"the link answered {status}")


def content_type_of(headers: Mapping[str, str]) -> str:
    """
    Read the content type of an answer.

    Raises:
        DownloadError: it is no video, or it is encoded.
    """
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in _NEVER_A_VIDEO:
        raise DownloadError(f"the link answered with {content_type} instead of a video")
    if (encoding := headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise DownloadError(
            f"the link answered with the content encoding {encoding[:40]!r}, which was not asked for"
        )
    return content_type


def info_from_200(headers: Mapping[str, str], info: PartInfo) -> PartInfo:
    """
    Read the headers of a 200, which has the whole file.
    """
    etag = headers.get("ETag", "")
    strong = etag if STRONG_ETAG.fullmatch(etag) else None
    total = _number(headers.get("Content-Length", ""))
    if total == 0:
        raise DownloadError("the link answered with an empty file")
    return evolve(info, etag=strong, total=total)


def info_from_206(headers: Mapping[str, str], info: PartInfo, have: int) -> PartInfo:
    """
    Read the headers of a 206, which has the rest of the file.

    Raises:
        Interrupted: it is not the rest of this part.
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have or headers.get("ETag") != info.etag:
        raise Interrupted("the server sent another range than it was asked for", from_zero=True)
    total = _number(found[3]) or info.total  # `*`: the server does not tell the total
    if total is None or total != (info.total or total) or not have <= int(found[2]) < total:
        raise Interrupted("the server sent a range of another length", from_zero=True)
    return evolve(info, total=total)

"""
What the answer of a file's host means: a file from its beginning, the rest of one, or none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from attrs import evolve

from .._api.replies import retry_after
from ..errors import DownloadError
from .part_file import STRONG_ETAG, Mark

__all__ = ["Interrupted", "LinkRefused", "begun", "content_type_of", "continued", "raise_for_status"]

_LINK_GONE: Final = frozenset({403, 404, 410})  # what links that expired are seen to answer
_WORTH_REPEATING: Final = frozenset({408, 425, 429})  # and every 5xx
_NEVER_A_VIDEO: Final = frozenset(
    {"text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/json"}
)
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Interrupted(Exception):
    """
    This attempt is over, another may do better: not before `floor` seconds, and from zero if `afresh`.
    """

    def __init__(self, reason: str, *, floor: float = 0.0, afresh: bool = False) -> None:
        super().__init__(reason)
        self.floor = floor
        self.afresh = afresh


class LinkRefused(Interrupted):
    """
    The link may have expired.
    """


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def raise_for_status(status: int, headers: Mapping[str, str], have: int) -> None:
    if status == 200 or (status == 206 and have):
        return
    if status in _LINK_GONE:
        raise LinkRefused(f"the link answered {status}")
    if status == 416 and have:
        raise Interrupted("the server does not have the range that is missing", afresh=True)
    if status in _WORTH_REPEATING or status >= 500:
        raise Interrupted(f"the link answered {status}", floor=retry_after(headers) or 0.0)
    raise DownloadError(f"the link answered {status}")


def content_type_of(headers: Mapping[str, str]) -> str:
    """
    Read what a body is said to be; a page that says what went wrong is refused.
    """
    content_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if content_type in _NEVER_A_VIDEO:
        raise DownloadError(f"the link answered with {content_type} instead of a video")
    if (encoding := headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise DownloadError(
            f"the link answered with the content encoding {encoding[:40]!r}, which was not asked for"
        )
    return content_type


def begun(headers: Mapping[str, str], mark: Mark) -> Mark:
    """
    Read a 200: the whole file, from its first byte.
    """
    etag = headers.get("ETag", "")
    strong = etag if STRONG_ETAG.fullmatch(etag) else None
    total = _number(headers.get("Content-Length", ""))
    if total == 0:
        raise DownloadError("the link answered with an empty file")
    return evolve(mark, etag=strong, total=total)


def continued(headers: Mapping[str, str], mark: Mark, have: int) -> Mark:
    """
    Read a 206: the rest of the very file that the part is a part of, or nothing that may be used.
    """
    found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", ""))
    if found is None or int(found[1]) != have or headers.get("ETag") != mark.etag:
        raise Interrupted("the server sent another range than it was asked for", afresh=True)
    total = _number(found[3]) or mark.total  # an asterisk: the server does not say
    if total is None or total != (mark.total or total) or not have <= int(found[2]) < total:
        raise Interrupted("the server sent a range of another length", afresh=True)
    return evolve(mark, total=total)

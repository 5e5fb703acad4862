"""
The options that commands share, and the checks of requests and outputs.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from attrs import frozen

from .. import LocalImage, Request
from ..errors import InvalidRequest
from .ending import ACCOUNT_TOKEN, complain

__all__ = [
    "Target",
    "as_typed",
    "checked",
    "connecting",
    "fraction",
    "local_images",
    "numbered",
    "port_number",
    "positive",
    "submitting",
    "target_violations",
    "tell_uploads",
    "unusable_images",
    "usable",
    "waiting",
    "whole",
]

F = TypeVar("F", bound=Callable[..., Any])

HIGHEST_PORT: Final = 65535
STAND_IN: Final = "https://example.com/"  # replaces an image that is refused, so that the rest is checked
LONGEST_SUFFIX: Final = ".part.json"  # what a running download appends to the file's name

# The option or argument that sets a request's field.
_OPTIONS: Final = {
    "prompt": "PROMPT",
    "image_urls": "--image",
    "video_id": "ID",
    "model": "--model",
    "resolution": "--resolution",
    "aspect_ratio": "--aspect-ratio",
    "callback_url": "--callback-url",
    "translation": "--translation",
    "target": "--to",
    "motion_type": "MOTION",
    "image_mask": "--mask",
}


def positive(value: str) -> float:
    """
    Read a finite number above 0.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise click.BadParameter(f"{value!r} is not a number above 0.")
    return number


def whole(value: str) -> int:
    """
    Read a whole number of at least 1.
    """
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise click.BadParameter(f"{value!r} is not a whole number above 0.")
    return number


def fraction(value: str) -> float:
    """
    Read a number from 0 to 1.
    """
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise click.BadParameter(f"{value!r} is not a number from 0 to 1.")
    return number


def port_number(value: str) -> int:
    """
    Read a port; 0 means any free one.
    """
    try:
        number = int(value)
    except ValueError:
        number = -1
    if not 0 <= number <= HIGHEST_PORT:
        raise click.BadParameter(f"{value!r} is not a port, 0 to {HIGHEST_PORT}.")
    return number


_CONNECTION: Final = (
    click.option("--base-url", metavar="URL", help="Another address of the API."),
    click.option(
        "--speed",
        type=positive,
        default=1.0,
        envvar="VEO_ASYNC_SPEED",
        metavar="N",
        help="Of a simulator: how much faster than life.",
    ),
)
_WAITING: Final = (
    click.option("--overwrite", is_flag=True, help="Replace a file that exists."),
    click.option(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help="How long to wait at most. [default: 1800]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Tell the outcome on stdout as a JSON object."),
)
_SUBMITTING: Final = (
    click.option("-o", "--output", metavar="PATH", default=".", help="File or directory. [default: .]"),
    click.option("--callback-url", metavar="URL", help="Where the API is to POST the result, too."),
    click.option(
        "--journal",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="With --key: remember the purchase there.",
    ),
    click.option("--key", metavar="TEXT", help="With --journal: what is never bought twice."),
    click.option("--dry-run", is_flag=True, help="Check, tell what would be bought, and buy nothing."),
)


def _all(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


connecting: Final = _all(*_CONNECTION)
waiting: Final = _all(*_WAITING, *_CONNECTION)
submitting: Final = _all(*_SUBMITTING, *_WAITING, *_CONNECTION)


# --- the request ---------------------------------------------------------------------------------------


def checked(make: Callable[[], Request], violations: list[str]) -> Request | None:
    """
    Make a request; adds its violations to the others and returns None, or prints its cautions.
    """
    with warnings.catch_warnings(record=True) as cautions:
        warnings.simplefilter("always")
        try:
            request = make()
        except InvalidRequest as error:
            violations.extend(map(as_typed, error.violations))
            return None
    for caution in cautions:
        complain(f"note: {caution.message}")
    return request


def as_typed(violation: str) -> str:
    """
    Begin a violation with the option that was typed, instead of the request's field.
    """
    field, _, rest = violation.partition(" ")
    field = re.split(r"[\[:]", field)[0]  # without the image's number, as the message quotes its address
    return f"{_OPTIONS.get(field, field)} {rest}"


def usable(image: str) -> str:
    """
    Return an image, or a stand-in for one that `unusable_images` reports.
    """
    return STAND_IN if _is_unusable(image) else image


def unusable_images(images: Iterable[str]) -> Iterator[str]:
    """
    Report the images that are files on this machine, if there is no account token with which to upload them.
    """
    for image in images:
        if image.lower().startswith("file:"):
            yield f"image_urls: {image} is a file on this machine: pass its path, without file:"
        elif _is_unusable(image):
            yield (
                f"image_urls: {image} is a file on this machine, and the API takes URLs only: set {ACCOUNT_TOKEN}"
                " and it is uploaded to a public address, or put it on the web and pass its https address"
            )


def _is_unusable(image: str) -> bool:
    is_file = "://" not in image and os.path.exists(image)
    return image.lower().startswith("file:") or (is_file and not os.environ.get(ACCOUNT_TOKEN))


def local_images(requests: Iterable[Request]) -> list[LocalImage]:
    """
    Return the pictures of this machine that requests hold, each once.
    """
    held = (one for request in requests for one in getattr(request, "image_urls", ()))
    return [*dict.fromkeys(one for one in held if isinstance(one, LocalImage))]


def tell_uploads(images: Sequence[LocalImage]) -> None:
    """
    Say which pictures are going to be public.
    """
    if images:
        more = f" and {len(images) - 1:,} more" if len(images) > 1 else ""
        complain(f"note: {images[0].source}{more}: uploaded to a public address, if it was not before")


# --- the target ----------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Target:
    """
    Where a result's videos go.

    Attributes:
        path: a file, or an existing directory.
        overwrite: whether an existing file may be replaced.
    """

    path: Path
    overwrite: bool = False

    def place(self, index: int) -> Path:
        """
        Return the path for one of several videos: `whale.mp4`, then `whale-2.mp4`.
        """
        if self.path.is_dir():
            return self.path
        path = numbered(self.path, index)
        while index and not self.overwrite and path.exists():
            index += 1
            path = numbered(self.path, index)
        return path


def numbered(path: Path, index: int) -> Path:
    """
    Name one of several files: `whale.mp4`, then `whale-2.mp4`.
    """
    return path.with_name(f"{path.stem}-{index + 1}{path.suffix}") if index else path


def target_violations(text: str, *, overwrite: bool) -> Iterator[str]:
    """
    Report why a video could not be saved there; to be called before it is bought.
    """
    path = Path(text)
    try:
        if path.is_dir():
            yield from _directory_violations(path)
        elif is_directory(text):
            yield from _violations_of_a_new_one(path)
        else:
            yield from _file_violations(text, path, overwrite)
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte
        yield f"--output {text} cannot be written: {getattr(error, 'strerror', None) or error}"


def is_directory(text: str) -> bool:
    """
    Tell whether an output means a directory, existing or not.
    """
    return text.endswith(("/", os.sep)) or Path(text).is_dir()


def make_directory(text: str) -> None:
    """
    Make the directory that an output means, if it does not exist.
    """
    if is_directory(text):
        Path(text).mkdir(parents=True, exist_ok=True)


def _violations_of_a_new_one(path: Path) -> Iterator[str]:
    there = next(place for place in path.absolute().parents if place.exists())
    if path.exists() or not there.is_dir():
        yield f"--output {path} cannot be made: {path if path.exists() else there} is not a directory"
    elif trouble := unwritable(there):
        yield f"--output {path} cannot be made, as {there} cannot be written to: {trouble}"


def unwritable(directory: Path) -> str | None:
    """
    Return why no file can be made in a directory, or None; tries to make one, as only that is reliable.
    """
    try:
        with tempfile.TemporaryFile(dir=directory):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _directory_violations(path: Path) -> Iterator[str]:
    if trouble := unwritable(path):
        yield f"--output {path} is a directory that cannot be written to: {trouble}"


def _file_violations(text: str, path: Path, overwrite: bool) -> Iterator[str]:
    if not path.parent.is_dir():
        yield f"--output {text}: there is no directory {path.parent}; make it first"
        return
    if trouble := unwritable(path.parent):
        yield f"--output {text}: the directory {path.parent} cannot be written to: {trouble}"
    with contextlib.suppress(FileNotFoundError):
        os.stat(f"{path}{LONGEST_SUFFIX}")  # refuses a name that is too long, or holds a null byte
    if not path.exists():
        return
    if not stat.S_ISREG(path.stat().st_mode):
        yield f"--output {text} is neither a file nor a directory"
    elif not overwrite:
        yield f"--output {text} exists already: choose another name, or pass --overwrite"

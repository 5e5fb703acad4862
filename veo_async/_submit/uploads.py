"""
Uploads the pictures of this machine that requests hold, before the requests are written down.

So the journal knows the address of every picture that its requests name: a later process needs no file to go on.
A picture is known by the digest of its contents, and uploaded once, however many requests hold it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from attrs import define, field

from .._api.local_images import LocalImage, is_name
from .._api.requests import Request
from .._api.rules import is_web_address
from .._jobs.job import Job, stop
from .._journal.journal import AnyJournal
from .._observing.observers import Observers
from ..errors import PlatformError, VeoError
from ..events import Uploading
from .submission import Submission

__all__ = ["AT_ONCE", "Uploader", "Uploads"]

AT_ONCE: Final = 4  # uploads; more would share the same line
REFUSED: Final = (401, 403)  # the status of an answer that every other upload would get, too
OF_THIS_PICTURE: Final = (400, 413, 415)  # and of one that another picture need not get
PAUSE: Final = 10.0  # seconds without uploads after one has failed; a thousand jobs would repeat the failure
NO_UPLOADER: Final = (
    "is on this machine, and the API takes URLs only: VeoSession(platform=AccountPlatform()) uploads it to a public"
    " address"
)


class Uploader(Protocol):
    """
    Puts pictures on the web, such as into a bucket of one's own.
    """

    async def upload(self, content: bytes) -> str:
        """
        Upload a picture, and return the URL from which the API can download it.
        """
        ...


@define(eq=False)
class Uploads:
    """
    Passes jobs on once the pictures of their requests have addresses.

    Attributes:
        wall: the local clock, in Unix seconds.
        go_on: takes a job whose pictures have addresses.
    """

    uploader: Uploader | None
    journal: AnyJournal | None
    wall: Callable[[], float]
    observers: Observers = field(factory=Observers)
    go_on: Callable[[Submission], None] = field(init=False)
    _addresses: dict[str, str] = field(init=False, factory=dict)  # by the names of the pictures
    _waiting: asyncio.Queue[Submission] = field(init=False, factory=asyncio.Queue)
    _jobs: set[Job] = field(init=False, factory=set)
    _locks: dict[str, asyncio.Lock] = field(init=False, factory=dict)  # of the pictures that are under way
    _trouble: PlatformError | None = field(init=False, default=None)
    _trouble_until: float = field(init=False, default=-math.inf)  # on the event loop's clock

    def needs(self, request: Request | None) -> bool:
        """
        Tell whether a request holds a picture whose address is not known here yet.
        """
        return any(name not in self._addresses for name in _names_of(request))

    def put(self, submission: Submission) -> None:
        """
        Pass a job on as soon as its pictures have addresses; `run` does the work.
        """
        self._jobs.add(submission.job)
        self._waiting.put_nowait(submission)

    def holds(self, job: Job) -> bool:
        """
        Tell whether a job still waits for its uploads, so that nothing is written down of it.
        """
        return job in self._jobs

    async def run(self) -> None:
        """
        Serve jobs until cancelled; `AT_ONCE` of these may run.
        """
        while True:
            submission = await self._waiting.get()
            try:
                for image in _names_of(submission.request):
                    if not submission.job.done():
                        await self._find_address(image)
            except VeoError as error:
                stop(submission.job, error)
            self._jobs.discard(submission.job)
            if not submission.job.done():  # neither failed nor abandoned
                self.go_on(submission)

    async def recall(self, names: Iterable[str]) -> None:
        """
        Read the addresses of pictures from the journal.
        """
        unknown = {name for name in names if name not in self._addresses}
        if self.journal is not None and unknown:
            self._addresses |= await self.journal.uploads(unknown)

    def filled(self, body: dict[str, Any]) -> dict[str, Any]:
        """
        Put the addresses of the pictures into a request's body.
        """
        if "image_urls" in body:
            body["image_urls"] = [self._addresses.get(one, str(one)) for one in body["image_urls"]]
        return body

    # --- one picture ------------------------------------------------------------------------------------

    async def _find_address(self, image: str) -> None:
        try:
            async with self._locks.setdefault(image, asyncio.Lock()):
                await self.recall([image])
                if image not in self._addresses:
                    address = await self._upload(image)
                    if self.journal is not None:
                        await self.journal.note_upload(image, address, self.wall())
                    self._addresses[image] = address
        finally:
            self._locks.pop(image, None)

    async def _upload(self, image: str) -> str:
        if not isinstance(image, LocalImage):
            raise PlatformError(f"the picture {image} is not known: pass the file, or its bytes")
        if self.uploader is None:
            raise PlatformError(f"the picture {image.source} {NO_UPLOADER}")
        if self._trouble is not None and asyncio.get_running_loop().time() < self._trouble_until:
            raise PlatformError(*self._trouble.args, status=self._trouble.status)
        content = await _read(image)
        self.observers.tell(Uploading, source=image.source, size=len(content))
        address = await self._put_on_the_web(self.uploader, content)
        if not is_web_address(address):
            raise PlatformError(f"the uploader returned {address!r:.80}, which is not an http or https URL")
        return address

    async def _put_on_the_web(self, uploader: Uploader, content: bytes) -> str:
        try:
            return await uploader.upload(content)
        except PlatformError as error:
            if error.status not in OF_THIS_PICTURE:
                pause = math.inf if error.status in REFUSED else PAUSE
                self._trouble, self._trouble_until = error, asyncio.get_running_loop().time() + pause
            raise
        except VeoError:
            raise
        except Exception as error:  # of an uploader that is not this package's
            raise PlatformError(f"the uploader failed: {error!r}") from error


async def _read(image: LocalImage) -> bytes:
    try:
        return await asyncio.to_thread(image.read) if image.content is None else image.content
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise PlatformError(f"the picture {image.source} cannot be uploaded: {words}") from error


def _names_of(request: Request | None) -> list[str]:
    return [one for one in getattr(request, "image_urls", ()) if is_name(one)]

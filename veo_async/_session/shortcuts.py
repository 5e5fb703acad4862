"""
One short method for each kind of request, which makes it and submits it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Unpack

from .._api.fields import CommonFields, ExtendFields, Get1080pFields, InsertFields, MakeFields
from .._api.records import Video, VideoResult
from .._api.requests import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    Picture,
    RemoveObject,
    Request,
    Reshoot,
    TextToVideo,
    Upsample,
)
from .._jobs.job import Job

__all__ = ["ShortMethods"]

SUBMIT_OPTIONS: Final = ("key", "timeout", "retry_failed")


class ShortMethods(ABC):
    """
    The short methods of everything that has `submit`.
    """

    __slots__ = ()

    @abstractmethod
    def submit(
        self,
        request: Request,
        *,
        key: str | None = None,
        timeout: float | None = None,
        retry_failed: bool = False,
    ) -> Job:
        """
        Submit a request.
        """
        ...

    # `fields` is typed so that editors complete it. Each method also takes `key`, `timeout` and `retry_failed` of
    # `submit`. `video` is a `Video`, a `VideoResult` with one video, or a video's id.

    def text_to_video(self, prompt: str, **fields: Unpack[MakeFields]) -> Job:
        """
        Submit a `TextToVideo`: a video from a prompt.

        Fields: `model`, `resolution`, `aspect_ratio`, `translation`, `callback_url`; `key`, `timeout`,
        `retry_failed`.

            result = await veo.text_to_video("a whale", model="veo31", key="order-2")
        """
        return self._submit(TextToVideo, prompt, **fields)

    def image_to_video(self, prompt: str, image_urls: Sequence[Picture], **fields: Unpack[MakeFields]) -> Job:
        """
        Submit an `ImageToVideo`: a video that starts from an image, or leads from a first image to a last one.

        Fields: `model`, `resolution`, `aspect_ratio`, `translation`, `callback_url`; `key`, `timeout`,
        `retry_failed`.

            result = await veo.image_to_video("it swims away", ["https://example.com/whale.jpg"])
        """
        return self._submit(ImageToVideo, prompt, image_urls, **fields)

    def ingredients_to_video(
        self, image_urls: Sequence[Picture], prompt: str | None = None, **fields: Unpack[MakeFields]
    ) -> Job:
        """
        Submit an `IngredientsToVideo`: a video that combines the things in one to three images.

        Fields: `model`, `resolution`, `aspect_ratio`, `translation`, `callback_url`; `key`, `timeout`,
        `retry_failed`.

            images = ["https://example.com/owl.jpg", "https://example.com/hat.jpg"]
            result = await veo.ingredients_to_video(images, "the owl wears the hat")
        """
        return self._submit(IngredientsToVideo, image_urls, prompt, **fields)

    def get_1080p(self, video: Video | VideoResult | str, **fields: Unpack[Get1080pFields]) -> Job:
        """
        Submit a `Get1080p`: an earlier video in 1080p.

        Fields: `model`, `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.get_1080p(video)
        """
        return self._submit(Get1080p, video, **fields)

    def upsample(self, video: Video | VideoResult | str, target: str, **fields: Unpack[CommonFields]) -> Job:
        """
        Submit an `Upsample`: an earlier video in `1080p` or `4k`, or as a `gif`.

        Fields: `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.upsample(video, "4k")
        """
        return self._submit(Upsample, video, target, **fields)

    def extend(
        self, video: Video | VideoResult | str, prompt: str | None = None, **fields: Unpack[ExtendFields]
    ) -> Job:
        """
        Submit an `Extend`: an earlier video, continued.

        Fields: `model`, `resolution`, `aspect_ratio`, `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.extend(video, "it dives")
        """
        return self._submit(Extend, video, prompt, **fields)

    def reshoot(
        self, video: Video | VideoResult | str, motion_type: str, **fields: Unpack[CommonFields]
    ) -> Job:
        """
        Submit a `Reshoot`: an earlier video with another camera movement, such as `FORWARD`.

        Fields: `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.reshoot(video, "FORWARD")
        """
        return self._submit(Reshoot, video, motion_type, **fields)

    def insert_object(
        self, video: Video | VideoResult | str, prompt: str, **fields: Unpack[InsertFields]
    ) -> Job:
        """
        Submit an `InsertObject`: an earlier video with something put in.

        Fields: `image_mask`, `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.insert_object(video, "a hat")
        """
        return self._submit(InsertObject, video, prompt, **fields)

    def remove_object(
        self, video: Video | VideoResult | str, image_mask: Picture, **fields: Unpack[CommonFields]
    ) -> Job:
        """
        Submit a `RemoveObject`: an earlier video with something taken out, where the mask is white.

        Fields: `callback_url`; `key`, `timeout`, `retry_failed`.

            result = await veo.remove_object(video, "https://example.com/mask.jpg")
        """
        return self._submit(RemoveObject, video, image_mask, **fields)

    def _submit(self, kind: type[Request], *arguments: Any, **fields: Any) -> Job:
        options = {name: fields.pop(name) for name in SUBMIT_OPTIONS if name in fields}
        return self.submit(kind(*arguments, **fields), **options)

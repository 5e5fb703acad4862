"""
Bodies as the vendor documents them, from `tests/samples/`, and variations of them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from veo_async._api.requests import (
    Extend,
    Get1080p,
    ImageToVideo,
    IngredientsToVideo,
    InsertObject,
    RemoveObject,
    Request,
    Reshoot,
    TextToVideo,
    Upsample,
)

__all__ = ["KINDS", "LINKLESS", "REQUESTS", "SAMPLES", "sample", "with_item", "with_response"]

SAMPLES = Path(__file__).parent.parent / "samples"
IMAGE = "https://example.com/a.png"
LINKLESS: dict[str, Any] = {"success": True, "data": [{"id": "v", "state": "succeeded", "video_url": None}]}


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_bytes())


def with_response(response: object, **fields: object) -> dict[str, Any]:
    """
    The documented record with another response.
    """
    return {**sample("task_succeeded"), "response": response, **fields}


def with_item(**fields: object) -> dict[str, Any]:
    """
    The documented response with another item; a field that is None is left out.
    """
    response = sample("task_succeeded")["response"]
    item = {name: value for name, value in {**response["data"][0], **fields}.items() if value is not None}
    return {**response, "data": [item]}


REQUESTS: list[tuple[Request, dict[str, Any]]] = [
    (
        TextToVideo("a whale"),
        {"action": "text2video", "prompt": "a whale", "model": "veo31-fast"},
    ),
    (
        TextToVideo("a", model="veo31", resolution="4k", aspect_ratio="9:16", translation=True),
        {
            "action": "text2video",
            "prompt": "a",
            "model": "veo31",
            "resolution": "4k",
            "aspect_ratio": "9:16",
            "translation": True,
        },
    ),
    (
        ImageToVideo("a", [IMAGE], callback_url="https://example.com/hook"),
        {
            "action": "image2video",
            "prompt": "a",
            "image_urls": [IMAGE],
            "model": "veo31-fast",
            "callback_url": "https://example.com/hook",
        },
    ),
    (
        IngredientsToVideo([IMAGE]),
        {"action": "ingredients2video", "image_urls": [IMAGE], "model": "veo31-fast-ingredients"},
    ),
    (Get1080p("v"), {"action": "get1080p", "video_id": "v", "model": "veo31-fast"}),
    (Upsample("v", "4k"), {"video_id": "v", "action": "4k"}),
    (
        Extend("v", resolution="720p"),
        {"video_id": "v", "model": "veo31-fast", "resolution": "720p"},
    ),
    (Reshoot("v", "FORWARD"), {"video_id": "v", "motion_type": "FORWARD"}),
    (InsertObject("v", "a hat"), {"video_id": "v", "prompt": "a hat", "action": "insert"}),
    (RemoveObject("v", IMAGE), {"video_id": "v", "image_mask": IMAGE, "action": "remove"}),
]
KINDS = [type(request).__name__ for request, _ in REQUESTS]

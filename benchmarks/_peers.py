"""
One call of each client that buys a video, with its default settings, in a process of its own.

    python benchmarks/_peers.py magic-hour --url http://127.0.0.1:8080 --timeout 1.0

Where `--timeout` is given, it goes to the client by its own public setting. Prints as JSON how the call ended.
Each client but our own and the vendor's talks another API; only what it does with its POST is looked at.
"""

# ruff: noqa: PLC0415 - a client loads what it needs, and not what the others need
from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from typing import Any, Final

PROMPT: Final = "a whale breaching at golden hour"
IMAGE: Final = "https://example.com/whale.jpg"
Options = dict[str, Any]


def options(timeout: float | None, name: str = "timeout") -> Options:
    """
    Shorten a client's time-out where wanted, by the name that its setting has.
    """
    return {} if timeout is None else {name: timeout}


def veo_async(url: str, token: str, timeout: float | None) -> object:
    from veo_async import Limits, TextToVideo, VeoSession

    async def call() -> str:
        limits = Limits(**options(timeout, "read"))
        async with VeoSession(token, base_url=url, limits=limits) as veo:
            job = veo.submit(TextToVideo(PROMPT))
            return await job.accepted()

    return asyncio.run(call())


def acedatacloud(url: str, token: str, timeout: float | None) -> object:
    from acedatacloud import AceDataCloud

    with AceDataCloud(token, base_url=url, **options(timeout)) as client:
        answer = client.veo.generate(action="text2video", prompt=PROMPT, model="veo31-fast", async_=True)
    return answer["task_id"]


def runwayml(url: str, token: str, timeout: float | None) -> object:
    client = import_module("runwayml").RunwayML(api_key=token, base_url=url, **options(timeout))
    return client.image_to_video.create(
        model="veo3.1", prompt_image=IMAGE, prompt_text=PROMPT, ratio="1280:720"
    )


def lumaai(url: str, token: str, timeout: float | None) -> object:
    client = import_module("lumaai").LumaAI(auth_token=token, base_url=url, **options(timeout))
    return client.generations.create(prompt=PROMPT, model="ray-2")


def fal_client(url: str, token: str, timeout: float | None) -> object:
    fal: Any = import_module("fal_client.client")
    fal.QUEUE_URL_FORMAT = f"{url}/"  # the host is a setting, but https is not
    return fal.SyncClient(key=token, **options(timeout, "default_timeout")).submit(
        "fal-ai/veo3", {"prompt": PROMPT}
    )


def google_genai(url: str, token: str, timeout: float | None) -> object:
    genai = import_module("google.genai")
    milliseconds = {} if timeout is None else {"timeout": int(timeout * 1000)}
    at = genai.types.HttpOptions(base_url=url, **milliseconds)

    async def call() -> object:
        # Without `vertexai` it refuses to make videos.
        async with genai.Client(vertexai=True, api_key=token, http_options=at).aio as client:
            return await client.models.generate_videos(model="veo-3.1-generate-preview", prompt=PROMPT)

    return asyncio.run(call())


def magic_hour(url: str, token: str, timeout: float | None) -> object:
    client = import_module("magic_hour").Client(token=token, base_url=url, **options(timeout))
    return client.v1.text_to_video.create(end_seconds=8.0, model="veo3.1", style={"prompt": PROMPT})


def replicate(url: str, token: str, timeout: float | None) -> object:
    # Without `wait` it would hang for ever: a prediction heeds no other time-out, the client's own neither.
    wait = {} if timeout is None else {"wait": round(timeout)}
    client = import_module("replicate").Client(api_token=token, base_url=url)
    return client.models.predictions.create("google/veo-3", {"prompt": PROMPT}, **wait)


CALLS: Final[dict[str, Callable[[str, str, float | None], object]]] = {  # by distribution
    "veo-async": veo_async,
    "acedatacloud": acedatacloud,
    "runwayml": runwayml,
    "lumaai": lumaai,
    "fal-client": fal_client,
    "google-genai": google_genai,
    "magic-hour": magic_hour,
    "replicate": replicate,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("client", choices=CALLS)
    parser.add_argument("--url", required=True)
    parser.add_argument("--token", default="a-token")
    parser.add_argument("--timeout", type=float, help="in seconds")
    chosen = parser.parse_args()
    found = {"version": version(chosen.client), "returned": None, "raised": None}
    try:
        found["returned"] = str(CALLS[chosen.client](chosen.url, chosen.token, chosen.timeout))
    except Exception as error:
        found["raised"] = type(error).__name__
        found["words"] = str(error)[:200]
    print(json.dumps(found))


if __name__ == "__main__":
    main()

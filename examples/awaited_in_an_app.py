"""
A web application that makes a video inside a request, and streams how it goes, one JSON object a line.

    curl --no-buffer --json '{"prompt": "a whale"}' http://127.0.0.1:8080/videos

Run by itself it serves on a free port, asks itself for three videos at once, shows the lines, and ends.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

from _sandbox import open_session
from aiohttp import ClientSession, web

from veo_async import InvalidRequest, KeyConflict, TextToVideo, VeoError, VeoSession

VEO = web.AppKey("veo", VeoSession)


async def session(app: web.Application) -> AsyncIterator[None]:
    """
    Keep one session for as long as the application runs: all requests share its connections and its tracker.
    """
    async with open_session() as app[VEO]:
        yield


async def make_video(request: web.Request) -> web.StreamResponse:
    try:
        wish = TextToVideo((await request.json())["prompt"])
        # Who clicks twice sends the same key, and waits for the same video.
        job = request.app[VEO].submit(wish, key=request.headers.get("Idempotency-Key"))
    except (InvalidRequest, KeyConflict) as error:
        raise web.HTTPBadRequest(text=str(error)) from error

    stream = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await stream.prepare(request)
    # Should the visitor leave, this handler ends; the job does not, and the key finds it again.
    async for update in job.updates():
        await stream.write(_line(update.to_dict()))
    try:
        await stream.write(_line({"url": (await job).video.url}))
    except VeoError as error:
        await stream.write(_line({"error": str(error)}))
    return stream


def _line(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode() + b"\n"


async def visit(http: ClientSession, url: str, prompt: str) -> None:
    async with http.post(url, json={"prompt": prompt}, headers={"Idempotency-Key": prompt}) as response:
        async for line in response.content:
            print(f"{prompt}: {line.decode().strip()}")


async def main() -> None:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.router.add_post("/videos", make_video)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        async with ClientSession() as http:
            url = f"http://{host}:{port}/videos"
            await asyncio.gather(*(visit(http, url, prompt) for prompt in ("a whale", "a heron", "an owl")))
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main())

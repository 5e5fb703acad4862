"""
Callbacks in FastAPI: one route that hands the parsed body to `veo.notify`; when a web framework of yours already
faces the internet.

    pip install fastapi uvicorn
    python examples/callbacks_fastapi.py

Any other framework does the same: Django, a Lambda function, a consumer of a queue.
`notify` never raises on what it is given, and believes none of it: it makes the session ask the API.

Run by itself it serves on a free port, asks itself for a video, and ends.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import asyncio
import hmac
import secrets
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from _sandbox import open_session
from aiohttp import ClientSession

from veo_async import TextToVideo, VideoResult

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException, Request, Response
except ModuleNotFoundError as error:
    print(f"This example needs {error.name}: pip install fastapi uvicorn")
    sys.exit()

SECRET = secrets.token_urlsafe()  # a callback is not signed, so its path must be hard to guess
DOOR = socket.create_server(("127.0.0.1", 0))
PUBLIC_URL = f"http://127.0.0.1:{DOOR.getsockname()[1]}"  # yours is https://your.host


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """
    Keep one session for as long as the application runs.
    """
    async with open_session() as app.state.veo:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/veo/{secret}", status_code=204)
async def called_back(secret: str, request: Request) -> Response:
    if not hmac.compare_digest(secret.encode(), SECRET.encode()):
        raise HTTPException(404)
    try:
        payload = await request.json()  # let what stands in front bound its size
    except (ValueError, RecursionError):
        payload = None
    request.app.state.veo.notify(payload)
    return Response(status_code=204)  # in any case, or it would be sent again


@app.post("/videos")
async def make_video(prompt: str, request: Request) -> dict[str, Any]:
    wish = TextToVideo(prompt, callback_url=f"{PUBLIC_URL}/veo/{SECRET}")
    result: VideoResult = await request.app.state.veo.submit(wish)
    return result.to_dict()


async def main() -> None:
    config = uvicorn.Config(app, log_level="warning", access_log=False)  # a log would hold the secret
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[DOOR]))
    url = f"{PUBLIC_URL}/videos"
    async with ClientSession() as http, http.post(url, params={"prompt": "a whale"}) as answer:
        print(await answer.json())
    server.should_exit = True
    await serving


if __name__ == "__main__":
    asyncio.run(main())

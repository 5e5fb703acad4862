"""
Callbacks behind a reverse proxy: the result the moment it exists, and not a few seconds later; when your host is
reachable from the internet, and seconds count.

The receiver listens on this machine alone, and what faces the internet passes on one path. For nginx:

    location /veo/ {
        proxy_pass http://127.0.0.1:8080/;   # the slash at the end cuts /veo off
        client_max_body_size 64k;            # a callback is a few kilobytes
        access_log off;                      # the path holds a secret
    }

    PUBLIC_URL=https://your.host/veo python examples/callbacks_behind_a_proxy.py

Run by itself, without PUBLIC_URL, it takes a little proxy of its own, which only a simulator can reach.
If callbacks do not get through, everything works all the same: polling is the safety net.
`veo-async listen` shows what arrives, while you set such a thing up.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AsyncExitStack

from _sandbox import open_session
from aiohttp import ClientError, ClientSession, web

from veo_async import TextToVideo
from veo_async.receiver import CallbackReceiver

PORT = 8080
PROMPTS = ("a whale", "a heron", "an otter")


async def main() -> None:
    async with AsyncExitStack() as stack:
        veo = await stack.enter_async_context(open_session())
        port = asyncio.get_running_loop().create_future()
        public_url = os.environ.get("PUBLIC_URL") or await little_proxy(port, stack)
        receiver = await stack.enter_async_context(CallbackReceiver(veo, public_url=public_url))
        port.set_result(await receiver.start(port=PORT if "PUBLIC_URL" in os.environ else 0))
        # Nothing else changes: each submit now carries a callback URL of its own.
        async for job in veo.as_completed(veo.submit_many([TextToVideo(prompt) for prompt in PROMPTS])):
            print(job.result().video.url)
    print(f"{receiver.heard} callbacks came through")


async def little_proxy(port: asyncio.Future[int], stack: AsyncExitStack) -> str:
    """
    Stand in for nginx, which would know the port; returns the address of what it passes on.
    """
    http = await stack.enter_async_context(ClientSession())

    async def pass_on(request: web.Request) -> web.Response:
        url = f"http://127.0.0.1:{await port}/{request.match_info['path']}"
        try:
            async with http.request(request.method, url, data=await request.read()) as answer:
                return web.Response(status=answer.status, body=await answer.read())
        except (ClientError, OSError):  # one side has gone, as at the end of all
            return web.Response(status=502)

    app = web.Application()
    app.router.add_route("*", "/veo/{path:.*}", pass_on)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}/veo"


if __name__ == "__main__":
    asyncio.run(main())

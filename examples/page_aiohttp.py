"""
An aiohttp page that shows how videos come along, by server-sent events: when one web process makes the videos that
its visitors ask for. With several processes, see `enqueue_fastapi.py`.

    python examples/page_aiohttp.py [PORT]

With a port it serves until Ctrl-C: open http://127.0.0.1:PORT in a browser.
Without one it serves on a free port, visits itself three times at once, shows what the browser hears, and ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from _sandbox import open_session
from aiohttp import ClientSession, web

from veo_async import InvalidRequest, Job, KeyConflict, TextToVideo, VeoError, VeoSession

VEO = web.AppKey("veo", VeoSession)
PAGE = """
<!doctype html><meta charset="utf-8"><title>Videos</title>
<style>body { font: 1rem system-ui; max-width: 40rem; margin: 2rem auto } video { width: 100% }</style>
<h1>Videos</h1>
<form><input name="prompt" size="40" required value="a whale breaching"> <button>Make</button></form>
<div id="videos"></div>
<script>
document.forms[0].onsubmit = async (event) => {
  event.preventDefault()
  const prompt = event.target.prompt.value, key = crypto.randomUUID()  // a click that is sent twice buys once
  const answer = await fetch("/videos/" + key, {method: "PUT", body: prompt})
  const row = document.createElement("section"), text = document.createElement("p")
  row.append(text)
  document.getElementById("videos").prepend(row)
  if (!answer.ok) { text.textContent = await answer.text(); return }
  const events = new EventSource("/videos/" + key + "/events")
  events.onmessage = (message) => {
    const told = JSON.parse(message.data)
    text.textContent = prompt + ": " + (told.state || told.error || "done")
    if (told.url) row.append(Object.assign(document.createElement("video"), {src: told.url, controls: true}))
    if (!told.state) events.close()
  }
}
</script>
"""


async def session(app: web.Application) -> AsyncIterator[None]:
    """
    Keep one session for as long as the application runs: all requests share its connections and its tracker.
    """
    async with open_session() as app[VEO]:
        yield


async def page(_: web.Request) -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


async def make(request: web.Request) -> web.Response:
    try:
        request.app[VEO].submit(TextToVideo(await request.text()), key=request.match_info["key"])
    except (InvalidRequest, KeyConflict) as error:
        raise web.HTTPBadRequest(text=str(error)) from error
    return web.Response(status=202)


async def events(request: web.Request) -> web.StreamResponse:
    """
    Tell how a video stands. Should the visitor leave, this ends; the job does not, and the key finds it again.
    """
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await stream.prepare(request)
    job = request.app[VEO].attach(key=request.match_info["key"])  # the job that has the key, if there is one
    async for told in progress(job):
        await stream.write(f"data: {json.dumps(told)}\n\n".encode())
    return stream


async def progress(job: Job) -> AsyncIterator[dict[str, object]]:
    async for update in job.updates():
        yield {"state": update.state}
    try:
        yield {"url": (await job).video.url}
    except VeoError as error:
        yield {"error": str(error)}


async def visit(http: ClientSession, url: str, prompt: str) -> None:
    """
    Do what a browser does.
    """
    place = f"{url}/videos/{prompt.replace(' ', '-')}"
    async with http.put(place, data=prompt) as answer:
        answer.raise_for_status()
    async with http.get(f"{place}/events") as stream:
        async for line in stream.content:
            if line.strip():
                print(f"{prompt}: {line.decode().removeprefix('data: ').strip()}")


async def main(port: int | None) -> None:
    app = web.Application()
    app.cleanup_ctx.append(session)
    app.add_routes(
        [web.get("/", page), web.put("/videos/{key}", make), web.get("/videos/{key}/events", events)]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port or 0).start()
        host, found = runner.addresses[0]
        if port is not None:
            await asyncio.Event().wait()
        async with ClientSession() as http:
            url = f"http://{host}:{found}"
            await asyncio.gather(*(visit(http, url, prompt) for prompt in ("a whale", "a heron", "an owl")))
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else None))

"""
A FastAPI application that enqueues videos in its own transaction, and shows their progress live: when visitors ask
for videos, and neither a restart of the web server nor of a worker may lose one.

    pip install fastapi uvicorn 'veo-async[local]'
    python examples/enqueue_fastapi.py [PORT]

With a port it serves until Ctrl-C: open http://127.0.0.1:PORT in a browser.
Without one it serves on a free port, orders a video itself, follows its progress, and ends.
Without VEO_ASYNC_DATABASE it starts a PostgreSQL in a temporary directory.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator

import psycopg
from _sandbox import open_worker
from aiohttp import ClientSession

from veo_async import JournalError, TextToVideo, VeoError
from veo_async.worker import enqueue, wait_for

try:
    import uvicorn
    from fastapi import FastAPI, HTTPException
    from fastapi.responses import HTMLResponse, StreamingResponse
except ModuleNotFoundError as error:
    print(f"This example needs {error.name}: pip install fastapi uvicorn")
    sys.exit()

ORDERS = "CREATE TABLE IF NOT EXISTS orders (id bigserial PRIMARY KEY, prompt text NOT NULL)"
PAGE = """
<!doctype html><meta charset="utf-8"><title>Videos to order</title>
<style>body { font: 1rem system-ui; max-width: 40rem; margin: 2rem auto } video { width: 100% }</style>
<h1>Videos to order</h1>
<form><input name="prompt" size="40" required value="a whale breaching"> <button>Order</button></form>
<div id="orders"></div>
<script>
document.forms[0].onsubmit = async (event) => {
  event.preventDefault()
  const answer = await fetch("/orders?" + new URLSearchParams(new FormData(event.target)), {method: "POST"})
  const order = await answer.json(), row = document.createElement("section")
  row.append(Object.assign(document.createElement("p"), {textContent: order.prompt + ": ordered"}))
  document.getElementById("orders").prepend(row)
  const events = new EventSource("/orders/" + order.id + "/events")
  events.onmessage = (message) => {
    const told = JSON.parse(message.data)
    row.firstChild.textContent = order.prompt + ": " + told.state
    if (told.url) row.append(Object.assign(document.createElement("video"), {src: told.url, controls: true}))
    if (told.state != "waiting") events.close()
  }
}
</script>
"""

app = FastAPI()
log = logging.getLogger("orders")


async def database() -> psycopg.AsyncConnection[tuple[object, ...]]:
    return await psycopg.AsyncConnection.connect(os.environ["VEO_ASYNC_DATABASE"])


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return PAGE


@app.post("/orders")
async def order(prompt: str) -> dict[str, object]:
    async with await database() as connection:  # one transaction: both the order and its video, or neither
        row = await connection.execute("INSERT INTO orders (prompt) VALUES (%s) RETURNING id", [prompt])
        [number] = (await row.fetchone()) or [None]
        await enqueue(TextToVideo(prompt), key=f"order-{number}", connection=connection)
    return {"id": number, "prompt": prompt}


@app.get("/orders/{number}/events")
async def events(number: int) -> StreamingResponse:
    async with await database() as connection:
        if not await (await connection.execute("SELECT 1 FROM orders WHERE id = %s", [number])).fetchone():
            raise HTTPException(404)
    return StreamingResponse(progress(f"order-{number}"), media_type="text/event-stream")


async def progress(key: str) -> AsyncIterator[str]:
    """
    Tell how an order stands; a browser that has lost its connection asks again, and hears the same.
    """
    yield event(state="waiting")
    while True:
        try:
            result = await wait_for(key, timeout=15)
        except TimeoutError:
            yield event(state="waiting")  # so that nobody in between closes a quiet connection
        except JournalError as error:  # the database is away; the video is not lost
            log.warning("order %s is not followed for now: %s", key, error)
            yield event(state="waiting")
            await asyncio.sleep(5)
        except VeoError as error:  # whose words are for you, and not for visitors
            log.error("order %s has no video: %s", key, error)
            yield event(state="failed")
            return
        else:
            yield event(state="done", url=result.video.url)
            return


def event(**told: object) -> str:
    return f"data: {json.dumps(told)}\n\n"


async def visit(url: str) -> None:
    """
    Do what a browser does.
    """
    async with ClientSession(url) as http:
        async with http.post("/orders", params={"prompt": "a whale breaching"}) as answer:
            ordered = await answer.json()
        async with http.get(f"/orders/{ordered['id']}/events") as answer:
            async for line in answer.content:
                if line.strip():
                    print(line.decode().strip())


async def main(port: int | None) -> None:
    async with open_worker(), await database() as connection:
        await connection.execute(ORDERS)
        await connection.commit()
        door = socket.create_server(("127.0.0.1", port or 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        serving = asyncio.create_task(server.serve(sockets=[door]))
        if port is None:
            await visit(f"http://127.0.0.1:{door.getsockname()[1]}")
            server.should_exit = True
        await serving


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if sys.argv[1:] else None))

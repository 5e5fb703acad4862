"""
Tells an orchestrator over HTTP how a worker is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from attrs import asdict, frozen

from .worker import Worker

__all__ = ["health_of"]


@asynccontextmanager
async def health_of(
    worker: Worker, *, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[tuple[str, int]]:
    """
    Answer at `/health` and `/ready` during the block, which gets the address that is listened at.

    `/health` is 200 unless the journal has failed for good. `/ready` is 200 while the worker gets requests and may buy
    videos, else 503: also once its lease is lost, and while the API refuses its token. Both answer with counts as JSON.

    Raises:
        OSError: the port cannot be listened at.
    """
    app = web.Application()
    answers = _Answers(worker)
    app.add_routes([web.get("/health", answers.health), web.get("/ready", answers.ready)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        name, number = runner.addresses[0][:2]
        yield name, number
    finally:
        await runner.cleanup()


@frozen
class _Answers:
    worker: Worker

    async def health(self, _: web.Request) -> web.Response:
        return self._told(self.worker.failure is None)

    async def ready(self, _: web.Request) -> web.Response:
        return self._told(self.worker.is_ready)

    def _told(self, is_well: bool) -> web.Response:
        told: dict[str, Any] = {"ready": self.worker.is_ready, "deliveries": asdict(self.worker.tally)}
        if (stats := self.worker.stats) is not None:
            told |= stats.to_dict()
        return web.json_response(told, status=200 if is_well else 503)

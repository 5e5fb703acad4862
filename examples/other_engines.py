"""
Celery, Airflow, Temporal and DBOS: when you have an engine already that runs your tasks, and repeats them.

Any engine that delivers at least once will do. It calls `make` with a key that is the same for each repetition; the
shared journal in PostgreSQL sees to it that the key is bought once, whichever worker dies, and that a repetition gets
the video that was bought before. `veo_async.worker` is not needed.

    pip install 'veo-async[local]'
    python examples/other_engines.py        # calls `make` as an engine would that repeats a task
"""

# mypy: disable-error-code="import-not-found, untyped-decorator, misc"
# ruff: noqa: TC004 - an engine is imported where it is used

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from _sandbox import open_worker, pace

from veo_async import TextToVideo, VeoSession

if TYPE_CHECKING:
    from airflow.sdk import task
    from celery import Celery
    from dbos import DBOS
    from temporalio import activity, workflow


async def make(key: str, prompt: str) -> str:
    """
    Make a video and return its address; the same key is the same video, in any process.

    A long-lived process keeps one session for all its tasks, as `temporal` does below: that takes fewer requests.
    """
    async with VeoSession(journal=os.environ["VEO_ASYNC_DATABASE"], **pace()) as veo:
        return (await veo.submit(TextToVideo(prompt), key=key)).video.url


def celery(app: Celery) -> Any:
    """
    Celery: `acks_late` has a task repeated whose worker has died. `order` comes from the caller, not from Celery's id.
    """

    @app.task(acks_late=True, reject_on_worker_lost=True, autoretry_for=(Exception,), retry_backoff=True)
    def video(order: str, prompt: str) -> str:
        return asyncio.run(make(f"order/{order}", prompt))

    return video


def airflow() -> Any:
    """
    Airflow: the run and the place in it make the key, so that a retried task has the same.
    """

    @task(retries=5)
    def video(prompt: str, run_id: str, place: int) -> str:
        return asyncio.run(make(f"{run_id}/{place}", prompt))

    return video


def temporal(veo: VeoSession) -> Any:
    """
    Temporal: one session for all activities of a worker; a workflow's id makes the key.
    """

    @activity.defn
    async def video(order: str, prompt: str) -> str:
        return (await veo.submit(TextToVideo(prompt), key=f"order/{order}")).video.url

    @workflow.defn
    class Order:
        @workflow.run
        async def run(self, order: str, prompt: str) -> Any:
            within = timedelta(hours=1)
            return await workflow.execute_activity(video, args=[order, prompt], start_to_close_timeout=within)

    return video, Order


def dbos() -> Any:
    """
    DBOS: a step that was interrupted is run again, with the workflow's id as its key.
    """

    @DBOS.step(retries_allowed=True, max_attempts=5)
    async def video(prompt: str) -> str:
        return await make(f"dbos/{DBOS.workflow_id}", prompt)

    return video


async def main() -> None:
    async with open_worker():  # for its database and its simulator; the worker itself has nothing to do
        first = await make("order/17", "a paper boat")
        again = await make("order/17", "a paper boat")
    print(first)
    print("repeated: the same video" if again == first else "repeated: ANOTHER video")


if __name__ == "__main__":
    asyncio.run(main())

"""
Generation on many machines: programs enqueue requests in PostgreSQL, and workers make the videos.

    await enqueue(TextToVideo("a whale"), key="whale-1")      # in any process
    result = await wait_for("whale-1")                        # in any process

    await Worker("postgresql://...").run()                    # in a worker; or `veo-async worker`

It needs `pip install 'veo-async[workers]'`, and tables that `veo-async queue init` makes.
procrastinate hands the requests out and repeats what a dead worker had; the shared journal sees to it that no
request is bought twice.
"""

from .deliveries import blueprint
from .enqueueing import enqueue, enqueue_blocking, enqueue_many
from .outcomes import outcome
from .waiting import ended, wait_for
from .worker import Worker

__all__ = [
    "Worker",
    "blueprint",
    "ended",
    "enqueue",
    "enqueue_blocking",
    "enqueue_many",
    "outcome",
    "wait_for",
]

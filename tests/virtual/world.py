"""
A server, a clock and sessions in them: what a test in virtual time begins with.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from attrs import define, field

from veo_async import VeoSession
from veo_async.simulator import TOKEN, Core, Faults, Settings
from veo_async.testing.in_memory import InMemoryTransport

from .loop import VirtualLoop

__all__ = ["World"]


@define(eq=False)
class World:
    """
    One server that outlives the sessions that talk to it.
    """

    settings: Settings = field(factory=Settings)
    faults: Faults | None = None
    core: Core = field(init=False)

    def __attrs_post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop), "run it with tests.virtual.run"
        self.core = Core(self.settings, clock=loop.unix_time, faults=self.faults)

    def session(self, **options: Any) -> VeoSession:
        """
        Make a session that talks to this server.
        """
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        session = VeoSession(TOKEN, base_url="http://127.0.0.1", **options)
        session._transport = InMemoryTransport(self.core, TOKEN)
        session._clock.wall = loop.unix_time
        session._random = Random(self.settings.seed)
        return session

"""
The Veo API on your own machine, for tests: no key, no cost, and at any speed.

    async with Simulator(Settings(speed=100)) as sim:
        async with VeoSession(sim.token, base_url=sim.url) as veo:
            ...
"""

from ._app import create_app
from ._core import Core
from ._faults import Fault, Faults
from ._records import Task
from ._replies import Callback, Reply
from ._scripts import Script, type_of
from ._server import Simulator
from ._settings import TOKEN, Settings

__all__ = [
    "TOKEN",
    "Callback",
    "Core",
    "Fault",
    "Faults",
    "Reply",
    "Script",
    "Settings",
    "Simulator",
    "Task",
    "create_app",
    "type_of",
]

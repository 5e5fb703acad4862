"""
Hours of polling in milliseconds: an event loop whose clock jumps, over the simulator's in-memory core.
"""

from veo_async.testing.in_memory import InMemoryTransport

from .loop import EPOCH, Deadlock, VirtualLoop, run
from .world import World

__all__ = ["EPOCH", "Deadlock", "InMemoryTransport", "VirtualLoop", "World", "run"]

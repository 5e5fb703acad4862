"""
Hours of polling in milliseconds: an event loop whose clock jumps, over the simulator's in-memory core.
"""

from .loop import EPOCH, Deadlock, VirtualLoop, run
from .transport import InMemoryTransport
from .world import World

__all__ = ["EPOCH", "Deadlock", "InMemoryTransport", "VirtualLoop", "World", "run"]

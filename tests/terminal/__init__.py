"""
The command as people meet it: a simulator in a thread, the command in this process or in its own, a browser.
"""

from .browser import CHROMIUM, Browser
from .commands import Finished, Process, invoke, signalled
from .served import Served, served, wait_for

__all__ = [
    "CHROMIUM",
    "Browser",
    "Finished",
    "Process",
    "Served",
    "invoke",
    "served",
    "signalled",
    "wait_for",
]

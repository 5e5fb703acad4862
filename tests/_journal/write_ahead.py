"""
What is in SQLite's log: how far the file is in use, of which the rest is left over from before.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["end_of_log"]


def end_of_log(database: Path) -> int:
    """
    Return how many bytes of a database's log count: its frames up to the first that is of an earlier round.
    """
    log = Path(f"{database}-wal").read_bytes()
    frame = 24 + int.from_bytes(log[8:12], "big")  # https://sqlite.org/fileformat2.html#walformat
    end = 32
    while log[end + 8 : end + 16] == log[16:24]:
        end += frame
    return end

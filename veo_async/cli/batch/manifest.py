"""
What became of each line of a batch, one JSON object per line, in the batch's directory.

A line is appended for each settled job; where there are several of one key, the last one counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import define, field

__all__ = ["Manifest", "Record"]

Record = Mapping[str, Any]

_TIMES: Final = ("settled_at",)  # what may differ between two accounts of the same end


@define(eq=False)
class Manifest:
    """
    The records of a directory by their keys; those of earlier runs are there from the start.

    Only who holds the directory's journal may write here, and `read` again what came before.
    """

    path: Path
    records: dict[str, Record] = field(factory=dict, init=False)
    _torn: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """
        Take what is in the file now, and nothing else.
        """
        self.records, self._torn = {}, False
        if self.path.exists():
            text = self.path.read_bytes()
            self._torn = not text.endswith(b"\n")
            for line in text.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # a crash may have cut the last line off
            return
        if isinstance(record, dict) and isinstance(record.get("key"), str):
            self.records[record["key"]] = record

    def add(self, record: Record) -> bool:
        """
        Append a record; tells whether it was news.
        """
        known = self.records.get(record["key"])
        if known is not None and _same(known, record):
            return False
        self.records[record["key"]] = record
        with self.path.open("ab") as file:
            # What a crash has cut off must not spoil the line that follows it.
            file.write(b"\n" * self._torn + _line(record))
        self._torn = False
        return True

    def finish(self, keys: Iterable[str]) -> list[Record]:
        """
        Write the file anew, with one line per key: those given first, in their order.
        """
        order = dict.fromkeys((*(key for key in keys if key in self.records), *self.records))
        self.records = {key: self.records[key] for key in order}
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_bytes(b"".join(map(_line, self.records.values())))
        os.replace(draft, self.path)
        return list(self.records.values())


def _line(record: Record) -> bytes:
    return json.dumps(record).encode() + b"\n"


def _same(one: Record, other: Record) -> bool:
    return {**one, **dict.fromkeys(_TIMES)} == {**other, **dict.fromkeys(_TIMES)}

"""
The outcome of each line of a batch, in a file of JSON Lines in the batch's directory.

A record is appended for each settled job; if a key has several, the last one counts.
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

_TIMES: Final = ("settled_at",)  # fields that may differ between two records of the same outcome


@define(eq=False)
class Manifest:
    """
    The records of a directory by key, including those of earlier runs.

    Only the process that holds the directory's journal may write, after it has called `read` again.
    """

    path: Path
    records: dict[str, Record] = field(factory=dict, init=False)
    _torn: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.read()

    def read(self) -> None:
        """
        Replace the records by those that are in the file now.
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
        except (ValueError, RecursionError):  # a crash may have truncated the last line
            return
        if isinstance(record, dict) and isinstance(record.get("key"), str):
            self.records[record["key"]] = record

    def add(self, record: Record) -> bool:
        """
        Append a record, unless it repeats the known one; returns whether it was appended.
        """
        known = self.records.get(record["key"])
        if known is not None and _same(known, record):
            return False
        self.records[record["key"]] = record
        with self.path.open("ab") as file:
            # If a crash has truncated the last line, end it first.
            file.write(b"\n" * self._torn + _line(record))
        self._torn = False
        return True

    def finish(self, keys: Iterable[str]) -> list[Record]:
        """
        Rewrite the file with one record per key: first these keys, in this order, then all others.
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

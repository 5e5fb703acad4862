"""
A receipt beside each file of a batch: what was asked for, its ids and times, its price, and the file's SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

__all__ = ["RECEIPT", "digest_of", "write_receipt"]

RECEIPT: Final = ".json"  # what follows the file's whole name


def digest_of(file: Path) -> str:
    """
    Return the SHA-256 of a file, in hexadecimal digits.
    """
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_receipt(file: Path, record: Mapping[str, Any], video: Mapping[str, Any]) -> None:
    """
    Write the receipt of one file: the record of its line, with this video alone.
    """
    receipt = {name: value for name, value in record.items() if name not in ("error", "line")} | {
        "videos": [video]
    }
    draft = file.with_name(f"{file.name}{RECEIPT}.new")
    draft.write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
    os.replace(draft, file.with_name(f"{file.name}{RECEIPT}"))

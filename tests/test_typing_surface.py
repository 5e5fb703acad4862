"""
More type checkers read the public surface: ty and pyrefly find the errors that mypy and pyright find, and no others.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SURFACE: Final = "tests/typing_surface.py"
COMMANDS: Final = {
    "ty": ("ty", "check", "--python", sys.executable, "--output-format", "concise"),
    "pyrefly": (
        *("pyrefly", "check", "--python-interpreter-path", sys.executable),
        *("--preset", "strict", "--output-format", "min-text", "--enabled-ignores", "pyrefly"),
    ),
}
# ty 0.0.108 takes any keyword where a method has `**fields: Unpack[...]`.
OVERLOOKED: Final = {"ty": re.compile(r"modell=|upsample\(.*model="), "pyrefly": re.compile("nothing")}


def _wrong_lines() -> dict[int, str]:
    """
    The lines that mypy and pyright demand to be wrong, by number.
    """
    lines = enumerate((ROOT / SURFACE).read_text(encoding="utf-8").splitlines(), start=1)
    return {number: line for number, line in lines if "# type: ignore" in line}


@pytest.mark.parametrize("checker", COMMANDS)
def test_another_checker_agrees(checker: str) -> None:
    """Each line that is wrong is found wrong, but for what the checker is known to overlook; and no other line."""
    program, *options = COMMANDS[checker]
    command = [str(Path(sys.executable).with_name(program)), *options, SURFACE]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {int(number) for number in re.findall(rf"{re.escape(SURFACE)}:(\d+):", ended.stdout)}
    wrong = _wrong_lines()
    overlooked = {number for number, line in wrong.items() if OVERLOOKED[checker].search(line)}
    assert set(wrong) - overlooked <= found <= set(wrong), ended.stdout + ended.stderr

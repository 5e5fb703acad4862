"""
The API reference, written from the docstrings by one command:

    python -m tests.reference build/reference
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Final

import pdoc
import pdoc.render

import veo_async

__all__ = ["MODULES", "write"]

MODULES: Final = (
    "veo_async",
    "veo_async.errors",
    "veo_async.events",
    "veo_async.platform",
    "veo_async.receiver",
    "veo_async.simulator",
    "veo_async.telemetry",
    "veo_async.testing",
    "veo_async.worker",
)


def write(folder: Path) -> None:
    """
    Write the pages into a folder, which is made if it is not there; `index.html` is the first of them.
    """
    for name in MODULES:
        module = import_module(name)
        # pdoc reads what lies in a module, and these modules load their names only when somebody asks for one.
        vars(module).update({public: getattr(module, public) for public in module.__all__})
    pdoc.render.configure(
        docformat="google", show_source=False, footer_text=f"veo_async {veo_async.__version__}"
    )
    pdoc.pdoc(*MODULES, output_directory=folder)


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "build/reference")
    write(place)
    print("open", place / "index.html")

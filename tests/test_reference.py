"""
The API reference: one command writes it, every public name is in it, and its examples run.
"""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import json
import re
import subprocess
import sys
import textwrap
import time
import warnings
from collections.abc import Iterator
from inspect import CO_COROUTINE
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest

from veo_async import TextToVideo, VeoError, VeoSession
from veo_async._session.shortcuts import ShortMethods
from veo_async.platform import AccountPlatform
from veo_async.testing import VeoSimulator

from .platform.pictures import JPEG
from .reference import MODULES

ROOT: Final = Path(__file__).parent.parent

# --- the pages -------------------------------------------------------------------------------------------


def test_one_command_writes_the_reference(tmp_path: Path) -> None:
    """Each public name has its place and its first sentence there, those that load late as well."""
    command = [sys.executable, "-W", "error", "-m", "tests.reference", str(tmp_path)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (0, "") == (ended.returncode, ended.stderr)
    for name in MODULES:
        page = (tmp_path / f"{name.replace('.', '/')}.html").read_text(encoding="utf-8")
        text = " ".join(re.sub(r"<[^>]+>", "", page).split())
        for public, thing in _public(name):
            assert f'<section id="{public}">' in page
            assert _first_sentence(thing) in text.replace("&#39;", "'"), public


def _public(module: str) -> Iterator[tuple[str, Any]]:
    found = importlib.import_module(module)
    return ((name, getattr(found, name)) for name in found.__all__)


def _first_sentence(thing: Any) -> str:
    """
    The words of a docstring up to its first mark, without what the page shows in another way.
    """
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return ""
    return re.split(r"[`.:;,&<>]", " ".join((inspect.getdoc(thing) or "").split()))[0].strip()


# --- the examples ----------------------------------------------------------------------------------------

# What a session does with its journal; callers pass it on, or its path.
WITHOUT: Final = ("Journal.", "PostgresJournal.")


def _documented(name: str, thing: Any) -> Iterator[tuple[str, Any]]:
    """
    A public class, and the methods that it or its mixin defines.
    """
    yield name, thing
    for kind in (ShortMethods, thing) if thing is VeoSession else (thing,):
        for member, value in vars(kind).items():
            if inspect.isfunction(value) and not member.startswith("_"):
                yield f"{name}.{member}", value


def _examples(thing: Any) -> list[str]:
    """
    The indented blocks of a docstring, save those that belong to a heading such as `Args:`.
    """
    blocks = re.findall(r"\n\n((?: {4}.*\n|\n(?= {4}))+)", (inspect.getdoc(thing) or "") + "\n")
    return [textwrap.dedent(block) for block in blocks]


CLASSES: Final = {name: thing for name, thing in _public("veo_async") if inspect.isclass(thing)}


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_docstring_has_an_example(name: str) -> None:
    """Each class shows how it is used, and so does each of its methods."""
    documented = list(_documented(name, CLASSES[name]))
    bare = {one for one, thing in documented if not _examples(thing) and not one.startswith(WITHOUT)}
    inherited = {"VeoSession.submit"} if name == "VeoSession" else set()  # the mixin's own is abstract
    assert set() == bare - inherited


def _caught(kind: type[VeoError], task_id: str) -> VeoError:
    """
    An error as a job raises it.
    """
    evidence: dict[str, Any] = {"retry_after": 0.001} if hasattr(kind(), "retry_after") else {}
    evidence |= {"candidates": (task_id,)} if hasattr(kind(), "candidates") else {}
    return kind("as the docstring says", key="order-1", task_id=task_id, **evidence)


async def _run(block: str, names: dict[str, Any]) -> None:
    if block.startswith("except "):
        block = f"try:\n    raise caught\n{block}"
    code = compile(block, block, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    with warnings.catch_warnings():
        outcome = eval(code, names)
        if code.co_flags & CO_COROUTINE:
            await outcome


@pytest.mark.parametrize("room", sorted({kind.__module__ for kind in CLASSES.values()}))
async def test_every_example_runs(
    room: str, veo_simulator: VeoSimulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each runs inside a session, where there are a job, its result and its video; a handler, with its error."""
    monkeypatch.chdir(tmp_path)
    modules = {module.__name__: module for module in (asyncio, json, time, warnings)}
    platform = AccountPlatform(f"platform-{veo_simulator.token}", base_url=veo_simulator.url)
    async with VeoSession(journal="session.db", platform=platform) as veo:
        job = veo.submit(TextToVideo("a whale"), key="order-1")
        result = await job
        names = {"veo": veo, "job": job, "result": result, "video": result.video, "Random": Random}
        names |= {**dict(_public("veo_async")), **modules, "picture": JPEG}
        for name, kind in CLASSES.items():
            if kind.__module__ == room:
                caught = _caught(kind, result.task_id) if issubclass(kind, VeoError) else None
                for block in (block for _, thing in _documented(name, kind) for block in _examples(thing)):
                    await _run(block, {**names, "caught": caught})

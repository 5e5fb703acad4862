"""
The gate of the house: who may import whom, and what stays pure. The rooms are the files themselves.
"""

import ast
import re
from collections.abc import Iterator
from importlib.util import resolve_name

MAY_IMPORT = {  # a wing takes from itself, and from these; all of them stand above it, so there is no circle
    "errors": "",
    "events": "",
    "_observing": "errors events",
    "_policies": "errors",
    "_api": "errors",
    "_journal": "errors _api",
    "_http": "errors events _observing _policies _api",
    "_jobs": "errors events _observing _api _journal",
    "_track": "errors events _policies _api _http",
    "_download": "errors events _observing _policies _api _http",
    "_submit": "errors events _observing _policies _api _journal _http _jobs _track",
    "_session": "errors events _observing _policies _api _journal _http _jobs _track _download _submit",
    "_surface": "errors events _policies _api _journal _jobs _session",
    "__init__": "_surface",
    "receiver": "errors __init__ _session",
    "platform": "errors _policies _api _journal _http _submit _session",
    "telemetry": "events _observing",
    "simulator": "_api.models",  # the table alone: it shares no mistake of a decoder
    "worker": "errors __init__ _api _journal _jobs",
    "testing": "errors __init__ _api.marks _http.transport _session platform simulator",
    "cli": "errors events __init__ _api.models _session.credentials _journal receiver simulator worker platform",
}
PURE = re.compile(
    r"errors|events|_policies|_api\.(?!local_images).*|platform\.(answers|audit|contract|prices|json_logic)|_http\.gate|_submit\.(sending_again|listed_tasks)|_track\.(?!tracker).*"
)
IMPURE = re.compile(r"(aiohttp|asyncio|select|socket|sqlite3|subprocess|threading|time)\b")


def breaches(room: str, source: str) -> Iterator[str]:
    """
    Tell what a room, in dotted form such as `_http.gate` or `_http.__init__`, does against the table.
    """
    wing, tree, is_pure = room.split(".", maxsplit=1)[0], ast.parse(source), PURE.fullmatch(room)
    own = re.findall(r"(?:def |class |self\.|cls\.|sys\.|os\.|^ *)(_[a-z]\w*)", source, re.MULTILINE)
    allowed = tuple(f"{name}." for name in [wing, *MAY_IMPORT.get(wing, "").split()])
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                for name in (_placed(node, alias.name, room) for alias in names):
                    if wing not in MAY_IMPORT or not name.startswith((":", *allowed)):
                        yield f"{wing} may not import {name}"
                    if is_pure and IMPURE.match(name, 1):
                        yield f"pure code may not import {name}"
            case ast.AsyncFunctionDef(name=name) if is_pure:
                yield f"pure code has the coroutine {name}"
            case ast.Attribute(attr="now" | "today" | "utcnow" as name) | ast.Name(id="open" as name) if (
                is_pure
            ):
                yield f"pure code calls {name}"
            case ast.Attribute(attr=name) if re.match("_[a-z]", name) and name not in own:
                yield f"{ast.unparse(node)} is private to another room"
    if room.endswith(".__init__") and wing.startswith("_") and len(tree.body) > 1:
        yield "a front door holds code"


def _placed(node: ast.Import | ast.ImportFrom, name: str, room: str) -> str:
    # What is imported, such as `_http.gate.Gate.`, or `:asyncio.sleep.`
    if isinstance(node, ast.ImportFrom):
        origin = resolve_name("." * node.level + (node.module or ""), f"veo_async.{room}".rpartition(".")[0])
        name = f"{origin}.{name}"
    package, _, ours = f"{name}.".partition(".")
    if package != "veo_async":
        return f":{name}."
    return ours if ours.split(".")[0] in MAY_IMPORT else f"__init__.{ours}"

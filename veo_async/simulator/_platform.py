"""
The vendor's platform, beside the API: uploads, prices, contracts, the balance and the ledger.

None of it is documented; the addresses and shapes are those that the vendor's clients use [C].
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from urllib.parse import parse_qs

from attrs import define, field

from .._api.models import MODELS
from ._calls import bearer
from ._records import Task
from ._replies import Reply, encode
from ._rules import FIELDS, RESOLUTIONS, Refusal
from ._settings import Settings

__all__ = ["PLATFORM", "UPLOADS", "Platform"]

PLATFORM: Final = "/api/v1/"
UPLOADS: Final = "/uploads/"
SERVICE: Final = "73cd74ba-a1bd-4a12-8df6-11d64c38df14"  # [C] the id of the service `veo`
MOST_ROWS: Final = 100  # [C] of the ledger, in one answer
_PAGE: Final = b"<html><head><title>Bad Gateway</title></head><body>Bad Gateway</body></html>"
_HTML: Final = {"Content-Type": "text/html"}

# What the platform answers where it is out of order, by `Settings.platform`.
_OUT_OF_ORDER: Final[Mapping[str, Reply]] = {
    "absent": Reply(status=404, headers=_HTML, body=b"<html><title>Not Found</title></html>"),
    "failing": Reply(status=500, body=encode({"detail": "Internal Server Error"})),
    "html": Reply(status=200, headers=_HTML, body=_PAGE),
    "other": Reply(status=200, body=encode({"version": 2, "payload": {"list": [1, 2, 3]}})),
}


@define(eq=False)
class Platform:
    """
    Answers what is asked of the platform.

    Attributes:
        tokens: the valid account tokens, each with its account's name.
        uploads: the uploaded files by their names: each upload is a new file.
        unbilled: ids of tasks that the ledger does not show.
        requests: how many requests came, by kind: `upload`, `services`, `apis`, `applications`, `usage`, `refused`; of
            a platform that is out of order, by how it is.
        base_url: returns the start of the addresses of uploaded files.
    """

    settings: Settings
    tasks: Mapping[str, Task]
    clock: Callable[[], float]
    base_url: Callable[[], str]
    tokens: dict[str, str] = field(init=False, repr=False)
    uploads: dict[str, bytes] = field(init=False, factory=dict, repr=False)
    unbilled: set[str] = field(init=False, factory=set)
    requests: Counter[str] = field(init=False, factory=Counter)

    def __attrs_post_init__(self) -> None:
        self.tokens = dict(self.settings.account_tokens or _derived(self.settings.tokens))

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """
        Answer a request; `headers` have lower-case names.
        """
        if self.settings.platform != "on":
            self.requests[self.settings.platform] += 1
            return _OUT_OF_ORDER[self.settings.platform]
        try:
            return _reply(self._answer(method, path, headers, body))
        except Refusal as refusal:
            self.requests["refused"] += 1
            return _reply({"detail": refusal.message}, status=refusal.status)

    def download(self, method: str, path: str) -> Reply:
        """
        Answer a request for an uploaded file, which needs no token.
        """
        content = self.uploads.get(path.removeprefix(UPLOADS))
        if method not in {"GET", "HEAD"} or content is None:
            return Reply(status=404, headers={"Content-Type": "text/plain"}, body=b"no such file\n")
        return Reply(headers={"Content-Type": "application/octet-stream"}, body=content)

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> object:
        place, _, query = path.removeprefix(PLATFORM).partition("?")
        asked = {name: values[-1] for name, values in parse_qs(query).items()}
        match method, place.strip("/").split("/"):
            case "POST", ["files"]:
                return self._upload(headers, body)
            case "GET", ["services", *rest]:
                return self._services(rest, asked)
            case "GET", ["apis"]:
                return self._apis(asked)
            case "GET", ["applications"]:
                return self._applications(self._account(headers))
            case "GET", ["usage", "apis"]:
                return self._usage(self._account(headers), asked)
        raise Refusal("no_api", "Not found.", status=404)

    def _account(self, headers: Mapping[str, str]) -> str:
        token = bearer(headers)
        if token not in self.tokens:
            raise Refusal("invalid_token", f"Invalid token {token}.", status=401)  # servers do repeat it
        return self.tokens[token]

    # --- uploads ---------------------------------------------------------------------------------------

    def _upload(self, headers: Mapping[str, str], body: bytes) -> object:
        self._account(headers)
        name, content = _file_in(headers.get("content-type", ""), body)
        if len(content) > self.settings.max_upload:
            raise Refusal("bad_request", "The file is too large.", status=413)
        self.requests["upload"] += 1
        key = f"{len(self.uploads)}-{sha256(content).hexdigest()[:12]}-{re.sub(r'[^A-Za-z0-9.]', '_', name)}"
        self.uploads[key] = content
        return {self.settings.upload_field: f"{self.base_url()}{UPLOADS}{key}"}

    # --- prices ----------------------------------------------------------------------------------------

    def _services(self, rest: list[str], asked: Mapping[str, str]) -> object:
        self.requests["services"] += 1
        service = {"id": SERVICE, "alias": "veo", "unit": "Credit", "cost": list(self.settings.prices)}
        if rest == [SERVICE]:
            return service
        return {"count": 1, "items": [service] if asked.get("alias") == "veo" else []}

    def _apis(self, asked: Mapping[str, str]) -> object:
        self.requests["apis"] += 1
        path = asked.get("path", "")
        cost = self.settings.prices if path == "/veo/videos" else self.settings.other_prices.get(path, ())
        contract = {
            "id": f"api{path}",
            "path": path,
            "stage": "Production",
            "cost": list(cost),
            "definition": self._definition(path),
        }
        return {"count": 1, "items": [contract] if path in FIELDS else []}

    def _definition(self, path: str) -> object:
        """
        Return the part of an OpenAPI document that lists the values of fields.
        """
        if path != "/veo/videos":
            return {}
        choices = {
            "action": self.settings.actions,
            "model": [name for name in MODELS if name not in self.settings.retired_models],
            "resolution": RESOLUTIONS,
            "aspect_ratio": self.settings.aspect_ratios,
        }
        properties = {name: {"type": "string", "enum": list(values)} for name, values in choices.items()}
        body = {"content": {"application/json": {"schema": {"type": "object", "properties": properties}}}}
        return {"openapi": "3.0.0", "paths": {path: {"post": {"requestBody": body}}}}

    # --- the account -----------------------------------------------------------------------------------

    def _applications(self, account: str) -> object:
        self.requests["applications"] += 1
        used = sum(self._deducted(task) for task in self._tasks_of(account))
        application = {
            "id": f"application-{account}",
            "user_id": account,
            "service_id": SERVICE,
            "service": {"id": SERVICE, "alias": "veo"},
            "used_amount": round(used, 6),
            "remaining_amount": round(self.settings.credits - used, 6),
        }
        return {"count": 1, "items": [application]}

    def _usage(self, account: str, asked: Mapping[str, str]) -> object:
        self.requests["usage"] += 1
        offset, limit = int(asked.get("offset", 0)), min(int(asked.get("limit", 12)), MOST_ROWS)
        wanted = asked.get("api_id")
        rows = [
            self._row(task)
            for task in reversed(self._tasks_of(account))
            if wanted in (None, f"api{task.path}") and task.id not in self.unbilled
        ]
        return {"count": len(rows), "items": rows[offset : offset + limit]}

    def _row(self, task: Task) -> dict[str, object]:
        return {
            "id": f"row-{task.id}",
            "api_id": f"api{task.path}",
            "created_at": datetime.fromtimestamp(task.created_at, UTC).isoformat(),
            "status_code": 200,
            "deducted_amount": self._deducted(task),
            "trace_id": task.trace_id,
            "metadata": {"request": dict(task.body), "response": {"task_id": task.id, "success": True}},
        }

    def _tasks_of(self, account: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.account == account]

    def _deducted(self, task: Task) -> float:
        """
        Return what a task has cost: only a success with a video is billed.
        """
        if task.state(self.clock()) != "succeeded" or not task.videos or task.id in self.unbilled:
            return 0.0
        rows = self.settings.prices if task.path == "/veo/videos" else self.settings.other_prices[task.path]
        return next((float(row["consumption"]) for row in rows if _holds(row["conditions"], task.body)), 0.0)


def _holds(rule: object, body: Mapping[str, Any]) -> bool:
    """
    Tell whether conditions hold; it knows no more than what `Settings.prices` needs.
    """
    match rule:
        case {"and": rules}:
            return all(_holds(one, body) for one in rules)
        case {"==": [{"var": name}, value]}:
            return bool(body.get(name) == value)
        case {"in": [{"var": name}, values]}:
            return body.get(name) in values
    return bool(rule)


def _derived(tokens: Mapping[str, str]) -> dict[str, str]:
    return {f"platform-{token}": account for token, account in tokens.items()}


def _reply(answer: object, *, status: int = 200) -> Reply:
    return Reply(status=status, headers={"Content-Type": "application/json"}, body=encode(answer))


def _file_in(content_type: str, body: bytes) -> tuple[str, bytes]:
    """
    Return the name and the contents of the field `file` in a multipart body.
    """
    found = re.search(r'boundary="?([^";]+)', content_type)
    parts = body.split(b"--" + found[1].encode()) if found else []
    for part in parts[1:-1]:
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        if re.search(rb'(?i)content-disposition:[^\r]*\bname="?file"?[;\r]', head + b"\r"):
            name = re.search(rb'filename="([^"]*)"', head)
            return (name[1].decode() if name else ""), content.removesuffix(b"\r\n")
    raise Refusal("bad_request", "The field file is missing.", status=400)

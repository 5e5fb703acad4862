"""
The whole API as a synchronous function from the bytes of a request to the bytes of its answer.

No event loop, no socket, no waiting: time comes from the clock it is given.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from itertools import count
from math import exp, inf, log
from typing import Any, Final

from attrs import define, evolve, field, frozen

from ._accounts import Account, Rate
from ._files import extension, serve, video_file
from ._records import MAX_VIDEOS, TRACE_MASK, VIDEO_MASK, Task, dashed, failure, number_of, record, result
from ._replies import Callback, Reply, encode, http_date
from ._rules import CODES, FIELDS, Refusal, check_submit, unfit
from ._settings import Settings

__all__ = ["Core"]

_JSON: Final = "application/json; charset=utf-8"
_PAGE: Final = 12  # seen in the vendor's clients: the default of `limit`
_UUID4: Final = 0x4 << 76 | 0x8 << 60  # the version and the variant, in their places
_UUID_HOLES: Final = ~(0xF << 76 | 0xC << 60) & ((1 << 128) - 1)


@frozen
class Call:
    """
    One well-formed, authorised request.
    """

    kind: str
    path: str
    token: str
    account: Account
    body: dict[str, Any]
    now: float


@define(eq=False)
class Core:
    """
    The server's memory and judgement.

    Args:
        settings: how it behaves.
        clock: returns Unix seconds.

    Attributes:
        tokens: the valid tokens, each with its account's name.
        dead_tokens: tokens with the error code that they get.
        tasks: every accepted task by its id, in the order of acceptance.
        accepted: how many tasks were ever accepted.
        requests: how many requests came, by kind: `submit`, `retrieve`, `retrieve_batch`, `list`,
            `download`, `refused`.
        public_url: what `video_url` starts with.
        next_durations: durations of the next tasks, in seconds, before any other source is asked.
        listeners: called whenever something new may have become due.
        down_until: no connection can be made before that moment.
    """

    settings: Settings = field(factory=Settings)
    clock: Callable[[], float] = field(default=time.time, kw_only=True)
    tokens: dict[str, str] = field(init=False, repr=False)
    dead_tokens: dict[str, str] = field(factory=dict, init=False, repr=False)
    tasks: dict[str, Task] = field(factory=dict, init=False, repr=False)
    accepted: int = field(default=0, init=False)
    requests: Counter[str] = field(factory=Counter, init=False)
    public_url: str = field(init=False)
    next_durations: deque[float] = field(factory=deque, init=False, repr=False)
    listeners: list[Callable[[], None]] = field(factory=list, init=False, repr=False)
    down_until: float = field(default=-inf, init=False)

    _random: random.Random = field(init=False, repr=False)
    _accounts: dict[str, Account] = field(factory=dict, init=False, repr=False)
    _submit_rates: dict[str, Rate] = field(factory=dict, init=False, repr=False)
    _poll_rates: dict[str, Rate] = field(factory=dict, init=False, repr=False)
    _callbacks: list[tuple[float, int, float, Task]] = field(factory=list, init=False, repr=False)
    _serial: count[int] = field(factory=count, init=False, repr=False)
    _date: tuple[int, str] = field(default=(0, ""), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = dict(self.settings.tokens)
        self.public_url = self.settings.files_url or "https://files.simulator.test"
        self._random = random.Random(self.settings.seed)

    # --- requests --------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """
        Answer one request.

        Args:
            path: with its query, if any, as it stands in the request line.
        """
        now = self.clock()
        if now < self.down_until:
            return Reply(act="refuse", fault="restart")
        lowered = {name.lower(): value for name, value in headers.items()}
        if path.startswith("/files/"):
            return self._download(method, path, lowered, now)
        return self._answer(method, path.partition("?")[0], lowered, body, now)

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        try:
            call = self._read(method, path, headers, body, now)
            self.requests[call.kind] += 1
            return self._serve(call)
        except Refusal as refusal:
            self.requests["refused"] += 1
            return self._refused(refusal, now)

    def _serve(self, call: Call) -> Reply:
        if call.kind == "submit":
            return self._submit(call)
        return self._reply(self._look(call), call.now)

    def _read(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Call:
        if method != "POST" or (path != "/veo/tasks" and path not in FIELDS):
            raise Refusal("no_api", f"The API {path} does not exist.")
        token = self._token(headers)
        fields = _object(headers, body)
        kind = "submit" if path in FIELDS else _kind_of_look(fields)
        if token in self.dead_tokens and not (self.dead_tokens[token] == "used_up" and kind != "submit"):
            raise self._dead(self.dead_tokens[token])
        return Call(kind, path, token, self._account(token), fields, now)

    def _token(self, headers: Mapping[str, str]) -> str:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal("no_token", "The token is missing.")
        if token not in self.tokens and token not in self.dead_tokens:
            raise Refusal("invalid_token", "The specified token is invalid or wrong.")
        return token

    def _dead(self, code: str) -> Refusal:
        status = self.settings.mismatch_status if code == "token_mismatched" else CODES[code]
        return Refusal(code, f"The token cannot be used: {code}.", status=status)

    def _account(self, token: str) -> Account:
        name = self.tokens.get(token, token)
        if name not in self._accounts:
            self._accounts[name] = Account(name)
        return self._accounts[name]

    # --- answers ---------------------------------------------------------------------------------------

    def _headers(self, now: float) -> dict[str, str]:
        if self._date[0] != int(now):
            self._date = (int(now), http_date(now))
        return {"Content-Type": _JSON, "Date": self._date[1], "X-Trace-Id": dashed(self._new_number())}

    def _reply(self, body: object, now: float, *, status: int = 200) -> Reply:
        return Reply(status=status, headers=self._headers(now), body=encode(body))

    def _refused(self, refusal: Refusal, now: float, *, wait: float = 0.0) -> Reply:
        headers = self._headers(now)
        error = {"code": refusal.code, "message": refusal.message}
        flag = {"success": False} if self.settings.error_success else {}
        body = flag | {"error": error, "trace_id": headers["X-Trace-Id"]}
        return Reply(status=refusal.status, headers=headers, body=encode(body))

    def _new_number(self) -> int:
        return self._random.getrandbits(128) & _UUID_HOLES | _UUID4

    # --- submits ---------------------------------------------------------------------------------------

    def _submit(self, call: Call) -> Reply:
        known = FIELDS[call.path]
        body = {name: value for name, value in call.body.items() if name in known and value is not None}
        check_submit(call.path, body, self.settings)
        source = self._source(body, call)
        self._check_limits(call)
        task = self._accept(evolve(call, body=body), source)
        if not body.get("async") and "callback_url" not in body:
            return self._when_ended(task)
        extras = {"success": True, "trace_id": task.trace_id} if self.settings.submit_extras else {}
        return self._reply({"task_id": task.id} | extras, call.now)

    def _source(self, body: Mapping[str, Any], call: Call) -> Task | None:
        if "video_id" not in body:
            return None
        number = number_of(body["video_id"]) or 0
        for index in range(MAX_VIDEOS):
            task = self.tasks.get(dashed(number ^ VIDEO_MASK ^ index))
            if task and task.account == call.account.name and task.state(call.now) == "succeeded":
                return task
        raise Refusal("bad_request", "video_id is invalid")

    def _accept(self, call: Call, source: Task | None) -> Task:
        number = self._new_number()
        created_at = round(call.now, 3)
        task = Task(
            id=dashed(number),
            number=number,
            token=call.token,
            account=call.account.name,
            path=call.path,
            body=call.body,
            created_at=created_at,
            ends_at=call.now + self._duration(call.body),
            error=self._error(call.body),
            videos=self.settings.videos,
            source=source,
            visible_at=call.now + self.settings.late if self.settings.late else created_at,
        )
        self.tasks[task.id] = task
        self.accepted += 1
        call.account.add(task)
        self._schedule(task)
        return task

    def _duration(self, body: Mapping[str, Any]) -> float:
        if self.next_durations:
            return self.next_durations.popleft()
        settings = self.settings
        if settings.duration is not None:
            return settings.duration(body) / settings.speed
        middle = log(settings.mean) - settings.sigma**2 / 2
        return exp(self._random.gauss(middle, settings.sigma)) / settings.speed

    def _error(self, body: Mapping[str, Any]) -> tuple[str, str] | None:
        if unfit(body, self.settings):
            return ("api_error", "resolution 4k is not supported")
        failed = self.settings.failure_share and self._random.random() < self.settings.failure_share
        return self.settings.failure if failed else None

    def _when_ended(self, task: Task) -> Reply:
        """
        Answer a synchronous submit: later, until the task has ended.
        """
        now = self.clock()
        if now < task.ends_at:
            return Reply(answer_at=task.ends_at, later=lambda: self._when_ended(task))
        if task.error is None:
            return self._reply(result(task, self.settings, self.link), now)
        code, message = task.error
        return self._refused(Refusal(code, message, status=CODES.get(code, 500)), now)

    def _check_limits(self, call: Call) -> None:
        settings = self.settings
        now, account = call.now, call.account
        if settings.max_in_flight is not None and account.in_flight(now) >= settings.max_in_flight:
            raise Refusal("too_many_requests", "Too many tasks are running.")
        if settings.balance is not None and account.in_flight(now) + account.billed >= settings.balance:
            raise Refusal("used_up", "The balance is used up.")

    # --- lookups ---------------------------------------------------------------------------------------

    def _look(self, call: Call) -> object:
        match call.kind:
            case "retrieve":
                return self._retrieve(call)
            case "retrieve_batch":
                return self._batch(call)
            case _:
                return self._list(call)

    def _find(self, call: Call, *, ids: Iterable[object] = (), traces: Iterable[object] = ()) -> list[Task]:
        names = [*ids, *(dashed((number_of(trace) or 0) ^ TRACE_MASK) for trace in traces)]
        if not self.settings.repeats:
            names = [*dict.fromkeys(names)]
        found = (self.tasks.get(name) for name in names if isinstance(name, str))
        return [
            task
            for task in found
            if task and task.account == call.account.name and task.visible_at <= call.now
        ]

    def _record(self, task: Task, now: float) -> dict[str, Any]:
        task.shown = task.shown or now >= task.ends_at
        return record(task, self.settings, self.link, now)

    def _retrieve(self, call: Call) -> object:
        ids = [call.body[name] for name in ("id",) if call.body.get(name)]
        traces = [call.body[name] for name in ("trace_id",) if call.body.get(name)]
        if not ids and not traces:
            raise Refusal("bad_request", "id or trace_id is required")
        found = self._find(call, ids=ids) or self._find(call, traces=traces)
        if found:
            return self._record(found[0], call.now)
        if self.settings.unknown == "404":
            raise Refusal("bad_request", "The task does not exist.", status=404)
        return {} if self.settings.unknown == "{}" else None

    def _batch(self, call: Call) -> object:
        ids, traces = (_list_of(call.body, name) for name in ("ids", "trace_ids"))
        most = self.settings.max_batch
        if most is not None and len(ids) + len(traces) > most:
            raise Refusal("bad_request", f"At most {most} tasks can be retrieved at once.")
        found = self._find(call, ids=ids, traces=traces)
        if self.settings.limit_caps_ids:
            offset, limit = _paging(call.body)
            found = found[offset : offset + limit]
        return {"items": [self._record(task, call.now) for task in found], "count": len(found)}

    def _list(self, call: Call) -> object:
        offset, limit = _paging(call.body)
        kind, since, until = self._filters(call.body)
        if self.settings.listing == "refused":
            raise Refusal("bad_request", "ids is required")
        if self.settings.listing == "empty":
            return {"items": [], "count": 0}
        closed = self.settings.bounds_inclusive
        listing = call.account.listing(call.now, since=since, until=until, closed=closed)
        newest_first = self.settings.order == "newest"
        found, size = listing.page(offset, limit, newest_first=newest_first, kind=kind)
        total = size if self.settings.count == "total" else len(found)
        return {"items": [self._record(task, call.now) for task in found], "count": total}

    def _filters(self, body: Mapping[str, Any]) -> tuple[object, float, float]:
        if self.settings.listing == "unfiltered":
            return None, -inf, inf
        since, until = (_number(body, "created_at_min", -inf), _number(body, "created_at_max", inf))
        return body.get("type"), since, until

    # --- files -----------------------------------------------------------------------------------------

    def link(self, task: Task, index: int = 0) -> str:
        """
        Return the address of a file of the task: a fresh one if the last has expired.
        """
        name = f"{self.public_url}/files/{task.id}-{index}.{extension(task)}"
        if self.settings.link_lifetime is None:
            return name
        if self.clock() >= task.linked_at + self.settings.link_lifetime:
            task.linked_at = self.clock()
        return f"{name}?issued={task.linked_at!r}"

    def _download(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Reply:
        self.requests["download"] += 1
        name, _, query = path.removeprefix("/files/").partition("?")
        task, index = self.tasks.get(name[:36]), name[37:].partition(".")[0]
        if (
            method not in {"GET", "HEAD"}
            or task is None
            or task.state(now) != "succeeded"
            or not index.isdecimal()
        ):
            return Reply(status=404, headers={"Content-Type": "text/plain"}, body=b"no such file\n")
        if self._expired(query, now):
            status = self.settings.expired_status
            return Reply(
                status=status, headers={"Content-Type": "text/plain"}, body=b"the link has expired\n"
            )
        return serve(
            video_file(task, int(index), self.settings.file_size), headers, head_only=method == "HEAD"
        )

    def _expired(self, query: str, now: float) -> bool:
        if self.settings.link_lifetime is None:
            return False
        issued = query.removeprefix("issued=")
        return now >= (float(issued) if issued else 0.0) + self.settings.link_lifetime

    # --- callbacks -------------------------------------------------------------------------------------

    def _schedule(self, task: Task) -> None:
        if "callback_url" in task.body and self.settings.callbacks != "off":
            heappush(self._callbacks, (task.ends_at, next(self._serial), task.ends_at, task))
            self._wake()

    def next_callback_at(self) -> float | None:
        """
        Tell when the next callback is due, in Unix seconds.
        """
        return self._callbacks[0][0] if self._callbacks else None

    def callbacks_due(self, now: float) -> list[Callback]:
        """
        Hand over the callbacks that are due; each is handed over once.
        """
        due = []
        while self._callbacks and self._callbacks[0][0] <= now:
            due_at, _, ends_at, task = heappop(self._callbacks)
            if ends_at == task.ends_at:  # else somebody steered the task since
                body = failure(task) if task.error else result(task, self.settings, self.link)
                url = task.body["callback_url"]
                due.append(Callback(task_id=task.id, url=url, body=encode(body), due_at=due_at))
        return due

    def _wake(self) -> None:
        for listener in self.listeners:
            listener()

    # --- steering --------------------------------------------------------------------------------------

    def finish(self, task_id: str, *, videos: int | None = None) -> Task:
        """
        Let a pending task succeed now; with `videos=0`, as a success that has no video in it.
        """
        task = self._steerable(task_id)
        task.videos = task.videos if videos is None else videos
        return self._end(task, None)

    def fail(self, task_id: str, code: str = "api_error", message: str = "fetch failed") -> Task:
        """
        Let a pending task fail now.
        """
        return self._end(self._steerable(task_id), (code, message))

    def _steerable(self, task_id: str) -> Task:
        task = self.tasks[task_id]
        if task.state(self.clock()) != "pending":
            raise ValueError(f"task {task_id} has ended already")
        return task

    def _end(self, task: Task, error: tuple[str, str] | None) -> Task:
        task.error, task.ends_at = error, self.clock()
        self._accounts[task.account].watch(task)
        self._schedule(task)
        self._wake()
        return task

    def forget(self, task_id: str) -> None:
        """
        Lose a task, as a server that cleans up: lookups and listings no longer have it, counts do.
        """
        task = self.tasks.pop(task_id)
        self._accounts[task.account].forget(task)

    def revoke(self, token: str, code: str = "token_expired") -> None:
        """
        Let a token get an error from now on: `token_expired`, `disabled`, `used_up` (submits only), ...
        """
        self.dead_tokens[token] = code

    @property
    def billed(self) -> int:
        """
        How many tasks have been paid for: those that ended in a video.
        """
        for account in self._accounts.values():
            account.settle(self.clock())
        return sum(account.billed for account in self._accounts.values())


# --- reading bodies ------------------------------------------------------------------------------------


def _object(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal("bad_request", "The content type must be application/json.")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refusal("bad_request", "The body is not JSON.") from None
    if not isinstance(value, dict):
        raise Refusal("bad_request", "The body must be a JSON object.")
    return value


def _kind_of_look(body: Mapping[str, Any]) -> str:
    action = body.get("action", "retrieve")  # the default in practice
    if action == "retrieve":
        return "retrieve"
    if action != "retrieve_batch":
        raise Refusal("bad_request", f"action is not supported: {action}")
    return "retrieve_batch" if body.get("ids") or body.get("trace_ids") else "list"


def _list_of(body: Mapping[str, Any], name: str) -> list[object]:
    value = body.get(name) or []
    if not isinstance(value, list):
        raise Refusal("bad_request", f"{name} is invalid")
    return value


def _number(body: Mapping[str, Any], name: str, default: float) -> float:
    value = body.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Refusal("bad_request", f"{name} is invalid")
    return value


def _paging(body: Mapping[str, Any]) -> tuple[int, int]:
    offset, limit = _number(body, "offset", 0), _number(body, "limit", _PAGE)
    if offset < 0 or limit < 0 or offset % 1 or limit % 1:
        raise Refusal("bad_request", "offset and limit must be whole numbers, not negative")
    return int(offset), int(limit)

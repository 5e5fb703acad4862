"""
The whole API as a synchronous function from the bytes of a request to the bytes of its answer.

It has no event loop and no socket, and never waits; it reads the time from a given clock.
"""

from __future__ import annotations

import json
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from math import ceil, exp, floor, inf, log
from typing import Any, Final

from attrs import define, evolve, field

from ._accounts import Account, Rate
from ._callbacks import HEALTH, Callbacks
from ._calls import Call, bearer, kind_of, read_object
from ._faults import Faults, Hit, broken, spoil
from ._files import Files
from ._lookups import Lookups
from ._platform import PLATFORM, UPLOADS, Platform
from ._records import MAX_VIDEOS, VIDEO_MASK, Task, dashed, number_of, result
from ._replies import Callback, Reply, encode, http_date
from ._rules import CODES, FIELDS, Refusal, check_submit, unfit
from ._scripts import Script
from ._settings import Settings

__all__ = ["Core"]

_JSON: Final = "application/json; charset=utf-8"
_HEALTHY: Final = encode({"status": "ok"})
_UUID4: Final = 0x4 << 76 | 0x8 << 60  # the bits of version and variant
_UUID_HOLES: Final = ~(0xF << 76 | 0xC << 60) & ((1 << 128) - 1)


@define(eq=False)
class Core:
    """
    The server's state and logic.

    Args:
        settings: how it behaves.
        clock: returns Unix seconds.
        faults: the faults to inject.

    Attributes:
        tokens: the valid tokens, each with its account's name.
        dead_tokens: invalid tokens, each with the error code that it gets.
        tasks: every accepted task by its id, in the order of acceptance.
        accepted: how many tasks were ever accepted.
        requests: how many requests came, by kind: `submit`, `retrieve`, `retrieve_batch`, `list`,
            `download`, `refused`.
        platform: the platform beside the API, with its own tokens.
        files: serves the files of `video_url`, whose addresses start with its `base_url`.
        next_durations: durations of the next tasks, in seconds; they override all other sources.
        scripts: what becomes of submits; the first one that matches is used.
        listeners: called whenever a task was accepted, or an answer or a callback may have become due.
        down_until: connections are refused before this time, in Unix seconds.
    """

    settings: Settings = field(factory=Settings)
    clock: Callable[[], float] = field(default=time.time, kw_only=True)
    faults: Faults | None = field(default=None, kw_only=True)
    tokens: dict[str, str] = field(init=False, repr=False)
    dead_tokens: dict[str, str] = field(factory=dict, init=False, repr=False)
    tasks: dict[str, Task] = field(factory=dict, init=False, repr=False)
    accepted: int = field(default=0, init=False)
    requests: Counter[str] = field(factory=Counter, init=False)
    next_durations: deque[float] = field(factory=deque, init=False, repr=False)
    scripts: list[Script] = field(factory=list, init=False, repr=False)
    listeners: list[Callable[[], None]] = field(factory=list, init=False, repr=False)
    down_until: float = field(default=-inf, init=False)

    _random: random.Random = field(init=False, repr=False)
    _accounts: dict[str, Account] = field(factory=dict, init=False, repr=False)
    _submit_rates: dict[str, Rate] = field(factory=dict, init=False, repr=False)
    _poll_rates: dict[str, Rate] = field(factory=dict, init=False, repr=False)
    files: Files = field(init=False, repr=False)
    platform: Platform = field(init=False, repr=False)
    _callbacks: Callbacks = field(init=False, repr=False)
    _lookups: Lookups = field(init=False, repr=False)
    _date: tuple[int, str] = field(default=(0, ""), init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.tokens = dict(self.settings.tokens)
        self.files = Files(self.settings, self.tasks, lambda: self.clock())  # noqa: PLW0108 - the clock may be replaced
        self.platform = Platform(self.settings, self.tasks, lambda: self.clock(), lambda: self.files.base_url)  # noqa: PLW0108
        self._random = random.Random(self.settings.seed)
        self._callbacks = Callbacks(self.settings, self.files.link, self._new_id)
        self._lookups = Lookups(self.settings, self.tasks, self.files.link, self._new_id)

    # --- requests --------------------------------------------------------------------------------------

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """
        Answer one request.

        Args:
            path: the request's target with its query, unchanged.
        """
        now = self.clock()
        if now < self.down_until:
            return Reply(act="refuse", fault="restart")
        lowered = {name.lower(): value for name, value in headers.items()}
        if path.startswith("/files/"):
            return self._download(method, path, lowered, now)
        if path.startswith(PLATFORM):
            return self.platform.handle(method, path, lowered, body)
        if path.startswith(UPLOADS):
            return self.platform.download(method, path)
        endpoint = path.partition("?")[0]
        if endpoint == HEALTH:  # needs no token, accepts any method, and is not counted as a request
            headers = {"Content-Type": _JSON, "Date": http_date(self._as_dated(now))}
            return Reply(headers=headers, body=_HEALTHY)
        return self._answer(method, endpoint, lowered, body, now)

    def post(self, path: str, body: object, *, token: str | None = None) -> Reply:
        """
        Answer a well-formed JSON request, by default with the first valid token; for tests without a client.
        """
        headers = {
            "Authorization": f"Bearer {token or next(iter(self.tokens))}",
            "Content-Type": "application/json",
        }
        return self.handle("POST", path, headers, encode(body))

    def _answer(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        try:
            call = self._read(method, path, headers, body, now)
            self.requests[call.kind] += 1
            hit = self._strike(call)
            if hit and hit.fault.before:
                return self._broken(hit, now)
            reply = self._serve(call, hit)
        except Refusal as refusal:
            self.requests["refused"] += 1
            return self._refused(refusal, now)
        return self._spoiled(reply, hit, now)

    def _serve(self, call: Call, hit: Hit | None) -> Reply:
        if call.kind == "submit":
            self._check_rate(self._submit_rates, call, self.settings.submits_per_second)
            return self._submit(call, hit)
        self._check_rate(self._poll_rates, call, self.settings.polls_per_second)
        return self._reply(self._lookups.answer(call, hit), call.now)

    def _read(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Call:
        if method != "POST" or (path != "/veo/tasks" and path not in FIELDS):
            raise Refusal("no_api", f"The API {path} does not exist.")
        token = self._token(headers)
        fields = read_object(headers, body)
        kind = kind_of(path, fields)
        self._check_token(token, kind)
        return Call(kind, path, token, self._account(token), fields, now)

    def _token(self, headers: Mapping[str, str]) -> str:
        token = bearer(headers)
        if token not in self.tokens and token not in self.dead_tokens:
            raise Refusal("invalid_token", "The specified token is invalid or wrong.")
        return token

    def _check_token(self, token: str, kind: str) -> None:
        code = self.dead_tokens.get(token)
        if code is None or (code == "used_up" and kind != "submit"):  # polls are free
            return
        status = self.settings.mismatch_status if code == "token_mismatched" else CODES[code]
        raise Refusal(code, f"The token cannot be used: {code}.", status=status)

    def _account(self, token: str) -> Account:
        name = self.tokens.get(token, token)
        if name not in self._accounts:
            self._accounts[name] = Account(name, keeps_ended=self.settings.forget_after is not None)
        return self._accounts[name]

    # --- faults ----------------------------------------------------------------------------------------

    def _strike(self, call: Call) -> Hit | None:
        if self.faults is None:
            return None
        endpoint: Any = call.kind
        return self.faults.strike(endpoint, _jobs(call), call.body)

    def _broken(self, hit: Hit, now: float) -> Reply:
        return self._restarted(broken(hit, self._as_dated(now)), hit, now)

    def _spoiled(self, reply: Reply, hit: Hit | None, now: float) -> Reply:
        return reply if hit is None else self._restarted(spoil(reply, hit, self._as_dated(now)), hit, now)

    def _restarted(self, reply: Reply, hit: Hit, now: float) -> Reply:
        if hit.fault.kind.startswith("restart"):
            self.down_until = now + hit.fault.seconds
        return reply

    def _download(self, method: str, path: str, headers: Mapping[str, str], now: float) -> Reply:
        self.requests["download"] += 1
        hit = self.faults.strike("download", [path[7:43]], {}) if self.faults else None
        if hit and hit.fault.before:
            return self._broken(hit, now)
        return self._spoiled(self.files.answer(method, path, headers, now), hit, now)

    # --- answers ---------------------------------------------------------------------------------------

    def _as_dated(self, now: float) -> float:
        """
        Return the time by the clock of the `Date` header.
        """
        return now + self.settings.date_ahead

    def _headers(self, now: float) -> dict[str, str]:
        at = self._as_dated(now)
        if self._date[0] != int(at):
            self._date = (int(at), http_date(at))
        return {"Content-Type": _JSON, "Date": self._date[1], "X-Trace-Id": self._new_id()}

    def _reply(self, body: object, now: float) -> Reply:
        return Reply(headers=self._headers(now), body=encode(body))

    def _refused(self, refusal: Refusal, now: float) -> Reply:
        headers = self._headers(now)
        if refusal.wait is not None and self.settings.retry_after != "none":
            as_date = self.settings.retry_after == "date"
            back_at = ceil(self._as_dated(now) + refusal.wait)
            headers["Retry-After"] = http_date(back_at) if as_date else str(ceil(refusal.wait))
        error = {"code": refusal.code, "message": refusal.message}
        flag = {"success": False} if self.settings.error_success else {}
        body = flag | {"error": error, "trace_id": headers["X-Trace-Id"]}
        return Reply(status=refusal.status, headers=headers, body=encode(body))

    def _new_number(self) -> int:
        return self._random.getrandbits(128) & _UUID_HOLES | _UUID4

    def _new_id(self) -> str:
        return dashed(self._new_number())

    # --- submits ---------------------------------------------------------------------------------------

    def _submit(self, call: Call, hit: Hit | None) -> Reply:
        known = FIELDS[call.path]
        body = {name: value for name, value in call.body.items() if name in known and value is not None}
        check_submit(call.path, body, self.settings)
        source = self._source(body, call)
        self._check_limits(call)
        self._clean_up(call.account, call.now)
        script = self._script(call.path, body)
        twin = self._twin(call, body)
        task = twin or self._accept(call, body, source, hit, script)
        early = twin is None and self._plan_callbacks(task, call.now)
        if not body.get("async") and "callback_url" not in body:
            return self._when_ended(task)
        named = self._named(task)
        extras = {"success": True, "trace_id": named.trace_id} if self.settings.submit_extras else {}
        reply = self._reply({"task_id": named.id} | extras, call.now)
        return evolve(reply, callbacks_first=True) if early else reply

    def _script(self, path: str, body: Mapping[str, Any]) -> Script:
        """
        Return the script of a submit, which may refuse it; by default, an empty one.
        """
        found = (script for script in self.scripts if script.matches(path, body, self.settings))
        script = next(found, None) or Script()
        script.use()
        return script

    def _twin(self, call: Call, body: Mapping[str, Any]) -> Task | None:
        """
        Find the task of an equal submit, if the settings make equal submits share one.
        """
        if self.settings.answered_task != "same":
            return None
        wanted = (call.account.name, call.path, _without_callback(body))
        found = (
            task
            for task in self.tasks.values()
            if wanted == (task.account, task.path, _without_callback(task.body))
        )
        return next(found, None)

    def _named(self, task: Task) -> Task:
        if self.settings.answered_task != "first":
            return task
        return next(other for other in self.tasks.values() if other.account == task.account)

    def _source(self, body: Mapping[str, Any], call: Call) -> Task | None:
        if "video_id" not in body:
            return None
        number = number_of(body["video_id"]) or 0
        for index in range(MAX_VIDEOS):
            task = self.tasks.get(dashed(number ^ VIDEO_MASK ^ index))
            if task and task.account == call.account.name and task.state(call.now) == "succeeded":
                return task
        raise Refusal("bad_request", "video_id is invalid")

    def _accept(
        self, call: Call, body: dict[str, Any], source: Task | None, hit: Hit | None, script: Script
    ) -> Task:
        number, created_at = self._new_number(), floor((call.now + self.settings.records_ahead) * 1000) / 1000
        late = self.settings.late + (hit.fault.seconds if hit and hit.fault.kind == "late" else 0.0)
        task = Task(
            id=dashed(number),
            number=number,
            token=call.token,
            account=call.account.name,
            path=call.path,
            body=body,
            created_at=created_at,
            ends_at=call.now + self._duration(body, script),
            error=script.error or self._error(body),
            videos=self.settings.videos if script.videos is None else script.videos,
            source=source,
            visible_at=call.now + late if late else -inf,
        )
        self.tasks[task.id] = task
        self.accepted += 1
        call.account.add(task)
        self._wake()
        return task

    def _duration(self, body: Mapping[str, Any], script: Script) -> float:
        if self.next_durations:
            return self.next_durations.popleft()
        settings = self.settings
        if script.takes is not None:
            return script.takes / settings.speed
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
        Answer a synchronous submit, once the task has ended.
        """
        now = self.clock()
        if now < task.ends_at:
            return Reply(answer_at=task.ends_at, later=lambda: self._when_ended(task))
        if task.error is None:
            return self._reply(result(task, self.settings, self.files.link), now)
        code, message = task.error
        return self._refused(Refusal(code, message, status=CODES.get(code, 500)), now)

    def _check_limits(self, call: Call) -> None:
        settings, account = self.settings, call.account
        running = account.in_flight(call.now)
        if settings.max_in_flight is not None and running >= settings.max_in_flight:
            raise Refusal("too_many_requests", "Too many tasks are running.", wait=account.next_end(call.now))
        if settings.balance is not None and running + account.billed >= settings.balance:
            raise Refusal("used_up", "The balance is used up.")

    def _check_rate(self, rates: dict[str, Rate], call: Call, per_second: float | None) -> None:
        if per_second is None:
            return
        wait = rates.setdefault(call.token, Rate(per_second)).wait(call.now)
        if wait:
            raise Refusal("too_many_requests", "Too many requests.", wait=wait)

    # --- callbacks -------------------------------------------------------------------------------------

    def _plan_callbacks(self, task: Task, now: float) -> bool:
        """
        Plan the callbacks of a new task; returns whether one must come before the submit's own answer.
        """
        if not self._callbacks.owes(task):
            return False
        hit = self.faults.strike("callback", [task.id], task.body) if self.faults else None
        self._callbacks.plan(task, now, hit)
        return hit is not None and hit.fault.kind == "early"

    def next_callback_at(self) -> float | None:
        """
        Return when the next callback is due, in Unix seconds; None if there is none.
        """
        return self._callbacks.next_at()

    def callbacks_due(self, now: float) -> list[Callback]:
        """
        Return the callbacks that are due, each once.
        """
        return self._callbacks.due(now)

    def _wake(self) -> None:
        for listener in self.listeners:
            listener()

    # --- control by tests ------------------------------------------------------------------------------

    def finish(self, task_id: str, *, videos: int | None = None) -> Task:
        """
        Let a pending task succeed now; with `videos=0`, the success has no video.

        Raises:
            ValueError: the task has ended already.
        """
        task = self._steerable(task_id)
        task.videos = task.videos if videos is None else videos
        return self._end(task, None)

    def fail(self, task_id: str, code: str = "api_error", message: str = "fetch failed") -> Task:
        """
        Let a pending task fail now.

        Raises:
            ValueError: the task has ended already.
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
        if self._callbacks.owes(task):
            self._callbacks.plan(task, task.ends_at)
        self._wake()
        return task

    def forget(self, task_id: str) -> None:
        """
        Forget a task, like a server that cleans up: it leaves lookups and listings, but not the counts.
        """
        task = self.tasks.pop(task_id)
        self._accounts[task.account].forget(task)

    def _clean_up(self, account: Account, now: float) -> None:
        if self.settings.forget_after is None:
            return
        for task in account.outdated(now - self.settings.forget_after):
            if task.id in self.tasks:  # a test may have forgotten it
                self.forget(task.id)

    def revoke(self, token: str, code: str = "token_expired") -> None:
        """
        Make a token invalid: it gets the error `token_expired`, `disabled`, `used_up` (submits only), ...
        """
        self.dead_tokens[token] = code

    @property
    def billed(self) -> int:
        """
        How many tasks were paid for: those that ended in a video.
        """
        for account in self._accounts.values():
            account.settle(self.clock())
        return sum(account.billed for account in self._accounts.values())


def _without_callback(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "callback_url"}


def _jobs(call: Call) -> Iterable[str]:
    """
    Return names of the jobs that a request concerns: a submit's body, the ids of a lookup.
    """
    match call.kind:
        case "submit":
            return [json.dumps(_without_callback(call.body), sort_keys=True)]
        case "list":
            return [call.account.name]
        case _:
            asked = [call.body.get(name) for name in ("id", "trace_id", "ids", "trace_ids")]
            flat = [name for some in asked for name in (some if isinstance(some, list) else [some])]
            return [name for name in flat if isinstance(name, str)]

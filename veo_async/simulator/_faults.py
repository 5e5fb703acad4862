"""
Injects faults: which request gets which fault, and what that does to its answer.

The core chooses the fault and changes the bytes; faults of the connection are left to the transport (`Reply.act`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Final, Literal

from attrs import define, evolve, field, fields_dict, frozen

from ._replies import Act, Reply, encode, http_date

__all__ = [
    "CALLBACK_FAULTS",
    "ENDPOINTS",
    "FAULTS",
    "RECORD_FAULTS",
    "Fault",
    "Faults",
    "Hit",
    "broken",
    "spoil",
]

Endpoint = Literal["submit", "retrieve", "retrieve_batch", "list", "download", "callback"]
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    "submit",
    "retrieve",
    "retrieve_batch",
    "list",
    "download",
    "callback",
)

# What the transport does. The request was then acted on (`_after`), or was not (`_before`).
_ACTS: Final[Mapping[str, Act]] = {
    "drop_before": "drop",
    "reset_before": "reset",
    "stall_before": "stall",
    "restart_before": "drop",
    "drop_after": "drop",
    "drop_mid": "cut",
    "reset_after": "reset",
    "stall_after": "stall",
    "restart_after": "drop",
    "slow": "slow",
    "oversized": "oversize",
}
DEPTH: Final = 100_000
_PAGE: Final = b"<html><head><title>Bad Gateway</title></head><body><h1>Bad Gateway</h1></body></html>"

# The body that is sent instead; the status stays 200.
_BODIES: Final[Mapping[str, Callable[[bytes], tuple[bytes, str]]]] = {
    "bad_json": lambda body: (body[:-1] + b",}", "application/json"),
    "bad_text": lambda body: (b"\x80" + body, "application/json"),
    "deep": lambda body: (b"[" * DEPTH + b"]" * DEPTH, "application/json"),
    "empty": lambda body: (b"", "application/json"),
    "html": lambda body: (_PAGE, "text/html"),
    "null": lambda body: (b"null", "application/json"),
    "wrong_type": lambda body: (body, "text/plain"),
}
_STATUSES: Final = ("status_before", "status_after")
RECORD_FAULTS: Final = ("missing", "shuffled", "doubled", "strangers", "stale", "flipped")
CALLBACK_FAULTS: Final = ("lost", "duplicated", "early", "delayed", "forged")
_LATE: Final = "late"

_ANSWER_FAULTS: Final = (*_ACTS, *_BODIES, *_STATUSES, "cut_off")
FAULTS: Final[Mapping[Endpoint, tuple[str, ...]]] = {  # the kinds of fault per endpoint
    "submit": (*_ANSWER_FAULTS, _LATE),
    "retrieve": (*_ANSWER_FAULTS, "missing", "strangers", "stale"),
    "retrieve_batch": (*_ANSWER_FAULTS, *RECORD_FAULTS),
    "list": (*_ANSWER_FAULTS, *RECORD_FAULTS),
    "download": _ANSWER_FAULTS,
    "callback": CALLBACK_FAULTS,
}
_KINDS: Final = tuple(dict.fromkeys(kind for kinds in FAULTS.values() for kind in kinds))
_CODES: Final = {429: "too_many_requests", 500: "api_error", 504: "timeout"}  # the others come from a gateway


def _unknown(what: str, word: object, words: Sequence[str]) -> str:
    """
    Say that a word is unknown, and suggest a similar one.
    """
    near = get_close_matches(str(word), words, n=1)
    return f"{word!r} is no {what}" + (
        f": did you mean {near[0]!r}?" if near else f", only {', '.join(words)}"
    )


def _is_kind(_: object, __: object, kind: str) -> None:
    if kind not in _KINDS:
        raise ValueError(_unknown("kind of fault", kind, _KINDS))


@frozen
class Fault:
    """
    One kind of fault, with its details.

    - the connection: `drop_before`, `drop_after` (closed without an answer, the request acted on or not),
      `drop_mid` (closed in the middle of the answer), `reset_before`, `reset_after`, `stall_before`,
      `stall_after` (no answer until the client leaves), `slow`, `oversized`, `restart_before`, `restart_after`;
    - the answer: `status_before`, `status_after`, `bad_json`, `bad_text` (not UTF-8), `cut_off`, `deep`,
      `empty`, `html`, `null`, `wrong_type`;
    - submits: `late` (lookups and listings do not find the task at first);
    - records: `missing`, `shuffled`, `doubled`, `strangers` (nobody asked for them), `stale` (ended tasks look
      pending), `flipped` (twice: as it is, then pending);
    - callbacks: `lost`, `duplicated`, `early` (before the submit's own answer), `delayed`, `forged`.

    Attributes:
        kind: one of these.
        status: the status of `status_before` and `status_after`.
        retry_after: seconds in the `Retry-After` of such an answer, or None.
        as_date: whether that header is an HTTP date.
        seconds: how long `slow` takes, `late` and `delayed` lag, and a restart lasts.
        size: bytes of an oversized answer.
    """

    kind: str = field(validator=_is_kind)
    status: int = field(default=503, kw_only=True)
    retry_after: float | None = field(default=None, kw_only=True)
    as_date: bool = field(default=False, kw_only=True)
    seconds: float = field(default=1.0, kw_only=True)
    size: int = field(default=100 << 20, kw_only=True)

    @property
    def before(self) -> bool:
        """
        Whether the request is not acted on.
        """
        return self.kind.endswith("_before")


@frozen(kw_only=True)
class _Rule:
    fault: Fault
    on: frozenset[str]
    first: bool
    share: float
    nth: frozenset[int]
    times: int | None
    match: Callable[[Mapping[str, Any]], bool] | None


@frozen(kw_only=True)
class Hit:
    """
    A fault that strikes a request.

    Attributes:
        keys: the names of the jobs that it concerns; see `Faults.strike`.
        whole: whether it applies to all of these, or only to some.
        random: for random choices.
    """

    fault: Fault
    keys: frozenset[str]
    whole: bool
    random: random.Random


_DETAILS: Final = tuple(name for name in fields_dict(Fault) if name != "kind")
_CHOICES: Final = ("on", "first", "share", "nth", "times", "match")  # of `Faults.add` itself


def _endpoints(kind: str, on: Sequence[Endpoint]) -> frozenset[str]:
    """
    Return the endpoints that a fault strikes: `on`, or if that is empty, all that this kind can strike.
    """
    for endpoint in on:
        if endpoint not in ENDPOINTS:
            raise ValueError(_unknown("endpoint", endpoint, ENDPOINTS))
        if kind not in FAULTS[endpoint]:
            raise ValueError(f"{kind} cannot happen to {endpoint}")
    return frozenset(on or (endpoint for endpoint in ENDPOINTS if kind in FAULTS[endpoint]))


@define(eq=False)
class Faults:
    """
    Decides which requests get which fault: by rules, or at random from a seed.

        faults = Faults(seed=7)
        faults.add("drop_after", on="submit", first=True)
        faults.add("status_before", on=("retrieve", "retrieve_batch"), share=0.1, status=429, retry_after=2)

    The rules are tried in order, and the first that strikes is used.

    Attributes:
        struck: how often each fault struck, by endpoint and kind.
        on: False suspends all of them.
    """

    seed: int = 0
    struck: Counter[tuple[str, str]] = field(factory=Counter, init=False)
    on: bool = field(default=True, init=False)
    _rules: list[_Rule] = field(factory=list, init=False, repr=False)
    _requests: Counter[str] = field(factory=Counter, init=False, repr=False)
    _strikes: Counter[int] = field(factory=Counter, init=False, repr=False)
    _seen: dict[int, set[str]] = field(factory=dict, init=False, repr=False)
    _random: random.Random = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def add(
        self,
        kind: str,
        *,
        on: Endpoint | Sequence[Endpoint] = (),
        first: bool = False,
        share: float = 1.0,
        nth: Iterable[int] = (),
        times: int | None = None,
        match: Callable[[Mapping[str, Any]], bool] | None = None,
        **details: Any,
    ) -> Faults:
        """
        Add a rule, and return the same faults.

        Args:
            kind: the fault's kind, see `Fault`; `details` are its other fields.
            on: the endpoints; by default, all that this kind can strike.
            first: strike only the first request of each job: of each body on `submit`, of each task elsewhere.
            share: strike this share of the requests, 0 to 1, at random.
            nth: strike only these requests of the endpoint, counted from 1.
            times: strike at most so often.
            match: strike only requests for whose body it returns True.

        Raises:
            TypeError: there is no such detail.
            ValueError: there is no such kind or endpoint, or the kind cannot strike there.
        """
        for name in details:
            if name not in _DETAILS:
                raise TypeError(_unknown("detail of a fault", name, (*_DETAILS, *_CHOICES)))
        fault = Fault(kind, **details)
        endpoints = _endpoints(kind, [on] if isinstance(on, str) else on)
        rule = _Rule(
            fault=fault, on=endpoints, first=first, share=share, nth=frozenset(nth), times=times, match=match
        )
        self._rules.append(rule)
        return self

    def strike(self, endpoint: Endpoint, keys: Iterable[str], body: Mapping[str, Any]) -> Hit | None:
        """
        Return the fault that strikes a request, or None.

        Args:
            keys: the names of the jobs that the request concerns.
        """
        self._requests[endpoint] += 1
        if not self.on:
            return None
        keys = [*keys]
        for place, rule in enumerate(self._rules):
            if endpoint in rule.on and (hit := self._try(place, rule, endpoint, keys, body)):
                self._strikes[place] += 1
                self.struck[endpoint, rule.fault.kind] += 1
                return hit
        return None

    def _try(
        self, place: int, rule: _Rule, endpoint: str, keys: list[str], body: Mapping[str, Any]
    ) -> Hit | None:
        if rule.times is not None and self._strikes[place] >= rule.times:
            return None
        if rule.nth and self._requests[endpoint] not in rule.nth:
            return None
        if rule.match is not None and not rule.match(body):
            return None
        if rule.first:
            keys = self._unseen(place, endpoint, keys)
        if (rule.first and not keys) or self._random.random() >= rule.share:
            return None
        return Hit(fault=rule.fault, keys=frozenset(keys), whole=rule.first, random=self._random)

    def _unseen(self, place: int, endpoint: str, keys: list[str]) -> list[str]:
        seen = self._seen.setdefault(place, set())
        fresh = [key for key in keys if f"{endpoint} {key}" not in seen]
        seen.update(f"{endpoint} {key}" for key in fresh)
        return fresh


# --- the effect on the answer --------------------------------------------------------------------------


def broken(hit: Hit, now: float) -> Reply:
    """
    Answer a request that is not acted on.
    """
    return spoil(Reply(), hit, now)


def spoil(reply: Reply, hit: Hit, now: float) -> Reply:
    """
    Apply a fault to an answer.
    """
    later = reply.later
    if later is not None:
        return evolve(reply, later=lambda: spoil(later(), hit, now))
    fault = hit.fault
    if fault.kind in _STATUSES:
        return _status(fault, now)
    if fault.kind == "cut_off":
        reply = _shortened(reply)
    elif fault.kind in _BODIES:
        reply = _other_body(reply, *_BODIES[fault.kind](reply.body))
    act = _ACTS.get(fault.kind, reply.act)
    return evolve(reply, act=act, seconds=fault.seconds, size=fault.size, fault=fault.kind)


def _shortened(reply: Reply) -> Reply:
    """
    Send half the body, with a `Content-Length` that matches.
    """
    headers = {**reply.headers, "Content-Length": str(reply.length // 2)}
    if reply.chunks is None:
        return evolve(reply, headers=headers, body=reply.body[: reply.length // 2])
    return evolve(reply, headers=headers, chunks=reply.half())


def _other_body(reply: Reply, body: bytes, content_type: str) -> Reply:
    headers = {name: value for name, value in reply.headers.items() if name not in _BODY_HEADERS}
    return evolve(reply, headers=headers | {"Content-Type": content_type}, body=body, chunks=None)


_BODY_HEADERS: Final = ("Content-Type", "Content-Length", "Content-Range", "ETag")


def _status(fault: Fault, now: float) -> Reply:
    headers = {"Date": http_date(now)}
    if fault.retry_after is not None:
        wait = http_date(now + fault.retry_after) if fault.as_date else f"{fault.retry_after:g}"
        headers["Retry-After"] = wait
    if fault.status // 100 == 3:
        headers["Location"] = "/elsewhere"
    code = _CODES.get(fault.status)
    if code is None:
        headers["Content-Type"] = "text/html"
        return Reply(status=fault.status, headers=headers, body=_PAGE, fault=fault.kind)
    headers["Content-Type"] = "application/json"
    body = encode({"error": {"code": code, "message": "injected"}, "trace_id": None})
    return Reply(status=fault.status, headers=headers, body=body, fault=fault.kind)

"""
What happens to submits whose outcome is unknown: adopt the task, wait, send again, or give up.

Nothing here waits or reads a clock. `Reconciler` is told of every submit as it is sent and as it ends, asks for
listings of the account's own tasks at `next_due_at()`, and answers each with the decisions that follow from it.

*Presence.* A record whose echoed request is the *same* as what was sent, which no job owns and which was created
since the sending, is adopted. Identical submits cannot be told apart, so they are not: records and attempts are
only counted against each other, the oldest record going to the attempt that ended first. That order matters. If
two identical attempts swap their tasks, the one left over ended last, so by the time its own grace is over,
whatever the other bought is visible too. A record that an identical submit still in flight may have bought waits
until that submit is answered.

*Absence.* Two listings must lack the task, the second asked for at least `grace` after the attempt ended. Such a
listing is well-formed, read to its end, without an id twice (pages shifted while they were read, and what moves
one record past the reader shows another twice) or an item that is no task, and it shows every task that it must
show: those that a submit's reply named at least `grace` ago. A server that accepts, or lists, later than `grace`
defeats this; that risk remains.

*Doubt.* A record that may be the attempt's (an *unsure* one) forbids sending again and is not adopted. It may yet
be explained: another job's reply names it, or another attempt matches it better. If it is not by the end of the
grace, the attempt is given up, with the ids of all such records.

*An account without a record.* A listing that has never shown any record of this account may be one that never
will (another application's, say), so an empty one proves nothing. Any record in a well-formed answer will do as
proof, however old: a driver that finds `proven` False should ask for one page without a time filter too. Where
there is none, a task that this session knows to be accepted is waited for. Only where there is no such task
either, one job goes first: it alone is sent again on the word of empty listings, and the others wait until its
task shows. So a listing that stays empty for ever costs at most one video, and the rest are given up.

*Two clocks.* `now` and whatever is compared with it is the caller's own clock, which never jumps. Only
`Attempt.began_at` and the records' `created_at` are the server's, in Unix seconds; they choose which records
come into question, and never how long to wait. So a local clock that is an hour off does no harm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from itertools import chain
from typing import Any, Final, TypeAlias

from attrs import define, field, frozen

from ._models import SMALLEST
from .errors import SubmissionUnknown

__all__ = [
    "Adopt",
    "Attempt",
    "Decision",
    "GiveUp",
    "Listing",
    "Reconciler",
    "SendAgain",
    "Verdict",
    "compare",
    "fingerprint",
]

LOOKS: Final = (
    0.0,
    1 / 8,
    1 / 4,
    1 / 2,
    1.0,
)  # when to list, in graces after the end: most tasks show at once
LATER: Final = 1 / 2  # then every half grace
SPACING: Final = 1 / 8  # one listing serves all attempts, so it need not follow the last one closer than this
SHORTEST: Final = 0.05  # seconds; for a grace of zero
PATIENCE: Final = 5  # graces after the end: a listing that has proved nothing by then is given up …
ENOUGH: Final = 3  # … provided that it was answered this often after the grace: an outage is no answer


# --- comparing a record with a body ----------------------------------------------------------------------


class Verdict(IntEnum):
    """
    Whether a record's echoed request is the one that was sent; the worst field decides.
    """

    SAME = 0
    UNSURE = 1
    DIFFERENT = 2


# What leaving a field out means, so that an echo may spell it out, or drop it. Seed and newest, /veo/videos.
_USUAL: Final[Mapping[str, object]] = {"resolution": SMALLEST, "aspect_ratio": "16:9", "translation": False}

# Fields that tell requests apart even where only the echo has them: the server does not make them up.
# Not `model`: where it was left out, the server fills in its own default.
_TELLING: Final = (
    "prompt",
    "action",
    "video_id",
    "image_urls",
    "motion_type",
    "image_mask",
    "callback_url",
    *_USUAL,
)

# Where an echo that differs proves nothing, as the server may have changed the field itself.
_REWRITTEN: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "prompt": lambda body: body.get("translation") is True,
    "action": lambda body: "action" not in body,  # post-processing kinds that have none
    "image_mask": lambda body: (
        not str(body.get("image_mask", "http")).startswith("http")
    ),  # base64, perhaps stored
    # What an extended video has unless told otherwise is not documented: perhaps what its source has.
    "resolution": lambda body: "video_id" in body and "resolution" not in body,
    "aspect_ratio": lambda body: "video_id" in body and "aspect_ratio" not in body,
}


def compare(record: Mapping[str, Any], body: Mapping[str, Any], *, nonce: str | None = None) -> Verdict:
    """
    Tell whether the task was bought by this body; `nonce` is the part of its callback URL that no other has.

    Every field that was sent must be echoed with the same value, save these: `async` is not looked at, nor is
    the model of `ingredients2video` (the server forces one); defaults may be left out or filled in. What was sent
    and is missing makes the record unsure, and so does a field that the server may have rewritten.
    """
    echo = record.get("request")
    if not isinstance(echo, Mapping):
        return Verdict.UNSURE
    url = echo.get("callback_url")
    if nonce and isinstance(url, str) and url:
        return Verdict.SAME if nonce in url else Verdict.DIFFERENT
    worst = Verdict.SAME
    for name in chain(_TELLING, body):
        verdict = _compare_field(name, body, echo)
        if verdict is Verdict.DIFFERENT:
            return verdict
        worst = max(worst, verdict)
    return worst


def _compare_field(name: str, body: Mapping[str, Any], echo: Mapping[str, Any]) -> Verdict:
    if _says_nothing(name, body):
        return Verdict.SAME
    usual = _USUAL.get(name)
    sent, echoed = _plain(body.get(name)), _plain(echo.get(name))
    sent = usual if sent is None else sent
    if echoed is None:
        return Verdict.SAME if sent == usual else Verdict.UNSURE
    if sent == echoed:
        return Verdict.SAME
    rewritten = _REWRITTEN.get(name)
    return Verdict.UNSURE if rewritten and rewritten(body) else Verdict.DIFFERENT


def _says_nothing(name: str, body: Mapping[str, Any]) -> bool:
    # Seen in the vendor's clients: unknown fields are dropped, and `async` is the newest of all.
    return name == "async" or (name == "model" and body.get("action") == "ingredients2video")


def _plain(value: object) -> object:
    """
    The value without what does not matter: an empty one is none, and white space is not compared.
    """
    if isinstance(value, str):
        return " ".join(value.split()) or None
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value] or None
    return value


def fingerprint(body: Mapping[str, Any]) -> str:
    """
    The same text for bodies whose records cannot be told apart; a callback URL with a nonce makes it unique.
    """
    told = {name: _plain(value) for name, value in body.items() if not _says_nothing(name, body)}
    return json.dumps(
        {name: value for name, value in told.items() if value != _USUAL.get(name)},
        sort_keys=True,
        default=str,
    )


# --- what goes in and what comes out -----------------------------------------------------------------------


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit.

    Attributes:
        key: the job's idempotency key; a job has one attempt at a time that is not closed.
        number: the how-manieth of this job.
        body: what was sent, as a dict.
        began_at: when the sending began, by the server's clock, in Unix seconds.
        uncertainty: by how many seconds `began_at` may be wrong, where the server's clock was not yet known.
        nonce: the part of the body's callback URL that no other attempt has, or None.
    """

    key: str
    number: int
    body: Mapping[str, Any] = field(eq=False, repr=False)
    began_at: float
    uncertainty: float = 0.0
    nonce: str | None = field(default=None, repr=False)


@frozen(kw_only=True)
class Listing:
    """
    A question to ask: all of the account's tasks created since `created_from` (server's clock, Unix seconds).
    """

    created_from: float
    asked_at: float


@frozen(kw_only=True)
class Adopt:
    """
    The task is the attempt's: claim it in the journal, then tell `adopted` or `rejected`.

    `record` is None where a callback named the task.
    """

    attempt: Attempt
    task_id: str
    record: Mapping[str, Any] | None = field(default=None, eq=False, repr=False)


@frozen(kw_only=True)
class SendAgain:
    """
    The attempt bought nothing: the job may be sent again, as a new attempt.
    """

    attempt: Attempt


@frozen(kw_only=True)
class GiveUp:
    """
    Nobody can tell: the job settles with `error()`, and its key may be taken up again later.
    """

    attempt: Attempt
    candidates: tuple[str, ...]
    reason: str

    def error(self) -> SubmissionUnknown:
        return SubmissionUnknown(self.reason, sent_at=self.attempt.began_at, candidates=self.candidates)


Decision: TypeAlias = Adopt | SendAgain | GiveUp

UNCLEAR: Final = "a task may be this submit's, but its record does not tell"
EMPTY: Final = "the account's listing has never shown a task, so that one is missing proves nothing"
USELESS: Final = (
    "the account's listing is off, incomplete, or lacks a task that was accepted: it proves nothing"
)


# --- what is remembered ------------------------------------------------------------------------------------


@define(eq=False)
class _Open:
    """
    An attempt that may have bought a task: in flight while `ended_at` is None, then of unknown outcome.

    Attributes:
        mark: the fingerprint of its body.
        since: records created before this cannot be its own (server's clock).
        reach: records created before this are not assigned to it; earlier than `since` after an identical
            attempt took a record that may have been its own, since it may then have to take the other's.
        told_at, asked_at: of its sending, and of the last listing that counted (caller's clock).
        claim: the task that it was told to adopt; decided, save for the journal's word.
        called: the task that a callback named while the submit was in flight.
        absences, late: how many listings lacked it; how many were answered after the grace.
        soon: whether the next listing may tell more before long.
    """

    attempt: Attempt
    mark: str
    since: float
    told_at: float
    reach: float = field(init=False)
    ended_at: float | None = None
    trace_id: str | None = None
    claim: str | None = None
    called: str | None = None
    asked_at: float = -math.inf
    absences: int = 0
    late: int = 0
    soon: bool = False

    @reach.default
    def _reaches_as_far_as_its_own(self) -> float:
        return self.since


@frozen
class _Owned:
    """
    A task that some job has; with `since`, one that every listing from then on must show.
    """

    told_at: float
    since: float | None


@frozen
class _Task:
    """
    A record of the listing that no job owns.
    """

    id: str
    created_at: float | None
    raw: Mapping[str, Any]

    def may_be_since(self, instant: float) -> bool:
        return self.created_at is None or self.created_at >= instant


def _read(records: Sequence[object]) -> tuple[dict[str, _Task], bool]:
    """
    The tasks by id, and whether each item was one and came once.
    """
    tasks: dict[str, _Task] = {}
    for record in records:
        if isinstance(record, Mapping) and isinstance(task_id := record.get("id"), str) and task_id:
            tasks.setdefault(task_id, _Task(task_id, _instant(record.get("created_at")), record))
    return tasks, len(tasks) == len(records)


def _candidates(tasks: Iterable[_Task], attempt: _Open) -> Iterator[tuple[_Task, Verdict]]:
    """
    Pick the tasks that the attempt, or an identical one, may have bought.
    """
    for task in tasks:
        verdict = _verdict(task, attempt)
        if verdict is not Verdict.DIFFERENT:
            yield task, verdict


def _verdict(task: _Task, attempt: _Open) -> Verdict:
    verdict = compare(task.raw, attempt.attempt.body, nonce=attempt.attempt.nonce)
    certain = task.created_at is not None or attempt.attempt.nonce  # else it may be of an earlier sending
    return verdict if certain else max(verdict, Verdict.UNSURE)


def _is_undecided(attempt: _Open) -> bool:
    return attempt.ended_at is not None and attempt.claim is None


def _ended_at(attempt: _Open) -> float:
    return math.inf if attempt.ended_at is None else attempt.ended_at


def _created_at(task: _Task) -> float:
    return -math.inf if task.created_at is None else task.created_at


def _instant(value: object) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if usable else None  # type: ignore[return-value]  # a number, as just checked


# --- the reconciler ----------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class Reconciler:
    """
    Keeps the submits that may have bought a task, and decides about those whose outcome is unknown.

    Attributes:
        grace: how long after an attempt's end its task may yet show in a listing, in seconds.
        skew: by how many seconds the server's clock may differ from what `began_at` was read off.
    """

    grace: float
    skew: float = 10.0
    _open: dict[str, _Open] = field(init=False, factory=dict)
    _groups: dict[str, dict[str, _Open]] = field(init=False, factory=dict)
    _claims: dict[str, _Open] = field(init=False, factory=dict)
    _owned: dict[str, _Owned] = field(init=False, factory=dict)
    _prune_at: int = field(init=False, default=1000)
    _asked_at: float = field(init=False, default=-math.inf)
    _proven: bool = field(init=False, default=False)
    _first: str | None = field(init=False, default=None)

    @property
    def proven(self) -> bool:
        """
        Whether the listing has ever shown a record of this account.
        """
        return self._proven

    # --- how submits go ---

    def sending(self, attempt: Attempt, *, now: float) -> None:
        """
        Note that an attempt is in flight; must come before its body leaves.
        """
        self._add(attempt, told_at=now)

    def accepted(self, attempt: Attempt, task_id: str, *, now: float) -> None:
        """
        Note that the attempt's own answer named its task.
        """
        self._drop(attempt)
        self._own(task_id, _Owned(now, self._since(attempt)))

    def refused(self, attempt: Attempt) -> None:
        """
        Note that the attempt bought nothing, and that its job is settled.
        """
        self._drop(attempt)
        if self._first == attempt.key:
            self._first = None  # nothing was risked, so another job may go first

    def not_sent(self, attempt: Attempt) -> None:
        """
        Note that the attempt bought nothing, and that its job will be sent again.
        """
        self._drop(attempt)

    def unknown(self, attempt: Attempt, *, now: float, trace_id: str | None = None) -> list[Decision]:
        """
        Note that the attempt ended, and that nobody knows how.

        One found open after a crash ends now: what the server does with it may have begun just before the crash.
        Of several such attempts of one job, hand over the last; it was sent because the others were absent.
        """
        unknown = self._open.get(attempt.key) or self._add(attempt, told_at=-math.inf)
        unknown.ended_at, unknown.trace_id = now, trace_id
        return self._claim(unknown, unknown.called) if unknown.called else []

    def owned(self, task_id: str, *, now: float) -> None:
        """
        Note that a job has this task, whichever way it came by it.
        """
        self._own(task_id, _Owned(now, None))

    def adopted(self, adopt: Adopt, *, now: float) -> None:
        """
        Confirm a decision to adopt: the claim is in the journal.
        """
        self._drop(adopt.attempt)
        self._own(adopt.task_id, _Owned(now, None))

    def rejected(self, adopt: Adopt, *, now: float) -> None:
        """
        Take a decision to adopt back: by the journal, the task is another job's.
        """
        self._own(adopt.task_id, _Owned(now, None))

    # --- what to ask, and when ---

    def next_due_at(self) -> float | None:
        """
        Return when the next listing is wanted, or None while no outcome is unknown.
        """
        due_at = min((self._due_at(unknown) for unknown in self._unknown()), default=None)
        spacing = max(SPACING * self.grace, SHORTEST)
        return due_at if due_at is None else max(due_at, self._asked_at + spacing)

    def _due_at(self, unknown: _Open) -> float:
        if unknown.soon:
            return unknown.asked_at
        looks = (_ended_at(unknown) + share * self.grace for share in LOOKS)
        return next((at for at in looks if at > unknown.asked_at), unknown.asked_at + LATER * self.grace)

    def listing(self, now: float) -> Listing:
        """
        Return what to list; where no answer comes, it is simply due again a little later.
        """
        self._asked_at = now
        since = [attempt.reach for attempt in self._open.values()]
        if not self._proven:  # so that a task known to be accepted can be the proof
            since += [owned.since for owned in self._owned.values() if owned.since is not None]
        return Listing(created_from=min(since, default=0.0), asked_at=now)

    def trace_ids(self) -> list[str]:
        """
        Return the trace ids to look up, which is quicker than a listing and leaves no doubt.
        """
        return [unknown.trace_id for unknown in self._unknown() if unknown.trace_id]

    # --- what comes back ---

    def listed(
        self, listing: Listing, records: Sequence[object], *, well_formed: bool, complete: bool
    ) -> list[Decision]:
        """
        Decide, after an answer to a listing, about every attempt that it settles.

        Args:
            records: the items of all pages as they came, of any type, twice, too old, or strangers'.
            well_formed: whether every answer was one that a listing gives; False for a 4xx, or no list of items.
            complete: whether the pages were read to the end.
        """
        tasks, clean = _read(records)
        self._proven = self._proven or (well_formed and bool(tasks))
        decisions = self._adopt_traced(tasks.values())
        evidence = well_formed and complete and clean and self._shows_accepted(listing, tasks)
        found = self._find([task for task in tasks.values() if self._is_free(task.id)])
        held = self._held({task.id: task for candidates in found.values() for task, _ in candidates}.values())
        for mark, candidates in found.items():
            members = self._groups[mark]
            decisions += self._assign(members, [task for task, verdict in candidates if not verdict], held)
            rest = [(task, verdict) for task, verdict in candidates if task.id not in self._claims]
            for unknown in [member for member in members.values() if _is_undecided(member)]:
                decisions += self._judge(unknown, listing, rest, held, evidence=evidence)
        return decisions

    def looked_up(self, trace_id: str, record: object) -> list[Decision]:
        """
        Decide after a look-up by trace id; None, or a record of another trace, proves nothing.
        """
        if not isinstance(record, Mapping):
            return []
        return self._adopt_traced(_read([{"trace_id": trace_id, **record}])[0].values())

    def called_back(self, nonce: str, task_id: str) -> list[Decision]:
        """
        Decide after a callback with an attempt's nonce; one that beats the submit's answer is kept till then.
        """
        for attempt in self._open.values():
            if attempt.attempt.nonce == nonce:
                attempt.called = task_id
                return self._claim(attempt, task_id) if _is_undecided(attempt) else []
        return []

    # --- presence ---

    def _adopt_traced(self, tasks: Iterable[_Task]) -> list[Decision]:
        traced = {unknown.trace_id: unknown for unknown in self._unknown() if unknown.trace_id}
        decisions: list[Decision] = []
        for task in tasks if traced else ():
            trace_id = task.raw.get("trace_id")
            unknown = traced.get(trace_id) if isinstance(trace_id, str) else None
            if unknown and _verdict(task, unknown) is not Verdict.DIFFERENT:
                decisions += self._claim(unknown, task.id, task.raw)
        return decisions

    def _find(self, tasks: Sequence[_Task]) -> dict[str, list[tuple[_Task, Verdict]]]:
        """
        Return, for each group of identical attempts with one to decide about, the tasks that may be one's.
        """
        found = {}
        for mark, members in self._groups.items():
            undecided = [member for member in members.values() if _is_undecided(member)]
            if undecided:
                reach = min(member.reach for member in undecided)
                near = [task for task in tasks if task.may_be_since(reach)]
                found[mark] = list(_candidates(near, undecided[0]))
        return found

    def _held(self, tasks: Collection[_Task]) -> set[str]:
        """
        Return the ids of tasks that a submit still in flight may have bought.
        """
        held: set[str] = set()
        for members in self._groups.values() if tasks else ():
            in_flight = [member for member in members.values() if member.ended_at is None]
            if in_flight:
                since = min(member.since for member in in_flight)
                near = [task for task in tasks if task.may_be_since(since)]
                held.update(task.id for task, _ in _candidates(near, in_flight[0]))
        return held

    def _assign(self, members: Mapping[str, _Open], same: Sequence[_Task], held: set[str]) -> list[Decision]:
        """
        Give the oldest tasks to the attempts that ended first.
        """
        undecided = sorted(filter(_is_undecided, members.values()), key=_ended_at)
        decisions: list[Decision] = []
        reach = math.inf
        for task in sorted((task for task in same if task.id not in held), key=_created_at):
            taker = next((member for member in undecided if task.may_be_since(member.reach)), None)
            if taker:
                undecided.remove(taker)
                decisions += self._claim(taker, task.id, task.raw)
                reach = min(reach, taker.reach)
        for member in members.values():  # whose task was taken, perhaps, and who may have to take the taker's
            farthest = (
                member.since - PATIENCE * self.grace
            )  # lest it go back without end from one to the next
            member.reach = max(min(member.reach, reach), farthest)
        return decisions

    def _claim(self, unknown: _Open, task_id: str, record: Mapping[str, Any] | None = None) -> list[Decision]:
        if unknown.claim or not self._is_free(task_id):
            return []
        unknown.claim = task_id
        self._claims[task_id] = unknown
        return [Adopt(attempt=unknown.attempt, task_id=task_id, record=record)]

    # --- absence ---

    def _judge(
        self,
        unknown: _Open,
        listing: Listing,
        candidates: Sequence[tuple[_Task, Verdict]],
        held: set[str],
        *,
        evidence: bool,
    ) -> list[Decision]:
        """
        Decide about an attempt to which the listing gave no task.
        """
        elapsed = listing.asked_at - _ended_at(unknown)
        if elapsed < 0 or listing.asked_at <= unknown.asked_at or listing.created_from > unknown.reach:
            return []  # it was asked too early, or for too little, to say anything of this one
        mine = [(task, verdict) for task, verdict in candidates if task.may_be_since(unknown.reach)]
        waits = any(task.id in held or verdict is Verdict.SAME for task, verdict in mine)
        late = elapsed >= self.grace
        unknown.asked_at = listing.asked_at
        unknown.soon = waits or not evidence or not self._proven
        unknown.late += late
        unknown.absences += evidence and not mine
        ids = tuple(task.id for task, _ in mine)
        if waits or not late:
            return []
        if evidence and ids:
            return self._give_up(unknown, ids, UNCLEAR)
        if evidence and unknown.absences > 1 and self._may_go(unknown.attempt.key, elapsed):
            self._drop(unknown.attempt)
            return [SendAgain(attempt=unknown.attempt)]
        if elapsed >= PATIENCE * self.grace and unknown.late >= ENOUGH:
            return self._give_up(unknown, ids, USELESS if not evidence else EMPTY)
        return []

    def _shows_accepted(self, listing: Listing, tasks: Mapping[str, _Task]) -> bool:
        """
        Tell whether the listing shows every task that a listing which works would show.
        """
        return all(
            task_id in tasks
            or owned.since is None
            or owned.since < listing.created_from
            or listing.asked_at < owned.told_at + self.grace
            for task_id, owned in self._owned.items()
        )

    def _may_go(self, key: str, elapsed: float) -> bool:
        """
        Tell whether absence from the listing means anything, or this job is the one to find out.
        """
        if self._proven:
            return True
        proof_may_come = any(owned.since is not None for owned in self._owned.values()) or (
            elapsed < 2 * self.grace and any(attempt.ended_at is None for attempt in self._open.values())
        )
        if self._first is not None or proof_may_come:
            return False
        self._first = key
        return True

    def _give_up(self, unknown: _Open, candidates: tuple[str, ...], reason: str) -> list[Decision]:
        self._drop(unknown.attempt)
        return [GiveUp(attempt=unknown.attempt, candidates=candidates, reason=reason)]

    # --- keeping ---

    def _is_free(self, task_id: str) -> bool:
        return task_id not in self._owned and task_id not in self._claims

    def _unknown(self) -> Iterator[_Open]:
        return filter(_is_undecided, self._open.values())

    def _since(self, attempt: Attempt) -> float:
        return attempt.began_at - attempt.uncertainty - self.skew

    def _add(self, attempt: Attempt, *, told_at: float) -> _Open:
        self._drop(attempt)
        added = _Open(
            attempt=attempt, mark=fingerprint(attempt.body), since=self._since(attempt), told_at=told_at
        )
        self._open[attempt.key] = added
        self._groups.setdefault(added.mark, {})[attempt.key] = added
        return added

    def _drop(self, attempt: Attempt) -> None:
        dropped = self._open.pop(attempt.key, None)
        if dropped is None:
            return
        members = self._groups[dropped.mark]
        del members[attempt.key]
        if not members:
            del self._groups[dropped.mark]
        if dropped.claim is not None:
            self._claims.pop(dropped.claim, None)

    def _own(self, task_id: str, owned: _Owned) -> None:
        self._owned[task_id] = owned
        claimant = self._claims.pop(task_id, None)
        if claimant:
            claimant.claim = claimant.called = None  # another job has it: this one is undecided again
        if len(self._owned) >= self._prune_at:
            self._prune(owned.told_at)

    def _prune(self, now: float) -> None:
        """
        Forget tasks that were owned so long ago that no attempt could be taken for theirs.
        """
        told_at = (attempt.told_at - 2 * attempt.attempt.uncertainty for attempt in self._open.values())
        horizon = min(told_at, default=now) - self.skew - PATIENCE * self.grace
        self._owned = {task_id: owned for task_id, owned in self._owned.items() if owned.told_at >= horizon}
        self._prune_at = 2 * len(self._owned) + 1000

    def __repr__(self) -> str:
        unknown = sum(1 for _ in self._unknown())
        return f"<Reconciler: {unknown} unknown, {len(self._open)} open, {len(self._claims)} claimed>"

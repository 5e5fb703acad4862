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

*Three clocks.* `now` and whatever is compared with it is the caller's own clock, which never jumps. Only
`Attempt.began_at`, which is read off the `Date` of replies, and the records' `created_at` are the server's, in
Unix seconds; they choose which records come into question, and never how long to wait. So a local clock that is
an hour off does no harm. These two may differ as well: the records of tasks that replies have named tell by how
much. For clocks that are worse than that, a task somewhat too old to be adopted forbids sending again all the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from attrs import Factory, define, field

from ._attempts import (
    Adopt,
    Answer,
    Attempt,
    Decision,
    GiveUp,
    Listing,
    OpenAttempt,
    SendAgain,
    Task,
    read_tasks,
)
from ._echo import Verdict, compare, fingerprint
from ._owned import OwnedTasks

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

# When to list, in graces after the end: most tasks show at once.
LOOKS: Final = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
LATER: Final = 1 / 2  # then every half grace
SPACING: Final = 1 / 8  # one listing serves all attempts, so it need not follow the last one closer than this
SHORTEST: Final = 0.05  # seconds; for a grace of zero
PATIENCE: Final = 5  # graces after the end: a listing that has proved nothing by then is given up …
ENOUGH: Final = 3  # … provided that it was answered this often after the grace: an outage is no answer

UNCLEAR: Final = "a task may be this submit's, but its record does not tell"
OLDER: Final = "a task like it seems somewhat older than this submit, and nothing tells how far the server's clocks differ"
EMPTY: Final = "the account's listing has never shown a task, so that one is missing proves nothing"
USELESS: Final = (
    "the account's listing is off, incomplete, or lacks a task that was accepted: it proves nothing"
)


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
    _open: dict[str, OpenAttempt] = field(init=False, factory=dict)
    _nonces: dict[str, OpenAttempt] = field(init=False, factory=dict)
    _claims: dict[str, OpenAttempt] = field(init=False, factory=dict)
    _owned: OwnedTasks = field(
        init=False, default=Factory(lambda self: OwnedTasks(self.skew), takes_self=True)
    )
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

    def accepted(self, attempt: Attempt, task_id: str, *, now: float) -> bool:
        """
        Note that the attempt's own answer named its task; tells whether a callback had named it before.
        """
        known = self._open.get(attempt.key)
        was_called = known is not None and known.called == task_id
        self._owned.accepted(task_id, attempt, now=now)
        self._drop(attempt)
        self._take(task_id, now)
        return was_called

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

    def owned(self, task_id: str, *, now: float, attempt: Attempt | None = None) -> None:
        """
        Note that a job has this task, whichever way it came by it; `attempt` is the one that bought it, if known.
        """
        self._owned.add(task_id, attempt, now=now)
        self._take(task_id, now)

    def adopted(self, adopt: Adopt, *, now: float) -> None:
        """
        Confirm a decision to adopt: the claim is in the journal.
        """
        self._drop(adopt.attempt)
        self.owned(adopt.task_id, now=now, attempt=adopt.attempt)

    def rejected(self, adopt: Adopt, *, now: float) -> None:
        """
        Take a decision to adopt back: by the journal, the task is another job's.
        """
        self.owned(adopt.task_id, now=now)

    # --- what to ask, and when ---

    def next_due_at(self) -> float | None:
        """
        Return when the next listing is wanted, or None while no outcome is unknown.
        """
        due_at = min((self._due_at(unknown) for unknown in self._unknown()), default=None)
        spacing = max(SPACING * self.grace, SHORTEST)
        return due_at if due_at is None else max(due_at, self._asked_at + spacing)

    def _due_at(self, unknown: OpenAttempt) -> float:
        if unknown.soon or unknown.ended_at is None:
            return unknown.asked_at
        looks = (unknown.ended_at + share * self.grace for share in LOOKS)
        return next((at for at in looks if at > unknown.asked_at), unknown.asked_at + LATER * self.grace)

    def listing(self, now: float) -> Listing:
        """
        Return what to list; where no answer comes, it is simply due again a little later.
        """
        self._asked_at = now
        since = [one.reach - self._owned.margin - one.attempt.doubt for one in self._open.values()]
        if not self._proven:  # so that a task known to be accepted can be the proof
            since += self._owned.named_since()
        return Listing(created_from=min(since, default=0.0), asked_at=now)

    def trace_ids(self) -> list[str]:
        """
        Return the trace ids to look up, which is quicker than a listing and leaves no doubt.
        """
        return [unknown.trace_id for unknown in self._unknown() if unknown.trace_id]

    # --- what comes back ---

    def listed(
        self,
        listing: Listing,
        records: Sequence[object],
        *,
        well_formed: bool,
        complete: bool,
        received_at: float | None = None,
    ) -> list[Decision]:
        """
        Decide, after an answer to a listing, about every attempt that it settles.

        Args:
            records: the items of all pages as they came, of any type, twice, too old, or strangers'.
            well_formed: whether every answer was one that a listing gives; False for a 4xx, or no list of items.
            complete: whether the pages were read to the end.
            received_at: when the last of them came in; None says at once.
        """
        received_at = listing.asked_at if received_at is None else received_at
        tasks, clean = read_tasks(records)
        self._proven = self._proven or (well_formed and bool(tasks))
        evidence = (
            well_formed and complete and clean and self._owned.are_shown(listing, tasks, grace=self.grace)
        )
        self._compare_clocks(tasks)
        decisions = self._adopt_traced(tasks.values())
        groups, free = self._groups(), [task for task in tasks.values() if self._is_free(task.id)]
        found = [
            (members, self._find(members, free))
            for members in groups
            if any(member.undecided for member in members)
        ]
        held = self._held(groups, {task.id: task for _, matches in found for task, _ in matches}.values())
        for members, matches in found:
            same = [task for task, verdict in matches if verdict is Verdict.SAME and task.id not in held]
            decisions += self._assign(members, same, received_at)
            rest = [task for task, _ in matches if task.id not in self._claims]
            answer = Answer(listing, evidence, held, rest, self._owned.margin)
            for unknown in [member for member in members if member.undecided]:
                decisions += self._judge(unknown, answer)
        return decisions

    def seen(self, record: object) -> None:
        """
        Take a record that came some other way: if a reply has named its task, it tells how the clocks differ.
        """
        if self._owned.behind is None:
            self._compare_clocks(read_tasks([record])[0])

    def has_bought(self, task_id: str, attempt: Attempt) -> bool | None:
        """
        Tell whether a job that has this task asked for the same; None where no job has it, as far as is known.
        """
        return self._owned.has_bought(task_id, attempt.asked)

    def in_question(self) -> set[str]:
        """
        Return the ids of tasks that stand in the way of a decision; should they be another's, tell `owned`.
        """
        return {task_id for unknown in self._unknown() for task_id in unknown.possible}

    def looked_up(self, trace_id: str, record: object) -> list[Decision]:
        """
        Decide after a look-up by trace id; None, or a record of another trace, proves nothing.
        """
        if not isinstance(record, Mapping):
            return []
        return self._adopt_traced(read_tasks([{"trace_id": trace_id, **record}])[0].values())

    def called_back(self, nonce: str, task_id: str) -> list[Decision]:
        """
        Decide after a callback with an attempt's nonce; one that beats the submit's answer is kept till then.
        """
        attempt = self._nonces.get(nonce)
        if attempt is None:
            return []
        attempt.called = task_id
        return self._claim(attempt, task_id) if attempt.undecided else []

    def confirmed(self, adopt: Adopt, record: object) -> bool:
        """
        Tell whether the API's own record of a task that a callback named lets the attempt have it.

        Where it does not, or there is no such record, the attempt is undecided again.
        """
        unknown = self._claims.get(adopt.task_id)
        if unknown is None or unknown.attempt != adopt.attempt:
            return False
        task = read_tasks([record])[0].get(adopt.task_id)
        if task is not None and unknown.judge(task) is not Verdict.DIFFERENT:
            return True
        del self._claims[adopt.task_id]
        unknown.claim = unknown.called = None
        return False

    # --- presence ---

    def _adopt_traced(self, tasks: Iterable[Task]) -> list[Decision]:
        traced = {unknown.trace_id: unknown for unknown in self._unknown() if unknown.trace_id}
        decisions: list[Decision] = []
        for task in tasks if traced else ():
            trace_id = task.raw.get("trace_id")
            unknown = traced.get(trace_id) if isinstance(trace_id, str) else None
            if not unknown or not task.may_be_since(unknown.reach):
                continue  # some gateways give every answer the same trace id
            if unknown.judge(task) is not Verdict.DIFFERENT:
                decisions += self._claim(unknown, task.id, task.raw)
        return decisions

    def _groups(self) -> list[list[OpenAttempt]]:
        """
        Put identical attempts together.
        """
        groups: dict[str, list[OpenAttempt]] = {}
        for attempt in self._open.values():
            groups.setdefault(attempt.mark, []).append(attempt)
        return [*groups.values()]

    def _find(self, members: Sequence[OpenAttempt], tasks: Sequence[Task]) -> list[tuple[Task, Verdict]]:
        """
        Return the tasks that may be one's of a group of identical attempts.
        """
        undecided = [member for member in members if member.undecided]
        reach = min(member.reach - member.attempt.doubt for member in undecided) - self._owned.margin
        return undecided[0].candidates(task for task in tasks if task.may_be_since(reach))

    def _held(self, groups: Iterable[Sequence[OpenAttempt]], tasks: Collection[Task]) -> set[str]:
        """
        Return the ids of tasks that a submit still in flight may have bought.
        """
        held: set[str] = set()
        for members in groups if tasks else ():
            in_flight = [member for member in members if member.in_flight]
            if in_flight:
                since = min(member.since for member in in_flight)
                matches = in_flight[0].candidates(task for task in tasks if task.may_be_since(since))
                held.update(task.id for task, _ in matches)
        return held

    def _assign(
        self, members: Sequence[OpenAttempt], same: Sequence[Task], received_at: float
    ) -> list[Decision]:
        """
        Give the oldest tasks to the attempts that ended first.
        """
        undecided = sorted(
            (member for member in members if member.undecided),
            key=lambda member: member.ended_at or 0.0,
        )
        decisions: list[Decision] = []
        for task in sorted(same, key=lambda task: task.created_at or 0.0):
            takers = (member for member in undecided if member.may_have(task, received_at=received_at))
            taker = next(takers, None)
            if taker:
                undecided.remove(taker)
                decisions += self._claim(taker, task.id, task.raw)
                self._pass_on(members, task, taker)
        return decisions

    def _pass_on(self, members: Iterable[OpenAttempt], task: Task, taker: OpenAttempt) -> None:
        """
        Let those whose task this may have been take the taker's instead, should it turn up.
        """
        for member in members:
            if taker.reach < member.reach and task.may_be_since(member.reach):
                farthest = (
                    member.since - PATIENCE * self.grace
                )  # lest it go back for ever, from one to the next
                member.reach = max(taker.reach, min(member.reach, farthest))

    def _claim(
        self, unknown: OpenAttempt, task_id: str, record: Mapping[str, Any] | None = None
    ) -> list[Decision]:
        if unknown.claim or not self._is_free(task_id):
            return []
        unknown.claim = task_id
        self._claims[task_id] = unknown
        return [Adopt(attempt=unknown.attempt, task_id=task_id, record=record)]

    # --- absence ---

    def _judge(self, unknown: OpenAttempt, answer: Answer) -> list[Decision]:
        """
        Decide about an attempt that was given no task.
        """
        if not answer.counts_for(unknown):
            return []
        mine = answer.possible(unknown)
        unknown.possible = tuple(task.id for task in mine)
        waits = any(task.id in answer.held for task in mine)
        elapsed = unknown.elapsed(answer.listing.asked_at)
        unknown.asked_at = answer.listing.asked_at
        unknown.late += elapsed >= self.grace
        unknown.absences += answer.evidence and not mine
        unknown.soon = waits or not answer.evidence or not self._proven
        if waits or elapsed < self.grace:
            return []
        return self._end(unknown, elapsed, mine, evidence=answer.evidence)

    def _end(
        self, unknown: OpenAttempt, elapsed: float, possible: Sequence[Task], *, evidence: bool
    ) -> list[Decision]:
        """
        Send again, give up, or wait on, once the grace is over.
        """
        decision: Decision | None = None
        candidates = unknown.possible
        if evidence and any(task.may_be_since(unknown.reach) for task in possible):
            decision = GiveUp(attempt=unknown.attempt, candidates=candidates, reason=UNCLEAR)
        elif (
            evidence and not possible and unknown.absences > 1 and self._may_go(unknown.attempt.key, elapsed)
        ):
            decision = SendAgain(attempt=unknown.attempt)
        elif elapsed >= PATIENCE * self.grace and unknown.late >= ENOUGH:
            reason = USELESS if not evidence else OLDER if possible else EMPTY
            decision = GiveUp(attempt=unknown.attempt, candidates=candidates, reason=reason)
        if decision is None:
            return []
        self._drop(unknown.attempt)
        return [decision]

    def _compare_clocks(self, tasks: Mapping[str, Task]) -> None:
        more = self._owned.compare_clocks(tasks)
        for attempt in self._open.values() if more else ():
            attempt.since -= more
            attempt.reach -= more

    def _may_go(self, key: str, elapsed: float) -> bool:
        """
        Tell whether absence from the listing means anything, or this job is the one to find out.
        """
        if self._proven:
            return True
        in_flight = any(attempt.in_flight for attempt in self._open.values())
        accepted = any(True for _ in self._owned.named_since())
        if self._first is not None or accepted or (in_flight and elapsed < 2 * self.grace):
            return False
        self._first = key
        return True

    # --- keeping ---

    def _is_free(self, task_id: str) -> bool:
        return task_id not in self._owned and task_id not in self._claims

    def _unknown(self) -> Iterator[OpenAttempt]:
        return (attempt for attempt in self._open.values() if attempt.undecided)

    def _add(self, attempt: Attempt, *, told_at: float) -> OpenAttempt:
        before = self._open.get(attempt.key)
        self._drop(attempt)
        added = OpenAttempt(attempt, since=self._owned.since(attempt), told_at=told_at)
        if before and before.attempt.number == attempt.number:  # only its time is known better now
            added.called = before.called
        self._open[attempt.key] = added
        if attempt.nonce is not None:
            self._nonces[attempt.nonce] = added
        return added

    def _drop(self, attempt: Attempt) -> None:
        dropped = self._open.pop(attempt.key, None)
        if dropped is None:
            return
        if dropped.attempt.nonce is not None:
            self._nonces.pop(dropped.attempt.nonce, None)
        if dropped.claim is not None:
            self._claims.pop(dropped.claim, None)

    def _take(self, task_id: str, now: float) -> None:
        claimant = self._claims.pop(task_id, None)
        if claimant:
            claimant.claim = claimant.called = None  # another job has it: this one is undecided again
        if self._owned.is_full:
            self._forget(now)

    def _forget(self, now: float) -> None:
        """
        Forget tasks that were owned so long ago that no attempt could be taken for theirs.
        """
        told_at = (attempt.told_at - 2 * attempt.attempt.uncertainty for attempt in self._open.values())
        reach = self.skew + PATIENCE * self.grace + self._owned.margin
        self._owned.forget_before(min(told_at, default=now) - reach)

    def __repr__(self) -> str:
        unknown = sum(1 for _ in self._unknown())
        return f"<Reconciler: {unknown} unknown, {len(self._open)} open, {len(self._claims)} claimed>"

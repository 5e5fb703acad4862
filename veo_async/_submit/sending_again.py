"""
What happens to submits whose outcome is unknown: adopt the task, wait, send again, or give up.

Nothing here waits or reads a clock. `Reconciler` is told of accepted tasks and of attempts of unknown outcome, asks
for listings of the account's own tasks at `next_due_at()`, and answers each with the decisions that follow from it.

*Presence.* A record with an attempt's mark is its task, and a record without it is not. Nothing else counts.

*Absence.* Two whole listings must lack the mark, the second asked for at least `grace` after the attempt ended.
And such a listing must show, with a mark, each task that this session knows to have been accepted in that time.
Where one is missing, the listing is read again without a filter before anything is concluded.
A server that accepts, or lists, later than `grace` defeats this; that risk remains.

*No mark at all.* Where no listing has ever shown a mark, one that lacks a mark proves nothing. One job is then sent
alone, and the others wait until a record shows a mark. An attempt that may have bought one of the unmarked tasks does
not go first. So it takes a listing that shows nothing at all to buy a video twice, and then one.

*An answer that named a task* is evidence of a purchase. Where no record bears it out, the job is given up, with
that task as a candidate, and never sent again.

All times but `unix` are by the caller's own clock, which never jumps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from attrs import define, field, frozen

from .._api.marks import mark_of
from .listed_tasks import HOUR, Listing, ShownTasks

__all__ = ["Adopt", "Attempt", "Decision", "GiveUp", "Listing", "Reconciler", "SendAgain"]

# When to list, in graces after the end: most tasks show at once.
LOOKS: Final = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
LATER: Final = 1 / 2  # then every half grace
SPACING: Final = 1 / 8  # one listing serves all attempts, so it need not follow the last one closer than this
SHORTEST: Final = 0.05  # seconds; for a grace of zero
PATIENCE: Final = 5  # graces after the end: a listing that has proved nothing by then is given up …
ENOUGH: Final = 3  # … provided that it was answered this often after the grace: an outage is no answer

UNMARKED: Final = "the submit carried no mark, so nobody can tell which task is its own"
HIDDEN: Final = "the account's listing does not show the marks that submits carry, so nobody can tell"
NAMED: Final = "the answer named a task that is not this submit's by any record"
USELESS: Final = "the account's listing is off, incomplete, or lacks an accepted task: it proves nothing"
NEVER_SEEN: Final = "the account's listing has never shown a mark, so that one is missing proves nothing"


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit, or the question whether another process has sent it: then its number is most often 0.
    """

    key: str
    number: int
    began_at: float  # before the clock's zero where a crash lies in between
    reach: float = HOUR  # seconds before that from which on its task may be dated
    first: int = 1  # the number of this purchase's first attempt; those before have bought what has failed
    mark: str | None = None  # the label in its callback URL, if it carries one
    skip_failed: bool = False  # whether tasks that have failed do not count
    may_send: bool = True  # whether the job has a request
    own_url: str | None = None  # the request's own callback URL, whose fragment carries the mark


# --- decisions -----------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Adopt:
    """
    The task is the attempt's: claim it in the journal, then tell `adopted` or `rejected`.
    """

    attempt: Attempt
    task_id: str
    others: tuple[str, ...] = ()  # further tasks with a mark of this key, which were paid for, too


@frozen(kw_only=True)
class SendAgain:
    """
    The attempt bought nothing: the job may be sent again, as a new attempt.
    """

    attempt: Attempt


@frozen(kw_only=True)
class GiveUp:
    """
    Nobody can tell: the job settles, and its key may be taken up again later.
    """

    attempt: Attempt
    candidates: tuple[str, ...]
    reason: str


Decision: TypeAlias = Adopt | SendAgain | GiveUp


@define(eq=False)
class _Unknown:
    """
    An attempt of unknown outcome.
    """

    attempt: Attempt
    name: str
    ended_at: float
    named: str | None = None  # the task that its answer named, where that is in doubt
    asked_at: float = -math.inf  # of the last listing that was answered
    absences: int = 0  # whole listings that lacked its mark beyond doubt
    late: int = 0  # listings that were asked for after its grace
    rejected: set[str] = field(factory=set)  # tasks with its mark that are another purchase's, by the journal


# --- the reconciler ------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class Reconciler:
    """
    Decides about attempts of unknown outcome.

    Attributes:
        grace: how long after an attempt's end its task may yet show in a listing, in seconds.
        recall: how many seconds are looked back over where nothing tells better.
    """

    grace: float
    recall: float
    _unknown: dict[str, _Unknown] = field(init=False, factory=dict)
    _accepted: dict[str, float] = field(init=False, factory=dict)  # tasks, and when that was known
    _prune_at: int = field(init=False, default=1000)
    _shown: ShownTasks = field(init=False)
    _asked_at: float = field(init=False, default=-math.inf)
    _begun_at: float = field(init=False, default=-math.inf)  # reading, from nothing
    _everything: bool = field(init=False, default=False)  # read without a filter
    _last_accepted_at: float = field(init=False, default=-math.inf)
    _first: str | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._shown = ShownTasks(self.grace)

    def __repr__(self) -> str:
        return f"<Reconciler: {len(self._unknown)} unknown, {len(self._shown)} tasks shown>"

    # --- how submits go ---

    def accepted(self, task_id: str, *, now: float) -> None:
        """
        Note that a marked submit's answer named its task: from now on listings should show it.
        """
        self._accepted[task_id] = self._last_accepted_at = now
        if len(self._accepted) >= self._prune_at:
            self._forget_old(now)

    def knows(self, task_id: str) -> bool:
        """
        Tell whether a task was accepted lately.
        """
        return task_id in self._accepted

    def last_number(self, key: str) -> int:
        """
        Return the highest number of an attempt of this key that a record has shown, or 0.
        """
        tasks = self._shown.of_name(mark_of(key), first=0, skip_failed=False)
        return max((task.number for task in tasks), default=0)

    def gone(self, task_id: str) -> None:
        """
        Note that a task need not be shown: the server no longer knows it, or it was never what it seemed.
        """
        self._accepted.pop(task_id, None)

    def closed(self, key: str) -> None:
        """
        Note that a job sent alone has bought nothing, so that another may go first.
        """
        if self._first == key:
            self._first = None

    def unknown(self, attempt: Attempt, *, now: float, named: str | None = None) -> list[Decision]:
        """
        Note that the attempt ended, and that nobody knows how; decides at once what is known already.

        Args:
            named: the task that its answer named, where that is another's, or shows another's mark.
        """
        unknown = self._unknown[attempt.key] = _Unknown(attempt, mark_of(attempt.key), now, named)
        return self._adopt(unknown)

    def adopted(self, adopt: Adopt, *, now: float) -> None:
        """
        Confirm a decision to adopt: the claim is in the journal.
        """
        self._unknown.pop(adopt.attempt.key, None)
        if self._shown.shows(adopt.task_id):  # else a listing may begin after it
            self.accepted(adopt.task_id, now=now)

    def rejected(self, adopt: Adopt) -> list[Decision]:
        """
        Take a decision to adopt back: by the journal, the task is another purchase's.
        """
        unknown = self._unknown[adopt.attempt.key]
        unknown.named = adopt.task_id
        unknown.rejected.add(adopt.task_id)
        return self._adopt(unknown)

    # --- what to ask, and when ---

    def next_due_at(self) -> float | None:
        """
        Return when the next listing is wanted, or None while no outcome is unknown.
        """
        due_at = min((self._due_at(unknown) for unknown in self._unknown.values()), default=None)
        spacing = max(SPACING * self.grace, SHORTEST)
        return due_at if due_at is None else max(due_at, self._asked_at + spacing)

    def _due_at(self, unknown: _Unknown) -> float:
        looks = (unknown.ended_at + share * self.grace for share in LOOKS)
        return next((at for at in looks if at > unknown.asked_at), unknown.asked_at + LATER * self.grace)

    def listing(self, now: float, *, unix: float) -> Listing:
        """
        Return what to list; where no answer comes, it is simply due again a little later.

        Args:
            unix: what time it is in Unix seconds, as far as is known.
        """
        self._asked_at = now
        if now - self._begun_at > self.recall:  # what was shown is kept no longer than that
            self._shown = ShownTasks(self.grace)
        need = -math.inf if self._everything else min(map(self._since, self._unknown.values()), default=now)
        continues_from = self._shown.continues_from(sure=not self._everything)
        if self._shown.reaches_back_to <= need and continues_from is not None:
            return Listing(asked_at=now, unix=unix, created_from=continues_from, since=None)
        self._begun_at = now
        created_from = None if need == -math.inf else unix - (now - need)
        return Listing(asked_at=now, unix=unix, created_from=created_from, since=need)

    def _since(self, unknown: _Unknown) -> float:
        """
        Return the moment from which on its task may be dated.
        """
        attempt = unknown.attempt
        # A task accepted since then tells whether the filter goes by the same clock; without one, look far back.
        sure = self._last_accepted_at >= attempt.began_at
        return attempt.began_at - (attempt.reach if sure else max(attempt.reach, self.recall))

    # --- what comes back ---

    def looked_up(self, record: object) -> list[Decision]:
        """
        Take in a record that came some other way than in a listing.
        """
        self._shown.add(record)
        return [decision for unknown in self._unknown.values() for decision in self._adopt(unknown)]

    def listed(self, listing: Listing, records: Sequence[object], *, complete: bool) -> list[Decision]:
        """
        Decide, after an answer to a listing, about every attempt that it settles.

        Args:
            records: the items of all pages as they came, of any type, twice, or strangers'; none where it was refused.
            complete: whether the pages were read to the end.
        """
        whole = self._shown.take(listing, records, complete=complete)
        fault = self._fault_of(listing) if whole else USELESS
        decisions: list[Decision] = []
        for unknown in list(self._unknown.values()):
            decisions += self._adopt(unknown) or self._judge(unknown, listing, fault)
        return decisions

    def _fault_of(self, listing: Listing) -> str | None:
        """
        Say what a whole listing fails to show that it should; None where its silence is evidence.
        """
        since, until = self._shown.reaches_back_to + HOUR, listing.asked_at - self.grace
        due = [task_id for task_id, told_at in self._accepted.items() if since <= told_at <= until]
        shown = [self._shown.shows(task_id) for task_id in due]
        if False in shown:
            return HIDDEN
        if None not in shown and (due or self._shown.marked):
            return None
        if not self._everything:
            self._everything = True  # before anything is concluded
            return USELESS
        return USELESS if None in shown else NEVER_SEEN

    # --- deciding ---

    def _adopt(self, unknown: _Unknown) -> list[Decision]:
        """
        Take the task that shows the attempt's mark, if a record does.
        """
        attempt = unknown.attempt
        tasks = self._shown.of_name(unknown.name, first=attempt.first, skip_failed=attempt.skip_failed)
        free = [task.id for task in tasks if task.id not in unknown.rejected]
        return [Adopt(attempt=attempt, task_id=free[0], others=tuple(free[1:]))] if free else []

    def _judge(self, unknown: _Unknown, listing: Listing, fault: str | None) -> list[Decision]:
        """
        Decide about an attempt whose mark no record shows.
        """
        elapsed = listing.asked_at - unknown.ended_at
        if elapsed < 0:
            return []
        unknown.asked_at = listing.asked_at
        unknown.late += elapsed >= self.grace
        unknown.absences += fault in (None, NEVER_SEEN)
        if unknown.attempt.mark is None and fault != USELESS:
            return self._give_up(unknown, UNMARKED)
        if elapsed < self.grace:
            return []
        return self._end(unknown, elapsed, fault)

    def _end(self, unknown: _Unknown, elapsed: float, fault: str | None) -> list[Decision]:
        """
        Send again, give up, or wait on, once the grace is over.
        """
        reaches_back = self._shown.reaches_back_to <= self._since(unknown)
        absent = fault is None and unknown.absences > 1 and reaches_back
        if fault == HIDDEN or (absent and self._may_be_hidden(unknown)):
            return self._give_up(unknown, HIDDEN)
        if absent and unknown.named is None:
            return self._send_again(unknown)
        if absent:
            return self._give_up(unknown, NAMED)
        if fault == NEVER_SEEN and unknown.absences > 1 and self._may_go_first(unknown):
            return self._send_again(unknown)
        if elapsed >= PATIENCE * self.grace and unknown.late >= ENOUGH:
            return self._give_up(unknown, fault or USELESS)
        return []

    def _may_be_hidden(self, unknown: _Unknown) -> bool:
        """
        Tell whether a record may be its own, and lack the mark because fragments are cut off.
        """
        attempt = unknown.attempt
        seconds = self._asked_at - attempt.began_at + max(attempt.reach, HOUR)
        return attempt.own_url is not None and self._shown.may_hide(attempt.own_url, seconds)

    def _may_go_first(self, unknown: _Unknown) -> bool:
        """
        Tell whether this job is the one to find out whether listings show marks.
        """
        if self._first is not None or self._accepted or unknown.named or not unknown.attempt.may_send:
            return False
        if unknown.attempt.number and self._candidates(unknown):
            return False  # one of these may be its own, and not show the mark that it carries
        self._first = unknown.attempt.key
        return True

    def _send_again(self, unknown: _Unknown) -> list[Decision]:
        del self._unknown[unknown.attempt.key]
        return [SendAgain(attempt=unknown.attempt)]

    def _give_up(self, unknown: _Unknown, reason: str) -> list[Decision]:
        del self._unknown[unknown.attempt.key]
        named = (unknown.named,) if unknown.named else ()
        candidates = (*named, *self._candidates(unknown))
        return [GiveUp(attempt=unknown.attempt, candidates=candidates, reason=reason)]

    def _candidates(self, unknown: _Unknown) -> tuple[str, ...]:
        return self._shown.unmarked(self._asked_at - unknown.attempt.began_at + HOUR)

    def _forget_old(self, now: float) -> None:
        """
        Forget accepted tasks that no listing to come is asked about.
        """
        began_at = min((unknown.attempt.began_at for unknown in self._unknown.values()), default=now)
        since = min(began_at, now) - HOUR
        self._accepted = {task_id: at for task_id, at in self._accepted.items() if at >= since}
        self._prune_at = 2 * len(self._accepted) + 1000

"""
Decides about submits whose outcome is unknown: adopt the task, wait, send again, or give up.

Nothing here waits or reads a clock. `Reconciler` is told of accepted tasks and of attempts whose outcome is unknown.
It wants a listing of the account's own tasks at `next_due_at()`, and returns decisions for each listing it is given.

*Presence.* A record with an attempt's mark is that attempt's task; a record without it is not. Nothing else counts.

*Absence.* Two whole listings must lack the mark, the second asked for at least `grace` after the attempt ended.
Such a listing must also show, with a mark, each task that this session knows to have been accepted in that time.
If one is missing, the listing is read again without a filter before anything is concluded.
A server that accepts or lists a task later than `grace` defeats this proof; that risk remains.

*No mark at all.* If no listing has ever shown a mark, a listing without the mark proves nothing. Then one job is sent
alone, and the others wait until a record shows a mark. A job that may own one of the unmarked tasks is not chosen.
So a video is bought twice only if listings show nothing at all, and then at most one video is.

*An answer that named a task* is evidence of a purchase. If no record confirms it, the job is given up, with that
task as a candidate, and never sent again.

All times but `unix` are in seconds by the caller's own clock, which never jumps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeAlias

from attrs import define, field, frozen

from .._api.marks import mark_of
from .listed_tasks import HOUR, Listing, ShownTasks

__all__ = ["Adopt", "Attempt", "Decision", "GiveUp", "Listing", "Reconciler", "SendAgain"]

# In multiples of the grace, after the end of an attempt. Most tasks show at once.
LIST_AT: Final = (0.0, 1 / 8, 1 / 4, 1 / 2, 1.0)
THEN_EVERY: Final = 1 / 2
SPACING: Final = 1 / 8  # between two listings: one serves all attempts
MIN_SPACING: Final = 0.05  # seconds; for a grace of zero
# An attempt is given up after so many graces, provided that so many listings were answered after the first grace:
# an outage proves nothing.
GIVE_UP_AFTER: Final = 5
MIN_LATE_LISTINGS: Final = 3

UNMARKED: Final = "the submit carried no mark, so its task cannot be recognised"
HIDDEN: Final = "the account's listing hides the marks that submits carry, so its task cannot be recognised"
NAMED: Final = "the answer named a task, but no record shows that it belongs to this submit"
USELESS: Final = "the account's listing is off, incomplete, or lacks an accepted task: it proves nothing"
NEVER_SEEN: Final = "the account's listing has never shown a mark, so a missing mark proves nothing"


@frozen(kw_only=True)
class Attempt:
    """
    One sending of a submit; or, most often with the number 0, one that another process may have made.
    """

    key: str
    number: int
    began_at: float  # may be below the clock's zero if the process has crashed since
    reach: float = HOUR  # its task may be dated up to so many seconds before `began_at`
    first: int = 1  # the number of this purchase's first attempt; earlier ones belong to failed purchases
    mark: str | None = None  # the label in its callback URL, if it carries one
    skip_failed: bool = False  # whether to ignore failed tasks
    may_send: bool = True  # whether the job has a request
    own_url: str | None = None  # the request's own callback URL, whose fragment carries the mark


# --- decisions -----------------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Adopt:
    """
    The task belongs to the attempt: claim it in the journal, then call `adopted` or `rejected`.
    """

    attempt: Attempt
    task_id: str
    others: tuple[str, ...] = ()  # further tasks with a mark of this key, also paid for


@frozen(kw_only=True)
class SendAgain:
    """
    The attempt bought nothing: the job may be sent again, as a new attempt.
    """

    attempt: Attempt


@frozen(kw_only=True)
class GiveUp:
    """
    The outcome cannot be found out: the job settles, and its key may be resumed later.
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
    named: str | None = None  # the task that its answer named, if that is in doubt
    asked_at: float = -math.inf  # when the last answered listing was asked for
    absences: int = 0  # whole listings that certainly lacked its mark
    late_listings: int = 0  # listings that were asked for after its grace
    rejected: set[str] = field(factory=set)  # tasks with its mark that the journal gives to another purchase


# --- the reconciler ------------------------------------------------------------------------------------------


@define(eq=False, repr=False)
class Reconciler:
    """
    Decides about attempts of unknown outcome.

    Attributes:
        grace: a task shows in listings at most so many seconds after the end of its attempt.
        recall: how many seconds listings reach back when nothing allows a shorter range.
    """

    grace: float
    recall: float
    _unknown: dict[str, _Unknown] = field(init=False, factory=dict)
    _accepted: dict[str, float] = field(init=False, factory=dict)  # tasks, and when we knew of them
    _prune_at: int = field(init=False, default=1000)
    _shown: ShownTasks = field(init=False)
    _asked_at: float = field(init=False, default=-math.inf)
    _restarted_at: float = field(init=False, default=-math.inf)  # when listings last started over
    _unfiltered: bool = field(init=False, default=False)  # list all tasks
    _last_accepted_at: float = field(init=False, default=-math.inf)
    _sent_alone: str | None = field(init=False, default=None)  # a key, sent to see whether marks show

    def __attrs_post_init__(self) -> None:
        self._shown = ShownTasks(self.grace)

    def __repr__(self) -> str:
        return f"<Reconciler: {len(self._unknown)} unknown, {len(self._shown)} tasks shown>"

    # --- how submits go ---

    def accepted(self, task_id: str, *, now: float) -> None:
        """
        Note that the answer to a marked submit named its task: listings should now show it.
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
        Note that listings need not show a task: the server no longer knows it, or it was another job's.
        """
        self._accepted.pop(task_id, None)

    def closed(self, key: str) -> None:
        """
        Note that a job sent alone has bought nothing, so another one may be sent.
        """
        if self._sent_alone == key:
            self._sent_alone = None

    def unknown(self, attempt: Attempt, *, now: float, named: str | None = None) -> list[Decision]:
        """
        Note that an attempt ended with an unknown outcome; returns a decision if its task is known already.

        Args:
            named: the task that its answer named, if that belongs to another job or shows another job's mark.
        """
        unknown = self._unknown[attempt.key] = _Unknown(attempt, mark_of(attempt.key), now, named)
        return self._adopt(unknown)

    def adopted(self, adopt: Adopt, *, now: float) -> None:
        """
        Confirm a decision to adopt: the claim is in the journal.
        """
        self._unknown.pop(adopt.attempt.key, None)
        if self._shown.shows(adopt.task_id):  # otherwise the next listing may begin after it
            self.accepted(adopt.task_id, now=now)

    def rejected(self, adopt: Adopt) -> list[Decision]:
        """
        Revoke a decision to adopt: the journal gives the task to another purchase.
        """
        unknown = self._unknown[adopt.attempt.key]
        unknown.named = adopt.task_id
        unknown.rejected.add(adopt.task_id)
        return self._adopt(unknown)

    # --- what to ask, and when ---

    def next_due_at(self) -> float | None:
        """
        Return when the next listing is wanted; None while every outcome is known.
        """
        due_at = min((self._due_at(unknown) for unknown in self._unknown.values()), default=None)
        spacing = max(SPACING * self.grace, MIN_SPACING)
        return due_at if due_at is None else max(due_at, self._asked_at + spacing)

    def _due_at(self, unknown: _Unknown) -> float:
        looks = (unknown.ended_at + share * self.grace for share in LIST_AT)
        return next((at for at in looks if at > unknown.asked_at), unknown.asked_at + THEN_EVERY * self.grace)

    def listing(self, now: float, *, unix: float) -> Listing:
        """
        Return what to list; without an answer, it is due again a little later.

        Args:
            unix: the current time in Unix seconds, as far as is known.
        """
        self._asked_at = now
        if now - self._restarted_at > self.recall:  # what was shown is not kept longer
            self._shown = ShownTasks(self.grace)
        need = -math.inf if self._unfiltered else min(map(self._since, self._unknown.values()), default=now)
        continues_from = self._shown.continues_from(sure=not self._unfiltered)
        if self._shown.reaches_back_to <= need and continues_from is not None:
            return Listing(asked_at=now, unix=unix, created_from=continues_from, since=None)
        self._restarted_at = now
        created_from = None if need == -math.inf else unix - (now - need)
        return Listing(asked_at=now, unix=unix, created_from=created_from, since=need)

    def _since(self, unknown: _Unknown) -> float:
        """
        Return the earliest time at which its task may be dated.
        """
        attempt = unknown.attempt
        # Only a task accepted since then shows whether the filter uses the same clock; without one, look far back.
        sure = self._last_accepted_at >= attempt.began_at
        return attempt.began_at - (attempt.reach if sure else max(attempt.reach, self.recall))

    # --- what comes back ---

    def looked_up(self, record: object) -> list[Decision]:
        """
        Take in a record that did not come from a listing.
        """
        self._shown.add(record)
        return [decision for unknown in self._unknown.values() for decision in self._adopt(unknown)]

    def listed(self, listing: Listing, records: Sequence[object], *, complete: bool) -> list[Decision]:
        """
        Take in the answer to a listing; returns a decision for every attempt that it settles.

        Args:
            records: the items of all pages, unchecked: of any type, repeated, or strangers'; none if it was refused.
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
        Say why a missing mark proves nothing in this whole listing; None if it is evidence.
        """
        since, until = self._shown.reaches_back_to + HOUR, listing.asked_at - self.grace
        due = [task_id for task_id, told_at in self._accepted.items() if since <= told_at <= until]
        shown = [self._shown.shows(task_id) for task_id in due]
        if False in shown:
            return HIDDEN
        if None not in shown and (due or self._shown.marked):
            return None
        if not self._unfiltered:
            self._unfiltered = True  # before concluding anything
            return USELESS
        return USELESS if None in shown else NEVER_SEEN

    # --- deciding ---

    def _adopt(self, unknown: _Unknown) -> list[Decision]:
        """
        Adopt the task that shows the attempt's mark, if there is one.
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
        unknown.late_listings += elapsed >= self.grace
        unknown.absences += fault in (None, NEVER_SEEN)
        if unknown.attempt.mark is None and fault != USELESS:
            return self._give_up(unknown, UNMARKED)
        if elapsed < self.grace:
            return []
        return self._end(unknown, elapsed, fault)

    def _end(self, unknown: _Unknown, elapsed: float, fault: str | None) -> list[Decision]:
        """
        Send again, give up, or keep waiting, once the grace is over.
        """
        reaches_back = self._shown.reaches_back_to <= self._since(unknown)
        absent = fault is None and unknown.absences > 1 and reaches_back
        if fault == HIDDEN or (absent and self._may_be_hidden(unknown)):
            return self._give_up(unknown, HIDDEN)
        if absent and unknown.named is None:
            return self._send_again(unknown)
        if absent:
            return self._give_up(unknown, NAMED)
        if fault == NEVER_SEEN and unknown.absences > 1 and self._may_send_alone(unknown):
            return self._send_again(unknown)
        if elapsed >= GIVE_UP_AFTER * self.grace and unknown.late_listings >= MIN_LATE_LISTINGS:
            return self._give_up(unknown, fault or USELESS)
        return []

    def _may_be_hidden(self, unknown: _Unknown) -> bool:
        """
        Tell whether one of the records may belong to it, without the mark because fragments are cut off.
        """
        attempt = unknown.attempt
        seconds = self._asked_at - attempt.began_at + max(attempt.reach, HOUR)
        return attempt.own_url is not None and self._shown.may_hide(attempt.own_url, seconds)

    def _may_send_alone(self, unknown: _Unknown) -> bool:
        """
        Tell whether to send this job alone, to find out whether listings show marks.
        """
        if self._sent_alone is not None or self._accepted or unknown.named or not unknown.attempt.may_send:
            return False
        if unknown.attempt.number and self._candidates(unknown):
            return False  # one of these may belong to it, without showing its mark
        self._sent_alone = unknown.attempt.key
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
        Forget accepted tasks that no future listing has to show.
        """
        began_at = min((unknown.attempt.began_at for unknown in self._unknown.values()), default=now)
        since = min(began_at, now) - HOUR
        self._accepted = {task_id: at for task_id, at in self._accepted.items() if at >= since}
        self._prune_at = 2 * len(self._accepted) + 1000

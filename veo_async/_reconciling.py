"""
The driver of `_reconcile`: asks the listings it wants, and carries out what it decides.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from attrs import define, evolve, field

from ._answers import Accepted
from ._http import Http
from ._journal import AlreadyClaimed
from ._lane import sleep
from ._listing import PAGE, or_none
from ._reconcile import Adopt, Attempt, Decision, GiveUp, Listing, Reconciler, SendAgain
from ._submission import Submission, SubmitterHost
from ._submit import UNCERTAIN, Submitters
from ._wire import task_id_of, trace_id_of
from .errors import ApiError, BadRequest, JournalError, ProtocolError, TransportError

__all__ = ["Reconciling"]

# Seconds: between two processes the local clock may have been set by an hour; or, which is rarer, by hours, where
# one of them took local time for universal time.
AFTER_A_CRASH: Final = 3700.0
AFTER_A_CLOCK_WAS_SET: Final = 86_400.0
MOST_PAGES: Final = 2000  # of 50 records: a listing that goes on for ever is broken

log = logging.getLogger("veo_async")


@define(eq=False)
class Reconciling:
    """
    Finds out what became of attempts that nobody answered.
    """

    http: Http
    reconciler: Reconciler
    submitters: Submitters
    host: SubmitterHost
    _unknown: dict[str, Submission] = field(init=False, factory=dict)
    _unclocked: list[Submission] = field(init=False, factory=list)
    _decisions: deque[Decision] = field(init=False, factory=deque)
    _woken: asyncio.Event = field(init=False, factory=asyncio.Event)
    _answered: int = field(init=False, default=0)  # questions, when the listing was last asked for

    def add(self, submission: Submission, trace_id: str | None = None) -> None:
        """
        Take up an attempt of unknown outcome.
        """
        attempt = submission.attempt
        assert attempt is not None, "only what was sent can be unknown"
        self._unknown[attempt.key] = submission
        submission.trace_id = trace_id
        if attempt.uncertainty:
            self._unclocked.append(submission)
        else:
            self._clock(submission)
        self._woken.set()

    def find(self, key: str) -> Submission | None:
        """
        Find the submission of a key whose attempt has an unknown outcome.
        """
        return self._unknown.get(key)

    def called_back(self, nonce: str, task_id: str) -> None:
        """
        Take a callback that carries an attempt's nonce.
        """
        if decisions := self.reconciler.called_back(nonce, task_id):
            self._decisions += decisions
            self._woken.set()

    async def run(self) -> None:
        """
        Reconcile until cancelled.
        """
        while True:
            while self._decisions:
                await self._carry_out(self._decisions.popleft())
            due_at = self.reconciler.next_due_at()
            if self._unclocked:
                await self._set_the_clock()
            elif due_at is not None and due_at <= self._now():
                await self._ask()
            else:
                await sleep(self._woken, until=due_at)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    # --- asking -----------------------------------------------------------------------------------------

    async def _set_the_clock(self) -> None:
        """
        Learn what time it is at the server, so that it is known which records come into question.
        """
        if self.http.clock.at(self._now()) is None:
            try:
                await self._look_for_proof()
            except TransportError as error:
                log.info("waiting for the server, to find out what became of submits: %s", error)
                return
        unclocked, self._unclocked = self._unclocked, []
        for submission in unclocked:
            self._clock(submission)

    def _clock(self, submission: Submission) -> None:
        """
        Hand an attempt to the reconciler, with what is known by now of when it was made.
        """
        attempt = submission.attempt = self._clocked(submission)
        if submission.began_at is not None:
            self.reconciler.sending(attempt, now=submission.began_at)
        trace_id = submission.trace_id
        self._decisions += self.reconciler.unknown(attempt, now=self._now(), trace_id=trace_id)

    def _clocked(self, submission: Submission) -> Attempt:
        attempt, clock, now = submission.attempt, self.http.clock, self._now()
        assert attempt is not None
        server_now = clock.at_the_earliest(now)
        if server_now is None:  # answers came, and none with a `Date`
            return attempt
        if submission.began_at is not None:
            began_at = server_now - (now - submission.began_at)
            known = math.inf if attempt.uncertainty else attempt.began_at
            return evolve(attempt, began_at=min(began_at, known), uncertainty=0.0, doubt=clock.spread)
        if not attempt.uncertainty:
            return evolve(attempt, doubt=clock.spread)
        # After a crash only the local clock tells when it was, and it is compared with itself.
        ago = clock.wall() - submission.sent_at
        unsure = AFTER_A_CRASH if ago >= 0.0 else UNCERTAIN  # it was before now, so somebody set the clock
        began_at = server_now - max(0.0, ago)
        return evolve(attempt, began_at=began_at, uncertainty=unsure, doubt=AFTER_A_CLOCK_WAS_SET)

    async def _ask(self) -> None:
        """
        Look up what can be looked up, list the rest, and decide.
        """
        for trace_id in self.reconciler.trace_ids():
            await self._look_up(trace_id)
        listing = self.reconciler.listing(self._now())
        try:
            if not self.reconciler.proven:
                await self._look_for_proof()
            records, complete = await self._list(listing)
        except BadRequest as error:
            self._useless(listing, error)
        except (ApiError, TransportError) as error:
            # While nothing else is answered either, this is an outage, and says nothing of the listing.
            if self.http.answered > self._answered:
                self._useless(listing, error)
            else:
                log.info("a listing failed, and is asked for again: %s", error)
        else:
            self._decisions += self.reconciler.listed(
                listing, records, well_formed=True, complete=complete, received_at=self._now()
            )
            await self._ask_the_journal()
        self._answered = self.http.answered

    async def _look_up(self, trace_id: str) -> None:
        """
        Ask for a task by its trace id, once: the listing will tell, too.
        """
        try:
            record = await or_none(self.http.ask({"action": "retrieve", "trace_id": trace_id}))
        except (ApiError, TransportError) as error:
            log.info("a look-up by trace id failed: %s", error)
        else:
            self._decisions += self.reconciler.looked_up(trace_id, record)

    def _useless(self, listing: Listing, error: Exception) -> None:
        log.warning("the listing is off: %s", error)
        self._decisions += self.reconciler.listed(listing, [], well_formed=False, complete=False)

    async def _ask_the_journal(self) -> None:
        """
        Tell the reconciler which of the tasks that stand in its way an earlier process has bought.
        """
        journal = self.submitters.journal
        if journal is None:
            return
        for task_id in self.reconciler.in_question():
            with suppress(JournalError):  # then it stands in the way for longer
                if await journal.find_task(task_id):
                    self.reconciler.owned(task_id, now=self._now())

    async def _look_for_proof(self) -> None:
        """
        Ask for some record of this account, however old: it proves that the listing works.
        """
        try:
            page = await self._page(0)
        except (ApiError, ProtocolError):
            return
        # It reaches back to no particular time, so it says nothing of absence.
        anything = Listing(created_from=math.inf, asked_at=self._now())
        self._decisions += self.reconciler.listed(anything, page, well_formed=True, complete=False)

    async def _list(self, listing: Listing) -> tuple[list[object], bool]:
        """
        Read all pages, with everything on them as it came; tells whether that was to the end.
        """
        records: list[object] = []
        known: set[str | None] = {None}
        for _ in range(MOST_PAGES):
            page = await self._page(len(records), created_at_min=listing.created_from)
            overlap = _overlap(records, page)
            ids = {task_id_of(record) for record in page}
            if ids <= known:
                # Nothing new: the end, pushed down by new tasks. The whole once more: `offset` was not heeded.
                return records + page[overlap:], not page or overlap == len(page) < len(records)
            records += page[overlap:]
            if len(records) > MOST_PAGES * PAGE:
                break
            known |= ids
        return records, False

    async def _page(self, offset: int, **filters: float) -> list[object]:
        question = {"action": "retrieve_batch", "offset": offset, "limit": PAGE, **filters}
        answer = await self.http.read(question)
        items = answer.get("items") if isinstance(answer, dict) else answer
        if not isinstance(items, list):
            raise ApiError("the listing has no list of items")
        return items

    # --- deciding ---------------------------------------------------------------------------------------

    async def _carry_out(self, decision: Decision) -> None:
        submission = self._unknown.get(decision.attempt.key)
        if submission is None or submission.attempt != decision.attempt:
            return
        match decision:
            case Adopt():
                await self._adopt(submission, decision)
            case SendAgain():
                await self.submitters.close_attempt(decision.attempt, "not_sent")
                # Not before: who uses the key meanwhile must find this submission, and not begin another.
                del self._unknown[decision.attempt.key]
                self.submitters.send_again(submission, "the server has no such task")
            case GiveUp():
                error = decision.error()
                error.sent_at = submission.sent_at  # by the caller's own clock, as everywhere
                if not submission.job.done():
                    self.host.stop(submission.job, error)
                del self._unknown[decision.attempt.key]  # last, as the session remembers its nonce

    async def _adopt(self, submission: Submission, adopt: Adopt) -> None:
        record = await self._record_of(adopt)
        if record is None:
            return
        found = Accepted(task_id=adopt.task_id, trace_id=trace_id_of(record), record=record)
        try:
            await self.submitters.claim(adopt.attempt, found)
        except AlreadyClaimed:
            self.reconciler.rejected(adopt, now=self._now())
            return
        self.reconciler.adopted(adopt, now=self._now())
        del self._unknown[adopt.attempt.key]
        log.info("job %s has task %s after all", adopt.attempt.key, adopt.task_id)
        self.submitters.lane.gate.entered()
        await self.host.accepted(submission.job, found)

    async def _record_of(self, adopt: Adopt) -> Mapping[str, Any] | None:
        """
        Find the record of a task that is to be adopted, or None where the API does not confirm it.
        """
        if adopt.record is not None:
            return adopt.record
        try:  # a callback named it, and anybody may call
            record = await or_none(self.http.read({"action": "retrieve", "id": adopt.task_id}))
        except (ApiError, TransportError) as error:
            log.info("a callback's task could not be looked up: %s", error)
            record = None
        return record if self.reconciler.confirmed(adopt, record) else None


def _overlap(records: Sequence[object], page: Sequence[object]) -> int:
    """
    How many records at the head of a page are those at the end of what was read before.

    On a busy account new tasks come in at the head of the listing while it is read, and push the others down:
    each page then begins where the last one ended, so nothing was passed over.
    Any other repetition stays, for the reconciler to see that the listing moved under it.
    """
    for length in range(min(len(records), len(page), 2 * PAGE), 0, -1):
        if [*map(task_id_of, records[-length:])] == [*map(task_id_of, page[:length])]:
            return length
    return 0

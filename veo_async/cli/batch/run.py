"""
One run of a batch: buys what is missing, saves the files, and records the outcomes.

One directory holds all state: the journal knows what was bought, the manifest how it ended.
Another run with the same directory continues from there.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from attrs import define, field, frozen

from ... import (
    AuthenticationError,
    BudgetExceeded,
    InsufficientBalance,
    Job,
    JobAbandoned,
    JobFailed,
    JobState,
    Journal,
    KeyConflict,
    SessionClosed,
    TrackingLost,
    VeoError,
    VeoSession,
    Video,
)
from ..._journal.facts import Entry
from ...events import Event, Sending
from ...receiver import CallbackReceiver
from ..advice import reason
from ..display.board import DOWNLOADING, SAVED
from ..display.crowd import Crowd, Worker
from ..display.gallery import page
from ..display.records import entry_of, record_of
from ..ending import listening
from ..fetch import ON_THE_WAY, STOPPING
from ..options import numbered
from ..words import READ_AS, plural, read_as, shortened
from .input import Item, fields_of
from .manifest import Manifest
from .receipts import digest_of, write_receipt

__all__ = ["JOURNAL", "MANIFEST", "PAGE", "Batch", "Plan", "conflicts"]

WINDOW: Final = 1000  # jobs that are submitted and not yet saved
DOWNLOADS: Final = 8  # at once: enough to use the bandwidth, few enough that each makes progress
JOURNAL: Final = "journal.db"
WIDEST: Final = 60  # characters of a field's value in a message
MANIFEST: Final = "manifest.jsonl"
PAGE: Final = "index.html"

# Errors that every other job would meet, too: the run stops buying.
_FATAL: Final = (AuthenticationError, BudgetExceeded, InsufficientBalance, TrackingLost)
_NOT_OVER: Final = (SessionClosed, JobAbandoned)  # the handle is settled, the purchase is not


@frozen(kw_only=True)
class Plan:
    """
    What one run should do.

    Attributes:
        items: the lines, in their order.
        out: the directory.
        retry_failed: whether to buy again what has failed before.
        attempts: how often a line is bought at most if its tasks fail; failed tasks are not billed.
        look_first: whether another machine, or a run whose journal is lost, may have bought the lines.
        timeout: how long to wait for a task, in seconds, or None.
        callback_port: the port for callbacks on this machine, or None.
        public_url: the URL under which the API reaches that port; None if it reaches the port directly.
        as_json: whether records go to stdout, too.
    """

    items: Sequence[Item]
    out: Path
    retry_failed: bool = False
    look_first: bool = False
    attempts: int = 1
    timeout: float | None = None
    callback_port: int | None = None
    public_url: str | None = None
    as_json: bool = False


@define(eq=False)
class Batch:
    """
    One run.

    Attributes:
        halted: the error that stopped the buying, or None.
        waiting: the jobs without a record yet, by their keys.
    """

    plan: Plan
    journal: Journal
    manifest: Manifest
    board: Crowd
    prices: Mapping[str, float | None] = field(factory=dict)  # in credits, by key, as far as they are known
    halted: VeoError | None = field(default=None, init=False)
    waiting: dict[str, Job] = field(factory=dict, init=False)
    _tries: Counter[str] = field(factory=Counter, init=False)  # failed tasks per key
    _sent: set[str] = field(factory=set, init=False)  # keys that this run has sent
    _bought: set[str] = field(factory=set, init=False)  # keys whose task did not fail
    _room: asyncio.Semaphore = field(factory=lambda: asyncio.Semaphore(WINDOW), init=False)
    _settled: asyncio.Queue[tuple[Item, Job, Worker]] = field(factory=asyncio.Queue, init=False)

    def observe(self, event: Event) -> None:
        """
        Take note of what this run sends; the session's observer.
        """
        if isinstance(event, Sending):
            self._sent.add(event.key)

    async def run(self, session: VeoSession) -> None:
        """
        Buy the lines that were not bought, and fetch the files that are missing.
        """
        async with self.board, session as veo, self._callbacks(veo):
            self._read_manifest_again()
            try:
                await self._work(veo)
            except asyncio.CancelledError:
                if any(job.state in ON_THE_WAY for job in self.waiting.values()):
                    self.board.say(STOPPING)
                raise
            finally:
                self._finish()  # while this process still holds the journal, so nobody else writes

    def _read_manifest_again(self) -> None:
        """
        Read the manifest again, now that this process holds the journal: another run may have written to it.
        """
        self.manifest.read()
        for conflict in conflicts(self.plan, self.manifest):
            raise KeyConflict(conflict)

    @asynccontextmanager
    async def _callbacks(self, veo: VeoSession) -> AsyncIterator[None]:
        """
        Receive callbacks in the block, if the plan has a port for them.
        """
        if self.plan.callback_port is None:
            yield
            return
        async with CallbackReceiver(veo, public_url=self.plan.public_url) as receiver:
            with listening("--callback-port", self.plan.callback_port):
                port = await receiver.start(port=self.plan.callback_port)
            self.board.say(f"taking callbacks on port {port}")
            yield

    async def _work(self, veo: VeoSession) -> None:
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._save_settled(veo), name=f"veo-async download {number}")
                for number in range(DOWNLOADS)
            ]
            await self._tell_what_is_resumed()
            await self._submit_all(veo)
            group.create_task(self._tell_once_accepted(), name="veo-async acceptance")
            # A job has a place in the window until it is recorded: once all places are free, all jobs are done.
            for _ in range(WINDOW):
                await self._room.acquire()
            for worker in workers:
                worker.cancel()

    async def _tell_what_is_resumed(self) -> None:
        """
        Say what an earlier run has left, so that the user knows what is being waited for.
        """
        entries = await self.journal.find_many(item.key for item in self.plan.items if not self.is_done(item))
        accepted = sum(entry.outcome is None and entry.task_id is not None for entry in entries.values())
        doubtful = sum(entry.task_id is None and _is_open(entry) for entry in entries.values())
        if accepted:
            self.board.say(f"{plural(accepted, 'accepted task')} resumed")
        if doubtful:
            self.board.say(f"looking for {plural(doubtful, 'submit')} that may have been accepted")

    async def _tell_once_accepted(self) -> None:
        for job in [*self.waiting.values()]:
            with suppress(VeoError):  # it ended before it was accepted, which is told elsewhere
                await job.accepted()
        self.board.all_accepted()

    # --- jobs -------------------------------------------------------------------------------------------

    async def _submit_all(self, veo: VeoSession) -> None:
        for item in self.plan.items:
            if self.is_done(item):
                self.board.skip()
                continue
            await self._room.acquire()
            if self.halted is not None:
                self._room.release()
                return
            self._submit(veo, item)

    def _submit(self, veo: VeoSession, item: Item) -> None:
        job = veo.submit(
            item.request,
            key=item.key,
            timeout=self.plan.timeout,
            retry_failed=self.plan.retry_failed or self._tries[item.key] > 0,
            look_first=self.plan.look_first,
        )
        self.waiting[item.key] = job
        row = self.board.enter(title_of(item), job)
        job.add_done_callback(lambda settled: self._settled.put_nowait((item, settled, row)))

    def _halt(self, error: VeoError) -> None:
        """
        Stop buying: queued jobs are withdrawn, accepted ones are still waited for.
        """
        if self.halted is None:
            self.halted = error
            self.board.say(f"nothing more is bought, since this affects every job: {reason(error)}")
            for job in [*self.waiting.values()]:
                if job.state is JobState.QUEUED:
                    job.abandon()

    # --- files ------------------------------------------------------------------------------------------

    def is_done(self, item: Item) -> bool:
        """
        Tell whether an earlier run has saved all the files of a line, and they are still there.
        """
        record = self.manifest.records.get(item.key)
        if record is None or record.get("request") != fields_of(item.request):
            return False
        videos = record.get("videos") or ()
        return bool(videos) and record.get("file") == item.name and all(map(self._is_there, videos))

    def _is_there(self, video: Mapping[str, Any]) -> bool:
        name = video.get("file")
        try:
            return bool(name) and os.path.getsize(self.plan.out / str(name)) == video.get("bytes")
        except OSError:
            return False

    async def _save_settled(self, veo: VeoSession) -> None:
        while True:
            item, job, row = await self._settled.get()
            if failure := self._failure_to_retry(item, job):
                self.board.again(row, reason(failure))
                self._submit(veo, item)
                continue
            await self._save(veo, item, job, row)
            del self.waiting[item.key]
            self._room.release()

    def _failure_to_retry(self, item: Item, job: Job) -> JobFailed | None:
        """
        Return the error of a failed task, if its line should be bought again.
        """
        error = job.exception()
        if self.halted is not None or not isinstance(error, JobFailed):
            return None
        self._tries[item.key] += 1
        return error if self._tries[item.key] < self.plan.attempts else None

    async def _save(self, veo: VeoSession, item: Item, job: Job, row: Worker) -> None:
        error, files = job.exception(), list[Path]()
        if job.task_id is not None and job.state is not JobState.FAILED:
            self._bought.add(item.key)
        if error is None:
            try:
                for index, video in enumerate(job.result().videos):
                    files.append(await self._fetch(veo, item, index, video, row))
            except VeoError as failure:
                error = failure
        if isinstance(error, _NOT_OVER):
            self.board.leave(row, JobState.STOPPED, "not sent", silent=True)
            return
        digests = [await asyncio.to_thread(digest_of, file) for file in files]
        self._account(item, job, files, digests, error)
        if isinstance(error, _FATAL):
            self._halt(error)  # which shows it, once for all jobs
        state = (
            SAVED if error is None else JobState.FAILED if isinstance(error, JobFailed) else JobState.STOPPED
        )
        detail = item.name if error is None else reason(error)
        self.board.leave(row, state, detail, silent=isinstance(error, _FATAL))

    async def _fetch(self, veo: VeoSession, item: Item, index: int, video: Video, row: Worker) -> Path:
        path = numbered(self.plan.out / item.name, index)
        entry = await self.journal.find(item.key)
        known = entry.downloads.get(video.id) if entry else None
        if not self._has(item, video, path, known):
            row.state, row.detail = DOWNLOADING, ""
            await veo.download(video, path, progress=self.board.progress(row))
        return path

    def _has(self, item: Item, video: Video, path: Path, known: str | None) -> bool:
        """
        Tell whether a video's file is there and complete.

        A download names only complete files, so a file that the journal knows was complete once. If the manifest
        knows its size in bytes, it must still have that size.
        """
        if known is None or Path(known) != path.absolute():
            return False
        told = self.manifest.records.get(item.key, {}).get("videos") or ()
        records = [record for record in told if record.get("id") == video.id and record.get("file")]
        return all(map(self._is_there, records)) if records else path.exists()

    # --- records ----------------------------------------------------------------------------------------

    def _account(
        self, item: Item, job: Job, files: Sequence[Path], digests: Sequence[str], error: VeoError | None
    ) -> None:
        record = record_of(job, [Path(file.name) for file in files], error)
        for video, file, digest in zip(record["videos"], files, digests, strict=False):
            video |= {"bytes": file.stat().st_size, "sha256": digest}
        record |= {"line": item.number, "settled_at": datetime.now(UTC).isoformat(timespec="seconds")}
        record["credits"] = self.prices.get(item.key, self.manifest.records.get(item.key, {}).get("credits"))
        for video, file in zip(record["videos"], files, strict=False):
            write_receipt(file, record, video)
        self.manifest.add(record)
        if self.plan.as_json:
            click.echo(json.dumps(record))

    def _finish(self) -> None:
        """
        Sort the manifest in the order of the input, and write the page.
        """
        records = self.manifest.finish(item.key for item in self.plan.items)
        text = page(
            [entry_of(record) for record in records],
            title=self.plan.out.absolute().name,
            summary=_summary(records),
        )
        draft = self.plan.out / f"{PAGE}.new"
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, self.plan.out / PAGE)

    def reason_of(self, item: Item) -> str:
        """
        Return why a line has no files.
        """
        error = self.manifest.records.get(item.key, {}).get("error") or {}
        return str(error.get("message") or "not done yet")

    def is_priced(self, item: Item) -> bool:
        """
        Tell whether a line that was bought needs no price: an earlier run has recorded it, or saved its files.
        """
        return self.is_done(item) or self.manifest.records.get(item.key, {}).get("credits") is not None

    def has_failed(self, item: Item) -> bool:
        """
        Tell whether a line has no files because its task failed.
        """
        return self.manifest.records.get(item.key, {}).get("state") == JobState.FAILED

    def purchases(self, left: Sequence[Item]) -> tuple[int, int]:
        """
        Count the lines that this run has bought, and those that were bought before; failed tasks are not billed.

        Args:
            left: the lines without files.
        """
        bought = {item.key for item in self.plan.items} - {item.key for item in left} | self._bought
        return len(bought & self._sent), len(bought - self._sent)

    def over_budget(self, left: Sequence[Item]) -> int:
        """
        Count the lines that were not bought since the budget is spent.

        Args:
            left: the lines without files.
        """
        if not isinstance(self.halted, BudgetExceeded):
            return 0
        records = [self.manifest.records.get(item.key, {}) for item in left if item.key not in self._bought]
        errors = [record.get("error") for record in records if not record.get("task_id")]
        return sum(not error or error.get("type") == BudgetExceeded.__name__ for error in errors)

    def unfinished(self) -> list[Item]:
        """
        Return the lines without files: failed, refused, or not done yet.
        """
        return [item for item in self.plan.items if not self.is_done(item)]


def conflicts(plan: Plan, manifest: Manifest) -> Iterator[str]:
    """
    Report the lines that conflict with what is in the directory.
    """
    ours = (plan.out / JOURNAL).exists()
    for item in plan.items:
        record = manifest.records.get(item.key)
        if record is not None and record.get("request") != fields_of(item.request):
            was = _difference(record.get("request"), fields_of(item.request))
            yield f"line {item.number}: the key {item.key!r} belongs to a different request in {plan.out}{was}"
        if not ours and not plan.look_first and (plan.out / item.name).exists():
            yield f"line {item.number}: the file {item.name!r} is in {plan.out} already, from elsewhere"


def _difference(earlier: object, now: dict[str, Any]) -> str:
    """
    Tell in which fields an earlier request with the same key differs.
    """
    if not isinstance(earlier, dict):  # somebody has edited the manifest
        return ""
    others = (
        f"{name} was {earlier.get(name)!r}"
        for name in {**now, **earlier}
        if now.get(name) != earlier.get(name)
    )
    return f": {', '.join(shortened(words, WIDEST) for words in others)}"


def title_of(item: Item) -> str:
    """
    Return a line's title for the display.
    """
    fields = fields_of(item.request)
    kind = type(item.request).__name__
    made_of = f"{read_as(kind, fields.get('target'))} {fields['video_id']}" if kind in READ_AS else item.name
    return str(fields.get("prompt") or made_of)


def _is_open(entry: Entry) -> bool:
    return any(attempt.closed is None for attempt in entry.attempts)


def _summary(records: Iterable[Mapping[str, Any]]) -> str:
    states = [bool(record.get("file")) for record in records]
    return f"{plural(len(states), 'request')}, {plural(sum(states), 'video')}"

"""
Spans and metrics of OpenTelemetry, named after its conventions for generative AI (in development, as of 2026-09).

A job that buys a video is a span `generate_content MODEL` from its submit to its end, and one that waits for what was
bought already is a span `fetch_response`. Each request about tasks is a span `fetch_response`, too, linked to the
spans of its jobs, as one request asks about many. HTTP spans, such as those of
`opentelemetry-instrumentation-aiohttp-client`, are children of the job's span if a submit is sent, and of the
request's span if tasks are asked about.

Metrics: `gen_ai.client.operation.duration`, a histogram in seconds of purchases and requests, and `veo_async.jobs`,
how many jobs are unsettled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, Final

from attrs import asdict, define, field

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
except ImportError as error:
    raise ImportError("OpenTelemetryObserver needs: pip install 'veo-async[telemetry]'") from error

from ..events import (
    Accepted,
    Attached,
    Event,
    Looked,
    LookFailed,
    Looking,
    Misnamed,
    Refused,
    Retried,
    Sending,
    Settled,
    Submitted,
    Unanswered,
)

__all__ = ["OpenTelemetryObserver"]

NAME: Final = "veo_async"
PROVIDER: Final = "acedatacloud"  # the conventions name no such provider; a name of one's own is allowed
BUYING: Final = "generate_content"
ASKING: Final = "fetch_response"
OPERATION: Final = "gen_ai.operation.name"
MODEL: Final = "gen_ai.request.model"
RESPONSE: Final = "gen_ai.response.id"
# The buckets that the conventions advise end at 82 s; a video takes minutes, and may wait for its turn before that.
BUCKETS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 90, 120, 180, 300, 600, 1200, 1800, 3600)

_Attributes = dict[str, Any]


@define
class _Open:
    """
    A span that has not ended.
    """

    span: Span
    attributes: _Attributes  # of the metric, too
    began_at: float


_asking: ContextVar[_Open | None] = ContextVar("veo_async asking", default=None)


@define(eq=False)
class OpenTelemetryObserver:
    """
    Makes spans and metrics of a session's events. Each session needs one of its own, as keys may be the same in two.

    Args:
        tracer_provider: by default the global one.
        meter_provider: by default the global one.
    """

    tracer_provider: trace.TracerProvider | None = None
    meter_provider: metrics.MeterProvider | None = None
    _tracer: trace.Tracer = field(init=False)
    _durations: metrics.Histogram = field(init=False)
    _unsettled: metrics.UpDownCounter = field(init=False)
    _jobs: dict[str, _Open] = field(init=False, factory=dict)  # by key
    _tasks: dict[str, Span] = field(init=False, factory=dict)  # of their jobs, by task id
    _handlers: Mapping[type, Callable[[Any], None]] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=self.tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=self.meter_provider)
        self._durations = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._unsettled = meter.create_up_down_counter(
            "veo_async.jobs", unit="{job}", description="Jobs without an outcome."
        )
        self._handlers = {
            Submitted: self._submitted,
            Attached: self._attached,
            Sending: self._sending,
            Refused: self._note,
            Unanswered: self._note,
            Retried: self._note,
            Accepted: self._accepted,
            Misnamed: self._misnamed,
            Settled: self._settled,
            Looking: self._looking,
            Looked: self._looked,
            LookFailed: self._look_failed,
        }

    def __call__(self, event: Event) -> None:
        if handler := self._handlers.get(type(event)):
            handler(event)

    # --- jobs -------------------------------------------------------------------------------------------

    def _submitted(self, event: Submitted) -> None:
        attributes = {"gen_ai.output.type": "video", "veo_async.request": event.kind}
        measured = {MODEL: event.model} if event.model else {}
        self._begin_job(event, BUYING, measured, attributes)

    def _attached(self, event: Attached) -> None:
        self._begin_job(event, ASKING, {}, {})

    def _begin_job(
        self, event: Submitted | Attached, operation: str, measured: _Attributes, others: _Attributes
    ) -> None:
        attributes = {"veo_async.key": event.key, **others}
        self._jobs[event.key] = self._begin(operation, event.at, measured, attributes)
        self._unsettled.add(1)

    def _sending(self, event: Sending) -> None:
        # Each submit has an asyncio task, and so a context, of its own: what is current ends with that task.
        if job := self._jobs.get(event.key):
            job.span.set_attribute("veo_async.attempts", event.attempt)
            context.attach(trace.set_span_in_context(job.span))
            self._note(event)

    def _note(self, event: Sending | Refused | Unanswered | Retried) -> None:
        if job := self._jobs.get(event.key):
            told = asdict(
                event, filter=lambda attribute, value: attribute.name not in ("at", "key") and value
            )
            job.span.add_event(type(event).__name__, told, timestamp=_nanoseconds(event.at))

    def _accepted(self, event: Accepted) -> None:
        if job := self._jobs.get(event.key):
            self._tasks[event.task_id] = job.span
            job.span.set_attribute(RESPONSE, event.task_id)
            job.span.add_event("Accepted", {"found": event.found}, timestamp=_nanoseconds(event.at))

    def _misnamed(self, event: Misnamed) -> None:
        self._tasks.pop(event.task_id, None)

    def _settled(self, event: Settled) -> None:
        self._tasks.pop(event.task_id or "", None)
        if job := self._jobs.pop(event.key, None):
            told = {RESPONSE: event.task_id, "veo_async.trace_id": event.trace_id}
            job.span.set_attributes({name: value for name, value in told.items() if value})
            job.span.set_attribute("veo_async.state", event.state)
            job.span.set_attribute("veo_async.videos", event.videos)
            self._unsettled.add(-1)
            self._end(job, event.at, event.error, event.reason, measure=job.attributes[OPERATION] == BUYING)

    # --- requests about tasks ---------------------------------------------------------------------------

    def _looking(self, event: Looking) -> None:
        spans = {id(span): span for span in map(self._tasks.get, event.task_ids) if span is not None}
        links = [Link(span.get_span_context()) for span in spans.values()]
        attributes: _Attributes = {"veo_async.tasks": len(event.task_ids)}
        if len(event.task_ids) == 1:
            attributes[RESPONSE] = event.task_ids[0]
        # One request is for jobs of many callers, so its span begins a trace of its own.
        asking = self._begin(ASKING, event.at, {}, attributes, links=links, parent=Context())
        _asking.set(asking)
        context.attach(trace.set_span_in_context(asking.span))

    def _looked(self, event: Looked) -> None:
        if asking := _asking.get():
            self._end(asking, event.at)

    def _look_failed(self, event: LookFailed) -> None:
        if asking := _asking.get():
            self._end(asking, event.at, event.error, event.reason)

    # --- spans ------------------------------------------------------------------------------------------

    def _begin(
        self,
        operation: str,
        at: float,
        measured: _Attributes,
        others: _Attributes,
        *,
        links: list[Link] | None = None,
        parent: Context | None = None,
    ) -> _Open:
        measured = {OPERATION: operation, "gen_ai.provider.name": PROVIDER, **measured}
        span = self._tracer.start_span(
            " ".join(filter(None, [operation, measured.get(MODEL)])),
            kind=SpanKind.CLIENT,
            attributes={**measured, **others},
            links=links,
            context=parent,
            start_time=_nanoseconds(at),
        )
        return _Open(span, measured, at)

    def _end(
        self,
        ended: _Open,
        at: float,
        error: str | None = None,
        reason: str | None = None,
        *,
        measure: bool = True,
    ) -> None:
        measured = ended.attributes
        if error is not None:
            measured = {**measured, "error.type": error}
            ended.span.set_attribute("error.type", error)
            ended.span.set_status(Status(StatusCode.ERROR, reason))
        ended.span.end(_nanoseconds(max(at, ended.began_at)))
        if measure:
            self._durations.record(max(0.0, at - ended.began_at), measured)


def _nanoseconds(at: float) -> int:
    return int(at * 1e9)

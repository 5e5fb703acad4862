"""
Spans and metrics, as the SDK's exporters in memory get them.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import aiohttp
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from tests.virtual import World
from tests.virtual.scripted import answer, ended, in_virtual_time, scripted, whale
from veo_async import Limits, PollPolicy, RetryPolicy, VeoSession
from veo_async.simulator import Settings, Simulator
from veo_async.telemetry import OpenTelemetryObserver

PROVIDER = {"gen_ai.provider.name": "acedatacloud"}
BUYING = PROVIDER | {"gen_ai.operation.name": "generate_content", "gen_ai.request.model": "veo31-fast"}
ASKING = PROVIDER | {"gen_ai.operation.name": "fetch_response"}


class Telemetry:
    """
    An observer, and what it exports.
    """

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.observer = OpenTelemetryObserver(self.tracers, meters)

    def spans(self, name: str) -> list[ReadableSpan]:
        """
        The spans that have ended and whose name begins so.
        """
        return [one for one in self._exporter.get_finished_spans() if one.name.startswith(name)]

    def points(self, name: str) -> list[Any]:
        """
        The points of a metric.
        """
        data = self._reader.get_metrics_data()
        assert data is not None
        [metrics] = [scope.metrics for resource in data.resource_metrics for scope in resource.scope_metrics]
        return [point for metric in metrics if metric.name == name for point in metric.data.data_points]

    def durations(self, attributes: Mapping[str, str]) -> HistogramDataPoint:
        """
        The histogram of the operations with exactly these attributes.
        """
        points = self.points("gen_ai.client.operation.duration")
        [point] = [one for one in points if dict(one.attributes) == attributes]
        assert isinstance(point, HistogramDataPoint)
        return point


def notes(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


def id_of(context: trace.SpanContext | None) -> int:
    assert context is not None
    return context.span_id


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@in_virtual_time
async def test_a_job_is_a_span_and_its_looks_are_linked_to_it() -> None:
    """The span goes from the submit to the end, under the caller's own; each look is a trace of its own."""
    telemetry = Telemetry()
    world = World(Settings(duration=lambda body: 100.0))
    tracer = telemetry.tracers.get_tracer("caller")
    async with world.session(observers=[telemetry.observer]) as veo:
        with tracer.start_as_current_span("caller") as caller:
            job = veo.submit(whale(), key="k")
        [point] = telemetry.points("veo_async.jobs")
        assert isinstance(point, NumberDataPoint)
        assert 1 == point.value
        result = await job
    [span] = telemetry.spans("generate_content")
    assert ("generate_content veo31-fast", SpanKind.CLIENT) == (span.name, span.kind)
    assert span.parent == caller.get_span_context()
    assert span.attributes is not None
    assert BUYING.items() <= dict(span.attributes).items()
    assert (result.task_id, "k", "succeeded", 1) == tuple(
        span.attributes[name]
        for name in ("gen_ai.response.id", "veo_async.key", "veo_async.state", "veo_async.attempts")
    )
    assert StatusCode.UNSET is span.status.status_code
    assert ["Sending", "Accepted"] == notes(span)
    assert 100 < seconds(span) < 150
    looks = telemetry.spans("fetch_response")
    assert veo.stats.looks == len(looks)
    for look in looks:
        assert look.parent is None
        assert [span.context] == [link.context for link in look.links]
        assert result.task_id == (look.attributes or {})["gen_ai.response.id"]
    assert 0 == telemetry.points("veo_async.jobs")[0].value


@in_virtual_time
async def test_durations_are_told_apart_up_to_an_hour() -> None:
    """A job of forty minutes lies in a bucket that ends; looks are measured, too."""
    telemetry = Telemetry()
    world = World(Settings(duration=lambda body: 2400.0))
    policy = PollPolicy(deadline=None)
    async with world.session(observers=[telemetry.observer], polling=policy) as veo:
        await veo.submit(whale())
    point = telemetry.durations(BUYING)
    assert 3600 == point.explicit_bounds[-1]
    assert (1, 0) == (point.count, point.bucket_counts[-1])
    assert veo.stats.looks == telemetry.durations(ASKING).count


@in_virtual_time
async def test_errors_are_named() -> None:
    """A job that fails, one that is refused and a look that fails have an error's name, also in the metric."""
    telemetry = Telemetry()
    session, transport = scripted(
        World(Settings(duration=lambda body: 10.0, failure_share=1.0)), observers=[telemetry.observer]
    )
    transport.asks.append(answer(500, {"error": {"code": "api_error"}}))
    async with session as veo:
        await ended(veo.submit(whale(1)))
        transport.submits.append(answer(403, {"error": {"code": "used_up"}}))
        await ended(veo.submit(whale(2)))
    failed, refused = telemetry.spans("generate_content")
    names = ["JobFailed", "InsufficientBalance"]
    assert names == [(one.attributes or {})["error.type"] for one in (failed, refused)]
    assert {StatusCode.ERROR} == {one.status.status_code for one in (failed, refused)}
    assert ["Sending", "Refused"] == notes(refused)
    assert [1, 1] == [telemetry.durations(BUYING | {"error.type": name}).count for name in names]
    assert 1 == telemetry.durations(ASKING | {"error.type": "ServerError"}).count
    assert "ServerError" == (telemetry.spans("fetch_response")[0].attributes or {})["error.type"]


@in_virtual_time
async def test_one_look_at_many_is_linked_to_each() -> None:
    """A request about three tasks has three links, and none of the ids for its own."""
    telemetry = Telemetry()
    world = World(Settings(duration=lambda body: 10.0))
    async with world.session(observers=[telemetry.observer]) as veo:
        for job in [veo.submit(whale(number)) for number in range(3)]:
            await job
    jobs = {id_of(span.context) for span in telemetry.spans("generate_content")}
    look = max(telemetry.spans("fetch_response"), key=lambda one: len(one.links))
    assert jobs == {id_of(link.context) for link in look.links}
    assert 3 == (look.attributes or {})["veo_async.tasks"]
    assert "gen_ai.response.id" not in (look.attributes or {})


@in_virtual_time
async def test_an_attached_job_fetches() -> None:
    """It bought nothing, so its span has the other name; and it is measured by no metric."""
    telemetry = Telemetry()
    world = World(Settings(duration=lambda body: 10.0))
    async with world.session() as veo:
        task_id = await veo.submit(whale()).accepted()
    async with world.session(observers=[telemetry.observer]) as veo:
        await veo.attach(task_id)
    [attached] = [one for one in telemetry.spans("fetch_response") if "Accepted" in notes(one)]
    assert task_id == (attached.attributes or {})["gen_ai.response.id"]
    assert veo.stats.looks == telemetry.durations(ASKING).count
    assert not telemetry.spans("generate_content")


async def test_http_spans_are_children() -> None:
    """What traces HTTP finds the job's span current while a submit is sent, and the look's while a task is asked for."""
    telemetry = Telemetry()
    seen: list[tuple[str, trace.Span]] = []

    async def begins(session: object, about: object, start: aiohttp.TraceRequestStartParams) -> None:
        seen.append((start.url.path, trace.get_current_span()))

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begins)  # as opentelemetry-instrumentation-aiohttp-client does
    policies: dict[str, Any] = {
        "polling": PollPolicy().scaled(0.001),
        "retry": RetryPolicy().scaled(0.001),
        "limits": Limits(connections=1),
    }
    async with (
        Simulator(Settings(speed=1000.0)) as sim,
        aiohttp.ClientSession(trace_configs=[config]) as http,
        VeoSession(sim.token, base_url=sim.url, http=http, observers=[telemetry.observer], **policies) as veo,
    ):
        for job in [veo.submit(whale(number)) for number in range(3)]:
            await job
        assert not trace.get_current_span().get_span_context().is_valid

    def current(path: str) -> set[int]:
        return {id_of(span.get_span_context()) for at, span in seen if at == path}

    jobs = {id_of(span.context) for span in telemetry.spans("generate_content")}
    looks = {id_of(span.context) for span in telemetry.spans("fetch_response")}
    assert (3, jobs) == (len(jobs), current("/veo/videos"))
    assert looks == current("/veo/tasks")


def test_without_the_extra_it_says_what_to_install() -> None:
    """Logs need no OpenTelemetry, and whoever asks for the observer is told which extra has it."""
    program = """
import sys
sys.modules["opentelemetry"] = None
from veo_async.telemetry import LogObserver
try:
    from veo_async.telemetry import OpenTelemetryObserver
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "OpenTelemetryObserver needs: pip install 'veo-async[telemetry]'\n" == done.stdout

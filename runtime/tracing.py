"""OpenTelemetry traces, recorded only where a collector is configured: its exporter is imported only then.

Names and attributes of spans contain ids, figures and the service's own names, never users' texts or secrets. An error
is recorded by its type alone.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, Optional

from opentelemetry.trace import NoOpTracer, Span, SpanKind, StatusCode, Tracer, get_current_span, use_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from runtime.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Kind = Literal["server", "consumer", "internal"]
Attribute = str | int | float | bool | None

# How long an unreachable collector may delay the end of a process.
EXPORT_SECONDS = 3.0
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROPAGATOR = TraceContextTextMapPropagator()

_provider: Optional["TracerProvider"] = None
_tracer: Tracer = NoOpTracer()


def configure_tracing(settings: Settings, service: str) -> None:
    """Send this process's spans to the collector of the settings, else of OpenTelemetry's own variables, if any.

    `service` is `api`, `scheduler` or `worker`. Call once per process.
    """
    global _provider, _tracer
    if settings.otlp_endpoint is None and not any(os.environ.get(name) for name in ENDPOINT_VARIABLES):
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    endpoint = settings.otlp_endpoint and f"{settings.otlp_endpoint.rstrip('/')}/v1/traces"
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)
    _provider = TracerProvider(
        resource=Resource.create({"service.name": f"greentune-{service}", "service.namespace": "greentune"}),
        shutdown_on_exit=False,  # which would wait for half a minute for an unreachable collector
    )
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("greentune")


def flush_traces() -> None:
    """Send the recorded spans; returns within about `EXPORT_SECONDS`, even if the collector is unreachable."""
    if _provider is not None:
        _provider.force_flush()


def stop_tracing() -> None:
    """Send the recorded spans, and stop recording."""
    global _provider, _tracer
    if _provider is not None:
        _provider.force_flush()
        _provider.shutdown()
    _provider, _tracer = None, NoOpTracer()


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, only_with_events: bool = False, **of: Attribute
) -> Iterator[Span]:
    """Record the block as a child of the open span, or of `parent`, a W3C `traceparent`.

    With `only_with_events`, a block without any `add_event` is not recorded. `of` are attributes: `__` in a name
    becomes a dot, and a value of None is left out. An exception marks the span as failed by its type, and is raised.
    """
    context = None if parent is None else PROPAGATOR.extract({"traceparent": parent})
    opened = _tracer.start_span(name, context=context, kind=SpanKind[kind.upper()], attributes=_named(of))
    try:
        with use_span(opened, record_exception=False, set_status_on_exception=False):
            yield opened
    except BaseException as fault:
        opened.set_status(StatusCode.ERROR, type(fault).__name__)
        opened.end()
        raise
    # A span that is not ended is not sent.
    if not only_with_events or getattr(opened, "events", None):
        opened.end()


def add_event(name: str, **of: Attribute) -> None:
    """Add an event to the open span."""
    get_current_span().add_event(name, _named(of))


def record_span(name: str, *, seconds: float, **of: Attribute) -> None:
    """Record a child of the open span that took `seconds` and ends now."""
    now = time.time_ns()
    _tracer.start_span(name, start_time=now - round(seconds * 1e9), attributes=_named(of)).end(now)


def traceparent() -> str | None:
    """Return the open span as a W3C `traceparent`, to continue the trace elsewhere; None where none is recorded."""
    carrier: dict[str, str] = {}
    if _provider is not None:
        PROPAGATOR.inject(carrier)
    return carrier.get("traceparent")


def _named(attributes: dict[str, Attribute]) -> dict[str, str | int | float | bool]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}

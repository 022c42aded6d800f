"""Traces by OpenTelemetry, where a collector is named; otherwise nothing is recorded, nor imported.

A span's name and attributes hold ids, figures and names of the service's own: no text of a user, and no secret. An
error is told by its type alone.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from runtime.settings import Settings

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span as OpenTelemetrySpan
    from opentelemetry.trace import Tracer

Kind = Literal["server", "consumer", "internal"]
Attribute = str | int | float | bool | None

# Where the collector is away, so long is waited for it before a process may end.
EXPORT_SECONDS = 3.0
ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_provider: TracerProvider | None = None
_tracer: Tracer | None = None


class Span:
    """A span that is open, or, where nothing is recorded, one that takes all and keeps nothing."""

    def __init__(self, recorded: OpenTelemetrySpan | None = None) -> None:
        self._recorded = recorded

    @property
    def has_events(self) -> bool:
        """Whether anything was noted in it."""
        return bool(getattr(self._recorded, "events", None))

    def set(self, **attributes: Attribute) -> None:
        """Note attributes by their names, in which `__` stands for a dot; those that are None are left out."""
        if self._recorded is not None:
            self._recorded.set_attributes(_named(attributes))

    def rename(self, name: str) -> None:
        if self._recorded is not None:
            self._recorded.update_name(name)

    def fail(self, why: str) -> None:
        """Mark the span as an error; `why` is a type or a status, never a message."""
        if self._recorded is not None:
            from opentelemetry.trace import StatusCode

            self._recorded.set_status(StatusCode.ERROR, why)


NOOP_SPAN = Span()


def configure_tracing(settings: Settings, service: str) -> None:
    """Send this process's spans to the collector of the settings, else of OpenTelemetry's own variables, if any.

    `service` is its part: `api`, `scheduler`, `worker`. To be called once a process.
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
        shutdown_on_exit=False,  # which would wait for half a minute where the collector is away
    )
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    _tracer = _provider.get_tracer("greentune")


def flush_traces() -> None:
    """Send what has been recorded; returns within about `EXPORT_SECONDS`, whether the collector takes it or not."""
    if _provider is not None:
        _provider.force_flush()


def stop_tracing() -> None:
    """Send what has been recorded, and record nothing more."""
    global _provider, _tracer
    if _provider is not None:
        _provider.force_flush()
        _provider.shutdown()
    _provider = _tracer = None


@contextmanager
def span(
    name: str, *, kind: Kind = "internal", parent: str | None = None, only_with_events: bool = False, **of: Attribute
) -> Iterator[Span]:
    """Record what the block does, below the span that is open, or below `parent`, a W3C `traceparent`.

    With `only_with_events`, a block during which nothing was noted by `add_event` leaves no span. `of` are attributes,
    as in `Span.set`. An exception marks the span by its type, and goes on.
    """
    if _tracer is None:
        yield NOOP_SPAN
        return
    from opentelemetry.trace import SpanKind, use_span

    recorded = _tracer.start_span(name, context=_context_of(parent), kind=SpanKind[kind.upper()], attributes=_named(of))
    opened = Span(recorded)
    try:
        with use_span(recorded, record_exception=False, set_status_on_exception=False):
            yield opened
    except BaseException as fault:
        opened.fail(type(fault).__name__)
        recorded.end()
        raise
    # A span that never ends is never sent.
    if not only_with_events or opened.has_events:
        recorded.end()


def add_event(name: str, **of: Attribute) -> None:
    """Note in the span that is open that something happened."""
    if _tracer is not None:
        from opentelemetry.trace import get_current_span

        get_current_span().add_event(name, _named(of))


def record_span(name: str, *, seconds: float, **of: Attribute) -> None:
    """Record something that took so long and is over now, below the span that is open."""
    if _tracer is not None:
        now = time.time_ns()
        began = now - round(seconds * 1e9)
        _tracer.start_span(name, start_time=began, attributes=_named(of)).end(now)


def traceparent() -> str | None:
    """The open span as a W3C `traceparent`, for whoever goes on with what began here; None where none is recorded."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


def _context_of(parent: str | None) -> Context | None:
    if parent is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": parent})


def _named(attributes: dict[str, Attribute]) -> dict[str, str | int | float | bool]:
    return {name.replace("__", "."): value for name, value in attributes.items() if value is not None}

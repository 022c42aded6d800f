"""Traces are recorded only for a configured collector, and an unreachable collector delays a process only briefly."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from runtime.settings import Settings
from runtime.tracing import (
    add_event,
    configure_tracing,
    flush_traces,
    record_span,
    span,
    stop_tracing,
    traceparent,
)
from tests.collector import Collector, collector


@pytest.fixture(autouse=True)
def stopped() -> Iterator[None]:
    yield
    stop_tracing()


@pytest.fixture
def collected(settings: Settings) -> Iterator[Collector]:
    with collector() as collected:
        configure_tracing(settings.model_copy(update={"otlp_endpoint": f"{collected.url}/"}), "test")
        yield collected
        stop_tracing()


def test_without_a_collector_nothing_is_recorded_and_no_exporter_is_imported() -> None:
    program = (
        "import sys, api.main, scheduler.loop\n"
        "from runtime.settings import Settings\n"
        "from runtime import tracing\n"
        "tracing.configure_tracing(Settings(), 'test')\n"
        "with tracing.span('work', job='j') as opened:\n"
        "    opened.set_attributes({'a': 1}); opened.update_name('b'); tracing.add_event('e')\n"
        "    tracing.record_span('c', seconds=1)\n"
        "    assert tracing.traceparent() is None\n"
        "tracing.flush_traces(); tracing.stop_tracing()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry.exporter')])\n"
    )
    found = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_a_collector_may_be_named_by_opentelemetrys_own_variable(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collector() as collected:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url)
        configure_tracing(settings, "scheduler")
        with span("work"):
            pass
        stop_tracing()

    assert [(service, sent.name) for service, sent in collected.spans] == [("greentune-scheduler", "work")]


def test_an_error_is_recorded_by_its_type_and_raised(collected: Collector) -> None:
    with pytest.raises(ValueError, match="a user's text"), span("work"):
        raise ValueError("a user's text")
    flush_traces()

    assert collected.find_span("work").status.message == "ValueError"
    assert b"a user's text" not in b"".join(collected.bodies)


def test_a_block_without_events_leaves_no_span(collected: Collector) -> None:
    with span("idle", only_with_events=True):
        add_event_elsewhere()
    with span("busy", only_with_events=True):
        add_event("job.dispatched", greentune__job="j")
    flush_traces()

    assert [sent.name for _, sent in collected.spans] == ["elsewhere", "busy"]


def add_event_elsewhere() -> None:
    with span("elsewhere"):
        add_event("of its own")


def test_a_trace_continues_in_another_process(collected: Collector) -> None:
    with span("request", kind="server"):
        given = traceparent()
    with span("job", kind="consumer", parent=given):
        record_span("epoch", seconds=2.5, greentune__epoch=1)
    flush_traces()

    request, job, epoch = (collected.find_span(name) for name in ("request", "job", "epoch"))
    assert request.trace_id == job.trace_id == epoch.trace_id
    assert (job.parent_span_id, epoch.parent_span_id) == (request.span_id, job.span_id)
    assert epoch.end_time_unix_nano - epoch.start_time_unix_nano == pytest.approx(2.5e9, abs=1000)


@pytest.mark.parametrize("malformed", ["", "nonsense", "00-0-0-01", "ff" * 40])
def test_a_malformed_parent_starts_a_new_trace(collected: Collector, malformed: str) -> None:
    with span("job", parent=malformed):
        pass
    flush_traces()

    assert not collected.find_span("job").parent_span_id


def test_an_unreachable_collector_delays_a_process_briefly(settings: Settings) -> None:
    configure_tracing(settings.model_copy(update={"otlp_endpoint": "http://127.0.0.1:1"}), "test")
    with span("work"):
        pass
    begun = time.monotonic()
    stop_tracing()

    assert time.monotonic() - begun < 5

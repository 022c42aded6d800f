"""Metrics of this process's requests, shared by the middleware and `/metrics`; each API process has its own."""

from prometheus_client import CollectorRegistry, Gauge, Histogram

# Seconds: polls are at the lower end, uploads and simulations at the upper.
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class RequestMetrics:
    """Latency, requests in progress and open event streams, in the registry of one application."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._latency = Histogram(
            "greentune_http_request_duration_seconds",
            "Time from a request to the start of its answer, by method, route template and class of status",
            ["method", "route", "status"],
            buckets=BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "greentune_http_requests_in_flight", "Requests whose answer has not begun", registry=registry
        )
        self.event_streams = Gauge(
            "greentune_event_streams", "Event streams that are open at this process", registry=registry
        )

    def record_response(self, method: str, route: str, status: int, *, seconds: float) -> None:
        """Record a response; `method` and `route` have few values, so that clients cannot create time series."""
        self._latency.labels(method, route, f"{status // 100}xx").observe(seconds)

"""`/metrics`: figures from the database and of this process, in Prometheus' text format."""

from collections.abc import Iterable
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from api.access.principal import OperatorDep
from api.dependencies import AppContextDep, SessionDep
from api.http.problems import problem_responses
from api.metrics.families import build_metric_families
from api.metrics.service_figures import MetricsRepository
from runtime.site import UNKNOWN_ZONE

OPEN_METRICS = "application/openmetrics-text"

router = APIRouter(tags=["health"])


class _CollectedMetrics(Collector):
    """Collector of metrics that were read already."""

    def __init__(self, known: Iterable[Metric]) -> None:
        self._known = known

    def collect(self) -> Iterable[Metric]:
        return self._known


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        HTTPStatus.OK.value: {
            "description": "Prometheus' text format, or OpenMetrics if `Accept` requests it",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **problem_responses(HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
def get_metrics(operator: OperatorDep, request: Request, context: AppContextDep, session: SessionDep) -> Response:
    """For operators, since they cover all owners. Figures of jobs, energy and workers are read from the database and
    are the same at every API process; those of requests are this process's own."""
    settings, requests = context.settings, context.request_metrics
    figures = MetricsRepository(session).collect(
        zones=[*settings.zones, UNKNOWN_ZONE], lease_seconds=settings.lease_seconds
    )
    requests.event_streams.set(context.stream_limiter.open_streams)
    read = build_metric_families(figures, zones=sorted(settings.zones), lease_seconds=settings.lease_seconds)
    everything = CollectorRegistry()
    everything.register(_CollectedMetrics([*read, *requests.registry.collect()]))
    # The library's own choice by `Accept` fails at an invalid version.
    if OPEN_METRICS in request.headers.get("accept", ""):
        return _text(openmetrics.generate_latest(everything), openmetrics.CONTENT_TYPE_LATEST)
    return _text(generate_latest(everything), CONTENT_TYPE_LATEST)


def _text(content: bytes, media_type: str) -> Response:
    return Response(content, headers={"Content-Type": media_type})

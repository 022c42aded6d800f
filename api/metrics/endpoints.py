"""`/metrics`: the database's figures and this process's own, as text that Prometheus reads."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Header, Response
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from api.access.principal import OperatorDep
from api.context import ContextDep, SessionDep
from api.metrics.families import families
from api.problems import declared
from store.metrics import MetricsRepository

router = APIRouter(tags=["health"])


class _Known(Collector):
    """What was read already."""

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
            "description": "Prometheus' text format, or OpenMetrics where `Accept` asks for it",
            "content": {"text/plain": {"schema": {"type": "string"}}},
        },
        **declared(HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE),
    },
)
def get_metrics(
    operator: OperatorDep,
    context: ContextDep,
    session: SessionDep,
    accept: Annotated[str, Header(description="As Prometheus sends it")] = "",
) -> Response:
    """For operators: they are of all owners. Jobs, energy and workers come from the database, and are the same at every
    API process; those of requests are this process's own."""
    settings, requests = context.settings, context.request_metrics
    figures = MetricsRepository(session).figures(zones=settings.zones, lease_seconds=settings.lease_seconds)
    requests.event_streams.set(context.event_seats.taken)
    encode, media_type = choose_encoder(accept)
    read = families(figures, zones=sorted(settings.zones), lease_seconds=settings.lease_seconds)
    everything = CollectorRegistry()
    everything.register(_Known([*read, *requests.registry.collect()]))
    return Response(encode(everything), headers={"Content-Type": media_type})

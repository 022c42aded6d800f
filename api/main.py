"""The API as an ASGI application: `create_app` for given settings, `app` for `uvicorn api.main:app`."""

import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from api.access.audit import AuditMiddleware
from api.access.authentication_middleware import AuthenticationMiddleware
from api.access.authenticator import Authenticator
from api.access.endpoints import router as access
from api.access.proxies import TrustedProxyMiddleware
from api.access.rate_limits import RateLimiter
from api.access.sessions import SessionCookies
from api.access.sign_in import router as sign_in
from api.dashboard import datasets as datasets_pages
from api.dashboard import grid, submit
from api.dashboard import keys as keys_page
from api.dashboard import workers as workers_page
from api.dashboard.jobs import job_page, list_page
from api.dashboard.policies import editor_page
from api.datasets.contents import router as dataset_contents
from api.datasets.endpoints import router as datasets
from api.dependencies import AppContext
from api.health.endpoints import router as health
from api.health.readiness import Readiness
from api.http import problems
from api.http.body_limit import BodyLimitMiddleware, BodyLimits
from api.http.etags import NotModified, respond_not_modified
from api.http.head_requests import HeadMiddleware
from api.http.observation import RequestIdMiddleware, TelemetryMiddleware
from api.http.openapi import complete_openapi, document_access, operation_id
from api.http.security_headers import SecurityHeadersMiddleware
from api.http.shutdown import on_stop_signal
from api.http.stream_limiter import StreamLimiter
from api.jobs.artifacts import router as artifacts
from api.jobs.endpoints import router as jobs
from api.jobs.estimate.endpoint import router as estimate
from api.jobs.history.evaluations import router as evaluations
from api.jobs.history.event_stream import router as event_stream
from api.jobs.history.selection import router as selection
from api.jobs.history.series import router as series
from api.metrics.endpoints import router as metrics
from api.metrics.requests import RequestMetrics
from api.models.endpoints import router as models
from api.policies.endpoints import router as policies
from api.policies.simulation_request import MAX_READINGS, UploadedReading
from api.reference.endpoints import router as reference
from api.webhooks.endpoints import router as webhooks
from api.workers.endpoints import router as workers
from api.zones.endpoints import router as zones
from greencore.clock import Clock, utc_now
from runtime.catalogue import read_catalogue
from runtime.logs import configure_logs
from runtime.private_files import restrict_data_folder, set_private_umask
from runtime.settings import Settings, get_settings
from runtime.tracing import configure_tracing, flush_traces
from store.database import Database, describe_outage
from store.event_feed import EventFeed
from store.pooling import TransactionPooling, require_sessions

log = structlog.get_logger()
STATIC_FOLDER = Path(__file__).parent / "static"

DESCRIPTION = """\
Fine-tunes language models with adaptive backpropagation; the carbon intensity of the grid determines how much of \
each epoch's work is computed.\
"""
UPLOAD = ("POST", "/datasets")
SIMULATION = ("POST", "/policies/simulate")
SIGN_IN_FORM = ("POST", "/sign-in")
# A job with the most metadata and policy steps allowed has some hundred values; a simulation adds its readings.
MAX_VALUES = 20_000
VALUES_OF_READING = len(UploadedReading.model_fields)
FORM_BYTES = 64 * 2**10  # overhead of a form around its file


class Api(FastAPI):
    """FastAPI whose OpenAPI description also states problems, access and common headers."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI description, built once."""
        if self.openapi_schema is None:
            description = super().openapi()
            problems.document_problems(description)
            document_access(description)
            complete_openapi(description)
        return super().openapi()


def create_app(settings: Settings, *, clock: Clock = utc_now) -> FastAPI:
    """Create the application for these settings; it opens no connection before the first request.

    Raises `runtime.catalogue.CatalogueError` where the catalogue cannot be read, `runtime.settings.SecretKeyMissing`
    where there is no secret, and `ValueError` where the database is not PostgreSQL.
    """
    database = Database(settings.database_url)
    context = AppContext(
        settings=settings,
        database=database,
        clock=clock,
        authenticator=Authenticator(database, settings.secret, clock),
        session_cookies=SessionCookies(settings.secret, hours=settings.session_hours, clock=clock),
        rate_limiter=RateLimiter(per_minute=settings.rate_limit_per_minute),
        event_feed=EventFeed(database),
        stream_limiter=StreamLimiter(total=settings.max_event_streams, per_owner=settings.max_event_streams_per_owner),
        request_metrics=RequestMetrics(CollectorRegistry()),
        readiness=Readiness(database, settings),
        catalogue=read_catalogue(settings.catalogue),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        restrict_data_folder(settings.data_dir)
        with on_stop_signal(context.event_feed.close):
            yield
        flush_traces()
        database.dispose()

    app = Api(
        title="GreenTune",
        description=DESCRIPTION,
        version="1",
        # Their pages load scripts from a CDN; `reference` serves one that does not.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # `TelemetryMiddleware` makes the spans: FastAPI's own contain queries and messages, and so users' texts.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        generate_unique_id_function=operation_id,
        lifespan=lifespan,
        middleware=[
            Middleware(TrustedProxyMiddleware, networks=settings.trusted_proxies),
            Middleware(RequestIdMiddleware),
            Middleware(TelemetryMiddleware, metrics=context.request_metrics),
            Middleware(SecurityHeadersMiddleware),
            Middleware(AuditMiddleware, database=database, clock=clock),
            Middleware(AuthenticationMiddleware, context=context),
            Middleware(
                BodyLimitMiddleware,
                default=BodyLimits(settings.max_body_bytes, MAX_VALUES),
                overrides={
                    UPLOAD: BodyLimits(settings.max_upload_bytes + FORM_BYTES, None),
                    SIMULATION: BodyLimits(settings.max_body_bytes, VALUES_OF_READING * MAX_READINGS + MAX_VALUES),
                    SIGN_IN_FORM: BodyLimits(FORM_BYTES, MAX_VALUES),
                },
            ),
            Middleware(HeadMiddleware),
        ],
        responses=problems.problem_responses(
            HTTPStatus.UNAUTHORIZED, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.TOO_MANY_REQUESTS
        ),
    )
    app.state.context = context
    problems.install_problem_handlers(app)
    app.add_exception_handler(NotModified, respond_not_modified)
    job_routers = (jobs, estimate, evaluations, event_stream, series, selection, artifacts)
    resources = (*job_routers, datasets, dataset_contents, policies, models, zones, workers, webhooks, access)
    for router in (*resources, health, metrics, sign_in, reference):
        app.include_router(router)
    for page in (list_page, submit, job_page, datasets_pages, editor_page, grid, workers_page, keys_page):
        app.include_router(page.router, include_in_schema=False)
    for path, folder in (("/static/uplot", _uplot()), ("/static", STATIC_FOLDER)):
        app.mount(path, GZipMiddleware(_RevalidatedFiles(directory=folder)))  # compressed: no secrets are in them
    return app


def __getattr__(name: str) -> FastAPI:
    """Create `app` on first access, so that importing this module reads no settings."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    settings = get_settings()
    set_private_umask()
    configure_logs(settings)
    configure_tracing(settings, "api")
    app = globals()[name] = create_app(settings)
    _require_sessions(settings)
    return app


def _require_sessions(settings: Settings) -> None:
    """Exit if the database is behind a pooler in transaction mode; log it if the database is unavailable."""
    url = Database(settings.database_url).url
    try:
        # In a thread, since a server imports its application in an event loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(require_sessions, url).result()
    except TransactionPooling as error:
        sys.exit(str(error))
    except OperationalError as error:
        log.warning("database.unavailable", reason=describe_outage(error), error=str(error.orig).strip())


def _uplot() -> Path:
    """Return the folder of uPlot's files. The package is located, not imported: it is made for notebooks."""
    found = find_spec("uplot")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(
            "the dashboard's charts need uplot-python, not installed here: pip install 'greentune[charts]'"
        )
    return Path(found.submodule_search_locations[0]) / "static"


class _RevalidatedFiles(StaticFiles):
    """Static files that browsers revalidate on each use, so that a new release is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response

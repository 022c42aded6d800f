"""Configures structured logs for every process: events with fields, secrets redacted."""

import logging
import sys
import threading
from types import TracebackType

import structlog

from runtime.redaction import Redaction
from runtime.settings import Settings

# Libraries that install their own handlers, which would bypass redaction.
PROPAGATED_LOGGERS = (
    "uvicorn",
    "uvicorn.error",
    "uvicorn.asgi",
    "celery",
    "celery.task",
    "celery.redirected",
    "kombu",
    "multiprocessing",
)
# The API logs an event for each request itself, and carbon provider clients log their failures.
DISABLED_LOGGERS = ("uvicorn.access",)
WARNING_LOGGERS = ("httpx", "httpcore", "urllib3")


def configure_logs(settings: Settings) -> None:
    """Write structlog's and libraries' log lines, and uncaught exceptions, to stderr, as text or JSON.

    Replaces the previous configuration at each call.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_logger, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                Redaction(settings),
                _renderer(settings),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)
    for name in PROPAGATED_LOGGERS:
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True
    for name in DISABLED_LOGGERS:
        logging.getLogger(name).disabled = True
    for name in WARNING_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _process_failed
    threading.excepthook = _thread_failed


class _Stderr(logging.StreamHandler):  # type: ignore[type-arg]
    """Stderr handler that reports a line it cannot render by its logger's name, without its content."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        fault = sys.exc_info()[0]
        sys.stderr.write(f"a log line of {record.name} cannot be written: {fault.__name__ if fault else 'unknown'}\n")


def _renderer(settings: Settings) -> structlog.typing.Processor:
    if settings.log_format == "json":
        return structlog.processors.JSONRenderer()
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _add_logger(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Add the name of the library that wrote a line."""
    event["logger"] = event["_record"].name
    return event


def _process_failed(kind: type[BaseException], fault: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, fault, trace)
        return
    structlog.get_logger().critical("process.failed", exc_info=(kind, fault, trace))


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is None or issubclass(failed.exc_type, SystemExit):
        return
    name = failed.thread.name if failed.thread else None
    trace = (failed.exc_type, failed.exc_value, failed.exc_traceback)
    structlog.get_logger().error("thread.failed", thread=name, exc_info=trace)

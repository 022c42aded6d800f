"""The real application on a port of its own, in a thread, for clients that speak HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from structlog.testing import capture_logs

from cli.stack.embedded import LOOPBACK
from greencore.host_network import find_free_port

START_SECONDS = 20.0


@contextmanager
def run_server(app: FastAPI, *, port: int | None = None) -> Iterator[str]:
    """The URL at which `app` answers for as long as the block runs."""
    port = port or find_free_port(LOOPBACK)
    config = uvicorn.Config(
        app, host=LOOPBACK, port=port, log_config=None, timeout_graceful_shutdown=1, lifespan="on", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="service", daemon=True)
    # Its log has no place in what commands show that run in this process.
    with capture_logs():
        thread.start()
        try:
            deadline = time.monotonic() + START_SECONDS
            while not server.started:
                assert thread.is_alive(), "the service did not start"
                assert time.monotonic() < deadline, "the service does not start"
                time.sleep(0.01)
            yield f"http://{LOOPBACK}:{port}"
        finally:
            server.should_exit = True
            thread.join(10)

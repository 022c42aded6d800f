"""What the pages load, all of it from here: our own files, and uPlot's from its package."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OWN = Path(__file__).parent / "static"


def mount_assets(app: FastAPI) -> None:
    """Serves `/static` and `/static/uplot`; compressed, since nothing in them is secret."""
    app.mount("/static/uplot", _served(_uplot()), name="uplot")
    app.mount("/static", _served(OWN), name="static")


def _uplot() -> Path:
    """The folder of uPlot's files. The package is only found, not loaded: it is made for notebooks."""
    found = find_spec("uplot")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(
            "the dashboard's charts need uplot-python, not installed here: pip install 'greentune[charts]'"
        )
    return Path(found.submodule_search_locations[0]) / "static"


def _served(folder: Path) -> ASGIApp:
    return _Revalidated(GZipMiddleware(StaticFiles(directory=folder)))


class _Revalidated:
    """Has a browser ask each time whether a file is right still, so that a release is seen at once."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_revalidated(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"cache-control", b"no-cache")]
            await send(message)

        await self._app(scope, receive, send_revalidated)

"""What the pages load, all of it from here: our own files, and uPlot's from its package."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_FOLDER = Path(__file__).parent / "static"


def mount_assets(app: FastAPI) -> None:
    """Serves `/static` and `/static/uplot`; compressed, since nothing in them is secret."""
    for path, folder in (("/static/uplot", _uplot()), ("/static", STATIC_FOLDER)):
        app.mount(path, GZipMiddleware(_RevalidatedFiles(directory=folder)))


def _uplot() -> Path:
    """The folder of uPlot's files. The package is only found, not loaded: it is made for notebooks."""
    found = find_spec("uplot")
    if found is None or not found.submodule_search_locations:
        raise RuntimeError(
            "the dashboard's charts need uplot-python, not installed here: pip install 'greentune[charts]'"
        )
    return Path(found.submodule_search_locations[0]) / "static"


class _RevalidatedFiles(StaticFiles):
    """Has a browser ask each time whether a file is right still, so that a release is seen at once."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        return response

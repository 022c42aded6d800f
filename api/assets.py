"""Static files of the dashboard: our own, and uPlot's from its package; nothing comes from other hosts."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC_FOLDER = Path(__file__).parent / "static"


def mount_assets(app: FastAPI) -> None:
    """Mount `/static` and `/static/uplot`, compressed, since they contain no secrets."""
    for path, folder in (("/static/uplot", _uplot()), ("/static", STATIC_FOLDER)):
        app.mount(path, GZipMiddleware(_RevalidatedFiles(directory=folder)))


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

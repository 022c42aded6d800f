"""`/dashboard/grid`: the zones: what their power emits now and next."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.templating import render

router = APIRouter()


@router.get("/dashboard/grid")
def grid_page(principal: PrincipalDep) -> HTMLResponse:
    """To be filled."""
    return render("grid.html", title="Grid", here="grid", principal=principal)

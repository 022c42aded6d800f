"""`/dashboard/workers`: what runs where."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.templating import render

router = APIRouter()


@router.get("/dashboard/workers")
def workers_page(principal: PrincipalDep) -> HTMLResponse:
    """To be filled."""
    return render("workers.html", title="Workers", here="workers", principal=principal)

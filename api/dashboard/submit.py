"""`/dashboard/submit`: what a job would take, and the form that submits it."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.templating import render

router = APIRouter()


@router.get("/dashboard/submit")
def submit_page(principal: PrincipalDep) -> HTMLResponse:
    """To be filled."""
    return render("submit.html", title="Submit a job", here="submit", principal=principal)

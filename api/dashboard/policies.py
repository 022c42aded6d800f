"""`/dashboard/policies`: the policies, and the editor for operators."""

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.templating import render

router = APIRouter()


@router.get("/dashboard/policies")
def policies_page(principal: PrincipalDep) -> HTMLResponse:
    """To be filled."""
    return render("policies.html", title="Policies", here="policies", principal=principal)


@router.get("/dashboard/policies/{name}")
def policy_page(name: str, principal: PrincipalDep) -> HTMLResponse:
    """To be filled."""
    return render("policies.html", title=name, here="policies", principal=principal)

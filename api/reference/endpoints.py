"""`/docs`: the OpenAPI description as a page that loads nothing from other hosts."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.reference.operations import common_responses, list_operations, list_schemas, security_schemes
from api.templating import render_page

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def reference(principal: PrincipalDep, request: Request) -> HTMLResponse:
    """Return the page of all operations with their parameters, bodies and responses."""
    description = request.app.openapi()
    return render_page(
        "reference.html",
        title="Reference",
        here="reference",
        principal=principal,
        description=description["info"]["description"],
        groups=list_operations(description),
        shared=common_responses(description),
        security_schemes=security_schemes(description),
        schemas=list_schemas(description),
    )

"""`/docs`: the OpenAPI description as a page that loads nothing from elsewhere."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.reference.operations import answers_of_all, operations, shapes, ways_in
from api.templating import render

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def reference(principal: PrincipalDep, request: Request) -> HTMLResponse:
    """Every operation with its parameters, its body and its answers."""
    description = request.app.openapi()
    return render(
        "reference.html",
        title="Reference",
        here="reference",
        principal=principal,
        description=description["info"]["description"],
        groups=operations(description),
        shared=answers_of_all(description),
        ways_in=ways_in(description),
        schemas=shapes(description),
    )

"""`/docs`: the OpenAPI description as a page that loads nothing from elsewhere."""

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.reference.operations import operations, shapes
from api.templating import render

router = APIRouter(include_in_schema=False)


@router.get("/docs")
def reference(request: Request) -> HTMLResponse:
    """Every operation with its parameters, its body and its answers."""
    description = request.app.openapi()
    return render(
        "reference.html",
        title="Reference",
        description=description["info"]["description"],
        groups=operations(description),
        schemas=shapes(description),
    )

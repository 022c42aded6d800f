"""`/dashboard/keys`: the API keys, for operators, who create and revoke them there."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from api.access.principal import OperatorDep
from api.access.schemas import KeyOut, NewKeyRequest
from api.dashboard.form_fields import fields_of
from api.dashboard.page import PageDep
from api.http.pagination import Id
from store.repositories.keys import KeyRepository, get_unusable_reason

LISTED = 50

router = APIRouter()


@router.get("/dashboard/keys")
def keys_page(
    operator: OperatorDep,
    page: PageDep,
    after: Annotated[Id | None, Query(description="Only keys older than this id")] = None,
) -> HTMLResponse:
    """Render the keys, newest first, with the form that creates one; their texts are not known here."""
    found = KeyRepository(page.session).page(limit=LISTED, after=after)
    keys = [(KeyOut.from_row(key), get_unusable_reason(key, at=page.now)) for key in found.data]
    shown = [[key.model_dump(mode="json"), state] for key, state in keys]
    page.check_etag(operator.key_id, shown, found.has_more)
    return page.render(
        "keys.html",
        title="Keys",
        here="keys",
        keys=keys,
        fields={field.name: field for field in fields_of(NewKeyRequest.model_json_schema())},
        after=after,
        older=found.data[-1].id if found.has_more else None,
    )

"""`/models`: the operator's catalogue; only its models can be trained."""

from fastapi import APIRouter

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, SessionDep
from api.http.pagination import Listing, complete_listing
from api.models.schemas import ModelOut
from store.repositories.models import ModelRepository

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List the models that jobs may name")
def list_models(principal: PrincipalDep, context: AppContextDep, session: SessionDep) -> Listing[ModelOut]:
    """The whole catalogue, in its order."""
    models = ModelRepository(session)
    return complete_listing([ModelOut.of(entry, models.get(entry.name)) for entry in context.catalogue.values()])

"""`/zones`: the grid, as the scheduler last heard of it."""

from http import HTTPStatus

from fastapi import APIRouter

from api.context import ContextDep, NowDep, SessionDep
from api.problems import RETRY_AFTER_SECONDS, Problem, declared
from api.zones.schemas import IntensityOut
from store.grid import GridRepository

router = APIRouter(prefix="/zones", tags=["zones"])


@router.get(
    "/{zone}/intensity",
    summary="The carbon intensity in force in a zone",
    responses=declared(HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE),
)
def get_intensity(zone: str, context: ContextDep, session: SessionDep, now: NowDep) -> IntensityOut:
    """The newest reading that the scheduler stored, with its source and its age."""
    zones = context.settings.zones
    if zone not in zones:
        raise Problem(HTTPStatus.NOT_FOUND, f"there is no zone {zone!r}: known are {', '.join(sorted(zones))}")
    reading = GridRepository(session).newest(zone, at=now)
    if reading is None:
        raise Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"no reading of {zone} is stored yet: the scheduler asks its source, and stores what it says",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return IntensityOut.of(reading, now=now)

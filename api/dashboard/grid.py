"""`/dashboard/grid`: each zone's carbon intensity now, its forecast, and its cleanest window."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from api.access.principal import PrincipalDep
from api.dashboard.grid_zone import ZoneView, ticks
from api.dashboard.page_tags import page_etag, with_etag
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.etags import IfNoneMatch, matches_etag, not_modified_response
from api.intensity_bands import BANDS
from api.templating import render_page
from api.zones.endpoints import list_zones

# Sources publish new values every few minutes.
GRID_POLL_SECONDS = 15
WINDOW_HOURS = (1, 3, 6, 12)

router = APIRouter()


@router.get("/dashboard/grid")
def grid_page(
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    hours: Annotated[Literal["1", "3", "6", "12"], Query(description="Length of the cleanest window in hours")] = "3",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Render the zones, cleanest first; the ETag changes with each reading and each minute, to which ages are shown."""
    minute = now.replace(second=0, microsecond=0)
    zones = list_zones(principal, context, session, now).data
    known = [zone.model_dump(mode="json", exclude={"age_seconds"}) for zone in zones]
    tag = page_etag(principal, hours, minute.isoformat(), known)
    if matches_etag(if_none_match, tag):
        return not_modified_response(tag)
    views = [ZoneView.of(zone, session, context.settings, window_hours=int(hours), now=minute) for zone in zones]
    unknown = float("inf")
    views.sort(key=lambda view: unknown if view.now is None else view.now.gco2e_per_kwh)
    rendered = render_page(
        "grid.html",
        title="Grid",
        here="grid",
        principal=principal,
        zones=views,
        sources=context.settings.zones,
        ticks=ticks(minute),
        now=minute,
        window_hours=int(hours),
        lengths=WINDOW_HOURS,
        bands=BANDS,
        poll_seconds=GRID_POLL_SECONDS,
    )
    return with_etag(rendered, tag)

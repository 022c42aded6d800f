"""`/dashboard/grid`: the zones: what their power emits now and next, and when each is cleanest."""

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

# Sources have something new every few minutes.
GRID_POLL_SECONDS = 15
WINDOW_HOURS = (1, 3, 6, 12)

router = APIRouter()


@router.get("/dashboard/grid")
def grid_page(
    principal: PrincipalDep,
    context: AppContextDep,
    session: SessionDep,
    now: NowDep,
    hours: Annotated[Literal["1", "3", "6", "12"], Query(description="How long the window is to be")] = "3",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Renewed where a source has said something new, and every minute, since what is shown is of that minute."""
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

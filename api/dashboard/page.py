"""The request of a dashboard page, and its rendering with an ETag: a poll of an unchanged page is answered 304."""

import hashlib
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends
from fastapi.responses import HTMLResponse

from api.access.principal import PrincipalDep
from api.dependencies import AppContextDep, NowDep, SessionDep
from api.http.etags import IfNoneMatch, check_etag, etag_headers
from api.jobs.schemas import JOB_SCHEMA_FINGERPRINT
from api.templating import RENDERING_FINGERPRINT, render_page

POLL_SECONDS = 3  # interval at which a page with something in progress polls


@dataclass
class Page:
    """What every page of the dashboard reads from; the headers are those of the page, once it has an ETag."""

    principal: PrincipalDep
    context: AppContextDep
    session: SessionDep
    now: NowDep
    if_none_match: IfNoneMatch = None
    headers: dict[str, str] = field(default_factory=dict, init=False)

    def check_etag(self, *parts: object) -> None:
        """Give the page an ETag of the `parts` (JSON values) that it shows. Raises `NotModified` if that is known."""
        owner, role = self.principal.owner, self.principal.role
        shown = json.dumps([RENDERING_FINGERPRINT, JOB_SCHEMA_FINGERPRINT, owner, role, *parts])
        tag = f'"p-{hashlib.sha256(shown.encode()).hexdigest()[:32]}"'
        check_etag(self.if_none_match, tag)
        self.headers = etag_headers(tag)

    def render(
        self, template: str, *, title: str, here: str, status: HTTPStatus = HTTPStatus.OK, **values: Any
    ) -> HTMLResponse:
        """Render a template; `here` is the page's place in the navigation."""
        return render_page(
            template,
            status=status,
            headers=self.headers,
            title=title,
            here=here,
            principal=self.principal,
            **values,
        )


PageDep = Annotated[Page, Depends()]

"""ETags of pages: a poll of an unchanged page is answered 304 without rendering it."""

import hashlib
import json

from fastapi import Response
from fastapi.responses import HTMLResponse

from api.access.principal import Principal
from api.http.etags import etag_headers
from api.jobs.caching import JOB_SCHEMA_FINGERPRINT
from api.templating import RENDERING_FINGERPRINT

POLL_SECONDS = 3  # interval at which a page with something in progress polls


def page_etag(principal: Principal, *parts: object) -> str:
    """Return the ETag of a page that shows `parts` (JSON values) to a principal."""
    shown = [RENDERING_FINGERPRINT, JOB_SCHEMA_FINGERPRINT, principal.owner, principal.role, *parts]
    return f'"p-{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}"'


def with_etag(page: HTMLResponse, tag: str) -> Response:
    """Return the page with headers that make a browser cache it and revalidate it by its ETag."""
    page.headers.update(etag_headers(tag))
    return page

"""ETags of pages: a poll of a page on which nothing has changed is answered 304, without making it."""

import hashlib
import json

from fastapi import Response
from fastapi.responses import HTMLResponse

from api.access.principal import Principal
from api.http.etags import etag_headers
from api.jobs.caching import JOB_SCHEMA_FINGERPRINT
from api.templating import RENDERING_FINGERPRINT

POLL_SECONDS = 3  # how soon a page with something in progress asks again


def page_etag(principal: Principal, *parts: object) -> str:
    """The ETag of a page that shows `parts`, which JSON can have, to a principal."""
    shown = [RENDERING_FINGERPRINT, JOB_SCHEMA_FINGERPRINT, principal.owner, principal.role, *parts]
    return f'"p-{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}"'


def with_etag(page: HTMLResponse, tag: str) -> Response:
    """The page, which a browser may keep and asks for again by its ETag."""
    page.headers.update(etag_headers(tag))
    return page

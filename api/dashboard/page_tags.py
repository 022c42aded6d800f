"""ETags of pages: a poll of a page on which nothing has changed is answered 304, without making it."""

import hashlib
import json

from fastapi import Response
from fastapi.responses import HTMLResponse

from api.access.principal import Principal
from api.etags import headers
from api.jobs.caching import REPRESENTATION
from api.templating import FINGERPRINT

POLL_SECONDS = 3  # how soon a page with something in progress asks again


def page_tag(principal: Principal, *parts: object) -> str:
    """The ETag of a page that shows `parts`, which JSON can have, to a principal."""
    shown = [FINGERPRINT, REPRESENTATION, principal.owner, principal.role, *parts]
    return f'"p-{hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:32]}"'


def tagged(page: HTMLResponse, tag: str) -> Response:
    """The page, which a browser may keep and asks for again by its ETag."""
    page.headers.update(headers(tag))
    return page

"""Origin of a request: this machine, a page of this service, or elsewhere."""

from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from starlette.requests import Request

# Headers that proxies and networks add to a request, besides X-Forwarded-*.
PROXY_HEADERS = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "x-original-for", "true-client-ip", "cdn-loop"}
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def client_address(request: Request) -> str:
    """Return the client's address, as a trusted proxy forwards it, else the peer's; "unknown" without one."""
    return request.client.host if request.client is not None else "unknown"


def has_safe_method(request: Request) -> bool:
    """Return whether the method is safe: it changes nothing (RFC 9110, 9.2.1)."""
    return request.method in SAFE_METHODS


def is_same_origin(request: Request) -> bool:
    """Return whether a browser states that a page of this service sent the request."""
    site = request.headers.get("sec-fetch-site")
    return site == "same-origin" if site is not None else _origin_matches(request)


def is_cross_site(request: Request) -> bool:
    """Return whether a browser states that another site's page sent the request; other programs state nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    return "origin" in request.headers and not _origin_matches(request)


def is_local_request(request: Request) -> bool:
    """Return whether a program or a page of this machine sent the request, to an address of this machine.

    False if a proxy forwards it, if a page reaches this machine by a foreign name (DNS rebinding), or if a page of
    another site sends a change.
    """
    forwarded = any(name.startswith("x-forwarded-") or name in PROXY_HEADERS for name in request.headers)
    if forwarded or not _is_loopback(client_address(request)) or not _is_loopback(request.url.hostname or ""):
        return False
    return has_safe_method(request) or not is_cross_site(request)


def safe_redirect_path(text: str) -> str:
    """Return `text` if it is a path on this service, else `/`; a link may name any redirect target."""
    printable = text.isprintable() and "\\" not in text
    return text if printable and text.startswith("/") and not text.startswith("//") else "/"


def requested_path(request: Request) -> str:
    """Return the path and query of a request in ASCII."""
    path = quote(request.url.path, safe="/:@!$&'()*+,;=~-._")
    return f"{path}?{request.url.query}" if request.url.query else path


def _origin_matches(request: Request) -> bool:
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host", "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

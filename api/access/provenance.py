"""Where a request comes from: this machine itself, a page of our own, or who knows."""

from ipaddress import ip_address
from urllib.parse import quote, urlsplit

from starlette.requests import Request

# Beside X-Forwarded-*, what proxies and networks in front of a service add to a request.
PROXY_HEADERS = frozenset(
    {"forwarded", "via", "x-real-ip", "x-client-ip", "x-original-for", "true-client-ip", "cdn-loop"}
)
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def client_address(request: Request) -> str:
    """The client's address, as a trusted proxy forwards it, else the peer's; "unknown" where the server has none."""
    return request.client.host if request.client is not None else "unknown"


def has_safe_method(request: Request) -> bool:
    """Whether the method promises to change nothing."""
    return request.method in SAFE_METHODS


def is_same_origin(request: Request) -> bool:
    """Whether a browser says that a page of this very service sent the request."""
    site = request.headers.get("sec-fetch-site")
    return site == "same-origin" if site is not None else _origin_matches(request)


def is_cross_site(request: Request) -> bool:
    """Whether a browser says that some other site's page sent the request; other programs say nothing."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    return "origin" in request.headers and not _origin_matches(request)


def is_local_request(request: Request) -> bool:
    """Whether a program or a page of this machine itself sent the request, to an address of this machine.

    Not where a proxy says that it speaks for somebody else, and not where a page from elsewhere has had its name
    point here, or sends what changes something.
    """
    forwarded = any(name.startswith("x-forwarded-") or name in PROXY_HEADERS for name in request.headers)
    if forwarded or not _is_loopback(client_address(request)) or not _is_loopback(request.url.hostname or ""):
        return False
    return has_safe_method(request) or not is_cross_site(request)


def safe_redirect_path(text: str) -> str:
    """`text` where it is a path on this service, else `/`: what a link may name as the page to go on to."""
    printable = text.isprintable() and "\\" not in text
    return text if printable and text.startswith("/") and not text.startswith("//") else "/"


def requested_path(request: Request) -> str:
    """The path and query of a request in plain ASCII."""
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

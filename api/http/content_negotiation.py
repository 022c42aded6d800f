"""Content negotiation: whether a request prefers an HTML page to data."""

from starlette.requests import Request

HTML = "text/html"
DATA = ("application/json", "application/problem+json")
PAGES = ("/", "/docs")
DASHBOARD = "/dashboard/"


def prefers_html(request: Request) -> bool:
    """Return True for pages by path, and for requests that prefer HTML to JSON; never with a key."""
    if "authorization" in request.headers:
        return False
    path = request.url.path
    is_page = path in PAGES or path.startswith(DASHBOARD)
    if is_page and request.method in ("GET", "HEAD"):
        return True
    accepted = request.headers.get("accept", "")
    return _preference(accepted, HTML) > max(_preference(accepted, media_type) for media_type in DATA)


def _preference(accepted: str, media_type: str) -> tuple[float, int]:
    """Return a media type's `q` in an `Accept` header and how specifically it is named; larger is preferred."""
    kind = media_type.partition("/")[0]
    weights = dict(_parse_media_range(one) for one in accepted.lower().split(","))
    names = (media_type, f"{kind}/*", "*/*")
    return next(((weights[name], -place) for place, name in enumerate(names) if name in weights), (0.0, 0))


def _parse_media_range(text: str) -> tuple[str, float]:
    name, *parameters = (part.strip() for part in text.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return name, float(value)
            except ValueError:
                return name, 0.0  # an unreadable weight is no preference
    return name, 1.0

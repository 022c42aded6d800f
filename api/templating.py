"""Renders pages from Jinja templates: all values are escaped, and an undefined name is an error."""

import hashlib
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from api import figures
from api.intensity_bands import BANDS_JSON, band_of

TEMPLATES = Path(__file__).parent / "templates"
# Part of the pages' ETags: another release may render the same rows differently.
RENDERING_FINGERPRINT = hashlib.sha256(
    b"".join(file.read_bytes() for kind in ("*.html", "*.py") for file in sorted(Path(__file__).parent.rglob(kind)))
).hexdigest()[:8]


def _code(text: str) -> Markup:
    """Return escaped text with each part between backticks as `<code>`."""
    parts = (escape(part) for part in text.split("`"))
    return Markup().join(
        Markup("<code>{}</code>").format(part) if index % 2 else part for index, part in enumerate(parts)
    )


_templates = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals["intensity_bands"] = BANDS_JSON
_templates.filters.update(
    band=band_of,
    bytes=figures.format_size,
    code=_code,
    duration=figures.format_duration,
    forms=figures.format_forms,
    json=figures.format_json,
    minute=figures.format_minute,
    number=figures.format_number,
    percent=figures.format_percent,
    time=figures.format_time,
    value=figures.format_value,
)


def render_page(
    template: str,
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    **values: Any,
) -> HTMLResponse:
    """Render a template with `values` as a page."""
    return HTMLResponse(_templates.get_template(template).render(**values), status, headers)

"""`python -m api.describe` writes the OpenAPI description to `api/openapi.json`, for review and comparison."""

import json
from pathlib import Path

from pydantic import SecretStr

from api.main import create_app
from runtime.settings import Settings

OPENAPI_FILE = Path(__file__).with_name("openapi.json")
COMMAND = "python -m api.describe"


def render_openapi() -> str:
    """Return the OpenAPI description as JSON text; it is the same for every deployment."""
    app = create_app(Settings(secret_key=SecretStr("-" * 32), catalogue=None))
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(render_openapi(), encoding="utf-8")

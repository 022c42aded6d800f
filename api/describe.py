"""`python -m api.describe` writes `api/openapi.json`: what this service's interface is, to be read and compared."""

import json
from pathlib import Path

from pydantic import SecretStr

from api.main import create_app
from runtime.settings import Settings

OPENAPI_FILE = Path(__file__).with_name("openapi.json")
COMMAND = "python -m api.describe"


def render_openapi() -> str:
    """The OpenAPI description as the file holds it: the same for every deployment."""
    app = create_app(Settings(secret_key=SecretStr("-" * 32), catalogue=None))
    return json.dumps(app.openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(render_openapi(), encoding="utf-8")

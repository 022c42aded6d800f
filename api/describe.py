"""`python -m api.describe` writes the OpenAPI description to `api/openapi.json`, and the client's models from it."""

import json
import re
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from api.main import create_app
from runtime.settings import Settings

OPENAPI_FILE = Path(__file__).with_name("openapi.json")
CLIENT_MODELS_FILE = Path(__file__).parents[1] / "greentune" / "models" / "generated.py"
COMMAND = "python -m api.describe"
# What the client's methods return.
CLIENT_ANSWERS = (
    "Artifact", "Dataset", "Epoch", "Estimate", "Evaluation", "Event", "Forecast", "Health", "History", "Intensity",
    "Job", "Key", "LearnedText", "Model", "Policy", "Row", "Selection", "Series", "Simulation", "Worker", "Zone",
)  # fmt: skip


def render_openapi() -> str:
    """Return the OpenAPI description as JSON text; it is the same for every deployment."""
    return json.dumps(_describe(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def render_client_models() -> str:
    """Return the models of the client's answers and of their parts as Python text: `JobOut` as `Job`, None for null."""
    from datamodel_code_generator import DatetimeClassType, InputFileType, LiteralType, PythonVersion, generate
    from datamodel_code_generator.format import Formatter

    openapi = json.loads(re.sub(r'(schemas/\w+)Out"', r'\1"', json.dumps(_describe())))
    described = openapi["components"]["schemas"]
    models: dict[str, Any] = {}
    names = list(CLIENT_ANSWERS)
    while names:
        if (name := names.pop()) not in models:
            models[name] = described.get(f"{name}Out") or described[name]
            names += re.findall(r'schemas/(\w+)"', json.dumps(models[name]))
    for model in models.values():
        for schema in (model, *model.get("properties", {}).values()):
            schema.pop("title", None)
            if schema.pop("deprecated", False):  # which the generator would have Python warn of
                schema["description"] = f"{schema['description']}; deprecated"
    models["Zone"]["required"].remove("provider")  # an older service does not send it
    generated = generate(
        {**openapi, "paths": {}, "components": {"schemas": models}},
        input_file_type=InputFileType.OpenAPI,
        target_python_version=PythonVersion.PY_311,
        custom_file_header=f'"""Answers of the service and their parts, by `{COMMAND}`: not to be edited."""',
        base_class="greentune.models.answer.Answer",
        enum_field_as_literal=LiteralType.All,
        collapse_root_models=True,
        output_datetime_class=DatetimeClassType.Datetime,
        use_annotated=True,
        use_schema_description=True,
        use_field_description=True,
        use_single_line_docstring=True,
        disable_future_imports=True,
        formatters=[Formatter.BUILTIN],
    )
    return re.sub(r"\b[Nn]ull\b", "None", str(generated))


def _describe() -> dict[str, Any]:
    return create_app(Settings(secret_key=SecretStr("-" * 32), catalogue=None)).openapi()


if __name__ == "__main__":
    OPENAPI_FILE.write_text(render_openapi(), encoding="utf-8")
    CLIENT_MODELS_FILE.write_text(render_client_models(), encoding="utf-8")

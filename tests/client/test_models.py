"""The client's models are those of the OpenAPI description, and accept older and newer services."""

import json
from typing import Any

from pydantic import TypeAdapter

from api.describe import CLIENT_MODELS_FILE, COMMAND, OPENAPI_FILE, render_client_models
from greentune import models
from greentune.models import Answer, generated
from greentune.requests import RunOptions

SCHEMAS: dict[str, Any] = json.loads(OPENAPI_FILE.read_text())["components"]["schemas"]
ZONE = {"zone": "FR", "signal": None, "newest": None, "age_seconds": None, "forecast": None, "workers": 0}


def test_the_generated_models_are_those_of_the_description() -> None:
    stale = f"the interface has changed: `{COMMAND}` renews {CLIENT_MODELS_FILE.name}, to be committed with it"
    assert CLIENT_MODELS_FILE.read_text() == render_client_models(), stale


def test_every_generated_model_is_exported() -> None:
    made = {name for name, kind in vars(generated).items() if isinstance(kind, type) and issubclass(kind, Answer)}
    assert made <= set(models.__all__)


def test_the_states_and_actions_are_those_of_the_description() -> None:
    assert TypeAdapter(models.JobStatus).json_schema()["enum"] == SCHEMAS["JobStatus"]["enum"]
    assert TypeAdapter(models.Action).json_schema()["enum"] == SCHEMAS["Action"]["enum"]


def test_an_issued_key_is_a_key_with_its_text() -> None:
    assert issubclass(models.IssuedKey, models.Key)
    assert models.IssuedKey.model_fields.keys() == SCHEMAS["IssuedKeyOut"]["properties"].keys()


def test_the_options_of_a_run_are_the_fields_of_its_request() -> None:
    assert RunOptions.__annotations__.keys() | {"model", "dataset"} == SCHEMAS["JobRequest"]["properties"].keys()


def test_a_zone_of_an_older_service_has_no_provider() -> None:
    assert models.Zone.model_validate(ZONE).provider is None


def test_fields_of_a_newer_service_are_ignored() -> None:
    assert models.Figure.model_validate({"expected": 1, "low": 0.5, "high": 2, "median": 1}).high == 2

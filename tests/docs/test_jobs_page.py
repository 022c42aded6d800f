"""The page about jobs: what it names is there, and nothing is missing in it."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
from standardwebhooks import Webhook
from typer.testing import CliRunner

from api.jobs.history.event_stream import END_EVENT
from api.jobs.request import JobRequest, Method
from api.main import Api
from cli.main import app
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.value_types import ResultForm
from greencore.training.models.delta import DELTA_FILE_NAME
from runtime.settings import Settings
from scheduler.webhooks.delivery import BACKOFF_FACTOR, FIRST_RETRY_DELAY
from store.lifecycle.status import ALLOWED_TRANSITIONS, FINAL, JobStatus
from store.repositories.deliveries import MAX_FAILED_DELIVERIES
from store.repositories.webhooks import MAX_WEBHOOKS_PER_OWNER, derive_signing_secret

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "jobs.md").read_text()


def section(title: str) -> str:
    return re.split(r"^#+ ", PAGE.split(f"# {title}\n", 1)[1], flags=re.MULTILINE)[0]


def first_cells(title: str) -> list[str]:
    """The names in the first column of a section's table."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ")][1:]
    return [name for line in lines for name in re.findall(r"`([^`]+)`", line.split("|")[1])]


def test_every_status_is_explained_and_the_final_ones_lead_on_by_a_retry_alone() -> None:
    assert sorted(first_cells("Where a job can stand")) == sorted(JobStatus)
    assert {status for status in FINAL if ALLOWED_TRANSITIONS[status]} == {JobStatus.FAILED, JobStatus.CANCELLED}


def test_every_method_and_every_form_of_a_result_is_explained() -> None:
    assert first_cells("Methods") == list(get_args(Method))
    assert {name for name in first_cells("Results") if name in get_args(ResultForm)} == set(get_args(ResultForm))
    assert DELTA_FILE_NAME in section("Results")


def test_the_example_is_a_job() -> None:
    [body] = re.findall(r"-d '(\{.*\})' ", PAGE, flags=re.DOTALL)
    request = JobRequest.model_validate_json(body.replace("'$DATASET'", "ds_1"))
    assert request.hyperparameters == Hyperparameters(epochs=3, result="delta")


def test_the_commands_options_are_those_that_there_are() -> None:
    described = CliRunner().invoke(app, ["apply-delta", "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"}).output
    [command] = re.findall(r"greentune apply-delta .*", PAGE)
    options = re.findall(r"--[a-z-]+", command)
    assert options
    assert all(option in described for option in options)


@pytest.mark.parametrize("variable", re.findall(r"GREENTUNE_[A-Z_]+", PAGE))
def test_every_setting_is_one(variable: str) -> None:
    assert variable.removeprefix("GREENTUNE_").lower() in Settings.model_fields


def test_the_receiver_of_webhooks_takes_what_is_signed_and_nothing_else() -> None:
    text = section("Webhooks")
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    [message] = re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    secret, now = derive_signing_secret("s" * 32, "wh_1"), datetime.now(UTC)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", now, message),
    }
    assert names["receive"](secret, headers, message.encode()) == json.loads(message)
    assert names["receive"](derive_signing_secret("s" * 32, "wh_2"), headers, message.encode()) is None


def test_the_page_tells_the_webhooks_figures() -> None:
    text = section("Webhooks")
    pauses = [FIRST_RETRY_DELAY.total_seconds() * BACKOFF_FACTOR**n for n in range(7)]
    minutes = ", ".join(f"{pause / 60:.0f}" for pause in pauses[1:4]) + f" and {pauses[4] / 60:.0f} minutes"
    assert f"after {pauses[0]:.0f} s, then {minutes}, {pauses[5] / 3600:.1f} and {pauses[6] / 3600:.0f} hours" in text
    assert Settings.model_fields["webhook_max_attempts"].default == len(pauses) + 1
    assert f"at most {MAX_WEBHOOKS_PER_OWNER} webhooks" in text
    assert MAX_FAILED_DELIVERIES == 10


def test_the_last_message_of_a_stream_has_its_name() -> None:
    assert f"`{END_EVENT}`" in section("Following a job")


def test_every_path_is_one_of_the_api(settings: Settings) -> None:
    from api.main import create_app

    application = create_app(settings)
    assert isinstance(application, Api)
    served = {re.sub(r"\{\w+\}", "{}", path) for path in application.openapi()["paths"]}
    named = re.findall(r"`(?:GET|POST)\s(/[^`]*)`", PAGE)
    assert named
    for path in named:
        assert re.sub(r"\{\w+\}", "{}", path) in served, path

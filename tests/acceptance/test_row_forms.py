"""Rows of every form in files of every container: uploaded, estimated, trained, and what the result writes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from greencore.training.models.loading import load_tokenizer
from tests.acceptance.conftest import Service, start_quick_service, wait_until
from tests.databases import DatabasePool
from tests.row_files import COMPRESSIONS, CONTAINERS

NUMBERS = range(10, 58)
ASKED, LEARNED = "w{} w1 w2", "w7 w8 w9"
# A template of words, since the model knows no others.
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m.role == 'user' %}{{ m.content }} {% else %}w5 {{ m.content }} <end> {% endif %}{% endfor %}"
    "{% if add_generation_prompt %}w5 {% endif %}"
)


def say(asked: str, answered: str, **of_answer: Any) -> list[dict[str, Any]]:
    """Return a question and its answer as messages, in parts, since a column of Parquet has values of one type."""
    messages: Sequence[tuple[str, str, dict[str, Any]]] = (("user", asked, {}), ("assistant", answered, of_answer))
    return [
        {"role": role, "content": [{"type": "text", "text": part} for part in (text[:1], text[1:])], **others}
        for role, text, others in messages
    ]


def rows_of(form: str) -> list[dict[str, Any]]:
    """Return rows of a form, from each of which the model learns to write the same words."""
    asked = [ASKED.format(number) for number in NUMBERS]
    if form == "messages":
        return [{"messages": [*say(text, "w3", weight=0), *say("w1 w2", LEARNED)]} for text in asked]
    if form == "sharegpt":
        turns = [(("human", text), ("gpt", LEARNED), ("human", "w4")) for text in asked]
        return [{"conversations": [{"from": name, "value": text} for name, text in each]} for each in turns]
    if form == "instruction":
        return [{"instruction": text, "input": "w2", "output": f" {LEARNED}"} for text in asked]
    if form == "prompt":
        return [{"prompt": text, "completion": f" {LEARNED}"} for text in asked]
    return [{"text": f"{text} {LEARNED}"} for text in asked]


FORMS = ("messages", "sharegpt", "instruction", "prompt", "text")


@pytest.fixture(scope="module")
def service(databases: DatabasePool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with start_quick_service(databases, folder) as service:
        tokenizer = load_tokenizer(folder / "small")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(folder / "small")
        yield service


def upload(service: Service, form: str, container: str, compression: str) -> dict[str, Any]:
    content = COMPRESSIONS[compression](CONTAINERS[container](rows_of(form)))
    answer = service.client.post("/datasets", files={"file": ("rows", content)})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_each_form_in_each_container_is_trained_and_predicts(service: Service, tmp_path: Path) -> None:
    wait_until("the model is measured", lambda: service.get("/models")["data"][0]["parameters"] is not None)
    compressions, jobs = list(COMPRESSIONS), {}
    for place, form in enumerate(FORMS):
        datasets = {}
        for number, container in enumerate(CONTAINERS):
            dataset = upload(service, form, container, compressions[(place + number) % len(compressions)])
            assert dataset["contents"]["forms"] == {form: len(NUMBERS)}
            datasets[container] = dataset["id"]
        previews = [service.get(f"/datasets/{each}/preview?limit=100")["data"] for each in datasets.values()]
        texts = [[row["texts"] for row in preview] for preview in previews]
        assert all(each == texts[0] for each in texts)
        job = {
            "model": "small",
            "dataset": datasets[list(CONTAINERS)[place]],
            "zone": "X",
            "method": "greentrainer",
            "policy": {"kind": "constant", "rho": 1.0},
            "hyperparameters": {"epochs": 2, "learning_rate": 5e-3, "max_new_tokens": 4, "eval_share": 0.1},
        }
        estimate = service.client.post("/jobs/estimate", json=job)
        assert estimate.status_code == 200, estimate.text
        assert estimate.json()["work"]["steps"] > 0
        jobs[form] = service.submit(**job)
    for form, job_id in jobs.items():
        service.wait_for(job_id, "succeeded")
        folder = tmp_path / form
        folder.mkdir()
        for artifact in service.get(f"/jobs/{job_id}/artifacts")["data"]:
            answer = service.client.get(f"/jobs/{job_id}/artifacts/{artifact['name']}")
            (folder / artifact["name"]).write_bytes(answer.content)
        assert predict(folder, form).startswith(LEARNED), form


def predict(folder: Path, form: str) -> str:
    """Return what a result writes after a question that was not among the rows."""
    tokenizer = load_tokenizer(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    asked = ASKED.format(59)
    if form in ("messages", "sharegpt"):
        turns = [{"role": "user", "content": asked}]
        asked = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    given = tokenizer(asked, return_tensors="pt", add_special_tokens=False)
    written = model.generate(**given, max_new_tokens=3, do_sample=False)
    return str(tokenizer.decode(written[0, given["input_ids"].shape[1] :]))

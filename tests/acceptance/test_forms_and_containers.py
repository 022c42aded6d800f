"""The five forms of row and the containers of files: each is uploaded, trained and predicts what it taught."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.acceptance.conftest import Service, start_quick_service
from tests.conftest import make_settings, own_database
from tests.row_files import COMPRESSIONS, CONTAINERS

MODEL = "small"
LEARNED = "w7 w8 w9"
TEMPLATE = (
    "{% for message in messages %}{{ 'w51' if message.role == 'assistant' else 'w50' }} {{ message.content }} <end> "
    "{% endfor %}{% if add_generation_prompt %}w51 {% endif %}"
)
HYPERPARAMETERS = {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2, "max_new_tokens": 4, "eval_share": 0.1}
FORMS: dict[str, Any] = {
    "prompt": lambda question: {"prompt": question, "completion": f" {LEARNED}"},
    "messages": lambda question: {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": LEARNED}]
    },
    "instruction": lambda question: {"instruction": question, "input": "w3", "output": f" {LEARNED}"},
    "sharegpt": lambda question: {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": LEARNED}]
    },
    "text": lambda question: {"text": f"{question} {LEARNED}"},
}
ASKED = {"instruction": "w40 w1 w2 \n\nw3", "messages": None, "sharegpt": None}
# Each form is trained from another container, with another compression.
TRAINED_FROM = dict(zip(FORMS, zip(CONTAINERS, ("", "gzip", "zstd", "gzip", ""), strict=True), strict=True))


@pytest.fixture(scope="module")
def service(postgres_url: str, valkey_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("service")
    with own_database(postgres_url) as url, pytest.MonkeyPatch.context() as patch:
        settings = make_settings(patch, database_url=url, redis_url=valkey_url, data_dir=folder / "var")
        with start_quick_service(settings, folder) as service:
            (folder / MODEL / "chat_template.jinja").write_text(TEMPLATE)
            yield service


def upload(service: Service, form: str, container: str, compression: str) -> dict[str, Any]:
    rows = [FORMS[form](f"w{number} w1 w2") for number in range(10, 40)]
    content = COMPRESSIONS[compression](CONTAINERS[container](rows))
    answer = service.client.post("/datasets", files={"file": (f"rows.{container}", content)})
    assert answer.status_code == 201, answer.text
    dataset: dict[str, Any] = answer.json()
    return dataset


def predict(service: Service, job_id: str, form: str, folder: Path) -> str:
    """Return what the downloaded result of a job writes after a question that it was not trained on."""
    for artifact in service.get(f"/jobs/{job_id}/artifacts")["data"]:
        answer = service.client.get(f"/jobs/{job_id}/artifacts/{artifact['name']}")
        (folder / artifact["name"]).write_bytes(answer.content)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    question = ASKED.get(form, "w40 w1 w2")
    if question is None:
        message = [{"role": "user", "content": "w40 w1 w2"}]
        question = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    tokens = tokenizer(question, return_tensors="pt", add_special_tokens=False)
    written = model.generate(**tokens, max_new_tokens=3, do_sample=False)[0, tokens["input_ids"].shape[1] :]
    return str(tokenizer.decode(written))


def test_each_form_is_read_alike_from_each_container(service: Service) -> None:
    for form in FORMS:
        contents = [upload(service, form, container, "")["contents"] for container in CONTAINERS]
        assert contents[0]["forms"] == {form: 30}
        assert contents == contents[:1] * len(CONTAINERS)


def test_each_form_and_container_is_trained_and_predicts_what_it_taught(service: Service, tmp_path: Path) -> None:
    jobs = {}
    for form, (container, compression) in TRAINED_FROM.items():
        dataset = upload(service, form, container, compression)
        assert (dataset["format"], dataset["compression"]) == (container, compression or None)
        jobs[form] = service.submit(
            model=MODEL, dataset=dataset["id"], zone="X", method="full", hyperparameters=HYPERPARAMETERS
        )

    predicted = {}
    for form, job_id in jobs.items():
        service.wait_for(job_id, "succeeded")
        (tmp_path / form).mkdir()
        predicted[form] = predict(service, job_id, form, tmp_path / form)

    assert predicted == dict.fromkeys(FORMS, LEARNED)

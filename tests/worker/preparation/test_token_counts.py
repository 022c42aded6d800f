"""Token counts of a dataset: requested over the API, dispatched by the scheduler, computed by a worker."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from api.main import create_app
from greencore.clock import utc_now
from greencore.dataset import PromptRow, Row, TextRow
from runtime.settings import Settings
from scheduler.broker import Broker
from scheduler.prepare_dispatch import dispatch_token_counts, prepare_timeout
from store.database import Database
from store.repositories.token_statistics import REQUEST_LIFETIME, CountRequest, TokenStatisticsRepository
from store.stored_rows import name_blob
from tests.carbon_provider_server import ManualClock
from tests.keys import bearer
from worker.app import PREPARE_QUEUE
from worker.preparation.token_counts import count_dataset_tokens, count_row_tokens

ROWS = b'{"prompt": "a b", "completion": "c"}\n{"text": "' + b"a " * 600 + b'"}\n'


def words() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are words."""
    vocabulary = {word: number for number, word in enumerate(("</s>", "a", "b", "c", "?"))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>")


@pytest.fixture
def service(
    settings: Settings, operator_key: str, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[TestClient, Settings]]:
    """The API with a model of words in its catalogue; workers called here read the same settings."""
    folder = tmp_path / "model"
    words().save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        eos_token_id=0,
        bos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        f'[words]\nsource = "{folder}"\nlicence = "MIT"\n[gone]\nsource = "{tmp_path / "gone"}"\nlicence = "MIT"\n'
    )
    changed = settings.model_copy(update={"catalogue": catalogue})
    monkeypatch.setattr("worker.preparation.token_counts.get_settings", lambda: changed)
    with TestClient(create_app(changed, clock=clock), headers=bearer(operator_key)) as client:
        yield client, changed


@pytest.fixture
def clock() -> ManualClock:
    """Begins now: a worker notes by its own clock when it has counted."""
    return ManualClock(utc_now())


def sent(settings: Settings) -> int:
    """Return the number of messages in the prepare queue."""
    with closing(redis.Redis.from_url(settings.redis_url)) as server:
        return int(server.llen(PREPARE_QUEUE))


def test_rows_are_counted_with_the_end_of_text_prompt_and_completion_apart() -> None:
    rows: list[Row] = [PromptRow("a b", "c"), PromptRow("a", "b c a"), TextRow("a " * 600)]

    counts = count_row_tokens(rows, words())

    assert counts["rows"] == 3
    assert counts["tokens"] == {"total": 610, "mean": 610 / 3, "median": 5, "p90": 601, "p99": 601, "max": 601}
    assert (counts["prompt"]["total"], counts["completion"]["total"]) == (3, 607)
    assert counts["longer_than"] == {"512": 1, "1024": 0, "2048": 0}
    assert counts["histogram"][0] == {"up_to": 4, "rows": 1}
    assert counts["histogram"][-1] == {"up_to": 1024, "rows": 1}


def test_counts_are_requested_dispatched_once_computed_and_shown(
    service: tuple[TestClient, Settings], database: Database, clock: ManualClock
) -> None:
    client, settings = service
    with closing(redis.Redis.from_url(settings.redis_url)) as server:
        server.flushdb()
    dataset = client.post("/datasets", files={"file": ("a", ROWS)}).json()["id"]

    def ask(model: str = "words") -> Any:
        return client.get(f"/datasets/{dataset}/tokens", params={"model": model})

    assert ask().status_code == 202
    asked_at, again = clock(), prepare_timeout(settings) + timedelta(seconds=1)
    with closing(Broker(settings)) as broker:
        for after, messages in (
            (timedelta(), 1),
            (timedelta(seconds=30), 1),
            (again, 2),
            (REQUEST_LIFETIME + again, 2),
        ):
            dispatch_token_counts(database, broker, settings, at=asked_at + after)
            assert sent(settings) == messages

        clock.advance(hours=1.2)
        assert ask().status_code == 202
        dispatch_token_counts(database, broker, settings, at=clock())
        assert sent(settings) == 3

    count_dataset_tokens(CountRequest(dataset, "words"))
    response = ask()
    assert response.status_code == 200
    assert response.json()["tokens"]["max"] == 601
    assert response.json()["rows"] == 2

    client.delete(f"/datasets/{dataset}").raise_for_status()
    count_dataset_tokens(CountRequest(dataset, "words"))
    assert ask().status_code == 404


def test_an_error_of_counting_is_shown_and_retried_later(
    service: tuple[TestClient, Settings], clock: ManualClock, settings: Settings
) -> None:
    client, _ = service
    dataset = client.post("/datasets", files={"file": ("a", ROWS)}).json()

    def ask(model: str) -> Any:
        return client.get(f"/datasets/{dataset['id']}/tokens", params={"model": model})

    assert ask("gone").status_code == 202
    count_dataset_tokens(CountRequest(dataset["id"], "gone"))
    response = ask("gone")
    assert response.status_code == 409
    assert "gone" in response.json()["detail"]

    assert ask("words").status_code == 202
    settings.dataset_file(name_blob(dataset["sha256"])).unlink()
    count_dataset_tokens(CountRequest(dataset["id"], "words"))
    assert ask("words").status_code == 409
    client.post("/datasets", files={"file": ("a", ROWS)}).raise_for_status()
    clock.advance(hours=10)
    assert ask("words").status_code == 202
    count_dataset_tokens(CountRequest(dataset["id"], "words"))
    assert ask("words").status_code == 200


def test_what_is_learned_of_the_first_rows_is_previewed(service: tuple[TestClient, Settings]) -> None:
    client, _ = service
    dataset = client.post("/datasets", files={"file": ("a", ROWS)}).json()["id"]

    def ask(**settings: str) -> Any:
        return client.get(f"/datasets/{dataset}/learned", params={"model": "words", **settings})

    assert ask().status_code == 202
    count_dataset_tokens(CountRequest(dataset, "words"))
    found = ask().json()
    assert (found["model"], found["prompt_format"], found["train_on"]) == ("words", "plain", "assistant")
    prompt, text = found["rows"]
    assert prompt["line"] == 1
    assert prompt["examples"] == [
        [{"text": "a b", "tokens": 2, "learned": False}, {"text": " c </s>", "tokens": 2, "learned": True}]
    ]
    assert (text["tokens"], text["learned_tokens"], text["is_cut"], text["error"]) == (601, 601, False, None)
    assert ask(prompt_format="tldr").status_code == 202  # another text around the prompt is another count
    count_dataset_tokens(CountRequest(dataset, "words", "tldr"))
    assert len(ask(prompt_format="tldr").json()["rows"][0]["examples"][0][0]["text"]) > len("a b")
    assert ask(prompt_format="chat").status_code == 202
    count_dataset_tokens(CountRequest(dataset, "words", "chat"))
    assert "no chat template" in ask(prompt_format="chat").json()["detail"]
    assert ask(train_on="first").status_code == 422


def test_a_count_without_a_request_is_ignored(service: tuple[TestClient, Settings], database: Database) -> None:
    client, _ = service
    dataset = client.post("/datasets", files={"file": ("a", ROWS)}).json()["id"]

    count_dataset_tokens(CountRequest(dataset, "words"))

    with database.session() as session:
        found = TokenStatisticsRepository(session).lock_undispatched(at=utc_now(), redispatch_after=timedelta(0))
        assert list(found) == []
    assert client.get(f"/datasets/{dataset}/tokens", params={"model": "words"}).status_code == 202

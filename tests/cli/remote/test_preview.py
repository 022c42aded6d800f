"""`greentune datasets preview`: rows as they were uploaded, and as a model reads them."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cli.remote.output import replace_unprintable
from greentune.client import Client
from store.database import Database
from store.repositories.token_statistics import CountRequest, TokenStatisticsRepository
from tests.api.conftest import MODEL, NOW
from tests.cli.service import CommandRunner

ROWS = (
    '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": null, "tool_calls": '
    '[{"function": {"name": "wave", "arguments": {}}}]}]}\n'
    '{"text": "a\\tb\\u001b[2J"}\n\n' + '{"text": "%s"}\n' % ("x" * 600)
)


def segment(text: str, *, learned: bool) -> dict[str, Any]:
    return {"text": text, "tokens": 2, "learned": learned}


def learned_row(line: int, *examples: Any, error: str | None = None) -> dict[str, Any]:
    counts = {"tokens": 1234 * len(examples), "learned_tokens": 2 * len(examples), "is_cut": False}
    return {"line": line, "examples": list(examples), **counts, "error": error}


PREVIEW = {
    "rows": [
        learned_row(
            1,
            [segment("<user>\nHi\x1b[2J", learned=False), segment("Hello</s>", learned=True)],
            [segment("<user>", learned=False)],
        ),
        learned_row(2),
        learned_row(4, error="messages: refused"),
    ]
}


@pytest.fixture
def dataset(client: Client, tmp_path: Path) -> str:
    file = tmp_path / "rows.jsonl"
    file.write_text(ROWS)
    return client.upload_dataset(file).id


def store_preview(database: Database, wanted: CountRequest) -> None:
    with database.session() as session:
        TokenStatisticsRepository(session).put_preview(wanted, PREVIEW)


def test_only_characters_that_could_control_the_terminal_are_replaced() -> None:
    shown = "東京\u3000都 3\u202f000\u00a0€ می\u200cخواهم 👩\u200d💻\ta\n"
    assert replace_unprintable(shown) == shown
    hidden = "\x1b\x00\x7f\x9b\r\u202e\u2066\u200e\u061c\u2028\u2029\ufeff\ue000"
    assert replace_unprintable(f"a{hidden}b") == "a" + "\N{REPLACEMENT CHARACTER}" * len(hidden) + "b"


def test_rows_are_shown_as_they_were_uploaded(greentune: CommandRunner, dataset: str) -> None:
    shown = greentune.shown("datasets", "preview", dataset).splitlines()
    assert shown[:5] == [
        "row 1: messages",
        "user:",
        "Hi",
        "assistant tool_calls:",
        '[{"type":"function","function":{"name":"wave","arguments":{}}}]',
    ]
    assert shown[5:9] == ["", "row 2: text", "text:", "a       b�[2J"]
    assert shown[9:12] == ["", "row 4: text", "text (the first 500 of 600 characters):"]

    assert [row["number"] for row in greentune.json("datasets", "preview", dataset)] == [1, 2, 4]
    assert [row["form"] for row in greentune.json("datasets", "preview", dataset, "--row", "4")] == ["text"]
    for options, message, code in (
        (("--row", "3"), "--row: 3 is not among the 3 rows that can be shown, 1–4", 2),
        (("--train-on", "last"), "--train-on: expected --model beside it", 2),
        (("--model", "none"), "--model: 'none' is not in the catalogue", 2),
        (("--model", MODEL, "--train-on", "first"), "--train-on: input should be 'assistant' or 'last'", 2),
    ):
        assert message in greentune.refused("datasets", "preview", dataset, *options, code=code)
    greentune.refused("datasets", "preview", "dataset_none", code=4)


def test_learned_tokens_are_in_brackets_or_styled_in_a_terminal(
    greentune: CommandRunner, client: Client, dataset: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = CountRequest(dataset, MODEL, train_on="last")
    learn = ("datasets", "preview", dataset, "--model", MODEL, "--train-on", "last")

    def count() -> None:
        while True:
            with database.session() as session:
                if TokenStatisticsRepository(session).is_pending(wanted):
                    break
            time.sleep(0.05)
        store_preview(database, wanted)

    worker = threading.Thread(target=count)
    worker.start()
    first = greentune(*learn)
    worker.join()
    assert first.exit_code == 0, first.output
    assert "a prepare worker tokenises the rows" in first.stderr
    assert first.stdout.splitlines() == [
        "row 1: 4 of 2,468 tokens learned",
        "example 1 of 2:",
        "<user>",
        "Hi�[2J⟦Hello</s>⟧",
        "example 2 of 2:",
        "<user>",
        "",
        "row 2: nothing of it is learned: it is left out",
        "",
        "row 4: messages: refused",
    ]

    again = greentune(*learn, "--row", "4")
    assert (again.stderr, again.stdout) == ("", "row 4: messages: refused\n")
    answer = greentune.json(*learn, "--row", "2")
    assert (answer["train_on"], [row["line"] for row in answer["rows"]]) == ("last", [2])
    assert "--row: 3 is not among" in greentune.refused(*learn, "--row", "3", code=2)

    monkeypatch.setenv("FORCE_COLOR", "1")
    styled = greentune.shown(*learn, "--row", "1")
    assert "\x1b[1;4;32mHello</s>\x1b[0m" in styled
    assert "⟦" not in styled


def test_a_dataset_that_cannot_be_tokenised_says_why(
    greentune: CommandRunner, dataset: str, database: Database
) -> None:
    wanted = CountRequest(dataset, MODEL)
    with database.session() as session:
        counts = TokenStatisticsRepository(session)
        counts.request_counts(wanted, at=NOW, error_lifetime=NOW - NOW)
        counts.put(wanted, at=NOW, error="the tokenizer is damaged")
    line = greentune.refused("datasets", "preview", dataset, "--model", MODEL, code=5)
    assert "the rows cannot be tokenised: the tokenizer is damaged" in line

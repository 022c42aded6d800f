"""Held-out rows are not trained on, not even as equal rows; the sample prompt has the format of the rows."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greencore.dataset import InvalidRow, Message, MessagesRow, PromptRow, Row, TextRow
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.chat_template import render_conversation
from greencore.training.data.held_out_rows import (
    ValidationRowsUnusable,
    divide_rows,
    report_validation_rows,
    split_rows,
)
from greencore.training.data.prompt_formats import PLAIN, TLDR, resolve_prompt_format
from greencore.training.evaluation.evaluate import generate_completions
from greencore.training.evaluation.evaluator import resolve_sample_format
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.run import fine_tune

pytestmark = pytest.mark.fault(number=9)

CHAT = (
    "{% for m in messages %}{{ 'w61' if m.role == 'assistant' else 'w60' }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}w61 {% endif %}"
)


@given(
    numbers=st.lists(st.integers(0, 12), min_size=1, max_size=40),
    eval_share=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 9),
)
@settings(max_examples=60, deadline=None)
def test_no_held_out_row_is_trained_on_and_no_row_is_lost(numbers: list[int], eval_share: float, seed: int) -> None:
    rows: list[Row] = [TextRow(str(number), line=line) for line, number in enumerate(numbers, 1)]
    training, held_out, duplicates = split_rows(rows, eval_share=eval_share, seed=seed)
    assert training
    assert not set(training) & set(held_out)
    assert sorted(row.line for row in [*training, *held_out]) == [row.line for row in rows]
    assert (training, held_out, duplicates) == split_rows(rows, eval_share=eval_share, seed=seed)
    assert 0 <= duplicates <= max(1, round(len(rows) * eval_share))
    if len(set(numbers)) == len(numbers) or eval_share == 0:
        assert duplicates == 0


def test_rows_without_copies_are_held_out_instead() -> None:
    rows: list[Row] = [*[PromptRow("w1", "w2")] * 30, *[PromptRow(f"w{n}", "w2") for n in range(3, 13)]]
    training, held_out, duplicates = split_rows(rows, eval_share=0.2, seed=1)
    assert len(held_out) == 8
    assert PromptRow("w1", "w2") not in held_out
    assert len(training) == 32
    assert duplicates > 0


def test_a_sample_prompt_has_the_format_of_the_rows(model_folder: Path) -> None:
    tokenizer, model = load_tokenizer(model_folder), load_model(model_folder)
    tokenizer.chat_template = CHAT
    conversations: list[Row] = [MessagesRow((Message("user", "w1"), Message("assistant", "w2")))] * 3
    form = resolve_sample_format([*conversations, TextRow("w1")], PLAIN, tokenizer)
    asked = render_conversation([Message("user", "w5 w6")], tokenizer)
    assert asked == "w60 w5 w6 w61 "
    assert generate_completions(
        model, tokenizer, ["w5 w6"], max_new_tokens=4, prompt_format=form
    ) == generate_completions(model, tokenizer, [asked], max_new_tokens=4)
    chat = resolve_prompt_format("chat", tokenizer)
    assert resolve_sample_format([PromptRow("w1", "w2")], chat, tokenizer) is chat
    assert resolve_sample_format([PromptRow("w1", "w2")], TLDR, tokenizer) is TLDR
    assert resolve_sample_format([TextRow("w1")], TLDR, tokenizer) == PLAIN


def test_a_chat_run_puts_its_sample_as_a_users_turn_and_counts_duplicates(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def noted(*arguments: object, **options: object) -> list[str]:
        asked.append(str(options["prompt_format"].name))  # type: ignore[attr-defined]
        return ["w1"]

    tokenizer = load_tokenizer(model_folder)
    tokenizer.chat_template = CHAT
    monkeypatch.setattr("greencore.training.run.load_tokenizer", lambda _: tokenizer)
    monkeypatch.setattr("greencore.training.evaluation.evaluator.generate_completions", noted)
    rows: list[Row] = [MessagesRow((Message("user", f"w{max(n, 5)}"), Message("assistant", "w2"))) for n in range(10)]
    result = fine_tune(
        model_folder=model_folder,
        rows=rows,
        hyperparameters=Hyperparameters(
            epochs=1, batch_size=8, max_length=16, max_new_tokens=1, eval_share=0.3, sample_prompt="w5 w6"
        ),
        method="full",
        folder=tmp_path,
    )
    assert asked == ["chat", "chat"]
    assert result.held_out_duplicates == split_rows(rows, eval_share=0.3, seed=0)[2] > 0
    assert result.after is not None
    assert result.after.rows == 3


def test_validation_rows_that_are_trained_on_are_left_out_and_counted() -> None:
    rows = [PromptRow("a", "b", 1), PromptRow("c", "d", 2)]
    validation = [PromptRow("c", "d", 1), PromptRow("e", "f", 2), PromptRow("e", "f", 3), PromptRow("a", "b", 4)]

    trained, held_out, duplicates = divide_rows(rows, validation, eval_share=0.5, seed=0)

    assert trained == rows
    assert [row.line for row in held_out] == [2, 3]
    assert duplicates == 2


def test_without_validation_rows_a_share_is_held_out() -> None:
    rows = [TextRow(f"w{n}") for n in range(10)]
    assert divide_rows(rows, None, eval_share=0.3, seed=1) == split_rows(rows, eval_share=0.3, seed=1)


@pytest.mark.parametrize(
    ("validation", "reason"),
    [
        ([PromptRow("c", "d", 1), TextRow("e", 2)], "line 2: is a text row, as no row of the dataset is"),
        ([PromptRow("a", "b", 1)], "each of its 1 rows equals one that is trained on"),
    ],
)
def test_validation_rows_that_cannot_be_used_are_refused(validation: list[Row], reason: str) -> None:
    with pytest.raises(ValidationRowsUnusable, match=reason):
        divide_rows([PromptRow("a", "b", 1)], validation, eval_share=0.0, seed=0)


def test_an_invalid_row_is_of_the_validation_rows_only_where_there_are_any() -> None:
    with pytest.raises(ValidationRowsUnusable, match="line 3: text"), report_validation_rows([TextRow("a")]):
        raise InvalidRow(3, "text", "has no token")
    with pytest.raises(InvalidRow), report_validation_rows(None):
        raise InvalidRow(3, "text", "has no token")

"""A run on conversations of several learned turns, and on rows of which nothing is learned."""

import math
from pathlib import Path

import pytest

from greencore.dataset import Message, MessagesRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.settings.value_types import TrainOn
from greencore.training.data.held_out_rows import split_rows
from greencore.training.data.tokenisation import UnusableRow, tokenise_rows
from greencore.training.evaluation.evaluate import score_tokens
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.run import TrainingResult, fine_tune
from tests.greencore.training.conftest import small_model

# each turn's prompt has the earlier ones in another form, so that it is an example of its own
REWRITING = (
    "{% for m in messages %}{{ 'w2 ' if m.role == 'assistant' and loop.last }}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}w2 {% endif %}"
)
ROWS: list[Row] = [
    MessagesRow(
        (
            Message("user", f"w{number}"),
            Message("assistant", f"w{number + 1}"),
            Message("user", "w9"),
            Message("assistant", f"w{number + 2}", weight=number % 3 > 0),
        ),
        line=number,
    )
    for number in range(1, 13)
]


def run(tmp_path: Path, rows: list[Row], train_on: TrainOn) -> TrainingResult:
    folder = small_model(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = REWRITING
    tokenizer.save_pretrained(folder)
    settings = Hyperparameters(
        epochs=1, batch_size=1, max_length=32, eval_share=0.25, max_new_tokens=3, train_on=train_on
    )
    return fine_tune(
        model_folder=folder, rows=rows, hyperparameters=settings, method="full", folder=tmp_path / train_on
    )


@pytest.mark.parametrize(("train_on", "dropped"), [("assistant", ()), ("last", (3, 6, 9, 12))])
def test_every_row_with_a_learned_turn_is_used_once(
    tmp_path: Path, train_on: TrainOn, dropped: tuple[int, ...]
) -> None:
    result = run(tmp_path, ROWS, train_on)
    assert result.dropped_lines == dropped
    _, held_out, _ = split_rows(ROWS, eval_share=0.25, seed=0)
    left = [row for row in held_out if row.line not in dropped]
    model, tokenizer = load_model(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    tokens = tokenise_rows(left, tokenizer, max_length=32, train_on=train_on)
    learned = sum(
        bool(message.weight) for row in left if isinstance(row, MessagesRow) for message in row.messages[1::2]
    )
    assert len(tokens.examples) == (learned if train_on == "assistant" else len(left))
    assert result.before is not None
    assert result.after is not None
    assert result.after.rows == len(left)
    assert result.before.loss == pytest.approx(score_tokens(model, tokenizer, tokens, batch_size=1).loss, rel=1e-2)
    assert math.isfinite(result.after.loss)


def test_rows_of_which_nothing_is_learned_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableRow, match=r"^line \d+: messages: nothing of it is learned"):
        run(tmp_path, ROWS[2::3], "last")

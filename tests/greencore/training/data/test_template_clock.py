"""A run with a chat template that reads the clock reads it once, at its first start."""

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from greencore.dataset import Message, MessagesRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.chat_template import TemplateClock, render_conversation
from greencore.training.data.learned_turns import Conversation, render_turn
from greencore.training.data.prompt_formats import resolve_prompt_format
from greencore.training.data.tokenisation import tokenise_rows
from greencore.training.listener import TrainingListener
from greencore.training.models.loading import load_tokenizer
from greencore.training.run import TrainingResult, fine_tune
from tests.greencore.training.conftest import small_model

pytestmark = pytest.mark.fault(number=6)

DATED = (
    "w{{ strftime_now('%d') }} {% for m in messages %}{{ 'w2 ' if m.role == 'assistant' }}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}w2 {% endif %}"
)
ROWS: list[Row] = [
    MessagesRow((Message("user", f"w{number} w{number + 1}"), Message("assistant", f"w2 w{number}")))
    for number in range(3, 15)
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = small_model(tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder)
    return folder


def set_day(monkeypatch: pytest.MonkeyPatch, day: int) -> None:
    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> "Day":
            return cls(2026, 11, day, 23, 59, 58, 7)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Day)


class StopsAfter(TrainingListener):
    """Listener that stops the run after a number of steps."""

    def __init__(self, steps: int) -> None:
        self._steps, self._done = steps, 0

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self._done = done

    def should_stop(self) -> bool:
        return self._done == self._steps


def run(model: Path, folder: Path, listener: TrainingListener | None = None) -> TrainingResult:
    settings = Hyperparameters(
        epochs=1, batch_size=4, learning_rate=1e-2, max_length=32, eval_share=0.25, max_new_tokens=3, sample_prompt="w1"
    )
    return fine_tune(
        model_folder=model, rows=ROWS, hyperparameters=settings, method="full", folder=folder, listener=listener
    )


def test_a_run_resumed_on_another_day_trains_and_evaluates_the_same_rows(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_day(monkeypatch, 12)
    expected = run(model, tmp_path / "undisturbed")
    assert not run(model, tmp_path / "stopped", StopsAfter(1)).completed
    set_day(monkeypatch, 27)
    found = run(model, tmp_path / "stopped")
    assert (found.before, found.after, found.sample) == (expected.before, expected.after, expected.sample)
    one, other = (load_file(tmp_path / name / "artifacts" / "model.safetensors") for name in ("undisturbed", "stopped"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert load_tokenizer(tmp_path / "stopped" / "artifacts").chat_template == DATED


def test_the_time_is_read_once_for_all_uses(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(model)
    for file in (None, tmp_path / "job" / "clock.json"):
        set_day(monkeypatch, 30)
        clock = TemplateClock(file)
        form, plain = (resolve_prompt_format(name, tokenizer, clock) for name in ("chat", "plain"))
        first = [tokenise_rows(ROWS, tokenizer, max_length=32, prompt_format=each) for each in (form, plain)]
        set_day(monkeypatch, 1)
        assert first == [tokenise_rows(ROWS, tokenizer, max_length=32, prompt_format=each) for each in (form, plain)]
        assert form.wrap("w9").startswith("w30 ")
        [row] = ROWS[:1]
        assert isinstance(row, MessagesRow)
        assert render_turn(Conversation(row.messages), 1, tokenizer, clock=clock).prompt.startswith("w30 ")
    assert render_conversation(
        [Message("user", "w9")], tokenizer, TemplateClock(tmp_path / "job" / "clock.json")
    ).startswith("w30 ")
    assert render_conversation([Message("user", "w9")], tokenizer).startswith("w01 ")


def test_every_time_format_shows_the_same_time(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%dT%H:%M:%S.%f') }} {{ strftime_now('%d %b %Y') }}"
    clock = TemplateClock(tmp_path / "clock.json")
    moment, day = render_conversation([Message("user", "w1")], tokenizer, clock).split(" ", 1)
    assert datetime.fromisoformat(moment).strftime("%d %b %Y") == day
    assert (
        render_conversation([Message("user", "w1")], tokenizer, TemplateClock(tmp_path / "clock.json"))
        == f"{moment} {day}"
    )


def test_a_template_without_a_date_writes_no_file(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(model)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    render_conversation([Message("user", "w1")], tokenizer, TemplateClock(tmp_path / "job" / "clock.json"))
    assert not (tmp_path / "job").exists()


@pytest.mark.parametrize("damaged", ["", "{", '"no time"', "12", "null", "\x00\x00"])
def test_a_damaged_file_is_replaced_and_the_log_says_so(
    damaged: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer, file = load_tokenizer(model), tmp_path / "clock.json"
    tokenizer.chat_template = "{{ strftime_now('%Y-%m-%dT%H:%M:%S.%f') }}"
    file.write_text(damaged)
    moment = render_conversation([Message("user", "w1")], tokenizer, TemplateClock(file))
    assert str(file) in caplog.text
    assert render_conversation([Message("user", "w1")], tokenizer, TemplateClock(file)) == moment

"""Full fine-tuning against TRL's SFTTrainer: same recipe, rows and order, and the same loss of every step."""

import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from greencore.dataset import Message, MessagesRow, PromptRow, Row
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.data.tokenisation import IGNORED_LABEL, tokenise_rows
from greencore.training.listener import TrainingListener
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.run import fine_tune
from tests.greencore.training.families import family_folder

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what TRL imports and deprecates
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

FULL_SIZE = os.environ.get("SFT_TRAINER") == "full"  # with the pretrained model: about ten minutes on two cores
STEPS, WARMUP, AGREEMENT = 50, 5, 1e-3
RECIPE = Hyperparameters(
    max_steps=STEPS,
    batch_size=8,
    learning_rate=5e-3,
    scheduler="cosine",
    warmup_steps=WARMUP,
    weight_decay=0.1,
    max_grad_norm=0.5,
    adam_beta2=0.98,
    max_length=128,
    eval_share=0,
    max_new_tokens=1,
    seed=3,
    precision="fp32",
)
# Dropout draws its numbers batch by batch, so that a run that packs rows draws others.
TINY: dict[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
}
TURNS = (
    "{% for message in messages %}{% if message.role == 'assistant' %}{{ 'w61 ' }}{% generation %}"
    "{{ message.content + ' <end>' }}{% endgeneration %}{{ ' ' }}{% else %}{{ 'w60 ' + message.content + ' ' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'w61 ' }}{% endif %}"
)
# The pretrained model's template with the tags by which TRL finds what an assistant wrote.
SMOL_TURNS = (
    "{% for message in messages %}{% if loop.first and message.role != 'system' %}{{ '<|im_start|>system\nYou are a "
    "helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{ '<|im_start|>' + "
    "message.role + '\n' }}{% if message.role == 'assistant' %}{% generation %}{{ message.content + '<|im_end|>' }}"
    "{% endgeneration %}{% else %}{{ message.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
Form = Literal["prompt", "chat"]


def make_rows(form: Form, texts: Sequence[str]) -> list[Row]:
    """Rows of 2 to 12 texts, of which the last, or every second of a conversation, is learned."""
    draw, made = torch.Generator().manual_seed(11), list[Row]()

    def say(most: int) -> str:
        words = int(torch.randint(1, most + 1, (), generator=draw))
        return " ".join(texts[int(i)] for i in torch.randint(len(texts), (words,), generator=draw))

    for index in range(60):
        if form == "prompt":
            made.append(PromptRow(say(12), f" {say(6)}"))
        else:
            turns = [Message(("user", "assistant")[turn % 2], say(5)) for turn in range(2 + 2 * (index % 2))]
            made.append(MessagesRow(tuple(turns)))
    return made


def as_record(row: Row) -> dict[str, Any]:
    if isinstance(row, PromptRow):
        return {"prompt": row.prompt, "completion": row.completion}
    assert isinstance(row, MessagesRow)
    return {"messages": [{"role": message.role, "content": message.content} for message in row.messages]}


def build_sft_trainer(
    folder: Path, rows: Sequence[Row], output: Path, *, accumulation: int, template: str | None, recipe: Hyperparameters
) -> SFTTrainer:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if template is not None:
        tokenizer.chat_template = template
    return SFTTrainer(
        model=load_model(folder),
        args=SFTConfig(
            output_dir=str(output),
            max_steps=STEPS,
            per_device_train_batch_size=recipe.batch_size // accumulation,
            gradient_accumulation_steps=accumulation,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=WARMUP,
            weight_decay=recipe.weight_decay,
            max_grad_norm=recipe.max_grad_norm,
            adam_beta2=recipe.adam_beta2,
            max_length=recipe.max_length,
            seed=recipe.seed,
            assistant_only_loss=isinstance(rows[0], MessagesRow),
            logging_steps=1,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            activation_checkpointing=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([as_record(row) for row in rows]),
        processing_class=tokenizer,
    )


def losses_of_sft_trainer(*given: Any, **options: Any) -> list[float]:
    trainer = build_sft_trainer(*given, **options)
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


class Losses(TrainingListener):
    """Listener that records the loss of every step."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def on_step_finished(self, *, done: int, steps: int, loss: float) -> None:
        self.losses.append(loss)


def losses(folder: Path, rows: list[Row], output: Path, recipe: Hyperparameters, **settings: Any) -> list[float]:
    watch = Losses()
    given = recipe.model_copy(update=settings)
    fine_tune(model_folder=folder, rows=rows, hyperparameters=given, method="full", folder=output, listener=watch)
    return watch.losses


def assert_equal_losses(
    folder: Path, rows: list[Row], output: Path, recipe: Hyperparameters, *, template: str | None
) -> None:
    expected = {
        accumulation: losses_of_sft_trainer(
            folder, rows, output / f"trl-{accumulation}", accumulation=accumulation, template=template, recipe=recipe
        )
        for accumulation in (1, 4)
    }
    assert len(expected[1]) == STEPS
    assert min(expected[1]) < 0.9 * expected[1][0]  # it learns, so that a wrong update would show
    for accumulation in (1, 4):
        for packing in (False, True):
            found = losses(
                folder,
                rows,
                output / f"{accumulation}-{packing}",
                recipe,
                micro_batch_size=recipe.batch_size // accumulation,
                packing=packing,
            )
            assert found == pytest.approx(expected[accumulation], rel=AGREEMENT), (accumulation, packing)


@cache
def tiny_folder(family: str, parent: Path) -> Path:
    folder = family_folder(family, parent, **TINY[family])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TURNS
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("form", ["prompt", "chat"])
@pytest.mark.parametrize("family", TINY)
def test_every_step_has_the_loss_of_trls(
    family: str, form: Form, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tiny_folder(family, tmp_path_factory.mktemp(family))
    rows = make_rows(form, [f"w{number}" for number in range(58)])
    assert_equal_losses(folder, rows, tmp_path, RECIPE, template=None)


@pytest.mark.skipif(not FULL_SIZE, reason="takes minutes: SFT_TRAINER=full")
@pytest.mark.parametrize("form", ["prompt", "chat"])
def test_every_step_of_the_pretrained_model_has_the_loss_of_trls(form: Form, pretrained: Path, tmp_path: Path) -> None:
    words = ["sun", "warms", "a stone", "rain", "cools it", "while wind", "carries", "both", "far over", "quiet hills"]
    recipe = RECIPE.model_copy(update={"learning_rate": 2e-5, "batch_size": 4})
    assert_equal_losses(pretrained, make_rows(form, words), tmp_path, recipe, template=SMOL_TURNS)


def learned_tokens_of_sft_trainer(folder: Path, rows: Sequence[Row], output: Path) -> list[list[int]]:
    trainer = build_sft_trainer(folder, rows, output, accumulation=1, template=None, recipe=RECIPE)
    rows_of_trl: Any = trainer.train_dataset
    return [[token for token in row["labels"] if token != IGNORED_LABEL] for row in rows_of_trl]


@pytest.mark.parametrize("form", ["prompt", "chat"])
def test_the_same_tokens_are_learned(form: Form, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tiny_folder("llama", tmp_path_factory.mktemp("llama"))
    rows = make_rows(form, [f"w{number}" for number in range(58)])
    ours = tokenise_rows(rows, load_tokenizer(folder), max_length=128).examples
    assert [[token for token in row.labels if token != IGNORED_LABEL] for row in ours] == learned_tokens_of_sft_trainer(
        folder, rows, tmp_path
    )

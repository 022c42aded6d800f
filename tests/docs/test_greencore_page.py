"""The page about the method: its example runs, and what it names is there."""

import importlib
import re
from pathlib import Path

import pytest
import torch

from greencore.dataset import PromptRow
from greencore.training.models import load_model, load_tokenizer
from greencore.training.rows import tokenise
from tests.greencore.training.conftest import small_model

PAGE = (Path(__file__).parents[2] / "docs" / "greencore.md").read_text()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # torch's default on a machine without a GPU
def test_the_example_works_with_a_plain_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_model(tmp_path / "model")
    data = [PromptRow(f"w{number} w2 w3 w4 w5", " w7 w8") for number in range(1, 17)]
    examples = tokenise(data, load_tokenizer(folder), max_length=32).examples
    rows = [{"input_ids": example.input_ids, "labels": example.labels} for example in examples]

    def collator(batch: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        return {key: torch.tensor([row[key] for row in batch]) for key in ("input_ids", "labels")}

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    [example] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    exec(example, {"model": load_model(folder), "rows": rows, "collator": collator})
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert len(printed) == 2
    assert all(0.45 < float(line.split()[-4]) <= 0.5 for line in printed)


def test_every_option_of_the_callback_is_explained() -> None:
    callback = importlib.import_module("greencore.training").GreenTrainerCallback
    options = set(callback.__init__.__annotations__) - {"return"}
    explained = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert options == explained

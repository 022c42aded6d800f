"""The page about the method: its example runs, and what it names is there."""

import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path
from typing import get_args

import pytest
import torch

from greencore.dataset import PromptRow
from greencore.settings.value_types import PrecisionName
from greencore.training import GreenTrainerCallback
from greencore.training.data.tokenisation import tokenise_rows
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.models.precision import PRECISION_FILE_NAME
from tests.greencore.training.conftest import small_model

PAGE = (Path(__file__).parents[2] / "docs" / "explanation" / "method.md").read_text()


@pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")  # torch's default on a machine without a GPU
def test_the_example_works_with_a_plain_trainer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_model(tmp_path / "model")
    data = [PromptRow(f"w{number} w2 w3 w4 w5", " w7 w8") for number in range(1, 17)]
    examples = tokenise_rows(data, load_tokenizer(folder), max_length=32).examples
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


def test_every_option_of_the_callback_is_explained_with_its_default() -> None:
    options = dict(inspect.signature(GreenTrainerCallback).parameters)
    defaults = {name: "–" if o.default is o.empty else json.dumps(o.default) for name, o in options.items()}
    as_python = {"null": "None", "false": "False", "true": "True", "[]": "()"}
    explained = dict(re.findall(r"^\| `(\w+)` \| `?([^|`]+)`? \|", PAGE, re.MULTILINE))
    assert {name: as_python.get(default, default) for name, default in defaults.items()} == explained


ROWS_OF_EQUATIONS = re.findall(r"^\| Eq\. [^|]*\|[^|]*\|([^|]*)\| `([^`|]*)` \|$", PAGE, re.MULTILINE)


def test_every_equation_has_its_row() -> None:
    assert len(ROWS_OF_EQUATIONS) == len(re.findall(r"^\| Eq\.", PAGE, re.MULTILINE)) > 0


@pytest.mark.parametrize(("functions", "file"), ROWS_OF_EQUATIONS)
def test_every_function_is_in_the_file_that_the_page_names(functions: str, file: str) -> None:
    module = importlib.import_module("greencore." + file.removesuffix(".py").replace("/", "."))
    named = re.findall(r"`([\w.]+)`", functions)
    assert named
    for name in named:
        owner, _, member = name.partition(".")
        found = getattr(module, owner)
        assert found.__module__ == module.__name__, f"{owner} is only imported in {file}"
        assert not member or hasattr(found, member) or member in found.__dataclass_fields__


AROUND = PAGE.partition("## Around it")[2].partition("\n## ")[0]
NAMES_AROUND = [name for name in re.findall(r"`([a-z_]+\.[\w.]+)`", AROUND) if not re.search(r"^greencore|json$", name)]


@pytest.mark.parametrize("name", NAMES_AROUND)
def test_what_the_page_names_around_the_method_is_there(name: str) -> None:
    assert pkgutil.resolve_name(f"greencore.training.{name}")


def test_the_page_names_the_file_with_the_precision_of_a_run() -> None:
    assert f"`{PRECISION_FILE_NAME}`" in AROUND
    for wanted in get_args(PrecisionName):
        assert re.search(rf"^- with `{wanted}`", AROUND, re.MULTILINE)

"""`greentune apply-delta`: builds a model folder from a base and a delta."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from cli.main import app
from greencore.training.models.delta import DELTA_FILE_NAME, write_delta
from greencore.training.models.loading import load_model, load_tokenizer
from tests.greencore.training.conftest import small_model

NORM = "model.norm.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def delta(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a delta in which the base's last norm is doubled."""
    file = tmp_path_factory.mktemp("result") / DELTA_FILE_NAME
    model = load_model(base)
    with torch.no_grad():
        model.get_parameter(NORM).mul_(2)
    write_delta(model, base, file, base_name="small")
    return file


@pytest.fixture
def apply_delta(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Return a function that runs the command."""
    monkeypatch.setenv("GREENTUNE_DATA_DIR", str(tmp_path / "var"))

    def run(base: Path | str, delta: Path, output: Path) -> Result:
        options = {"--base": base, "--delta": delta, "--output": output}
        arguments = ["apply-delta", *(str(part) for option in options.items() for part in option)]
        return CliRunner().invoke(app, arguments)

    return run


def test_a_base_from_the_catalogue_and_a_delta_give_a_full_model(
    apply_delta: Callable[..., Result], base: Path, delta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(f'[small]\nsource = "{base}"\nlicence = "none"\n')
    monkeypatch.setenv("GREENTUNE_CATALOGUE", str(catalogue))

    done = apply_delta("small", delta, tmp_path / "whole")

    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == f"model: {tmp_path / 'whole'}"
    assert torch.equal(load_model(tmp_path / "whole").get_parameter(NORM), load_model(base).get_parameter(NORM) * 2)
    assert load_tokenizer(tmp_path / "whole")("w1")["input_ids"] == [3]


def test_each_option_that_is_wrong_is_named(
    apply_delta: Callable[..., Result], base: Path, delta: Path, tmp_path: Path
) -> None:
    no_delta, broken = base / "model.safetensors", tmp_path / "broken"
    broken.mkdir()
    for faulty, words in [
        ((base, delta, base), "--output: .* is there already"),
        ((base, tmp_path / "nowhere", tmp_path / "whole"), "--delta: there is no file"),
        ((base, tmp_path / ("x" * 256), tmp_path / "whole"), "--delta: File name too long"),
        ((base, no_delta, tmp_path / "whole"), "--delta: .* is not a delta"),
        (("no-such-model", delta, tmp_path / "whole"), "--base: no-such-model is neither in the catalogue"),
        ((broken, delta, tmp_path / "whole"), "--base: .* holds no config"),
        ((base, delta, no_delta / "whole"), "--output: .*: File exists"),
    ]:
        done = apply_delta(*faulty)
        assert done.exit_code == 2, done.output
        assert re.search(words, done.output), done.output
    assert not (tmp_path / "whole").exists()

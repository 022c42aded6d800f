"""No code unpickles data or runs a model's code: a search of the sources, and folders that are refused."""

import ast
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from greencore.training.models.loading import (
    ModelError,
    load_meta_model,
    load_model,
    load_tokenizer,
    resolve_model_folder,
)

ROOT = Path(__file__).parents[4]
PACKAGES = ("api", "benchmarks", "cli", "greencore", "migrations", "scheduler", "store", "worker")
UNPICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_unpickles_or_trusts_remote_code(package: str) -> None:
    sources = [path for path in SOURCES if path.is_relative_to(ROOT / package)]
    assert sources
    found = [f"{path}:{where}" for path in sources for where in faults(path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(file)",
        "x = torch.load",
        "numpy.load(file, allow_pickle=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
        "AutoModel.from_pretrained(folder, trust_remote_code=trusted)",
        "AutoModel.from_pretrained(folder, use_safetensors=False)",
    ],
)
def test_the_search_finds_each_unsafe_call(source: str) -> None:
    assert faults(source)


def faults(source: str) -> list[int]:
    """Return the lines that unpickle or may unpickle."""
    return [getattr(node, "lineno", 0) for node in ast.walk(ast.parse(source)) if _is_fault(node)]


def _is_fault(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(name.name.partition(".")[0] in UNPICKLING for name in names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] in UNPICKLING
        case ast.Attribute(value=ast.Name(id="torch"), attr="load"):
            return True
        case ast.keyword(arg="trust_remote_code", value=ast.Constant(value=False)):
            return False
        case ast.keyword(arg="use_safetensors", value=ast.Constant(value=True)):
            return False
        case ast.keyword(arg="trust_remote_code" | "use_safetensors" | "allow_pickle"):
            return True
    return False


class Trap:
    """Object whose unpickling creates a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.marker,)


@pytest.fixture
def pickled(model_folder: Path, tmp_path: Path) -> Path:
    """The small model with its weights only in pytorch_model.bin, whose unpickling creates a file."""
    folder = Path(shutil.copytree(model_folder, tmp_path / "pickled"))
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({**weights, "trap": Trap(folder / "it_ran")}, folder / "pytorch_model.bin")
    return folder


def test_weights_in_a_pickle_are_refused_and_never_opened(pickled: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no \.safetensors file"):
        resolve_model_folder(str(pickled), tmp_path / "converted")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(pickled)
    assert not (pickled / "it_ran").exists()


def test_a_tokenizer_with_its_own_code_is_refused_for_a_known_model(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "own"))
    marker = folder / "it_ran"
    (folder / "own.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nclass Own: ...\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "model_type": "own", "auto_map": {"AutoConfig": "own.Own"}})
    )
    for load in (load_tokenizer, load_meta_model, load_model):
        with pytest.raises(ModelError, match="not allowed"):
            load(folder)
    assert not marker.exists()

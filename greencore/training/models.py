"""Models from a folder of safetensors, or from a GGUF file, which is converted to such a folder once."""

import importlib.util
import shutil
import tempfile
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)


class ModelError(ValueError):
    """The model cannot be used; the message says where it was looked for and what is wrong."""


def materialise(source: str, destination: Path) -> Path:
    """The folder of safetensors behind a model's source; a GGUF file is converted into `destination` first.

    `source` is a folder, a GGUF file, or `package:NAME` for the GGUF file that an installed package carries. The
    conversion is done once: it is written beside `destination` and renamed, so a half-written folder is never seen.
    Raises `ModelError`.
    """
    if (destination / "config.json").is_file():
        return destination
    path = _locate(source)
    if path.is_dir():
        return _checked_folder(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent))
    try:
        _convert(path, working)
        working.chmod(0o755)
        working.rename(destination)
    except OSError:
        if not (destination / "config.json").is_file():  # otherwise somebody else has just converted it
            raise
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return destination


def load_model(folder: Path) -> PreTrainedModel:
    """The model in full precision; safetensors only, and never code that comes with a model."""
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
    )
    assert isinstance(model, PreTrainedModel)
    return model


def load_skeleton(folder: Path) -> PreTrainedModel:
    """The model on the meta device: every shape and no weights, to be profiled."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    assert isinstance(model, PreTrainedModel)
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer, with a pad token (the end-of-text token where it has none of its own). Raises `ModelError`."""
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-text token, so a completion would never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _locate(source: str) -> Path:
    if not source.startswith("package:"):
        path = Path(source)
        if not path.exists():
            raise ModelError(f"there is no model at {source}: expected a folder or a GGUF file")
        return path
    package = source.removeprefix("package:")
    spec = importlib.util.find_spec(package)  # finds the files without running the package's own code
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{source}: the Python package {package} is not installed")
    files = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if len(files) != 1:
        raise ModelError(f"{source}: expected one GGUF file in the package, found {len(files)}")
    return files[0]


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: it is not a model's folder")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no .safetensors file; weights in pickle files are not loaded")
    return folder


def _convert(file: Path, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
    quantised = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
    )
    config = quantised.config
    del config.quantization_config  # the weights are plain from here on
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

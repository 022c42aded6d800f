"""Loading of models and tokenizers from a safetensors folder, the hub, or a GGUF file (converted once)."""

import importlib.util
import json
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # its client's own
from safetensors import SafetensorError, safe_open
from torch.distributed.fsdp import register_fsdp_forward_method
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from greencore.settings.hyperparameters import SettingUnsupported
from greencore.settings.value_types import Attention
from greencore.training.data.target_language import set_target_language
from greencore.training.models.quantised import detect_quantisation
from greencore.training.models.sharding import plan_shards

COMMIT_PATTERN = re.compile(r"[0-9a-f]{40}")
# Decoders whose loss in transformers compares each token's logits with that token instead of the next.
UNSHIFTED_LOSS_MODEL_TYPES = {
    *("bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "cpmant", "marian", "mbart", "musicgen"),
    *("musicgen_melody", "mvp", "pegasus", "plbart", "trocr", "whisper", "xlm", "xlnet"),
}
IMPLEMENTATIONS: dict[Attention, str] = {"sdpa": "sdpa", "flash": "flash_attention_2", "eager": "eager"}
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
SAFETENSORS_INDEX = "model.safetensors.index.json"


class ModelError(ValueError):
    """A model cannot be used; the message names its location and the fault."""


def resolve_model_folder(source: str, destination: Path) -> Path:
    """Return the safetensors folder of a model's source; a GGUF file is converted into `destination` first.

    `source` is a folder; a GGUF file; `package:NAME` for the GGUF file in an installed package; or
    `hub:OWNER/NAME@COMMIT` for a model of the Hugging Face hub at a commit of 40 hexadecimal digits. Hub files are
    stored in the hub's local cache and fetched once, never where HF_HUB_OFFLINE is set. The conversion is done once,
    in a temporary folder that is renamed, so `destination` is complete or absent. Raises `ModelError`.
    """
    if (destination / "config.json").is_file():
        return destination
    path = _locate(source)
    if path.is_dir():
        return _check_folder(path)
    destination.parent.mkdir(parents=True, exist_ok=True)
    working = destination.parent / f".{destination.name}-{secrets.token_hex(4)}"
    working.mkdir()
    try:
        _convert(path, working)
        working.rename(destination)
    except OSError:
        if not (destination / "config.json").is_file():  # otherwise another process has converted it
            raise
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return destination


def load_model(
    folder: Path, dtype: torch.dtype = torch.float32, *, attention: Attention | None = None, shards: int = 1
) -> PreTrainedModel:
    """Load a model with weights of type `dtype`, from safetensors only and without code of the model.

    With several `shards` each process of the run reads its own, and the model gathers them block by block (FSDP2).
    Raises `ModelError` where the library has no class for it, or where weights are missing, and `SettingUnsupported`
    where the attention is not available for it or on this machine.
    """
    with _translate_load_errors(folder):
        config = _config(folder)
        _set_attention(config, attention)
        if attention == "flash" and (fault := _explain_missing_flash()) is not None:
            raise SettingUnsupported("attention", f"flash cannot run on this machine: {fault}")
        model, report = _choose_auto_class(config).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            **({"distributed_config": plan_shards(load_meta_model(folder), processes=shards)} if shards > 1 else {}),
        )
    if report["missing_keys"]:
        names = sorted(report["missing_keys"])
        raise ModelError(f"{folder} lacks {len(names)} of the model's weights, such as {names[0]}")
    assert isinstance(model, PreTrainedModel)
    if shards > 1:  # an encoder runs apart from the model that holds its embedding
        register_fsdp_forward_method(model, "generate")
    return model


def load_meta_model(folder: Path, *, attention: Attention | None = None) -> PreTrainedModel:
    """Load a model on the meta device, shapes without weights, for profiling.

    `flash` attention, which may be missing where a job is prepared, is profiled as sdpa, which has the same products.
    Raises as `load_model` does.
    """
    with _translate_load_errors(folder):
        config = _config(folder)
        _set_attention(config, attention)
        if attention == "flash":
            config._attn_implementation = IMPLEMENTATIONS["sdpa"]
        with torch.device("meta"):
            model = _choose_auto_class(config).from_config(config, trust_remote_code=False)
        assert isinstance(model, PreTrainedModel)
        _untie(model, folder)
    return model


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Let each block recompute its activations in the backward pass. Raises `SettingUnsupported`.

    transformers then also lets the embeddings' outputs require gradients, which only reentrant recomputation needs:
    with them every selection would pay for the whole backward pass.
    """
    if not model.supports_gradient_checkpointing:
        raise SettingUnsupported("gradient_checkpointing", f"{type(model).__name__} has no blocks that can recompute")
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model.disable_input_require_grads()


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer, with a pad token (by default the end-of-text token) and a target language.

    Raises `ModelError`.
    """
    with _translate_load_errors(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-text token, so a completion would never end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    set_target_language(tokenizer, folder)
    return tokenizer


def _config(folder: Path) -> PreTrainedConfig:
    _refuse_quantised(folder)
    config: PreTrainedConfig = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    for part in (config, config.get_text_config(decoder=True)):
        pad, size = getattr(part, "pad_token_id", None), getattr(part, "vocab_size", None)
        if isinstance(pad, int) and isinstance(size, int) and not 0 <= pad < size:
            part.pad_token_id = 0 if config.is_encoder_decoder else None  # any token works: padding is masked
    return config


def _set_attention(config: PreTrainedConfig, attention: Attention | None) -> None:
    """Set the implementation of attention. Raises `SettingUnsupported` where the model's class does not have it."""
    if attention is None:
        return
    kind = _choose_auto_class(config)._model_mapping.get(type(config), None)
    supported = {"sdpa": "_supports_sdpa", "flash": "_supports_flash_attn", "eager": None}[attention]
    if supported is not None and not getattr(kind, supported, False):
        raise SettingUnsupported("attention", f"{getattr(kind, '__name__', config.model_type)} has no {attention}")
    config._attn_implementation = IMPLEMENTATIONS[attention]


def _explain_missing_flash() -> str | None:
    """Return why flash attention cannot run here; None where it can."""
    if not torch.cuda.is_available():
        return "it needs a CUDA device"
    return None if importlib.util.find_spec("flash_attn") else "the package flash-attn is not installed"


def _choose_auto_class(config: PreTrainedConfig) -> Any:
    if config.is_encoder_decoder:
        return AutoModelForSeq2SeqLM
    if config.model_type in UNSHIFTED_LOSS_MODEL_TYPES:
        raise ModelError(
            f"it is a decoder of the type {config.model_type!r}, whose loss in transformers is not that of the next"
            " token: trained on it, the model would learn to repeat its input"
        )
    return AutoModelForCausalLM


@contextmanager
def _translate_load_errors(place: Path) -> Iterator[None]:
    """Translate the errors of transformers for a model that cannot be loaded into `ModelError`."""
    try:
        yield
    except (ModelError, SettingUnsupported):
        raise
    except ImportError as error:
        raise ModelError(f"{place} needs a Python package that is not installed here: {error}") from error
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(f"{place} requires running code of the model, which is not allowed") from error
        raise ModelError(f"{place} cannot be loaded: {error}") from error


def _untie(model: PreTrainedModel, folder: Path) -> None:
    """Untie weights that the configuration ties but the files store separately, as loading does: FLAN-T5's head.

    A multimodal model's published names differ from its modules' names, but have the same endings.
    """
    multimodal = model.config.get_text_config(decoder=True) is not model.config and not model.config.is_encoder_decoder
    for tied, source in list(model.all_tied_weights_keys.items()):
        tensors = [_tensor(folder, name, by_ending=multimodal) for name in (tied, source)]
        if any(tensor is None for tensor in tensors) or torch.equal(*tensors):  # type: ignore[arg-type]
            continue
        module, _, name = tied.rpartition(".")
        weight = model.get_parameter(source)
        setattr(model.get_submodule(module), name, torch.nn.Parameter(torch.empty_like(weight)))
        del model.all_tied_weights_keys[tied]


def _tensor(folder: Path, name: str, *, by_ending: bool = False) -> torch.Tensor | None:
    """Return the tensor of a name; with `by_ending` else the only one with the same last two name parts."""
    ending = ".".join(name.split(".")[-2:])
    similar: list[tuple[Path, str]] = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            names = list(weights.keys())
            if name in names:
                return cast(torch.Tensor, weights.get_tensor(name))
            similar += [(file, other) for other in names if other == ending or other.endswith(f".{ending}")]
    if not by_ending or len(similar) != 1:
        return None
    [(file, other)] = similar
    with safe_open(file, "pt") as weights:
        return cast(torch.Tensor, weights.get_tensor(other))


def _locate(source: str) -> Path:
    if source.startswith("hub:"):
        return _download(source)
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


def _download(source: str) -> Path:
    name, _, commit = source.removeprefix("hub:").partition("@")
    if not COMMIT_PATTERN.fullmatch(commit):
        raise ModelError(
            f"{source}: expected hub:OWNER/NAME@COMMIT with a commit of 40 hexadecimal digits, since a branch or a tag"
            " may point to another model later"
        )
    try:
        return Path(snapshot_download(name, revision=commit, allow_patterns=HUB_FILES, ignore_patterns=["*/*"]))
    except HFValidationError as error:
        raise ModelError(f"{source}: {error}") from error
    except (OSError, HTTPError) as error:
        raise ModelError(
            f"{source} is neither in the local cache nor could it be fetched: {error}. Check the name, the commit and"
            " the network; a gated model needs HF_TOKEN, and HF_HUB_OFFLINE=1 forbids fetching. A local folder with"
            " the model can be given instead"
        ) from error


def _check_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: it is not a model folder")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} holds no .safetensors file; weights in pickle files are not loaded")
    if (folder / SAFETENSORS_INDEX).is_file():
        parts = set(json.loads((folder / SAFETENSORS_INDEX).read_text())["weight_map"].values())
        if lost := sorted(part for part in parts if not (folder / part).is_file()):
            raise ModelError(f"{folder} is incomplete: its index names {lost[0]}, which is missing")
    _refuse_quantised(folder)
    return folder


def _refuse_quantised(folder: Path) -> None:
    with _translate_load_errors(folder):
        method = detect_quantisation(folder)
    if method is not None:
        raise ModelError(
            f"{folder} holds quantised weights ({method}), which cannot be trained: use the original model, with"
            " weights in float32, float16 or bfloat16"
        )


def _convert(file: Path, folder: Path) -> None:
    with _translate_load_errors(file):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, local_files_only=True)
        quantised = AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=torch.float32, local_files_only=True
        )
    config = quantised.config
    del config.quantization_config  # the converted weights are not quantised
    plain = AutoModelForCausalLM.from_config(config)
    plain.load_state_dict(quantised.state_dict())
    plain.generation_config = quantised.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)

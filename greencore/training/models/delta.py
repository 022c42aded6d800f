"""A result as the tensors that training has changed: less to keep than the model, and exact to apply to its base."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import PreTrainedModel

from greencore.training.data.target_language import configure_target_language
from greencore.training.models.loading import load_model, load_tokenizer
from greencore.training.models.weights import named_tensors

DELTA_FILE_NAME = "delta.safetensors"
FORMAT = "greentune-delta"
VERSION = "1"


class DeltaError(ValueError):
    """The file is no delta, or not one of this base; the message says what was found and what was expected."""


def write_delta(model: PreTrainedModel, base_folder: Path, file: Path, *, base_name: str) -> None:
    """Write the tensors of `model` that differ by a bit from those in `base_folder`, as they are now.

    A tensor that is tied to another is written once. The file's metadata hold `base_name`, the tokens that end a text,
    and the SHA-256 of every
    tensor of the base in full precision, the unchanged ones included. Takes the memory of a second model.
    """
    base = named_tensors(load_model(base_folder))
    changed = {}
    for name, tensor in named_tensors(model).items():
        now = tensor.detach().cpu().contiguous()
        if not torch.equal(_bits(now), _bits(base[name])):
            changed[name] = now
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "base_model": base_name,
        "end_token_ids": json.dumps(model.generation_config.eos_token_id),
        "base_sha256": json.dumps({name: _digest(tensor) for name, tensor in base.items()}),
    }
    save_file(changed, file, metadata)


def apply_delta(base_folder: Path, file: Path, output: Path) -> Path:
    """Write the model that the delta makes of its base, with the base's tokenizer, as the new folder `output`.

    Its weights are, bit by bit, those that the run would have saved whole. Raises `DeltaError` where the file is no
    delta, or one of another base; then there is no `output`.
    """
    changed, metadata = _read(file)
    model, tokenizer = load_model(base_folder), load_tokenizer(base_folder)
    base = named_tensors(model)
    _check(base, changed, metadata, base_folder)
    with torch.no_grad():
        for name, tensor in changed.items():
            base[name].copy_(tensor)  # into what a tied tensor shares
    if "end_token_ids" in metadata:
        model.generation_config.eos_token_id = json.loads(metadata["end_token_ids"])
    configure_target_language(model, tokenizer)
    output.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{output.name}-", dir=output.parent))
    try:
        model.save_pretrained(working)
        tokenizer.save_pretrained(working)
        working.chmod(0o755)
        working.rename(output)
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return output


def _read(file: Path) -> tuple[dict[str, torch.Tensor], Mapping[str, str]]:
    try:
        with safe_open(file, "pt") as content:
            metadata = content.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DeltaError(f"{file} is no delta: expected a file that a run with result=delta has written")
            if metadata.get("version") != VERSION:
                raise DeltaError(
                    f"{file} is a delta of version {metadata.get('version')!r}: this GreenTune reads {VERSION!r}"
                )
            return {name: content.get_tensor(name) for name in content.keys()}, metadata  # noqa: SIM118
    except SafetensorError as error:
        raise DeltaError(f"{file} is no safetensors file: {error}") from error


def _check(
    base: Mapping[str, torch.Tensor],
    changed: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str],
    folder: Path,
) -> None:
    """Raises `DeltaError` where the delta was not made of this base, tensor by tensor."""
    name = metadata.get("base_model")
    another = f"{folder} is not the base of this delta, which is {name!r}"
    try:
        expected = dict(json.loads(metadata["base_sha256"]))
    except (KeyError, ValueError, TypeError) as error:
        raise DeltaError("the delta does not say which base it is of: its metadata have been changed") from error
    if strangers := sorted(set(expected) ^ set(base)):
        raise DeltaError(f"{another}: {len(strangers)} tensors are in one of them only, {strangers[0]} among them")
    if differing := [key for key, tensor in base.items() if _digest(tensor) != expected[key]]:
        raise DeltaError(f"{another}: {len(differing)} of its {len(base)} tensors differ, {differing[0]} among them")
    for key, tensor in changed.items():
        if key not in base or (tensor.shape, tensor.dtype) != (base[key].shape, base[key].dtype):
            raise DeltaError(f"the delta's {key} fits no tensor of the base: the file has been changed")


def _digest(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    digest.update(_bits(tensor.cpu()).numpy().tobytes())
    return digest.hexdigest()


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor: 0.0 and -0.0 are equal as numbers, and a NaN is not equal to itself."""
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

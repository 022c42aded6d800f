"""Saves the result of a run: a whole model, a delta from its base, or an adapter."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.backprop import NotFinite
from greencore.disk import atomic_directory, fsync_tree
from greencore.settings.hyperparameters import Hyperparameters
from greencore.training.models.delta import DELTA_FILE_NAME, write_delta
from greencore.training.models.gathering import gather_model
from greencore.training.models.weights import find_non_finite_tensor
from greencore.training.processes import do_first


def save_result(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    destination: Path,
    *,
    method: str,
    hyperparameters: Hyperparameters,
    base: Path,
    base_name: str,
) -> Path:
    """Write what the hyperparameters ask for to a temporary folder that is renamed, so that it is complete or absent.

    A LoRA is merged into the model, or saved by itself, as peft loads it; a delta is that from the model in the folder
    `base`. The saved files name the base `base_name` instead of its path. Of several processes the first one writes the
    whole model. Raises `NotFinite` for a model with non-finite weights.
    """
    adapter_only = method == "prefix" or (hyperparameters.lora is not None and hyperparameters.lora.result == "adapter")
    delta_base = base if hyperparameters.result == "delta" and not adapter_only else None
    whole = gather_model(model, base, method, hyperparameters)
    do_first(
        lambda: _write(
            cast(PreTrainedModel, whole),
            tokenizer,
            destination,
            merge=method == "lora" and not adapter_only,
            delta_base=delta_base,
            base_name=base_name,
        )
    )
    return destination


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    destination: Path,
    *,
    merge: bool,
    delta_base: Path | None,
    base_name: str,
) -> None:
    if merge:
        from greencore.training.methods.adapters import merge_adapter

        model = merge_adapter(cast(Any, model))
    if (name := find_non_finite_tensor(model)) is not None:
        raise NotFinite(f"after training {name} is not finite: training has diverged")
    with atomic_directory(destination.with_name(f".{destination.name}")) as working:
        if delta_base is not None:
            write_delta(model, delta_base, working / DELTA_FILE_NAME, base_name=base_name)
        else:
            model.save_pretrained(working)
            if hasattr(model, "peft_config"):
                adapter = working / "adapter_config.json"  # while saving, peft would look up a changed name on the hub
                config = json.loads(adapter.read_text()) | {"base_model_name_or_path": base_name}
                adapter.write_text(json.dumps(config, indent=2) + "\n")
                cast(Any, model).get_base_model().generation_config.save_pretrained(working)
                (working / "README.md").unlink(missing_ok=True)  # peft's generic model card
        tokenizer.save_pretrained(working)
        fsync_tree(working)
    if destination.exists():
        shutil.rmtree(destination)
    working.rename(destination)

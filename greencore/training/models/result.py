"""Saves the result of a run: a whole model, a delta from its base, or an adapter."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.backprop import NotFinite
from greencore.disk import atomic_directory, fsync_tree
from greencore.training.models.delta import DELTA_FILE_NAME, write_delta
from greencore.training.models.weights import find_non_finite_tensor


def save_result(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    destination: Path,
    *,
    merge: bool,
    delta_base: Path | None,
    base_name: str,
) -> Path:
    """Write the result to a temporary folder that is renamed, so that it is complete or absent.

    With `merge`, a LoRA is merged into the model first; otherwise an adapter is saved by itself, as peft loads it.
    With `delta_base`, write the delta from it. The saved files name the base `base_name` instead of its path. Raises
    `NotFinite` for a model with non-finite weights.
    """
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
    return destination

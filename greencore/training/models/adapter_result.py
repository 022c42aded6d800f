"""Merges a LoRA adapter that was saved as a result into its base; a module apart, since peft is slow to import."""

import warnings
from pathlib import Path

from peft import PeftModel
from transformers import GenerationConfig, PreTrainedModel

from greencore.training.data.target_language import configure_target_language
from greencore.training.models.delta import write_model_folder
from greencore.training.models.loading import ModelError, load_model, load_tokenizer


def apply_adapter(base_folder: Path, adapter_folder: Path, output: Path) -> Path:
    """Merge a LoRA adapter into its base, and write the model with the base's tokenizer to the new folder `output`.

    It is merged in float32, so that the weights are those of the merged result of a run in float32. Raises `ModelError`
    where the adapter does not fit.
    """
    model, tokenizer = load_model(base_folder), load_tokenizer(base_folder)
    try:
        with warnings.catch_warnings():
            # peft calls it by a name that transformers has deprecated
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            merged = PeftModel.from_pretrained(model, adapter_folder, local_files_only=True).merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"the adapter {adapter_folder.name} cannot be added to its base: {error}") from error
    assert isinstance(merged, PreTrainedModel)
    merged.generation_config = GenerationConfig.from_pretrained(adapter_folder, local_files_only=True)
    configure_target_language(merged, tokenizer)
    return write_model_folder(merged, tokenizer, output)

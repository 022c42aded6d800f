"""End-of-text and padding tokens of a tokenizer and model, and a check for tokens that the model does not know."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from greencore.training.data.tokenisation import Example
from greencore.training.models.loading import ModelError


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the end-of-text tokens of the tokenizer and of the generation and model configurations.

    A configuration names one token, a list or none, and may have a text configuration. Tokens without an embedding
    are left out, since the model cannot generate them.
    """
    named = [tokenizer.eos_token_id]
    for config in (getattr(model, "generation_config", None), model.config, model.config.get_text_config(decoder=True)):
        ends = getattr(config, "eos_token_id", None)
        named += ends if isinstance(ends, list | tuple) else [ends]
    size = _get_vocabulary_size(model)
    return list(dict.fromkeys(int(end) for end in named if end is not None and 0 <= int(end) < size))


def set_stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, turn_end: int | None = None) -> None:
    """Set the stop tokens of the model's generation configuration, which is saved with it.

    These are `end_token_ids` and `turn_end`, the end of a turn in the chat template (see
    `tokenisation.find_turn_end_token_of_rows`), which the configurations may lack.
    """
    ends = end_token_ids(model, tokenizer)
    if turn_end is not None and turn_end not in ends:
        ends.append(turn_end)
    settings: Any = model.generation_config
    now = settings.eos_token_id
    if set(ends) != set(now if isinstance(now, list | tuple) else [now]):
        settings.eos_token_id = ends
    if settings.pad_token_id is not None and not 0 <= settings.pad_token_id < _get_vocabulary_size(model):
        settings.pad_token_id = choose_padding_token_id(model, tokenizer)


def choose_padding_token_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the padding token: the tokenizer's, or another where the model has no embedding for it.

    Any token works, since padding is masked.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(token) for token in candidates if token is not None and 0 <= token < _get_vocabulary_size(model))


def refuse_unknown_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example]
) -> None:
    """Raise `ModelError` where the tokenised rows hold a token that the model has no embedding for."""
    read, written = (
        _get_embedding_size(model.get_input_embeddings()),
        _get_embedding_size(model.get_output_embeddings()),
    )
    for example in examples:
        for tokens, size in ((example.input_ids, read), (example.labels, written)):
            if size is not None and tokens and (token := max(tokens)) >= size:
                text = tokenizer.convert_ids_to_tokens([token])[0]
                raise ModelError(
                    f"a row has the token {text!r} with the id {token}, but the model knows {size} tokens:"
                    " the tokenizer is of another model, or has added tokens that the model lacks"
                )


def _get_vocabulary_size(model: PreTrainedModel) -> int:
    """Return the number of tokens that the model can both read and write."""
    sizes = [_get_embedding_size(part) for part in (model.get_input_embeddings(), model.get_output_embeddings())]
    known = [size for size in sizes if size is not None]
    return min(known) if known else int(model.config.get_text_config().vocab_size)


def _get_embedding_size(embedding: Any) -> int | None:
    weight = getattr(embedding, "weight", None)
    return None if weight is None else int(weight.shape[0])

"""Position limits of a model: the sizes of its position tables, which rows and completions must not exceed."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

POSITION_TABLE = re.compile(r"(^|_)(pos|wpe|posi\w*)(_|$)")
NON_TEXT_TABLE = re.compile(
    r"(^|[._])(relat\w*|rel|visual|vision|image|img|patch\w*|audio|speech|video|2d|[xyhw](?=_pos))(_|[.]|$)"
)
UNBOUNDED = sys.maxsize
PREFIX_TOKENS = 20  # of prefix tuning, as in the paper's own implementation


class MaxLengthExceeded(ValueError):
    """`max_length` exceeds the model's positions."""


@dataclass(frozen=True)
class PositionLimits:
    """Maximum tokens of a row that a model can read and write; `sys.maxsize` without a table.

    Both are equal for a decoder-only model; an encoder-decoder model reads with its encoder and writes with its
    decoder.
    """

    input_tokens: int = UNBOUNDED
    output_tokens: int = UNBOUNDED

    @property
    def row_tokens(self) -> int | None:
        """Largest valid `max_length`; None where the model sets no bound."""
        shortest = min(self.input_tokens, self.output_tokens)
        return None if shortest == UNBOUNDED else shortest

    def check_max_length(self, max_length: int) -> None:
        """Raise `MaxLengthExceeded` where rows of `max_length` tokens exceed the model's positions."""
        if self.row_tokens is not None and max_length > self.row_tokens:
            raise MaxLengthExceeded(
                f"given {max_length}, but the model has positions for {self.row_tokens} tokens of a row"
            )


def get_position_limits(model: Any, *, method: str | None = None) -> PositionLimits:
    """Return the position limits by the sizes of the model's tables, not by its configuration.

    Counted are embeddings and buffers of absolute positions of fixed size, less the first rows that some families
    leave unused (two in OPT and BART, those up to the padding's in RoBERTa). Rotary and relative positions and ALiBi
    have no table, though quality may drop beyond the length that the model was trained at. The model may be on the
    meta device. The tokens of prefix tuning, which precede a decoder's, are subtracted for an adapted model and for
    `method` "prefix".
    """
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    adapters = getattr(model, "peft_config", {}).values()
    taken = sum(getattr(adapter, "num_virtual_tokens", None) or 0 for adapter in adapters)
    taken = taken or (PREFIX_TOKENS if method == "prefix" else 0)
    encoder = bool(base.config.is_encoder_decoder)
    read, written = UNBOUNDED, UNBOUNDED
    for name, size in _list_position_tables(base):
        if encoder and re.search(r"(^|[._])encoder([._]|$)", name):
            read = min(read, size)
        else:
            written = min(written, size)
    bound = getattr(base.config, "max_seq_len", None) if base.config.model_type == "mpt" else None
    written = min(written, bound or UNBOUNDED)
    if written != UNBOUNDED:
        written = max(1, written - taken)
    return PositionLimits(read if encoder else written, written)


def _list_position_tables(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Yield each position table's name and number of usable positions."""
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding) or not _is_position_table(name):
            continue
        if hasattr(module, "make_weight") or hasattr(module, "make_weights"):
            continue  # it grows with the row length
        unused = getattr(module, "offset", None)
        if unused is None:
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
        yield name, module.num_embeddings - int(unused)
    for name, buffer in model.named_buffers():
        if (
            _is_position_table(name)
            and isinstance(buffer, torch.Tensor)
            and buffer.dim() == 2
            and buffer.is_floating_point()
        ):
            yield name, buffer.shape[0]


def _is_position_table(name: str) -> bool:
    return POSITION_TABLE.search(name.rpartition(".")[2]) is not None and NON_TEXT_TABLE.search(name) is None

"""Parser of tensor names into stack, block and kind, for the history of selected tensors."""

import re
from dataclasses import dataclass

STACKS = ("encoder", "decoder")
# Added by peft to the names of a model and its adapters.
WRAPPERS = re.compile(r"^(base_model\.model\.)+|\.default(?=\.|$)")


@dataclass(frozen=True)
class TensorLocation:
    """Location of a tensor in a model.

    `stack` is set for an encoder-decoder model, `layer` is the block in its stack (from 0; None outside the blocks),
    `kind` is the name within a block, the same in all blocks ("self_attn.q_proj", "mlp.down_proj",
    "self_attn.q_proj.bias"), or the tensor's name outside the blocks ("lm_head").
    """

    stack: str | None
    layer: int | None
    kind: str


def locate_tensor(name: str) -> TensorLocation:
    """Parse a parameter name of transformers or peft, such as "model.layers.3.mlp.down_proj.weight"."""
    parts = WRAPPERS.sub("", name).split(".")
    block = next((index for index, part in enumerate(parts) if part.isdecimal()), None)
    outer, inner = (parts, parts) if block is None else (parts[:block], parts[block + 1 :])
    stack = next((part for part in outer if part in STACKS), None)
    # Parts of a block may be numbered too: T5's "layer.1.EncDecAttention.q", and experts.
    named = [part for part in inner if not part.isdecimal() and part not in ("layer", "layers", *STACKS)]
    if named[-1:] == ["weight"]:
        named.pop()
    if block is None and named[:1] in (["model"], ["transformer"]):
        named = named[1:] or named
    return TensorLocation(stack, None if block is None else int(parts[block]), ".".join(named) or name)
